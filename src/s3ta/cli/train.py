"""`s3ta demo`, `s3ta train`, `s3ta show`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from s3ta.cli.shared import (
    DataRoot,
    Device,
    Download,
    ReturnMemory,
    Tiny,
    app,
    before_the_first_pass,
    err_console,
    out_console,
    plain_errors,
    print_table,
    say_report,
)

BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images per update; learning rate and schedule follow.  \\[default: the recipe's]"),
]


@app.command(epilog="Examples:\n\ns3ta demo\n\ns3ta demo --tiny --out /tmp/look")
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
    print_table(table)
    say_report(page)


@app.command(
    epilog="Examples:\n\ns3ta train digits/s3ta_4\n\ns3ta train digits/s3ta_4 attack.radius=16/255 seed=1 --out runs/weak\n\n"
    "s3ta train cifar10/s3ta_4_mini --data-root ~/data --download\n\n"
    "torchrun --nproc-per-node 8 --max-restarts 3 -m s3ta train imagenet/s3ta_16-10 --data-root ~/data"
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
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the learning curve for TensorBoard too, in RUN/tensorboard.")
    ] = False,
    batch_size: BatchSize = None,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Let a run go on to more training steps, schedule.num_train_steps=N, than it had."
        ),
    ] = False,
    return_memory: ReturnMemory = False,
    tiny: Tiny = False,
) -> None:
    """Train a recipe. Stop it at any moment; the same command goes on where it was, to the same weights.

    Under torchrun the processes share every batch, one GPU each."""
    from s3ta.data import refuse_unknown_data

    config = _resolved(recipe, overrides or [], tiny, batch_size)
    refuse_unknown_data(config.data.source, "train")
    before_the_first_pass(return_memory=return_memory)
    from s3ta.data import resolve_source
    from s3ta.workflow import RuntimeOptions, train_run

    folder = out or Path("runs") / config.name.replace("/", "-")
    trained = train_run(
        config, folder, RuntimeOptions(data_root, device, download), tensorboard=tensorboard, extend=extend
    )
    if trained is None:  # the first process of torchrun says the rest
        return
    out_console.print(f"{'Trained' if trained else 'Already trained'}: {folder}", markup=False)
    where = (
        ["--data-root", str(resolve_source(config.data.source, data_root).root)]
        if config.data.source != "digits"
        else []
    )
    out_console.print(f"Next: {shlex.join(['s3ta', 'evaluate', str(folder), *where])}", markup=False, soft_wrap=True)


@app.command(
    epilog="Examples:\n\ns3ta show digits/s3ta_4\n\ns3ta show digits/s3ta_4 seed=1 > mine.json\n\n"
    "s3ta show digits/s3ta_4 --fields\n\ns3ta show imagenet/s3ta_16-10 --hardware a100 --gpus 8"
)
@plain_errors
def show(
    recipe: Annotated[str, typer.Argument(help="Name from `s3ta list recipes`, or a saved JSON file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    fields: Annotated[bool, typer.Option("--fields", help="Every setting with its value and what it means.")] = False,
    batch_size: BatchSize = None,
    hardware: Annotated[
        str, typer.Option(help="What hours and memory are told for: h200, h100, a100, l40s, v100.")
    ] = "h200",
    gpus: Annotated[int, typer.Option(help="How many of them, one process each.")] = 1,
    utilization: Annotated[float, typer.Option(help="Share of their peak that is assumed to be used.")] = 0.4,
) -> None:
    """Show a recipe, complete: its note, cost and GPU-hours (on stderr) and its JSON (on stdout)."""
    from s3ta.cli.show import cost_lines
    from s3ta.config import describe, to_json
    from s3ta.recipes import RECIPES
    from s3ta.train.cost import get_hardware, training_cost

    config = _resolved(recipe, overrides or [], tiny=False, batch_size=batch_size)
    note = RECIPES[recipe].__doc__ if recipe in RECIPES else None
    gpu = get_hardware(hardware)
    estimate = training_cost(config, gpu, gpus, utilization)
    cost = estimate.cost
    err_console.print("\n".join(line.strip() for line in (note or config.source).splitlines()), markup=False)
    err_console.print(
        f"\n{config.model.name}: {cost.parameters:,} parameters, {cost.multiply_accumulates:,} multiply-accumulates "
        f"per image, map {cost.map_size[0]}x{cost.map_size[1]}"
    )
    for line in cost_lines(config, estimate, gpu, gpus, utilization):
        err_console.print(line, markup=False)
    for departure in config.departures:
        err_console.print(f"  departs: {departure}", markup=False)
    if fields:
        for name, value, meaning in describe(config):
            out_console.print(f"{name} = {value}" + (f"\n    {meaning}" if meaning else ""), markup=False)
    else:
        out_console.print(to_json(config), markup=False)


def _resolved(name: str, overrides: list[str], tiny: bool, batch_size: int | None = None) -> Any:
    """The recipe, shrunk, brought to a batch size and changed as asked; overrides come last, so they win."""
    from s3ta.config import override
    from s3ta.recipes import get_recipe, noting, rescaled
    from s3ta.recipes import tiny as shrink

    recipe = get_recipe(name)
    if batch_size is not None:
        recipe = rescaled(recipe, batch_size)
    return noting(override(shrink(recipe) if tiny else recipe, overrides), overrides)
