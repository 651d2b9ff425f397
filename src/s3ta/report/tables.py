"""Tables as data: what a report, a terminal and a spreadsheet all show. A rate never comes without its 95% interval,
and top-1 never without success (protocol X36).

    print(summary_table(read_runs([folder], "quick")).markdown())
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from s3ta.config import format_radius
from s3ta.records import CLEAN, Comparison, Interval, PairedCounts, pair, wilson
from s3ta.report.runs import Run


class Table(NamedTuple):
    """Texts in rows; the first column names the row."""

    headers: list[str]
    rows: list[list[str]]

    def pick(self, *columns: str) -> Table:
        """For each word the first column whose header begins with it."""
        places = [next(i for i, header in enumerate(self.headers) if header.startswith(word)) for word in columns]
        return Table([self.headers[i] for i in places], [[row[i] for i in places] for row in self.rows])

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        return "\n".join([line(self.headers), line(["---"] * len(self.headers)), *map(line, self.rows)]) + "\n"

    def csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headers, *self.rows])
        return text.getvalue()


class PairOfRuns(NamedTuple):
    """Two runs and their comparisons, one per attack and read-out."""

    a: Run
    b: Run
    comparisons: list[Comparison]


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def percent_interval(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def rate(count: int | None, total: int) -> str:
    """`61.2% [56.9, 65.4]`: the share and its 95% Wilson interval; a dash where there is nothing to count."""
    return "–" if count is None else f"{percent(count / total)} {percent_interval(wilson(count, total))}"


def points(share: float) -> str:
    """A difference of percentages, in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def points_interval(interval: Interval) -> str:
    return f"[{points(interval.low)}, {points(interval.high)}]"


def p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def attack_text(settings: dict[str, Any] | None, attack: str, num_attack_steps: int, num_restarts: int) -> str:
    """One line on an attack: `untargeted-100: 100 steps, radius 0.1, 1 start`."""
    if attack == CLEAN:
        return "no attack"
    parts = [f"{num_attack_steps:,} steps"]
    if settings and isinstance(settings.get("radius"), int | float):
        parts.append(f"radius {format_radius(settings['radius'])}")
    parts.append(f"{num_restarts} start{'s' if num_restarts != 1 else ''}")
    return ", ".join(parts)


def summary_table(runs: Sequence[Run]) -> Table:
    """Clean and each attack's last read-out, per model: top-1 and success, each with its 95% interval."""
    headers = ["Model", "Attack", "Strength", "n", "Top-1 (95% interval)", "Attack success (95% interval)"]
    rows = [
        [
            run.label,
            score.attack,
            attack_text(run.attacks.get(score.attack), score.attack, score.num_attack_steps, score.num_restarts),
            f"{score.num_examples:,}",
            rate(score.num_correct, score.num_examples),
            rate(score.num_hits, score.num_examples),
        ]
        for run in runs
        for score in run.final_scores
    ]
    return Table(headers, rows)


def full_table(runs: Sequence[Run]) -> Table:
    """Every read-out as plain numbers (shares from 0 to 1), for a spreadsheet."""
    headers = [
        "model",
        "attack",
        "num_attack_steps",
        "num_restarts",
        "n",
        "num_correct",
        "top1",
        "top1_low",
        "top1_high",
        "num_hits",
        "success",
        "success_low",
        "success_high",
        "num_clean_is_target",
        "max_distance",
    ]
    rows = []
    for run in runs:
        for score in run.scores:
            counts = [score.attack, score.num_attack_steps, score.num_restarts, score.num_examples]
            cells: list[Any] = [run.label, *counts, *_numbers(score.num_correct, score.num_examples)]
            cells += _numbers(score.num_hits, score.num_examples)
            cells += [
                "" if score.num_clean_is_target is None else score.num_clean_is_target,
                f"{score.max_distance:.6g}",
            ]
            rows.append([str(cell) for cell in cells])
    return Table(headers, rows)


def comparison_table(compared: PairOfRuns) -> Table:
    """The paired differences a - b per attack and read-out, in percentage points, with 95% intervals and exact p."""
    headers = [
        "Attack",
        "Steps",
        "Measure",
        "Difference (points)",
        "95% interval",
        "Only first",
        "Only second",
        "McNemar p",
    ]
    rows = []
    for comparison in compared.comparisons:
        for measure, counts in measures(comparison):
            rows.append(
                [
                    comparison.attack,
                    f"{comparison.num_attack_steps:,}",
                    measure,
                    points(counts.difference),
                    points_interval(counts.interval),
                    f"{counts.only_a:,}",
                    f"{counts.only_b:,}",
                    p_text(counts.p_value),
                ]
            )
    return Table(headers, rows)


def measures(comparison: Comparison) -> list[tuple[str, PairedCounts]]:
    """Top-1, and success where the attack has a target."""
    both = [("top-1", comparison.top1)]
    return both if comparison.success is None else [*both, ("success", comparison.success)]


def compare(runs: Sequence[Run]) -> list[PairOfRuns]:
    """Every pair of runs. Raises UserError where two were not measured alike (protocol X35)."""
    return [PairOfRuns(a, b, pair(a.table, a.manifest, b.table, b.manifest)) for a, b in combinations(runs, 2)]


def facts_table(runs: Sequence[Run]) -> Table:
    """What was trained and how, one column per model; a dash where the run folder does not say."""
    facts = [_facts(run) for run in runs]
    rows = [[name, *(column[name] for column in facts)] for name in facts[0]]
    return Table(["", *(run.label for run in runs)], [row for row in rows if any(cell != "–" for cell in row[1:])])


def _facts(run: Run) -> dict[str, str]:
    recipe, manifest = run.recipe or {}, run.manifest
    model, data = manifest["model"], manifest["data"]
    return {
        "Recipe": _text(recipe.get("name")),
        "Source": _text(recipe.get("source")),
        "Parameters": _text(model.get("num_parameters")),
        "Classes": _text(model.get("num_classes")),
        "Training data": _settings(recipe.get("data")),
        "Attack in training": _settings(recipe.get("attack")),
        "Optimizer": _settings(in_force(recipe.get("optimizer"))),
        "Schedule": _settings(in_force(recipe.get("schedule"))),
        "Batch size": _text(recipe.get("batch_size")),
        "Label smoothing": _text(recipe.get("label_smoothing")),
        "Seed of training": _text(recipe.get("seed")),
        "Evaluated on": _text(" ".join(str(data[key]) for key in ("source", "split") if data.get(key)) or None),
        "Weights (sha256)": _text(model.get("sha256")),
    }


def in_force(settings: Any) -> Any:
    """A part of a recipe without the settings that another one switches off, such as momentum under Adam."""
    if not isinstance(settings, dict):
        return settings
    idle = {
        ("kind", "adam"): ("momentum", "nesterov"),
        ("warmup_steps", 0): ("warmup_steps", "warmup_from"),
        ("decay", "cosine"): ("decay_at", "decay_factor"),
    }
    dropped = {name for (key, value), names in idle.items() if settings.get(key) == value for name in names}
    return {name: value for name, value in settings.items() if name not in dropped}


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _settings(value: Any) -> str:
    """A nested config in one readable line, radii and step sizes as people write them."""
    if not isinstance(value, dict):
        return _text(value)
    parts = []
    for name, item in value.items():
        if item is None or item == [] or isinstance(item, dict):
            continue
        if name in ("radius", "step_size") and isinstance(item, float):
            text = format_radius(item)
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list) else _text(item)
        words = name.removeprefix("num_").replace("_", " ")
        parts.append(text if name in ("name", "objective", "kind", "source") else f"{words} {text}")
    return " · ".join(parts) or "–"


def _numbers(count: int | None, total: int) -> list[Any]:
    return ["", "", "", ""] if count is None else [count, *(f"{x:.6f}" for x in (count / total, *wilson(count, total)))]
