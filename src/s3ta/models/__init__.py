"""Classifiers: images in [0, 1] -> logits. Shapes are named in `s3ta.types`.

Knows nothing of attacks, data or training. Read `s3ta.models.s3ta` first.
"""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.models.classifier_wrapper import (
        DEFAULT_PROVENANCE,
        Classifier,
        EvaluationTransform,
        ModelMetadata,
        PreparationSources,
        device_of,
        model_metadata,
        select_outputs,
    )
    from s3ta.models.config import (
        ModelConfig,
        ResNetConfig,
        S3TAConfig,
        VisionConfig,
        default_stem,
        list_models,
        model_config,
    )
    from s3ta.models.execution import ExecutedModel, ExecutionMode
    from s3ta.models.external import open_model
    from s3ta.models.factory import build_model, create_model, num_parameters
    from s3ta.models.load_options import LoadOptions, is_external, refuse_unknown_source
    from s3ta.models.precomputed_costs import Cost, count_cost
    from s3ta.models.pretrained import (
        find_weights,
        from_pretrained,
        load_weights,
        read_config,
        read_tensors,
        save_pretrained,
        tensor_as_bytes,
        weights_hash,
    )
    from s3ta.models.s3ta import S3TA
    from s3ta.models.vision import NativeClassifier, PooledClassifier

__all__ = [
    "DEFAULT_PROVENANCE",
    "S3TA",
    "Classifier",
    "Cost",
    "EvaluationTransform",
    "ExecutedModel",
    "ExecutionMode",
    "LoadOptions",
    "ModelConfig",
    "ModelMetadata",
    "NativeClassifier",
    "PooledClassifier",
    "PreparationSources",
    "ResNetConfig",
    "S3TAConfig",
    "VisionConfig",
    "build_model",
    "count_cost",
    "create_model",
    "default_stem",
    "device_of",
    "find_weights",
    "from_pretrained",
    "is_external",
    "list_models",
    "load_weights",
    "model_config",
    "model_metadata",
    "num_parameters",
    "open_model",
    "read_config",
    "read_tensors",
    "refuse_unknown_source",
    "save_pretrained",
    "select_outputs",
    "tensor_as_bytes",
    "weights_hash",
]

load_names_on_first_use(__name__)
