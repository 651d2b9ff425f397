"""Draw where S3TA looks at a clean and at an attacked image, from what `s3ta evaluate` leaves in `gallery.npz`.

    s3ta demo --out runs/demo
    python docs/draw_attention.py runs/demo/s3ta_4/evaluations/digits docs/attention.svg

Without a name of an example (third argument) the first one is drawn that is right when clean and wrong when attacked.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from s3ta.files import read_json
from s3ta.report.gallery import heat, picture

TILE, GAP, LEFT, TOP, ROW, EDGE = 128, 16, 104, 88, 172, 24
SATURATION = 0.4
"""Share of the largest weight at which a colour is at its brightest, so that faint looks are seen, too."""
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de } .text { fill: #1c2024 } .faint { fill: #5d666f }
  .right { fill: #00694e } .wrong { fill: #b23a00 }
  text { font: 14px system-ui, -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif }
  .strong { font-weight: 600 } .small { font-size: 12.5px } .title { font-size: 16px; font-weight: 600 }
  .pixels { image-rendering: pixelated } .dim { filter: grayscale(1) brightness(0.62) } .heat { mix-blend-mode: screen }
  @media (prefers-color-scheme: dark) {
    .card { fill: #14171a; stroke: #343a41 } .text { fill: #e8eaed } .faint { fill: #a3acb5 }
    .right { fill: #4fd1a5 } .wrong { fill: #ff9466 }
  }
"""


def main(evaluation: Path, out: Path, example: str | None = None) -> None:
    """Write the figure of one example of a finished evaluation."""
    with np.load(evaluation / "gallery.npz", allow_pickle=False) as stored:
        gallery = dict(stored)
    if "attention_clean" not in gallery:
        sys.exit(f"{evaluation} holds no attention: evaluate a model that takes glimpses.")
    answers = [gallery[f"probabilities_{kind}"].argmax(-1) for kind in ("clean", "adversarial")]
    turned = (answers[0] == gallery["labels"]) & (answers[1] != gallery["labels"])
    ids = [str(name) for name in gallery["example_ids"]]
    rows = [ids.index(example)] if example in ids else np.flatnonzero(turned).tolist() if example is None else []
    if not rows:
        sys.exit(f"No such example. There are: {', '.join(ids)}.")
    manifest = read_json(evaluation / "manifest.json")
    radius = next(a["radius"] for a in manifest["suite"]["attacks"] if a["name"] == str(gallery["attack"]))
    out.write_text(
        draw(gallery, rows[0], [str(name) for name in manifest["data"]["classes"]], radius), encoding="utf-8"
    )


def draw(gallery: dict[str, np.ndarray], row: int, names: list[str], radius: float) -> str:
    """The SVG: the clean image above the attacked one, and beside each a tile per glimpse with the answer after it.

    Args:
      gallery: the arrays of `gallery.npz`.
      row: which example.
      names: of the classes.
      radius: of the attack, for pixels in [0, 1]."""
    count = len(gallery["attention_clean"])
    width, height = _left(count) + TILE + EDGE, TOP + 2 * ROW + 40
    maps = {kind: gallery[f"attention_{kind}"][:, row].mean(axis=1) for kind in ("clean", "adversarial")}
    peak = SATURATION * max(float(values.max()) for values in maps.values())  # one scale for both rows
    label = int(gallery["labels"][row])
    parts = [
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="12"/>',
        _text(EDGE, 38, f"Where S3TA looks at a {names[label]}, and what it answers after each glimpse", "text title"),
        *(_text(_middle(i), TOP - 12, f"glimpse {i}" if i else "image", "faint small") for i in range(count + 1)),
    ]
    for line, (kind, title) in enumerate((("clean", "clean"), ("adversarial", "attacked"))):
        top = TOP + line * ROW
        parts.append(_text(EDGE, top + TILE // 2, title, "text strong", "start"))
        parts.append(_text(EDGE, top + TILE // 2 + 18, f"± {radius:g}" if line else "", "faint small", "start"))
        image = picture(gallery[kind][row])
        parts.append(_image(0, top, image, "pixels"))
        for glimpse in range(count):
            probabilities = gallery[f"glimpse_probabilities_{kind}"][glimpse, row]
            parts.append(_image(glimpse + 1, top, image, "pixels dim"))
            parts.append(_image(glimpse + 1, top, heat(maps[kind][glimpse], peak), "heat"))
            parts.append(_answer(glimpse + 1, top, probabilities, label, names))
    parts += _key(_left(1), height - EDGE, peak, maps["clean"][0].size)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _left(column: int) -> int:
    return LEFT + column * (TILE + GAP)


def _middle(column: int) -> int:
    return _left(column) + TILE // 2


def _text(x: int, y: int, text: str, kind: str, anchor: str = "") -> str:
    anchor = anchor or ("start" if "title" in kind else "middle")
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _image(column: int, top: int, address: str, kind: str) -> str:
    shape = 'preserveAspectRatio="none" style="clip-path: inset(0 round 6px)"'
    return (
        f'<image class="{kind}" x="{_left(column)}" y="{top}" width="{TILE}" height="{TILE}" {shape} href="{address}"/>'
    )


def _answer(column: int, top: int, probabilities: np.ndarray, label: int, names: list[str]) -> str:
    best = int(probabilities.argmax())
    kind, mark = ("right", "✓") if best == label else ("wrong", "✗")
    text = f"{mark} {names[best]} · {100 * float(probabilities[best]):.0f}%"
    return _text(_middle(column), top + TILE + 20, text, f"{kind} strong")


def _key(x: int, y: int, peak: float, num_places: int) -> list[str]:
    ramp = heat(np.linspace(0, 1, 64)[None], 1.0)
    return [
        _text(x, y, "0%", "faint small", "start"),
        f'<rect x="{x + 26}" y="{y - 10}" width="120" height="10" rx="2"/>',
        f'<image x="{x + 26}" y="{y - 10}" width="120" height="10" preserveAspectRatio="none" href="{ramp}"/>',
        _text(
            x + 154,
            y,
            f"{100 * peak:.0f}% of the attention or more on one of {num_places} places",
            "faint small",
            "start",
        ),
    ]


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
