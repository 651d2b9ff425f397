"""The vision net: timm's pre-activation ResNet with its strides changed, behind the input normalisation.

This is the only place where pixels are normalised: everything outside a model works on images in [0, 1].
"""

from __future__ import annotations

import math
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnetv2 import PreActBasic, ResNetV2
from torch import Tensor, nn

from s3ta.errors import UserError, unknown_name
from s3ta.models.activation_checkpointing import recomputed
from s3ta.models.config import BACKBONES, VisionConfig
from s3ta.types import Images


class Normalize(nn.Module):
    """(images - mean) / std, with the constants kept as buffers outside the state dict: they belong to the config."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Images) -> Images:
        return (images - self.mean) / self.std


class VisionNet(nn.Module):
    """Images in [0, 1] -> the map of features after the last BN and ReLU (M4), so every feature is >= 0.

    Stage strides are (1, 2, 1, 1) where `config.dense`, carried by the first unit's 3x3 convolution and its shortcut
    (M2, M3); no dilation, symmetric padding (M4a). A 224 px image gives 28x28x2048 (ResNet-50 and deeper)."""

    units_per_checkpoint: int = 0
    """Where it is not 0, activations are kept only before every so many units; the others are made again when needed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        for name in ("mean", "std"):
            if len(getattr(config, name)) not in (1, config.in_channels):
                raise UserError(
                    f"vision.{name} has {len(getattr(config, name))} numbers, but the images have "
                    f"{config.in_channels} channels: give one number, or one per channel."
                )
        self.normalize = Normalize(config.mean, config.std)
        self.net: Any = _backbone(config)  # timm reads its parts by name, which a type checker cannot follow
        _set_stem(self.net, config)
        if config.dense:
            for index, stage in enumerate(self.net.stages):
                _set_stride(stage, 2 if index == 1 else 1)

    @property
    def num_features(self) -> int:
        """Channels of the map."""
        return self.net.num_features

    def map_size(self, image_size: int) -> int:
        """Height (or width) of the map for this image size: every stride of 2 halves it, rounding up."""
        strides = [self.net.stem.conv.stride[0], getattr(self.net.stem.pool, "stride", 1)]
        strides += [_spatial(stage.blocks[0]).stride[0] for stage in self.net.stages]
        return math.ceil(image_size / math.prod(strides))

    def forward(self, images: Images) -> Float[Tensor, "B F h w"]:
        normalized = self.normalize(images)
        if not (self.units_per_checkpoint and torch.is_grad_enabled()):
            return self.net.forward_features(normalized)
        units = [unit for stage in self.net.stages for unit in stage.blocks]
        return self.net.norm(recomputed(units, self.net.stem(normalized), self.units_per_checkpoint))


def _backbone(config: VisionConfig) -> nn.Module:
    if config.backbone not in BACKBONES:
        raise unknown_name("backbone", config.backbone, BACKBONES, "s3ta list models")
    if config.backbone == "resnetv2_mini":
        # Small enough for adversarial training on one CPU core: 16.9 MMAC on a dense 15x15 map at 60 px.
        return _basic(config, layers=(1, 1, 1), channels=(8, 32, 64), stem_channels=8)
    if config.backbone == "wrn_28_10":
        # Wide ResNet 28-10 (Zagoruyko and Komodakis 2016): 28 = 4 + 6 x 4 layers, ten times the channels of the narrow one.
        return _basic(config, layers=(4, 4, 4), channels=(160, 320, 640), stem_channels=16)
    return timm.create_model(
        config.backbone,
        pretrained=False,
        num_classes=0,
        global_pool="",
        in_chans=config.in_channels,
        zero_init_last=config.zero_init_last,
    )


def _basic(config: VisionConfig, layers: tuple[int, ...], channels: tuple[int, ...], stem_channels: int) -> nn.Module:
    """Stages of so many pre-activation units of two 3x3 convolutions; the first keeps the stem's map, each other halves it."""
    return ResNetV2(
        layers=list(layers),
        channels=channels,
        stem_chs=stem_channels,
        basic=True,
        bottle_ratio=1.0,
        zero_init_last=config.zero_init_last,
        num_classes=0,
        global_pool="",
        in_chans=config.in_channels,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )


def _set_stem(net: Any, config: VisionConfig) -> None:
    if config.stem == "conv7_pool":
        return
    net.stem.pool = nn.Identity()
    if config.stem == "conv3":
        width = net.stem.conv.out_channels
        net.stem.conv = nn.Conv2d(config.in_channels, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(net.stem.conv.weight, mode="fan_out", nonlinearity="relu")


def _spatial(block: Any) -> nn.Conv2d:
    """The 3x3 convolution that carries a unit's stride."""
    return block.conv1 if isinstance(block, PreActBasic) else block.conv2


def _set_stride(stage: Any, stride: int) -> None:
    block = stage.blocks[0]
    _spatial(block).stride = (stride, stride)
    if block.downsample is not None:
        block.downsample.conv.stride = (stride, stride)
