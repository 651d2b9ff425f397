"""The vision net, a backbone behind the input normalisation, and the plain classifier of its map.

This is the only place where pixels are normalised: everything outside a model works on images in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s3ta.errors import UserError
from s3ta.models.backbones import ResNetBackbone, build_backbone
from s3ta.models.batch_norm_statistics import statistics_kept
from s3ta.models.config import ModelConfig, ResNetConfig, VisionConfig
from s3ta.types import Images, Logits


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


def check_length(what: str, numbers: Sequence[float], in_channels: int) -> None:
    """UserError where a mean or a deviation has neither one number nor one per channel."""
    if len(numbers) not in (1, in_channels):
        raise UserError(
            f"{what} has {len(numbers)} numbers, but the images have {in_channels} channels: "
            "give one number, or one per channel."
        )


def checkpoint_groups(units: Sequence[nn.Module], units_per_checkpoint: int) -> Iterator[nn.Sequential]:
    """The units, so many at a time; the last group may have fewer."""
    for first in range(0, len(units), units_per_checkpoint):
        yield nn.Sequential(*units[first : first + units_per_checkpoint])


def _recomputed(group: nn.Module, features: Tensor) -> Tensor:
    """The group's answer and gradients as they are without; what it computes on the way is made again for the gradients.

    Made again, BN takes the same batch's statistics but does not move its averages a second time."""
    return checkpoint(
        group,
        features,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), statistics_kept(group)),
    )  # pyright: ignore[reportReturnType]


class VisionNet(nn.Module):
    """Images in [0, 1] -> the map of features (M4); a `resnetv2` ends with BN and ReLU, so each of its features is >= 0.

    A dense one halves the stem's map once (M2-M4a): a 224 px image gives 28x28x2048 (ResNet-50 and deeper)."""

    units_per_checkpoint: int = 0
    """Where it is not 0, activations are kept only before every so many units; the others are made again when needed."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        check_length("vision.mean", config.mean, config.in_channels)
        check_length("vision.std", config.std, config.in_channels)
        self.normalize = Normalize(config.mean, config.std)
        self.backbone = build_backbone(config)
        self.net = self.backbone.net

    @property
    def num_features(self) -> int:
        """Channels of the map."""
        return self.backbone.num_features

    def forward(self, images: Images) -> Float[Tensor, "B F h w"]:
        if not (self.units_per_checkpoint and torch.is_grad_enabled()):
            return self.backbone.features(self.normalize(images))
        assert isinstance(self.backbone, ResNetBackbone), "recipes allow units_per_checkpoint for ResNets alone"
        features = self.backbone.stem(self.normalize(images))
        for group in checkpoint_groups(self.backbone.units, self.units_per_checkpoint):
            features = _recomputed(group, features)
        return self.backbone.last(features)


class NativeClassifier(nn.Module):
    """A model of this package: the vision net of its config, and logits of the map in each class's own way."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config: ModelConfig = config
        self.vision = VisionNet(config.vision)


def truncated_normal_(weight: Tensor, *, fan_in: int) -> None:
    """Sonnet's initialisation, which torch does not name: normal with std 1/sqrt(fan_in), cut at two deviations (M12)."""
    std = 1 / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer as Sonnet begins it: weights as above, biases zero (M12)."""
    layer = nn.Linear(inputs, outputs)
    truncated_normal_(layer.weight, fan_in=inputs)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer with ReLU (paper A.2.3, A.2.4)."""
    return nn.Sequential(linear(inputs, hidden), nn.ReLU(), linear(hidden, outputs))


class PooledClassifier(NativeClassifier):
    """The plain rivals: the map averaged over all places and one linear layer (C1), or one hidden layer. With `vision.dense` it
    is the stride-matched control of S3TA (M16)."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        features, classes = self.vision.num_features, config.num_classes
        hidden = config.mlp_hidden
        self.classifier = linear(features, classes) if hidden is None else mlp(features, hidden, classes)

    def _get_name(self) -> str:
        """As torch prints it: manifests hold a hash of the printed modules, made when the class was called so."""
        return "ResNet" if type(self) is PooledClassifier else super()._get_name()

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.vision(images).mean(dim=(2, 3)))
