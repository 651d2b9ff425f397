"""Can an attack do what its radius says? Asked of its settings alone, so before anything is run; and, at the end, of how far
its images went and of what the checks' own short attack did to the same ones.

Each check returns what it found, also where it found nothing wrong or could not look.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from s3ta.config import format_radius
from s3ta.records.finding import Finding
from s3ta.records.intervals import mcnemar
from s3ta.records.metrics import Outcome
from s3ta.records.schema import RUN, filled
from s3ta.records.strength import settings_of, uses_gradients

_GREY_LEVEL = 1 / 255
_FAR_BELOW = 0.3
"""Of one grey level at every pixel: what an L-infinity radius makes of an L2 ball. Published L2 radii begin above."""
_HALF = 0.5
"""At this distance every pixel can be middle grey, whatever it was."""
_ROUNDING = 1e-6
_LEVEL = 0.05
_CONSIDERABLE = 0.05


def implausible_settings(manifest: dict[str, Any]) -> list[Finding]:
    """What the settings of a suite's attacks show before they run: steps that cannot cross the ball, or leap over it; a ball
    that is far smaller than its norm's usual ones, or as large as everything. `manifest`: `suite`, and `data.shape`."""
    shape = manifest.get("data", {}).get("shape")
    num_values = math.prod(shape) if shape else None
    alarms = []
    for name, attack in settings_of(manifest).items():
        if not attack.get("radius"):
            continue
        alarms += _short_steps(name, attack)
        alarms += _long_steps(name, attack)
        alarms += _ball_size(name, attack, num_values)
    return alarms


def _short_steps(name: str, attack: dict[str, Any]) -> Iterator[Finding]:
    """Attacks that cannot get from one side of their ball to the middle: a model looks robust against them."""
    steps, radius = attack.get("num_attack_steps"), attack["radius"]
    if steps is None:
        return
    if attack.get("kind") == "pgd" and attack.get("step_size") is not None:
        reach = attack["step_size"] * steps * (1 if attack.get("annealing", "constant") == "constant" else 0.5)
    elif attack.get("kind") == "adam" and attack.get("learning_rates"):
        reach = _length_of_rates(attack["learning_rates"], steps)
    else:
        return
    if reach < 0.999 * radius:
        sentence = (
            f"'{name}' is too short for its ball: {steps} steps go {reach:.3g} in all, and the radius is {radius:.3g}."
        )
        evidence = {"attack": name, "num_attack_steps": steps, "reach": reach, "radius": radius}
        yield Finding("short steps", "warning", sentence, evidence, "Give more steps or a larger attack.step_size.")


def _length_of_rates(rates: Sequence[Any], steps: int) -> float:
    """How far a pixel goes whose gradient never turns: an Adam step is about as long as its rate."""
    since = [*(int(first) for first, _ in rates), steps]
    lengths = (rate * max(0, min(since[index + 1], steps) - since[index]) for index, (_, rate) in enumerate(rates))
    return float(sum(lengths))


def _long_steps(name: str, attack: dict[str, Any]) -> Iterator[Finding]:
    """Steps longer than the radius: from the middle each leaves the ball, and the iterate leaps from edge to edge. A single
    step may be so long, and the first of annealed ones may cross the whole ball, as in APGD."""
    size, steps, radius = attack.get("step_size"), attack.get("num_attack_steps"), attack["radius"]
    if attack.get("kind") != "pgd" or size is None or steps is None or steps < 2:
        return
    longest = radius * (1 if attack.get("annealing", "constant") == "constant" else 2)
    if size > longest * (1 + _ROUNDING):
        sentence = (
            f"'{name}' takes steps of {format_radius(size)} in a ball of radius {format_radius(radius)}: they leap from one "
            "edge to another and cannot settle, so the model may look more robust than it is."
        )
        evidence = {"attack": name, "step_size": size, "radius": radius, "num_attack_steps": steps}
        advice = "Give an attack.step_size of a tenth to a quarter of the radius."
        yield Finding("long steps", "warning", sentence, evidence, advice)


def _ball_size(name: str, attack: dict[str, Any], num_values: int | None) -> Iterator[Finding]:
    """A radius of another norm or scale."""
    radius, euclidean = attack["radius"], attack.get("norm") == "l2"
    if attack.get("eight_bit") and radius < _GREY_LEVEL * (1 - _ROUNDING):
        sentence = (
            f"'{name}' proposes whole 255ths, and within {radius:.3g} no pixel has another one: nothing can move."
        )
        yield Finding(
            "small ball", "warning", sentence, {"attack": name, "radius": radius}, "Give a radius of 1/255 or more."
        )
        return
    values = None if num_values is None else num_values * _mask_share(attack.get("mask"))
    if euclidean and values is not None:
        level = math.sqrt(values) * _GREY_LEVEL
        evidence = {"attack": name, "radius": radius, "one_grey_level_everywhere": round(level, 6)}
        if radius < level:
            sentence = (
                f"'{name}' may move an image by a Euclidean length of {radius:.3g}; one grey level at every pixel it may "
                f"change is {level:.3g} already."
            )
            severity, advice = "note", "Say the norm beside the number."
            if radius < _FAR_BELOW * level:
                severity = "warning"
                advice = (
                    "Is that a radius of the L-infinity ball? Usual L2 radii are 0.5 at 32 pixels and 3 at 224: give "
                    "attack.radius, or attack.norm=linf."
                )
            yield Finding("small ball", severity, sentence, evidence, advice)
        everything = _HALF * math.sqrt(values)
    else:
        everything = math.inf if euclidean else _HALF
    if radius >= everything:
        whole = "every image can be made plain grey: nobody withstands that."
        part = "all that its mask leaves free can be made plain grey, whatever it was."
        sentence = f"Within the radius of '{name}', {radius:.3g}, {part if attack.get('mask') else whole}"
        advice = "Is it in pixels of [0, 1]? 8 of 255 is 8/255."
        yield Finding("large ball", "note", sentence, {"attack": name, "radius": radius}, advice)


def _mask_share(mask: dict[str, Any] | None) -> float:
    """The share of an image's pixels under a mask, as its settings say it."""
    if not mask:
        return 1.0
    cells = "".join(mask.get("rows") or [])
    return cells.count("#") / len(cells) if cells else float(mask.get("height", 1)) * float(mask.get("width", 1))


def ball_used(table: pa.Table, manifest: dict[str, Any]) -> list[Finding]:
    """L2 attacks whose images stay near the clean ones though nothing holds them there: their steps were shorter than they say.

    Only such as keep the last iterate and follow gradients; whoever is led by them ends at the edge of the ball."""
    names = np.array(table["attack"].to_pylist(), dtype=object)
    steps, distances = filled(table, "num_attack_steps"), filled(table, "distance")
    ran = np.array(table["status"].to_pylist(), dtype=object) == RUN
    alarms = []
    for name, attack in settings_of(manifest).items():
        rows = (names == name) & ran & (steps == attack.get("num_attack_steps"))
        led = attack.get("kind") in ("pgd", "adam") and attack.get("keep") == "last" and not attack.get("eight_bit")
        if attack.get("norm") != "l2" or not led or not attack.get("radius") or not rows.any():
            continue
        median = float(np.median(distances[rows]))
        if median < _HALF * attack["radius"]:
            sentence = (
                f"'{name}' uses little of its ball: half of its images end within {median:.3g} of the clean ones, and the "
                f"radius is {attack['radius']:.3g}."
            )
            evidence = {"attack": name, "median_distance": median, "radius": attack["radius"]}
            alarms.append(Finding("short steps", "warning", sentence, evidence, "Evaluate again, with more steps."))
    return alarms


def weaker_than_checks(
    reduced: Sequence[Outcome], manifest: dict[str, Any], probes: Sequence[Finding]
) -> list[Finding]:
    """Does the checks' own short PGD break clearly more than all attacks of the suite together did, on the same images?

    Args:
      reduced: of `outcomes`.
      manifest: of the ledger.
      probes: findings of the checks; one of them has as evidence the ids that were `tried`, those that PGD has `broken`, and
        its `radius` (L-infinity, untargeted).
    Only attacks that have the same aim and at least the same means are compared; without any there is no finding."""
    small_attack = next((one.evidence for one in probes if "tried" in one.evidence and "broken" in one.evidence), None)
    if small_attack is None:
        return []
    last = {outcome.attack: outcome for outcome in reduced}
    settings = settings_of(manifest)
    names = [name for name in last if _has_the_means(settings.get(name, {}), float(small_attack["radius"]))]
    if not names:
        return []
    right: dict[str, bool] = {}
    for name in names:
        for example, correct in zip(last[name].example_ids, last[name].correct, strict=True):
            right[example] = right.get(example, True) and bool(correct)
    tried = [example for example in small_attack["tried"] if example in right]
    broken = {*small_attack["broken"]}
    only_checks = sum(example in broken and right[example] for example in tried)
    only_suite = sum(example not in broken and not right[example] for example in tried)
    p_value = mcnemar(only_checks, only_suite)
    evidence = {
        "attacks": names,
        "only_checks_break": only_checks,
        "only_suite_breaks": only_suite,
        "num_examples": len(tried),
        "p_value": p_value,
    }
    counts = (
        f"of {len(tried)} images the checks' PGD of 40 steps breaks {only_checks} that stay right under "
        f"{' and '.join(map(repr, names))}; the other way round it is {only_suite} (exact McNemar p {p_value:.2g})."
    )
    if only_checks - only_suite > _CONSIDERABLE * len(tried) and p_value < _LEVEL:
        sentence = f"The attacks of the suite are too weak: {counts}"
        advice = "Look at their step size, number of steps and loss; --attack pgd-100 takes 100 steps of a tenth of the radius."
        return [Finding("weaker than checks", "warning", sentence, evidence, advice)]
    return [Finding("weaker than checks", "passed", f"The suite is no weaker than a short attack: {counts}", evidence)]


def _has_the_means(attack: dict[str, Any], radius: float) -> bool:
    """Whether an attack by gradients may do all that an untargeted L-infinity attack of this radius may."""
    as_free = attack.get("norm", "linf") == "linf" and not attack.get("mask") and not attack.get("eight_bit")
    away = attack.get("objective") in ("untargeted", "multitargeted")
    return as_free and away and uses_gradients(attack) and (attack.get("radius") or 0) >= radius * (1 - _ROUNDING)
