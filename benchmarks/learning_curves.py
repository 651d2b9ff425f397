"""The learning curves of some runs as one figure.

python benchmarks/learning_curves.py RUN [RUN ...] --out results/cifar10_learning.svg
Lines: accuracy on the images trained on, as they were attacked then. Points: validation, clean (open) and attacked at full
strength (filled).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for number, run in enumerate(options.runs):
        name = json.loads((run / "recipe.json").read_text())["name"]
        lines = [json.loads(text) for text in (run / "train.jsonl").read_text().splitlines()]
        colour = f"C{number}"
        for kind, field, label, style in (
            ("train", "accuracy", name, "-"),
            ("validation", "clean", None, "o"),
            ("validation", "attacked", None, "o"),
        ):
            found = [(line["step"], 100 * line[field]) for line in lines if line["kind"] == kind]
            fill = "none" if field == "clean" else colour
            axes.plot(*zip(*found, strict=True), style, color=colour, markerfacecolor=fill, linewidth=1, label=label)
    axes.set(xlabel="training steps", ylabel="right answers, %", ylim=(0, 60))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(options.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
