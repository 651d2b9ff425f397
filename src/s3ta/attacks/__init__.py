"""(callable, images, labels) -> adversarial images. Never names a model class. Read `s3ta.attacks.loop` first."""

from s3ta.attacks.frozen import frozen
from s3ta.attacks.loop import Attacked, NotFiniteError, autograd_gradient, perturb
from s3ta.attacks.objectives import final_logits, random_target, start_noise, targeted, untargeted
from s3ta.attacks.pgd import PGDConfig, draw_start, draw_targets, evaluation_step_size, pgd
from s3ta.attacks.steps import sign_step
from s3ta.attacks.threat import Linf

__all__ = [
    "Attacked",
    "Linf",
    "NotFiniteError",
    "PGDConfig",
    "autograd_gradient",
    "draw_start",
    "draw_targets",
    "evaluation_step_size",
    "final_logits",
    "frozen",
    "perturb",
    "pgd",
    "random_target",
    "sign_step",
    "start_noise",
    "targeted",
    "untargeted",
]
