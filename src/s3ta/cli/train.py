"""`s3ta train`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.shared import (
    BatchSize,
    DataRoot,
    Device,
    Download,
    RecipeName,
    ReturnMemory,
    Tiny,
    app,
    before_the_first_pass,
    chosen_recipe,
    out_console,
    plain_errors,
)


@app.command(
    epilog="Examples:\n\ns3ta train digits/s3ta_4\n\ns3ta train digits/s3ta_4 attack.radius=16/255 seed=1 --out runs/weak\n\n"
    "s3ta train cifar10/s3ta_4_mini --data-root ~/data --download\n\n"
    "torchrun --nproc-per-node 8 --max-restarts 3 -m s3ta train imagenet/s3ta_16-10 --data-root ~/data"
)
@plain_errors
def train(
    recipe: RecipeName,
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

    config = chosen_recipe(recipe, overrides or [], tiny, batch_size)
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
    out_console.print(f"{'Trained' if trained else 'Already trained'}: {folder}")
    evaluation = ["s3ta", "evaluate", str(folder)]
    if config.data.source != "digits":
        evaluation += ["--data-root", str(resolve_source(config.data.source, data_root).root)]
    out_console.print(f"Next: {shlex.join(evaluation)}")
