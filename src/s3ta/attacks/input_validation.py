"""What an attack expects of examples, checked before it begins, and of a model's answers, checked on the first of them."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from s3ta.attacks.objectives import ModelOutputs, OutputsFn
from s3ta.errors import UserError
from s3ta.types import Images, Labels, Trace, dtype_name

_NEAR = 1e-3
LOW_PRECISION = (torch.float16, torch.bfloat16)
"""Too coarse for iterates: next to 1 bfloat16 has no number within half of 1/255."""
_ROUNDING = 1e-6
"""Pixels may be beyond 0 or 1 by so much: what a resize or a normalisation taken back leaves in float32."""


def check_examples(clean: Tensor, labels: Tensor, targets: Tensor | None) -> None:
    """UserError for what cannot be attacked, whatever the model: no images, not (images, channels, height, width) of floating
    point in [0, 1], or labels or targets that are not one int64 per image."""
    if clean.ndim != 4 or not clean.is_floating_point():
        raise UserError(
            f"The images under attack have shape {tuple(clean.shape)} and type {dtype_name(clean.dtype)}: "
            "give (images, channels, height, width) of floating point in [0, 1]."
        )
    check_images(clean)
    for name, classes in (("labels", labels), ("targets", targets)):
        if classes is not None and (classes.shape != clean.shape[:1] or classes.dtype != torch.int64):
            raise UserError(
                f"The {name} have shape {tuple(classes.shape)} and type {dtype_name(classes.dtype)}: "
                f"give one class per image, shape ({len(clean)},) and type int64."
            )


def check_images(images: Tensor) -> None:
    """Refuse images that are none, not numbers, or not in [0, 1] but for rounding (1e-6)."""
    if not len(images):
        raise UserError("There are no images to attack.")
    low, high = images.amin().item(), images.amax().item()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        is_nan = low != low or high != high
        values = "values that are not numbers (NaN)" if is_nan else f"values from {low:.9g} to {high:.9g}"
        advice = "give pixels in [0, 1] and put normalisation into the model."
        raise UserError(f"The images under attack have {values}: {advice}")


def refuse_inference_mode() -> None:
    """UserError where no gradient can be computed, whatever the model does."""
    if torch.is_inference_mode_enabled():
        raise UserError(
            "Inside `torch.inference_mode()` there are no gradients: call the attack outside of it, or choose one without "
            "gradients (spsa)."
        )


class NotFiniteError(UserError):
    """Logits or a gradient that are NaN or infinite: the attack would stand still and the model look robust."""


def check_quantized(clean: Tensor) -> None:
    """Refuse clean images that are not whole 255ths, where adversarial ones must be."""
    if ((clean * 255) - (clean * 255).round()).abs().max() > _NEAR:
        sentence = "The clean images are not of 8 bits (whole 255ths), so an attack with eight_bit cannot begin there."
        raise UserError(sentence)


def watched(outputs_fn: OutputsFn, labels: Labels, targets: Labels | None) -> OutputsFn:
    """The same callable, which looks at its first answer and at the labels before an attack goes on with it.

    Raises (when called):
      UserError: the answer is not (batch, classes), not finite, without a gradient where one is needed, or has too few
        classes for the labels and targets; a target is the label.
    Warns:
      UserWarning: the answers look like probabilities (their logarithm is the remedy), or have 16 bits."""
    is_known = False

    def looked_at(images: Images) -> ModelOutputs:
        nonlocal is_known
        outputs = outputs_fn(images)
        logits = _logits_of(outputs)
        if not is_known:
            is_known = True
            check_answer(logits.detach(), len(images), labels, targets)
            if logits.dtype in LOW_PRECISION:
                warnings.warn(
                    f"The model answers in {dtype_name(logits.dtype)}, which has too few digits for losses and gradients: it "
                    "may look more robust than it is. Attack it in float32 (`model.float()`).",
                    UserWarning,
                    stacklevel=2,
                )
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            raise UserError(
                "The model's logits have no gradient to the image: remove `no_grad` or `detach` from the model, or "
                "choose an attack without gradients (spsa)."
            )
        return outputs

    return looked_at


def check_answer(logits: Tensor, num_images: int, labels: Labels, targets: Labels | None) -> None:
    """Errors and warning as in `watched`, but for the gradient."""
    if logits.ndim != 2 or len(logits) != num_images:
        answer = f"answers {num_images} images with shape {tuple(logits.shape)}"
        raise UserError(f"The model {answer}: it must give (images, classes) logits.")
    num_classes = logits.shape[1]
    if num_classes < 2:
        raise UserError("The model has one class: an attack needs two or more; a yes-or-no logit z is the pair (0, z).")
    if not torch.isfinite(logits).all():
        raise NotFiniteError("The model's logits are not finite (NaN or infinite): it cannot be attacked or scored.")
    for name, classes in (("label", labels), ("target", targets)):
        outside = [] if classes is None else classes[(classes < 0) | (classes >= num_classes)].tolist()
        if outside:
            raise UserError(f"A {name} is {outside[0]}, but the model has classes 0 to {num_classes - 1}.")
    if targets is not None and (aimless := (targets == labels).nonzero().flatten().tolist()):
        raise UserError(f"Example {aimless[0]} of the batch has its own label as the target.")
    if logits.min() >= 0 and ((logits.sum(dim=1) - 1).abs() < _NEAR).all():
        warnings.warn(
            "The model seems to answer with probabilities, not logits: losses that take logits then have weak gradients, "
            "and it may look more robust than it is. Return logits, or the logarithm of the probabilities.",
            UserWarning,
            stacklevel=2,
        )


def _logits_of(outputs: object) -> Tensor:
    """The answer among the outputs; UserError where they are neither a tensor nor a Trace."""
    answer = outputs.logits[-1] if isinstance(outputs, Trace) else outputs
    if not isinstance(answer, Tensor):
        raise UserError(
            f"The model answers with a {type(answer).__name__}: it must give a tensor of logits, or a Trace "
            "(wrap it: lambda images: model(images)[0])."
        )
    return answer
