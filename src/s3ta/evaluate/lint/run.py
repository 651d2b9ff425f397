"""All checks of a model before it is measured, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from s3ta.attacks import frozen_in_eval_mode, seeded_global_generators
from s3ta.data import Batch
from s3ta.errors import UserError
from s3ta.evaluate.lint import behaviour, preprocessing_and_labels
from s3ta.evaluate.lint.gradients import gradients
from s3ta.evaluate.lint.harness import (
    LintContext,
    ModelError,
    ModelHarness,
    SavedTensor,
    differ,
    model_state_restored,
    restore,
)
from s3ta.finding import Check, Finding

KINDS = (
    *("answer", "finite", "train mode", "own state", "input writes"),
    *("randomness", "batch dependence", "precision", "recurrent"),
    *behaviour.OF_LOGITS,
    *preprocessing_and_labels.KINDS,
    *("clean accuracy", "gradient", "saturated loss"),
)
"""Every check, in the order of the findings."""


def lint(model: nn.Module, batch: Batch, task: LintContext, for_order: Batch | None = None) -> list[Finding]:
    """Mistakes in how a model answers, found before an attack is spent on it.

    About 15 forward passes over the images, two of them with a backward pass, and more where something is found. The model is
    asked in eval mode and left as it was found, as are all generators of random numbers; those that everybody shares begin
    here from 0. Hold `exact_arithmetic` around it.

    Args:
      model: images -> logits, on its device; a `Classifier` says more of itself.
      batch: images (n, C, H, W), float32 in [0, 1], of which 32 to 64 are enough, below 8 nothing is compared by labels.
      for_order: more examples, two or more of each class that is among them: by these the order of the labels is judged, one
        forward pass each, where the batch holds too few of each class.
    Returns:
      One finding per name in `KINDS`, in that order, whatever the model does. UserError: no images, or not one label each."""
    images, labels = batch.images, batch.labels
    if images.ndim != 4 or not len(images) or labels.shape != images.shape[:1]:
        raise UserError(
            f"The lint was given images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}: "
            "give (images, channels, height, width) and one label per image."
        )
    with model_state_restored(model) as held, seeded_global_generators(0):
        probe = ModelHarness(model, batch, task, for_order)
        training = [name for name, module in model.named_modules() if module.training]
        handed = _first_asked(probe)[0] if training else None
        restore(held)
        with frozen_in_eval_mode(model):
            by_kind = {finding.kind: finding for finding in _findings(probe, held, training, handed)}
    sentence = "The model gives no logits that this could be seen in."
    return [by_kind.get(kind, Check(kind).unchecked(sentence)) for kind in KINDS]


def _findings(
    probe: ModelHarness, held: list[SavedTensor], training: list[str], handed: Tensor | None
) -> Iterator[Finding]:
    """The findings of all questions that the model lets itself be asked."""
    yield behaviour.recurrent(probe.model)
    first = behaviour.answer(probe)
    if first.severity == "error" and probe.ask_in_whole_batches():
        again = behaviour.answer(probe)
        first = again if again.severity == "passed" else first
    restore(held)  # asked from the same state as before, so that only the mode differs
    logits, problem = _first_asked(probe) if first.severity == "passed" else (None, "")
    if problem and probe.ask_in_whole_batches():
        logits, _ = _first_asked(probe)
    if problem and logits is None:
        sentence = f"The model answered a few images, and gave no usable answer to all of them: it {problem}."
        first = Check("answer").error(sentence, {"images": len(probe.images)}, "Mend the forward pass.")
    yield first
    is_finite = logits is not None and bool(torch.isfinite(logits).all())
    still = [name for name, module in probe.model.named_modules() if module.training]
    is_comparable = is_finite and (handed is not None or probe.only is None)
    yield behaviour.mode(training, handed, logits if is_comparable else None, still)
    if logits is None:
        return
    yield behaviour.own_state(held, lambda: _around_others(probe))
    yield behaviour.finite(logits, probe.ids)
    try:
        yield behaviour.input_writes(probe)
    except ModelError as error:  # in the middle
        yield Check("input writes").error(f"The model {error}.", {}, "Mend the forward pass.")
    if is_finite:
        yield from _of_finite(probe, logits)


def _of_finite(probe: ModelHarness, logits: Tensor) -> Iterator[Finding]:
    again, problem = _asked(probe)
    if again is None:
        sentence = f"Asked the same a second time, the model gave no usable answer: it {problem}."
        yield Check("randomness").error(sentence, {}, "Mend the forward pass: it must not depend on earlier calls.")
        return
    is_random = differ(logits, again)
    yield behaviour.randomness(logits, again)
    yield behaviour.batch_dependence(probe, logits, is_random)
    yield behaviour.precision(probe, logits)
    for question in behaviour.OF_LOGITS.values():
        yield question(probe, logits)
    yield from preprocessing_and_labels.preparation(probe, logits)
    yield preprocessing_and_labels.clean_accuracy(logits, probe.labels)
    yield from gradients(probe)


def _first_asked(probe: ModelHarness) -> tuple[Tensor | None, str]:
    """As `_asked`; a random model draws the same whatever was drawn before, so that only its mode makes a difference."""
    with seeded_global_generators(1):
        return _asked(probe)


def _around_others(probe: ModelHarness) -> tuple[Tensor, Tensor] | None:
    """Answers to the same images before and after black ones; None where it gives none. Raises ModelError for the black."""
    before, _ = _first_asked(probe)
    probe.ask(torch.zeros_like(probe.images))
    after, _ = _first_asked(probe)
    return None if before is None or after is None else (before, after)


def _asked(probe: ModelHarness) -> tuple[Tensor | None, str]:
    """Logits; None and why where the model raises or answers otherwise."""
    try:
        return probe.ask(probe.images), ""
    except ModelError as error:
        return None, str(error)
