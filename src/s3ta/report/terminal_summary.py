"""The numbers of one evaluation, for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3ta.errors import UserError
from s3ta.files import write_atomic, write_json
from s3ta.finding import WORTH_TELLING, Finding
from s3ta.records import CLEAN, CascadeStage, Ledger, cascade_stages, count_scores
from s3ta.report.attack_text import attack_name, ball_text
from s3ta.report.calibration import calibration_table
from s3ta.report.checks import Trust, read_trust
from s3ta.report.load_runs import read_run, read_runs
from s3ta.report.result_tables import (
    Table,
    cost_texts,
    read_out_numbers_table,
    read_out_table,
    success_text,
    table_of,
    table_text,
    top1_text,
)


def runs_summary(folder: Path) -> Table:
    """Every read-out of a ledger: the ball, top-1 and attack success, each with its 95% interval (X36), and what an image cost.

    Of a cascade the worst case over all attacks so far, and how many images each attack broke of those left. Raises
    UserError where the folder holds no records."""
    ledger = Ledger.read(folder)
    table, suite = ledger.table(), ledger.typed_manifest.suite
    balls = {attack.name: ball_text(attack) for attack in suite.attacks}
    if suite.cascade:
        rows = [(stage.score, stage) for stage in cascade_stages(table)]
    else:
        rows = [(score, None) for score in count_scores(table)]
    top1, outcome = ("right after all so far", "broke") if suite.cascade else ("top-1", "success (95% interval)")
    columns = {
        "attack": lambda score, stage: attack_name(score.attack, cascade=suite.cascade),
        "radius": lambda score, stage: balls.get(score.attack, "–"),
        "steps": lambda score, stage: f"{score.num_attack_steps:,}",
        "n": lambda score, stage: f"{score.num_examples:,}",
        f"{top1} (95% interval)": lambda score, stage: top1_text(score),
        outcome: lambda score, stage: _broken(stage) if stage else success_text(score),
        "gradients": lambda score, stage: cost_texts(score)[0],
        "other forwards": lambda score, stage: cost_texts(score)[1],
    }
    return table_of(columns, rows)


def evaluation_table(folder: Path) -> Table:
    """What a person is shown of an evaluation: `runs_summary`, or, where nothing was attacked, how sure the model is and how
    often right. Raises UserError where the folder holds no records."""
    suite = Ledger.read(folder).typed_manifest.suite
    return runs_summary(folder) if suite.attacks else calibration_table([read_run(folder, suite.name)])


def _broken(stage: CascadeStage) -> str:
    if stage.score.attack == CLEAN:
        return "–"
    return f"{stage.num_broken:,} of {stage.num_left:,}" if stage.ran else "not run"


def findings_of(folder: Path) -> list[Finding]:
    """The errors, warnings and notes about an evaluation, from all its checks, worst first.

    Raises UserError where the folder holds no records, or its `trust.json` is damaged."""
    return [finding for finding in _trust(folder).each_once().findings if finding.severity in WORTH_TELLING]


def all_findings_of(folder: Path) -> dict[str, Any]:
    """Every finding about an evaluation, also of checks that passed: a list under `lint`, `probes` and `records`; null: not
    checked. Errors as in `findings_of`."""
    return _trust(folder).as_json()


def _trust(folder: Path) -> Trust:
    ledger = Ledger.read(folder)
    return read_trust(folder, ledger.table(), ledger.typed_manifest)


def write_findings(runs: list[Path], suite: str, out: Path) -> None:
    """Write every finding about the runs as JSON: `{"suite": ..., "runs": [{"model", "folder", "complete", "lint", "probes",
    "records"}]}`, in the order of the runs.

    Raises UserError for another ending than `.json`, and as `read_runs`."""
    if out.suffix != ".json":
        raise UserError(f"{out} must end in .json.")
    entries = [
        {"model": run.label, "folder": run.folder_name, "complete": run.complete, **run.trust.as_json()}
        for run in read_runs(runs, suite)
    ]
    write_json(out, {"suite": suite, "runs": entries})


def write_table(runs: list[Path], suite: str, out: Path) -> None:
    """Write every read-out of the runs: as a spreadsheet (`.csv`) with all numbers plain, or as a Markdown (`.md`) or LaTeX
    (`.tex`) table for people: percentages with intervals.

    Raises UserError for another ending, and as `read_runs`."""
    measured = read_runs(runs, suite)
    table = read_out_numbers_table(measured) if out.suffix == ".csv" else read_out_table(measured)
    write_atomic(out, table_text(table, out.suffix).encode())
