"""The headline in plain words: who won at the strongest attack, or that it is undecided. It promises no winner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from s3ta.records import PairedCounts, Score
from s3ta.records.manifest import AttackSettings, RegionEntry
from s3ta.report.attack_text import attack_text, ball_text, number
from s3ta.report.calibration import headline, headline_title, is_natural
from s3ta.report.comparability import PairOfRuns
from s3ta.report.load_runs import Run, cascading
from s3ta.report.result_tables import p_text, percent, points, points_interval, success_text, top1_text

WORST = "worst case"
"""The objective of a cascade as the headline calls it."""


class Verdict(NamedTuple):
    """What the top of the page says."""

    title: str
    sentences: list[str]


class Judged(NamedTuple):
    """The score of each run that a sentence is about: one attack at one read-out, or each run's own worst case."""

    objective: str
    """untargeted, targeted, clean, or worst case."""
    scores: list[Score]


def strongest(runs: Sequence[Run], objective: str) -> tuple[str, int] | None:
    """The attack of this kind with the largest radius, then most steps, then most starts, and its last read-out.

    Chosen by its settings, never by its outcome; None where no run has records of one. Only attacks of one threat model can
    be ranked: plain L-infinity on the whole image where there are any, else the first attack's norm and mask. Ahead of all
    others are those that follow the gradient of the model's own answer: 5,000 random squares are not more than 100 steps."""
    attacks = runs[0].attacks
    candidates = [
        score
        for score in runs[0].scores
        if score.attack in attacks
        and attacks[score.attack].objective == objective
        and all(run.score(score.attack, score.num_attack_steps) for run in runs)
    ]
    if not candidates:
        return None
    threats = [_kind_of_threat(attacks[score.attack]) for score in candidates]
    plain = ("linf", None, False)
    chosen = plain if plain in threats else threats[0]

    def strength(score: Score) -> tuple[float, bool, int, int]:
        settings = attacks[score.attack]
        return _radius(settings), _follows_the_answer(settings), score.num_attack_steps, score.num_restarts

    best = max((score for score, threat in zip(candidates, threats, strict=True) if threat == chosen), key=strength)
    return best.attack, best.num_attack_steps


def _kind_of_threat(settings: AttackSettings) -> tuple[str, RegionEntry | None, bool]:
    inner = settings.made_with
    return inner.norm, inner.mask, inner.eight_bit


def _radius(settings: AttackSettings) -> float:
    return settings.made_with.radius or 0.0


def _follows_the_answer(settings: AttackSettings) -> bool:
    """Whether an attack goes by exact gradients of what the model answers, not of where it looks or another answer."""
    inner = settings.made_with
    only_steers = inner.steering is not None and inner.steering.weight == 1
    return inner.uses_gradients and not (only_steers or inner.num_glimpses or inner.glimpses != "last")


def verdict(runs: Sequence[Run], compared: Sequence[PairOfRuns] | None) -> Verdict:
    """The headline of a report; `compared` is None where the runs cannot be compared."""
    title, sentences = _verdict(runs, compared)
    natural = [text for run in runs if (text := headline(run))] if is_natural(runs) else []
    if natural and len(runs) == 1 and not _faulty(runs):
        return Verdict(headline_title(runs[0]), [*natural, *sentences[1:]])
    if natural:
        title = title.replace("is ahead on clean images", "is ahead in top-1 on clean images")
    return Verdict(title, [*natural, *sentences])


def _verdict(runs: Sequence[Run], compared: Sequence[PairOfRuns] | None) -> Verdict:
    judged = _judged(runs)
    if len(runs) == 1 or compared is None or not all(_same_attacks(runs, each) for each in judged) or _faulty(runs):
        return _described(runs, judged)
    clean = Judged("clean", [score for run in runs if (score := run.clean_score)])
    winners, sentences = zip(*(_judge(runs, compared, each) for each in judged or [clean]), strict=True)
    nothing = [] if judged else ["No attack was run, so this says nothing about robustness."]
    return Verdict(_title(runs, judged or [clean], winners), [*sentences, *nothing])


def _judged(runs: Sequence[Run]) -> list[Judged]:
    """What the headline is about: the worst case of a cascade, else the strongest attack of each kind."""
    if cascading(runs):
        last = [run.last_stage for run in runs]
        scores = [stage.score for stage in last if stage is not None]
        return [Judged(WORST, scores)] if len(scores) == len(runs) else []
    attacks = {objective: strongest(runs, objective) for objective in ("untargeted", "targeted", "multitargeted")}
    return [
        Judged(objective, [score for run in runs if (score := run.score(*attack)) is not None])
        for objective, attack in attacks.items()
        if attack is not None
    ]


def _same_attacks(runs: Sequence[Run], judged: Judged) -> bool:
    """Whether the scores are of one attack or, of a cascade, of the same attacks one after another."""
    suites = {tuple(run.attacks) for run in runs} if judged.objective == WORST else {()}
    return len({(score.attack, score.num_attack_steps) for score in judged.scores}) == len(suites) == 1


def _title(runs: Sequence[Run], judged: Sequence[Judged], winners: Sequence[str | None]) -> str:
    if set(winners) == {None}:
        names = " and ".join(run.label for run in runs) if len(runs) == 2 else f"these {len(runs)} models"
        return f"Undecided: {names} cannot be told apart here"
    if len(set(winners)) == 1:
        kinds = " and ".join(each.objective for each in judged)
        return f"{winners[0]} is ahead {_condition(runs, kinds)}{_ball(runs, judged)}"
    parts = [
        f"{f'{winner} is ahead' if winner else 'undecided'} {_condition(runs, each.objective)}{_ball(runs, [each])}"
        for each, winner in sorted(zip(judged, winners, strict=True), key=lambda pair: pair[1] is None)
    ]
    return "; ".join(parts)


def _condition(runs: Sequence[Run], objective: str) -> str:
    """`under untargeted attack`, `in the worst case over 3 attacks`, `on clean images`."""
    if objective == WORST:
        return f"in the worst case over {number(runs[0].num_attacks, 'attack')}"
    transferred = "transferred " if runs[0].manifest.suite.images_from else ""
    return "on clean images" if objective == "clean" else f"under {transferred}{objective} attack"


def _ball(runs: Sequence[Run], judged: Sequence[Judged]) -> str:
    """` at 8/255`, ` at 0.5 L2`: what the attacks were allowed; empty where they differ in it, or it is not recorded."""
    names = {score.attack for each in judged for score in each.scores}
    attacks = [attack for run in runs for attack in run.attacks.values()]
    balls = {ball_text(attack) for attack in attacks if attack.name in names or judged[0].objective == WORST}
    return f" at {balls.pop().removesuffix(' L-infinity')}" if len(balls) == 1 and balls != {"–"} else ""


def _judge(runs: Sequence[Run], compared: Sequence[PairOfRuns], judged: Judged) -> tuple[str | None, str]:
    """The winner under one attack, or None, and the sentence that says so.

    The leader by top-1 wins if it differs from each of the others by `PairedCounts.winner` (interval and exact p), if its own
    number is no upper bound, and, under a targeted attack, if no other model is hit clearly less often."""
    best = max(judged.scores, key=lambda score: score.top1)
    first = judged.scores.index(best)
    leader, others = runs[first], [*runs[:first], *runs[first + 1 :]]
    attack = (best.attack, best.num_attack_steps)
    top1 = {run.label: _counts(compared, leader, run, attack, success=False) for run in others}
    open_to = [run for run in others if top1[run.label].winner < 1]
    targeted = best.num_hits is not None
    success = {run.label: _counts(compared, leader, run, attack, success=True) for run in others} if targeted else {}
    against = [run for run in others if run.label in success and success[run.label].winner == 1]
    sentence = f"{_shares(runs, judged)} {_difference(leader, others, open_to, top1)}"
    if targeted:
        sentence += f" {_success_sentence(leader, others, success)}"
    if against and not open_to:
        sentence += " The two measures disagree, so there is no winner under this attack."
    if best.num_cut and not open_to:
        sentence += f" But a budget cut attacks on {leader.label} short: its lead is no win until they are run."
    lowest = [_lowest(run, score).top1 for run, score in zip(runs, judged.scores, strict=True)]
    overtaken = judged.objective not in (WORST, "clean") and lowest[first] <= max(lowest[:first] + lowest[first + 1 :])
    if overtaken and not open_to:
        sentence += f" There {leader.label} is not ahead any more, so there is no winner under this attack."
    return (None if open_to or against or best.num_cut or overtaken else leader.label), sentence


def _difference(leader: Run, others: Sequence[Run], open_to: Sequence[Run], top1: dict[str, PairedCounts]) -> str:
    if len(others) == 1:
        counts = top1[others[0].label]
        sentence = f"The difference in top-1 ({leader.label} minus {others[0].label}) is {_difference_text(counts)}"
        return sentence + (f": {_undecided(counts)}, undecided." if open_to else f" in favour of {leader.label}.")
    if not open_to:
        return f"{leader.label} leads each of the others by a difference whose interval excludes 0, with an exact p below 0.05."
    return f"{leader.label} has the highest top-1, but undecided against {_listed(run.label for run in open_to)}."


def _difference_text(counts: PairedCounts) -> str:
    return f"{points(counts.difference)} points {points_interval(counts.interval)}"


def _undecided(counts: PairedCounts) -> str:
    """Why nobody wins."""
    if not counts.interval.excludes_zero:
        return "the interval contains 0"
    return f"of {counts.only_a + counts.only_b} images that differ the exact McNemar p is {p_text(counts.p_value)}"


def _success_sentence(leader: Run, others: Sequence[Run], success: dict[str, PairedCounts]) -> str:
    parts = []
    for run in others:
        counts = success[run.label]
        outcome = f"{leader.label if counts.winner < 0 else run.label} is clearly hit less often"
        if not counts.winner:
            outcome = f"undecided, {_undecided(counts)}"
        parts.append(
            f"in attack success the difference ({leader.label} minus {run.label}) is {_difference_text(counts)} ({outcome})"
        )
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _shares(runs: Sequence[Run], judged: Judged) -> str:
    parts = []
    for run, score in zip(runs, judged.scores, strict=True):
        is_first = not parts
        text = f"{run.label} {'is right ' if is_first else ''}on {top1_text(score)}"
        if score.num_hits is not None:
            gives = "and gives the attacker's answer on" if is_first else "and"
            text += f" {gives} {success_text(score)}"
        if judged.objective == WORST and not _alike([run.num_attacks for run in runs]):
            text += f" after {number(run.num_attacks, 'attack')}"
        parts.append(text)
    sentence = f"{_start(runs, judged)}, on {judged.scores[0].num_examples:,} images: {'; '.join(parts)}."
    return sentence + _lower(runs, judged)


def _start(runs: Sequence[Run], judged: Judged) -> str:
    score = judged.scores[0]
    if judged.objective == "clean":
        return "On clean images"
    if judged.objective == WORST:
        done, planned = [run.num_attacks for run in runs], [len(run.attacks) for run in runs]
        if not _alike(done):
            return "In the worst case over all its attacks"
        partly = done[0] < planned[0] and _alike(planned)
        return f"In the worst case over {f'{done[0]} of {planned[0]} attacks' if partly else number(done[0], 'attack')}"
    settings = runs[0].attacks.get(score.attack)
    strength = attack_text(settings, score.attack, score.num_attack_steps, score.num_restarts)
    return f"Under the strongest {judged.objective} attack ({score.attack}: {strength})"


def _lower(runs: Sequence[Run], judged: Judged) -> str:
    """What the settings did not foresee: another attack of the same kind and threat model that leaves less right."""
    if judged.objective in (WORST, "clean"):
        return ""
    parts = [
        f"{lowest.attack} leaves {run.label} only {top1_text(lowest)}"
        for run, score in zip(runs, judged.scores, strict=True)
        if (lowest := _lowest(run, score)) is not score
    ]
    return f" Other attacks with the same means do more: {'; '.join(parts)}." if parts else ""


def _lowest(run: Run, score: Score) -> Score:
    """The attack of the same aim and threat model that leaves fewest right; the given one where none does more."""
    settings = run.attacks.get(score.attack)
    if settings is None:
        return score
    rivals = [
        rival
        for rival in run.final_scores
        if rival.num_examples == score.num_examples
        and rival.attack in run.attacks
        and _is_rival(run.attacks[rival.attack], settings)
    ]
    return min([score, *rivals], key=lambda rival: rival.num_correct)


def _is_rival(settings: AttackSettings, other: AttackSettings) -> bool:
    same_aim = settings.objective == other.objective
    return same_aim and _kind_of_threat(settings) == _kind_of_threat(other) and _radius(settings) <= _radius(other)


def _alike(values: Sequence[int]) -> bool:
    return len(set(values)) == 1


def _described(runs: Sequence[Run], judged: Sequence[Judged]) -> Verdict:
    """No comparison: what happened to each model."""
    sentences = [_shares(runs, each) for each in judged]
    faulty = _faulty(runs)
    if faulty:
        clean = [score for run in runs if (score := run.clean_score)]
        if len(clean) == len(runs):
            sentences.insert(0, _shares(runs, Judged("clean", clean)))
        reason = "Nothing can be concluded until that is mended: see Trust."
        return Verdict(f"A check of {_listed(faulty)} found an error: do not use these numbers", [reason, *sentences])
    if len(runs) > 1:
        unfinished = not all(run.complete for run in runs)
        title = f"{_listed(run.label for run in runs)}: not compared{' yet' if unfinished else ''}"
        reason = "An evaluation is unfinished" if unfinished else "Their worst cases are over different attacks"
        return Verdict(title, [f"{reason}, so no winner can be named.", *sentences])
    run, clean = runs[0], runs[0].clean_score
    if clean is None:
        return Verdict(f"{run.label} under attack", sentences)
    parts = []
    for each in judged:
        score = each.scores[0] if each.objective == WORST else _lowest(run, each.scores[0])
        at_most = "at most " if score.num_cut or score is not each.scores[0] else ""
        parts.append(f"{at_most}{percent(score.top1)} {_condition(runs, each.objective)}")
    sentences.insert(0, _shares(runs, Judged("clean", [clean])))
    if not parts:
        sentences.append("No attack was run, so this says nothing about robustness.")
    title = f"{run.label}: {percent(clean.top1)} right on clean images{', ' if parts else ''}{_listed(parts)}"
    return Verdict(title + (_ball(runs, judged) if judged else ""), sentences)


def _faulty(runs: Sequence[Run]) -> list[str]:
    """The runs of which a check says that their numbers are not to be used."""
    return [run.label for run in runs if any(finding.severity == "error" for finding in run.trust.findings)]


def _counts(compared: Sequence[PairOfRuns], a: Run, b: Run, attack: tuple[str, int], *, success: bool) -> PairedCounts:
    """The paired counts of a against b, whichever way round they were compared."""
    pair = next(pair for pair in compared if {pair.a.label, pair.b.label} == {a.label, b.label})
    comparison = next(each for each in pair.comparisons if (each.attack, each.num_attack_steps) == attack)
    counts = comparison.success if success else comparison.top1
    assert counts is not None
    return (
        counts if pair.a.label == a.label else PairedCounts(counts.both, counts.only_b, counts.only_a, counts.neither)
    )


def _listed(parts: Iterable[str]) -> str:
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last
