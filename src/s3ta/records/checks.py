"""What the records of an evaluation say about the evaluation itself: structured warnings, each with its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from s3ta.finding import Check, Finding, ask_all, worst_first
from s3ta.records import checks_chance_and_sample_size, checks_perturbation_size, checks_strength
from s3ta.records.ledger import is_tiny_suite
from s3ta.records.manifest import AttackSettings, Manifest
from s3ta.records.metrics import Outcome, reduce_restarts
from s3ta.records.proportion_statistics import PairedCounts, is_significantly_stronger
from s3ta.records.schema import CLEAN, STATUS_OVER_BUDGET

_LEVEL = 0.05
_NO_GRADIENT = "uses no gradient"
_LEAST = {False: 0.05, True: 0.01}
"""Shares of all examples that another loss, and an attack without gradients, must break beyond what plain attacks do. The
margin is a few points stronger than the cross-entropy on sound models too."""
_SQUARE_SHARE = 0.002
"""AutoAttack's own rule: Square breaking more than this share of all examples, after the attacks with gradients."""


def check_records(table: pa.Table, manifest: Manifest, probes: Sequence[Finding] = ()) -> list[Finding]:
    """Everything that the records show, worst first; also what was checked and found in order, and what could not be.

    `probes`: what small experiments on the model found, whose images the suite is compared on.
    Errors as of `reduce_restarts`."""
    suite = manifest.suite
    reduced = reduce_restarts(table, cascade=suite.cascade)
    last = {outcome.attack: outcome for outcome in reduced}
    num_examples = len(last[CLEAN].correct) if CLEAN in last else len(table["example_id"].unique())
    questions: dict[str, Callable[[], Finding | list[Finding]]] = {
        "trial": lambda: _trial(suite.name),
        "incomplete": lambda: _cut(table, last),
        "ball": lambda: checks_chance_and_sample_size.ball_respected(table, suite),
        "clean accuracy": lambda: checks_chance_and_sample_size.above_chance(reduced, manifest),
        "gradient masking": lambda: (_masked_in_cascade if suite.cascade else _masked)(last, suite.attacks_by_name),
        "settings": lambda: checks_perturbation_size.check_attack_settings(manifest),
        "short steps": lambda: checks_perturbation_size.ball_used(table, suite),
        "weaker than checks": lambda: checks_perturbation_size.weaker_than_checks(reduced, suite, probes),
        "converged": lambda: checks_strength.converged(reduced),
        "more steps help": lambda: checks_strength.more_steps_help(reduced, suite),
        "restarts": lambda: checks_strength.restarts_matter(table, suite, num_examples),
        "weak attack": lambda: checks_strength.worst_case(suite),
        "fewer attacks": lambda: _left_out(suite.left_out),
        "subset": lambda: checks_chance_and_sample_size.subset_of_all(reduced, manifest),
    }
    return worst_first(ask_all(questions))


def unmasking_reason(settings: AttackSettings) -> str | None:
    """Why an attack works where gradients are masked; None where it does not, or not for that reason."""
    if not settings.uses_gradients:
        return _NO_GRADIENT
    if settings.is_loop and settings.loss in ("margin", "dlr"):
        return "keeps a gradient where the cross-entropy has none"
    return None


def _masked(last: dict[str, Outcome], settings: Mapping[str, AttackSettings]) -> list[Finding]:
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
            f"beside {', '.join(map(repr, alone))}, which uses none, there is no PGD of {checks_strength.ENOUGH_STEPS} steps "
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


def _masked_in_cascade(last: dict[str, Outcome], settings: Mapping[str, AttackSettings]) -> list[Finding]:
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
        is_strong = settings.num_attack_steps >= checks_strength.ENOUGH_STEPS
    return is_strong and _is_plain(settings, other)


def _is_plain(settings: AttackSettings, other: AttackSettings) -> bool:
    """Whether an attack goes by cross-entropy gradients of the answer, under the threat model of the other."""
    is_same = _are_alike(settings, other, ("norm", "radius", "mask", "objective"))
    is_exact = settings.is_loop and settings.loss == "cross_entropy" and settings.gradient.kind == "exact"
    is_of_answer = settings.glimpses == "last" and not (settings.steering or settings.num_glimpses)
    return is_same and is_exact and is_of_answer and settings.objective != "multitargeted"


def _are_alike(settings: AttackSettings, other: AttackSettings, names: Sequence[str]) -> bool:
    return all(getattr(settings, name) == getattr(other, name) for name in names)


def _cut(table: pa.Table, last: dict[str, Outcome]) -> list[Finding]:
    cut = dict(Counter(table.filter(pc.field("status") == STATUS_OVER_BUDGET)["attack"].to_pylist()))
    if not cut:
        return []
    without = [name for name in cut if name not in last and name != CLEAN]
    sentence = (
        f"The budget left out {', '.join(f'{count} records of {name!r}' for name, count in cut.items())}: what was not run "
        "was not counted as broken, so every top-1 after it is an upper bound, and every success a lower one"
    )
    if without:
        sentence += f"; {', '.join(map(repr, without))} {'has' if len(without) == 1 else 'have'} no number at all"
    advice = "Evaluate again without --max-passes, or with a larger one, for a number to quote."
    return [Check("incomplete").warning(sentence + ".", {"num_left_out": cut, "without_number": without}, advice)]


def _left_out(names: list[str]) -> list[Finding]:
    if not names:
        return []
    sentence = f"Left out, for they do not fit the model or a changed setting: {', '.join(names)}."
    advice = "Beside a model that met them, this one met fewer attacks: compare attack by attack."
    return [Check("fewer attacks").note(sentence, {"left_out": names}, advice)]


def _trial(suite: str) -> list[Finding]:
    if not is_tiny_suite(suite):
        return []
    sentence = "This was a trial run (--tiny): its numbers mean nothing."
    return [Check("trial").warning(sentence, {"suite": suite}, "Evaluate again without --tiny.")]
