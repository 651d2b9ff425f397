"""Numbers -> figures, as inline SVG (`svg`): accuracy over steps, attack by attack, differences, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from s3ta.records import CLEAN, Comparison, Score
from s3ta.records.manifest import AttackEntry
from s3ta.report.attack_text import attack_name, identity_text, threat_text
from s3ta.report.comparability import PairOfRuns
from s3ta.report.load_runs import Run, attack_order, cascading
from s3ta.report.matplotlib_svg import (
    MARKERS,
    PAGE,
    TEXT,
    FigureSvg,
    as_svg,
    colour,
    finished,
    legend,
    line_style,
    new_axes,
    percent_axis,
    rows_axis,
    short,
    style,
)
from s3ta.report.result_tables import bounds, measures, p_text, points


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
    last = [{score.attack: score for score in run.final_scores} for run in runs]
    curves = {name for run in runs for panel in panels(run) for name in panel.attacks}
    if not {name for scores in last for name in scores} - curves - {CLEAN}:
        return []
    if cascading(runs):  # a stage that is only begun, or not run for want of budget, is no point
        last = [{s.score.attack: s.score for s in run.stages if s.whole and s.ran} for run in runs]
        return [_rows_figure(runs, last, "Worst-case accuracy as attacks are added")]
    drawn = [_rows_figure(runs, last, "Top-1 accuracy, attack by attack")]
    aimed = {name for scores in last for name, score in scores.items() if score.num_hits is not None}
    if aimed:
        last = [{name: scores[name] for name in scores.keys() & aimed} for scores in last]
        drawn.append(_rows_figure(runs, last, "Attack success, attack by attack", success=True))
    return drawn


def _rows_figure(
    runs: Sequence[Run], scores_by_attack: Sequence[dict[str, Score]], title: str, *, success: bool = False
) -> FigureSvg:
    """One row per attack, one mark with its interval per model; hollow where the number is only an upper bound. The marks of a
    cascade are connected."""
    cascade = cascading(runs)
    names = [name for name in attack_order(runs) if any(name in scores for scores in scores_by_attack)]
    figure, axes = new_axes(height=0.95 + len(names) * (0.19 + 0.1 * len(runs)), width=7.2)
    described = []
    for index, (run, scores) in enumerate(zip(runs, scores_by_attack, strict=True)):
        rows = np.array([row for row, name in enumerate(names) if name in scores])
        if not len(rows):
            continue
        y = rows + (index - (len(runs) - 1) / 2) * min(0.28, 0.7 / len(runs))
        marks = [scores[names[row]] for row in rows]
        x, ends = _percents(marks, success=success)
        look: dict[str, Any] = style(index) | ({} if cascade else {"linestyle": "none"})
        axes.errorbar(x, y, xerr=np.abs(ends - x), **look, capsize=2.5, label=run.label)
        cut = [bool(score.num_cut) and not success for score in marks]
        hollow: dict[str, Any] = {"markerfacecolor": PAGE, "markeredgewidth": 1.6, "zorder": 3, "linestyle": "none"}
        axes.plot(x[cut], y[cut], color=look["color"], marker=look["marker"], markersize=6, **hollow)
        shares = ", ".join(
            f"{attack_name(score.attack, cascade=cascade)} {'at most ' if is_cut else ''}{share:.1f}%"
            for score, is_cut, share in zip(marks, cut, x, strict=True)
        )
        described.append(f"{run.label}: {shares}")
    rows_axis(axes, [short(attack_name(name, cascade=cascade)) for name in names])
    axes.set_xlim(0, 102)
    percent_axis(axes.xaxis)
    return finished(figure, axes, title, described)


def _percents(scores: Sequence[Score], *, success: bool) -> tuple[np.ndarray, np.ndarray]:
    """Top-1 or success (n,), and the ends of its interval (2, n)."""
    counts = [(score.num_hits or 0) if success else score.num_correct for score in scores]
    shares = np.array([100 * count / score.num_examples for count, score in zip(counts, scores, strict=True)])
    return shares, 100 * np.array([bounds(score, success=success) for score in scores]).T


def _strength(runs: Sequence[Run], panel: Panel, *, success: bool) -> FigureSvg:
    attacks = {*panel.attacks} if success else {CLEAN, *panel.attacks}
    read_outs = [{s.num_attack_steps: s for s in run.scores if s.attack in attacks} for run in runs]
    lines = [[of_run[step] for step in sorted(of_run)] for of_run in read_outs]
    measured = sorted({score.num_attack_steps for line in lines for score in line})
    steps = [step for step in measured if step]
    figure, axes = new_axes()
    position = {0: np.log10(steps[0]) - 0.45, **{step: np.log10(step) for step in steps}} if steps else {0: 0.0}
    described = []
    for index, (run, line) in enumerate(zip(runs, lines, strict=True)):
        if not line:
            continue
        x = np.array([position[score.num_attack_steps] for score in line])
        y, ends = _percents(line, success=success)
        axes.fill_between(x, *ends, color=colour(index), alpha=0.16, linewidth=0)
        axes.errorbar(x, y, yerr=np.abs(ends - y), **style(index), capsize=2.5, label=run.label)
        shares = ", ".join(f"{value:.1f}% at {s.num_attack_steps or 'clean'}" for value, s in zip(y, line, strict=True))
        described.append(f"{run.label}: {shares}")
    shown = _thinned(measured, position)
    axes.set_xticks([position[step] for step in shown], ["clean" if step == 0 else f"{step:,}" for step in shown])
    axes.set_xlabel("attack steps")
    axes.set_ylim(0, 102)
    percent_axis(axes.yaxis)
    title = f"{panel.title}: {'attack success' if success else 'top-1 accuracy'}"
    return finished(figure, axes, title, described, long_title=f"{title} against attack steps")


def _thinned(steps: list[int], position: dict[int, float]) -> list[int]:
    """The steps whose labels do not run into their right neighbour; the last one always stays."""
    span, kept = max(position.values()) - min(position.values()), list[int]()
    for step in reversed(steps):
        if not kept or position[kept[-1]] - position[step] > 0.085 * span:
            kept.append(step)
    return kept[::-1]


def forest_figure(compared: PairOfRuns) -> FigureSvg:
    """The paired difference a - b at every read-out with its 95% interval and McNemar's p; 0 is no difference."""
    rows = measures(compared)
    cascade = cascading([compared.a])
    figure, axes = new_axes(height=0.9 + 0.3 * len(rows), width=7.2)
    described = []
    for row, (comparison, measure, counts) in enumerate(rows):
        low, high = (100 * bound for bound in counts.interval)
        middle = 100 * counts.difference
        tint, marker = (colour(3), "s") if measure == "success" else (colour(2), "o")
        axes.plot([low, high], [row, row], color=tint, linewidth=2.2, solid_capstyle="butt")
        look: dict[str, Any] = {"color": tint, "marker": marker, "markersize": 6, "markeredgewidth": 1.6}
        axes.plot([middle], [row], **look, markerfacecolor=tint if counts.winner else "none", linestyle="none")
        name = "clean" if comparison.attack == CLEAN else f"{comparison.attack} at {comparison.num_attack_steps:,}"
        described.append(f"{name}, {measure}: {middle:+.1f} points, {low:+.1f} to {high:+.1f}")
    axes.axvline(0, color=TEXT, linewidth=1)
    rows_axis(axes, [_forest_label(comparison, measure, cascade=cascade) for comparison, measure, _ in rows])
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.spines[:].set_visible(False)
    p_values = [f"p = {p_text(counts.p_value)}".replace("= <", "<") for *_, counts in rows]
    labels = [f"{points(counts.difference)}  ·  {p}" for (*_, counts), p in zip(rows, p_values, strict=True)]
    right.set_yticks(range(len(rows)), labels)
    right.tick_params(length=0, labelcolor=TEXT, labelsize=9)
    title = f"{compared.a.label} minus {compared.b.label}"
    axes.set_xlabel(f"points: {title}")
    return finished(figure, axes, title, described, long_title=f"Paired differences, {title}")


def _forest_label(comparison: Comparison, measure: str, *, cascade: bool) -> str:
    steps = "" if cascade or comparison.attack == CLEAN else f" @ {comparison.num_attack_steps:,}"
    return f"{attack_name(short(comparison.attack), cascade=cascade)}{steps} · {measure}"


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
            axes.plot(*_smooth(steps, scale * values), **line_style(index, 1.6), label=run.label)
            for name, fill in (("clean", "none"), ("attacked", colour(index))) if field == "accuracy" else ():
                steps, values = _series(run.curve, "validation", name)
                look: dict[str, Any] = {"color": colour(index), "marker": MARKERS[index % 6], "markersize": 5.5}
                axes.plot(steps, 100 * values, **look, markerfacecolor=fill, linestyle="none")
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
    lines = [line for line in curve if line.get("kind") == kind and isinstance(line.get(field), int | float)]
    steps, values = np.array([(line["step"], line[field]) for line in lines], dtype=float).reshape(-1, 2).T
    is_finite = np.isfinite(values)
    return steps[is_finite], values[is_finite]


def _smooth(steps: np.ndarray, values: np.ndarray, num_points: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal stretches of the curve, so that a long run stays readable and the page small."""
    pieces = min(num_points, len(steps))
    if not pieces:
        return steps, values
    means = [np.array([part.mean() for part in np.array_split(x, pieces)]) for x in (steps, values)]
    return means[0], means[1]
