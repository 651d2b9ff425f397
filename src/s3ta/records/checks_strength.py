"""Was the attack strong and long enough to believe its numbers? Asked of records alone.

Each check returns what it found, also where it found nothing wrong or could not look.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import groupby, pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from s3ta.finding import Check, Finding
from s3ta.records.manifest import SuiteEntry
from s3ta.records.metrics import Outcome, reduce_restarts
from s3ta.records.proportion_statistics import PairedCounts
from s3ta.records.schema import CLEAN, STATUS_RUN

ENOUGH_STEPS = 20
"""An attack with fewer steps says little about the worst case."""
_LEVEL = 0.01
_POINT = 0.01
_CONSIDERABLE = 0.02


def another_attack(names: Container[str]) -> str:
    """What to type for a strong attack by gradients that is none of these: advice must not be what is criticised."""
    known = (name for name in ("pgd-100", "annealed-100", "annealed-margin-100") if name not in names)
    name = next(known, None)
    return f"--attack {name}" if name else "--suite autoattack"


def more_steps_help(reduced: list[Outcome], suite: SuiteEntry) -> list[Finding]:
    """From one read-out of an attack to a later one top-1 must not rise, nor success fall (X37).

    Neighbours are compared, and the first with the last; example by example, exact McNemar, and at least one point."""
    check = Check("more steps help")
    findings, compared, settings = [], 0, suite.settings_by_name
    advice = (
        "Its steps may be too large, or its gradients of little use: lower attack.step_size, or keep the best iterate "
        "(attack.keep=best)."
    )
    for name, read_outs in _by_attack(reduced).items():
        pairs = [*pairwise(read_outs)]
        if len(read_outs) > 2:
            pairs.append((read_outs[0], read_outs[-1]))
        compared += len(pairs)
        drops = [drop for early, late in pairs for drop in _helps_less(name, early, late)]
        answer = check.warning if name in settings and settings[name].keep == "best" else check.note
        findings += [answer(sentence, evidence, advice) for sentence, evidence in drops[:1]]
    if not compared:
        sentence = "Whether more attack steps help is not known: no attack was read out at more than one"
        return [check.unchecked(f"{sentence} number of steps.")]
    if findings:
        return findings
    sentence = "More attack steps never helped the model: between read-outs top-1 never clearly rose, nor success fell."
    return [check.passed(sentence, {"num_compared": compared})]


def _helps_less(name: str, early: Outcome, late: Outcome) -> list[tuple[str, dict[str, Any]]]:
    drops = []
    for what, larger, smaller in (("top-1 rises", late.correct, early.correct), ("success falls", early.hit, late.hit)):
        counts = PairedCounts.of(larger, smaller)
        if counts.difference > _POINT and counts.p_value < _LEVEL:
            evidence = {
                "attack": name,
                "num_attack_steps": [early.num_attack_steps, late.num_attack_steps],
                "difference": round(counts.difference, 6),
                "p_value": counts.p_value,
                "num_examples": counts.total,
            }
            sentence = (
                f"Under '{name}' {what} by {_points(counts.difference)} from {early.num_attack_steps} to "
                f"{late.num_attack_steps} steps (exact McNemar p {counts.p_value:.2g}): more steps help the model there."
            )
            drops.append((sentence, evidence))
    return drops


def converged(reduced: list[Outcome]) -> list[Finding]:
    """Does top-1 still fall over the last half of the steps, or more? Read-outs closer together say nothing."""
    check = Check("converged")
    findings, without = [], []
    for name, read_outs in _by_attack(reduced).items():
        late = read_outs[-1]
        earlier = [outcome for outcome in read_outs if 2 * outcome.num_attack_steps <= late.num_attack_steps]
        if not earlier:
            without.append(name)
            continue
        early = earlier[-1]
        counts = PairedCounts.of(early.correct, late.correct)
        low, high = counts.interval
        evidence: dict[str, Any] = {
            "attack": name,
            "num_attack_steps": [early.num_attack_steps, late.num_attack_steps],
            "fall": round(counts.difference, 6),
            "interval": [round(low, 6), round(high, 6)],
            "num_examples": counts.total,
        }
        steps = f"from {early.num_attack_steps} to {late.num_attack_steps} steps"
        fall = f"falls by {_points(counts.difference)} (95% interval {100 * low:.1f} to {100 * high:.1f})."
        if counts.winner == 1 and counts.difference > _CONSIDERABLE:
            sentence = f"'{name}' has not converged: {steps} its top-1 still {fall}"
            advice = (
                "More attack steps would lower it further: give more, or say the number of steps beside the number."
            )
            findings.append(check.warning(sentence, evidence, advice))
        elif high > max(_CONSIDERABLE, 0.1) and counts.total < 100:
            sentence = f"Too few examples to tell whether '{name}' has converged: {steps} its top-1 {fall}"
            findings.append(check.unchecked(sentence, evidence))
        else:
            findings.append(check.passed(f"'{name}' has about converged: {steps} its top-1 {fall}", evidence))
    if without:
        sentence = (
            f"Whether more steps would lower top-1 further is not known of {', '.join(map(repr, without))}: there is no "
            "read-out at half the steps or fewer."
        )
        findings.append(check.unchecked(sentence, {"attacks": without}))
    return findings


def restarts_matter(table: pa.Table, suite: SuiteEntry, num_examples: int) -> list[Finding]:
    """How far top-1 falls from the first restart to all of them, at the last read-out.

    In a cascade over those that the attack met; always as a share of all examples. Restarts that are not random starts
    (one target class after the other, one glimpse after the other) are not compared."""
    check = Check("restarts")
    findings = []
    for name, settings in suite.settings_by_name.items():
        if settings.objective == "multitargeted" or settings.glimpses == "each":
            continue
        rows = table.filter(pc.field("attack") == name)
        started = rows.filter((pc.field("restart") == 0) & (pc.field("status") == STATUS_RUN))["example_id"].unique()
        rows = rows.filter(pc.field("example_id").isin(started))
        if not rows.num_rows or not rows["restart"].to_numpy().max():
            continue
        first, every = reduce_restarts(rows, num_restarts=1)[-1], reduce_restarts(rows)[-1]
        if every.num_restarts < 2:
            continue
        fall = int(first.correct.sum() - every.correct.sum()) / num_examples
        evidence = {
            "attack": name,
            "num_restarts": every.num_restarts,
            "fall": round(fall, 6),
            "num_examples": num_examples,
        }
        change = f"from the first to all {every.num_restarts} random starts of '{name}' top-1 falls by {_points(fall)}."
        if fall > _CONSIDERABLE:
            advice = "One start is not enough here: compare only with numbers of as many restarts, and try more."
            findings.append(check.note(f"Restarts matter: {change}", evidence, advice))
        else:
            findings.append(check.passed(f"Restarts matter little: {change}", evidence))
    return findings or [
        check.unchecked("Whether another random start would find more is not known: no attack has several.")
    ]


def worst_case(suite: SuiteEntry) -> Finding:
    """Does the suite hold an attack that top-1 may be quoted under: by gradients of this model, away from the true label, and
    of some length?"""
    check = Check("weak attack")
    attacks = suite.attacks
    on_itself = [attack for attack in attacks if attack.kind != "transfer"]
    guided = [attack for attack in on_itself if attack.uses_gradients]
    away = {attack.name: attack.num_attack_steps for attack in guided if attack.aims_away}
    other = another_attack(suite.attacks_by_name)
    is_random = all(attack.objective == "targeted" for attack in guided)
    objective, aim = "its objective", "aims elsewhere than away from the label: that"
    if is_random:
        objective, aim = "'random targets'", "has a random target: top-1 under random targets"
    evidence: dict[str, Any] = {"num_attacks": len(attacks), "num_untargeted": len(away)}
    for among, what, advice in (
        (attacks, "The suite has no attack: nothing is said about robustness.", f"Add one, such as {other}."),
        (
            on_itself,
            "Every image was made on another model: that a model withstands those says little about attacks on itself.",
            f"Attack the model itself, such as with {other}.",
        ),
        (
            guided,
            "No attack of the suite uses gradients: attacks by answers alone are weak.",
            f"Add one that does, such as {other}.",
        ),
        (
            away,
            f"Every attack of the suite {aim} is no worst case.",
            f"Say {objective} beside the number; for a worst case add an untargeted attack, such as {other}.",
        ),
    ):
        if not among:
            return check.note(what, evidence, advice)
    strongest = max(away, key=lambda name: away[name])
    evidence |= {"attack": strongest, "num_attack_steps": away[strongest]}
    if away[strongest] < ENOUGH_STEPS:
        length = _steps(away[strongest])
        sentence = f"The longest untargeted attack of the suite, '{strongest}', has {length}: it is a weak one."
        advice = "Use 100 steps or more, or --suite autoattack, before a number is called robustness."
        return check.note(sentence, evidence, advice)
    sentence = f"The suite has an untargeted attack by gradients of {_steps(away[strongest])}, '{strongest}'."
    return check.passed(sentence, evidence)


def _by_attack(reduced: list[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each attack, fewest steps first; without the clean images."""
    attacked = [outcome for outcome in reduced if outcome.attack != CLEAN]
    return {name: [*read_outs] for name, read_outs in groupby(attacked, key=lambda outcome: outcome.attack)}


def _steps(number: int) -> str:
    return "1 step" if number == 1 else f"{number} steps"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
