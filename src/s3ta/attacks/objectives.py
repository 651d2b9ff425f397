"""What the attacker wants more of: one number per example, never reduced over the batch. Attacks ascend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from s3ta.attack_config import Loss
from s3ta.errors import UserError
from s3ta.types import Images, Labels, Logits, Trace

ModelOutputs: TypeAlias = Tensor | Trace
"""What the attacked callable returns: logits (B, Y), or a Trace, of which only objectives look inside."""
OutputsFn: TypeAlias = Callable[[Images], ModelOutputs]
Objective: TypeAlias = Callable[[ModelOutputs], Float[Tensor, " B"]]


def final_logits(outputs: ModelOutputs) -> Logits:
    """The answer: the logits themselves, or a Trace's last read-out."""
    return outputs.logits[-1] if isinstance(outputs, Trace) else outputs


def map_outputs(function: Callable[[Tensor], Tensor], outputs: ModelOutputs) -> ModelOutputs:
    """The outputs with the function applied to each tensor."""
    return Trace(*map(function, outputs)) if isinstance(outputs, Trace) else function(outputs)


def untargeted(labels: Labels, loss: Loss = "cross_entropy") -> Objective:
    """Away from the true label, by one of three losses (E7).

    cross_entropy: of the true label, no smoothing. margin: largest wrong logit minus the true one; above 0 exactly where
    the answer is wrong, and its gradient does not vanish where the model is sure. dlr: that margin over the difference of
    the largest and the third largest logit, so that it does not change when all logits are multiplied (Croce and Hein
    2020); needs three classes."""
    if loss == "margin":
        return lambda outputs: logit_margin(final_logits(outputs), labels)
    if loss == "dlr":
        return lambda outputs: _dlr(final_logits(outputs), labels)
    return lambda outputs: cross_entropy(final_logits(outputs), labels, reduction="none")


def away_from_shares(shares: Float[Tensor, "B Y"]) -> Objective:
    """Away from all classes that an image is mixed of: the cross-entropy of their shares, no smoothing."""
    return lambda outputs: cross_entropy(final_logits(outputs), shares, reduction="none")


def targeted(targets: Labels, loss: Loss = "cross_entropy", labels: Labels | None = None) -> Objective:
    """Towards the target, by one of three losses (T16, paper section 4.1).

    cross_entropy: minus that of the target, no smoothing. margin: the target's logit minus the largest other one; above 0
    exactly where the target is the answer. dlr: the target's logit minus the true one, over the difference of the largest
    logit and the mean of the third and fourth (Croce and Hein 2020); needs `labels` and four classes."""
    if loss == "margin":
        return lambda outputs: -logit_margin(final_logits(outputs), targets)
    if loss == "dlr":
        assert labels is not None, "the targeted DLR loss needs the true labels"
        return lambda outputs: _targeted_dlr(final_logits(outputs), labels, targets)
    return lambda outputs: -cross_entropy(final_logits(outputs), targets, reduction="none")


def multitargeted_objective(targets: Labels, labels: Labels) -> Objective:
    """The target's logit minus the true one: the loss of MultiTargeted (Gowal et al. 2019)."""
    return lambda outputs: _pick(final_logits(outputs), targets) - _pick(final_logits(outputs), labels)


def divergence(clean_logits: Logits) -> Objective:
    """Away from the model's own answer to the clean image: KL(clean answer || answer), in nats (TRADES, Zhang et al. 2019).

    Its gradient is zero at the clean image, so it needs a random start."""
    clean = clean_logits.detach().log_softmax(dim=-1)
    return lambda outputs: (clean.exp() * (clean - final_logits(outputs).log_softmax(dim=-1))).sum(dim=-1)


def logit_margin(logits: Logits, classes: Labels) -> Float[Tensor, " B"]:
    """The largest logit of any other class minus that of the given one."""
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return others.amax(dim=1) - _pick(logits, classes)


def ranked_target(logits: Logits, labels: Labels, rank: int) -> Labels:
    """The wrong class with the `rank`-th largest logit, from 0, round again after the last."""
    order = logits.scatter(1, labels[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
    return order[:, rank % (logits.shape[1] - 1)].to(labels.dtype)


def _dlr(logits: Logits, labels: Labels) -> Tensor:
    largest = _largest(logits, 3)
    return logit_margin(logits, labels) / (largest[:, 0] - largest[:, 2] + 1e-12)


def _targeted_dlr(logits: Logits, labels: Labels, targets: Labels) -> Tensor:
    largest = _largest(logits, 4)
    scale = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + 1e-12
    return (_pick(logits, targets) - _pick(logits, labels)) / scale


def _largest(logits: Logits, number: int) -> Tensor:
    if (count := logits.shape[1]) < number:
        raise UserError(
            f"This dlr loss needs {number} classes or more, but the model has {count}: choose another loss."
        )
    return logits.topk(number, dim=1).values


def _pick(logits: Logits, classes: Labels) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]
