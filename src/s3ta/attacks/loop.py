"""The one attack loop: start, then gradient, step and projection again and again, with read-outs on the way.

An attack is a threat model (ball and box) x an objective (a number per example, to ascend) x a gradient source x a step
rule x a start. The paper's attacks are short constructions of it: `s3ta.attacks.pgd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attacks.frozen import frozen
from s3ta.attacks.objectives import Objective, OutputsFn
from s3ta.attacks.steps import StepRule
from s3ta.attacks.threat import Linf
from s3ta.errors import UserError
from s3ta.trace import Images

GradientSource: TypeAlias = Callable[[OutputsFn, Objective, Images], Tensor]
"""(callable, objective, images) -> gradient of each example's objective at its image, same shape as the images."""


class Attacked(NamedTuple):
    """Where the attack stood at each read-out; the last one is its result (last iterate, never the best one: X14)."""

    read_outs: tuple[int, ...]
    """Numbers of attack steps, rising."""
    images: Float[Tensor, "R B C H W"]
    """The iterate after each of them; in ball and box, no gradient attached."""
    num_gradients: int
    """Gradient evaluations per example."""

    @property
    def final(self) -> Images:
        return self.images[-1]


def perturb(
    outputs_fn: OutputsFn,
    clean: Images,
    *,
    threat: Linf,
    objective: Objective,
    step_rule: StepRule,
    num_attack_steps: int,
    start: Images | None = None,
    read_outs: Sequence[int] = (),
    gradient: GradientSource | None = None,
) -> Attacked:
    """Ascend the objective inside the threat model and return the iterates at the read-outs.

    Args:
      outputs_fn: images in [0, 1] -> logits or Trace; a module is frozen and put in eval mode for the duration.
      clean: the images under attack. They and `start` are never modified.
      threat: what is allowed.
      objective: per-example quantity to ascend.
      step_rule: how the iterate moves along the gradient.
      num_attack_steps: how many steps; 0 returns the start.
      start: where to begin, inside the ball; default the clean images.
      read_outs: step counts whose iterates are wanted besides the last.
      gradient: where gradients come from; default exact, by autograd.
    Returns:
      Attacked, with one entry per read-out, the last after num_attack_steps steps.
    Raises:
      UserError: images that are not finite or not in [0, 1], or a gradient that is not finite (NotFiniteError)."""
    _check_images(clean)
    gradient = gradient or autograd_gradient
    wanted = tuple(sorted({n for n in read_outs if n < num_attack_steps} | {num_attack_steps}))
    clean = clean.detach()
    iterate = (clean if start is None else start).detach().clone()
    kept = []
    with frozen(outputs_fn):
        for done in range(num_attack_steps + 1):
            if done in wanted:
                kept.append(iterate)
            if done < num_attack_steps:
                ascent = gradient(outputs_fn, objective, iterate)
                if not torch.isfinite(ascent).all():
                    raise NotFiniteError(f"The model's gradient is not finite (NaN or infinite) at attack step {done}.")
                iterate = threat.project(step_rule(iterate, ascent), clean)
    return Attacked(wanted, torch.stack(kept), num_attack_steps)


def _check_images(images: Images) -> None:
    low, high = images.amin().item(), images.amax().item()
    if not (low >= 0 and high <= 1):
        what = (
            f"values from {low:g} to {high:g}" if low == low and high == high else "values that are not numbers (NaN)"
        )
        raise UserError(
            f"The images under attack have {what}: give pixels in [0, 1] and put normalisation into the model."
        )


class NotFiniteError(UserError):
    """A gradient that is NaN or infinite: the attack would stand still and the model look robust."""


def autograd_gradient(outputs_fn: OutputsFn, objective: Objective, images: Images) -> Tensor:
    """The exact gradient. Objectives are summed, so each example's gradient is its own (X11); weights get none (X9)."""
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        return torch.autograd.grad(objective(outputs_fn(images)).sum(), images)[0]
