"""Are gradients masked: do attacks that see through it break clearly more than plain gradients do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from s3ta.finding import Check, Finding
from s3ta.records.checks_strength import ENOUGH_STEPS
from s3ta.records.manifest import AttackSettings
from s3ta.records.metrics import Outcome
from s3ta.records.proportion_statistics import PairedCounts, is_significantly_stronger
from s3ta.records.schema import CLEAN

_LEVEL = 0.05
_NO_GRADIENT = "uses no gradient"
_LEAST = {False: 0.05, True: 0.01}
"""Shares of all examples that another loss, and an attack without gradients, must break beyond what plain attacks do. The
margin is a few points stronger than the cross-entropy on sound models too."""
_SQUARE_SHARE = 0.002
"""AutoAttack's own rule: Square breaking more than this share of all examples, after the attacks with gradients."""


def unmasking_reason(settings: AttackSettings) -> str | None:
    """Why an attack works where gradients are masked; None where it does not, or not for that reason."""
    if not settings.uses_gradients:
        return _NO_GRADIENT
    if settings.is_loop and settings.loss in ("margin", "dlr"):
        return "keeps a gradient where the cross-entropy has none"
    return None


def masked_gradients(last: dict[str, Outcome], settings: Mapping[str, AttackSettings]) -> list[Finding]:
    """An attack that sees through masked gradients breaks clearly more than gradients of the cross-entropy do.

    Compared are attacks of one norm, radius, mask and objective, example by example: all plain ones together (an example is
    broken if any breaks it) against each of the others. A comparison must be fair: another loss takes as many steps and keeps
    the same iterate, and what uses no gradient meets plain attacks of 20 steps or more."""
    alarms, blind, other_losses, alone = list[Finding](), dict[str, Any](), dict[str, Any](), list[str]()
    was_checked = False
    for name in last:
        why = unmasking_reason(settings[name]) if name in settings else None
        if why is None:
            continue
        is_blind = why == _NO_GRADIENT
        plain = [other for other in last if other in settings and _is_fair(settings[other], settings[name])]
        if not plain:
            alone += [name] if is_blind else []
            continue
        was_checked |= is_blind
        met = [name, *plain]  # of an unfinished evaluation, some examples have met only some of them
        common = set.intersection(*(set(last[attack].example_ids) for attack in met))
        right, *others = (last[attack].only(common).correct for attack in met)
        broken = PairedCounts.of(~right, ~np.logical_and.reduce(others))
        evidence = {
            "attack": name,
            "plain": plain,
            "only_this_breaks": broken.only_a,
            "only_plain_breaks": broken.only_b,
            "num_examples": broken.total,
            "p_value": broken.p_value,
        }
        if not is_significantly_stronger(broken.only_a, broken.only_b, _LEAST[is_blind] * broken.total, _LEVEL):
            (blind if is_blind else other_losses)[name] = evidence
            continue
        sentence = (
            f"Gradients seem to be masked: '{name}', which {why}, breaks {broken.only_a} of {broken.total} examples that "
            f"stay right under {' and '.join(map(repr, plain))}; the other way round it is {broken.only_b} "
            f"(exact McNemar p {broken.p_value:.2g})."
        )
        advice = (
            "Robustness measured with cross-entropy gradients is too high here: trust the lower number, and run --suite "
            "strongest."
        )
        alarms.append(Check("gradient masking").warning(sentence, evidence, advice))
    in_order = [_in_order(kind, among) for kind, among in (("black box", blind), ("other loss", other_losses)) if among]
    if was_checked:
        return alarms + in_order
    why = "the suite has no attack without gradients"
    if alone:
        why = (
            f"beside {', '.join(map(repr, alone))}, which uses none, there is no PGD of {ENOUGH_STEPS} steps "
            "or more on the cross-entropy with the same norm, radius and objective"
        )
    return [*alarms, *in_order, _no_black_box(why)]


def _in_order(kind: str, compared: dict[str, dict[str, Any]]) -> Finding:
    """Comparisons without an alarm, by the name of the attack."""
    each = "; ".join(
        f"'{name}' alone breaks {counts['only_this_breaks']} of {counts['num_examples']}, the plain ones alone "
        f"{counts['only_plain_breaks']}"
        for name, counts in compared.items()
    )
    return Check(kind).passed(f"No sign of masked gradients: {each}.", {"compared": list(compared.values())})


def _no_black_box(why: str) -> Finding:
    sentence = f"Whether gradients are masked was not checked: {why}."
    return Check("black box").unchecked(sentence, {}, "Run --suite unmask too.")


def masked_in_cascade(last: dict[str, Outcome], settings: Mapping[str, AttackSettings]) -> list[Finding]:
    """Square breaks a considerable share of what all attacks before it left."""
    findings = []
    for before, name in pairwise(last):
        if name not in settings or settings[name].part != "square":
            continue
        left = int(last[before].only(last[name].example_ids).correct.sum())
        broken = left - int(last[name].correct.sum())
        evidence = {"attack": name, "broken": broken, "left": left, "num_examples": len(last[name].example_ids)}
        breaks = f"'square', which uses none, breaks {broken} of the {left} examples that all attacks"
        if broken > max(1, _SQUARE_SHARE * len(last[name].example_ids)):
            sentence = f"Gradients may be masked: {breaks} with gradients before it left correct."
            findings.append(Check("gradient masking").warning(sentence, evidence, "Run --suite unmask to see more."))
        elif before != CLEAN:
            sentence = f"No sign of masked gradients: {breaks} before it left correct."
            findings.append(Check("black box").passed(sentence, evidence))
    return findings or [_no_black_box("the suite does not end in an attack without gradients")]


def _is_fair(settings: AttackSettings, other: AttackSettings) -> bool:
    """Whether a plain attack that breaks clearly less than the other one is a sign of masking, and not just a weak attack."""
    if other.uses_gradients:
        same = ("num_attack_steps", "keep", "num_restarts", "step_size", "annealing", "momentum", "eight_bit")
        is_strong = _are_alike(settings, other, same)
    else:
        is_strong = settings.num_attack_steps >= ENOUGH_STEPS
    return is_strong and _is_plain(settings, other)


def _is_plain(settings: AttackSettings, other: AttackSettings) -> bool:
    """Whether an attack goes by cross-entropy gradients of the answer, under the threat model of the other."""
    is_same = _are_alike(settings, other, ("norm", "radius", "mask", "objective"))
    is_exact = settings.is_loop and settings.loss == "cross_entropy" and settings.gradient.kind == "exact"
    is_of_answer = settings.glimpses == "last" and not (settings.steering or settings.num_glimpses)
    return is_same and is_exact and is_of_answer and settings.objective != "multitargeted"


def _are_alike(settings: AttackSettings, other: AttackSettings, names: Sequence[str]) -> bool:
    return all(getattr(settings, name) == getattr(other, name) for name in names)
