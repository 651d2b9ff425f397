"""`s3ta report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.shared import app, err_console, plain_errors, say_report
from s3ta.errors import UserError
from s3ta.progress import waiting


@app.command(
    epilog="Examples:\n\ns3ta report runs/digits-s3ta_4 runs/digits-resnetv2_mini_dense --out report.html\n\n"
    "s3ta report runs/x --suite table1 --paper table1.md"
)
@plain_errors
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Evaluated run folders; with two or more, every two are compared.")
    ],
    suite: Annotated[
        str | None, typer.Option(help="Which evaluation.  \\[default: the one that all of them have]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    table: Annotated[
        Path | None, typer.Option(help="Also write every read-out to this .csv, .md or .tex file.")
    ] = None,
    paper: Annotated[
        Path | None,
        typer.Option(
            help="Also write the paper's table of this suite with the runs in it, to a .md, .csv or .tex file."
        ),
    ] = None,
    findings: Annotated[
        Path | None, typer.Option(help="Also write everything that was checked, and found, to this .json file.")
    ] = None,
) -> None:
    """Write one self-contained HTML page from the records of one or more runs. Runs no model."""
    from s3ta.report import build_report, unfinished_lines, write_findings, write_paper_table, write_table

    chosen = suite or _common_suite(runs)
    with waiting("drawing the page"):
        page = build_report(runs, chosen, out)
    for path, write in ((table, write_table), (paper, write_paper_table), (findings, write_findings)):
        if path is not None:
            write(runs, chosen, path)
    for line in unfinished_lines(runs, chosen):
        err_console.print(f"warning: {line}")
    say_report(page)


def _common_suite(runs: list[Path]) -> str:
    from s3ta.report import ledgers_of_run

    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} does not exist: give the folder of a run that `s3ta evaluate` has measured.")
    suites = [set(ledgers_of_run(run)) for run in runs]
    common = sorted(set.intersection(*suites))
    if len(common) == 1:
        return common[0]
    if common:
        raise UserError(f"These runs share several evaluations ({', '.join(common)}): choose one with --suite.")
    raise UserError(f"{' and '.join(str(run) for run in runs)} share no evaluation: run `s3ta evaluate` on each first.")
