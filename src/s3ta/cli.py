"""The command line: the only place that parses arguments. `s3ta --help` and `python -m s3ta --help` show the same."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s3ta import __version__
from s3ta.errors import UserError, unknown_name

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out_console = Console(highlight=False, soft_wrap=True)
err_console = Console(stderr=True, highlight=False, soft_wrap=True)

DataRoot = Annotated[
    Path, typer.Option(envvar="S3TA_DATA_ROOT", help="Folder that holds torchvision:, folder: and npz: data.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch data that are missing.")]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="Shrink everything to seconds; for trying out, the numbers mean nothing.")
]


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What the user did wrong becomes one sentence and exit code 2; Ctrl-C becomes one sentence and 130."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            err_console.print(f"s3ta: {error}", markup=False)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            err_console.print("s3ta: interrupted; what was finished is saved. Run the same command again to go on.")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output left, as in `s3ta list models | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None

    return wrapped


def _version(asked: bool) -> bool:
    if asked:
        out_console.print(f"s3ta {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Train, attack, measure and explain robust image classifiers.

    Begin with [bold]s3ta demo[/bold]: it trains a small S3TA and its rival, attacks both, and writes a report."""


@app.command(epilog="Examples:  s3ta demo    s3ta demo --tiny --out /tmp/look")
@plain_errors
def demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the runs and the report.  \\[default: runs/demo, or runs/demo-tiny]")
    ] = None,
    tiny: Tiny = False,
) -> None:
    """Train S3TA and its plain rival on cluttered digits, attack both, and write a report (about 6 minutes on two cores).

    Finished parts are kept: a second call repeats nothing, and one that was killed goes on."""
    from s3ta.demo import run_demo

    page, table = run_demo(out or Path("runs/demo-tiny" if tiny else "runs/demo"), tiny)
    _print_table(table)
    _say_report(page)


@app.command(
    epilog="Examples:  s3ta train digits/s3ta_4    s3ta train digits/s3ta_4 attack.radius=16/255 seed=1 --out runs/weak   "
    " s3ta train cifar10/s3ta_4_mini --data-root ~/data --download"
)
@plain_errors
def train(
    recipe: Annotated[str, typer.Argument(help="Name from `s3ta list recipes`, or a saved JSON file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change; `s3ta show` lists them.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder.  \\[default: runs/RECIPE]")] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    download: Download = False,
    tiny: Tiny = False,
) -> None:
    """Train a recipe. Stop it at any moment; the same command goes on where it was, to the same weights."""
    from s3ta.workflow import Place, train_run

    config = _resolved(recipe, overrides or [], tiny)
    folder = out or Path("runs") / config.name.replace("/", "-")
    trained = train_run(config, folder, Place(data_root, device, download))
    out_console.print(f"{'Trained' if trained else 'Already trained'}: {folder}", markup=False)
    where = f" --data-root {data_root}" if config.data.source != "digits" else ""
    out_console.print(f"Next: s3ta evaluate {folder}{where}", markup=False)


@app.command(
    epilog="Examples:  s3ta show digits/s3ta_4    s3ta show digits/s3ta_4 seed=1 > mine.json    "
    "s3ta show digits/s3ta_4 --fields"
)
@plain_errors
def show(
    recipe: Annotated[str, typer.Argument(help="Name from `s3ta list recipes`, or a saved JSON file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    fields: Annotated[bool, typer.Option("--fields", help="Every setting with its value and what it means.")] = False,
) -> None:
    """Show a recipe, complete: its note and cost (on stderr) and its JSON (on stdout)."""
    from s3ta.config import describe, to_json
    from s3ta.models import count
    from s3ta.recipes import RECIPES

    config = _resolved(recipe, overrides or [], tiny=False)
    note = RECIPES[recipe].__doc__ if recipe in RECIPES else None
    cost = count(config.model)
    err_console.print("\n".join(line.strip() for line in (note or config.source).splitlines()), markup=False)
    err_console.print(
        f"\n{config.model.name}: {cost.parameters:,} parameters, {cost.multiply_accumulates:,} multiply-accumulates "
        f"per image, map {cost.map_size[0]}x{cost.map_size[1]}"
    )
    for departure in config.departures:
        err_console.print(f"  departs: {departure}", markup=False)
    if fields:
        for name, value, meaning in describe(config):
            out_console.print(f"{name} = {value}" + (f"\n    {meaning}" if meaning else ""), markup=False)
    else:
        out_console.print(to_json(config), markup=False)


@app.command(
    epilog="Examples:  s3ta evaluate runs/digits-s3ta_4    "
    "s3ta evaluate runs/digits-s3ta_4 attack.num_restarts=10 --num-examples 100    "
    "s3ta evaluate runs/x --suite strongest --data folder:~/flowers    "
    "s3ta evaluate runs/x --attack adam-250 --attack square --radius 8/255"
)
@plain_errors
def evaluate(
    model: Annotated[str, typer.Argument(help="Run folder, model folder, or Hub id.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[attack.a=b]...", help="Settings to change in every attack of the suite."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Name from `s3ta list suites`.  \\[default: the recipe's, else quick]")
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="Instead of a suite: an attack from `s3ta list attacks`; may be given several times."),
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option(
            help="Such as 8/255, for suites and attacks that state none.  \\[default: the recipe's, else 8/255]"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="digits, torchvision:NAME, folder:PATH or npz:PATH.  \\[default: the recipe's]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    num_examples: Annotated[
        int | None, typer.Option(min=1, help="How many examples.  \\[default: the suite's]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the records.  \\[default: evaluations/SUITE in the run folder]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chooses examples, targets and starts.")] = 0,
    micro_batch: Annotated[
        int, typer.Option(min=1, help="Examples in the model at once; recorded, for it can change last bits.")
    ] = 50,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads; recorded likewise.  \\[default: all cores]")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Forward and backward passes that each example may cost; what does not fit is left out."
        ),
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Go on with examples whose verdict cannot change any more.")
    ] = False,
    search: Annotated[
        str,
        typer.Option(help="Arithmetic of the attack: float32 or bfloat16. The verdict is always float32."),
    ] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="Attack a compiled copy of the model.")] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Attack in the memory order that GPUs prefer.")
    ] = False,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Keep every adversarial image beside the records.")
    ] = False,
    transfer: Annotated[
        Path | None,
        typer.Option(help="Instead of a suite: score the images kept in this folder of another model's evaluation."),
    ] = None,
    data_root: DataRoot = Path("data"),
    device: Device = "auto",
    download: Download = False,
    tiny: Tiny = False,
) -> None:
    """Attack a model and record what happened to every example. Stop it at any moment; the same command goes on."""
    from s3ta.data import DataConfig
    from s3ta.evaluate import Search, Settings
    from s3ta.report import findings_of, summary
    from s3ta.workflow import Place, choose_suite, evaluate_model, transferred

    settings = Settings(
        seed=seed,
        micro_batch=micro_batch,
        num_threads=threads or os.cpu_count() or 1,
        search=Search(_precision(search), compiled, channels_last),
        exhaustive=exhaustive,
        budget=budget,
        keep_images=keep_images,
    )
    images = None
    if transfer is not None:
        if suite or attack or overrides or tiny or radius or num_examples or seed:
            raise UserError(
                "--transfer scores what is there: it goes with no suite, attack, radius, size, seed or settings."
            )
        images, chosen, settings, num_examples = transferred(transfer, settings)
    else:
        chosen = choose_suite(model, suite, attack or [], _radius(radius), tiny, overrides or [])
    config = None if data is None else DataConfig(source=data)
    folder = evaluate_model(
        model, chosen, config, split, out, settings, Place(data_root, device, download), num_examples, images
    )
    _print_table(summary(folder))
    for finding in findings_of(folder):
        err_console.print(f"{finding.severity}: {finding.sentence}", markup=False)
    out_console.print(f"Records: {folder}", markup=False)


@app.command(epilog="Examples:  s3ta report runs/digits-s3ta_4 runs/digits-resnetv2_mini_dense --out report.html")
@plain_errors
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Evaluated run folders; with two or more, every two are compared.")
    ],
    suite: Annotated[
        str | None, typer.Option(help="Which evaluation.  \\[default: the one that all of them have]")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    table: Annotated[Path | None, typer.Option(help="Also write every number to this .csv or .md file.")] = None,
) -> None:
    """Write one self-contained HTML page from the records of one or more runs. Runs no model."""
    from s3ta.report import build_report, write_table

    chosen = suite or _common_suite(runs)
    if table is not None:
        write_table(runs, chosen, table)
    _say_report(build_report(runs, chosen, out))


@app.command(
    epilog="Examples:  s3ta predict runs/demo/s3ta_4 digit.png    s3ta predict owner/model cat.jpg dog.jpg --top 3"
)
@plain_errors
def predict(
    model: Annotated[str, typer.Argument(help="Run folder, model folder, or Hub id.")],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 5,
    device: Device = "auto",
) -> None:
    """Print the likeliest classes of images, with probabilities."""
    from s3ta import workflow

    for answer in workflow.predict(model, images, top, workflow.Place(device=device)):
        out_console.print(f"{answer.image}", markup=False)
        for name, probability in zip(answer.classes, answer.probabilities, strict=True):
            out_console.print(f"  {probability:6.1%}  {name}", markup=False)


@app.command("list", epilog="Examples:  s3ta list models    s3ta list recipes")
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
    from s3ta.evaluate import SUITES, SUITES_AT

    fixed = [f"{name:32}{function().description}" for name, function in SUITES.items()]
    return fixed + [f"{name:32}{(function.__doc__ or '').splitlines()[0]}" for name, function in SUITES_AT.items()]


def _attacks() -> list[str]:
    from s3ta.evaluate import ATTACKS

    return [f"{name:32}{(function.__doc__ or '').splitlines()[0]}" for name, function in ATTACKS.items()]


def _precision(text: str) -> Any:
    if text not in ("float32", "bfloat16"):
        raise unknown_name("arithmetic", text, ["float32", "bfloat16"])
    return text


def _radius(text: str | None) -> float | None:
    from s3ta.config import parse_radius

    if text is None:
        return None
    try:
        value = parse_radius(text)
    except ValueError as error:
        raise UserError(f"--radius: {error}.") from None
    if not 0 <= value <= 1:
        raise UserError(f"--radius {text} is not between 0 and 1: pixels are; write 8/255, not 8.")
    return value


def _resolved(name: str, overrides: list[str], tiny: bool) -> Any:
    from s3ta.config import override
    from s3ta.recipes import get_recipe, noting
    from s3ta.recipes import tiny as shrink

    recipe = get_recipe(name)
    return noting(override(shrink(recipe) if tiny else recipe, overrides), overrides)


def _common_suite(runs: list[Path]) -> str:
    from s3ta.report import evaluations_of

    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run} does not exist: give the folder of a run that `s3ta evaluate` has measured.")
    found = [set(evaluations_of(run)) for run in runs]
    common = sorted(set.intersection(*found))
    if len(common) == 1:
        return common[0]
    if common:
        raise UserError(f"These runs share several evaluations ({', '.join(common)}): choose one with --suite.")
    raise UserError(f"{' and '.join(str(run) for run in runs)} share no evaluation: run `s3ta evaluate` on each first.")


def _print_table(table: Any) -> None:
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for i, header in enumerate(table.headers):  # a narrow terminal breaks headers, never numbers
        shown.add_column(header, min_width=max(len(row[i]) for row in table.rows))
    for row in table.rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))
    out_console.print(shown)


def _say_report(page: Path) -> None:
    out_console.print(f"Report: {page.resolve()}", markup=False)


def main() -> None:
    """Entry point of the program."""
    app()
