"""`s3ta export`: an evaluation as others want to have it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from s3ta.cli.shared import DataRoot, app, out_console, plain_errors
from s3ta.errors import UserError


@app.command(
    epilog="Examples:\n\ns3ta export runs/x/evaluations/autoattack --out submission name=Zoran2020Towards_S3TA4 "
    "venue='CVPR 2020'"
)
@plain_errors
def export(
    folder: Annotated[Path, typer.Argument(help="A finished evaluation, made with --keep-images.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[field=text]...", help="Fields of the card: name, authors, link, venue, architecture."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for adversarial.pt and card.json.")] = Path("export"),
    data_root: DataRoot = Path("data"),
) -> None:
    """Write what a leaderboard wants: the worst image of every example as one .pt tensor, and its JSON card."""
    card_fields: dict[str, str] = {}
    for text in fields or []:
        name, sign, value = text.partition("=")
        if not sign:
            raise UserError(f"{text} is no field of the card such as name=...")
        card_fields[name] = value
    from s3ta import workflow

    for path in workflow.export_images(folder, out, workflow.RuntimeOptions(data_root), card_fields):
        out_console.print(f"Written: {path}")
