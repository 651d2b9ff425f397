"""The one attack loop: start, then gradient, step and projection again and again, with read-outs on the way.

An attack is a threat model (ball and box) x an objective (a number per example, to ascend) x a gradient source x a step
rule x a start. The attacks of the paper and of the field are short constructions of it: `s3ta.attacks.attack`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from s3ta.attacks.freeze_model import frozen_in_eval_mode
from s3ta.attacks.gradients import GradientSource, autograd_gradient
from s3ta.attacks.input_validation import NotFiniteError, check_images
from s3ta.attacks.objectives import ModelOutputs, Objective, OutputsFn
from s3ta.attacks.step_rules import StepRule
from s3ta.attacks.threat import Threat
from s3ta.types import Images


class AttackTrajectory(NamedTuple):
    """Where the attack stood at each read-out; the last one is its result."""

    read_outs: tuple[int, ...]
    """Numbers of attack steps, rising."""
    images: Float[Tensor, "R B C H W"]
    """The image proposed after each of them; in ball and box, no gradient attached."""
    num_gradients: Int[Tensor, "R B"]
    """Gradient evaluations that each example had cost by then; what a run of only so many steps would have cost."""
    num_forwards: Int[Tensor, "R B"]
    """Forward evaluations likewise, those of the gradients among them."""

    @property
    def final(self) -> Images:
        return self.images[-1]


class Attack(NamedTuple):
    """Everything of an attack but its start."""

    threat: Threat
    objective: Objective
    """To ascend."""
    step_rule: StepRule
    num_attack_steps: int
    """0: the start is the result."""
    read_outs: Sequence[int] = ()
    """Step counts whose iterates are wanted besides the last."""
    gradient: GradientSource = autograd_gradient
    keep_best: Objective | None = None
    """None: the last iterate counts, as in the paper (X14). A quantity: of all iterates up to a read-out, start included, the
    first with the largest value counts; it costs one forward pass more."""


def gradient_ascent(
    outputs_fn: OutputsFn, clean: Images, attack: Attack, start: Images | None = None
) -> AttackTrajectory:
    """Ascend the objective inside the threat model and return the iterates at the read-outs.

    Args:
      outputs_fn: images in [0, 1] -> logits or Trace; a module is frozen and put in eval mode for the duration.
      clean: the images under attack. They and `start` are never modified.
      start: where to begin, inside the ball; default the clean images.
    Returns:
      AttackTrajectory, with one entry per read-out, the last after num_attack_steps steps.
    Raises:
      UserError: no images, images not finite or not in [0, 1], or a gradient that is not finite (NotFiniteError)."""
    threat, objective, step_rule, num_attack_steps, read_outs, gradient, keep_best = attack
    check_images(clean)
    counts = {n for n in read_outs if n < num_attack_steps} | {num_attack_steps}
    clean = clean.detach()
    iterate = (clean if start is None else start).detach().clone()
    best = _Best(keep_best)
    kept, costs, num_gradients, num_forwards = [], [], 0, 0
    with frozen_in_eval_mode(outputs_fn):
        for done in range(num_attack_steps + 1):
            if done in counts:
                costs.append((num_gradients, num_forwards + (keep_best is not None)))
            estimate = None
            if done < num_attack_steps:
                estimate = gradient(outputs_fn, objective, iterate, done)
                num_gradients += estimate.num_gradients
                num_forwards += estimate.num_forwards
                if not _is_finite(estimate.gradient):
                    raise NotFiniteError(f"The model's gradient is not finite (NaN or infinite) at attack step {done}.")
            if keep_best is not None:
                outputs = estimate.outputs if estimate else None
                num_forwards += outputs is None
                best.see(iterate, outputs, outputs_fn)
            if done in counts:
                kept.append(iterate if keep_best is None else best.images)
            if estimate is not None:
                iterate = threat.project(step_rule(iterate, threat.allowed(estimate.gradient), done), clean)
    gradients, forwards = torch.tensor(costs).T[:, :, None].expand(2, len(costs), len(clean))
    return AttackTrajectory(tuple(sorted(counts)), torch.stack(kept), gradients, forwards)


def _is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite. The sum shows it in one pass; only a sum that overflowed is looked at again."""
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


class _Best:
    """The best iterate so far, example by example."""

    def __init__(self, quantity: Objective | None) -> None:
        self._quantity = quantity
        self._values: Tensor | None = None
        self.images = torch.empty(0)

    @torch.no_grad()
    def see(self, iterate: Images, outputs: ModelOutputs | None, outputs_fn: OutputsFn) -> None:
        assert self._quantity is not None
        values = self._quantity(outputs_fn(iterate) if outputs is None else outputs)
        if self._values is None:
            self._values, self.images = values, iterate
            return
        better = values > self._values
        self._values = torch.where(better, values, self._values)
        self.images = torch.where(better.view(-1, 1, 1, 1), iterate, self.images)
