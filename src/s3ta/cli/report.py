"""`s3ta report`, `s3ta predict`, `s3ta list`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.model_options import ModelOptions, PreprocessingName, preprocessing_of
from s3ta.cli.option_groups import grouped
from s3ta.cli.shared import (
    Device,
    ReturnMemory,
    app,
    before_the_first_pass,
    err_console,
    out_console,
    plain_errors,
    say_report,
)
from s3ta.errors import UserError, unknown_name
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
        err_console.print(f"warning: {line}", markup=False, soft_wrap=True)
    say_report(page)


@app.command(
    epilog="Examples:\n\ns3ta predict runs/demo/s3ta_4 digit.png\n\ns3ta predict owner/model cat.jpg dog.jpg --top 3\n\n"
    "s3ta predict my_models:make cat.jpg --weights best.pt --image-size 32 --mean 0.5 --std 0.25"
)
@plain_errors
@grouped
def predict(
    model: Annotated[
        str,
        typer.Argument(
            help="Run folder, model folder, Hub id, timm:NAME, torchvision:NAME, or package.module:factory."
        ),
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    opened: ModelOptions,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 5,
    preprocessing: PreprocessingName = None,
    device: Device = "auto",
    return_memory: ReturnMemory = False,
) -> None:
    """Print the likeliest classes of images, with probabilities; images are prepared as `s3ta evaluate` prepares them."""
    from s3ta.models import refuse_unknown_source

    treatment = preprocessing_of(preprocessing)
    refuse_unknown_source(model)
    before_the_first_pass(return_memory=return_memory)
    from s3ta import workflow

    runtime = workflow.RuntimeOptions(device=device)
    with waiting(f"asking {model}"):
        subject = workflow.open_for_evaluation(model, opened.opening())
        answers = workflow.predict(subject, images, top, runtime, treatment)
    for answer in answers:
        out_console.print(f"{answer.image}", markup=False)
        for name, probability in zip(answer.classes, answer.probabilities, strict=True):
            out_console.print(f"  {probability:6.1%}  {name}", markup=False)


@app.command("list", epilog="Examples:\n\ns3ta list models\n\ns3ta list recipes")
@plain_errors
def list_names(kind: Annotated[str, typer.Argument(help="models, recipes, suites or attacks.")]) -> None:
    """List what can be named: models, recipes, suites, attacks."""
    lister = {"models": _models, "recipes": _recipes, "suites": _suites, "attacks": _attacks}.get(kind)
    if lister is None:
        raise unknown_name("list", kind, ["models", "recipes", "suites", "attacks"])
    for line in lister():
        out_console.print(line, markup=False)


def _models() -> list[str]:
    from s3ta.models import list_models

    return list_models()


def _recipes() -> list[str]:
    from s3ta.recipes import RECIPES

    return [f"{name:32}{(function.__doc__ or '').splitlines()[0]}" for name, function in RECIPES.items()]


def _suites() -> list[str]:
    from s3ta.evaluate import describe_suites

    return [f"{name:32}{description}" for name, description in describe_suites().items()]


def _attacks() -> list[str]:
    from s3ta.evaluate import ATTACKS

    return [f"{name:32}{(function.__doc__ or '').splitlines()[0]}" for name, function in ATTACKS.items()]


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
