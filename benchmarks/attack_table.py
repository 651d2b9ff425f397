"""The tables and the figure of docs/attacks.md, from the records of evaluated run folders. Runs no model.

    s3ta evaluate RUN --suite sequential --num-examples 256 --batch-size 64   # also: autoattack, strongest, local
    s3ta evaluate RUN --attack pgd-1000 --num-examples 256 --batch-size 64
    python benchmarks/attack_table.py "digits S3TA-4=RUN" "CIFAR-10 S3TA-4=RUN" --figure docs/attacks.svg --csv out.csv

Every attack is compared with `annealed-100` of the same model on the same examples: the paired difference of top-1 with its
95% interval (Newcombe), and how many examples only this attack broke.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

from s3ta.records import CLEAN, Ledger, PairedCounts, reduce_restarts, wilson

matplotlib.use("svg")
import matplotlib.pyplot as plt

REFERENCE = "annealed-100"
SUITES = ("sequential", "pgd-1000", "autoattack", "strongest")


class Row(NamedTuple):
    """One attack on one model."""

    attack: str
    correct: np.ndarray
    ids: np.ndarray
    gradients: float
    forwards: float

    @property
    def top1(self) -> tuple[float, float, float]:
        count, total = int(self.correct.sum()), len(self.correct)
        return 100 * count / total, *(100 * bound for bound in wilson(count, total))


def read(run: Path, suites: Sequence[str] = SUITES) -> dict[str, Row]:
    """Every attack's last read-out; of a cascade the worst case, under the suite's name."""
    rows: dict[str, Row] = {}
    for suite in suites:
        folder = run / "evaluations" / suite
        if not (folder / "manifest.json").is_file():
            continue
        ledger = Ledger.read(folder)
        assert ledger.complete, f"{folder} is not finished"
        cascade = ledger.typed_manifest.suite.cascade
        last = {outcome.attack: outcome for outcome in reduce_restarts(ledger.table(), cascade=cascade)}
        named = {suite: list(last.values())[-1]} if cascade else last
        for name, found in named.items():
            spent, passed = found.num_gradients.mean(), (found.num_forwards - found.num_gradients).mean()
            rows.setdefault(name, Row(name, found.correct, found.example_ids, float(spent), float(passed)))
    return rows


def against(row: Row, other: Row) -> PairedCounts:
    """Correct under this attack against correct under the other, example by example."""
    assert (row.ids == other.ids).all()
    a, b = row.correct, other.correct
    return PairedCounts(*(int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)))


def markdown(label: str, rows: dict[str, Row]) -> str:
    """One model's table."""
    lines = [
        f"**{label}**, {len(rows[CLEAN].correct)} test images",
        "",
        "| attack | top-1 (95% interval) | beside `annealed-100`, points | only it breaks | gradients | other forwards |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        share, low, high = row.top1
        beside = broke = "–"
        if name not in (CLEAN, REFERENCE):
            counts = against(row, rows[REFERENCE])
            low_d, high_d = (100 * bound for bound in counts.interval)
            beside = f"{100 * counts.difference:+.1f} [{low_d:+.1f}, {high_d:+.1f}]".replace("-", "−")
            broke = str(counts.only_b)
        shown = name if name == CLEAN else f"`{name}`"
        cost = f"{row.gradients:,.0f} | {row.forwards:,.0f}"
        lines.append(f"| {shown} | {share:.1f}% [{low:.1f}, {high:.1f}] | {beside} | {broke} | {cost} |")
    return "\n".join(lines)


def local(label: str, run: Path, rival: Path) -> str:
    """One Euclidean budget, spent everywhere or in a box, on a model and its rival: the paired difference of top-1."""
    lines = [
        f"**{label}**",
        "",
        "| attack | first (95% interval) | second (95% interval) | first minus second, points | McNemar p |",
        "|---|---|---|---|---|",
    ]
    rivals = read(rival, ["local"])
    for name, row in read(run, ["local"]).items():
        counts = against(row, rivals[name])
        shown = " | ".join(f"{x.top1[0]:.1f}% [{x.top1[1]:.1f}, {x.top1[2]:.1f}]" for x in (row, rivals[name]))
        low, high = (100 * bound for bound in counts.interval)
        told = f"{100 * counts.difference:+.1f} [{low:+.1f}, {high:+.1f}]".replace("-", "−")
        lines.append(f"| {name} | {shown} | {told} | {counts.p_value:.2g} |")
    return "\n".join(lines)


def figure(models: dict[str, dict[str, Row]], path: Path) -> None:
    """Top-1 with intervals, one panel per model, attacks from weakest to strongest."""
    panels, axes = plt.subplots(1, len(models), figsize=(5.2 * len(models), 5.6), squeeze=False)
    for axis, (label, rows) in zip(axes[0], models.items(), strict=True):
        ordered = sorted((row for row in rows.values() if row.attack != CLEAN), key=lambda row: -row.correct.mean())
        for place, row in enumerate(ordered):
            share, low, high = row.top1
            colour = "#b3261e" if row.attack in ("autoattack", "strongest") else "#1f5fa8"
            axis.plot([low, high], [place, place], color=colour, linewidth=1.6)
            axis.plot([share], [place], "o", color=colour, markersize=5)
        axis.axvline(rows[CLEAN].top1[0], color="#777777", linestyle=":", linewidth=1)
        axis.text(rows[CLEAN].top1[0], -0.9, "clean ", ha="right", va="center", fontsize=8, color="#555555")
        axis.set_yticks(range(len(ordered)), [row.attack for row in ordered], fontsize=8)
        axis.set_ylim(len(ordered) - 0.5, -1.4)
        axis.set_xlabel("top-1 under attack, % (95% interval)")
        axis.set_title(label, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    panels.tight_layout()
    with plt.rc_context({"svg.hashsalt": "s3ta"}):
        panels.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="LABEL=RUN")
    parser.add_argument("--rival", action="append", default=[], help="run of the plain rival of each, in order")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--csv", type=Path)
    given = parser.parse_args()
    if not given.runs:
        print("attack_table: give evaluated runs as LABEL=RUN; see --help")
        return
    models = {label: read(Path(run)) for label, _, run in (text.partition("=") for text in given.runs)}
    for label, rows in models.items():
        print(markdown(label, rows) + "\n")
    for text, rival in zip(given.runs, given.rival, strict=False):
        label, _, run = text.partition("=")
        print(local(label, Path(run), Path(rival)) + "\n")
    if given.figure:
        figure(models, given.figure)
    if given.csv:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            counts = ["n", "num_correct", "top1", "top1_low", "top1_high"]
            writer.writerow(["model", "attack", *counts, "gradients", "other_forwards"])
            for label, rows in models.items():
                for row in rows.values():
                    numbers = [f"{value / 100:.6f}" for value in row.top1]
                    costs = [f"{row.gradients:.1f}", f"{row.forwards:.1f}"]
                    writer.writerow([label, row.attack, len(row.correct), int(row.correct.sum()), *numbers, *costs])


if __name__ == "__main__":
    main()
