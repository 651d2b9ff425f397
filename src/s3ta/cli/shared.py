"""What all commands share: the program, its errors, its options that come more than once, its tables."""

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
from s3ta.errors import UserError

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
            if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun one says it
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


def radius_of(text: str | None) -> float | None:
    """A radius as people write it. Raises UserError where it is none."""
    from s3ta.config import parse_radius

    if text is None:
        return None
    try:
        value = parse_radius(text)
    except ValueError as error:
        raise UserError(f"--radius: {error}.") from None
    if not 0 <= value < float("inf"):
        raise UserError(f"--radius {text} is not between 0 and 1, nor a larger L2 distance: write 8/255, not 8.")
    return value


def print_table(table: Any) -> None:
    """A table on the terminal."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for i, header in enumerate(table.headers):  # a narrow terminal breaks headers, never numbers
        shown.add_column(header, min_width=max((len(row[i]) for row in table.rows), default=0))
    for row in table.rows:
        shown.add_row(*(cell.replace("[", r"\[") for cell in row))
    out_console.print(shown)


def say_report(page: Path) -> None:
    """Where the page is."""
    out_console.print(f"Report: {page.resolve()}", markup=False)
