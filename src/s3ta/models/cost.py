"""What one forward pass costs, counted by torch itself on a model that takes no memory (protocol tables 1.4, 1.5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from s3ta.models.config import ModelConfig
from s3ta.models.factory import build_model, num_parameters


class Cost(NamedTuple):
    """Exact figures for one image."""

    parameters: int
    multiply_accumulates: int
    map_size: tuple[int, int]
    """Height and width of the last feature map."""


def count(config: ModelConfig) -> Cost:
    """Parameters, multiply-accumulates (convolutions and matrix products) and map size of a config, without building it."""
    with torch.device("meta"):
        model = build_model(config).eval().requires_grad_(False)
        images = torch.empty(1, config.vision.in_channels, config.vision.image_size, config.vision.image_size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(images)
    with torch.no_grad():
        height, width = model.vision(images).shape[-2:]
    return Cost(num_parameters(model), counter.get_total_flops() // 2, (height, width))
