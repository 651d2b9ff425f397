"""Examples that are in memory, or that torch's own `Dataset` or `DataLoader` gives: checked, and as a data set of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torch.utils.data import Dataset as TorchDataset

from s3ta.data.config import DataConfig
from s3ta.data.sources import ArrayDataset, Arrays
from s3ta.errors import UserError
from s3ta.external_code_errors import guarded

_ROUNDING = 1e-6
"""Pixels may be beyond 0 or 1, and beside whole 255ths, by so much: what arithmetic in float32 leaves."""
_READ_AT_ONCE = 64


def as_arrays(images: Any, labels: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels.

    Args:
      images: N x C x H x W with 1 or 3 channels, a tensor or NumPy array, uint8 or of floating point in [0, 1]; or a torch
        `Dataset` of (image, label), or a `DataLoader` of (images, labels), read once, in the order of the data set even where
        the loader shuffles.
      labels: one whole number per image; None where `images` brings them.
    Returns:
      Images and labels (int64). Images are uint8 where every pixel is a whole 255th (within 1e-6), else float32.
    Raises:
      UserError: another shape, type or range, or another number of labels."""
    if not isinstance(images, (DataLoader, TorchDataset)):
        if labels is None:
            raise UserError(
                "There are no labels: give one whole number per image, or a torch Dataset of (image, label)."
            )
        pixels = _pixels(images)
        return pixels, validate_labels(labels, len(pixels))
    if labels is not None:
        raise UserError(f"A {type(images).__name__} brings its own labels: leave out the ones beside it.")
    batches = [_batch(batch) for batch in _in_order(images)]
    if not batches:
        raise UserError(f"The {type(images).__name__} gives no images.")
    shapes = {pixels.shape[1:] for pixels, _ in batches}
    if len(shapes) > 1:
        sizes = " and ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)[:2])
        raise UserError(f"The {type(images).__name__} gives images of several sizes ({sizes}): resize them to one.")
    if any(pixels.dtype != np.uint8 for pixels, _ in batches):
        batches = [
            (pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels, numbers)
            for pixels, numbers in batches
        ]
    return np.concatenate([pixels for pixels, _ in batches]), np.concatenate([numbers for _, numbers in batches])


def array_dataset(pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str], source: str) -> ArrayDataset:
    """Examples as `as_arrays` gives them, called `test-000000` and so on, as those of an `npz:` file without ids.

    Raises UserError for a label that is none of the classes."""
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if len(wrong):
        raise UserError(
            f"A label is {wrong[0]}, but the model answers with {len(classes)} numbers for an image: labels are from 0 to "
            f"{len(classes) - 1}."
        )
    ids = [f"test-{i:06d}" for i in range(len(pixels))]
    return ArrayDataset(DataConfig(source=source), "test", Arrays(pixels, labels, classes, ids))


def _in_order(examples: Any) -> Iterable[Any]:
    """Batches of a data set in its order; a loader with a sampler of its own keeps that."""
    kind = type(examples).__name__
    loader = examples
    if not isinstance(examples, DataLoader):
        loader = DataLoader(examples, batch_size=_READ_AT_ONCE)
    elif type(examples.batch_sampler) is BatchSampler and type(examples.sampler) is RandomSampler:
        loader = DataLoader(
            examples.dataset,
            batch_size=examples.batch_size,
            num_workers=examples.num_workers,
            collate_fn=examples.collate_fn,
        )
    with guarded(f"Reading the {kind}", "it must give pairs of image and label, images as tensors"):
        yield from loader


def _batch(batch: Any) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        held = f"{len(batch)} things" if isinstance(batch, (tuple, list)) else f"a {type(batch).__name__}"
        raise UserError(f"A batch holds {held}: it must be a pair, images and labels.")
    pixels = _pixels(batch[0])
    return pixels, validate_labels(batch[1], len(pixels))


def _pixels(images: Any) -> np.ndarray:
    """uint8, or float32 in [0, 1]."""
    pixels = _array(images, "images", "N x C x H x W, a tensor or NumPy array")
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        shape = " x ".join(map(str, pixels.shape)) or "nothing"
        raise UserError(
            f"The images have shape {shape}: give N x C x H x W with 1 or 3 channels{_turned(pixels.shape)}."
        )
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise UserError(f"The images are of type {pixels.dtype}: give uint8 (0 to 255), or floating point in [0, 1].")
    pixels = pixels.astype(np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError("The images have pixels that are not finite (NaN or infinity).")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        advice = "divide them by 255, or give uint8"
        if low < -_ROUNDING:
            advice = "give the pixels in [0, 1] and the normalisation with mean and std"
        raise UserError(f"The images have values from {low:.4g} to {high:.4g}: {advice}.")
    pixels = pixels.clip(0, 1)
    whole = np.rint(pixels * 255)
    is_whole = float(np.abs(pixels - whole / np.float32(255)).max()) <= _ROUNDING
    return whole.astype(np.uint8) if is_whole else pixels


def _turned(shape: tuple[int, ...]) -> str:
    """What to do about a shape that is nearly right."""
    if len(shape) == 4 and shape[3] in (1, 3):
        return "; channels come second, as images.transpose(0, 3, 1, 2) puts them, or images.permute(0, 3, 1, 2)"
    if len(shape) == 3:
        return "; one image is images[None], grey ones are images[:, None]"
    return ""


def validate_labels(labels: Any, count: int, what: str = "labels") -> np.ndarray:
    """One class per image as int64. Raises UserError for another shape or type."""
    numbers = _array(labels, what, "one whole number per image")
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        shape = " x ".join(map(str, numbers.shape)) or "one number"
        raise UserError(
            f"The {what} have shape {shape} and type {numbers.dtype}: give one whole number for each of {count} images."
        )
    return numbers.astype(np.int64)


def _array(values: Any, what: str, form: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    if isinstance(values, np.ndarray):
        return values
    if what != "images" and isinstance(values, (list, tuple)):
        with suppress(ValueError):  # rows of several lengths
            return np.asarray(values)
    raise UserError(f"The {what} are a {type(values).__name__}: give {form}.")
