"""Small experiments on a few real images after an evaluation: do the model's gradients say what an attacker needs to know?

Each asks one question of protocol X37 and answers with a finding. All attacks are the ordinary ones with fewer steps: what
counts is how they compare, not how strong they are. Images that the model gets wrong without any attack are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import (
    SPSA,
    Draw,
    Linf,
    PGDConfig,
    evaluations,
    frozen,
    local_linearity,
    run_attack,
    start_noise,
    tangent,
    untargeted,
    wrong_margin,
)
from s3ta.attacks.frozen import random_state
from s3ta.attacks.threat import whole
from s3ta.config import format_radius
from s3ta.errors import UserError
from s3ta.exact import exact_arithmetic
from s3ta.models.card import device_of
from s3ta.progress import Reporter
from s3ta.records import Finding, mcnemar, wilson
from s3ta.streams import stream
from s3ta.trace import Images, Labels

FEWEST = 8
"""Fewer images than that, classified right, show nothing."""
_LARGE_RADIUS = 0.5
_NUM_NOISES = 10
_NUM_LINEARITY_STEPS = 10
_LEVEL = 0.01
_CONSIDERABLE = 0.05
_MANY_ZEROS = 0.1
_STILL_RISING = 0.03
_LITTLE = 0.1
_MASKED = "Robustness measured with gradients is then too high: trust the lower number, and run --suite unmask."


class _Tried(NamedTuple):
    """Images, and how the model answered them."""

    images: Tensor
    margin: Tensor
    """Of each image: the largest wrong logit minus the true one; above 0 where the answer is wrong."""
    loss: Tensor
    """Cross-entropy of the true label, nats."""
    right: Tensor
    logits: Tensor

    @property
    def broken(self) -> Tensor:
        return ~self.right


class _Subject(NamedTuple):
    """The model, and the images on which everything is tried."""

    model: nn.Module
    clean: _Tried
    labels: Tensor
    ids: tuple[str, ...]
    radius: float
    seed: int

    def draw(self, number: int = 0) -> Draw:
        """0: of all attacks, so that two losses start at the same place."""
        return Draw(self.seed, self.ids, ("probes", number))


def probe(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ids: Sequence[str],
    *,
    radius: float,
    seed: int,
    adversarial: Tensor | None = None,
    report: Reporter | None = None,
) -> list[Finding]:
    """Ask eight questions about a model's gradients, on a few images in one batch.

    The answers do not depend on the order of the images: they are sorted by id.

    Args:
      model: images in [0, 1] -> logits; frozen and put in eval mode for the duration.
      images, labels, ids: real examples, 16 to 32 of them, best such as the model gets right.
      radius: the L-infinity radius of the evaluation, at most 1; with 0 nothing is asked.
      seed: of all random numbers: streams `start`, `probe` and `model`, attack name "probes".
      adversarial: images that an attack of the evaluation found for the same examples, in the same order, to ask what is lost
        when they are saved with 8 bits; None: those found here are asked.
      report: told how many of the `num_evaluations` are done.
    Returns:
      One finding per question; a single one where nothing can be asked, as with fewer than 8 images classified right.
    Raises:
      UserError: ids that are not one per image or not different, and as `run_attack`."""
    if len(ids) != len(images) or len(set(ids)) < len(ids):
        raise UserError(f"{len(images)} images are probed under {len(set(ids))} different ids: give one id per image.")
    if adversarial is not None and adversarial.shape != images.shape:
        raise UserError(
            f"The adversarial images have shape {tuple(adversarial.shape)}, their clean ones {tuple(images.shape)}: give one "
            "for each."
        )
    if radius <= 0:
        return [
            Finding("probes", "unchecked", f"The gradients were not probed: a ball of radius {radius:g} has no inside.")
        ]
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    device = device_of(model)
    images, labels = images[order].to(device), labels[order].to(device)
    tell = report or _nobody
    tell(0)
    with exact_arithmetic(), frozen(model), random_state(_model_seed(seed)):
        clean = _tried(model, images, labels)
        right, num_right = clean.right, int(clean.right.sum())
        if num_right < FEWEST:
            tell(num_evaluations(len(ids)))
            sentence = (
                f"The gradients were not probed: the model gets {num_right} of {len(ids)} images right, and {FEWEST} are "
                "needed."
            )
            return [Finding("probes", "unchecked", sentence, {"num_right": num_right, "num_examples": len(ids)})]
        kept = tuple(ids[place] for place, is_right in zip(order, right.tolist(), strict=True) if is_right)
        subject = _Subject(model, _Tried(*(part[right] for part in clean)), labels[right], kept, radius, seed)
        saved = None if adversarial is None else adversarial[order].to(device)[right]
        found = _ask(subject, saved, lambda passes: tell(passes * len(ids)))
    tell(num_evaluations(len(ids)))
    return found


def num_evaluations(count: int) -> int:
    """Model evaluations of a probe of so many images, passes forward plus passes back; fewer where some are not right."""
    attacks = sum(_passes(config) for config in _attacks(0.1).values())
    gradients = 2 * 3  # at the clean images by either loss, and at the end of the attack
    linearity = 2 * _NUM_LINEARITY_STEPS + 1
    saving = 2
    return count * (1 + attacks + _NUM_NOISES + gradients + linearity + saving)


def _attacks(radius: float) -> dict[str, PGDConfig]:
    """The attacks by name; PGD is read out at 20 steps, and where the last tenth begins."""
    pgd = PGDConfig(
        objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=40, read_outs=(20, 36)
    )
    twenty = PGDConfig(objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=20)
    large = PGDConfig(
        objective="untargeted",
        radius=_LARGE_RADIUS,
        step_size=_LARGE_RADIUS / 8,
        num_attack_steps=20,
        random_start_prob=0.0,  # noise of this size alone would destroy the image
        keep="best",
    )
    blind = PGDConfig(
        objective="untargeted",
        loss="margin",
        radius=radius,
        step_size=radius / 4,
        num_attack_steps=8,
        momentum=1.0,  # the few probes of all steps together
        random_start_prob=0.0,
        keep="best",
        gradient=SPSA(num_directions=8, delta=radius / 2),
    )
    return {"pgd": pgd, "margin": twenty.model_copy(update={"loss": "margin"}), "large": large, "spsa": blind}


def _passes(config: PGDConfig) -> int:
    """Of an attack on one image, and of a look at each of its read-outs."""
    return evaluations(config).total + len({*config.read_outs, config.num_attack_steps})


def _ask(subject: _Subject, saved: Tensor | None, tell: Callable[[int], None]) -> list[Finding]:
    done, tried = 1, dict[str, list[_Tried]]()
    for name, config in _attacks(subject.radius).items():
        found = run_attack(subject.model, subject.clean.images, subject.labels, config=config, draw=subject.draw())
        tried[name] = [_tried(subject.model, images, subject.labels) for images in found.images]
        done += _passes(config)
        tell(done)
    noises = _noises(subject)
    tell(done + _NUM_NOISES)
    pgd, late, end = tried["pgd"]
    (large,), (margin,), (blind,) = tried["large"], tried["margin"], tried["spsa"]
    rising = _still_rising(subject.clean, pgd, late, end)
    rising = rising._replace(evidence=rising.evidence | _what_broke(subject, end))
    return [
        _larger_radius(subject, large),
        _stronger("random noise", f"the worst of {_NUM_NOISES} images of random signs", _any_broken(noises), pgd),
        _stronger("black box", "a small SPSA, which uses no gradient,", blind.broken, pgd),
        _stronger("margin loss", "PGD of as many steps on the margin", margin.broken, pgd),
        _zero_gradients(subject, end),
        rising,
        _eight_bits(subject, end.images if saved is None else saved, given=saved is not None),
        _linearity(subject, [pgd, end, margin, blind, *noises]),
    ]


def _what_broke(subject: _Subject, end: _Tried) -> dict[str, Any]:
    """By ids, for a comparison with the suite's attacks on the same images (`s3ta.records.reach.weaker_than_checks`)."""
    broken = [example for example, is_broken in zip(subject.ids, end.broken.tolist(), strict=True) if is_broken]
    return {"radius": subject.radius, "tried": list(subject.ids), "broken": broken}


def _larger_radius(subject: _Subject, large: _Tried) -> Finding:
    """At radius 0.5 every image can be made plain grey, so nobody does better than guess."""
    right, total = int(large.right.sum()), len(subject.ids)
    chance = 1 / large.logits.shape[1]
    evidence = {"num_right": right, "num_examples": total, "chance": round(chance, 6), "radius": _LARGE_RADIUS}
    told = (
        f"at radius {_LARGE_RADIUS}, where every image can be made plain grey, 20 PGD steps leave {right} of {total} images "
        f"right; chance is {100 * chance:.3g}%."
    )
    if wilson(right, total, 0.98).low > max(chance, _CONSIDERABLE):
        return Finding("larger radius", "warning", f"The attack fails where it cannot fail: {told}", evidence, _MASKED)
    return Finding("larger radius", "passed", f"A large radius breaks the model, as it must: {told}", evidence)


def _noises(subject: _Subject) -> list[_Tried]:
    """Images at the corners of the ball, drawn at random."""
    clean, threat = subject.clean.images, Linf(subject.radius)
    shape, found = tuple(clean.shape[1:]), []
    for number in range(1, _NUM_NOISES + 1):
        draw = subject.draw(number)
        signs = [torch.from_numpy(start_noise(draw.seed, i, shape, *draw.names)).sign() for i in draw.ids]
        found.append(_tried(subject.model, threat.start(clean, torch.stack(signs).to(clean)), subject.labels))
    return found


def _stronger(kind: str, what: str, broken: Tensor, pgd: _Tried) -> Finding:
    """Whether something that should not be stronger than PGD on the cross-entropy is clearly so; exact McNemar."""
    only_this, only_pgd = int((broken & pgd.right).sum()), int((~broken & pgd.broken).sum())
    total, p_value = len(broken), mcnemar(only_this, only_pgd)
    evidence = {
        "broken": int(broken.sum()),
        "broken_by_pgd": int(pgd.broken.sum()),
        "only_this_breaks": only_this,
        "only_pgd_breaks": only_pgd,
        "num_examples": total,
        "p_value": p_value,
    }
    told = (
        f"{what} breaks {int(broken.sum())} of {total} images, PGD of 20 steps on the cross-entropy {int(pgd.broken.sum())} "
        f"(alone {only_this} and {only_pgd}, exact McNemar p {p_value:.2g})."
    )
    if only_this - only_pgd > _CONSIDERABLE * total and p_value < _LEVEL:
        return Finding(kind, "warning", f"Gradients seem to be masked: {told}", evidence, _MASKED)
    return Finding(kind, "passed", f"No sign of masked gradients: {told}", evidence)


def _zero_gradients(subject: _Subject, end: _Tried) -> Finding:
    """The share of images whose gradient is exactly zero at every pixel (X37)."""
    objective = untargeted(subject.labels)
    zero = [
        int((tangent(subject.model, images, objective).gradient == 0).flatten(1).all(dim=1).sum())
        for images in (subject.clean.images, end.images)
    ]
    total = len(subject.ids)
    evidence = {"num_zero": zero[0], "num_zero_at_the_end": zero[1], "num_examples": total}
    told = (
        f"The input gradient of the cross-entropy is exactly zero for {zero[0]} of {total} clean images, and for {zero[1]} "
        "where PGD ends."
    )
    severity = "warning" if max(zero) > _MANY_ZEROS * total else "note" if max(zero) else "passed"
    advice = {
        "warning": f"Sign PGD stands still there: attack the margin (attack.loss=margin). {_MASKED}",
        "note": "Sign PGD stands still on these: attack the margin too (attack.loss=margin).",
    }
    return Finding("zero gradients", severity, told, evidence, advice.get(severity, ""))


def _still_rising(clean: _Tried, pgd: _Tried, late: _Tried, end: _Tried) -> Finding:
    """How much of the whole rise of the loss falls into the last tenth of the steps."""
    at_start, at_20, at_36, at_40 = (float(tried.loss.double().mean()) for tried in (clean, pgd, late, end))
    total, risen = len(clean.loss), int((end.loss > clean.loss).sum())
    evidence = {
        "mean_loss": {"0": at_start, "20": at_20, "36": at_36, "40": at_40},
        "num_right": {"20": int(pgd.right.sum()), "40": int(end.right.sum())},
        "num_risen": risen,
        "num_examples": total,
    }
    if 2 * risen < total:
        sentence = f"40 PGD steps raise the loss of only {risen} of {total} images: the attack gets nowhere."
        return Finding("loss still rising", "warning", sentence, evidence, _MASKED)
    share = (at_40 - at_36) / (at_40 - at_start) if at_40 > at_start else 0.0
    evidence["share_of_last_tenth"] = share
    told = (
        f"of the rise of the mean loss from {at_start:.3g} to {at_40:.3g} nats over 40 PGD steps, {100 * share:.1f}% fall into "
        f"the last tenth; {evidence['num_right']['20']} of {total} images are right after 20 steps, "
        f"{evidence['num_right']['40']} after 40."
    )
    if share > _STILL_RISING:
        advice = "More attack steps find more: give 100 or more before the number is called robustness."
        return Finding("loss still rising", "note", f"The loss still rises at the last steps: {told}", evidence, advice)
    return Finding("loss still rising", "passed", f"The loss has about stopped to rise: {told}", evidence)


def _eight_bits(subject: _Subject, images: Tensor, *, given: bool) -> Finding:
    """How many adversarial images are still adversarial when every pixel is rounded to a whole 255th."""
    broken = _tried(subject.model, images, subject.labels).broken
    rounded = _tried(subject.model, whole(images), subject.labels).broken
    number, left = int(broken.sum()), int((broken & rounded).sum())
    of_what = "of the evaluation" if given else "of 40 PGD steps"
    evidence = {"num_adversarial": number, "num_surviving": left, "given": given}
    if not number:
        sentence = f"Whether adversarial images survive 8 bits is not known: no image {of_what} is adversarial."
        return Finding("eight bits", "unchecked", sentence, evidence)
    told = f"{left} of {number} adversarial images {of_what} are still adversarial when rounded to whole 255ths."
    if 2 * left < number:
        advice = "Saved as PNG files most are harmless: attack with attack.eight_bit=true, and look for rounding in the model."
        return Finding("eight bits", "warning", f"Only {told}", evidence, advice)
    severity = "passed" if left == number else "note"
    advice = "" if left == number else "Where images must be files, attack with attack.eight_bit=true."
    return Finding("eight bits", severity, told, evidence, advice)


def _linearity(subject: _Subject, inside: list[_Tried]) -> Finding:
    """Does the gradient at the clean image predict how the margin rises towards the worst image found? (C3)

    Of the margin, not of the cross-entropy, whose gradient is tiny wherever an honest model is sure."""
    objective = untargeted(subject.labels, "margin")
    at = tangent(subject.model, subject.clean.images, objective)
    found = local_linearity(
        subject.model,
        at,
        objective,
        radius=subject.radius,
        draw=subject.draw(_NUM_NOISES + 1),
        num_attack_steps=_NUM_LINEARITY_STEPS,
    )
    margins = torch.stack([tried.margin for tried in inside])
    worst = torch.stack([tried.images for tried in inside])[margins.argmax(dim=0), torch.arange(len(subject.ids))]
    rise, predicted = margins.amax(dim=0) - subject.clean.margin, at.predicted(worst)
    useless = (rise > 0) & (predicted < _LITTLE * rise)
    total, gamma, mean_rise = len(subject.ids), float(found.gamma.double().mean()), float(rise.double().mean())
    evidence = {
        "gamma": gamma,
        "mean_rise": mean_rise,
        "mean_predicted": float(predicted.double().mean()),
        "num_useless": int(useless.sum()),
        "num_wrong_sign": int(((rise > 0) & (predicted <= 0)).sum()),
        "num_examples": total,
        "radius": subject.radius,
    }
    relative = f", {gamma / mean_rise:.2g} times the rise that attacks found" if mean_rise > 0 else ""
    told = (
        f"within {format_radius(subject.radius)} the margin leaves its tangent plane by {gamma:.3g} on average{relative}; for "
        f"{int(useless.sum())} of {total} images the gradient predicts less than a tenth of that rise, or a fall."
    )
    if 2 * int(useless.sum()) > total:
        return Finding("local linearity", "warning", f"The gradient does not show the way: {told}", evidence, _MASKED)
    return Finding("local linearity", "passed", f"The gradient shows the way: {told}", evidence)


@torch.no_grad()
def _tried(model: nn.Module, images: Tensor, labels: Tensor) -> _Tried:
    logits = model(images).float()
    loss = cross_entropy(logits, labels, reduction="none")
    return _Tried(images, wrong_margin(logits, labels), loss, logits.argmax(dim=1) == labels, logits)


def _any_broken(tried: list[_Tried]) -> Tensor:
    return torch.stack([one.broken for one in tried]).any(dim=0)


def _model_seed(seed: int) -> int:
    """For a model that draws from torch's generator."""
    return int(stream(seed, "model", "probes", 0, "answers").integers(2**63))


def _nobody(completed: int, note: str = "") -> None:
    """A reporter that tells nobody."""
