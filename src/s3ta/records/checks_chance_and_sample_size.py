"""Can the numbers be used: are the images inside the ball, is the model better than guessing, are there enough examples?"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from s3ta.config import format_radius
from s3ta.finding import Check, Finding
from s3ta.records.ledger import LISTED
from s3ta.records.manifest import Manifest, SuiteEntry
from s3ta.records.metrics import Outcome
from s3ta.records.proportion_statistics import finite_share, wilson
from s3ta.records.schema import CLEAN

_TOLERANCE = 1e-6
"""Float32 pixels near 1 are no finer than 6e-8."""
_LITTLE = 0.1
"""Of the way from guessing to perfect."""


def is_inside(beyond: float, radius: float) -> bool:
    """Whether an image that goes so far beyond its ball, or the box, lies inside but for rounding."""
    return beyond <= _TOLERANCE * max(1.0, radius)


def ball_respected(table: pa.Table, suite: SuiteEntry) -> Finding:
    """The largest distance to a clean image under each attack, beside its radius."""
    check = Check("ball")
    by_attack = table.group_by("attack", use_threads=False).aggregate([("distance", "max")])
    farthest = {row["attack"]: row["distance_max"] or 0.0 for row in by_attack.to_pylist()}
    evidence, outside = {}, []
    for name, settings in suite.settings_by_name.items():
        radius = settings.radius
        if radius is None or name not in farthest:
            continue
        evidence[name] = {"largest": farthest[name], "radius": radius, "norm": settings.norm}
        if not is_inside(farthest[name] - radius, radius):
            outside.append(name)
    if outside:
        worst = "; ".join(
            f"'{name}' goes {evidence[name]['largest']:.6g}, allowed is {evidence[name]['radius']:.6g}"
            for name in outside
        )
        advice = "These numbers are of a larger ball than they say: do not use them, and report how they came about."
        return check.error(f"Adversarial images lie outside the ball: {worst}.", evidence, advice)
    if not evidence:
        return check.unchecked("The distances were not compared: no radius is recorded.")
    distances_text = "; ".join(
        f"'{name}' {numbers['largest']:.5g} of {numbers['radius']:.5g} ({format_radius(numbers['radius'])} {numbers['norm']})"
        for name, numbers in evidence.items()
    )
    return check.passed(f"Every adversarial image lies inside its ball: {distances_text}.", evidence)


def above_chance(reduced: list[Outcome], manifest: Manifest) -> Finding:
    """Is the clean top-1 better than guessing? Where it may not be, nothing can be said about robustness.

    It is called so where no more images are right than by guessing, or few more even at the upper end of the interval; with
    the others there are too few examples to tell."""
    check = Check("clean accuracy")
    clean = next((outcome for outcome in reduced if outcome.attack == CLEAN), None)
    num_classes = manifest.model.num_classes
    if clean is None or not num_classes:
        return check.unchecked("The clean accuracy was not compared with guessing: it is not recorded.")
    right, total, chance = int(clean.correct.sum()), len(clean.correct), 1 / num_classes
    low, high = wilson(right, total)
    evidence = {
        "num_correct": right,
        "num_examples": total,
        "interval": [round(low, 6), round(high, 6)],
        "chance": round(chance, 6),
    }
    counts_text = (
        f"{right} of {total} clean images are right (95% interval {100 * low:.1f}% to {100 * high:.1f}%); guessing gives "
        f"{100 * chance:.3g}%"
    )
    if low > chance:
        return check.passed(f"The clean accuracy is above chance: {counts_text}.", evidence)
    if (right <= chance * total and high < (1 + chance) / 2) or high < chance + _LITTLE * (1 - chance):
        sentence = f"The clean accuracy is at chance: {counts_text}. Nothing can be said about robustness."
        advice = (
            "Check weights, preprocessing and the order of the classes: a model that does not know the clean images has no "
            "robustness to measure."
        )
        return check.warning(sentence, evidence, advice)
    sentence = f"Too few examples to tell the clean accuracy from chance: {counts_text}."
    return check.note(sentence, evidence, "Evaluate on more examples.")


def subset_of_all(reduced: list[Outcome], manifest: Manifest) -> Finding:
    """How far numbers on some of the examples can be off those on all of them: where they were drawn, for of a list nobody
    knows how it was made."""
    check = Check("subset")
    used, available = manifest.data.num_examples, manifest.data.num_available
    if not used or not available:
        return check.unchecked("How many of the available examples were used is not recorded.")
    evidence: dict[str, Any] = {"num_examples": used, "num_available": available}
    if used >= available:
        return check.passed(f"All {available:,} examples of the split were used.", evidence)
    part = f"{used:,} of {available:,} examples were used"
    if manifest.informative.examples == LISTED:
        sentence = f"{part}, those of a given list: what the others would give does not follow from them."
        advice = "Name the list beside the number, and compare only with numbers on the same examples."
        return check.note(sentence, evidence | {"examples": LISTED}, advice)
    measured = {outcome.attack: outcome for outcome in reduced}.values()
    lowest = min(measured, key=lambda outcome: outcome.correct.mean(), default=None)
    ranges = []
    for outcome in measured:
        if outcome.attack == CLEAN or outcome is lowest:
            right, total = int(outcome.correct.sum()), len(outcome.correct)
            low, high = finite_share(right, total, max(available, total))
            share = f"{right / total:.1%} of these"
            ranges.append(f"from {100 * low:.1f}% to {100 * high:.1f}% for '{outcome.attack}' ({share})")
            evidence[f"interval_{outcome.attack}"] = [round(low, 6), round(high, 6)]
    drawn, condition = "", ", if these were drawn at random"
    if manifest.informative.examples:
        drawn, condition = ", drawn at random", ""
    sentence = f"{part}{drawn}. Top-1 on all {available:,} may be {' and '.join(ranges)} (95%{condition})."
    advice = "Quote the interval, and compare only with numbers on the same examples."
    return check.note(sentence, evidence, advice)
