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
        ExactGradient,
        GridRegion,
        LoopConfig,
        PGDConfig,
        Steering,
        evaluation_step_size,
    )
    from s3ta.attacks.attack import draw_start, run_attack, threat_model_of
    from s3ta.attacks.autoattack import auto_attack
    from s3ta.attacks.cost import AttackCost, attack_cost
    from s3ta.attacks.draws import RandomKey, draw_targets, random_signs, random_target, start_noise
    from s3ta.attacks.freeze_model import frozen
    from s3ta.attacks.glimpse_objectives import (
        all_glimpses_objective,
        single_glimpse_objective,
        steer_away,
        steer_onto,
        weighted_sum,
    )
    from s3ta.attacks.gradients import (
        GradientEstimate,
        GradientSource,
        autograd_gradient,
        gradient_over_transformations,
        random_shift_and_noise,
        spsa,
        straight_through,
    )
    from s3ta.attacks.input_validation import NotFiniteError
    from s3ta.attacks.local_linearity import LocalLinearity, TangentPlane, local_linearity, tangent_plane
    from s3ta.attacks.loop import Attack, Attacked, perturb
    from s3ta.attacks.objectives import (
        ModelOutputs,
        Objective,
        OutputsFn,
        final_logits,
        logit_margin,
        target_margin,
        targeted,
        untargeted,
    )
    from s3ta.attacks.step_rules import StepRule, adam_step, annealed_step_size, l2_step, sign_step, with_momentum
    from s3ta.attacks.threat import L2, Linf, Threat
    from s3ta.process_state import seeded_global_generators

__all__ = [
    "L2",
    "SPSA",
    "AdamConfig",
    "Attack",
    "AttackConfig",
    "AttackCost",
    "Attacked",
    "AutoAttackConfig",
    "BoxRegion",
    "ExactGradient",
    "GradientEstimate",
    "GradientSource",
    "GridRegion",
    "Linf",
    "LocalLinearity",
    "LoopConfig",
    "ModelOutputs",
    "NotFiniteError",
    "Objective",
    "OutputsFn",
    "PGDConfig",
    "RandomKey",
    "Steering",
    "StepRule",
    "TangentPlane",
    "Threat",
    "adam_step",
    "all_glimpses_objective",
    "annealed_step_size",
    "attack_cost",
    "auto_attack",
    "autograd_gradient",
    "draw_start",
    "draw_targets",
    "evaluation_step_size",
    "final_logits",
    "frozen",
    "gradient_over_transformations",
    "l2_step",
    "local_linearity",
    "logit_margin",
    "perturb",
    "random_shift_and_noise",
    "random_signs",
    "random_target",
    "run_attack",
    "seeded_global_generators",
    "sign_step",
    "single_glimpse_objective",
    "spsa",
    "start_noise",
    "steer_away",
    "steer_onto",
    "straight_through",
    "tangent_plane",
    "target_margin",
    "targeted",
    "threat_model_of",
    "untargeted",
    "weighted_sum",
    "with_momentum",
]

load_names_on_first_use(__name__)
