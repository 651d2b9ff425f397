"""How far do images go: can an attack do what its radius says (asked of its settings alone, before anything is run), are its
images inside the ball, and do they use it?

Each check returns what it found, also where it found nothing wrong or could not look.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from s3ta.attack_settings_checks import implausible
from s3ta.config import format_radius
from s3ta.finding import Check, Finding
from s3ta.records.manifest import AttackSettings, Manifest, SuiteEntry
from s3ta.records.schema import STATUS_RUN

_TOLERANCE = 1e-6
"""Float32 pixels near 1 are no finer than 6e-8."""
_HALF = 0.5
_STAYED = 0.1
"""Of the radius: an image that ends nearer to its clean one has hardly moved."""
_NEARLY_ALL = 0.95
_ROUNDING = 1e-6


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


def check_attack_settings(manifest: Manifest) -> list[Finding]:
    """What settings of attacks show before they run (`s3ta.attack_settings_checks`)."""
    settings, shape = manifest.suite.settings_by_name, manifest.data.shape
    return [finding for name, attack in settings.items() for finding in implausible(name, attack.raw, shape)]


def ball_used(table: pa.Table, suite: SuiteEntry) -> list[Finding]:
    """Attacks of the loop whose images stay near the clean ones though nothing holds them there.

    In any ball: nearly all images that stay right have hardly moved, neither by a random start nor by a step. AutoAttack is
    not asked: it returns the clean image where it fails. In the L2 ball also images that go less than half the radius, of
    attacks that keep the last iterate and follow gradients: whoever is led by them ends at the edge."""
    ran = table.filter(pc.field("status") == STATUS_RUN)
    alarms = []
    for name, attack in suite.settings_by_name.items():
        is_last = (pc.field("attack") == name) & (pc.field("num_attack_steps") == attack.num_attack_steps)
        distances, correct = (ran.filter(is_last)[column].to_numpy() for column in ("distance", "correct"))
        if stayed := _stayed(name, attack, distances[correct], len(distances)):
            alarms.append(stayed)
            continue
        is_led = attack.is_loop and attack.keep == "last" and not attack.eight_bit
        if attack.norm != "l2" or not is_led or not attack.radius or not len(distances):
            continue
        median = float(np.median(distances))
        if median < _HALF * attack.radius:
            sentence = (
                f"'{name}' uses little of its ball: half of its images end within {median:.3g} of the clean ones, and the "
                f"radius is {attack.radius:.3g}."
            )
            evidence = {"attack": name, "median_distance": median, "radius": attack.radius}
            alarms.append(Check("short steps").warning(sentence, evidence, "Evaluate again, with more steps."))
    return alarms


def _stayed(name: str, attack: AttackSettings, of_right: np.ndarray, num_met: int) -> Finding | None:
    """`of_right`: distances of the images that stay right, of the `num_met` that the attack met."""
    radius = attack.radius or 0
    num_stayed = int((of_right < _STAYED * radius).sum())
    if not attack.is_loop or radius <= _ROUNDING or num_stayed < max(1, _STAYED * num_met, _NEARLY_ALL * len(of_right)):
        return None
    sentence = (
        f"'{name}' moved hardly anything: {num_stayed} of the {len(of_right)} images that stay right end within "
        f"{float(of_right.max()) if num_stayed == len(of_right) else _STAYED * radius:.3g} of the clean ones, and the radius "
        f"is {radius:.3g}. That they stay right says nothing."
    )
    evidence = {"attack": name, "num_stayed": num_stayed, "num_right": len(of_right), "radius": radius}
    advice = "Look at its mask, its steps and whether the model has gradients."
    return Check("did not move").warning(sentence, evidence, advice)
