"""What every data source gives: stable example ids, labels, and each image on demand. Images are uint8 until batched."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from s3ta.data.config import Augment
from s3ta.data.folder_layout import unlike_folders
from s3ta.data.folder_listing import LeftOut
from s3ta.errors import UserError
from s3ta.random_streams import stream
from s3ta.types import Images, Labels


class Stored(NamedTuple):
    """All images of a data set in memory, as they are before augmentation."""

    pixels: Shaped[Tensor, "n C H W"]
    augment: Augment


class Dataset(ABC):
    """One split of one source: a subclass sets the fields without a value, and gives `image`."""

    source: str
    """The name under which the data set was opened, without folders of this machine."""
    split: str
    ids: Sequence[str]
    """One stable name per example; the same name always means the same picture."""
    labels: Shaped[np.ndarray, " n"]
    classes: Sequence[str]
    shape: tuple[int, int, int]
    """(C, H, W) of every image."""
    fingerprint: str
    """Hash of the content (for folders: of the file names and sizes)."""
    left_out: LeftOut = LeftOut()
    """What lies in the folder of image files and is not used; empty for all other data."""
    reads_files: bool = False
    """Whether images come from files, so that one may be unreadable."""

    @abstractmethod
    def image(self, index: int, draw: tuple[int, int] | None = None) -> Shaped[np.ndarray, "C H W"]:
        """The example's pixels, uint8; in memory also float32 in [0, 1]. With draw = (seed, epoch) as training sees them:
        augmented, or drawn anew."""

    @cached_property
    def content(self) -> str:
        """Identifies the examples, however their images are cut and scaled and their classes numbered: two models that each
        see them in their own way are asked about the same ones."""
        return self.fingerprint

    @cached_property
    def preprocessing(self) -> dict[str, Any]:
        """How the images were made, for a manifest: `name`, `resize`, `interpolation`, `rounding`, `image_size`."""
        size = self.shape[1] if self.shape[1] == self.shape[2] else None
        return {"name": "none", "resize": None, "interpolation": "none", "rounding": "none", "image_size": size}

    def problem(self, index: int) -> str | None:
        """Why an example cannot be read, in a sentence that begins with its id; None where it can, and for all arrays."""
        return None

    def stored(self) -> Stored | None:
        """The images of a data set that holds arrays (no copy), or a part of one (a copy); None for any other."""
        return None

    def innermost(self) -> tuple[Dataset, Sequence[int]]:
        """The data set that others are views of, however many lie between, and for each example the position there."""
        return self, range(len(self.ids))


class View(Dataset):
    """Examples of another data set, each as it is there; what a subclass does not change is that one's."""

    def __init__(self, whole: Dataset, positions: Sequence[int]) -> None:
        self.whole, self.positions = whole, positions
        self.source, self.split, self.classes, self.shape = whole.source, whole.split, whole.classes, whole.shape
        self.ids = [whole.ids[position] for position in positions]
        self.labels = whole.labels[positions]
        self.preprocessing, self.left_out, self.reads_files = whole.preprocessing, whole.left_out, whole.reads_files

    def image(self, index: int, draw: tuple[int, int] | None = None) -> Shaped[np.ndarray, "C H W"]:
        return self.whole.image(self.positions[index], draw)

    def problem(self, index: int) -> str | None:
        return self.whole.problem(self.positions[index])

    def stored(self) -> Stored | None:
        stored = self.whole.stored()
        return stored and stored._replace(pixels=stored.pixels[self.positions])

    def innermost(self) -> tuple[Dataset, Sequence[int]]:
        dataset, numbers = self.whole.innermost()
        return dataset, [numbers[position] for position in self.positions]


class Batch(NamedTuple):
    """Examples ready for a model."""

    ids: list[str]
    images: Images
    labels: Labels
    skipped: tuple[tuple[str, str], ...] = ()
    """Examples that could not be read and have others in their place: (id, why), in order."""


class UnreadableError(UserError):
    """An example cannot be read. `skip`: whether training may take another one in its place."""

    skip = False


MOST_SUBSTITUTES = 100


def fetch_batch(dataset: Dataset, indices: Sequence[int], draw: tuple[int, int] | None = None) -> Batch:
    """The examples at these positions as float32 images in [0, 1]; `draw` as in `Dataset.image`.

    Where the config asks for it, a training example that cannot be read is replaced by another, with its id and label.

    Raises UserError for one that cannot be read, by its id: always without `draw`, since what is measured is never
    replaced."""
    skipped: list[tuple[str, str]] = []
    examples = [_readable(dataset, int(index), draw, skipped) for index in indices]
    positions = [position for position, _ in examples]
    pixels = torch.from_numpy(np.stack([image for _, image in examples]))
    labels = torch.from_numpy(np.asarray([dataset.labels[position] for position in positions], np.int64))
    return Batch([dataset.ids[position] for position in positions], as_images(pixels), labels, tuple(skipped))


def as_images(pixels: Shaped[Tensor, "n C H W"]) -> Images:
    """Bytes as float32 in [0, 1]; the same numbers on every device, where CUDA multiplies by 1/255 if 255 is no tensor. What
    is of floating point is in [0, 1] already."""
    if pixels.is_floating_point():
        return pixels.float()
    return pixels.float().div_(torch.full((), 255.0, device=pixels.device))


def _readable(
    dataset: Dataset, index: int, draw: tuple[int, int] | None, skipped: list[tuple[str, str]]
) -> tuple[int, Shaped[np.ndarray, "C H W"]]:
    """The example and its position, or those of the one that takes its place."""
    try:
        return index, dataset.image(index, draw)
    except UnreadableError as error:
        if draw is None:
            raise
        reason = str(error)
        if not error.skip:
            raise UserError(
                f"{reason.removesuffix('.')}. Repair this file or take it away, or let training take another example in its "
                "place with data.on_unreadable=skip."
            ) from None
    name = dataset.ids[index]
    skipped.append((name, reason))
    generator = stream(draw[0], "substitute", draw[1], name)
    for _ in range(MOST_SUBSTITUTES):
        other = int(generator.integers(len(dataset.ids)))
        try:
            return other, dataset.image(other, draw)
        except UnreadableError:
            continue
    raise UserError(
        f"{name} cannot be read, nor can {MOST_SUBSTITUTES} examples of {dataset.source} that were drawn to take its place: "
        "repair the files."
    )


def check_model_fits_data(
    dataset: Dataset,
    *,
    channels: int,
    num_classes: int,
    image_size: int | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Raises UserError where a model of this many channels and classes does not fit the data; where they are given, the
    image size and the names of the model's classes must fit too, in order (X17)."""
    if dataset.shape[0] != channels:
        raise UserError(
            f"The model takes images with {channels} channels, but those of {dataset.source} have "
            f"{dataset.shape[0]}: set model.vision.in_channels={dataset.shape[0]}, or choose other data."
        )
    can_match = classes is not None and set(dataset.classes) <= set(classes)
    if len(dataset.classes) != num_classes:
        advice = f"set model.num_classes={len(dataset.classes)} in training, or choose other data."
        if can_match:
            advice = (
                "all of them are among the model's, so let only these compete with --match-classes data, or all with "
                "--match-classes model."
            )
        elif dataset.reads_files:
            advice = unlike_folders(dataset.left_out, dataset.classes, num_classes, classes) + advice
        raise UserError(
            f"The model has {num_classes} classes, but {dataset.source} has {len(dataset.classes)}: {advice}"
        )
    if image_size is not None and dataset.shape[1:] != (image_size, image_size):
        raise UserError(
            f"The model is meant for {image_size} px, but the images of {dataset.source} are "
            f"{dataset.shape[1]}x{dataset.shape[2]}: set data.image_size={image_size} or model.vision.image_size."
        )
    advice = "choose other data, or name their classes as the model's and use --match-classes data."
    if can_match:
        advice = "the names are the same, so put them in order with --match-classes data."
    for number, (ours, theirs) in enumerate(zip(classes or (), dataset.classes, strict=False)):
        if ours != theirs:
            raise UserError(
                f"Class {number} of the model is '{ours}', but {dataset.source} has '{theirs}' there: the labels would "
                f"mean other things; {advice}"
            )
