"""One complete training experiment as data. Every number that the paper leaves open is a field."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from s3ta.attack_config import AdamConfig, PGDConfig
from s3ta.config import Config
from s3ta.data import DataConfig
from s3ta.models import ModelConfig
from s3ta.models.config import BACKBONES

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TrainAttack = Annotated[PGDConfig | AdamConfig, Field(discriminator="kind")]


class AdversarialLoss(Config):
    """Cross-entropy of the true label on attacked images alone: the paper's loss (T12)."""

    kind: Literal["adversarial"] = "adversarial"
    glimpses: Literal["last", "all"] = "last"
    """Of S3TA: learn from the answer after the last glimpse (the paper), or from the mean of the losses after each one."""


class TradesLoss(Config):
    """Cross-entropy on clean images + beta x KL(clean answer || attacked answer) (Zhang et al. 2019, equation 5).

    Its attack ascends the same divergence: `attack.objective=divergence`, always from a random start."""

    kind: Literal["trades"] = "trades"
    beta: NonNegative = 6.0
    """What agreement between clean and attacked images is worth, over right answers on clean ones."""


class CleanLoss(Config):
    """Cross-entropy of the true label on images as they are: natural training. The attack is for live accuracy alone."""

    kind: Literal["clean"] = "clean"


class LocalLinearityLoss(Config):
    """Local-linearity regularisation (LLR; Qin et al. 2019; C3): cross-entropy on clean images + lambda gamma + mu |d.g|.

    g is the gradient of an image's cross-entropy l, d where its attack (`attack.objective=local_linearity`, always from a
    random start) found gamma = |l(x+d) - l(x) - d.g| to be largest. Both terms are differentiated through g. They are taken
    with BN at the clean batch's statistics, which are constants there and move no average."""

    kind: Literal["local_linearity"] = "local_linearity"
    gamma_weight: NonNegative = 4.0
    """lambda: what it costs to be far from the tangent plane (the authors: 4 on CIFAR-10, 3 on ImageNet)."""
    gradient_weight: NonNegative = 3.0
    """mu: what it costs that the plane itself rises (the authors: 3 on CIFAR-10, 6 on ImageNet)."""


LossConfig = Annotated[AdversarialLoss | TradesLoss | CleanLoss | LocalLinearityLoss, Field(discriminator="kind")]


class StartConfig(Config):
    """Weights that a training begins with in place of fresh ones. What they are is known by their hash, not by their place."""

    OUTSIDE_IDENTITY = frozenset({"weights"})

    weights: str
    """A run or model folder, a Hub id, `timm:NAME[.TAG]` (what timm has of it), or a file of weights."""
    part: Literal["all", "backbone"] = "all"
    """all: the whole model, of the same kind; backbone: the vision net alone, under a fresh head."""
    sha256: str | None = None
    """Of what is taken; None: whatever is there when the run begins, which keeps it in its recipe."""


class BatchNormGroupConfig(Config):
    """Which images share their BN statistics in an update (T13, X2)."""

    group: Annotated[int, Field(gt=1)] | None = None
    """So many images (the paper's settings come from 32); batches are worked through group by group, their gradients added
    up. Processes with fewer images share a group with their neighbours. None: all images of a process at once."""
    sync: bool = False
    """A group is spread over all processes, which share their statistics, instead of lying in one."""


class EMAConfig(Config):
    """An exponential moving average of the weights, which is then what is validated and saved as the model (T13: none)."""

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """What stays of the average at each step, at most (1 + step) / (10 + step) in the beginning; 0: no averaging."""


class AWPConfig(Config):
    """Adversarial weight perturbation (Wu et al. 2020): the gradient is taken where the weights hurt most nearby."""

    gamma: NonNegative = 0.0
    """How far each kernel and matrix is moved, over its own norm (the authors: 0.005 to 0.01); 0: not at all."""
    from_step: Count = 0
    """The training step at which it begins."""


class ComputeConfig(Config):
    """How the arithmetic is done. Anything but the defaults must agree with plain float32 first (X10, X40)."""

    OUTSIDE_IDENTITY = frozenset({"compiled", "units_per_checkpoint", "attack_batch", "must_agree"})

    attack_precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast while training images are attacked; losses stay float32 (T20). It begins when it agrees with float32,
    which a deep network that has learned nothing yet is too chaotic for."""
    update_precision: Literal["float32", "bfloat16"] = "float32"
    """The same while weights are updated; the weights themselves stay float32."""
    compiled: bool = False
    """torch.compile, which fuses BN, ReLU and additions; once per shape and mode."""
    channels_last: bool = False
    """Weights and images in the memory order that GPUs prefer."""
    fused_optimizer: bool = False
    """The optimizer's one-kernel form."""
    units_per_checkpoint: Count = 0
    """Keep activations only before every so many residual units, and compute the others again on the way back: less
    memory for a third more time. 0: keep all."""
    deterministic: bool = True
    """Only kernels that repeat their last bits: what a resumed run on a GPU needs to end with the same weights."""
    attack_batch: Positive | None = None
    """Attack so many images at once; None: all that a process has of a batch."""
    must_agree: bool = True
    """Stay in float32 as long as bfloat16 is too far from it, and refuse to train where the other options are. False: take
    all of them as they are."""

    @property
    def uses_bfloat16(self) -> bool:
        return "bfloat16" in (self.attack_precision, self.update_precision)

    @model_validator(mode="after")
    def _combine(self) -> ComputeConfig:
        if self.compiled and self.units_per_checkpoint:
            raise ValueError("compiled and units_per_checkpoint do not combine: choose one")
        return self


class OptimizerConfig(Config):
    """The optimizer of the weights (T6-T8, T13)."""

    kind: Literal["sgd", "adam", "adamw"] = "sgd"
    """sgd: momentum 0.9 with Nesterov, as T6; adam, adamw: betas 0.9, 0.999, the latter with weight decay apart from the
    gradient."""
    learning_rate: NonNegative = 0.2
    """Peak learning rate (the paper: 0.05 per 256 images, 0.2 at batch 1,024)."""
    momentum: NonNegative = 0.9
    nesterov: bool = True
    weight_decay: NonNegative = 1e-4
    """L2, on weight matrices and kernels only: not on biases, BN, or the learned initial state (T7, T8)."""
    backbone_factor: NonNegative = 1.0
    """The vision net's learning rate over that of the rest: below 1 where it starts from given weights."""
    clip_norm: NonNegative | None = None
    """Largest norm of the whole gradient; None: no clipping (T13)."""

    @property
    def num_moments(self) -> int:
        """Numbers that the optimizer keeps for each weight."""
        return 2 if self.kind == "adam" else int(self.momentum > 0)

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> OptimizerConfig:
        if self.kind == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: set optimizer.nesterov=false too")
        return self


class ScheduleConfig(Config):
    """What changes in the course of training, in training steps."""

    num_train_steps: Positive = 150_120
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
    head_only_steps: Count = 0
    """So many first steps the vision net stays as it is, its BN on its moving averages, and the head learns alone."""
    glimpses: tuple[tuple[Count, Positive], ...] = ()
    """Curriculum (T23): pairs (from this step, so many glimpses); before the first pair, and without any, the model's own."""

    @model_validator(mode="after")
    def _steps_rise(self) -> ScheduleConfig:
        for name, steps in (("glimpses", [first for first, _ in self.glimpses]), ("decay_at", list(self.decay_at))):
            if steps != sorted(set(steps)):
                raise ValueError(f"the steps of {name} must rise; got {steps}")
        return self


_FLAT_AT_CLEAN = ("divergence", "local_linearity")
_OBJECTIVES = {"trades": "divergence", "local_linearity": "local_linearity"}
"""The attack that belongs to a loss."""

PROSE = frozenset({"source", "departures", "suite"})
"""Settings of a recipe that say something of it and do nothing."""


class TrainConfig(Config):
    """Everything that decides the trained weights."""

    OUTSIDE_IDENTITY = PROSE | {"log_every", "validate_every", "checkpoint_every", "num_workers"}

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
    attack: TrainAttack
    """The attack that makes every training image (T12, T14-T19), and that live accuracy is measured under."""
    start: StartConfig | None = None
    """Weights to begin with; None: fresh ones."""
    loss: LossConfig = AdversarialLoss()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch_norm: BatchNormGroupConfig = BatchNormGroupConfig()
    averaging: EMAConfig = EMAConfig()
    weight_perturbation: AWPConfig = AWPConfig()
    compute: ComputeConfig = ComputeConfig()
    batch_size: Annotated[int, Field(gt=1)] = 1024
    """Images per update, over all processes together, whatever their number."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """In the training loss only, never in the attack (T12, X30)."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    log_every: Positive = 10
    validate_every: Positive = 200
    checkpoint_every: Positive = 50
    num_threads: Positive | None = None
    """CPU threads; a fixed number makes runs on one machine identical. None: all cores."""
    num_workers: Count = 0
    """Processes that prepare batches; any number gives the same batches."""

    @property
    def is_adversarial(self) -> bool:
        """Whether images are attacked in training."""
        return self.loss.kind != "clean"

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
        if isinstance(self.loss, AdversarialLoss) and self.loss.glimpses == "all" and self.model.kind != "s3ta":
            raise ValueError("loss.glimpses=all needs an S3TA model")
        group = self.batch_norm.group
        if group is not None and self.batch_size % group:
            raise ValueError(f"batch_size {self.batch_size} does not divide into BN groups of {group} images")
        return self

    @model_validator(mode="after")
    def _loss_and_attack_fit(self) -> TrainConfig:
        objective, loss = self.attack.objective, self.loss.kind
        if objective in _FLAT_AT_CLEAN and self.attack.random_start_prob < 1:
            raise ValueError(f"attack.objective {objective} is flat at the clean image: set attack.random_start_prob=1")
        if objective != _OBJECTIVES.get(loss, objective):
            raise ValueError(
                f"loss.kind {loss} needs its own attack: set attack.objective={_OBJECTIVES[loss]} and "
                "attack.random_start_prob=1 too"
            )
        if self.compute.units_per_checkpoint and self.model.vision.backbone not in BACKBONES:
            raise ValueError("compute.units_per_checkpoint is for ResNets: leave it at 0")
        if self.data.mixing is not None and (
            objective in ("targeted", "multitargeted") or self.attack.loss != "cross_entropy"
        ):
            raise ValueError(
                "data.mixing needs attack.objective=untargeted and attack.loss=cross_entropy, or no attack at all"
            )
        if loss == "local_linearity" and (self.compute.compiled or self.compute.units_per_checkpoint):
            raise ValueError(
                "loss.kind local_linearity differentiates a gradient, which compute.compiled and "
                "compute.units_per_checkpoint cannot: leave them off"
            )
        return self
