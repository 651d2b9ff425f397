"""Projected gradient descent with signed gradients, as the paper trains and evaluates with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, model_validator

from s3ta.attacks.loop import Attacked, perturb
from s3ta.attacks.objectives import OutputsFn, random_target, start_noise, targeted, untargeted
from s3ta.attacks.steps import sign_step
from s3ta.attacks.threat import Linf
from s3ta.config import Config, Radius
from s3ta.trace import Images, Labels


class PGDConfig(Config):
    """Signed-gradient PGD in an L-infinity ball (T14-T19, E2-E6). The defaults are the paper's evaluation at 100 steps."""

    objective: Literal["targeted", "untargeted"] = "targeted"
    """targeted: towards a random wrong class, fixed per example (T15); untargeted: away from the true label (E7)."""
    radius: Radius = 16 / 255
    """How far a pixel may move."""
    step_size: Radius = 1 / 255
    """How far a pixel moves in one attack step. The paper: 1/255, but 1.6/255 in evaluation with 10 steps (E5, T18)."""
    num_attack_steps: Annotated[int, Field(ge=0)] = 100
    random_start_prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of examples that start from noise, per example: 0.8 in the paper's training, 1 in evaluation (T17, E4)."""
    read_outs: tuple[int, ...] = ()
    """Step counts at which the same run is also read out; all share this step size."""
    num_restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; the target stays (E9). The worst one counts, example by example."""

    @model_validator(mode="after")
    def _read_outs_lie_on_the_way(self) -> PGDConfig:
        if any(not 0 < n <= self.num_attack_steps for n in self.read_outs):
            raise ValueError(
                f"read_outs {self.read_outs} must lie between 1 and num_attack_steps {self.num_attack_steps}"
            )
        return self


def evaluation_step_size(num_attack_steps: int) -> float:
    """The paper's rule at radius 16/255: 1.6/255 with 10 steps, 1/255 with any other number (E5, appendix B)."""
    return (1.6 if num_attack_steps == 10 else 1.0) / 255


def draw_targets(seed: int, ids: Sequence[str], labels: Labels, num_classes: int, *draw: int | str) -> Labels:
    """One target per example from its own stream; see `random_target`."""
    drawn = [random_target(seed, i, int(y), num_classes, *draw) for i, y in zip(ids, labels, strict=True)]
    return torch.tensor(drawn, dtype=labels.dtype, device=labels.device)


def draw_start(config: PGDConfig, seed: int, ids: Sequence[str], clean: Images, *draw: int | str) -> Images:
    """One start per example from its own stream; see `start_noise`. Drawn on the CPU, moved to the images' device."""
    shape = tuple(clean.shape[1:])
    noise = [start_noise(seed, i, shape, *draw, random_start_prob=config.random_start_prob) for i in ids]
    return Linf(config.radius).start(clean, torch.from_numpy(np.stack(noise)).to(clean))


def pgd(
    outputs_fn: OutputsFn, clean: Images, labels: Labels, *, config: PGDConfig, targets: Labels | None, start: Images
) -> Attacked:
    """Run the configured attack once (one restart) from the given start.

    Args:
      outputs_fn: images in [0, 1] -> logits or Trace.
      clean, labels: the examples under attack.
      config: strength.
      targets: classes to reach; needed by a targeted attack, ignored by an untargeted one.
      start: where to begin; `draw_start` draws it."""
    if config.objective == "targeted":
        assert targets is not None, "a targeted attack needs targets"
        objective = targeted(targets)
    else:
        objective = untargeted(labels)
    return perturb(
        outputs_fn,
        clean,
        threat=Linf(config.radius),
        objective=objective,
        step_rule=sign_step(config.step_size),
        num_attack_steps=config.num_attack_steps,
        start=start,
        read_outs=config.read_outs,
    )
