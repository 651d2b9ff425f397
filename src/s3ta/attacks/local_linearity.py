"""Local linearity: how far a loss is from its tangent plane inside a ball (Qin et al. 2019; protocol C3).

Near an image x with gradient g = grad l(x) a trustworthy loss follows l(x) + d.g. The largest |l(x+d) - l(x) - d.g| in the
ball is gamma; where it is as large as the loss itself, the gradient says little about what an attacker finds nearby.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attacks.draws import RandomKey, random_signs
from s3ta.attacks.freeze_model import frozen_in_eval_mode
from s3ta.attacks.gradients import GradientEstimate, GradientSource, autograd_gradient
from s3ta.attacks.loop import Attack, gradient_ascent
from s3ta.attacks.objectives import Objective, OutputsFn
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

    def gap(self, images: Images, loss: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """l(x+d) - l(x) - d.g: how far the loss at these images lies above the plane."""
        return loss - self.loss - self.predicted(images)


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


def tangent_gap_gradient(plane: Linearization, see: Callable[[Images, Tensor], None] | None = None) -> GradientSource:
    """The gradient of |l(x+d) - l(x) - d.g|, that of the plane a constant (C3); zero where the two meet, as at d = 0.

    `see` is told the images of every step, and the gaps there."""

    def source(outputs_fn: OutputsFn, objective: Objective, images: Images, step: int) -> GradientEstimate:
        estimate = autograd_gradient(outputs_fn, objective, images, step)
        assert estimate.outputs is not None
        gap = plane.gap(images, objective(estimate.outputs))
        if see is not None:
            see(images, gap)
        return estimate._replace(gradient=gap.sign().view(-1, 1, 1, 1) * (estimate.gradient - plane.gradient))

    return source


def local_linearity(
    outputs_fn: OutputsFn, plane: Linearization, *, radius: float, draw: RandomKey, num_attack_steps: int = 10
) -> LocalLinearity:
    """Search the L-infinity ball for the largest deviation from the tangent plane, by sign steps of a quarter of the radius.

    The search begins at random signs (stream `start`) and keeps the best point that it saw; each step costs one gradient, and
    the last point one forward pass. The ball is cut at the box of valid pixels."""
    threat = Linf(radius)
    gamma, furthest = torch.full_like(plane.loss, -1.0), plane.images

    def remember(images: Images, gap: Tensor) -> None:
        nonlocal gamma, furthest
        better = gap.abs() > gamma
        gamma = torch.where(better, gap.abs(), gamma)
        furthest = torch.where(better.view(-1, 1, 1, 1), images, furthest)

    start = threat.start(plane.images, random_signs(draw, plane.images))
    gradient = tangent_gap_gradient(plane, remember)
    attack = Attack(threat, plane.objective, sign_step(radius / 4), num_attack_steps, gradient=gradient)
    with frozen_in_eval_mode(outputs_fn):
        attacked = gradient_ascent(outputs_fn, plane.images, attack, start)
        with torch.no_grad():
            remember(attacked.final, plane.gap(attacked.final, plane.objective(outputs_fn(attacked.final))))
    return LocalLinearity(gamma, furthest)
