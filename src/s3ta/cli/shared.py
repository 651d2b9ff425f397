"""What all commands share: the program, its errors, its options that come more than once, its tables."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from s3ta import __version__
from s3ta.errors import UserError, unknown_name
from s3ta.malloc_tuning import keep_memory
from s3ta.progress import waiting
from s3ta.terminal_output import drawn_table, plain_console

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out_console = plain_console()
err_console = plain_console(stderr=True)

DataRoot = Annotated[
    Path, typer.Option(envvar="S3TA_DATA_ROOT", help="Folder that holds torchvision:, folder: and npz: data.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Download = Annotated[bool, typer.Option("--download", help="Let torchvision fetch data that are missing.")]
ReturnMemory = Annotated[
    bool,
    typer.Option(
        "--return-memory", help="Give freed CPU memory back to the system after each pass; slower, and less is held."
    ),
]
RecipeName = Annotated[str, typer.Argument(help="Name from `s3ta list recipes`, or a saved JSON file.")]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="N", help="Images per update; learning rate and schedule follow.  \\[default: the recipe's]"),
]
Tiny = Annotated[
    bool, typer.Option("--tiny", help="Shrink everything to seconds; for trying out, the numbers mean nothing.")
]


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What the user did wrong becomes one sentence and exit code 2; Ctrl-C becomes one sentence and 130."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **{name: _at_home(value) for name, value in kwargs.items()})
            sys.stdout.flush()
        except UserError as error:
            err_console.print(f"s3ta: {error}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun one says it
                err_console.print("s3ta: interrupted; what was finished is saved. Run the same command again to go on.")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of our output left, as in `s3ta list models | head -1`
            _forget_unwritten()
            raise typer.Exit(0) from None
        except OSError as error:
            if not is_output_blocked(error):
                raise
            raise typer.Exit(2) from None

    return wrapped


def is_output_blocked(error: OSError) -> bool:
    """Whether a standard stream cannot be written, as on a full disk. Then one sentence says so, where it can."""
    frames = traceback.walk_tb(error.__traceback__)
    if not any(frame.f_globals.get("__name__") == "rich.console" for frame, _ in frames) and not _holds_text():
        return False
    _forget_unwritten()
    with suppress(OSError):
        err_console.print(
            f"s3ta: The output cannot be written ({error.strerror}); what was finished is saved. Write it elsewhere and run "
            "the same command again."
        )
    return True


def _holds_text() -> bool:
    """Whether a standard stream holds text that it cannot get rid of."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        return True
    return False


def _forget_unwritten() -> None:
    """Point the standard output nowhere, so that Python's end does not fail on what it still holds."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _at_home(value: Any) -> Any:
    """Paths that begin with `~`, which a shell leaves as they are between quotes, in the home folder."""
    if isinstance(value, list):
        return [_at_home(path) for path in value]
    return value.expanduser() if isinstance(value, Path) else value


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


def one_of(what: str, text: str | None, allowed: tuple[str, ...]) -> Any:
    """The text, where it is allowed or nobody gave any. Raises UserError where it is not, with the nearest names."""
    if text is not None and text not in allowed:
        raise unknown_name(what, text, list(allowed))
    return text


def chosen_recipe(name: str, overrides: list[str], is_tiny: bool, batch_size: int | None = None) -> Any:
    """The recipe, shrunk, brought to a batch size and changed as asked; overrides come last, so they win."""
    from s3ta.config import override
    from s3ta.recipes import get_recipe, scale_batch_size, shrink_recipe, with_override_note

    recipe = get_recipe(name)
    if batch_size is not None:
        recipe = scale_batch_size(recipe, batch_size)
    return with_override_note(override(shrink_recipe(recipe) if is_tiny else recipe, overrides), overrides)


def before_the_first_pass(*, return_memory: bool) -> None:
    """Freed memory is kept unless asked otherwise; torch is loaded, with a line where that takes long."""
    if not return_memory:
        keep_memory()
    with waiting("loading the libraries"), _interrupts_held():
        import s3ta.report
        import s3ta.workflow  # noqa: F401


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end, and is raised then: libraries that are interrupted while they load fail in any manner."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt


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
    out_console.print(drawn_table(table.headers, table.rows))


def print_evaluation(folder: Path) -> None:
    """The table, as far as there are records."""
    from s3ta.records import Ledger
    from s3ta.report import evaluation_table
    from s3ta.workflow import recorded_preparation

    if not any(folder.glob("chunk-*.parquet")):
        return
    ledger = Ledger.read(folder)
    if missing := len(ledger.missing()):
        out_console.print(f"Not finished: {missing} chunks are missing. What is there so far:")
    if preparation := recorded_preparation(ledger.manifest):
        out_console.print(preparation)
    print_table(evaluation_table(folder))
    if not ledger.manifest["suite"]["attacks"]:  # how sure the model is matters as much as how often it is right
        out_console.print("Calibration takes 100 images, its published form 200; a dash: fewer.")


def say_report(page: Path) -> None:
    """Where the page is."""
    out_console.print(f"Report: {page.resolve()}")
