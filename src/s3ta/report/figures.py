"""Numbers -> figures, as inline SVG: texts and series take the page's colours.

Matplotlib draws with placeholder colours, which `_svg` turns into the page's CSS variables, so that one drawing
serves light and dark. Every series also has its own marker and dash, so that none is told apart by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from s3ta.config import format_radius
from s3ta.files import sha256
from s3ta.records import CLEAN, Score, wilson
from s3ta.report.runs import Run
from s3ta.report.tables import PairOfRuns, measures, p_text, points

_TEXT, _FAINT, _GRID = "#ab1000", "#ab2000", "#ab3000"
_PLACEHOLDERS = {_TEXT: "var(--text)", _FAINT: "var(--faint)", _GRID: "var(--rule)"}
_MARKERS, _DASHES = "osD^vP", ["-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (9, 3))]
NUM_COLOURS = 6
"""How many series colours the style sheet has; further models start again with other markers."""


class FigureSvg(NamedTuple):
    """One drawing."""

    title: str
    alt: str
    """What a person who cannot see it should know."""
    svg: str


class Panel(NamedTuple):
    """Attacks that differ only in their number of steps (and the step size that goes with it)."""

    title: str
    objective: str
    attacks: list[str]


def panels(run: Run) -> list[Panel]:
    """The groups of attacks that share an axis, untargeted first, then targeted."""
    varies = {"name", "step_size", "num_attack_steps", "read_outs"}
    groups: dict[str, list[dict[str, Any]]] = {}
    for settings in run.attacks.values():
        if any(score.attack == settings["name"] for score in run.scores):
            groups.setdefault(repr(sorted((k, v) for k, v in settings.items() if k not in varies)), []).append(settings)
    found = []
    for group in groups.values():
        objective = str(group[0].get("objective", "untargeted"))
        radius = group[0].get("radius")
        title = objective.capitalize() + (
            f", radius {format_radius(radius)}" if isinstance(radius, int | float) else ""
        )
        found.append(Panel(title, objective, [settings["name"] for settings in group]))
    titles = [panel.title for panel in found]
    found = [p._replace(title=f"{p.title} ({', '.join(p.attacks)})") if titles.count(p.title) > 1 else p for p in found]
    return sorted(found, key=lambda panel: panel.objective == "targeted")


def strength_figures(runs: Sequence[Run]) -> list[FigureSvg]:
    """Accuracy against the number of attack steps; for a targeted attack its success beside it."""
    drawn = []
    for panel in panels(runs[0]):
        drawn.append(_strength(runs, panel, success=False))
        if panel.objective == "targeted":
            drawn.append(_strength(runs, panel, success=True))
    return drawn


def _strength(runs: Sequence[Run], panel: Panel, *, success: bool) -> FigureSvg:
    measure = "attack success" if success else "top-1 accuracy"
    lines = [_line(run, panel, success=success) for run in runs]
    steps = sorted({score.num_attack_steps for line in lines for score in line} - {0})
    figure, axes = _axes()
    place = {0: np.log10(steps[0]) - 0.45, **{step: np.log10(step) for step in steps}} if steps else {0: 0.0}
    described = []
    for index, (run, line) in enumerate(zip(runs, lines, strict=True)):
        x = np.array([place[score.num_attack_steps] for score in line])
        counts = [(_count(score, success=success), score.num_examples) for score in line]
        y = np.array([100 * count / total for count, total in counts])
        bounds = 100 * np.array([wilson(count, total) for count, total in counts])
        axes.fill_between(x, bounds[:, 0], bounds[:, 1], color=_colour(index), alpha=0.16, linewidth=0)
        axes.errorbar(x, y, yerr=np.abs(bounds.T - y), **_style(index), capsize=2.5, label=run.label)
        told = ", ".join(f"{value:.1f}% at {s.num_attack_steps or 'clean'}" for value, s in zip(y, line, strict=True))
        described.append(f"{run.label}: {told}")
    shown = _thinned(
        [step for step in (0, *steps) if any(s.num_attack_steps == step for line in lines for s in line)], place
    )
    axes.set_xticks([place[step] for step in shown], ["clean" if step == 0 else f"{step:,}" for step in shown])
    axes.set_xlabel("attack steps")
    axes.set_ylim(0, 102)
    _percent_axis(axes)
    _legend(figure, axes)
    title = f"{panel.title}: {measure}"
    return FigureSvg(title, f"{title} against attack steps. " + "; ".join(described) + ".", _svg(figure, title))


def _line(run: Run, panel: Panel, *, success: bool) -> list[Score]:
    attacks = set(panel.attacks) if success else {CLEAN, *panel.attacks}
    line = {score.num_attack_steps: score for score in run.scores if score.attack in attacks}
    return [line[step] for step in sorted(line)]


def _thinned(steps: list[int], place: dict[int, float]) -> list[int]:
    """The steps whose labels do not run into their right neighbour; the last one always stays."""
    span, kept = max(place.values()) - min(place.values()), list[int]()
    for step in reversed(steps):
        if not kept or place[kept[-1]] - place[step] > 0.085 * span:
            kept.append(step)
    return kept[::-1]


def forest_figure(compared: PairOfRuns) -> FigureSvg:
    """The paired difference a - b at every read-out with its 95% interval and McNemar's p; 0 is no difference."""
    rows = [(comparison, *measure) for comparison in compared.comparisons for measure in measures(comparison)]
    figure, axes = _axes(height=0.9 + 0.3 * len(rows), width=7.2)
    described = []
    for row, (comparison, measure, counts) in enumerate(rows):
        low, high = (100 * bound for bound in counts.interval)
        middle = 100 * counts.difference
        colour, marker = (_colour(3), "s") if measure == "success" else (_colour(2), "o")
        axes.plot([low, high], [row, row], color=colour, linewidth=2.2, solid_capstyle="butt")
        filled = colour if counts.interval.excludes_zero else "none"
        axes.plot(
            [middle],
            [row],
            color=colour,
            marker=marker,
            markersize=6,
            markerfacecolor=filled,
            markeredgewidth=1.6,
            linestyle="none",
        )
        name = "clean" if comparison.attack == CLEAN else f"{comparison.attack} at {comparison.num_attack_steps:,}"
        described.append(f"{name}, {measure}: {middle:+.1f} points, {low:+.1f} to {high:+.1f}")
    axes.axvline(0, color=_TEXT, linewidth=1)
    axes.set_yticks(
        range(len(rows)),
        [_forest_label(comparison.attack, comparison.num_attack_steps, m) for comparison, m, _ in rows],
    )
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    right = axes.twinx()
    right.set_ylim(axes.get_ylim())
    right.spines[:].set_visible(False)
    told = [f"{points(counts.difference)}  ·  p {_equals(p_text(counts.p_value))}" for *_, counts in rows]
    right.set_yticks(range(len(rows)), told)
    right.tick_params(length=0, labelcolor=_TEXT, labelsize=9)
    axes.set_xlabel(f"points: {compared.a.label} minus {compared.b.label}")
    title = f"{compared.a.label} minus {compared.b.label}"
    return FigureSvg(title, f"Paired differences, {title}. " + "; ".join(described) + ".", _svg(figure, title))


def _equals(p_value: str) -> str:
    return p_value if p_value.startswith("<") else f"= {p_value}"


def _forest_label(attack: str, num_attack_steps: int, measure: str) -> str:
    return f"clean · {measure}" if attack == CLEAN else f"{attack} @ {num_attack_steps:,} · {measure}"


def curve_figures(runs: Sequence[Run]) -> list[FigureSvg]:
    """Learning curves: accuracy on the images trained on (attacked, smoothed) with validation points, and the loss."""
    learned = [(index, run) for index, run in enumerate(runs) if run.curve]
    if not learned:
        return []
    drawn = []
    for field, title in (("accuracy", "Accuracy while training"), ("loss", "Training loss")):
        figure, axes = _axes()
        for index, run in learned:
            steps, values = _series(run.curve, "train", field)
            scale = 100 if field == "accuracy" else 1
            axes.plot(
                *_smooth(steps, scale * values),
                color=_colour(index),
                linestyle=_DASHES[index % 6],
                linewidth=1.6,
                label=run.label,
            )
            for name, fill in (("clean", "none"), ("attacked", _colour(index))) if field == "accuracy" else ():
                steps, values = _series(run.curve, "validation", name)
                axes.plot(
                    steps,
                    100 * values,
                    color=_colour(index),
                    marker=_MARKERS[index % 6],
                    markerfacecolor=fill,
                    linestyle="none",
                    markersize=5.5,
                )
        axes.set_xlabel("training steps")
        axes.set_ylim(bottom=0, top=102 if field == "accuracy" else None)
        if field == "accuracy":
            _percent_axis(axes)
        _legend(figure, axes)
        names = ", ".join(run.label for _, run in learned)
        drawn.append(FigureSvg(title, f"{title} against training steps, for {names}.", _svg(figure, title)))
    return drawn


def _series(curve: Sequence[dict[str, Any]], kind: str, field: str) -> tuple[np.ndarray, np.ndarray]:
    """The finite values of one field over training steps."""
    found = [(line["step"], line[field]) for line in curve if line.get("kind") == kind and _is_number(line.get(field))]
    steps, values = np.array(found, dtype=float).reshape(-1, 2).T
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


def _colour(index: int) -> str:
    return f"#ab00{index % NUM_COLOURS:02x}"


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _colour(index),
        "marker": _MARKERS[index % 6],
        "linestyle": _DASHES[index % 6],
        "markersize": 5.5,
        "linewidth": 1.8,
        "elinewidth": 1.1,
    }


def _axes(width: float = 3.8, height: float = 3.1) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.tick_params(colors=_FAINT, labelcolor=_TEXT, length=3, labelsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="both", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=_TEXT, fontsize=10)
    axes.yaxis.label.set(color=_TEXT, fontsize=10)
    return figure, axes


def _percent_axis(axes: Axes) -> None:
    axes.set_yticks(range(0, 101, 20), [f"{value}%" for value in range(0, 101, 20)])


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        num_columns = 1 if sum(map(len, labels)) > 32 else len(labels)
        figure.legend(
            handles,
            [_short(label) for label in labels],
            loc="outside lower center",
            frameon=False,
            fontsize=9.5,
            labelcolor=_TEXT,
            ncols=num_columns,
            handlelength=2.6,
        )


def _short(label: str) -> str:
    return label if len(label) <= 44 else f"{label[:43]}…"


def _svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element: CSS colours, real text, no foreign address, ids of its own."""
    buffer = io.StringIO()
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.family": "sans-serif",
    }
    with rc_context(settings):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    opening, rest = svg[: svg.index(">")], svg[svg.index(">") :]
    view = re.search(r'viewBox="[^"]*"', opening)
    svg = f'<svg {view[0] if view else ""} aria-hidden="true"{rest}'
    prefix = f"f{sha256(name.encode())}"
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'xlink:href="#', f'href="#{prefix}-', svg)
    for placeholder, variable in _PLACEHOLDERS.items():
        svg = svg.replace(placeholder, variable)
    svg = re.sub(r"#ab00(0\d)", lambda match: f"var(--series-{int(match[1])})", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", svg)
    return re.sub(r"\n\s*", "\n", svg)
