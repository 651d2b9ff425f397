"""Attacks: (callable, images, labels) -> adversarial images. Read `s3ta.attacks.loop` first; no model class is named here."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import SPSA as SPSA
    from s3ta.attack_config import AdamConfig as AdamConfig
    from s3ta.attack_config import AttackConfig as AttackConfig
    from s3ta.attack_config import AttentionSteering as AttentionSteering
    from s3ta.attack_config import AutoAttackComponentConfig as AutoAttackComponentConfig
    from s3ta.attack_config import BackpropGradient as BackpropGradient
    from s3ta.attack_config import BoxRegion as BoxRegion
    from s3ta.attack_config import GradientAttackConfig as GradientAttackConfig
    from s3ta.attack_config import GridRegion as GridRegion
    from s3ta.attack_config import PGDConfig as PGDConfig
    from s3ta.attack_config import evaluation_step_size as evaluation_step_size
    from s3ta.attacks.attack import draw_start as draw_start
    from s3ta.attacks.attack import run_attack as run_attack
    from s3ta.attacks.attack import threat_model_of as threat_model_of
    from s3ta.attacks.autoattack import run_autoattack_component as run_autoattack_component
    from s3ta.attacks.cost import AttackCost as AttackCost
    from s3ta.attacks.cost import attack_cost as attack_cost
    from s3ta.attacks.draws import RandomKey as RandomKey
    from s3ta.attacks.draws import draw_targets as draw_targets
    from s3ta.attacks.draws import random_signs as random_signs
    from s3ta.attacks.draws import random_target as random_target
    from s3ta.attacks.draws import start_noise as start_noise
    from s3ta.attacks.freeze_model import frozen_in_eval_mode as frozen_in_eval_mode
    from s3ta.attacks.glimpse_objectives import all_glimpses_objective as all_glimpses_objective
    from s3ta.attacks.glimpse_objectives import attention_region_objective as attention_region_objective
    from s3ta.attacks.glimpse_objectives import attention_shift_objective as attention_shift_objective
    from s3ta.attacks.glimpse_objectives import single_glimpse_objective as single_glimpse_objective
    from s3ta.attacks.glimpse_objectives import weighted_sum as weighted_sum
    from s3ta.attacks.gradients import GradientEstimate as GradientEstimate
    from s3ta.attacks.gradients import GradientSource as GradientSource
    from s3ta.attacks.gradients import autograd_gradient as autograd_gradient
    from s3ta.attacks.gradients import eot_gradient as eot_gradient
    from s3ta.attacks.gradients import random_shift_and_noise as random_shift_and_noise
    from s3ta.attacks.gradients import spsa as spsa
    from s3ta.attacks.gradients import straight_through as straight_through
    from s3ta.attacks.input_validation import NotFiniteError as NotFiniteError
    from s3ta.attacks.local_linearity import Linearization as Linearization
    from s3ta.attacks.local_linearity import LocalLinearity as LocalLinearity
    from s3ta.attacks.local_linearity import linearize as linearize
    from s3ta.attacks.local_linearity import local_linearity as local_linearity
    from s3ta.attacks.loop import Attack as Attack
    from s3ta.attacks.loop import AttackTrajectory as AttackTrajectory
    from s3ta.attacks.loop import gradient_ascent as gradient_ascent
    from s3ta.attacks.objectives import ModelOutputs as ModelOutputs
    from s3ta.attacks.objectives import Objective as Objective
    from s3ta.attacks.objectives import OutputsFn as OutputsFn
    from s3ta.attacks.objectives import final_logits as final_logits
    from s3ta.attacks.objectives import logit_margin as logit_margin
    from s3ta.attacks.objectives import multitargeted_objective as multitargeted_objective
    from s3ta.attacks.objectives import targeted as targeted
    from s3ta.attacks.objectives import untargeted as untargeted
    from s3ta.attacks.step_rules import StepRule as StepRule
    from s3ta.attacks.step_rules import adam_step as adam_step
    from s3ta.attacks.step_rules import annealed_step_size as annealed_step_size
    from s3ta.attacks.step_rules import l2_step as l2_step
    from s3ta.attacks.step_rules import sign_step as sign_step
    from s3ta.attacks.step_rules import with_momentum as with_momentum
    from s3ta.attacks.threat import L2 as L2
    from s3ta.attacks.threat import Linf as Linf
    from s3ta.attacks.threat import Threat as Threat
    from s3ta.process_state import seeded_global_generators as seeded_global_generators

load_names_on_first_use(__name__)
