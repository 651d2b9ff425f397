"""What can be seen without labels: modes, hidden state, randomness, neighbours, precision, what kind of numbers come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s3ta.evaluate.lint.harness import (
    LEAST_DIFFERENCE,
    ModelError,
    ModelHarness,
    SavedTensor,
    differ,
    difference,
    not_finite_rows,
    number,
    shape_of,
)
from s3ta.finding import Check, Finding
from s3ta.models.probe_num_outputs import is_about_shapes, where_logits_are
from s3ta.types import dtype_name

_NEAR = 1e-3
_SURE = 0.95
"""Sigmoid answers of a model that knows anything go beyond it."""
_LOST_BITS = 13
"""float16 keeps 10 bits of a float32's 23, bfloat16 7: the last 13 of a logit made of either are zero."""
_DISTINCT = 20
_LOW = {torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.qint8, torch.quint8}
_MOST_NAMES = 5
_SAME = 1e-6
"""Of the spread of the logits: no more than the same kernels on the same numbers differ by."""
_CLEAR = 1.5
"""Times an equal share: somewhere one class must have as much of the whole."""


def answer(probe: ModelHarness) -> Finding:
    """Whether the model answers images with logits (B, Y)."""
    check, few, num_classes = Check("answer"), probe.some(4), probe.num_classes
    evidence: dict[str, Any] = {"num_classes": num_classes}
    try:
        with torch.no_grad():
            output = probe.raw(few.clone())
    except ModelError as error:
        advice = "Mend the forward pass"
        if is_about_shapes(error.__cause__ or error):
            advice += ", or give the image size and the channels that the model is made for (--image-size)"
        return check.error(f"The model {error}.", evidence | {"shape": list(few.shape)}, f"{advice}.")
    description = f"The model answers {len(few)} images with {shape_of(output)}"
    if not isinstance(output, Tensor):
        advice = "Return the tensor of logits alone: take it out of the tuple, dict or object in forward"
        return check.error(f"{description}.", evidence, f"{advice}{where_logits_are(output)}.")
    shape = evidence["shape"] = list(output.shape)
    if output.ndim != 2 or len(output) != len(few) or not output.is_floating_point():
        sentence = f"{description} and type {dtype_name(output.dtype)}."
        return check.error(sentence, evidence, "Return floating point logits of shape (images, classes).")
    if shape[1] != num_classes:
        sentence = f"{description}, where {num_classes} classes are expected."
        choice = "--match-classes data or --class-names FILE"
        advice = f"Choose the outputs with {choice}, or measure on the data of its classes."
        return check.error(sentence, evidence, advice)
    low, high = int(probe.labels.min()), int(probe.labels.max())
    if low < 0 or high >= num_classes:
        sentence = f"The labels go from {low} to {high}, but the model has classes 0 to {num_classes - 1}."
        advice = "Match the classes of model and data with --match-classes or --class-names FILE."
        return check.error(sentence, evidence, advice)
    return check.passed(f"Logits of shape (images, {num_classes}).", {"shape": shape})


def finite(logits: Tensor, ids: list[str]) -> Finding:
    check = Check("finite")
    rows = not_finite_rows(logits)
    bad = len(rows)
    evidence: dict[str, Any] = {"images": len(logits), "not_finite": bad}
    if not bad:
        return check.passed("All logits are finite.", evidence)
    evidence["ids"] = [ids[row] for row in rows[:_MOST_NAMES]]
    masked = (logits == -torch.inf).all(dim=0)
    if torch.isfinite(logits[:, ~masked]).all() and not masked.all():
        outputs = masked.nonzero().flatten().tolist()
        evidence["masked"] = outputs
        are, kind = ("output is", "a masked class is") if len(outputs) == 1 else ("outputs are", "masked classes are")
        sentence = f"{len(outputs)} {are} -inf on all {len(logits)} images, as {kind}: {_some(outputs)}."
        advice = (
            "Leave them out with --match-classes data, on data of the other classes, or mask them with a large negative "
            "number, such as -1e4, in place of -inf."
        )
        return check.error(sentence, evidence, advice)
    sentence = f"The logits of {bad} of {len(logits)} images are NaN or infinite, the first of them {ids[rows[0]]}."
    advice = "Check the weights (--weights) and the input range, and look for a division by zero or an overflow."
    return check.error(sentence, evidence, advice)


def mode(training: list[str], as_handed: Tensor | None, logits: Tensor | None, still: list[str]) -> Finding:
    """Training mode: `training`, as handed over, with its answers `as_handed` (None: it raised); `still`, in spite of eval."""
    check = Check("train mode")
    evidence: dict[str, Any] = {"handed_over": len(training), "after_forward": len(still)}
    if still:
        sentence = f"{len(still)} modules are in training mode after eval() and one forward pass: {_some(still)}."
        advice = (
            "Take train(), or the override of eval(), out of the model: dropout and BN statistics must stand still."
        )
        return check.warning(sentence, {**evidence, "modules": still[:_MOST_NAMES]}, advice)
    if not training:
        return check.passed("No module is in training mode.", evidence)
    if logits is None:
        sentence = f"{len(training)} modules were handed over in training mode; the answers could not be compared."
        return check.note(sentence, evidence, "Call model.eval() before you hand it over.")
    if as_handed is not None and not differ(logits, as_handed):
        return check.passed("Training mode was on, but changes no answer.", evidence)
    sentence = (
        f"The model was handed over in training mode ({len(training)} modules) and answers otherwise there than in eval "
        "mode, in which it is measured."
    )
    if as_handed is not None:
        evidence["changed_predictions"] = int((logits.argmax(1) != as_handed.argmax(1)).sum())
    advice = "Call model.eval() before you hand it over, and before every other measurement of it."
    return check.warning(sentence, evidence, advice)


def own_state(held: list[SavedTensor], asked_later: Callable[[], tuple[Tensor, Tensor] | None]) -> Finding:
    """Parameters or buffers that forward passes in eval mode changed, and whether answers hang on them.

    `held` is what there was before; `asked_later` answers the same images now, and once more after other ones, made up, with
    None where it gave none; for those it raises ModelError."""
    check = Check("own state")
    changed = [saved.name for saved in held if saved.is_changed]
    evidence: dict[str, Any] = {"changed": len(changed), "names": changed[:_MOST_NAMES]}
    if not changed:
        return check.passed("A forward pass leaves parameters and buffers alone.", evidence)
    sentence = f"A forward pass changes the model itself: {_some(changed)}."
    try:
        later = asked_later()
    except ModelError as error:  # no image that is measured is black
        unknown = f"asked about black images, made up for this, it {error}."
        return check.note(f"{sentence} What its answers owe to that is not known: {unknown}", evidence)
    if later is not None:
        evidence["difference"] = number(difference(*later))
        if difference(*later) < _SAME:
            sentence += " After other images it answers the same as before."
            return check.note(sentence, evidence)
    sentence += " Its answers depend on what it saw before."
    advice = "Take the update out of forward, or make it happen in training mode only."
    return check.warning(sentence, evidence, advice)


def input_writes(probe: ModelHarness) -> Finding:
    check = Check("input writes")
    given = probe.some(8)
    images = given.clone()
    with torch.no_grad():
        probe.raw(images)
    moved = number(float((images - given).abs().max()))
    evidence = {"largest_change": moved}
    if moved == 0:
        return check.passed("A forward pass leaves its input alone.", evidence)
    sentence = f"A forward pass writes into its input (pixels moved by up to {moved})."
    advice = "Replace in-place operations on the input (x -= mean, x.clamp_()) by ones that make a new tensor."
    return check.error(sentence, evidence, advice)


def randomness(logits: Tensor, again: Tensor) -> Finding:
    check = Check("randomness")
    size = difference(logits, again)
    flipped = int((logits.argmax(1) != again.argmax(1)).sum())
    evidence = {"difference": number(size), "flipped": flipped, "images": len(logits)}
    if not differ(logits, again):
        return check.passed("Two passes give the same answer.", evidence)
    sentence = (
        f"Two passes over the same images differ: by {size:.2g} of the spread of the logits, and {flipped} of {len(logits)} "
        "predictions flip."
    )
    averaged = "attack with gradients averaged over it (attack.gradient.num_samples)."
    return check.warning(sentence, evidence, f"Take the randomness out of forward, or {averaged}")


def batch_dependence(probe: ModelHarness, logits: Tensor, is_random: bool) -> Finding:
    """Logits alone (the first and the last image), and among other neighbours (black images)."""
    check = Check("batch dependence")
    if is_random:
        return check.unchecked("The answers are random: what the neighbours change cannot be told apart.")
    ends = [0, len(logits) - 1]
    try:
        alone = torch.cat([probe.ask(probe.images[i : i + 1]) for i in ends])
    except ModelError as error:
        sentence = f"Asked about one image alone, the model {error}."
        return check.warning(sentence, {"alone": str(error)}, "Name the dimension in squeeze(), or leave it out.")
    half = probe.images[: max(1, min(len(logits), probe.at_once) // 2)]
    sizes, refusal = [difference(logits[ends], alone)], ""
    evidence: dict[str, Any] = {"alone": number(sizes[0])}
    try:
        among = probe.ask(torch.cat([torch.zeros_like(half), half]))[len(half) :]
    except ModelError as error:  # no image that is measured is black
        refusal = evidence["black"] = str(error)
    else:
        sizes.append(difference(logits[: len(half)], among))
        evidence["other_neighbours"] = number(sizes[1])
    if max(sizes) > LEAST_DIFFERENCE:
        parts = [f"alone it moves by {sizes[0]:.2g}", *(f"among black images by {size:.2g}" for size in sizes[1:])]
        sentence = f"The answer to an image depends on its neighbours: {', '.join(parts)} of the spread of the logits."
        advice = "Use moving averages (eval mode) or per-image statistics in place of the batch's."
        return check.warning(sentence, evidence, advice)
    if refusal:
        sentence = "An image gets the same answer alone; asked about made-up black neighbours as well, the model"
        return check.note(f"{sentence} {refusal}.", evidence)
    if probe.only is not None:
        sentence = f"The model answers only to batches of {probe.only} images, the micro-batch; copies fill them up."
        return check.note(sentence, {**evidence, "only": probe.only})
    return check.passed("An image gets the same answer alone and among others.", evidence)


class _Dtypes(TorchDispatchMode):
    """Notes the types of all tensors that any operation makes, those of autocast included."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.seen |= {leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
        return out


def precision(probe: ModelHarness, logits: Tensor) -> Finding:
    """Types of 16 bits and less: anywhere on the way, or to be seen in the logits, all of whose last bits are zero."""
    check = Check("precision")
    watch = _Dtypes()
    try:
        with torch.no_grad(), watch:
            probe.raw(probe.some(2).clone())
    except ModelError:
        watch.seen.clear()  # not every compiled model can be watched; the bits of the logits remain
    low = sorted(dtype_name(dtype) for dtype in watch.seen & _LOW)
    values = logits[logits != 0].unique()
    rounded = float((values.view(torch.int32) % 2**_LOST_BITS == 0).float().mean()) if len(values) else 0.0
    evidence = {"types": low, "rounded_logits": number(rounded), "distinct_logits": len(values)}
    if not low and (len(values) < _DISTINCT or rounded < 0.99):
        return check.passed("The model computes in float32.", evidence)
    seen = f"computes in {' and '.join(low)}" if low else "gives logits whose last 13 bits are zero, as float16 would"
    sentence = f"The model {seen}: small gradients are lost, and a verdict can hang on a rounding."
    advice = "Measure it in float32: call model.float(), and take half(), bfloat16() and autocast out of forward."
    return check.warning(sentence, evidence, advice)


def recurrent(model: nn.Module) -> Finding:
    check = Check("recurrent")
    names = [f"{name} ({type(m).__name__})" for name, m in model.named_modules() if isinstance(m, nn.RNNBase)]
    evidence = {"modules": names[:_MOST_NAMES]}
    if not names:
        return check.passed("No recurrent layer goes through cuDNN.", evidence)
    sentence = f"On a GPU, cuDNN gives {_some(names)} no backward pass in eval mode (X13)."
    advice = "Replace it by nn.LSTMCell (GRUCell, RNNCell) in a loop, or measure on the CPU; never by training mode."
    return check.warning(sentence, evidence, advice)


def probabilities(_: ModelHarness, logits: Tensor) -> Finding:
    """Softmax and shares of any sum, sigmoid, and log-softmax, which does no harm."""
    check = Check("probabilities")
    sums, logsums = logits.sum(dim=1), logits.logsumexp(dim=1).abs().max()
    low, high, total = float(logits.min()), float(logits.max()), float(sums.mean())
    spread = float((sums - sums.mean()).abs().max())
    evidence = {"low": number(low), "high": number(high), "mean_sum": number(total)}
    is_share = low >= 0 and spread < _NEAR * total and _are_shares(logits, total, spread)
    if is_share or (low >= 0 and high <= 1 and high > low):
        what = f"shares that sum to {total:.4g}" if is_share else "all between 0 and 1"
        sentence = f"The answers are {what}: probabilities, not logits. Losses of logits then have weak gradients."
        advice = "Return what goes into the softmax or sigmoid, or the logarithm of the probabilities."
        if not is_share and high < _SURE:
            sentence = "The answers are all between 0 and 1, but none is sure: small logits, or probabilities."
            return check.note(sentence, evidence, advice)
        return check.warning(sentence, evidence, advice)
    if high <= _NEAR and float(logsums) < _NEAR:
        sentence = "The answers are logarithms of probabilities: for every loss here as good as logits."
        return check.note(sentence, evidence)
    return check.passed("The answers are no probabilities.", evidence)


def _are_shares(logits: Tensor, total: float, spread: float) -> bool:
    """Whether answers of nearly equal sums are parts of a whole, and not logits beside a large common offset: those move far
    less than the whole, and their sums as much as they do."""
    if not differ(logits, logits[:1].expand_as(logits)):  # equal answers have equal sums, whatever they are
        return False
    moves = float((logits.amax(dim=0) - logits.amin(dim=0)).max())
    is_whole = abs(total - 1) < _NEAR or float(logits.max()) > _CLEAR * total / logits.shape[1]
    return is_whole and spread < max(_NEAR * moves, 1e-5 * total)


def constant_answers(probe: ModelHarness, logits: Tensor) -> Finding:
    check = Check("constant answers")
    classes, same = int(logits.argmax(1).unique().numel()), not differ(logits, logits[:1].expand_as(logits))
    evidence = {"predicted_classes": classes, "labels": int(probe.labels.unique().numel()), "images": len(logits)}
    if len(logits) < 2 or evidence["labels"] < 2:
        return check.unchecked("All examples have one label.", evidence)
    if same:
        sentence = f"All {len(logits)} images get the same logits: the answer does not depend on the image."
        advice = "Check that forward uses its input, the input range, and the weights (--weights)."
        return check.warning(sentence, evidence, advice)
    if classes == 1:
        sentence = f"All {len(logits)} images are called class {int(logits[0].argmax())}."
        advice = "Check the weights (--weights) and the input range, unless the model is not trained."
        return check.note(sentence, evidence, advice)
    return check.passed(f"{classes} classes are predicted.", evidence)


OF_LOGITS = {"probabilities": probabilities, "constant answers": constant_answers}
"""Questions to the logits (n, Y) of all images, by name; another one needs no more than its line here."""


def _some(names: Sequence[str | int]) -> str:
    shown = ", ".join("the model itself" if name == "" else str(name) for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")
