"""Attacks: (callable, images, labels) -> adversarial images. Read `s3ta.attacks.loop` first; no model class is named here."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import (
        SPSA,
        AdamConfig,
        AttackConfig,
        AttentionSteering,
        AutoAttackComponentConfig,
        BoxRegion,
        ExactGradient,
        GradientAttackConfig,
        GridRegion,
        PGDConfig,
        evaluation_step_size,
    )
    from s3ta.attacks.attack import draw_start, run_attack, threat_model_of
    from s3ta.attacks.autoattack import autoattack_component
    from s3ta.attacks.cost import AttackCost, attack_cost
    from s3ta.attacks.draws import RandomKey, draw_targets, random_signs, random_target, start_noise
    from s3ta.attacks.freeze_model import frozen_in_eval_mode
    from s3ta.attacks.glimpse_objectives import (
        all_glimpses_objective,
        attention_region_objective,
        attention_shift_objective,
        single_glimpse_objective,
        weighted_sum,
    )
    from s3ta.attacks.gradients import (
        GradientEstimate,
        GradientSource,
        autograd_gradient,
        eot_gradient,
        random_shift_and_noise,
        spsa,
        straight_through,
    )
    from s3ta.attacks.input_validation import NotFiniteError
    from s3ta.attacks.local_linearity import Linearization, LocalLinearity, linearize, local_linearity
    from s3ta.attacks.loop import Attack, AttackTrajectory, gradient_ascent
    from s3ta.attacks.objectives import (
        ModelOutputs,
        Objective,
        OutputsFn,
        final_logits,
        logit_margin,
        multitargeted_objective,
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
    "AttackTrajectory",
    "AttentionSteering",
    "AutoAttackComponentConfig",
    "BoxRegion",
    "ExactGradient",
    "GradientAttackConfig",
    "GradientEstimate",
    "GradientSource",
    "GridRegion",
    "Linearization",
    "Linf",
    "LocalLinearity",
    "ModelOutputs",
    "NotFiniteError",
    "Objective",
    "OutputsFn",
    "PGDConfig",
    "RandomKey",
    "StepRule",
    "Threat",
    "adam_step",
    "all_glimpses_objective",
    "annealed_step_size",
    "attack_cost",
    "attention_region_objective",
    "attention_shift_objective",
    "autoattack_component",
    "autograd_gradient",
    "draw_start",
    "draw_targets",
    "eot_gradient",
    "evaluation_step_size",
    "final_logits",
    "frozen_in_eval_mode",
    "gradient_ascent",
    "l2_step",
    "linearize",
    "local_linearity",
    "logit_margin",
    "multitargeted_objective",
    "random_shift_and_noise",
    "random_signs",
    "random_target",
    "run_attack",
    "seeded_global_generators",
    "sign_step",
    "single_glimpse_objective",
    "spsa",
    "start_noise",
    "straight_through",
    "targeted",
    "threat_model_of",
    "untargeted",
    "weighted_sum",
    "with_momentum",
]

load_names_on_first_use(__name__)
