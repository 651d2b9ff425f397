"""The numbers of one evaluation, for a terminal."""

from __future__ import annotations

from pathlib import Path

from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import CLEAN, Finding, Ledger, Score, findings, is_cascade, scores
from s3ta.report.runs import read_runs
from s3ta.report.stages import Stage, stages
from s3ta.report.tables import Table, cost_texts, full_table, rate, top1_text


def summary(folder: Path) -> Table:
    """Every read-out of a ledger: top-1 and attack success, each with its 95% interval (X36), and what an image cost.

    Of a cascade the worst case over all attacks so far, and how many images each attack broke of those left. Raises
    UserError where the folder holds no records."""
    ledger = Ledger.read(folder)
    table = ledger.table()
    if is_cascade(ledger.manifest):
        headers = [
            "attack",
            "steps",
            "n",
            "right after all so far (95% interval)",
            "broke",
            "gradients",
            "other forwards",
        ]
        return Table(headers, [_row(stage.name, stage.score, _broken(stage)) for stage in stages(table)])
    headers = ["attack", "steps", "n", "top-1 (95% interval)", "success (95% interval)", "gradients", "other forwards"]
    rows = [_row(score.attack, score, rate(score.num_hits, score.num_examples)) for score in scores(table)]
    return Table(headers, rows)


def _row(name: str, score: Score, middle: str) -> list[str]:
    num_steps, num_examples = f"{score.num_attack_steps:,}", f"{score.num_examples:,}"
    return [name, num_steps, num_examples, top1_text(score), middle, *cost_texts(score)]


def _broken(stage: Stage) -> str:
    if stage.score.attack == CLEAN:
        return "–"
    return f"{stage.num_broken:,} of {stage.num_left:,}" if stage.ran else "not run"


def findings_of(folder: Path) -> list[Finding]:
    """What the records say about the evaluation itself. Raises UserError where the folder holds no records."""
    ledger = Ledger.read(folder)
    return findings(ledger.table(), ledger.manifest)


def write_table(runs: list[Path], suite: str, out: Path) -> None:
    """Write every number of the runs as a spreadsheet (`.csv`) or a Markdown table (`.md`).

    Raises UserError for another ending, and as `read_runs`."""
    table = full_table(read_runs(runs, suite))
    texts = {".csv": table.csv, ".md": table.markdown}
    if out.suffix not in texts:
        raise UserError(f"{out} must end in .csv or .md.")
    write_atomic(out, texts[out.suffix]().encode())
