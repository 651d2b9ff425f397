"""The numbers of one evaluation, for a terminal."""

from __future__ import annotations

from pathlib import Path

from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import Ledger, scores
from s3ta.report.runs import read_runs
from s3ta.report.tables import Table, full_table, rate


def summary(folder: Path) -> Table:
    """Every read-out of a ledger: top-1 and attack success, each with its 95% interval (X36).

    Raises UserError where the folder holds no records."""
    rows = [
        [
            score.attack,
            f"{score.num_attack_steps:,}",
            f"{score.num_examples:,}",
            rate(score.num_correct, score.num_examples),
            rate(score.num_hits, score.num_examples),
        ]
        for score in scores(Ledger.read(folder).table())
    ]
    return Table(["attack", "steps", "n", "top-1 (95% interval)", "success (95% interval)"], rows)


def write_table(runs: list[Path], suite: str, out: Path) -> None:
    """Write every number of the runs as a spreadsheet (`.csv`) or a Markdown table (`.md`).

    Raises UserError for another ending, and as `read_runs`."""
    table = full_table(read_runs(runs, suite))
    texts = {".csv": table.csv, ".md": table.markdown}
    if out.suffix not in texts:
        raise UserError(f"{out} must end in .csv or .md.")
    write_atomic(out, texts[out.suffix]().encode())
