"""What can be seen with labels: whether images prepared in another way, or labels in another order, are answered better.

Every such alternative is compared with the model as it is, example by example. It is a finding only where all of this holds:
McNemar's exact p below 0.01, ten points more right, a lower cross-entropy, and clearly more right than any constant answer
can be. Of several, the best is the warning; what it may explain is then `unchecked`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.data import Batch
from s3ta.evaluate.lint.harness import ModelError, ModelHarness, number
from s3ta.finding import Check, Finding
from s3ta.models import Classifier
from s3ta.records import mcnemar, wilson

_LEVEL, _LEAST_GAIN = 0.01, 0.1
_SAME_LOSS = 1e-4
"""Far above float32's rounding of a mean of losses, far below what one example moves."""
_FEWEST = 8
"""Fewer examples cannot reach the level, whatever they say."""
_PER_CLASS, _FEWEST_PER_CLASS = 4, 2
"""Examples of a class by which an order is judged: on average, where all classes are looked at; and of each, where some are."""
_USUAL = {
    1: {"MNIST": ((0.1307,), (0.3081,))},
    3: {
        "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    },
}
"""Means and deviations by the number of channels."""
_CAFFE = (123.68, 116.779, 103.939)
"""Means of red, green and blue in 0..255."""
_NAME_OUTPUTS = "Name the outputs in their order with --class-names FILE, and use --match-classes data or model."
KINDS = ("input range", "normalisation", "channel order", "label order")


class Preparation(NamedTuple):
    """(pixels - mean) / std, after the channels were turned round where `flip`."""

    name: str
    kind: str
    sentence: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    flip: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(v, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return ((images.flip(1) if self.flip else images) - mean) / std


class AnswerScore(NamedTuple):
    """How well images are answered."""

    right: Tensor
    """Of each image, bool (n,)."""
    loss: float
    """Mean cross-entropy, nats."""
    constant: float
    """The share that the best constant answer gets right."""

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, labels: Tensor) -> AnswerScore:
        constant = int(labels.bincount().max()) / len(labels)
        return cls(logits.argmax(1) == targets, float(cross_entropy(logits, targets)), constant)

    @property
    def is_above_chance(self) -> bool:
        """Clearly more right than any constant answer."""
        return wilson(int(self.right.sum()), len(self.right)).low > self.constant

    @property
    def evidence(self) -> dict[str, Any]:
        return {"right": int(self.right.sum()), "loss": number(self.loss)}


class Rival(NamedTuple):
    """An alternative, and how it does."""

    name: str
    kind: str
    sentence: str
    advice: str
    score: AnswerScore

    def p_value(self, now: AnswerScore) -> float:
        """Beside the model as it is now."""
        right = self.score.right
        return mcnemar(int((right & ~now.right).sum()), int((now.right & ~right).sum()))

    def evidence(self, now: AnswerScore) -> dict[str, Any]:
        return self.score.evidence | {"p": number(self.p_value(now))}

    def is_better(self, now: AnswerScore) -> bool:
        gain = float(self.score.right.float().mean() - now.right.float().mean())
        is_gain = gain >= _LEAST_GAIN and self.score.loss < now.loss
        return is_gain and self.p_value(now) < _LEVEL and self.score.is_above_chance


def clean_accuracy(logits: Tensor, labels: Tensor) -> Finding:
    """A note where it is no better than guessing; the examples are few, so no more than that."""
    check = Check("clean accuracy")
    right, total, num_classes = int((logits.argmax(1) == labels).sum()), len(labels), logits.shape[1]
    low, high = wilson(right, total)
    evidence = {"right": right, "images": total, "low": number(low), "high": number(high), "chance": 1 / num_classes}
    count_text = f"{right} of {total} clean images are right (95% interval {low:.1%} to {high:.1%})"
    if low > 1 / num_classes:
        return check.passed(f"{count_text}.", evidence)
    sentence = f"{count_text}: no better than guessing among {num_classes} classes."
    advice = "Check the weights (--weights), the label order and the normalisation, unless the model is not trained."
    return check.note(sentence, evidence, advice)


def preparation(probe: ModelHarness, logits: Tensor) -> list[Finding]:
    """One finding per kind of `KINDS`."""
    channels, count = probe.images.shape[1], len(probe.labels)
    if count < _FEWEST:
        sentence = f"{count} examples are too few to compare alternatives with."
        findings = {kind: Check(kind).unchecked(sentence, {"images": count}) for kind in KINDS}
    else:
        findings = _contest(probe, logits)
        if channels != 3:
            findings["channel order"] = Check("channel order").unchecked(f"The images have {channels} channels.")
    by_name = _names(probe.model, probe.data_classes)
    if by_name is not None and findings["label order"].severity != "warning":
        findings["label order"] = by_name
    return [findings[kind] for kind in KINDS]


def _contest(probe: ModelHarness, logits: Tensor) -> dict[str, Finding]:
    labels = probe.labels
    now, followed = AnswerScore.of(logits, labels, labels), _followed(logits, labels)
    rivals = [*_rivals(probe), *(_usual_orders(logits, labels) if followed is None else [followed])]
    better = _best_first([rival for rival in rivals if rival.is_better(now)])
    evidence = {"images": len(labels), **now.evidence}
    findings = {}
    for kind in KINDS:
        seen = evidence | {"alternatives": {rival.name: rival.evidence(now) for rival in rivals if rival.kind == kind}}
        if better and kind == better[0].kind:
            findings[kind] = _warning(better, now, evidence)
        elif better:
            sentence = f"Not to be judged before this is mended: {better[0].sentence}."
            findings[kind] = Check(kind).unchecked(sentence, seen)
        elif kind != "label order" or followed is not None:
            findings[kind] = _no_better(kind, now, "No alternative is answered better.", seen)
        elif probe.for_order is not None:
            findings[kind] = _order_of_some(probe, probe.for_order)
        else:
            sentence = f"An order needs {_PER_CLASS} examples per class or more, of two classes or more."
            findings[kind] = Check(kind).unchecked(sentence, seen)
    return findings


def _order_of_some(probe: ModelHarness, examples: Batch) -> Finding:
    """`label order` by examples of some of the classes, chosen for it, where there are too many classes to see all."""
    check = Check("label order")
    try:
        logits = probe.ask(examples.images)
    except ModelError as error:
        return check.unchecked(f"Asked about more examples, the model {error}.")
    usable = torch.isfinite(logits).all(dim=1)
    logits, labels = logits[usable], examples.labels.cpu()[usable]
    rival, num_classes = _followed(logits, labels, _FEWEST_PER_CLASS), int(labels.unique().numel())
    evidence: dict[str, Any] = {"images": len(labels), "classes": num_classes}
    if rival is None or len(labels) < _FEWEST:
        sentence = f"There are too few examples of one class ({len(labels)} of {num_classes} classes)."
        return check.unchecked(sentence, evidence)
    now = AnswerScore.of(logits, labels, labels)
    evidence |= now.evidence
    if rival.is_better(now):
        return _warning([rival], now, evidence)
    of_what = f"{num_classes} of {probe.num_classes} classes, by {len(labels)} examples"
    sentence = f"No other order is answered better ({of_what})."
    return _no_better("label order", now, sentence, evidence | {"alternatives": {rival.name: rival.evidence(now)}})


def _no_better(kind: str, now: AnswerScore, sentence: str, evidence: dict[str, Any]) -> Finding:
    if now.is_above_chance:
        return Check(kind).passed(sentence, evidence)
    return Check(kind).unchecked("The model is at chance, and so is every alternative: nothing can be told.", evidence)


def _warning(better: list[Rival], now: AnswerScore, evidence: dict[str, Any]) -> Finding:
    best, num_right, numbers = better[0], int(now.right.sum()), better[0].evidence(now)
    sentence = (
        f"{best.sentence}: then {numbers['right']} of {len(now.right)} images are right in place of {num_right} "
        f"(p {numbers['p']:.2g})."
    )
    of_best = {"best": best.name, **{f"best_{key}": value for key, value in numbers.items()}}
    others = {rival.name: rival.evidence(now) for rival in better[1:]}
    return Check(best.kind).warning(sentence, {**evidence, **of_best, "also_better": others}, best.advice)


def _best_first(better: list[Rival]) -> list[Rival]:
    """Most right first; of equals one that leaves the range alone, for larger pixels make a network surer, whatever it wants;
    then the lowest loss. Losses that differ by rounding alone are equal, or the processor would choose between two explanations
    of the same answers: then the one that was tried first stands first."""

    def rank(rival: Rival) -> tuple[int, bool]:
        return -int(rival.score.right.sum()), rival.kind == KINDS[0]

    ranked = sorted(better, key=lambda rival: (*rank(rival), rival.score.loss))
    if not ranked:
        return []
    first, highest = rank(ranked[0]), ranked[0].score.loss + _SAME_LOSS * (1 + ranked[0].score.loss)
    best = next(rival for rival in better if rank(rival) == first and rival.score.loss <= highest)
    return [best, *(rival for rival in ranked if rival is not best)]


def _rivals(probe: ModelHarness) -> Iterator[Rival]:
    for way in _preparations(probe.model, probe.images.shape[1]):
        try:
            logits = probe.ask(way(probe.images))
        except ModelError:  # a model may refuse pixels outside [0, 1]
            continue
        score = AnswerScore.of(logits, probe.labels, probe.labels)
        yield Rival(way.name, way.kind, way.sentence, _advice(probe.model, way), score)


def _preparations(model: nn.Module, channels: int) -> Iterator[Preparation]:
    range_ = "The network seems to expect pixels of another range"
    yield Preparation("pixels x 255", KINDS[0], f"{range_} (0..255)", std=(1 / 255,))
    yield Preparation("pixels / 255", KINDS[0], f"{range_} (0..1/255: it is scaled up twice)", std=(255.0,))
    if channels == 3:
        caffe = tuple(value / 255 for value in reversed(_CAFFE))
        sentence = f"{range_} and order (0..255, blue first, mean subtracted)"
        yield Preparation("caffe", KINDS[0], sentence, caffe, (1 / 255,), flip=True)
    usual = {"2p - 1": ((0.5,), (0.5,)), **_USUAL.get(channels, {})}
    for name, (mean, std) in usual.items():
        yield Preparation(f"with {name}", KINDS[1], f"A normalisation seems to be missing ({name})", mean, std)
    undone = {**usual, **{f"its own, {mean}, {std}": (mean, std) for mean, std in _own(model, channels)}}
    for name, (mean, std) in undone.items():
        sentence = f"The images seem to be normalised twice, or to need none ({name})"
        back = tuple(-m / s for m, s in zip(mean, std, strict=True)), tuple(1 / s for s in std)
        yield Preparation(f"without {name}", KINDS[1], sentence, *back)
    if channels == 3:
        yield Preparation("bgr", KINDS[2], "The network seems to expect the other order of channels", flip=True)


def _own(model: nn.Module, channels: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Means and deviations of every module that has both, one number or one per channel."""
    normalisations = set()
    for module in model.modules():
        held = {**vars(module), **module._parameters, **module._buffers}
        mean, std = _numbers(held.get("mean")), _numbers(held.get("std"))
        if mean and std and len(mean) in (1, channels) and len(std) in (1, channels) and min(std) > 0:
            mean, std = _per_channel(mean, std)
            normalisations.add((mean, std))
    return sorted(normalisations - {((0.0,), (1.0,))})


def _per_channel(*values: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Each as long as the longest: a single number holds for every channel."""
    size = max(map(len, values))
    return [numbers * size if len(numbers) < size else numbers for numbers in values]


def _numbers(value: object) -> tuple[float, ...]:
    """A few numbers out of a tensor, a sequence or one number; none where it is anything else."""
    if isinstance(value, Tensor):
        return tuple(round(x, 6) for x in value.detach().double().flatten().tolist()) if value.numel() <= 64 else ()
    if isinstance(value, (int, float)):
        return (float(value),)
    if isinstance(value, (list, tuple)) and value and all(isinstance(x, (int, float)) for x in value):
        return tuple(float(x) for x in value)
    return ()


def _advice(model: nn.Module, way: Preparation) -> str:
    """The options that make a network behave as it does with images prepared in this way; those it has are accounted for."""
    mean, std, order = way.mean, way.std, "rgb"
    if isinstance(model, Classifier):
        order = model.channel_order
        outer = [tuple(model.card.config.get(key) or (other,)) for key, other in (("mean", 0.0), ("std", 1.0))]
        if order == "bgr":  # it normalises after it has turned the channels round
            mean, std = mean[::-1], std[::-1]
        mean, std, outer_mean, outer_std = _per_channel(mean, std, *outer)
        mean = tuple(m + s * o for m, s, o in zip(mean, std, outer_mean, strict=True))
        std = tuple(s * o for s, o in zip(std, outer_std, strict=True))
    if way.flip:
        order = "rgb" if order == "bgr" else "bgr"
    options = []
    if any(abs(m) > 1e-4 for m in mean) or any(abs(s - 1) > 1e-4 for s in std):
        options.append(f"--mean {_listed(mean)} --std {_listed(std)}")
    elif isinstance(model, Classifier) and (way.mean, way.std) != ((0.0,), (1.0,)):
        options.append("no --mean and no --std")
    if way.flip:
        options.append(f"--channel-order {order}")
    if way.name.startswith("without") and not isinstance(model, Classifier):
        return "Normalise once: take one of the two out of the model, or what the data is normalised with before it."
    return f"Measure it with {' '.join(options)}, or mend the preparation inside the model."


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(f"{v:.6g}" for v in (values[:1] if len(set(values)) == 1 else values))


def _followed(logits: Tensor, labels: Tensor, per_class: int = _PER_CLASS) -> Rival | None:
    """Labels behind the permutation that the answers follow; None where the classes have too few examples on average.

    The permutation that one half of every class is judged by is chosen on the other half, so chance gains nothing."""
    present = labels.unique()
    if len(present) < 2 or len(labels) < per_class * len(present):
        return None
    half, targets = torch.zeros_like(labels), labels.clone()
    for label in present:
        rows = (labels == label).nonzero().flatten()
        half[rows] = torch.arange(len(rows)) % 2
    for part in (0, 1):
        order = _order(logits[half != part], labels[half != part])
        targets[half == part] = torch.tensor([order.get(int(x), int(x)) for x in labels[half == part]])
    moved = {label: output for label, output in _order(logits, labels).items() if label != output}
    shown = ", ".join(f"{label} is output {output}" for label, output in sorted(moved.items())[:3])
    return Rival(
        "permuted",
        KINDS[3],
        f"The answers seem to follow the labels in another order ({shown}{', ...' if len(moved) > 3 else ''})",
        _NAME_OUTPUTS,
        AnswerScore.of(logits, targets, labels),
    )


def _usual_orders(logits: Tensor, labels: Tensor) -> Iterator[Rival]:
    """Labels behind each of the mistakes in counting that people make, which one example of a class is enough to see."""
    num_classes = logits.shape[1]
    as_text = torch.tensor(sorted(range(num_classes), key=str))  # position -> number, as folders 0, 1, 10, 100, 2 lie
    ways = {
        "one up": ("The labels seem to count one lower than the outputs", (labels + 1) % num_classes),
        "one down": ("The labels seem to count one higher than the outputs", (labels - 1) % num_classes),
        "as text": (
            "The outputs seem to be in the order of their numbers as text (0, 1, 10, 2)",
            as_text.argsort()[labels],
        ),
        "as numbers": ("The labels seem to be in the order of their numbers as text (0, 1, 10, 2)", as_text[labels]),
    }
    for name, (sentence, targets) in ways.items():
        if not torch.equal(targets, labels):
            yield Rival(name, KINDS[3], sentence, _NAME_OUTPUTS, AnswerScore.of(logits, targets, labels))


def _order(logits: Tensor, labels: Tensor) -> dict[int, int]:
    """Label -> output, one to one: pairs in the order of how much likelier the output is for images of that label."""
    shares = logits.softmax(dim=1)
    present = labels.unique()
    lift = torch.stack([shares[labels == label].mean(dim=0) for label in present]) - shares.mean(dim=0)
    order = {}
    for index in lift.flatten().argsort(descending=True, stable=True).tolist():
        label, output = int(present[index // lift.shape[1]]), index % lift.shape[1]
        if label not in order and output not in order.values():
            order[label] = output
        if len(order) == len(present):
            break
    return order


def _names(model: nn.Module, data_classes: Sequence[str]) -> Finding | None:
    """The names that the model knows beside those of the data; None where they agree or none are known."""
    check = Check(KINDS[3])
    ours = [_plain(str(name)) for name in getattr(getattr(model, "card", None), "classes", None) or ()]
    theirs = [_plain(str(name)) for name in data_classes]
    differing = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b]
    if not differing:
        return None
    # ImageNet has two cranes: only a name that each side has once can have moved
    counts = Counter(ours), Counter(theirs)
    moved = [i for i in differing if all(count[ours[i]] == 1 for count in counts)]
    first = (moved or differing)[0]
    a, b = ours[first], theirs[first]
    evidence = {"first": first, "model": a, "data": b, "differing": len(differing), "moved": len(moved)}
    sentence = f"Class {first} is '{a}' to the model and '{b}' in the data ({len(differing)} names differ)"
    advice = "Match the classes by name with --match-classes, or give the names in the model's order with --class-names FILE."
    if moved:
        return check.warning(f"{sentence}: another order, so the labels mean other things.", evidence, advice)
    return check.note(f"{sentence}: perhaps other words for the same.", evidence, advice)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
