"""`s3ta convert`: published weights of others as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.shared import app, before_the_first_pass, out_console, plain_errors


@app.command(
    epilog="Examples:\n\ns3ta convert R152-Denoise.npz --out models/denoise\n\n"
    "s3ta evaluate models/denoise --data folder:imagenet --preprocessing fd --suite table1"
)
@plain_errors
def convert(
    file: Annotated[
        Path, typer.Argument(help="Weights of Feature Denoising: R152.npz, R152-Denoise.npz, or their like.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the model; it must be empty or absent.")],
) -> None:
    """Make a model folder of Feature Denoising's published weights; their licence forbids commercial use."""
    before_the_first_pass(return_memory=False)
    from s3ta import workflow

    converted = workflow.convert(file, out)
    for note in converted.notes:
        out_console.print(f"note: {note}", markup=False)
    out_console.print(
        f"Written: {converted.folder} ({converted.name}, {converted.num_parameters:,} parameters)", markup=False
    )
