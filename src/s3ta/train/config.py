"""One complete training experiment as data. Every number that the paper leaves open is a field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from s3ta.attacks import PGDConfig
from s3ta.config import Config
from s3ta.data import DataConfig
from s3ta.models import ModelConfig

Count = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class OptimizerConfig(Config):
    """How weights move (T6-T8, T13)."""

    kind: Literal["sgd", "adam"] = "sgd"
    """sgd: momentum 0.9 with Nesterov, as T6; adam: betas 0.9, 0.999."""
    learning_rate: NonNegative = 0.2
    """Peak learning rate (the paper: 0.05 per 256 images, 0.2 at batch 1,024)."""
    momentum: NonNegative = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 1e-4
    """L2, on weight matrices and kernels only: not on biases, BN, or the learned initial state (T7, T8)."""
    clip_norm: NonNegative | None = None
    """Largest norm of the whole gradient; None: no clipping (T13)."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> OptimizerConfig:
        if self.kind == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set optimizer.nesterov=false too")
        return self


class ScheduleConfig(Config):
    """What changes on the way, in training steps."""

    num_train_steps: Annotated[int, Field(gt=0)] = 150_120
    warmup_steps: Count = 0
    """The learning rate rises linearly, per step, over so many steps (T10)."""
    warmup_from: NonNegative = 0.05
    """Where the rise begins (T11)."""
    decay: Literal["steps", "cosine"] = "steps"
    """steps: multiply by decay_factor at each of decay_at (T9); cosine: half a cosine from the peak to zero."""
    decay_at: tuple[int, ...] = ()
    decay_factor: NonNegative = 0.1
    clean_steps: Count = 0
    """So many first steps on clean images (the paper: 0)."""
    radius_ramp_steps: Count = 0
    """After them the attack's radius and step size grow linearly to full size over so many steps (the paper: 0)."""
    glimpses: tuple[tuple[Count, Annotated[int, Field(gt=0)]], ...] = ()
    """Curriculum (T23): pairs (from this step, so many glimpses); before the first pair, and without any, the model's own."""

    @model_validator(mode="after")
    def _steps_rise(self) -> ScheduleConfig:
        for name, steps in (("glimpses", [first for first, _ in self.glimpses]), ("decay_at", list(self.decay_at))):
            if steps != sorted(set(steps)):
                raise ValueError(f"the steps of {name} must rise; got {steps}")
        return self


class TrainConfig(Config):
    """Everything that decides the trained weights."""

    name: str
    """The recipe's name, such as digits/s3ta_4."""
    source: str = ""
    """Where the recipe comes from."""
    departures: tuple[str, ...] = ()
    """Where it leaves the paper, and why; shown in the report."""
    suite: str = "quick"
    """The suite that `s3ta evaluate` runs on it by default."""
    data: DataConfig = DataConfig()
    model: ModelConfig
    attack: PGDConfig
    """The attack that makes every training image (T12, T14-T19)."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch_size: Annotated[int, Field(gt=1)] = 1024
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """In the training loss only, never in the attack (T12, X30)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: Annotated[int, Field(gt=0)] = 10
    validate_every: Annotated[int, Field(gt=0)] = 200
    checkpoint_every: Annotated[int, Field(gt=0)] = 50
    num_threads: Annotated[int, Field(gt=0)] | None = None
    """CPU threads; a fixed number makes runs on one machine identical. None: all cores."""
    num_workers: Count = 0
    """Processes that prepare batches; any number gives the same batches."""

    def identity(self) -> dict[str, Any]:
        """The settings that decide the weights: without prose, logging, and how batches are prepared."""
        settings = self.model_dump(
            mode="json",
            exclude={
                "source",
                "departures",
                "suite",
                "log_every",
                "validate_every",
                "checkpoint_every",
                "num_workers",
            },
        )
        return settings | {"data": self.data.identity()}

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainConfig:
        if self.attack.read_outs or self.attack.num_restarts != 1:
            raise ValueError(
                "attack.read_outs and attack.num_restarts are for evaluation; training runs one attack per image"
            )
        if self.attack.needs_trace and self.model.kind != "s3ta":
            raise ValueError("attack.glimpses, .num_glimpses and .steering need an S3TA model")
        if self.schedule.glimpses and self.model.kind != "s3ta":
            raise ValueError("schedule.glimpses needs an S3TA model")
        return self
