"""The eight questions that small experiments answer about a model's gradients (protocol X37), each with its threshold."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import RandomKey, linearize, local_linearity, logit_margin, untargeted
from s3ta.attacks.threat import quantize_8bit
from s3ta.config import format_radius
from s3ta.errors import UserError
from s3ta.evaluate.lint.gradients import vanishes
from s3ta.finding import Check, Finding
from s3ta.records import is_significantly_stronger, mcnemar, wilson

LARGE_RADIUS = 0.5
NUM_NOISES = 10
NUM_LINEARITY_STEPS = 10
_LEVEL = 0.01
_CONSIDERABLE = 0.05
_MANY_ZEROS = 0.1
_STILL_RISING = 0.03
_LITTLE = 0.1
_MASKED = "Robustness measured with gradients is then too high: trust the lower number, and run --suite unmask."


class UnansweredError(UserError):
    """What a question needs is not there, for the model raised or gave no finite logits; the text says why."""


class Tried(NamedTuple):
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


class Subject(NamedTuple):
    """The model, and the images on which everything is tried."""

    model: nn.Module
    clean: Tried
    labels: Tensor
    ids: tuple[str, ...]
    radius: float
    seed: int

    def draw(self, number: int = 0) -> RandomKey:
        """0: of all attacks, so that two losses start at the same place."""
        return RandomKey(self.seed, self.ids, ("probes", number))


@torch.no_grad()
def tried_on(model: nn.Module, images: Tensor, labels: Tensor) -> Tried:
    """Margins, losses and answers of the model on these images. Raises UnansweredError where a logit is not finite."""
    logits = model(images).float()
    if not_finite := int((~torch.isfinite(logits)).any(dim=1).sum()):
        raise UnansweredError(f"the model's logits of {not_finite} of {len(images)} images are not finite")
    loss = cross_entropy(logits, labels, reduction="none")
    return Tried(images, logit_margin(logits, labels), loss, logits.argmax(dim=1) == labels, logits)


def larger_radius(subject: Subject, large: Tried) -> Finding:
    """At radius 0.5 every image can be made plain grey, so nobody does better than guess."""
    check = Check("larger radius")
    right, total, chance = int(large.right.sum()), len(subject.ids), 1 / large.logits.shape[1]
    evidence = {"num_right": right, "num_examples": total, "chance": round(chance, 6), "radius": LARGE_RADIUS}
    measured = (
        f"at radius {LARGE_RADIUS}, where every image can be made plain grey, 20 PGD steps leave {right} of {total} images "
        f"right; chance is {100 * chance:.3g}%."
    )
    if wilson(right, total, 0.98).low > max(chance, _CONSIDERABLE):
        return check.warning(f"The attack fails where it cannot fail: {measured}", evidence, _MASKED)
    return check.passed(f"A large radius breaks the model, as it must: {measured}", evidence)


def stronger(kind: str, what: str, broken: Tensor, pgd: Tried) -> Finding:
    """Whether something that should not be stronger than PGD on the cross-entropy is clearly so; exact McNemar."""
    only_this, only_pgd = int((broken & pgd.right).sum()), int((~broken & pgd.broken).sum())
    total, p_value = len(broken), mcnemar(only_this, only_pgd)
    by_this, by_pgd = int(broken.sum()), int(pgd.broken.sum())
    evidence = {
        "broken": by_this,
        "broken_by_pgd": by_pgd,
        "only_this_breaks": only_this,
        "only_pgd_breaks": only_pgd,
        "num_examples": total,
        "p_value": p_value,
    }
    measured = (
        f"{what} breaks {by_this} of {total} images, PGD of 20 steps on the cross-entropy {by_pgd} "
        f"(alone {only_this} and {only_pgd}, exact McNemar p {p_value:.2g})."
    )
    if is_significantly_stronger(only_this, only_pgd, _CONSIDERABLE * total, _LEVEL):
        return Check(kind).warning(f"Gradients seem to be masked: {measured}", evidence, _MASKED)
    return Check(kind).passed(f"No sign of masked gradients: {measured}", evidence)


def zero_gradients(subject: Subject, end: Tried) -> Finding:
    """The share of images whose gradient is exactly zero at every pixel (X37)."""
    objective = untargeted(subject.labels)
    planes = [linearize(subject.model, images, objective) for images in (subject.clean.images, end.images)]
    zero = [int(vanishes(plane.gradient).sum()) for plane in planes]
    total = len(subject.ids)
    evidence = {"num_zero": zero[0], "num_zero_at_the_end": zero[1], "num_examples": total}
    measured = (
        f"The input gradient of the cross-entropy is exactly zero for {zero[0]} of {total} clean images, and for {zero[1]} "
        "where PGD ends."
    )
    check = Check("zero gradients")
    if max(zero) > _MANY_ZEROS * total:
        advice = f"Sign PGD stands still there: attack the margin (attack.loss=margin). {_MASKED}"
        return check.warning(measured, evidence, advice)
    if max(zero):
        advice = "Sign PGD stands still on these: attack the margin too (attack.loss=margin)."
        return check.note(measured, evidence, advice)
    return check.passed(measured, evidence)


def still_rising(clean: Tried, pgd: Tried, late: Tried, end: Tried) -> Finding:
    """How much of the whole rise of the loss falls into the last tenth of the steps."""
    check = Check("loss still rising")
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
        return check.warning(sentence, evidence, _MASKED)
    share = (at_40 - at_36) / (at_40 - at_start) if at_40 > at_start else 0.0
    evidence["share_of_last_tenth"] = share
    measured = (
        f"of the rise of the mean loss from {at_start:.3g} to {at_40:.3g} nats over 40 PGD steps, {100 * share:.1f}% fall into "
        f"the last tenth; {evidence['num_right']['20']} of {total} images are right after 20 steps, "
        f"{evidence['num_right']['40']} after 40."
    )
    if share > _STILL_RISING:
        advice = "More attack steps find more: give 100 or more before the number is called robustness."
        return check.note(f"The loss still rises at the last steps: {measured}", evidence, advice)
    return check.passed(f"The loss has about stopped to rise: {measured}", evidence)


def eight_bits(subject: Subject, images: Tensor) -> Finding:
    """How many adversarial images are still adversarial when every pixel is rounded to a whole 255th."""
    check = Check("eight bits")
    broken = tried_on(subject.model, images, subject.labels).broken
    rounded = tried_on(subject.model, quantize_8bit(images), subject.labels).broken
    number, left = int(broken.sum()), int((broken & rounded).sum())
    evidence = {"num_adversarial": number, "num_surviving": left, "given": False}
    if not number:
        sentence = "Whether adversarial images survive 8 bits is not known: no image of 40 PGD steps is adversarial."
        return check.unchecked(sentence, evidence)
    images_text = f"{left} of {number} adversarial images of 40 PGD steps"
    measured = f"{images_text} are still adversarial when rounded to whole 255ths."
    if 2 * left < number:
        advice = "Saved as PNG files most are harmless: attack with attack.eight_bit=true, and look for rounding in the model."
        return check.warning(f"Only {measured}", evidence, advice)
    if left == number:
        return check.passed(measured, evidence)
    return check.note(measured, evidence, "Where images must be files, attack with attack.eight_bit=true.")


def linearity(subject: Subject, inside: list[Tried]) -> Finding:
    """Does the gradient at the clean image predict how the margin rises towards the worst image found? (C3)

    Of the margin, not of the cross-entropy, whose gradient is tiny wherever an honest model is sure."""
    check = Check("local linearity")
    plane = linearize(subject.model, subject.clean.images, untargeted(subject.labels, "margin"))
    draw, steps = subject.draw(NUM_NOISES + 1), NUM_LINEARITY_STEPS
    deviation = local_linearity(subject.model, plane, radius=subject.radius, draw=draw, num_attack_steps=steps)
    margins = torch.stack([tried.margin for tried in inside])
    worst = torch.stack([tried.images for tried in inside])[margins.argmax(dim=0), torch.arange(len(subject.ids))]
    rise, predicted = margins.amax(dim=0) - subject.clean.margin, plane.predicted(worst)
    useless = (rise > 0) & (predicted < _LITTLE * rise)
    total, gamma, mean_rise = len(subject.ids), float(deviation.gamma.double().mean()), float(rise.double().mean())
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
    measured = (
        f"within {format_radius(subject.radius)} the margin leaves its tangent plane by {gamma:.3g} on average{relative}; for "
        f"{int(useless.sum())} of {total} images the gradient predicts less than a tenth of that rise, or a fall."
    )
    if 2 * int(useless.sum()) > total:
        return check.warning(f"The gradient does not show the way: {measured}", evidence, _MASKED)
    return check.passed(f"The gradient shows the way: {measured}", evidence)
