"""Classifiers: images in [0, 1] -> logits. Shapes are named in `s3ta.types`.

Knows nothing of attacks, data or training. Read `s3ta.models.s3ta` first.
"""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.models.classifier_wrapper import DEFAULT_PROVENANCE as DEFAULT_PROVENANCE
    from s3ta.models.classifier_wrapper import Classifier as Classifier
    from s3ta.models.classifier_wrapper import EvaluationTransform as EvaluationTransform
    from s3ta.models.classifier_wrapper import ModelMetadata as ModelMetadata
    from s3ta.models.classifier_wrapper import PreparationSources as PreparationSources
    from s3ta.models.classifier_wrapper import device_of as device_of
    from s3ta.models.classifier_wrapper import model_metadata as model_metadata
    from s3ta.models.classifier_wrapper import select_outputs as select_outputs
    from s3ta.models.config import ModelConfig as ModelConfig
    from s3ta.models.config import ResNetConfig as ResNetConfig
    from s3ta.models.config import S3TAConfig as S3TAConfig
    from s3ta.models.config import VisionConfig as VisionConfig
    from s3ta.models.config import default_stem as default_stem
    from s3ta.models.config import list_models as list_models
    from s3ta.models.config import model_config as model_config
    from s3ta.models.execution import ExecutedModel as ExecutedModel
    from s3ta.models.execution import ExecutionMode as ExecutionMode
    from s3ta.models.factory import build_model as build_model
    from s3ta.models.factory import create_model as create_model
    from s3ta.models.factory import num_parameters as num_parameters
    from s3ta.models.load_options import LoadOptions as LoadOptions
    from s3ta.models.load_options import is_external as is_external
    from s3ta.models.load_options import refuse_unknown_source as refuse_unknown_source
    from s3ta.models.open_any_model import open_model as open_model
    from s3ta.models.precomputed_costs import Cost as Cost
    from s3ta.models.precomputed_costs import count_cost as count_cost
    from s3ta.models.pretrained import find_weights as find_weights
    from s3ta.models.pretrained import from_pretrained as from_pretrained
    from s3ta.models.pretrained import load_weights as load_weights
    from s3ta.models.pretrained import read_config as read_config
    from s3ta.models.pretrained import read_tensors as read_tensors
    from s3ta.models.pretrained import save_pretrained as save_pretrained
    from s3ta.models.pretrained import tensor_as_bytes as tensor_as_bytes
    from s3ta.models.pretrained import weights_hash as weights_hash
    from s3ta.models.s3ta import S3TA as S3TA
    from s3ta.models.vision import NativeClassifier as NativeClassifier
    from s3ta.models.vision import PooledClassifier as PooledClassifier

load_names_on_first_use(__name__)
