"""What the records of an evaluation say about the evaluation itself: structured warnings, each with its evidence."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from s3ta.records.intervals import mcnemar
from s3ta.records.ledger import is_cascade
from s3ta.records.metrics import Outcome, outcomes
from s3ta.records.schema import BUDGET, CLEAN

_LEVEL = 0.05
_NO_GRADIENT = "uses no gradient"
_ENOUGH_STEPS = 20
_LEAST = {False: 0.05, True: 0.01}
"""Shares of all examples that another loss, and an attack without gradients, must break beyond what plain attacks do. The
margin is a few points stronger than the cross-entropy on sound models too."""
_SQUARE_SHARE = 0.002
"""AutoAttack's own rule: Square breaking more than this share of all examples, after the attacks with gradients."""


class Finding(NamedTuple):
    """One thing that a reader of the numbers must know."""

    kind: str
    """A stable name: `gradient masking`, `incomplete`."""
    severity: str
    """`warning`: the number may be wrong; `note`: it must be read with this in mind."""
    sentence: str
    """What was seen, with the numbers, and what to do."""


def findings(table: pa.Table, manifest: dict[str, Any]) -> list[Finding]:
    """Everything that the records show. Errors as of `outcomes`."""
    reduced = outcomes(table, cascade=is_cascade(manifest))
    settings = {attack["name"]: attack for attack in manifest["suite"]["attacks"]}
    last = {outcome.attack: outcome for outcome in reduced}
    looked = _masked_in_cascade if is_cascade(manifest) else _masked
    return [
        *_trial(manifest),
        *looked(last, settings),
        *_short_steps(manifest),
        *_cut(table, last),
        *_left_out(manifest),
    ]


def sees_through(settings: dict[str, Any]) -> str | None:
    """Why an attack works where gradients are masked; None where it does not, or not for that reason."""
    if settings.get("part") == "square" or (settings.get("gradient") or {}).get("kind") == "spsa":
        return _NO_GRADIENT
    if settings.get("kind") in ("pgd", "adam") and settings.get("loss") in ("margin", "dlr"):
        return "keeps a gradient where the cross-entropy has none"
    return None


def _masked(last: dict[str, Outcome], settings: dict[str, dict[str, Any]]) -> list[Finding]:
    """An attack that sees through masked gradients breaks clearly more than gradients of the cross-entropy do.

    Compared are attacks of one norm, radius, mask and objective, example by example: all plain ones together (an example is
    broken if any breaks it) against each of the others. A comparison must be fair: another loss takes as many steps and keeps
    the same iterate, and what uses no gradient meets plain attacks of 20 steps or more."""
    found = []
    for name in last:
        reason = sees_through(settings.get(name, {}))
        if reason is None:
            continue
        plain = [other for other in last if _is_fair(settings.get(other, {}), settings[name])]
        if not plain:
            continue
        met = [name, *plain]  # of an unfinished evaluation, some examples have met only some of them
        common = list(set.intersection(*(set(last[attack].example_ids) for attack in met)))
        right, *others = (last[attack].correct[np.isin(last[attack].example_ids, common)] for attack in met)
        survived = np.logical_and.reduce(others)
        only_here, only_plain = int((survived & ~right).sum()), int((~survived & right).sum())
        least = _LEAST[reason == _NO_GRADIENT] * len(survived)
        if only_here - only_plain > least and mcnemar(only_here, only_plain) < _LEVEL:
            sentence = (
                f"Gradients seem to be masked: '{name}', which {reason}, breaks {only_here} of {len(survived)} examples that "
                f"stay right under {' and '.join(repr(other) for other in plain)}; the other way round it is {only_plain} "
                f"(exact McNemar p {mcnemar(only_here, only_plain):.2g}). Robustness measured with cross-entropy gradients "
                "is too high here: trust the lower number, and run --suite strongest."
            )
            found.append(Finding("gradient masking", "warning", sentence))
    return found


def _masked_in_cascade(last: dict[str, Outcome], settings: dict[str, dict[str, Any]]) -> list[Finding]:
    """Square breaks a considerable share of what all attacks before it left."""
    names = list(last)
    found = []
    for before, name in pairwise(names):
        left = int(last[before].correct[np.isin(last[before].example_ids, last[name].example_ids)].sum())
        broken = left - int(last[name].correct.sum())
        least = max(1, _SQUARE_SHARE * len(last[name].example_ids))
        if settings.get(name, {}).get("part") == "square" and broken > least:
            sentence = (
                f"Gradients may be masked: 'square', which uses none, breaks {broken} of the {left} examples that all "
                "attacks with gradients before it left correct. Run --suite unmask to see more."
            )
            found.append(Finding("gradient masking", "warning", sentence))
    return found


def _is_fair(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a plain attack that breaks clearly less than the other one is a sign of masking, and not just a weak attack."""
    steps = settings.get("num_attack_steps", 0)
    if sees_through(other) == _NO_GRADIENT:
        strong = steps >= _ENOUGH_STEPS
    else:
        same = ("num_attack_steps", "keep", "num_restarts", "step_size", "annealing", "momentum", "eight_bit")
        strong = all(settings.get(key) == other.get(key) for key in same)
    return strong and _is_plain(settings, other)


def _is_plain(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether an attack goes by cross-entropy gradients of the answer, under the threat model of the other."""
    same = all(settings.get(key) == other.get(key) for key in ("norm", "radius", "mask", "objective"))
    plain = settings.get("loss") == "cross_entropy" and settings.get("gradient", {}).get("kind") == "exact"
    own = settings.get("glimpses") == "last" and not settings.get("steering") and not settings.get("num_glimpses")
    return same and plain and own and settings.get("objective") != "multitargeted"


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
        sentence += f"; {', '.join(map(repr, without))} has no number at all"
    return [Finding("incomplete", "warning", sentence + ".")]


def _left_out(manifest: dict[str, Any]) -> list[Finding]:
    names = manifest["suite"].get("left_out") or []
    if not names:
        return []
    sentence = (
        f"Left out, for they do not fit the model or a changed setting: {', '.join(names)}. Beside a model that met them, "
        "this one met fewer attacks."
    )
    return [Finding("fewer attacks", "note", sentence)]


def _trial(manifest: dict[str, Any]) -> list[Finding]:
    if not re.search(r"-tiny\b", str(manifest["suite"].get("name"))):
        return []
    return [Finding("trial", "warning", "This was a trial run (--tiny): its numbers mean nothing.")]


def _short_steps(manifest: dict[str, Any]) -> list[Finding]:
    """Attacks that cannot get from one side of their ball to the middle: a model looks robust against them."""
    found = []
    for attack in manifest["suite"]["attacks"]:
        size, steps, radius = attack.get("step_size"), attack.get("num_attack_steps"), attack.get("radius")
        if attack.get("kind") != "pgd" or not size or steps is None or not radius:
            continue
        reach = size * steps * (1 if attack.get("annealing", "constant") == "constant" else 0.5)
        if reach < 0.999 * radius:
            sentence = (
                f"'{attack['name']}' is too short for its ball: {steps} steps go {reach:.3g} in all, and the radius is "
                f"{radius:.3g}. Give more steps or a larger attack.step_size."
            )
            found.append(Finding("short steps", "warning", sentence))
    return found
