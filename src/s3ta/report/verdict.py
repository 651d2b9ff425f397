"""The headline in plain words: who won at the strongest attack, or that it is undecided. It promises no winner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from s3ta.records import CLEAN, PairedCounts, wilson
from s3ta.report.runs import Run, clean_score
from s3ta.report.tables import PairOfRuns, attack_text, percent, percent_interval, points, points_interval


class Verdict(NamedTuple):
    """What the top of the page says."""

    title: str
    sentences: list[str]


def strongest(runs: Sequence[Run], objective: str) -> tuple[str, int] | None:
    """The attack of this kind with the largest radius, then most steps, then most starts, and its last read-out.

    Chosen by its settings, never by its outcome; None where no run has records of one."""
    candidates = []
    for score in runs[0].scores:
        settings = runs[0].attacks.get(score.attack, {})
        if settings.get("objective") == objective and all(
            run.score(score.attack, score.num_attack_steps) for run in runs
        ):
            strength = (settings.get("radius", 0), score.num_attack_steps, score.num_restarts)
            candidates.append((strength, (score.attack, score.num_attack_steps)))
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def verdict(runs: Sequence[Run], compared: Sequence[PairOfRuns] | None) -> Verdict:
    """The headline of a report; `compared` is None where the runs cannot be compared (one is unfinished)."""
    attacks = {objective: strongest(runs, objective) for objective in ("untargeted", "targeted")}
    if len(runs) == 1 or compared is None:
        return _described(runs, attacks)
    sentences, outcome = [], {}
    for objective, attack in attacks.items():
        if attack is not None:
            outcome[objective], sentence = _judge(runs, compared, objective, attack)
            sentences.append(sentence)
    if not outcome:
        outcome["clean"], sentence = _judge(runs, compared, "clean", (CLEAN, 0))
        return Verdict(_title(runs, outcome), [sentence, "No attack was run, so this says nothing about robustness."])
    return Verdict(_title(runs, outcome), sentences)


def _title(runs: Sequence[Run], outcome: dict[str, str | None]) -> str:
    winners = set(outcome.values())
    names = " and ".join(run.label for run in runs) if len(runs) == 2 else f"these {len(runs)} models"
    if winners == {None}:
        return f"Undecided: {names} cannot be told apart here"
    if len(winners) == 1:
        (winner,) = winners
        where = "on clean images" if "clean" in outcome else f"under {' and '.join(outcome)} attack"
        return f"{winner} is ahead {where}"
    parts = [
        f"{winner} is ahead under {kind} attack" if winner else f"undecided under {kind} attack"
        for kind, winner in sorted(outcome.items(), key=lambda item: item[1] is None)
    ]
    return "; ".join(parts)


def _judge(
    runs: Sequence[Run], compared: Sequence[PairOfRuns], objective: str, attack: tuple[str, int]
) -> tuple[str | None, str]:
    """The winner under one attack, or None, and the sentence that says so.

    The leader by top-1 wins if every paired 95% interval against the others excludes zero, and, under a targeted
    attack, if no other model is hit clearly less often."""
    leader = max(runs, key=lambda run: _share(run, attack))
    others = [run for run in runs if run is not leader]
    top1 = {run.label: _counts(compared, leader, run, attack, success=False) for run in others}
    open_to = [run for run in others if not top1[run.label].interval.low > 0]
    success = (
        {run.label: _counts(compared, leader, run, attack, success=True) for run in others}
        if objective == "targeted"
        else {}
    )
    against = [run for run in others if run.label in success and success[run.label].interval.low > 0]
    sentence = f"{_shares(runs, objective, attack)} {_difference(leader, others, open_to, top1, 'top-1')}"
    if objective == "targeted":
        sentence += f" {_success_sentence(leader, others, success)}"
    if against and not open_to:
        sentence += " The two measures disagree, so there is no winner under this attack."
    return (None if open_to or against else leader.label), sentence


def _difference(
    leader: Run, others: Sequence[Run], open_to: Sequence[Run], counts: dict[str, PairedCounts], measure: str
) -> str:
    if len(others) == 1:
        only = counts[others[0].label]
        told = f"The difference in {measure} is {points(only.difference)} points {points_interval(only.interval)}"
        return told + (": the interval contains 0, undecided." if open_to else f" in favour of {leader.label}.")
    if not open_to:
        return f"{leader.label} leads each of the others by a difference whose interval excludes 0."
    return f"{leader.label} has the highest {measure}, but undecided against {_listed(run.label for run in open_to)}."


def _success_sentence(leader: Run, others: Sequence[Run], success: dict[str, PairedCounts]) -> str:
    parts = []
    for run in others:
        counts = success[run.label]
        if not counts.interval.excludes_zero:
            told = "undecided, the interval contains 0"
        else:
            told = f"{leader.label if counts.difference < 0 else run.label} is clearly hit less often"
        parts.append(
            f"in attack success the difference ({leader.label} minus {run.label}) is "
            f"{points(counts.difference)} points {points_interval(counts.interval)} ({told})"
        )
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _shares(runs: Sequence[Run], objective: str, attack: tuple[str, int]) -> str:
    score = runs[0].score(*attack)
    assert score is not None
    if objective == "clean":
        start = "On clean images"
    else:
        strength = attack_text(runs[0].attacks.get(attack[0]), *attack, score.num_restarts)
        start = f"Under the strongest {objective} attack ({attack[0]}: {strength})"
    parts = []
    for run in runs:
        found = run.score(*attack)
        assert found is not None
        is_first = not parts
        right = f"{percent(found.top1)} {percent_interval(wilson(found.num_correct, found.num_examples))}"
        text = f"{run.label} {'is right ' if is_first else ''}on {right}"
        if found.num_hits is not None:
            hit = percent_interval(wilson(found.num_hits, found.num_examples))
            gives = "and gives the attacker's answer on" if is_first else "and"
            text += f" {gives} {percent(found.num_hits / found.num_examples)} {hit}"
        parts.append(text)
    return f"{start}, on {score.num_examples:,} images: {'; '.join(parts)}."


def _described(runs: Sequence[Run], attacks: dict[str, tuple[str, int] | None]) -> Verdict:
    """No comparison: what happened to each model."""
    sentences = []
    for objective, attack in attacks.items():
        if attack is not None:
            sentences.append(_shares(runs, objective, attack))
    clean = clean_score(runs[0])
    if len(runs) > 1:
        title = f"{_listed(run.label for run in runs)}: not compared yet"
        return Verdict(title, ["An evaluation is unfinished, so no winner can be named.", *sentences])
    if clean is None:
        return Verdict(f"{runs[0].label} under attack", sentences)
    found = {objective: runs[0].score(*attack) for objective, attack in attacks.items() if attack is not None}
    told = [
        f"{percent(score.top1)} under {objective} attack" for objective, score in found.items() if score is not None
    ]
    sentences.insert(0, _shares(runs, "clean", (CLEAN, 0)))
    if not told:
        sentences.append("No attack was run, so this says nothing about robustness.")
    return Verdict(
        f"{runs[0].label}: {percent(clean.top1)} right on clean images{', ' if told else ''}{_listed(told)}", sentences
    )


def _counts(compared: Sequence[PairOfRuns], a: Run, b: Run, attack: tuple[str, int], *, success: bool) -> PairedCounts:
    """The paired counts of a against b, whichever way round they were compared."""
    for couple in compared:
        if {couple.a.label, couple.b.label} == {a.label, b.label}:
            for comparison in couple.comparisons:
                if (comparison.attack, comparison.num_attack_steps) == attack:
                    counts = comparison.success if success else comparison.top1
                    assert counts is not None
                    turned = PairedCounts(counts.both, counts.only_b, counts.only_a, counts.neither)
                    return counts if couple.a.label == a.label else turned
    raise KeyError((a.label, b.label, attack))


def _share(run: Run, attack: tuple[str, int]) -> float:
    score = run.score(*attack)
    return score.top1 if score else 0.0


def _listed(parts: Iterable[str]) -> str:
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last
