"""Families of vision nets: what `VisionNet` needs of one, and how each of timm's is built and changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import timm
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnetv2 import PreActBasic, ResNetV2
from torch import nn

from s3ta.errors import unknown_name
from s3ta.models.config import BACKBONES, VisionConfig


@runtime_checkable
class Backbone(Protocol):
    """A net built from a config, and its parts: `last(units(stem(images)))` is what `net.forward_features(images)` gives."""

    net: Any
    """timm's module. Keys of weights and the hash of the printed modules begin with it, so it is wrapped in no other."""
    stem: Any
    """Images -> the first map."""
    units: list[nn.Module]
    """What follows, one after the other. Between any two activations may be dropped and made again."""
    last: nn.Module
    """What ends the features: a norm, perhaps with a ReLU."""

    def make_dense(self) -> None:
        """Stride 1 in every stage except the second (M2, M3), without dilation."""

    def map_size(self, image_size: int) -> int:
        """Height (or width) of the map for this image size."""
        ...


class PreActResNet:
    """Pre-activation ResNets, narrow or wide (timm's `ResNetV2`), with one of three stems."""

    def __init__(self, config: VisionConfig) -> None:
        self.net: Any = _resnet(config)  # timm reads its parts by name, which a type checker cannot follow
        self.stem: Any = self.net.stem
        self.units: list[nn.Module] = [unit for stage in self.net.stages for unit in stage.blocks]
        self.last: nn.Module = self.net.norm
        if config.stem != "conv7_pool":
            self.stem.pool = nn.Identity()
        if config.stem == "conv3":
            self.stem.conv = nn.Conv2d(config.in_channels, self.stem.conv.out_channels, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(self.stem.conv.weight, mode="fan_out", nonlinearity="relu")

    def make_dense(self) -> None:
        """The strides are carried by each stage's first 3x3 convolution and its shortcut; padding stays symmetric (M4a)."""
        for index, stage in enumerate(self.net.stages):
            block, stride = stage.blocks[0], 2 if index == 1 else 1
            _spatial(block).stride = (stride, stride)
            if block.downsample is not None:
                block.downsample.conv.stride = (stride, stride)

    def map_size(self, image_size: int) -> int:
        """Every stride of 2 halves it, rounding up."""
        strides = [self.stem.conv.stride[0], getattr(self.stem.pool, "stride", 1)]
        strides += [_spatial(stage.blocks[0]).stride[0] for stage in self.net.stages]
        return math.ceil(image_size / math.prod(strides))


FAMILIES: dict[str, Callable[[VisionConfig], Backbone]] = dict.fromkeys(BACKBONES, PreActResNet)


def build_backbone(config: VisionConfig) -> Backbone:
    """The backbone of a config, with fresh weights. Raises UserError for an unknown name, nearest names offered."""
    if config.backbone not in FAMILIES:
        raise unknown_name("backbone", config.backbone, FAMILIES, "s3ta list models")
    backbone = FAMILIES[config.backbone](config)
    if config.dense:
        backbone.make_dense()
    return backbone


def _resnet(config: VisionConfig) -> nn.Module:
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


def _spatial(block: Any) -> nn.Conv2d:
    """The 3x3 convolution that carries a unit's stride."""
    return block.conv1 if isinstance(block, PreActBasic) else block.conv2
