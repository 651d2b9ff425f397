"""Adversarial training that can be stopped at any moment. Read `s3ta.train.loop` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.train.config import AdversarialLoss as AdversarialLoss
    from s3ta.train.config import AWPConfig as AWPConfig
    from s3ta.train.config import BatchNormGroupConfig as BatchNormGroupConfig
    from s3ta.train.config import CleanLoss as CleanLoss
    from s3ta.train.config import ComputeConfig as ComputeConfig
    from s3ta.train.config import EMAConfig as EMAConfig
    from s3ta.train.config import LocalLinearityLoss as LocalLinearityLoss
    from s3ta.train.config import OptimizerConfig as OptimizerConfig
    from s3ta.train.config import ScheduleConfig as ScheduleConfig
    from s3ta.train.config import StartConfig as StartConfig
    from s3ta.train.config import TradesLoss as TradesLoss
    from s3ta.train.config import TrainConfig as TrainConfig
    from s3ta.train.cost import HARDWARE as HARDWARE
    from s3ta.train.cost import TrainingCost as TrainingCost
    from s3ta.train.cost import count_flops as count_flops
    from s3ta.train.cost import get_hardware as get_hardware
    from s3ta.train.cost import training_cost as training_cost
    from s3ta.train.distributed_batch_norm_groups import batch_norm_groups as batch_norm_groups
    from s3ta.train.loop import TrainingRun as TrainingRun
    from s3ta.train.loop import train as train
    from s3ta.train.run_folder import init_run_folder as init_run_folder
    from s3ta.train.run_folder import is_claimed as is_claimed
    from s3ta.train.run_folder import is_finished as is_finished
    from s3ta.train.run_folder import read_recipe as read_recipe
    from s3ta.train.run_folder import run_folder_of as run_folder_of
    from s3ta.train.step import seeded_model as seeded_model
    from s3ta.train.tensorboard import CurveWriter as CurveWriter
    from s3ta.train.tensorboard import TensorBoard as TensorBoard
    from s3ta.train.tensorboard import check_tensorboard as check_tensorboard

load_names_on_first_use(__name__)
