"""The options that name a model and say what it does not say itself: one definition for every command that opens one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3ta.cli.shared import one_of
from s3ta.errors import UserError

if TYPE_CHECKING:
    from s3ta.models import LoadOptions

_model_option = partial(typer.Option, rich_help_panel="A model that is not one of ours")

ModelSource = Annotated[
    str,
    typer.Argument(help="Run folder, model folder, Hub id, timm:NAME, torchvision:NAME, or package.module:factory."),
]
PreprocessingName = Annotated[
    str | None,
    typer.Option(
        help="How image files become squares: default, fd, Res256Crop224, BicubicRes256Crop224, Res224, Crop288.  "
        "\\[default: the model's]",
        rich_help_panel="Examples",
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """What a person says of a model."""

    weights: Annotated[
        str | None,
        _model_option(
            help="pretrained, random, a file (.safetensors, .pt, an index of shards) or a folder of the Hub.  "
            "\\[default: pretrained; a factory's own]"
        ),
    ] = None
    ignore_keys: Annotated[
        list[str] | None,
        _model_option(
            help="Pattern of what to leave out of the file of weights, such as 'criterion.*'; may be given several times."
        ),
    ] = None
    num_classes: Annotated[int | None, _model_option(min=2, help="How many outputs it has.")] = None
    image_size: Annotated[int | None, _model_option(min=1, help="Height and width of its images.")] = None
    in_channels: Annotated[
        int | None,
        _model_option(min=1, help="Channels of its images: 1, grey, or 3; files are read so.  \\[default: its own]"),
    ] = None
    mean: Annotated[
        str | None,
        _model_option(help="Subtracted from pixels of \\[0, 1], such as 0.485,0.456,0.406; with --std."),
    ] = None
    std: Annotated[str | None, _model_option(help="Divides after that.")] = None
    channel_order: Annotated[
        str | None, _model_option(help="rgb or bgr: the order that it wants.  \\[default: rgb]")
    ] = None
    class_names: Annotated[
        Path | None, _model_option(help="File with the names of its classes, in order, one per line.")
    ] = None

    def opening(self) -> LoadOptions:
        """The options as the package takes them. Raises UserError for text that is none of what they take."""
        from s3ta.models import LoadOptions

        return LoadOptions(
            weights=self.weights,
            num_classes=self.num_classes,
            image_size=self.image_size,
            in_channels=self.in_channels,
            mean=_numbers("--mean", self.mean),
            std=_numbers("--std", self.std),
            channel_order=one_of("--channel-order", self.channel_order, ("rgb", "bgr")),
            class_names=None if self.class_names is None else _lines(self.class_names),
            ignored=tuple(self.ignore_keys or ()),
        )


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
