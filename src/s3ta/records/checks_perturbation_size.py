"""Can an attack do what its radius says? Asked of its settings alone, so before anything is run; and, at the end, of how far
its images went and of what the checks' own short attack did to the same ones.

Each check returns what it found, also where it found nothing wrong or could not look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from s3ta.attack_settings_checks import implausible
from s3ta.finding import Check, Finding
from s3ta.records.checks_strength import another_attack
from s3ta.records.manifest import AttackSettings, Manifest, SuiteEntry
from s3ta.records.metrics import Outcome
from s3ta.records.proportion_statistics import is_significantly_stronger, mcnemar
from s3ta.records.schema import STATUS_RUN

_HALF = 0.5
_STAYED = 0.1
"""Of the radius: an image that ends nearer to its clean one has hardly moved."""
_NEARLY_ALL = 0.95
_ROUNDING = 1e-6
_LEVEL = 0.05
_CONSIDERABLE = 0.05


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


def weaker_than_checks(reduced: Sequence[Outcome], suite: SuiteEntry, probes: Sequence[Finding]) -> list[Finding]:
    """Does the checks' own short PGD break clearly more than all attacks of the suite together did, on the same images?

    One of the `probes` has as evidence the ids that were `tried`, those that PGD has `broken`, and its `radius` (L-infinity,
    untargeted). Compared are attacks that have the same aim and at least the same means; without any there is no finding."""
    check = Check("weaker than checks")
    small_attack = next((probe.evidence for probe in probes if {"tried", "broken"} <= set(probe.evidence)), None)
    if small_attack is None:
        return []
    last = {outcome.attack: outcome for outcome in reduced}
    settings, radius = suite.settings_by_name, float(small_attack["radius"])
    names = [name for name in last if name in settings and _has_the_means(settings[name], radius)]
    if not names:
        return []
    met = {example for name in names for example in last[name].example_ids}
    wrong = {example for name in names for example in last[name].example_ids[~last[name].correct]}
    tried = {*small_attack["tried"]} & met
    broken = {*small_attack["broken"]} & tried
    only_checks, only_suite = len(broken - wrong), len((wrong & tried) - broken)
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
    if is_significantly_stronger(only_checks, only_suite, _CONSIDERABLE * len(tried), _LEVEL):
        sentence = f"The attacks of the suite are too weak: {counts}"
        advice = f"Look at their step size, number of steps and loss, or add another one, such as {another_attack(settings)}."
        return [check.warning(sentence, evidence, advice)]
    return [check.passed(f"The suite is no weaker than a short attack: {counts}", evidence)]


def _has_the_means(attack: AttackSettings, radius: float) -> bool:
    """Whether an attack by gradients may do all that an untargeted L-infinity attack of this radius may.

    Divergence too: it does not aim there, but a suite of it alone must not look robust for that."""
    as_free = attack.norm == "linf" and not attack.mask and not attack.eight_bit
    away = attack.aims_away or attack.objective == "divergence"
    return as_free and away and attack.uses_gradients and (attack.radius or 0) >= radius * (1 - _ROUNDING)
