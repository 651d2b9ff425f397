"""From a name or a config to a model: `[s3ta_K_]BACKBONE[_dense]`."""

from __future__ import annotations

import re

from torch import nn

from s3ta.errors import unknown_name
from s3ta.models.config import ModelConfig, ResNetConfig, S3TAConfig, VisionConfig, default_stem
from s3ta.models.pooled_classifier import ResNet
from s3ta.models.s3ta import S3TA
from s3ta.models.vision import BACKBONES

GLIMPSES = (2, 4, 8, 16)
# A vision net of 64 channels does not feed the paper's 1024-unit controller: the mini's head is scaled to it. From 512 channels
# (resnetv2_18) up the paper's head stays: there it costs 18 MMAC per glimpse, 0.6% of the dense vision net at 32 px.
_MINI_HEAD = {"key_channels": 8, "lstm_size": 128, "query_hidden": 128, "readout_hidden": 128}


def list_models() -> list[str]:
    """Every name that `create_model` is tested with; S3TA takes any number of glimpses in place of those listed."""
    rivals = [name + dense for name in BACKBONES for dense in ("", "_dense")]
    return rivals + [f"s3ta_{glimpses}_{name}" for name in BACKBONES for glimpses in GLIMPSES]


def model_config(
    name: str, num_classes: int = 1000, image_size: int = 224, in_channels: int = 3
) -> S3TAConfig | ResNetConfig:
    """The config that a name stands for; the stem follows the image size.

    Raises UserError for an unknown name (nearest names offered)."""
    match = re.fullmatch(rf"(?:s3ta_([1-9][0-9]*)_)?({'|'.join(BACKBONES)})(_dense)?", name)
    if match is None or (match[1] and match[3]):
        raise unknown_name("model", name, list_models(), "s3ta list models")
    glimpses, backbone, dense = match.groups()
    vision = VisionConfig(
        backbone=backbone,
        dense=bool(glimpses or dense),
        stem=default_stem(image_size),
        in_channels=in_channels,
        image_size=image_size,
    )
    if not glimpses:
        return ResNetConfig(name=name, num_classes=num_classes, vision=vision)
    config = S3TAConfig(name=name, num_classes=num_classes, vision=vision, num_glimpses=int(glimpses))
    return config.model_copy(update=_MINI_HEAD) if backbone == "resnetv2_mini" else config


def build_model(config: ModelConfig) -> S3TA | ResNet:
    """The model of a config, with fresh weights from torch's generator (seed it, or see `seeded`)."""
    return S3TA(config) if isinstance(config, S3TAConfig) else ResNet(config)


def create_model(name: str, num_classes: int = 1000, image_size: int = 224, in_channels: int = 3) -> S3TA | ResNet:
    """A model with fresh weights, for images in [0, 1].

    Args:
      name: one of `list_models()`, for example `s3ta_16_resnetv2_152` (the paper's largest) or `resnetv2_152_dense`.
      num_classes: size of the answer.
      image_size: height and width in pixels; chooses the stem.
      in_channels: image channels.
    Raises:
      UserError: unknown name, nearest names offered."""
    return build_model(model_config(name, num_classes, image_size, in_channels))


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(parameter.numel() for parameter in model.parameters())
