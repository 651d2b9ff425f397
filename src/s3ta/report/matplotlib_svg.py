"""What all figures share: axes, colours, legends, and Matplotlib's SVG made fit for the page.

Matplotlib draws with placeholder colours, which `as_svg` turns into the page's CSS variables, so that one drawing
serves light and dark. Every series also has its own marker and dash, so that none is told apart by colour alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from s3ta.files import sha256

TEXT, FAINT, GRID, PAGE = "#ab1000", "#ab2000", "#ab3000", "#ab4000"
_PLACEHOLDERS = {PAGE: "var(--page)", TEXT: "var(--text)", FAINT: "var(--faint)", GRID: "var(--rule)"}
MARKERS, DASHES = "osD^vP", ["-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (1, 1)), (0, (9, 3))]
NUM_COLOURS = 6
"""How many series colours the style sheet has; further models start again with other markers."""


class FigureSvg(NamedTuple):
    """One drawing."""

    title: str
    alt: str
    """What a person who cannot see it should know."""
    svg: str


def colour(index: int) -> str:
    """The placeholder of a series."""
    return f"#ab00{index % NUM_COLOURS:02x}"


def style(index: int) -> dict[str, Any]:
    """How a series looks: arguments of `Axes.errorbar`."""
    return line_style(index) | {"marker": MARKERS[index % 6], "markersize": 5.5, "elinewidth": 1.1}


def line_style(index: int, width: float = 1.8) -> dict[str, Any]:
    """How the line of a series looks: arguments of `Axes.plot`."""
    return {"color": colour(index), "linestyle": DASHES[index % 6], "linewidth": width}


def new_axes(width: float = 3.8, height: float = 3.1) -> tuple[Figure, Axes]:
    """An empty figure of that many inches."""
    figure = _new_figure(width, height)
    return figure, _dressed(figure.add_subplot())


def new_panels(width: float = 3.8, height: float = 3.6) -> tuple[Figure, Axes, Axes]:
    """An empty figure with a large panel above a small one, on one x-axis."""
    figure = _new_figure(width, height)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    return figure, _dressed(upper), _dressed(lower)


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _dressed(axes: Axes) -> Axes:
    axes.patch.set_alpha(0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(colors=FAINT, labelcolor=TEXT, length=3, labelsize=9.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="both", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.label.set(color=TEXT, fontsize=10)
    axes.yaxis.label.set(color=TEXT, fontsize=10)
    return axes


def percent_axis(axis: Axis) -> None:
    """Ticks from 0% to 100%."""
    axis.set_ticks(range(0, 101, 20), [f"{value}%" for value in range(0, 101, 20)])


def legend(figure: Figure, axes: Axes) -> None:
    """The models, below the drawing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        num_columns = 1 if sum(map(len, labels)) > 32 else len(labels)
        look: dict[str, Any] = {"frameon": False, "fontsize": 9.5, "labelcolor": TEXT, "handlelength": 2.6}
        figure.legend(handles, [*map(short, labels)], loc="outside lower center", ncols=num_columns, **look)


def finished(figure: Figure, axes: Axes, title: str, described: Sequence[str], *, long_title: str = "") -> FigureSvg:
    """The drawing with its legend; `described`: of each series its name and its numbers."""
    legend(figure, axes)
    return FigureSvg(title, f"{long_title or title}. {'; '.join(described)}.", as_svg(figure, title))


def rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """One row per label, from top to bottom."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def short(label: str) -> str:
    """A label that is cut where it would fill the drawing."""
    return label if len(label) <= 44 else f"{label[:43]}…"


def as_svg(figure: Figure, name: str) -> str:
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
