"""What an attack costs before it runs: model evaluations per example and restart."""

from __future__ import annotations

from typing import NamedTuple

from s3ta.attack_config import SPSA, AdamConfig, AutoAttackComponentConfig, PGDConfig


class AttackCost(NamedTuple):
    """Model evaluations for one example."""

    num_gradients: int
    num_forwards: int
    """Those of the gradients among them."""

    @property
    def total(self) -> int:
        """Passes forward plus passes back: about what an evaluation takes time for (protocol M17)."""
        return self.num_gradients + self.num_forwards


def attack_cost(config: PGDConfig | AdamConfig | AutoAttackComponentConfig) -> AttackCost:
    """The cost of one restart on one example: exact for the attacks of the one loop, an upper bound for AutoAttack's parts.

    An attack on classes one after the other (AutoAttack's targeted parts) stops when it succeeds."""
    steps = config.num_attack_steps
    if isinstance(config, AutoAttackComponentConfig):
        gradients, forwards = {
            "apgd-ce": (steps + 1, steps + 3),
            "apgd-t": (config.num_targets * (steps + 1), config.num_targets * (steps + 2) + 2),
            "fab-t": (config.num_targets * steps, config.num_targets * (2 * steps + 3) + 2),
            "square": (0, steps + 4),
        }[config.part]
        return AttackCost(gradients, forwards)
    source = config.gradient
    if isinstance(source, SPSA):
        per_step, gives_outputs = AttackCost(0, 2 * source.num_directions), False
    else:
        per_step = AttackCost(source.num_samples, source.num_samples)
        gives_outputs = source.is_plain
    judged = 0 if config.keep == "last" else 1 if gives_outputs else steps + 1
    num_gradients = steps * per_step.num_gradients + config.first_gradients
    return AttackCost(num_gradients, steps * per_step.num_forwards + judged + config.looks_first)
