"""Adversarial training that can be stopped at any moment. Read `s3ta.train.loop` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.train.batch_norm_group_layout import batch_norm_groups
    from s3ta.train.config import (
        AdversarialLoss,
        AWPConfig,
        BatchNormGroupConfig,
        ComputeConfig,
        EMAConfig,
        OptimizerConfig,
        ScheduleConfig,
        TradesLoss,
        TrainConfig,
    )
    from s3ta.train.cost import HARDWARE, TrainingCost, count_flops, get_hardware, training_cost
    from s3ta.train.loop import TrainingRun, train
    from s3ta.train.run_folder import init_run_folder, is_claimed, is_finished, read_recipe, run_folder_of
    from s3ta.train.step import seeded_model
    from s3ta.train.tensorboard import CurveWriter, TensorBoard, check_tensorboard

__all__ = [
    "HARDWARE",
    "AWPConfig",
    "AdversarialLoss",
    "BatchNormGroupConfig",
    "ComputeConfig",
    "CurveWriter",
    "EMAConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TensorBoard",
    "TradesLoss",
    "TrainConfig",
    "TrainingCost",
    "TrainingRun",
    "batch_norm_groups",
    "check_tensorboard",
    "count_flops",
    "get_hardware",
    "init_run_folder",
    "is_claimed",
    "is_finished",
    "read_recipe",
    "run_folder_of",
    "seeded_model",
    "train",
    "training_cost",
]

load_names_on_first_use(__name__)
