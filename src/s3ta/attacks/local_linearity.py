"""Local linearity: how far a loss is from its tangent plane inside a ball (Qin et al. 2019; protocol C3).

Near an image x with gradient g = grad l(x) a trustworthy loss follows l(x) + d.g. The largest |l(x+d) - l(x) - d.g| in the
ball is gamma; where it is as large as the loss itself, the gradient says little about what an attacker finds nearby.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attacks.draws import RandomKey, random_signs
from s3ta.attacks.freeze_model import frozen_in_eval_mode
from s3ta.attacks.gradients import GradientEstimate, autograd_gradient
from s3ta.attacks.loop import Attack, gradient_ascent
from s3ta.attacks.objectives import ModelOutputs, Objective, OutputsFn
from s3ta.attacks.step_rules import sign_step
from s3ta.attacks.threat import Linf
from s3ta.types import Images


class Linearization(NamedTuple):
    """A loss and its gradient at some images: what the loss nearby is predicted from."""

    objective: Objective
    images: Images
    loss: Float[Tensor, " B"]
    gradient: Float[Tensor, "B C H W"]

    def predicted(self, images: Images) -> Float[Tensor, " B"]:
        """d.g: how much the loss rises from the tangent's images to these, were it linear."""
        return ((images - self.images) * self.gradient).flatten(1).sum(dim=1)


class LocalLinearity(NamedTuple):
    """The largest deviation from the tangent plane that was found in the ball, and where."""

    gamma: Float[Tensor, " B"]
    """|l(x+d) - l(x) - d.g|, in the unit of the loss: at least so much is there."""
    images: Images
    """x + d."""


def linearize(outputs_fn: OutputsFn, images: Images, objective: Objective) -> Linearization:
    """The objective and its gradient at the images; a module is frozen and put in eval mode for the duration."""
    with frozen_in_eval_mode(outputs_fn):
        estimate = autograd_gradient(outputs_fn, objective, images)
    assert estimate.outputs is not None
    return Linearization(objective, images.detach(), objective(estimate.outputs), estimate.gradient)


def local_linearity(
    outputs_fn: OutputsFn, plane: Linearization, *, radius: float, draw: RandomKey, num_attack_steps: int = 10
) -> LocalLinearity:
    """Search the L-infinity ball for the largest deviation from the tangent plane, by sign steps of a quarter of the radius.

    The search begins at random signs (stream `start`) and keeps the best point that it saw; each step costs one gradient, and
    the last point one forward pass. The ball is cut at the box of valid pixels."""
    threat = Linf(radius)
    gamma, furthest = torch.full_like(plane.loss, -1.0), plane.images

    def look(images: Images, outputs: ModelOutputs) -> Tensor:
        """The signed deviation at the images; the best is remembered."""
        nonlocal gamma, furthest
        deviation = plane.objective(outputs) - plane.loss - plane.predicted(images)
        better = deviation.abs() > gamma
        gamma = torch.where(better, deviation.abs(), gamma)
        furthest = torch.where(better.view(-1, 1, 1, 1), images, furthest)
        return deviation

    def away_from_the_plane(outputs_fn: OutputsFn, objective: Objective, images: Images, step: int) -> GradientEstimate:
        estimate = autograd_gradient(outputs_fn, objective, images, step)
        assert estimate.outputs is not None
        side = look(images, estimate.outputs).sign().view(-1, 1, 1, 1)
        return estimate._replace(gradient=side * (estimate.gradient - plane.gradient))

    start = threat.start(plane.images, random_signs(draw, plane.images))
    attack = Attack(threat, plane.objective, sign_step(radius / 4), num_attack_steps, gradient=away_from_the_plane)
    with frozen_in_eval_mode(outputs_fn):
        attacked = gradient_ascent(outputs_fn, plane.images, attack, start)
        with torch.no_grad():
            look(attacked.final, outputs_fn(attacked.final))
    return LocalLinearity(gamma, furthest)
