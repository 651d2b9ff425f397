"""Families of vision nets: what `VisionNet` needs of one, and how each of timm's is built and changed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

import timm
from jaxtyping import Float
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.squeeze_excite import SEModule
from timm.models.resnet import BasicBlock
from timm.models.resnetv2 import PreActBasic, ResNetV2
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.config import BACKBONES, VisionConfig
from s3ta.models.denoise import DenoisingBlock
from s3ta.models.padding import pad_as_tensorflow
from s3ta.models.timm_backbone import TimmBackbone
from s3ta.types import Images


@runtime_checkable
class Backbone(Protocol):
    """A net built from a config, and its parts: `last(stages(stem(images)))` is what `features(images)` gives."""

    net: Any
    """timm's module. Keys of weights and the hash of the printed modules begin with it, so it is wrapped in no other."""

    not_built: tuple[str, ...]
    """Names of the whole network's weights that belong to its head, or to what comes after the map."""

    @property
    def num_features(self) -> int:
        """Channels of the map."""
        ...

    def features(self, images: Images) -> Float[Tensor, "B F h w"]:
        """The map of normalised images."""
        ...

    def make_dense(self) -> None:
        """Stride 1 in every stage except the second (M2, M3), without dilation."""

    def map_size(self, image_size: int) -> int:
        """Height (or width) of the map for this image size."""
        ...


class ResNetBackbone(ABC):
    """What ResNets have in common: `last(stages(stem(images)))` is the map, and a stride belongs to each stage."""

    net: Any
    not_built: tuple[str, ...] = ("head.", "fc.")
    stages: list[nn.Sequential]
    """Units one after the other. Between any two activations may be dropped and made again."""
    last: nn.Module
    """What ends the features: a norm with its ReLU, or nothing."""

    @property
    @abstractmethod
    def stem(self) -> nn.Module:
        """Images -> the first map."""

    @property
    def num_features(self) -> int:
        return self.net.num_features

    @property
    def units(self) -> list[nn.Module]:
        """The residual units and denoising blocks, one after the other."""
        return [unit for stage in self.stages for unit in stage]

    def features(self, images: Images) -> Float[Tensor, "B F h w"]:
        return self.net.forward_features(images)

    @property
    @abstractmethod
    def stem_strides(self) -> list[int]:
        """Of the stem's convolution and its pool."""

    @property
    def shortcuts(self) -> list[nn.Conv2d | None]:
        """The convolution of each stage's first shortcut."""
        first: list[Any] = [stage[0] for stage in self.stages]
        return [None if unit.downsample is None else _first_convolution(unit.downsample) for unit in first]

    def make_dense(self) -> None:
        """The strides are carried by each stage's first 3x3 convolution and its shortcut; padding stays as it is (M4a)."""
        for index, (stage, shortcut) in enumerate(zip(self.stages, self.shortcuts, strict=True)):
            stride = 2 if index == 1 else 1
            for convolution in (_spatial(stage[0]), shortcut):
                if convolution is not None:
                    convolution.stride = (stride, stride)

    def map_size(self, image_size: int) -> int:
        """Every stride of 2 halves it, rounding up."""
        strides = [*self.stem_strides, *(_spatial(stage[0]).stride[0] for stage in self.stages)]
        return math.ceil(image_size / math.prod(strides))


class PreActResNet(ResNetBackbone):
    """Pre-activation ResNets, narrow or wide (timm's `ResNetV2`), with one of three stems."""

    def __init__(self, config: VisionConfig) -> None:
        self.net: Any = _resnetv2(config)  # timm reads its parts by name, which a type checker cannot follow
        self.stages: list[nn.Sequential] = [stage.blocks for stage in self.net.stages]
        self.last: nn.Module = self.net.norm
        if config.stem != "conv7_pool":
            self.net.stem.pool = nn.Identity()
        if config.stem == "conv3":
            self.net.stem.conv = _conv3(config.in_channels, self.net.stem.conv.out_channels)
        if config.squeeze_excite:
            for unit in self.units:
                name = "conv2" if isinstance(unit, PreActBasic) else "conv3"
                last = getattr(unit, name)
                setattr(unit, name, nn.Sequential(last, SEModule(last.out_channels)))

    @property
    def stem(self) -> Any:
        return self.net.stem

    @property
    def stem_strides(self) -> list[int]:
        return [self.stem.conv.stride[0], _stride(self.stem.pool)]


class PostActResNet(ResNetBackbone):
    """ResNets whose units end with the ReLU (V1; timm's `ResNet`), the stride on the 3x3 convolution as in C2."""

    def __init__(self, config: VisionConfig) -> None:
        self.net: Any = timm.create_model(
            config.backbone,
            pretrained=False,
            num_classes=0,
            global_pool="",
            in_chans=config.in_channels,
            zero_init_last=config.zero_init_last,
            norm_layer=partial(BatchNormAct2d, apply_act=False),
            block_args={"attn_layer": "se"} if config.squeeze_excite else None,
        )
        self.stages: list[nn.Sequential] = [self.net.layer1, self.net.layer2, self.net.layer3, self.net.layer4]
        self.last: nn.Module = nn.Identity()
        if config.stem != "conv7_pool":
            self.net.maxpool = nn.Identity()
        if config.stem == "conv3":
            self.net.conv1 = _conv3(config.in_channels, self.net.conv1.out_channels)

    @property
    def stem(self) -> nn.Module:
        return nn.Sequential(self.net.conv1, self.net.bn1, self.net.act1, self.net.maxpool)

    @property
    def stem_strides(self) -> list[int]:
        return [self.net.conv1.stride[0], _stride(self.net.maxpool)]


FAMILIES: dict[str, Callable[[VisionConfig], ResNetBackbone]] = {
    name: PreActResNet if name.startswith(("resnetv2", "wrn")) else PostActResNet for name in BACKBONES
}


def build_backbone(config: VisionConfig) -> Backbone:
    """The backbone of a config, with fresh weights. Raises UserError for an unknown name, nearest names offered."""
    if config.backbone not in FAMILIES:
        return TimmBackbone(config)
    if config.stage is not None or config.drop_path:
        raise UserError(f"vision.stage and vision.drop_path are for networks of timm, not for {config.backbone}.")
    backbone = FAMILIES[config.backbone](config)
    if config.dense:
        backbone.make_dense()
    if config.padding == "same":
        pad_as_tensorflow(backbone.net)
    if config.activation == "softplus":
        _soften(backbone.net)
    if config.denoise is not None:
        for stage, features in zip(backbone.stages, backbone.net.feature_info[1:], strict=True):
            stage.append(DenoisingBlock(features["num_chs"], config.denoise))
    return backbone


def _resnetv2(config: VisionConfig) -> nn.Module:
    if config.backbone == "resnetv2_mini":
        # Small enough for adversarial training on one CPU core: 16.9 MMAC on a dense 15x15 map at 60 px.
        return _basic(config, layers=(1, 1, 1), channels=(8, 32, 64), stem_channels=8)
    if config.backbone.startswith("wrn_28_"):
        # Wide ResNet 28-k (Zagoruyko and Komodakis 2016): 28 = 4 + 6 x 4 layers, k times the channels of the narrow one.
        width = int(config.backbone.removeprefix("wrn_28_"))
        return _basic(config, layers=(4, 4, 4), channels=(16 * width, 32 * width, 64 * width), stem_channels=16)
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


def _conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """The stem of small images: 3x3, stride 1."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution


def _first_convolution(module: nn.Module) -> nn.Conv2d:
    return next(part for part in module.modules() if isinstance(part, nn.Conv2d))


def _soften(net: nn.Module) -> None:
    """Softplus in the place of every ReLU, but for those of squeeze-and-excite."""
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU) and not isinstance(module, SEModule):
                setattr(module, name, nn.Softplus())


def _spatial(unit: Any) -> nn.Conv2d:
    """The 3x3 convolution that carries a unit's stride."""
    return unit.conv1 if isinstance(unit, PreActBasic | BasicBlock) else unit.conv2


def _stride(pool: Any) -> int:
    """Of a pool, or 1 where there is none; SAME padding makes a pair of it."""
    stride = getattr(pool, "stride", 1)
    return stride[0] if isinstance(stride, tuple) else stride
