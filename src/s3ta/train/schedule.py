"""Learning rate, attack strength and glimpses as plain functions of the training step (steps count from 0)."""

from __future__ import annotations

import math

from s3ta.attacks import PGDConfig
from s3ta.train.config import ScheduleConfig, TrainAttack


def learning_rate(schedule: ScheduleConfig, peak: float, step: int) -> float:
    """Linear warm-up per step, then drops (in force from the step that completes the epoch on, T10) or a cosine."""
    if step < schedule.warmup_steps:
        return schedule.warmup_from + (peak - schedule.warmup_from) * step / schedule.warmup_steps
    if schedule.decay == "steps":
        return peak * schedule.decay_factor ** sum(step >= boundary for boundary in schedule.decay_at)
    progress = (step - schedule.warmup_steps) / max(1, schedule.num_train_steps - schedule.warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def attack_scale(schedule: ScheduleConfig, step: int) -> float:
    """Share of the full radius in force: 0 in the clean phase, then a linear rise to 1."""
    if step < schedule.clean_steps:
        return 0.0
    return min(1.0, (step - schedule.clean_steps + 1) / max(1, schedule.radius_ramp_steps))


def attack_at(schedule: ScheduleConfig, attack: TrainAttack, step: int) -> TrainAttack | None:
    """The attack of this step, its radius and step size (Adam: its rates) scaled alike; None in the clean phase."""
    scale = attack_scale(schedule, step)
    if scale == 0:
        return None
    if isinstance(attack, PGDConfig):
        scaled = {"step_size": attack.step_size * scale}
    else:
        scaled = {"learning_rates": tuple((since, rate * scale) for since, rate in attack.learning_rates)}
    return attack.model_copy(update={"radius": attack.radius * scale, **scaled})


def glimpses_at(schedule: ScheduleConfig, step: int) -> int | None:
    """Glimpses of this step, also inside its attack (T21), under the curriculum (T23); None: the model's own number."""
    reached = [count for first, count in schedule.glimpses if step >= first]
    return reached[-1] if reached else None
