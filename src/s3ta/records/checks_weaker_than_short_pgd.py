"""Is the suite weaker than the checks' own short PGD on the same images?"""

from __future__ import annotations

from collections.abc import Sequence

from s3ta.finding import Check, Finding
from s3ta.records.checks_strength import another_attack
from s3ta.records.manifest import AttackSettings, SuiteEntry
from s3ta.records.metrics import Outcome
from s3ta.records.proportion_statistics import is_significantly_stronger, mcnemar

_ROUNDING = 1e-6
_LEVEL = 0.05
_CONSIDERABLE = 0.05


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
