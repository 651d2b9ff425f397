"""From a name or a config to a model."""

from __future__ import annotations

from torch import nn

from s3ta.models.config import ModelConfig, S3TAConfig, model_config
from s3ta.models.s3ta import S3TA
from s3ta.models.vision import NativeClassifier, PooledClassifier


def build_model(config: ModelConfig) -> NativeClassifier:
    """The model of a config, with fresh weights from torch's generator (seed it, or see `seeded`)."""
    return S3TA(config) if isinstance(config, S3TAConfig) else PooledClassifier(config)


def create_model(
    name: str, num_classes: int = 1000, image_size: int | None = None, in_channels: int = 3
) -> NativeClassifier:
    """A model with fresh weights, for images in [0, 1].

    Args:
      name: one of `list_models()`, for example `s3ta_16_resnetv2_152` (the paper's largest) or `resnetv2_152_dense`; or a
        network of timm that has a map of features, alone or under S3TA, such as `s3ta_4_convnext_tiny`.
      num_classes: size of the answer.
      image_size: height and width in pixels; chooses the stem of a ResNet. None: 224, or what timm's card says.
      in_channels: image channels.
    Raises UserError: unknown name, nearest names offered."""
    return build_model(model_config(name, num_classes, image_size, in_channels))


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters())
