"""The weights that a run begins with."""

from __future__ import annotations

import torch

from s3ta.models import VisionClassifier, build_model
from s3ta.train.config import TrainConfig


def seeded_model(config: TrainConfig) -> VisionClassifier:
    """The recipe's model with the first weights that belong to its seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config.model)
