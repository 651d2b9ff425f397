"""Attacks: (callable, images, labels) -> adversarial images. Read `s3ta.attacks.loop` first; no model class is named here."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import (
        SPSA,
        AdamConfig,
        AttackConfig,
        AutoAttackConfig,
        BoxRegion,
        Exact,
        GridRegion,
        LoopConfig,
        PGDConfig,
        Steering,
        evaluation_step_size,
    )
    from s3ta.attacks.attack import draw_start, run_attack, threat_of
    from s3ta.attacks.autoattack import auto_attack
    from s3ta.attacks.cost import Evaluations, evaluations
    from s3ta.attacks.draws import RandomKey, draw_targets, random_target, start_noise
    from s3ta.attacks.frozen import frozen
    from s3ta.attacks.glimpse_objectives import all_glimpses, mixed, one_glimpse, steer_away, steer_onto
    from s3ta.attacks.gradients import (
        GradientEstimate,
        GradientSource,
        autograd_gradient,
        expectation,
        jitter,
        spsa,
        straight_through,
    )
    from s3ta.attacks.local_linearity import Linearity, Tangent, local_linearity, tangent
    from s3ta.attacks.loop import Attacked, perturb
    from s3ta.attacks.objectives import (
        Objective,
        Outputs,
        OutputsFn,
        difference,
        final_logits,
        targeted,
        untargeted,
        wrong_margin,
    )
    from s3ta.attacks.step_rules import StepRule, adam_step, annealed, l2_step, sign_step, with_momentum
    from s3ta.attacks.threat import L2, Linf, Threat
    from s3ta.attacks.validation import NotFiniteError
    from s3ta.process_state import random_state

__all__ = [
    "L2",
    "SPSA",
    "AdamConfig",
    "AttackConfig",
    "Attacked",
    "AutoAttackConfig",
    "BoxRegion",
    "Evaluations",
    "Exact",
    "GradientEstimate",
    "GradientSource",
    "GridRegion",
    "Linearity",
    "Linf",
    "LoopConfig",
    "NotFiniteError",
    "Objective",
    "Outputs",
    "OutputsFn",
    "PGDConfig",
    "RandomKey",
    "Steering",
    "StepRule",
    "Tangent",
    "Threat",
    "adam_step",
    "all_glimpses",
    "annealed",
    "auto_attack",
    "autograd_gradient",
    "difference",
    "draw_start",
    "draw_targets",
    "evaluation_step_size",
    "evaluations",
    "expectation",
    "final_logits",
    "frozen",
    "jitter",
    "l2_step",
    "local_linearity",
    "mixed",
    "one_glimpse",
    "perturb",
    "random_state",
    "random_target",
    "run_attack",
    "sign_step",
    "spsa",
    "start_noise",
    "steer_away",
    "steer_onto",
    "straight_through",
    "tangent",
    "targeted",
    "threat_of",
    "untargeted",
    "with_momentum",
    "wrong_margin",
]

load_names_on_first_use(__name__)
