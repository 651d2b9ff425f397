"""Numbers -> figures, as inline SVG (`drawing`): accuracy over steps, attack by attack, differences, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from s3ta.records import CLEAN, Comparison, Score
from s3ta.records.manifest import AttackEntry
from s3ta.report.attack_text import identity_text, threat_text
from s3ta.report.comparison import PairOfRuns
from s3ta.report.load_runs import Run, attack_order, cascading
from s3ta.report.svg import (
    DASHES,
    MARKERS,
    PAGE,
    TEXT,
    FigureSvg,
    as_svg,
    colour,
    legend,
    new_axes,
    percent_axis,
    short,
    style,
)
from s3ta.report.tables import bounds, measures, p_text, points


class Panel(NamedTuple):
    """Attacks that differ only in their number of steps (and the step size that goes with it)."""

    title: str
    objective: str
    attacks: list[str]


def panels(run: Run) -> list[Panel]:
    """The groups of attacks that share an axis of steps, untargeted first, then targeted.

    An attack that stands alone with one read-out makes no curve and is in none; nor is any stage of a cascade."""
    if cascading([run]):
        return []
    result = []
    for group in _groups(run):
        objective, threat = group[0].objective, threat_text(group[0])
        title = objective.capitalize() + (f", {threat}" if threat else "")
        result.append(Panel(title, objective, [attack.name for attack in group]))
    titles = [panel.title for panel in result]
    result = [
        p._replace(title=f"{p.title} ({', '.join(p.attacks)})") if titles.count(p.title) > 1 else p for p in result
    ]
    return sorted(result, key=lambda panel: panel.objective == "targeted")


def _groups(run: Run) -> list[list[AttackEntry]]:
    """Attacks alike in all but their steps, where these are really different numbers, and at least two."""
    varies = {"name", "step_size", "num_attack_steps", "read_outs"}
    steps = {name: [s.num_attack_steps for s in run.scores if s.attack == name] for name in run.attacks}
    alike: dict[str, list[AttackEntry]] = {}
    for attack in run.attacks.values():
        if steps[attack.name]:
            key = identity_text({name: value for name, value in attack.raw.items() if name not in varies})
            alike.setdefault(key, []).append(attack)
    groups = []
    for group in alike.values():
        read_outs = [step for attack in group for step in steps[attack.name]]
        apart = len(set(read_outs)) == len(read_outs)  # else they also differ in something that is no step count
        groups += [group] if apart else [[attack] for attack in group]
    return [group for group in groups if sum(len(steps[attack.name]) for attack in group) > 1]


def strength_figures(runs: Sequence[Run]) -> list[FigureSvg]:
    """Accuracy against the number of attack steps; for a targeted attack its success beside it."""
    drawn = []
    for panel in panels(max(runs, key=lambda run: len(run.attacks))):
        drawn.append(_strength(runs, panel, success=False))
        if panel.objective == "targeted":
            drawn.append(_strength(runs, panel, success=True))
    return drawn


def attack_figures(runs: Sequence[Run]) -> list[FigureSvg]:
    """Where attacks differ in more than their steps: what each leaves right, all side by side in the suite's order; the
    success of those with a target; of a cascade the worst case as attacks are added."""
    cascade = cascading(runs)
    curves = {name for run in runs for panel in panels(run) for name in panel.attacks}
    last = [{score.attack: score for score in run.final_scores} for run in runs]
    names = [name for name in attack_order(runs) if any(name in scores for scores in last)]
    if not set(names) - curves - {CLEAN}:
        return []
    if cascade:  # a stage that is only begun, or not run for want of budget, is no point
        last = [{s.score.attack: s.score for s in run.stages if s.whole and s.ran} for run in runs]
        names = [name for name in names if any(name in scores for scores in last)]
        labels = [CLEAN if name == CLEAN else f"then {name}" for name in names]
        rows = [[scores.get(name) for name in names] for scores in last]
        return [_rows_figure(runs, labels, rows, "Worst-case accuracy as attacks are added", connect=True)]
    rows = [[scores.get(name) for name in names] for scores in last]
    drawn = [_rows_figure(runs, names, rows, "Top-1 accuracy, attack by attack")]
    aimed = [name for name in names if any(s.get(name) and s[name].num_hits is not None for s in last)]
    if aimed:
        rows = [[scores.get(name) for name in aimed] for scores in last]
        drawn.append(_rows_figure(runs, aimed, rows, "Attack success, attack by attack", success=True))
    return drawn


def _rows_figure(
    runs: Sequence[Run],
    labels: Sequence[str],
    rows: Sequence[Sequence[Score | None]],
    title: str,
    *,
    success: bool = False,
    connect: bool = False,
) -> FigureSvg:
    """One row per attack, one mark with its interval per model; hollow where the number is only an upper bound."""
    figure, axes = new_axes(height=0.95 + len(labels) * (0.19 + 0.1 * len(runs)), width=7.2)
    described = []
    for index, (run, scores) in enumerate(zip(runs, rows, strict=True)):
        shift = (index - (len(runs) - 1) / 2) * min(0.28, 0.7 / len(runs))
        marks = [(row + shift, score) for row, score in enumerate(scores) if score is not None]
        if not marks:
            continue
        y = np.array([row for row, _ in marks])
        counts = [(_count(score, success=success), score.num_examples) for _, score in marks]
        x = np.array([100 * count / total for count, total in counts])
        ends = 100 * np.array([bounds(score, success=success) for _, score in marks]).T
        look: dict[str, Any] = style(index) | ({} if connect else {"linestyle": "none"})
        axes.errorbar(x, y, xerr=np.abs(ends - x), **look, capsize=2.5, label=run.label)
        cut = [mark for mark, (_, score) in enumerate(marks) if score.num_cut and not success]
        hollow: dict[str, Any] = {"markerfacecolor": PAGE, "markeredgewidth": 1.6, "zorder": 3, "linestyle": "none"}
        axes.plot(x[cut], y[cut], color=look["color"], marker=look["marker"], markersize=6, **hollow)
        described.append(f"{run.label}: {_told(labels, scores, success=success)}")
    axes.set_yticks(range(len(labels)), [short(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 102)
    percent_axis(axes.xaxis)
    legend(figure, axes)
    return FigureSvg(title, f"{title}. " + "; ".join(described) + ".", as_svg(figure, title))


def _told(labels: Sequence[str], scores: Sequence[Score | None], *, success: bool) -> str:
    parts = []
    for label, score in zip(labels, scores, strict=True):
        if score is not None:
            at_most = "at most " if score.num_cut and not success else ""
            parts.append(f"{label} {at_most}{100 * _count(score, success=success) / score.num_examples:.1f}%")
    return ", ".join(parts)


def _strength(runs: Sequence[Run], panel: Panel, *, success: bool) -> FigureSvg:
    measure = "attack success" if success else "top-1 accuracy"
    lines = [_line(run, panel, success=success) for run in runs]
    steps = sorted({score.num_attack_steps for line in lines for score in line} - {0})
    figure, axes = new_axes()
    position = {0: np.log10(steps[0]) - 0.45, **{step: np.log10(step) for step in steps}} if steps else {0: 0.0}
    described = []
    for index, (run, line) in enumerate(zip(runs, lines, strict=True)):
        if not line:
            continue
        x = np.array([position[score.num_attack_steps] for score in line])
        counts = [(_count(score, success=success), score.num_examples) for score in line]
        y = np.array([100 * count / total for count, total in counts])
        ends = 100 * np.array([bounds(score, success=success) for score in line])
        axes.fill_between(x, ends[:, 0], ends[:, 1], color=colour(index), alpha=0.16, linewidth=0)
        axes.errorbar(x, y, yerr=np.abs(ends.T - y), **style(index), capsize=2.5, label=run.label)
        shares = ", ".join(f"{value:.1f}% at {s.num_attack_steps or 'clean'}" for value, s in zip(y, line, strict=True))
        described.append(f"{run.label}: {shares}")
    shown = _thinned(
        [step for step in (0, *steps) if any(s.num_attack_steps == step for line in lines for s in line)], position
    )
    axes.set_xticks([position[step] for step in shown], ["clean" if step == 0 else f"{step:,}" for step in shown])
    axes.set_xlabel("attack steps")
    axes.set_ylim(0, 102)
    percent_axis(axes.yaxis)
    legend(figure, axes)
    title = f"{panel.title}: {measure}"
    return FigureSvg(title, f"{title} against attack steps. " + "; ".join(described) + ".", as_svg(figure, title))


def _line(run: Run, panel: Panel, *, success: bool) -> list[Score]:
    attacks = set(panel.attacks) if success else {CLEAN, *panel.attacks}
    line = {score.num_attack_steps: score for score in run.scores if score.attack in attacks}
    return [line[step] for step in sorted(line)]


def _thinned(steps: list[int], position: dict[int, float]) -> list[int]:
    """The steps whose labels do not run into their right neighbour; the last one always stays."""
    span, kept = max(position.values()) - min(position.values()), list[int]()
    for step in reversed(steps):
        if not kept or position[kept[-1]] - position[step] > 0.085 * span:
            kept.append(step)
    return kept[::-1]


def forest_figure(compared: PairOfRuns) -> FigureSvg:
    """The paired difference a - b at every read-out with its 95% interval and McNemar's p; 0 is no difference."""
    rows = [(comparison, *measure) for comparison in compared.comparisons for measure in measures(comparison)]
    then = "then " if cascading([compared.a]) else ""
    figure, axes = new_axes(height=0.9 + 0.3 * len(rows), width=7.2)
    described = []
    for row, (comparison, measure, counts) in enumerate(rows):
        low, high = (100 * bound for bound in counts.interval)
        middle = 100 * counts.difference
        tint, marker = (colour(3), "s") if measure == "success" else (colour(2), "o")
        axes.plot([low, high], [row, row], color=tint, linewidth=2.2, solid_capstyle="butt")
        filled = tint if counts.winner else "none"
        axes.plot(
            [middle],
            [row],
            color=tint,
            marker=marker,
            markersize=6,
            markerfacecolor=filled,
            markeredgewidth=1.6,
            linestyle="none",
        )
        name = "clean" if comparison.attack == CLEAN else f"{comparison.attack} at {comparison.num_attack_steps:,}"
        described.append(f"{name}, {measure}: {middle:+.1f} points, {low:+.1f} to {high:+.1f}")
    axes.axvline(0, color=TEXT, linewidth=1)
    axes.set_yticks(range(len(rows)), [_forest_label(comparison, m, then) for comparison, m, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.spines[:].set_visible(False)
    labels = [f"{points(counts.difference)}  ·  p {_equals(p_text(counts.p_value))}" for *_, counts in rows]
    right.set_yticks(range(len(rows)), labels)
    right.tick_params(length=0, labelcolor=TEXT, labelsize=9)
    axes.set_xlabel(f"points: {compared.a.label} minus {compared.b.label}")
    title = f"{compared.a.label} minus {compared.b.label}"
    return FigureSvg(title, f"Paired differences, {title}. " + "; ".join(described) + ".", as_svg(figure, title))


def _equals(p_value: str) -> str:
    return p_value if p_value.startswith("<") else f"= {p_value}"


def _forest_label(comparison: Comparison, measure: str, then: str) -> str:
    if comparison.attack == CLEAN:
        return f"clean · {measure}"
    steps = "" if then else f" @ {comparison.num_attack_steps:,}"
    return f"{then}{short(comparison.attack)}{steps} · {measure}"


def curve_figures(runs: Sequence[Run]) -> list[FigureSvg]:
    """Learning curves: accuracy on the images trained on (attacked, smoothed) with validation points, and the loss."""
    learned = [(index, run) for index, run in enumerate(runs) if run.curve]
    if not learned:
        return []
    drawn = []
    for field, title in (("accuracy", "Accuracy while training"), ("loss", "Training loss")):
        figure, axes = new_axes()
        for index, run in learned:
            steps, values = _series(run.curve, "train", field)
            scale = 100 if field == "accuracy" else 1
            axes.plot(
                *_smooth(steps, scale * values),
                color=colour(index),
                linestyle=DASHES[index % 6],
                linewidth=1.6,
                label=run.label,
            )
            for name, fill in (("clean", "none"), ("attacked", colour(index))) if field == "accuracy" else ():
                steps, values = _series(run.curve, "validation", name)
                axes.plot(
                    steps,
                    100 * values,
                    color=colour(index),
                    marker=MARKERS[index % 6],
                    markerfacecolor=fill,
                    linestyle="none",
                    markersize=5.5,
                )
        axes.set_xlabel("training steps")
        axes.set_ylim(bottom=0, top=102 if field == "accuracy" else None)
        if field == "accuracy":
            percent_axis(axes.yaxis)
        legend(figure, axes)
        names = ", ".join(run.label for _, run in learned)
        drawn.append(FigureSvg(title, f"{title} against training steps, for {names}.", as_svg(figure, title)))
    return drawn


def _series(curve: Sequence[dict[str, Any]], kind: str, field: str) -> tuple[np.ndarray, np.ndarray]:
    """The finite values of one field over training steps."""
    pairs = [(line["step"], line[field]) for line in curve if line.get("kind") == kind and _is_number(line.get(field))]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    return steps, values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _smooth(steps: np.ndarray, values: np.ndarray, num_points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal stretches of the curve, so that a long run stays readable and the page small."""
    pieces = min(num_points, len(steps))
    if not pieces:
        return steps, values
    means = [np.array([part.mean() for part in np.array_split(x, pieces)]) for x in (steps, values)]
    return means[0], means[1]


def _count(score: Score, *, success: bool) -> int:
    return (score.num_hits or 0) if success else score.num_correct
