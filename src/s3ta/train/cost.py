"""What a recipe costs before it runs: operations, memory and GPU-hours, by arithmetic alone (protocol M17)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from s3ta.attacks import attack_cost
from s3ta.errors import UserError, unknown_name
from s3ta.models import ModelConfig
from s3ta.models.precomputed_costs import Cost, count_cost, kept_bytes
from s3ta.train.config import TrainConfig
from s3ta.train.distributed_batch_norm_groups import batch_norm_groups
from s3ta.train.schedule import attack_scale, glimpses_at

Precision = Literal["float32", "bfloat16"]
FLOAT32_BYTES = 4


class Hardware(NamedTuple):
    """One accelerator, by its maker's data sheet."""

    name: str
    gigabytes: int
    """Memory, in 10^9 bytes."""
    bfloat16: float | None
    """Peak 10^12 FLOP/s in dense matrix products; None where it has no units for them, so that float32's counts."""
    float32: float
    """The same in float32, without TF32."""

    def peak(self, precision: Precision) -> float:
        """FLOP/s."""
        return 1e12 * (self.bfloat16 or self.float32 if precision == "bfloat16" else self.float32)


# NVIDIA's data sheets of the SXM forms (L40S: PCIe), dense: where they print figures "with sparsity", half of that. Large
# matrix products reach less: about 790 of the 989 TFLOP/s of an H200.
HARDWARE: Mapping[str, Hardware] = {
    gpu.name: gpu
    for gpu in (
        Hardware("h200", 141, 989, 67),
        Hardware("h100", 80, 989, 67),
        Hardware("a100", 80, 312, 19.5),
        Hardware("l40s", 48, 362, 91.6),
        Hardware("v100", 32, None, 15.7),
    )
}


class Passes(NamedTuple):
    """What one image costs in one training step, in forward passes."""

    attack: float
    update: float

    @property
    def total(self) -> float:
        return self.attack + self.update


class Stretch(NamedTuple):
    """Training steps in a row that cost the same."""

    num_train_steps: int
    num_glimpses: int | None
    """Under the curriculum; None: the model's own number."""
    is_attacked: bool
    is_perturbed: bool
    """By adversarial weight perturbation."""


class TrainingCost(NamedTuple):
    """What a recipe costs on given hardware."""

    cost: Cost
    """Of the model itself."""
    passes: Passes
    """At its dearest: under attack and, where the recipe has it, weight perturbation."""
    operations_per_image: float
    """FLOP of one image in such a step."""
    operations: float
    """FLOP of all training steps on all images."""
    attack_bytes: int
    """Kept per image for the way back, while attacked."""
    update_bytes: int
    """The same in the update, all passes of a loss that takes several together."""
    attack_images: int
    """Images of one process that are attacked at once."""
    update_images: int
    """Images of one process in one BN group."""
    state_bytes: int
    """Of one process, whatever the images: see `state_bytes`."""
    gpu_hours: float
    """Over all GPUs together."""

    @property
    def bytes_per_process(self) -> int:
        """At the higher of the two phases, without the working space of kernels."""
        phases = (self.attack_images * self.attack_bytes, self.update_images * self.update_bytes)
        return self.state_bytes + max(phases)


def get_hardware(name: str) -> Hardware:
    """The accelerator of that name. Raises UserError for an unknown one, nearest names offered."""
    if name not in HARDWARE:
        raise unknown_name("hardware", name, HARDWARE)
    return HARDWARE[name]


def training_cost(config: TrainConfig, hardware: Hardware, num_gpus: int = 1, utilization: float = 0.4) -> TrainingCost:
    """What the recipe costs on so many of these, one process each, at this share of their dense peak.

    Only convolutions and matrix products of training are counted, not validation, data, or waiting for other processes.

    Raises UserError where the batch does not divide among the GPUs, or the share is not one."""
    if num_gpus < 1:
        raise UserError(f"--gpus {num_gpus} is too few: at least one is needed.")
    compute = config.compute
    cost = count_cost(config.model)
    dearest = passes(config, is_attacked=config.is_adversarial, is_perturbed=config.weight_perturbation.gamma > 0)
    share, attacked = config.batch_size // num_gpus, _with_glimpses(config.model, config.attack.num_glimpses)
    return TrainingCost(
        cost=cost,
        passes=dearest,
        operations_per_image=2 * cost.multiply_accumulates * dearest.total,
        operations=count_flops(config).total,
        attack_bytes=kept_bytes(attacked, compute.attack_precision, compute.units_per_checkpoint),
        update_bytes=_updates(config)
        * kept_bytes(config.model, compute.update_precision, compute.units_per_checkpoint),
        attack_images=min(compute.attack_batch or share, share),
        update_images=batch_norm_groups(config, num_gpus).images,
        state_bytes=state_bytes(config, cost.parameters, num_gpus),
        gpu_hours=gpu_hours(config, hardware, utilization),
    )


def gpu_hours(config: TrainConfig, hardware: Hardware, utilization: float = 0.4) -> float:
    """Hours of one GPU for the whole recipe, each phase at this share of the peak of its precision.

    Raises UserError where the share is not one."""
    if not 0 < utilization <= 1:
        raise UserError(
            f"--utilization {utilization:g} is not a share: give a number above 0 and at most 1, such as 0.4."
        )
    attack, update = count_flops(config)
    compute = config.compute
    seconds = attack / hardware.peak(compute.attack_precision) + update / hardware.peak(compute.update_precision)
    return seconds / utilization / 3600


def passes(config: TrainConfig, *, is_attacked: bool, is_perturbed: bool) -> Passes:
    """Forward passes per image and step: 2N for N attack steps and 3 for the update (M17: a way back through the images alone
    is worth one, through the weights too two). TRADES updates on clean and attacked images, local linearity on these and
    through a gradient and its pass, two passes forth and four back. Weight perturbation takes a gradient of its own; units that
    are made again cost another forward pass on every way back."""
    again = 1 if config.compute.units_per_checkpoint else 0
    attack = 0
    if is_attacked:
        cost = attack_cost(config.attack)
        attack = cost.total + again * cost.num_gradients
    gradients = (_updates(config) if is_attacked else 1) * (2 if is_perturbed else 1)
    return Passes(float(attack), float((3 + again) * gradients))


def _updates(config: TrainConfig) -> int:
    """What the loss costs, in updates on one batch; about as many keep their activations at once."""
    return {"trades": 2, "local_linearity": 4}.get(config.loss.kind, 1)


def stretches(config: TrainConfig) -> list[Stretch]:
    """The schedule, cut where the cost of a step changes: clean phase, curriculum, beginning of weight perturbation."""
    schedule, perturbation = config.schedule, config.weight_perturbation
    borders = {0, schedule.clean_steps, perturbation.from_step, *(first for first, _ in schedule.glimpses)}
    inside = sorted(border for border in borders if border < schedule.num_train_steps)
    return [
        Stretch(
            last - first,
            glimpses_at(schedule, first),
            config.is_adversarial and attack_scale(schedule, first) > 0,
            perturbation.gamma > 0 and first >= perturbation.from_step,
        )
        for first, last in zip(inside, [*inside[1:], schedule.num_train_steps], strict=True)
    ]


def count_flops(config: TrainConfig) -> Passes:
    """FLOP of the whole recipe in attack and update: two per multiply-accumulate, over all images of all steps."""
    attack = update = 0.0
    for stretch, each in operations_per_image(config):
        attack += stretch.num_train_steps * config.batch_size * each.attack
        update += stretch.num_train_steps * config.batch_size * each.update
    return Passes(attack, update)


def operations_per_image(config: TrainConfig) -> list[tuple[Stretch, Passes]]:
    """FLOP of one image in attack and update, for every stretch of the schedule."""
    models = models_of(config)
    forward = {glimpses: 2 * count_cost(model).multiply_accumulates for glimpses, model in models.items()}
    costs = []
    for stretch in stretches(config):
        each = passes(config, is_attacked=stretch.is_attacked, is_perturbed=stretch.is_perturbed)
        attacked = forward[config.attack.num_glimpses or stretch.num_glimpses]
        costs.append((stretch, Passes(each.attack * attacked, each.update * forward[stretch.num_glimpses])))
    return costs


def state_bytes(config: TrainConfig, num_parameters: int, num_gpus: int = 1) -> int:
    """Bytes of one process that do not depend on the images: float32 weights and gradients, the optimizer's moments, the
    moving average, what weight perturbation must put back, the gradients that several processes exchange, and the copy of
    the weights that autocast makes."""
    copies = 2 + config.optimizer.num_moments
    copies += (config.averaging.decay > 0) + (config.weight_perturbation.gamma > 0) + (num_gpus > 1)
    return num_parameters * (FLOAT32_BYTES * copies + (2 if config.compute.uses_bfloat16 else 0))


def models_of(config: TrainConfig) -> dict[int | None, ModelConfig]:
    """The models whose costs a recipe's costs are made of, by the number of glimpses of schedule and attack; None: its own."""
    numbers = [None, config.attack.num_glimpses, *(stretch.num_glimpses for stretch in stretches(config))]
    return {number: _with_glimpses(config.model, number) for number in numbers}


def _with_glimpses(model: ModelConfig, num_glimpses: int | None) -> ModelConfig:
    """The model after so many glimpses."""
    if num_glimpses is None or model.kind != "s3ta":
        return model
    return model.model_copy(update={"num_glimpses": num_glimpses})
