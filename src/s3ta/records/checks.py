"""What the records of an evaluation say about the evaluation itself: structured warnings, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from s3ta.finding import Check, Finding, ask_all, worst_first
from s3ta.records import checks_attack_reach, checks_strength, checks_validity
from s3ta.records.intervals import breaks_more, mcnemar
from s3ta.records.ledger import is_cascade, is_trial
from s3ta.records.metrics import Outcome, reduce_restarts
from s3ta.records.schema import BUDGET, CLEAN

_LEVEL = 0.05
_NO_GRADIENT = "uses no gradient"
_LEAST = {False: 0.05, True: 0.01}
"""Shares of all examples that another loss, and an attack without gradients, must break beyond what plain attacks do. The
margin is a few points stronger than the cross-entropy on sound models too."""
_SQUARE_SHARE = 0.002
"""AutoAttack's own rule: Square breaking more than this share of all examples, after the attacks with gradients."""


def check_records(table: pa.Table, manifest: dict[str, Any], probes: Sequence[Finding] = ()) -> list[Finding]:
    """Everything that the records show, worst first; also what was checked and found in order, and what could not be.

    `probes`: what small experiments on the model found, whose images the suite is compared on.
    Errors as of `reduce_restarts`."""
    cascade = is_cascade(manifest)
    reduced, settings = reduce_restarts(table, cascade=cascade), checks_strength.settings_of(manifest)
    last = {outcome.attack: outcome for outcome in reduced}
    num_examples = len(last[CLEAN].correct) if CLEAN in last else len(table["example_id"].unique())
    attacks = {attack["name"]: attack for attack in manifest["suite"]["attacks"]}
    questions: dict[str, Callable[[], Finding | list[Finding]]] = {
        "trial": lambda: _trial(manifest),
        "incomplete": lambda: _cut(table, last),
        "ball": lambda: checks_validity.ball_respected(table, settings),
        "clean accuracy": lambda: checks_validity.above_chance(reduced, manifest),
        "gradient masking": lambda: (_masked_in_cascade if cascade else _masked)(last, attacks),
        "settings": lambda: checks_attack_reach.check_attack_settings(manifest),
        "short steps": lambda: checks_attack_reach.ball_used(table, manifest),
        "weaker than checks": lambda: checks_attack_reach.weaker_than_checks(reduced, manifest, probes),
        "converged": lambda: checks_strength.converged(reduced),
        "more steps help": lambda: checks_strength.more_steps_help(reduced, settings),
        "restarts": lambda: checks_strength.restarts_matter(table, settings, num_examples),
        "weak attack": lambda: checks_strength.worst_case(manifest),
        "fewer attacks": lambda: _left_out(manifest),
        "subset": lambda: checks_validity.subset_of_all(reduced, manifest),
    }
    return worst_first(ask_all(questions))


def unmasking_reason(settings: dict[str, Any]) -> str | None:
    """Why an attack works where gradients are masked; None where it does not, or not for that reason."""
    if not checks_strength.uses_gradients(settings):
        return _NO_GRADIENT
    if settings.get("kind") in ("pgd", "adam") and settings.get("loss") in ("margin", "dlr"):
        return "keeps a gradient where the cross-entropy has none"
    return None


def _masked(last: dict[str, Outcome], settings: dict[str, dict[str, Any]]) -> list[Finding]:
    """An attack that sees through masked gradients breaks clearly more than gradients of the cross-entropy do.

    Compared are attacks of one norm, radius, mask and objective, example by example: all plain ones together (an example is
    broken if any breaks it) against each of the others. A comparison must be fair: another loss takes as many steps and keeps
    the same iterate, and what uses no gradient meets plain attacks of 20 steps or more."""
    alarms, blind, other_losses, alone = list[Finding](), dict[str, Any](), dict[str, Any](), list[str]()
    is_blind_alarm = False
    for name in last:
        why = unmasking_reason(settings.get(name, {}))
        if why is None:
            continue
        is_blind = why == _NO_GRADIENT
        plain = [other for other in last if _is_fair(settings.get(other, {}), settings[name])]
        if not plain:
            alone += [name] if is_blind else []
            continue
        met = [name, *plain]  # of an unfinished evaluation, some examples have met only some of them
        common = list(set.intersection(*(set(last[attack].example_ids) for attack in met)))
        right, *others = (last[attack].correct[np.isin(last[attack].example_ids, common)] for attack in met)
        survived = np.logical_and.reduce(others)
        only_here, only_plain = int((survived & ~right).sum()), int((~survived & right).sum())
        p_value = mcnemar(only_here, only_plain)
        evidence = {
            "attack": name,
            "plain": plain,
            "only_this_breaks": only_here,
            "only_plain_breaks": only_plain,
            "num_examples": len(survived),
            "p_value": p_value,
        }
        if not breaks_more(only_here, only_plain, _LEAST[is_blind] * len(survived), _LEVEL):
            (blind if is_blind else other_losses)[name] = evidence
            continue
        sentence = (
            f"Gradients seem to be masked: '{name}', which {why}, breaks {only_here} of {len(survived)} examples that "
            f"stay right under {' and '.join(map(repr, plain))}; the other way round it is {only_plain} "
            f"(exact McNemar p {p_value:.2g})."
        )
        advice = (
            "Robustness measured with cross-entropy gradients is too high here: trust the lower number, and run --suite "
            "strongest."
        )
        alarms.append(Check("gradient masking").warning(sentence, evidence, advice))
        is_blind_alarm |= is_blind
    in_order = [_in_order(kind, among) for kind, among in (("black box", blind), ("other loss", other_losses)) if among]
    if blind or is_blind_alarm:
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


def _masked_in_cascade(last: dict[str, Outcome], settings: dict[str, dict[str, Any]]) -> list[Finding]:
    """Square breaks a considerable share of what all attacks before it left."""
    findings = []
    for before, name in pairwise(last):
        if settings.get(name, {}).get("part") != "square":
            continue
        left = int(last[before].correct[np.isin(last[before].example_ids, last[name].example_ids)].sum())
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


def _is_fair(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a plain attack that breaks clearly less than the other one is a sign of masking, and not just a weak attack."""
    steps = settings.get("num_attack_steps", 0)
    if unmasking_reason(other) == _NO_GRADIENT:
        strong = steps >= checks_strength.ENOUGH_STEPS
    else:
        same = ("num_attack_steps", "keep", "num_restarts", "step_size", "annealing", "momentum", "eight_bit")
        strong = all(settings.get(key) == other.get(key) for key in same)
    return strong and _is_plain(settings, other)


def _is_plain(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether an attack goes by cross-entropy gradients of the answer, under the threat model of the other."""
    same = all(settings.get(key) == other.get(key) for key in ("norm", "radius", "mask", "objective"))
    plain = settings.get("loss") == "cross_entropy" and settings.get("gradient", {}).get("kind") == "exact"
    is_of_answer = settings.get("glimpses") == "last" and not (settings.get("steering") or settings.get("num_glimpses"))
    return same and plain and is_of_answer and settings.get("objective") != "multitargeted"


def _cut(table: pa.Table, last: dict[str, Outcome]) -> list[Finding]:
    statuses = np.array(table["status"].to_pylist(), dtype=object)
    if BUDGET not in statuses:
        return []
    names = np.array(table["attack"].to_pylist(), dtype=object)
    cut = {
        str(name): int((statuses[names == name] == BUDGET).sum()) for name in dict.fromkeys(names[statuses == BUDGET])
    }
    without = [name for name in cut if name not in last and name != CLEAN]
    sentence = (
        f"The budget left out {', '.join(f'{count} records of {name!r}' for name, count in cut.items())}: what was not run "
        "was not counted as broken, so every top-1 after it is an upper bound, and every success a lower one"
    )
    if without:
        sentence += f"; {', '.join(map(repr, without))} {'has' if len(without) == 1 else 'have'} no number at all"
    advice = "Evaluate again without --max-passes, or with a larger one, for a number to quote."
    return [Check("incomplete").warning(sentence + ".", {"num_left_out": cut, "without_number": without}, advice)]


def _left_out(manifest: dict[str, Any]) -> list[Finding]:
    names = list(manifest["suite"].get("left_out") or [])
    if not names:
        return []
    sentence = f"Left out, for they do not fit the model or a changed setting: {', '.join(names)}."
    advice = "Beside a model that met them, this one met fewer attacks: compare attack by attack."
    return [Check("fewer attacks").note(sentence, {"left_out": names}, advice)]


def _trial(manifest: dict[str, Any]) -> list[Finding]:
    name = str(manifest["suite"].get("name"))
    if not is_trial(name):
        return []
    sentence = "This was a trial run (--tiny): its numbers mean nothing."
    return [Check("trial").warning(sentence, {"suite": name}, "Evaluate again without --tiny.")]
