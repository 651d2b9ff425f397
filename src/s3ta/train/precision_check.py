"""Before lower precision, compilation or another memory layout is trained with: does it agree with plain float32?"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s3ta.attacks import OutputsFn, autograd_gradient, final_logits, frozen_in_eval_mode, untargeted
from s3ta.errors import UserError
from s3ta.models import NativeClassifier
from s3ta.models.batch_norm_statistics import statistics_kept, temporary_statistics
from s3ta.train.config import ComputeConfig
from s3ta.train.losses import Learner, make_outputs_fn
from s3ta.train.schedule import glimpses_at
from s3ta.train.step import DivergedError, Trainer
from s3ta.types import Images, Labels

LIMIT = 32
"""Images looked at (X10)."""
RETRY = 250
"""Training steps after which bfloat16 is tried again, as long as it does not agree."""
LOGITS, PREDICTIONS = 1e-3, 0.995
"""X40: largest difference over the largest logit, and the share of equal answers; not asked of bfloat16."""
SIGNS, ZEROS = 0.95, 1e-3
"""X10: share of equal signs of the input gradient, and of zeros beyond those of float32."""
UPDATE = 0.95
"""Cosine between both gradients of the weights."""


class Agreement(NamedTuple):
    """How far a mode of execution is from plain float32, on the same images and weights."""

    logits: float
    """Largest difference of a logit, over the largest logit."""
    predictions: float
    """Share of equal answers."""
    signs: float
    """Share of input gradients with the same sign, where float32 has one."""
    zeros: float
    """Share of input gradients that are zero here but not in float32."""
    update: float
    """Cosine between the gradients of the weights."""

    def problems(self, *, is_lower: bool) -> list[str]:
        """What is outside the protocol's bounds, as phrases: X10 for attacks in bfloat16, X40 for those in float32."""
        problems = []
        if is_lower and not self.signs >= SIGNS:
            problems.append(f"{self.signs:.1%} of the input gradients have the same sign (bound {SIGNS:.0%})")
        if is_lower and not self.zeros <= ZEROS:
            problems.append(f"{self.zeros:.2%} of the input gradients became zero (bound {ZEROS:.1%})")
        if not is_lower and not self.logits <= LOGITS:
            problems.append(f"logits differ by {self.logits:.1e} of the largest (bound {LOGITS:g})")
        if not is_lower and not self.predictions >= PREDICTIONS:
            problems.append(f"{self.predictions:.1%} of the answers are the same (bound {PREDICTIONS:.1%})")
        if not self.update >= UPDATE:
            problems.append(f"the weights' gradient points elsewhere (cosine {self.update:.3f}, bound {UPDATE:g})")
        return problems


def is_plain(compute: ComputeConfig) -> bool:
    """Whether nothing but precision differs from plain float32, so that there is nothing to check at the start."""
    return not (compute.compiled or compute.channels_last or compute.units_per_checkpoint)


def lower_is_due(compute: ComputeConfig, step: int) -> bool:
    """Whether bfloat16, where the recipe wants it, is to be tried at this training step."""
    return compute.uses_bfloat16 and step % RETRY == 0


class Trial(NamedTuple):
    """The result of comparing at a training step."""

    step: int
    precision: str
    agreement: Agreement
    problems: list[str]
    """Of this process."""
    agrees: bool
    """In all processes."""

    @property
    def line(self) -> dict[str, Any]:
        """For the learning curve."""
        line = {"kind": "agreement", "step": self.step, "precision": self.precision, "agrees": self.agrees}
        return line | self.agreement._asdict() | {"outside": self.problems}

    @property
    def refusal(self) -> UserError | None:
        """The error that refuses the run; None where all options agree with plain float32."""
        if not self.problems:
            return None
        return UserError(
            f"The options in `compute` do not agree with plain float32 here: {'; '.join(self.problems)}. Leave them out, or "
            "train all the same with compute.must_agree=false."
        )

    @property
    def sentence(self) -> str:
        """The sentence that is printed about bfloat16."""
        if self.agrees:
            return f"bfloat16 agrees with float32 at training step {self.step} and begins."
        why = "; ".join(self.problems) or "another process finds a bound broken"
        return f"bfloat16 does not agree with float32 at training step {self.step} ({why}); tried every {RETRY} steps."


def try_out(trainer: Trainer, images: Images, labels: Labels, step: int) -> Trial:
    """Compare the trainer's execution mode, as it is set now, with plain float32. All processes must come here together."""
    agreement = compared(trainer, images, labels, glimpses_at(trainer.config.schedule, step))
    problems = agreement.problems(is_lower=trainer.attacks_lower)
    return Trial(step, trainer.precision, agreement, problems, agrees=not trainer.ranks.any(bool(problems)))


def compared(trainer: Trainer, images: Images, labels: Labels, num_glimpses: int | None) -> Agreement:
    """How far the trainer's execution mode, as it is set now, is from plain float32 on up to `LIMIT` images. Nothing is
    changed by it; all processes must come here together, for they may share BN statistics."""
    count = min(LIMIT, len(labels), trainer.group)
    images, labels, config = images[:count], labels[:count], trainer.config
    with temporary_statistics(trainer.model, images):
        plain = _plain_copy(trainer.model)
        mode_fn, plain_fn = make_outputs_fn(trainer.attacked, num_glimpses), make_outputs_fn(plain, num_glimpses)
        with frozen_in_eval_mode(mode_fn), frozen_in_eval_mode(plain_fn), torch.no_grad():
            logits, plain_logits = final_logits(mode_fn(images)), final_logits(plain_fn(images))
        if trainer.ranks.any(not bool(plain_logits.isfinite().all())):
            raise DivergedError("A logit is not finite")
        slope, plain_slope = (_input_gradient(function, images, labels) for function in (mode_fn, plain_fn))
        learners = (trainer.own_learner, Learner(plain, config.loss, config.label_smoothing))
        update, plain_update = (_weight_gradient(learner, images, labels, num_glimpses) for learner in learners)
    trainer.model.zero_grad(set_to_none=True)
    there = plain_slope != 0
    return Agreement(
        logits=float((plain_logits - logits).abs().max() / plain_logits.abs().max()),
        predictions=float((plain_logits.argmax(1) == logits.argmax(1)).float().mean()),
        signs=float((slope.sign() == plain_slope.sign())[there].float().mean()),
        zeros=float(((slope == 0) & there).float().mean()),
        update=_cosine(update, plain_update),
    )


def _plain_copy(model: NativeClassifier) -> NativeClassifier:
    """The same weights in plain memory order, with all activations kept."""
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
    plain.vision.units_per_checkpoint = 0
    return plain


def _input_gradient(outputs_fn: OutputsFn, images: Images, labels: Labels) -> Tensor:
    with frozen_in_eval_mode(outputs_fn):
        return autograd_gradient(outputs_fn, untargeted(labels), images, 0).gradient


def _weight_gradient(learner: nn.Module, images: Images, labels: Labels, num_glimpses: int | None) -> list[Tensor]:
    learner.zero_grad(set_to_none=True)
    learner.train()
    with statistics_kept(learner):
        loss, _ = learner(None, images, labels, num_glimpses)
        loss.backward()
    return [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]


def _cosine(first: list[Tensor], second: list[Tensor]) -> float:
    """Of two long vectors in parts, added up in float64."""
    across, first_square, second_square = (
        sum(float((a.double() * b.double()).sum()) for a, b in pairs)
        for pairs in (zip(first, second, strict=True), zip(first, first, strict=True), zip(second, second, strict=True))
    )
    return across / math.sqrt(first_square * second_square) if first_square * second_square > 0 else math.nan
