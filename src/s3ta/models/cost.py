"""What a forward pass costs and keeps, counted by torch itself on a model that takes no memory (protocol tables 1.4, 1.5)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
from pydantic import TypeAdapter
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from s3ta.models.backbones import ResNetBackbone
from s3ta.models.config import ModelConfig, ResNetConfig, S3TAConfig
from s3ta.models.factory import build_model, num_parameters
from s3ta.models.precomputed_costs import Cost
from s3ta.models.vision import NativeClassifier, checkpoint_groups

_READ: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)


def count(config: ModelConfig) -> Cost:
    """Parameters, multiply-accumulates (convolutions and matrix products) and map size of a config, without building it."""
    return _count(config.model_dump_json())


@lru_cache(maxsize=64)
def _count(text: str) -> Cost:
    config = _READ.validate_json(text)
    with torch.device("meta"):
        model = build_model(config).eval().requires_grad_(False)
        images = _images(config, 1, torch.float32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    side = model.vision.backbone.map_size(config.vision.image_size)
    return Cost(num_parameters(model), counter.get_total_flops() // 2, (side, side))


def mlp_hidden_like(s3ta: S3TAConfig) -> int:
    """The `ResNetConfig.mlp_hidden` with which average pool and hidden layer on the vision net of an S3TA have the number of
    parameters that comes nearest to its own: the control that tells attention from size."""
    one, two = (
        count(ResNetConfig(num_classes=s3ta.num_classes, vision=s3ta.vision, mlp_hidden=width)).parameters
        for width in (1, 2)
    )
    return max(1, round(1 + (count(s3ta).parameters - one) / (two - one)))


def kept_bytes(
    config: ModelConfig, precision: Literal["float32", "bfloat16"] = "float32", units_per_checkpoint: int = 0
) -> int:
    """Bytes per image at the height of a way back: what a forward pass keeps for it, and the units that are made again.

    Weights and what does not grow with the batch are left out. In bfloat16 all that autocast would keep in that precision is;
    the attention's softmax, which GPUs keep in float32, is a thousandth of it."""
    return _kept_bytes(config.model_dump_json(), precision, units_per_checkpoint)


@lru_cache(maxsize=64)
def _kept_bytes(text: str, precision: str, units_per_checkpoint: int) -> int:
    config, dtype = _READ.validate_json(text), torch.bfloat16 if precision == "bfloat16" else torch.float32
    return _kept(config, dtype, units_per_checkpoint, 3) - _kept(config, dtype, units_per_checkpoint, 2)


def _kept(config: ModelConfig, dtype: torch.dtype, units_per_checkpoint: int, num_images: int) -> int:
    with torch.device("meta"):
        model = build_model(config).to(dtype).train()
        images = _images(config, num_images, dtype)
    weights = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
    largest = _largest_group(model, images, units_per_checkpoint, weights) if units_per_checkpoint else 0
    model.vision.units_per_checkpoint = units_per_checkpoint
    return sum(_saved(partial(model, images), weights).values()) + largest


def _largest_group(model: NativeClassifier, images: Tensor, units_per_checkpoint: int, weights: set[int]) -> int:
    """Bytes that the largest group of units keeps while it is made again, beside its input, which is there already."""
    backbone = model.vision.backbone
    assert isinstance(backbone, ResNetBackbone), "recipes allow units_per_checkpoint for ResNets alone"
    features, largest = backbone.stem(model.vision.normalize(images)), 0
    for group in checkpoint_groups(backbone.units, units_per_checkpoint):
        features = features.detach().requires_grad_()
        saved = _saved(partial(group, features), weights | {features.untyped_storage()._cdata})
        largest = max(largest, sum(saved.values()))
        features = group(features)
    return largest


def _saved(forward: Callable[[], Tensor], without: set[int]) -> dict[int, int]:
    """Bytes of every memory block that autograd keeps in a forward pass, by address, but for those of `without`."""
    kept: dict[int, torch.UntypedStorage] = {}  # held until the end, so that no address comes twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        answer = forward()
    del answer
    return {address: storage.nbytes() for address, storage in kept.items() if address not in without}


def _images(config: ModelConfig, num_images: int, dtype: torch.dtype) -> Tensor:
    size = config.vision.image_size
    return torch.empty(num_images, config.vision.in_channels, size, size, dtype=dtype)
