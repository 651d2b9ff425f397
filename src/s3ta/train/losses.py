"""From images to the loss that weights learn from. What DistributedDataParallel wraps; attacks never see it (X39)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, kl_div

from s3ta.attacks import OutputsFn, final_logits
from s3ta.models import S3TA, ExecutedModel
from s3ta.models.batch_norm_statistics import statistics_fixed, statistics_recorded
from s3ta.train.config import AdversarialLoss, LocalLinearityLoss, LossConfig, TradesLoss
from s3ta.types import Images, Labels, Logits, Trace

Shares: TypeAlias = Float[Tensor, "B Y"]
"""Of every class in a mixed image."""


class Learner(nn.Module):
    """The mean loss over one BN group, with the model in training mode."""

    def __init__(self, model: nn.Module, loss: LossConfig, label_smoothing: float) -> None:
        super().__init__()
        self.model = model
        self._loss = loss
        self._label_smoothing = label_smoothing
        self._at_each_glimpse = isinstance(loss, AdversarialLoss) and loss.glimpses == "all"

    def forward(
        self, clean: Images | None, attacked: Images, labels: Labels | Shares, num_glimpses: int | None
    ) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
        """The loss, and how many of the attacked images are answered right: where images are mixed and `labels` are the shares
        of all classes, with the largest share.

        Without `clean` the attacked images alone are learned from (T12), perhaps at every glimpse. With it, TRADES takes the
        cross-entropy on the clean ones and the divergence between both answers, through which gradients flow on both sides;
        local linearity (LLR) the cross-entropy on the clean ones and what `linearity_terms` gives."""
        outputs_fn = make_outputs_fn(self.model, num_glimpses, trace=self._at_each_glimpse)
        if clean is not None and isinstance(self._loss, TradesLoss):
            clean_logits, logits = final_logits(outputs_fn(clean)), final_logits(outputs_fn(attacked))
            apart = kl_div(logits.log_softmax(1), clean_logits.log_softmax(1), reduction="batchmean", log_target=True)
            loss = self._cross_entropy(clean_logits, labels) + self._loss.beta * apart
        elif clean is not None and isinstance(self._loss, LocalLinearityLoss):
            with statistics_recorded(self.model) as statistics:
                loss = self._cross_entropy(final_logits(outputs_fn(clean)), labels)
            with statistics_fixed(statistics):
                terms = linearity_terms(outputs_fn, clean, attacked, labels)
            logits = terms.logits
            loss = loss + self._loss.gamma_weight * terms.gamma.mean() + self._loss.gradient_weight * terms.rise.mean()
        else:
            outputs = outputs_fn(attacked)
            logits = final_logits(outputs)
            if isinstance(outputs, Trace) and self._at_each_glimpse:
                loss = torch.stack([self._cross_entropy(each, labels) for each in outputs.logits]).mean()
            else:
                loss = self._cross_entropy(logits, labels)
        true = labels if labels.ndim == 1 else labels.argmax(dim=1)
        return loss, (logits.detach().argmax(dim=1) == true).sum()

    def _cross_entropy(self, logits: Logits, labels: Labels | Shares) -> Float[Tensor, ""]:
        return cross_entropy(logits, labels, label_smoothing=self._label_smoothing)


class LinearityTerms(NamedTuple):
    """How an image's loss l follows its tangent plane at the clean image x to x + d; gradients reach the weights (C3)."""

    gamma: Float[Tensor, " B"]
    """|l(x+d) - l(x) - d.g|."""
    rise: Float[Tensor, " B"]
    """|d.g|."""
    logits: Logits
    """At x + d."""


def linearity_terms(outputs_fn: OutputsFn, clean: Images, attacked: Images, labels: Labels | Shares) -> LinearityTerms:
    """The terms of the cross-entropy, without label smoothing. An image's answer must not depend on its batch."""
    clean = clean.detach().requires_grad_(True)
    with sdpa_kernel(SDPBackend.MATH):  # torch's fused attention has no second derivative
        loss = cross_entropy(final_logits(outputs_fn(clean)), labels, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), clean, create_graph=True)
    predicted = ((attacked.detach() - clean.detach()) * gradient).flatten(1).sum(dim=1)
    logits = final_logits(outputs_fn(attacked))
    gap = cross_entropy(logits, labels, reduction="none") - loss - predicted
    return LinearityTerms(gap.abs(), predicted.abs(), logits)


def make_outputs_fn(model: nn.Module, glimpses: int | None, *, trace: bool = False) -> OutputsFn:
    """The model, or its trace: after another number of glimpses than its own, or where an attack wants to see it."""
    bare = model.model if isinstance(model, ExecutedModel) else model
    return partial(model.unroll, num_glimpses=glimpses) if (glimpses or trace) and isinstance(bare, S3TA) else model  # pyright: ignore
