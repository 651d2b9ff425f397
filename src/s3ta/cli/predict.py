"""`s3ta predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.dataclass_options import grouped
from s3ta.cli.model_options import ModelOptions, ModelSource, PreprocessingName
from s3ta.cli.shared import Device, ReturnMemory, app, before_the_first_pass, out_console, plain_errors
from s3ta.progress import waiting


@app.command(
    epilog="Examples:\n\ns3ta predict runs/demo/s3ta_4 digit.png\n\ns3ta predict owner/model cat.jpg dog.jpg --top 3\n\n"
    "s3ta predict my_models:make cat.jpg --weights best.pt --image-size 32 --mean 0.5 --std 0.25"
)
@plain_errors
@grouped
def predict(
    model: ModelSource,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    opened: ModelOptions,
    top: Annotated[int, typer.Option(min=1, help="How many classes to print.")] = 5,
    preprocessing: PreprocessingName = None,
    device: Device = "auto",
    return_memory: ReturnMemory = False,
) -> None:
    """Print the likeliest classes of images, with probabilities; images are prepared as `s3ta evaluate` prepares them."""
    from s3ta.data import get_preprocessing
    from s3ta.models import refuse_unknown_source

    treatment = None if preprocessing is None else get_preprocessing(preprocessing)
    refuse_unknown_source(model)
    before_the_first_pass(return_memory=return_memory)
    from s3ta import workflow

    runtime = workflow.RuntimeOptions(device=device)
    with waiting(f"asking {model}"):
        subject = workflow.open_for_evaluation(model, opened.opening())
        answers = workflow.predict(subject, images, top, runtime, treatment)
    for answer in answers:
        out_console.print(f"{answer.image}")
        for name, probability in zip(answer.classes, answer.probabilities, strict=True):
            out_console.print(f"  {probability:6.1%}  {name}")
