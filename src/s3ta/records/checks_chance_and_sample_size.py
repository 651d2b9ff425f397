"""Can the numbers be used: is the model better than guessing, and of how many examples are they?"""

from __future__ import annotations

from typing import Any

from s3ta.finding import Check, Finding
from s3ta.records.ledger import LISTED
from s3ta.records.manifest import Manifest
from s3ta.records.metrics import Outcome
from s3ta.records.proportion_statistics import finite_share, wilson
from s3ta.records.schema import CLEAN

_LITTLE = 0.1
"""Of the way from guessing to perfect."""


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
