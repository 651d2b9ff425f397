"""What an evaluation will do and how long all of it takes here, said before it begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from s3ta.attacks import AttackCost
from s3ta.evaluate import (
    EvaluationTask,
    PassTimes,
    Settings,
    Shard,
    attack_rounds,
    chunks_of_shard,
    max_cost,
    measure_attack_times,
    measure_pass_times,
)
from s3ta.external_code_errors import guarded
from s3ta.progress import waiting
from s3ta.workflow.checks_before import LINT_COST

_FEW = 3.5
"""Seconds below which an estimate is no number."""
_MOMENT = 10.0
_SLOWER = 1.1
"""So many times float32's seconds are more than a busy machine's."""


class Upcoming(NamedTuple):
    """The work that is still to be done."""

    missing: set[int]
    """Chunks of this part."""
    num_linted: int
    """Images on which the model is looked over before; 0: it is not."""
    probed: AttackCost
    """Of the experiments afterwards."""


def announcement(task: EvaluationTask, shard: Shard, upcoming: Upcoming) -> str:
    """Examples, passes, and the time for what is not there yet, if no example leaves early; what the settings leave out.

    Raises UserError where gradients are needed and the model has none."""
    suite, positions, settings = task.suite, task.positions, task.settings
    shard_chunks = chunks_of_shard(suite, len(positions), settings, shard)
    if not shard_chunks:
        return f"Part {shard.index} of {shard.count} is empty: there are fewer blocks of examples than parts."
    part = "" if shard.is_all else f", part {shard.index} of {shard.count}"
    num_examples, name = num_own(task, shard_chunks), task.info.name
    who = f"{name}, suite {suite.name}: {num_examples} examples{part}"
    if not upcoming.missing and not upcoming.probed.total:
        return f"{who}; everything is there already."
    work = max_cost(suite, num_examples)
    with waiting("measuring how long a pass takes here"), guarded(f"Timing {name}"):
        measured_pace = measure_pass_times(task, gradients=work.num_gradients > 0)
        missing = _missing_by_round(task, upcoming)
        rounds = [attack_round for attack_round in attack_rounds(suite) if missing[attack_round.number]]
        trials = measure_attack_times(task, rounds, measured_pace)
    times = seconds(task, upcoming, measured_pace, trials)
    if not upcoming.missing:
        return f"{who}; everything is there already, and the checks take {about(sum(times))}."
    lines = [
        f"{who}, at most {work.num_gradients:,} gradient and {work.num_forwards - work.num_gradients:,} other forward "
        f"evaluations, {about(sum(times))} here for what is not there yet, if none can be saved{_parts(times)}",
        *_about_the_search(settings, measured_pace),
    ]
    if settings.max_passes is not None:
        lines.append(
            f"Budget: {settings.max_passes:,} passes per example, so at most {len(positions) * settings.max_passes:,} in all."
        )
        dear = [s.name for s in attack_rounds(suite) if s.restart == 0 and s.cost.total > settings.max_passes]
        lines += [f"Beyond the budget, whatever the others cost: {', '.join(dear)}."] if dear else []
    if suite.left_out:
        lines.append(f"Left out, for they do not fit the model or a changed setting: {', '.join(suite.left_out)}.")
    return "\n".join(lines)


class Seconds(NamedTuple):
    """How long each part takes."""

    lint: float
    attacks: float
    checks: float


def seconds(
    task: EvaluationTask, upcoming: Upcoming, measured_pace: PassTimes, trials: Mapping[int, float] | None = None
) -> Seconds:
    """What is still to be done, at this pace; `trials` are seconds for a whole chunk, by the number of its round."""
    size, missing, attacks = task.settings.batch_size, _missing_by_round(task, upcoming), 0.0
    for attack_round in attack_rounds(task.suite):
        passes = _time(attack_round.cost, measured_pace.gradient, measured_pace.forward)
        attacks += missing[attack_round.number] * max(passes, (trials or {}).get(attack_round.number, 0.0))
    forward = measured_pace.forward / size
    gradient = measured_pace.plain_gradient / size or 3 * forward
    lint = upcoming.num_linted * _time(LINT_COST, gradient, forward)
    return Seconds(lint, attacks, _time(upcoming.probed, gradient, forward))


def _time(cost: AttackCost, gradient: float, forward: float) -> float:
    return gradient * cost.num_gradients + forward * (cost.num_forwards - cost.num_gradients)


def _missing_by_round(task: EvaluationTask, upcoming: Upcoming) -> Counter[int]:
    """How many chunks are not there yet, by the number of their round."""
    all_chunks = -(-len(task.positions) // task.settings.batch_size)
    return Counter(chunk // all_chunks for chunk in upcoming.missing)


def _parts(times: Seconds) -> str:
    """How a time of more than seconds is divided, where the attacks are not about all of it."""
    if sum(times) < max(_MOMENT, 1.1 * times.attacks):
        return ""
    parts = zip(("a look at the model", "attacks", "checks afterwards"), times, strict=True)
    return ": " + ", ".join(f"{name} {minutes(time)}" for name, time in parts if time)


def _about_the_search(settings: Settings, measured_pace: PassTimes) -> list[str]:
    """What must be known of how gradients are computed here."""
    lines = []
    if settings.attack_execution.compiled:
        lines.append("Compiling the model comes on top of that, a minute or more before the first attack moves.")
    if settings.attack_execution.precision == "float32" or not measured_pace.plain_gradient:
        return lines
    times = measured_pace.gradient / measured_pace.plain_gradient
    if times > _SLOWER:
        lines.append(
            f"A gradient in {settings.attack_execution.precision} takes {times:.1f} times as long here as in float32: leave "
            "--attack-precision out."
        )
    return lines


def num_own(task: EvaluationTask, chunks: Sequence[int]) -> int:
    """How many examples these chunks hold, each counted once."""
    size, count = task.settings.batch_size, len(task.positions)
    all_chunks = -(-count // size)
    return sum(min(size, count - chunk * size) for chunk in chunks if chunk < all_chunks)


def about(seconds: float) -> str:
    """`about 5 min`, or `a few seconds`."""
    return minutes(seconds) if seconds < _FEW else f"about {minutes(seconds)}"


def minutes(seconds: float) -> str:
    """A time as people say it."""
    if seconds < _FEW:
        return "a few seconds"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
