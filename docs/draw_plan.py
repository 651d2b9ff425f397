"""Draw the plan of the house from the import contract in pyproject.toml: `python docs/draw_plan.py`, after it changes.

A row is a layer: its rooms import only from rows below. Boxes side by side do not import each other, but for those of the
ground floor.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "docs" / "plan.svg"
ROOMS = {
    "__main__": "python -m s3ta",
    "api": "evaluate, attack and lint from Python",
    "cli": "arguments become calls; nothing else parses them",
    "demo": "two child processes run the ordinary commands",
    "workflow": "puts rooms together: train, evaluate, predict, export",
    "recipes": "every named experiment, as a complete config",
    "train": "adversarial training",
    "evaluate": "measure and check",
    "explain": "where a model looks",
    "report": "tables, figures, page",
    "records": "what was measured: ledger, counts, intervals, checks",
    "models": "images to logits",
    "attacks": "images to adversarial images",
    "data": "images with stable ids",
}
WIDTH, LEFT, EDGE, GAP = 860, 84, 20, 12
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } .room { fill: #f3f6f9; stroke: #c3ccd5 } .ground { fill: #eef3ee; stroke: #bccbbc }
  .text { fill: #1c2024 } .faint { fill: #5d666f } .arrow { stroke: #5d666f; fill: none; stroke-width: 1.5 }
  text { font: 12.5px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif }
  .name, .mono { font-family: ui-monospace, Menlo, Consolas, monospace } .name { font-size: 14px; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #14171a; stroke: #343a41 } .room { fill: #20262c; stroke: #3d4650 } .ground { fill: #1e2820; stroke: #3a4a3d }
    .text { fill: #e8eaed } .faint { fill: #a3acb5 } .arrow { stroke: #a3acb5 }
  }
"""


def main() -> None:
    PLAN.write_text(draw((ROOT / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")


def draw(project: str) -> str:
    """The plan as SVG, from the text of pyproject.toml."""
    contracts = tomllib.loads(project)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    forbidden = [contract for contract in contracts if "torch" in contract.get("forbidden_modules", ())]
    without_torch = {name.removeprefix("s3ta.") for contract in forbidden for name in contract["source_modules"]}
    parts, top = [], EDGE
    for layer in layers:
        if ":" in layer:
            drawn, height = _ground([name.strip() for name in layer.split(":")], top)
        else:
            names = [name.strip() for name in layer.split("|")]
            drawn, height = _layer(names, top, without_torch), _height(names)
        parts += drawn
        top += height + GAP
    height = top - GAP + EDGE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>\n'
        + "\n".join([*_arrow(height), *parts])
        + "\n</svg>\n"
    )


def _layer(names: list[str], top: int, without_torch: set[str]) -> list[str]:
    """Boxes side by side; one alone has its words beside its name."""
    width = (WIDTH - EDGE - LEFT - GAP * (len(names) - 1)) / len(names)
    is_alone, height = len(names) == 1, _height(names)
    parts = []
    for index, name in enumerate(names):
        left = LEFT + index * (width + GAP)
        parts.append(f'<rect class="room" x="{left:g}" y="{top}" width="{width:g}" height="{height}" rx="8"/>')
        parts.append(_text(left + 14, top + 25, name, "text name"))
        parts.append(
            _text(left + (130 if is_alone else 14), top + (25 if is_alone else 44), ROOMS.get(name, ""), "faint")
        )
        if name in without_torch:
            parts.append(_text(left + width - 14, top + 25, "no torch", "faint", "end"))
    return parts


def _height(names: list[str]) -> int:
    return 40 if len(names) == 1 else 58


def _ground(names: list[str], top: int, per_line: int = 4) -> tuple[list[str], int]:
    """The modules that everybody may import, in a box of their own; and its height."""
    names = sorted(names)
    lines = [names[start : start + per_line] for start in range(0, len(names), per_line)]
    height, column = 38 + 22 * len(lines), (WIDTH - EDGE - LEFT - 28) / per_line
    parts = [
        f'<rect class="ground" x="{LEFT}" y="{top}" width="{WIDTH - EDGE - LEFT}" height="{height}" rx="8"/>',
        _text(LEFT + 14, top + 25, "shared by all rooms", "faint"),
    ]
    for row, line in enumerate(lines):
        for index, name in enumerate(line):
            parts.append(_text(LEFT + 14 + index * column, top + 47 + 22 * row, name, "text mono"))
    return parts, height


def _arrow(height: int) -> list[str]:
    middle, end = LEFT // 2 + 4, height - EDGE - 4
    turned = f"translate({middle - 12} {height // 2}) rotate(-90)"
    return [
        f'<path class="arrow" d="M {middle} {EDGE + 4} V {end} m -6 -9 l 6 9 l 6 -9"/>',
        f'<text class="faint" transform="{turned}" text-anchor="middle">may import</text>',
    ]


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>'


if __name__ == "__main__":
    main()
