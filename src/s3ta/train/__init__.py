"""Adversarial training that can be stopped at any moment. Read `s3ta.train.loop` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.train.board import SILENT, Board, TensorBoard, check_tensorboard
    from s3ta.train.budget import HARDWARE, Budget, budget, get_hardware, operations
    from s3ta.train.config import (
        AdversarialLoss,
        AveragingConfig,
        BatchNormConfig,
        ComputeConfig,
        OptimizerConfig,
        ScheduleConfig,
        TradesLoss,
        TrainConfig,
        WeightPerturbationConfig,
    )
    from s3ta.train.first import seeded_model
    from s3ta.train.loop import train
    from s3ta.train.run import claim, is_claimed, is_finished, read_recipe, run_of
    from s3ta.train.step import grouping

__all__ = [
    "HARDWARE",
    "SILENT",
    "AdversarialLoss",
    "AveragingConfig",
    "BatchNormConfig",
    "Board",
    "Budget",
    "ComputeConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TensorBoard",
    "TradesLoss",
    "TrainConfig",
    "WeightPerturbationConfig",
    "budget",
    "check_tensorboard",
    "claim",
    "get_hardware",
    "grouping",
    "is_claimed",
    "is_finished",
    "operations",
    "read_recipe",
    "run_of",
    "seeded_model",
    "train",
]

load_names_on_first_use(__name__)
