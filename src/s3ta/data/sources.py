"""The data sources: what `digits`, `photographs`, `torchvision:NAME`, `folder:PATH` and `npz:PATH` open.

A path is split into a root, which belongs to this machine and is never written into results, and a name, which is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image

from s3ta.data.augment import Augment, augmented_pixels, check_augment
from s3ta.data.cluttered_digits import CANVAS, ClutteredDigits
from s3ta.data.config import DataConfig, refuse_unknown_data
from s3ta.data.dataset import Dataset, Stored, View
from s3ta.data.folder_dataset import open_folder
from s3ta.data.photographs import open_photographs
from s3ta.data.preprocessing import DEFAULT, described, fit
from s3ta.errors import UserError
from s3ta.files import sha256
from s3ta.random_streams import stream

NUM_VALIDATION = 1000
MOST_CLASSES = 1_000_000


class ResolvedSource(NamedTuple):
    """A source as results may name it, and the folder of this machine that it is found in."""

    source: str
    root: Path


def resolve_source(text: str, root: Path) -> ResolvedSource:
    """Split what a person typed: `folder:/data/flowers` -> (`folder:flowers`, /data). Other sources keep the root."""
    kind, _, path = text.partition(":")
    if kind in ("folder", "npz") and path:
        full = root / Path(path).expanduser()  # an absolute path replaces the root
        return ResolvedSource(f"{kind}:{full.name}", full.parent)
    return ResolvedSource(text, root)


def open_dataset(config: DataConfig, split: str, root: Path, download: bool = False) -> Dataset:
    """One split (train, validation or test) of a source, which is as `resolve_source` gives it.

    Args:
      root: the folder that holds `torchvision:`, `folder:` and `npz:` data.
      download: let torchvision fetch what is missing.
    Raises:
      UserError: unknown source or split, missing or empty folder, wrong arrays; the sentence says which."""
    refuse_unknown_data(config.source, split)
    kind, _, name = config.source.partition(":")
    if kind in ("digits", "torchvision", "npz") and config.preprocessing not in (None, DEFAULT):
        raise UserError(
            f"data.preprocessing is for image files (folder:PATH), but the images of {config.source} are stored as arrays: "
            "leave it out."
        )
    if config.source == "photographs":
        return open_photographs(config)
    if config.source == "digits":
        _check_digits(config)
        return ClutteredDigits(split)
    if kind == "torchvision":
        return _held_out(config, split, lambda part: _torchvision(config, part, name, root, download))
    if kind == "folder":
        return _held_out(config, split, lambda part: open_folder(config, part, root / name))
    return _held_out(config, split, lambda part: _npz(config, part, root / name))


class Arrays(NamedTuple):
    """Images and labels in memory, and what they are called."""

    pixels: Shaped[np.ndarray, "n C H W"]
    """uint8, or float32 in [0, 1] that no bytes can stand for."""
    labels: Shaped[np.ndarray, " n"]
    classes: Sequence[str]
    ids: Sequence[str]

    @property
    def digest(self) -> str:
        return sha256(self.pixels.tobytes(), self.labels.tobytes())


class ArrayDataset(Dataset):
    """Images held in memory."""

    def __init__(self, config: DataConfig, split: str, arrays: Arrays) -> None:
        self.source, self.split = config.source, split
        pixels, self.labels, self.classes, self.ids = arrays
        self._pixels = np.ascontiguousarray(pixels)
        self._augment: Augment = config.augment
        self.shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        check_augment(config.augment, config.source, self.shape)
        self.fingerprint = arrays.digest

    def image(self, index: int, draw: tuple[int, int] | None = None) -> Shaped[np.ndarray, "C H W"]:
        return augmented_pixels(self._pixels[index], self._augment, self.ids[index], draw)

    def stored(self) -> Stored:
        return Stored(torch.from_numpy(self._pixels), self._augment)


class Subset(View):
    """Some examples of another dataset, in the given order."""

    def __init__(self, whole: Dataset, split: str, positions: Sequence[int]) -> None:
        super().__init__(whole, list(positions))
        self.split = split
        names = "\n".join(self.ids).encode()
        self.fingerprint = sha256(whole.fingerprint.encode(), names)
        self.content = sha256(whole.content.encode(), names)


def without_unreadable(dataset: Dataset, positions: Sequence[int]) -> Dataset:
    """These examples, without those that cannot be read."""
    return Subset(dataset, dataset.split, [index for index in positions if dataset.problem(index) is None])


def _held_out(config: DataConfig, split: str, open_part: Callable[[str], Dataset]) -> Dataset:
    """Test as it is; validation and training from the training part, divided by a fixed draw."""
    if split == "test":
        return open_part("test")
    whole = open_part("train")
    count = NUM_VALIDATION if config.num_validation is None else config.num_validation
    if count >= len(whole.ids):
        raise UserError(
            f"data.num_validation is {count}, but {config.source} has only {len(whole.ids)} training examples: set it lower "
            "(in an evaluation with --num-validation)."
        )
    order = stream(0, "held-out", len(whole.ids)).permutation(len(whole.ids))
    part = order[:count] if split == "validation" else order[count:]
    return Subset(whole, split, np.sort(part).tolist())


def _check_digits(config: DataConfig) -> None:
    fixed = {"image_size": (None, CANVAS), "channels": (None, 1), "augment": ("none",), "num_validation": (None,)}
    for name, allowed in fixed.items():
        if getattr(config, name) not in allowed:
            raise UserError(
                f"data.{name} is {getattr(config, name)}, but the digits are what they are: {CANVAS} px, grey, with fresh "
                "clutter every epoch and a validation split of their own."
            )


def _torchvision(config: DataConfig, split: str, name: str, root: Path, download: bool) -> Dataset:
    import torchvision

    try:
        stored = getattr(torchvision.datasets, name)(str(root), train=split == "train", download=download)
    except OSError as error:
        raise UserError(f"{name} could not be fetched into {root} ({type(error).__name__}).") from None
    except Exception:  # noqa: BLE001 - torchvision meets a missing or damaged file with many kinds
        raise UserError(
            f"{name} is not in {root}, or is damaged there: name its folder with --data-root, or let --download fetch it."
        ) from None
    pixels = np.asarray(stored.data)
    pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
    ids = [f"{name.lower()}-{split}-{i:05d}" for i in range(len(pixels))]
    labels = np.asarray(stored.targets, np.int64)
    return _resized(config, split, Arrays(pixels, labels, tuple(stored.classes), ids))


def _npz(config: DataConfig, split: str, path: Path) -> Dataset:
    if path.is_file() and split != "test":
        raise UserError(
            f"{path} is one file, which is read as test data: for training give a folder with train.npz and test.npz."
        )
    file = path / f"{split}.npz" if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"{file} does not exist: npz:PATH names a file, or a folder with train.npz and test.npz.")
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files if key in ("images", "labels", "classes", "ids")}
    except Exception as error:  # noqa: BLE001 - numpy raises many kinds for a damaged archive
        raise UserError(f"{file} is damaged, or not an npz file ({type(error).__name__}).") from None
    images, labels = _images_and_labels(file, arrays)
    pixels = images[:, None] if images.ndim == 3 else images
    pixels = pixels if pixels.shape[1] in (1, 3) else pixels.transpose(0, 3, 1, 2)
    for name in ("classes", "ids"):
        if name in arrays and arrays[name].ndim != 1:
            raise UserError(f"{file} must hold a row of '{name}', not an array of shape {arrays[name].shape}.")
    if "classes" not in arrays and labels.max() >= MOST_CLASSES:
        raise UserError(f"{file} has the label {labels.max()}: labels count from 0, or 'classes' must name them.")
    classes = [str(c) for c in arrays.get("classes", range(int(labels.max()) + 1))]
    if len(set(classes)) < len(classes):
        raise UserError(f"{file} names a class twice.")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(f"{file} has labels from {labels.min()} to {labels.max()}, but {len(classes)} classes.")
    ids = [str(i) for i in arrays["ids"]] if "ids" in arrays else [f"{split}-{i:06d}" for i in range(len(pixels))]
    if len(ids) != len(pixels) or len(set(ids)) != len(ids):
        raise UserError(f"{file} must have one different id for each of its {len(pixels)} images.")
    return _resized(config, split, Arrays(pixels, labels.astype(np.int64), tuple(classes), ids))


def _images_and_labels(file: Path, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    if not {"images", "labels"} <= arrays.keys():
        raise UserError(f"{file} must hold the arrays 'images' and 'labels'.")
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise UserError(f"{file} has pixels that are not finite numbers (NaN or infinity).")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UserError(
            f"{file} has images of type {images.dtype} and shape {images.shape}: they must be uint8, "
            "n x height x width x channels (or n x channels x height x width, or grey n x height x width)."
        )
    if not images.size or labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{file} has {len(images)} images and labels of type {labels.dtype} and shape {labels.shape}: "
            "one whole number per image is needed."
        )
    return images, labels


def _resized(config: DataConfig, split: str, arrays: Arrays) -> ArrayDataset:
    """Arrays of the size asked for, or resized to it."""
    pixels, size = arrays.pixels, config.image_size
    if size is None or pixels.shape[2:] == (size, size):
        return ArrayDataset(config, split, arrays)
    # Channel by channel: Pillow takes the last of 2 or 4 channels for transparency and changes the others.
    resized = np.stack([np.stack([np.asarray(fit(Image.fromarray(c), size)) for c in image]) for image in pixels])
    dataset = ArrayDataset(config, split, arrays._replace(pixels=resized))
    dataset.preprocessing, dataset.content = described(DEFAULT, size), arrays.digest
    return dataset
