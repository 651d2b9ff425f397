"""Whether gradients say anything: a graph to the image, slopes that are not zero, a loss that has not run out of digits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import logit_margin, seeded_global_generators
from s3ta.evaluate.lint.harness import ModelError, ModelHarness, as_model_error, not_finite_rows, number
from s3ta.finding import Check, Finding

_AT_ONCE = 8
_SOME, _MOST = 0.1, 0.5
_FLAT = 1e-4
"""A slope is flat where 16/255 along it changes the margin by less than this share of it."""
_RADIUS = 16 / 255
_UNDERFLOW = 1e-30
_MANY_ZEROS = 0.75
_NO_GRAPH = "The logits have no graph to the image (no_grad, detach, or numbers taken out of torch)."

Quantity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Logits (n, Y) and labels (n,) -> a number per image."""


class Slopes(NamedTuple):
    """Gradients of cross-entropy and margin to the image, both (n, pixels), and the margins (n,)."""

    loss: Tensor
    margin: Tensor
    margins: Tensor


class NoGradientError(Exception):
    """The answer has none; the text says why."""


def slopes(probe: ModelHarness) -> Slopes:
    """Both gradients, each from a forward pass of its own (compiled networks give up a graph's memory at its first use).
    Raises NoGradientError, and ModelError where the model raises."""
    parts = []
    labels, at_once = probe.labels.to(probe.images.device), min(_AT_ONCE, probe.at_once)
    for images, true_labels in zip(probe.images.split(at_once), labels.split(at_once), strict=True):
        margins, by_loss = _slope(probe, images, true_labels, _loss)
        _, by_margin = _slope(probe, images, true_labels, logit_margin)
        parts.append([by_loss, by_margin, margins])
    return Slopes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _slope(probe: ModelHarness, images: Tensor, labels: Tensor, quantity: Quantity) -> tuple[Tensor, Tensor]:
    """Margins (n,) and the gradient of a quantity (n, pixels), on the CPU."""
    with torch.enable_grad(), seeded_global_generators(0):  # a random model draws the same for both quantities
        leaf = images.clone().requires_grad_(True)
        logits = probe.raw(leaf.clone())
        margins = logit_margin(logits.detach().float(), labels).cpu()
        if not logits.requires_grad:
            raise NoGradientError(_quantised(probe.model) or _NO_GRAPH)
        value = quantity(logits.float(), labels).sum()
        (gradient,) = as_model_error(lambda: torch.autograd.grad(value, leaf, allow_unused=True))
    if gradient is None:
        raise NoGradientError(_quantised(probe.model) or "The logits have a graph, but it does not reach the image.")
    return margins, gradient.float().flatten(1).cpu()


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="none")


def _quantised(model: nn.Module) -> str | None:
    """Why a quantised network has no gradient; None of any other."""
    kinds = sorted({type(m).__name__ for m in model.modules() if "quantized" in type(m).__module__})
    return f"The network is quantised ({', '.join(kinds[:3])}): its arithmetic has no backward pass." if kinds else None


def gradients(probe: ModelHarness) -> list[Finding]:
    """`gradient` and `saturated loss`."""
    unknown = Check("saturated loss").unchecked("There is no gradient to compare with.")
    try:
        estimate = slopes(probe)
    except ModelError as error:
        sentence, advice = f"Asked for a gradient, the model {error}.", "Mend the operation that has no backward pass"
    except NoGradientError as error:
        sentence, advice = str(error), "Take no_grad, detach and numpy out of forward"
        if "quantised" in sentence:
            advice = "Measure the network before it was quantised"
    else:
        first = _gradient(estimate, probe.ids)
        return [first, unknown if first.severity == "error" else _saturated(estimate)]
    advice += ", or choose attacks without gradients (spsa, square)."
    return [Check("gradient").error(sentence, {}, advice), unknown]


def vanishes(gradients: Tensor) -> Tensor:
    """Whether a gradient (n, ...) is exactly zero at every pixel: bool (n,)."""
    return (gradients == 0).flatten(1).all(dim=1)


def _gradient(estimate: Slopes, ids: list[str]) -> Finding:
    check = Check("gradient")
    count = len(estimate.margin)
    rows = not_finite_rows(torch.cat([estimate.loss, estimate.margin], dim=1))
    if bad := len(rows):
        advice = "Look for sqrt, log, norm or division at zero in the model, where the backward pass is infinite."
        sentence = f"The gradient of {bad} of {count} images is NaN or infinite, the first of them {ids[rows[0]]}."
        return check.error(sentence, {"not_finite": bad, "images": count}, advice)
    dead = float(vanishes(estimate.margin).float().mean())
    reach = _RADIUS * estimate.margin.abs().sum(dim=1) / estimate.margins.abs().clamp_min(1e-30)
    flat = float((reach < _FLAT).float().mean())
    zeros = float((estimate.margin == 0).float().mean())
    evidence: dict[str, Any] = {
        "images": count,
        "zero_gradient": number(dead),
        "flat": number(flat),
        "zero_pixels": number(zeros),
        "median_reach": number(float(reach.median())),
    }
    advice = (
        "Take rounding, thresholds and saturated activations out, or attack through them: attacks without gradients "
        "(--suite strongest), straight-through gradients."
    )
    if dead > 0:
        severity = "error" if dead == 1 else "warning" if dead >= _SOME else "note"
        effect = "an attack by gradients stands still there."
        sentence = f"The gradient of {dead:.0%} of {count} images is exactly zero: {effect}"
        return Finding("gradient", severity, sentence, evidence, advice)
    if flat >= _MOST:
        effect = "by it, 16/255 would not move the margin by 0.01%."
        sentence = f"The gradient of {flat:.0%} of {count} images vanishes: {effect}"
        return check.warning(sentence, evidence, advice)
    if zeros > _MANY_ZEROS:
        sentence = f"The gradient is exactly zero at {zeros:.0%} of all pixels: an attack leaves them alone."
        return check.note(sentence, evidence, "Check that the model is meant to overlook so many pixels.")
    return check.passed("Every image has a gradient.", evidence)


def _saturated(estimate: Slopes) -> Finding:
    check = Check("saturated loss")
    has_slope = (estimate.margin != 0).any(dim=1)
    lost = has_slope & (estimate.loss.abs().amax(dim=1) < _UNDERFLOW * estimate.margin.abs().amax(dim=1))
    share = float(lost.float().mean())
    evidence = {
        "images": len(lost),
        "underflow": number(share),
        "largest_margin": number(float(estimate.margins.abs().max())),
    }
    if share < _SOME:
        return check.passed("The cross-entropy has a gradient wherever the margin has one.", evidence)
    sentence = (
        f"The gradient of the cross-entropy underflows on {share:.0%} of {len(lost)} images, and that of the margin does not: "
        "attacks by cross-entropy stand still there."
    )
    advice = "Divide the logits by a temperature, or attack with a margin loss (attack.loss margin or dlr; --suite strongest)."
    return check.warning(sentence, evidence, advice)
