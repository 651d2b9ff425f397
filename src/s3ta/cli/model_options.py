"""The options that say what a foreign model does not say itself: one definition for every command that opens a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s3ta.cli.shared import one_of
from s3ta.errors import UserError

if TYPE_CHECKING:
    from s3ta.models import Opening

PANEL = "A model that is not one of ours"

Weights = Annotated[
    str | None,
    typer.Option(
        help="pretrained, random, a file (.safetensors, .pt, an index of shards) or a folder of the Hub.  "
        "\\[default: pretrained; a factory's own]",
        rich_help_panel=PANEL,
    ),
]
IgnoreKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-keys",
        help="Pattern of what to leave out of the file of weights, such as 'criterion.*'; may be given several times.",
        rich_help_panel=PANEL,
    ),
]
NumClasses = Annotated[int | None, typer.Option(min=2, help="How many outputs it has.", rich_help_panel=PANEL)]
ImageSize = Annotated[int | None, typer.Option(min=1, help="Height and width of its images.", rich_help_panel=PANEL)]
InChannels = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Channels of its images: 1, grey, or 3; files are read so.  \\[default: its own]",
        rich_help_panel=PANEL,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        help="Subtracted from pixels of \\[0, 1], such as 0.485,0.456,0.406; with --std.", rich_help_panel=PANEL
    ),
]
Std = Annotated[str | None, typer.Option(help="Divides after that.", rich_help_panel=PANEL)]
ChannelOrder = Annotated[
    str | None, typer.Option(help="rgb or bgr: the order that it wants.  \\[default: rgb]", rich_help_panel=PANEL)
]
ClassNames = Annotated[
    Path | None,
    typer.Option(help="File with the names of its classes, in order, one per line.", rich_help_panel=PANEL),
]
PreprocessingName = Annotated[
    str | None,
    typer.Option(
        help="How image files become squares: default, fd, Res256Crop224, BicubicRes256Crop224, Res224, Crop288.  "
        "\\[default: the model's]",
        rich_help_panel="Examples",
    ),
]


def opening_of(
    weights: str | None,
    ignore_keys: list[str] | None,
    num_classes: int | None,
    image_size: int | None,
    in_channels: int | None,
    mean: str | None,
    std: str | None,
    channel_order: str | None,
    class_names: Path | None,
) -> Opening:
    """The options as the package takes them. Raises UserError for text that is none of what they take."""
    from s3ta.models import Opening

    return Opening(
        weights=weights,
        num_classes=num_classes,
        image_size=image_size,
        in_channels=in_channels,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        channel_order=None if channel_order is None else one_of("--channel-order", channel_order, ("rgb", "bgr")),
        class_names=None if class_names is None else _lines(class_names),
        ignored=tuple(ignore_keys or ()),
    )


def preprocessing_of(name: str | None) -> Any:
    """The preprocessing of this name. Raises UserError for an unknown one."""
    from s3ta.data import get_preprocessing

    return None if name is None else get_preprocessing(name)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text} is not a row of numbers such as 0.485,0.456,0.406.") from None


def _lines(path: Path) -> tuple[str, ...]:
    from s3ta.files import readable_errors

    try:
        with readable_errors(path):
            return tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    except (FileNotFoundError, UnicodeDecodeError):
        raise UserError(f"{path} is missing, or no text with one class name per line.") from None
