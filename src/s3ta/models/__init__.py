"""Classifiers: images in [0, 1] -> logits. Shapes are named in `s3ta.types`.

Knows nothing of attacks, data or training. Read `s3ta.models.s3ta` first.
"""

from s3ta.models.config import ModelConfig, ResNetConfig, S3TAConfig, VisionConfig, default_stem
from s3ta.models.cost import Cost, count
from s3ta.models.execution import InManner, Manner
from s3ta.models.external import Opening, is_foreign, open_model, refuse_file_of_code
from s3ta.models.factory import build_model, create_model, list_models, model_config, num_parameters
from s3ta.models.info import UNKNOWN, Card, Classifier, Origins, View, card_of, device_of, with_outputs
from s3ta.models.pooled_classifier import ResNet
from s3ta.models.pretrained import (
    find_weights,
    from_pretrained,
    load_weights,
    read_config,
    read_tensors,
    save_pretrained,
    tensor_bytes,
    weights_hash,
)
from s3ta.models.s3ta import S3TA

__all__ = [
    "S3TA",
    "UNKNOWN",
    "Card",
    "Classifier",
    "Cost",
    "InManner",
    "Manner",
    "ModelConfig",
    "Opening",
    "Origins",
    "ResNet",
    "ResNetConfig",
    "S3TAConfig",
    "View",
    "VisionConfig",
    "build_model",
    "card_of",
    "count",
    "create_model",
    "default_stem",
    "device_of",
    "find_weights",
    "from_pretrained",
    "is_foreign",
    "list_models",
    "load_weights",
    "model_config",
    "num_parameters",
    "open_model",
    "read_config",
    "read_tensors",
    "refuse_file_of_code",
    "save_pretrained",
    "tensor_bytes",
    "weights_hash",
    "with_outputs",
]
