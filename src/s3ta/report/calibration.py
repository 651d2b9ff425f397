"""What confidence is worth on clean images: the numbers of ImageNet-A (protocol E13) for every model, and two figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axis import Axis

from s3ta.records import Calibration, clean_confidences, reliability_bins, risk_coverage, wilson
from s3ta.records.calibration import BIN_SIZE
from s3ta.report.load_runs import Run
from s3ta.report.matplotlib_svg import (
    FAINT,
    FigureSvg,
    colour,
    finished,
    line_style,
    new_axes,
    new_panels,
    percent_axis,
    style,
)
from s3ta.report.result_tables import Table, percent, rate, table_of

NATURAL = "figure7"
"""Suites of this name, and longer ones, measure images as they are: calibration is their result."""
_FEWEST_DRAWN = 0.01
_NUM_POINTS = 120


class Section(NamedTuple):
    """The page's section on confidence."""

    table: Table | None
    figures: list[FigureSvg]
    too_few: str
    """A sentence on the models with too few images; empty where all have enough."""
    few_bins: bool
    """Whether the published form has no bin left for some model."""
    natural: bool
    """Whether it is the result of the suite, and the paper's Figure 7 is the place to look."""


def is_natural(runs: Sequence[Run]) -> bool:
    """Whether the suite's result is top-1 and calibration on images that nobody attacked."""
    return runs[0].manifest.suite.name.startswith(NATURAL)


def calibration_section(runs: Sequence[Run]) -> Section:
    """Table and figures of the models with at least 100 clean images, and a sentence on the others."""
    sizes = [run.calibration.num_examples if run.calibration else 0 for run in runs]
    enough = [(index, run) for index, run in enumerate(runs) if sizes[index] >= BIN_SIZE]
    few = [f"{run.label} has {size}" for run, size in zip(runs, sizes, strict=True) if size < BIN_SIZE]
    return Section(
        table=calibration_table([run for _, run in enough]) if enough else None,
        figures=[_reliability(enough), _risk(enough)] if enough else [],
        too_few=f"The calibration error needs bins of {BIN_SIZE} clean images; {', '.join(few)}." if few else "",
        few_bins=any(sizes[index] < 2 * BIN_SIZE for index, _ in enough),
        natural=is_natural(runs),
    )


def calibration_table(runs: Sequence[Run]) -> Table:
    """Top-1, the RMS calibration error in both forms, and AURRA on the clean images; a dash where there are too few."""
    columns = {
        "Model": lambda label, numbers: label,
        "n": lambda label, numbers: f"{numbers.num_examples:,}",
        "Top-1 (95% interval)": lambda label, numbers: rate(numbers.num_correct, numbers.num_examples),
        "RMS calibration error, as published": lambda label, numbers: published_text(numbers),
        "with all bins": lambda label, numbers: _percent(numbers.rms_all_bins),
        "by chance alone": lambda label, numbers: _percent(numbers.rms_by_chance),
        "AURRA": lambda label, numbers: percent(numbers.aurra),
    }
    return table_of(columns, [(run.label, run.calibration) for run in runs if run.calibration is not None])


def headline(run: Run) -> str:
    """One sentence with top-1 and its interval, the calibration error in both forms, and AURRA; empty without clean images."""
    numbers = run.calibration
    if numbers is None:
        return ""
    parts = [f"{run.label} is right on {rate(numbers.num_correct, numbers.num_examples)}"]
    if numbers.rms_all_bins is not None:
        published, all_bins = published_text(numbers), percent(numbers.rms_all_bins)
        both = f"{all_bins} (all bins)" if published == "–" else f"{published} as published, {all_bins} with all bins"
        parts.append(f"RMS calibration error {both}")
    return f"{'; '.join(parts)}; AURRA {percent(numbers.aurra)}."


def headline_title(run: Run) -> str:
    """The numbers of the headline alone."""
    numbers = run.calibration
    assert numbers is not None
    published = published_text(numbers)
    parts = [f"{percent(numbers.num_correct / numbers.num_examples)} right"]
    parts += [] if published == "–" else [f"RMS calibration error {published}"]
    return f"{run.label}: {', '.join([*parts, f'AURRA {percent(numbers.aurra)}'])}"


def published_text(numbers: Calibration) -> str:
    """The published form; a dash where it has no bin left, for its 0 would look like perfection."""
    return _percent(numbers.rms_published) if numbers.num_examples >= 2 * BIN_SIZE else "–"


def _percent(share: float | None) -> str:
    return "–" if share is None else percent(share)


def _reliability(runs: Sequence[tuple[int, Run]]) -> FigureSvg:
    """Accuracy against confidence in 15 bins; below it how the confidences are spread."""
    figure, axes, below = new_panels()
    axes.plot([0, 100], [0, 100], color=FAINT, linewidth=1, linestyle=(0, (2, 3)))
    described, edges, tallest = [], np.linspace(0, 100, 16), 0.0
    for index, run in runs:
        confidence, correct = clean_confidences(run.table)
        bins = reliability_bins(confidence, correct)
        x, y = (100 * np.array(values) for values in ([b.confidence for b in bins], [b.accuracy for b in bins]))
        bounds = 100 * np.array([b.interval for b in bins]).T
        axes.errorbar(x, y, yerr=np.abs(bounds - y), **style(index), capsize=2, label=run.label)
        shares = 100 * np.histogram(100 * confidence, edges)[0] / len(confidence)
        below.stairs(shares, edges, **line_style(index, 1.5))
        tallest = max(tallest, shares.max())
        readings = ", ".join(f"{right:.0f}% right at {sure:.0f}%" for sure, right in zip(x, y, strict=True))
        described.append(f"{run.label}: {readings}")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, 102)
    percent_axis(axes.yaxis)
    axes.set_ylabel("right")
    below.set_ylim(0, 1.1 * tallest)
    _two_ticks(below.yaxis, tallest)
    below.set_ylabel("images")
    percent_axis(below.xaxis)
    below.set_xlabel("confidence")
    figure.align_ylabels()
    return finished(figure, axes, "Reliability: right at each confidence", described)


def _risk(runs: Sequence[tuple[int, Run]]) -> FigureSvg:
    """The share of wrong answers among the most confident ones, with 95% bands."""
    figure, axes = new_axes(height=3.6)
    described, top = [], 5.0
    for index, run in runs:
        curve = risk_coverage(*clean_confidences(run.table))
        n = len(curve.risk)
        answered = np.unique(np.linspace(max(1, _FEWEST_DRAWN * n), n, _NUM_POINTS).round().astype(int))
        x, y = 100 * answered / n, 100 * curve.risk[answered - 1]
        pairs = zip(curve.num_wrong[answered - 1], answered, strict=True)
        bounds = 100 * np.array([wilson(int(wrong), int(total)) for wrong, total in pairs])
        axes.fill_between(x, *bounds.T, color=colour(index), alpha=0.14, linewidth=0)
        axes.plot(x, y, **line_style(index), label=run.label)
        top = max(top, y.max(), bounds[x >= 20, 1].max())
        shares = ", ".join(f"{100 * curve.risk[round(share * n) - 1]:.1f}% at {share:.0%}" for share in (0.25, 0.5, 1))
        described.append(f"{run.label} is wrong on {shares}")
    axes.set_xlim(0, 101)
    axes.set_ylim(0, min(102, 1.05 * top))
    percent_axis(axes.xaxis)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}%")
    axes.set_xlabel("images answered, most confident first")
    axes.set_ylabel("wrong among them")
    return finished(figure, axes, "Risk and coverage: wrong among the surest", described)


def _two_ticks(axis: Axis, largest: float) -> None:
    """0 and one round number near the top."""
    step = next(size for size in (50, 20, 10, 5, 2, 1) if size <= max(largest, 1))
    high = step * int(max(largest, 1) // step)
    axis.set_ticks([0, high], ["0%", f"{high}%"])
