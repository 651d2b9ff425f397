"""Adversarial training that can be stopped at any moment. Read `s3ta.train.loop` first."""

from s3ta.train.config import OptimizerConfig, ScheduleConfig, TrainConfig
from s3ta.train.loop import seeded_model, train
from s3ta.train.run import claim, is_claimed, is_finished, read_recipe

__all__ = [
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainConfig",
    "claim",
    "is_claimed",
    "is_finished",
    "read_recipe",
    "seeded_model",
    "train",
]
