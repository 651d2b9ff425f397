"""Adversarial training that can be stopped at any moment. Read `s3ta.train.loop` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.train.batch_norm_groups import grouping
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
    from s3ta.train.cost import HARDWARE, Budget, budget, get_hardware, operations
    from s3ta.train.loop import train
    from s3ta.train.run_folder import claim, is_claimed, is_finished, read_recipe, run_of
    from s3ta.train.step import seeded_model
    from s3ta.train.tensorboard import SILENT, Board, TensorBoard, check_tensorboard

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
