"""Where training looks at an image: crops that are resized, shifts, mirrors, erased boxes. Drawn per image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from s3ta.data.opencv_bicubic import AxisResize

TRIES = 10
AREA = (0.08, 1.0)
"""Least and largest part of the image that a resized crop covers (T1)."""
ASPECT = (0.75, 1.333)
"""Width over height of a crop before the swap (T1)."""


class Crop(NamedTuple):
    """A rectangle that becomes a square."""

    rows: AxisResize
    columns: AxisResize


def draw_fd_crop(generator: np.random.Generator, height: int, width: int, size: int) -> Crop:
    """T1: up to ten tries at a rectangle of uniform area and uniform aspect ratio, its sides swapped half of the time;
    after them the shortest edge is resized and the centre cut out."""
    for _ in range(TRIES):
        area = generator.uniform(*AREA) * height * width
        aspect = generator.uniform(*ASPECT)
        across, down = int(math.sqrt(area * aspect) + 0.5), int(math.sqrt(area / aspect) + 0.5)
        if generator.random() < 0.5:
            across, down = down, across
        if 0 < down <= height and 0 < across <= width:
            return _placed(generator, (height, width), (down, across), size)
    scale = size / min(height, width)
    scaled = [int(side * scale + 0.5) for side in (height, width)]
    rows, columns = (
        AxisResize(0, side, long, (long - size) // 2) for side, long in zip((height, width), scaled, strict=True)
    )
    return Crop(rows, columns)


def draw_simple_crop(generator: np.random.Generator, height: int, width: int, size: int) -> Crop:
    """torchvision's `RandomResizedCrop` (T2): aspect ratio uniform in its logarithm between 3/4 and 4/3; after ten tries
    the largest rectangle in the middle whose ratio is allowed."""
    for _ in range(TRIES):
        area = generator.uniform(*AREA) * height * width
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        across, down = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < down <= height and 0 < across <= width:
            return _placed(generator, (height, width), (down, across), size)
    across, down = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return Crop(AxisResize((height - down) // 2, down, size), AxisResize((width - across) // 2, across, size))


def _placed(generator: np.random.Generator, shape: tuple[int, int], cut: tuple[int, int], size: int) -> Crop:
    (height, width), (down, across) = shape, cut
    top, left = int(generator.integers(height - down + 1)), int(generator.integers(width - across + 1))
    return Crop(AxisResize(top, down, size), AxisResize(left, across, size))


class GeometricTransform(NamedTuple):
    """Which pixels of an image stay, and where: row y shows row y + down where top <= y < bottom, else black; columns alike.
    Then the image is mirrored, and the hole (top, bottom, left, right) made black."""

    down: int
    along: int
    top: int
    bottom: int
    left: int
    right: int
    mirrored: bool
    hole: tuple[int, int, int, int] = (0, 0, 0, 0)


def draw_crop_flip(generator: np.random.Generator, height: int, width: int) -> GeometricTransform:
    """Shift by up to an eighth of the height in either direction, and mirror with probability 1/2."""
    pad = max(1, height // 8)
    down, along = (int(generator.integers(2 * pad + 1)) - pad for _ in range(2))
    top, bottom, left, right = max(0, -down), min(height, height - down), max(0, -along), min(width, width - along)
    return GeometricTransform(down, along, top, bottom, left, right, bool(generator.random() < 0.5))


def draw_crop_shift(generator: np.random.Generator, height: int, width: int) -> GeometricTransform:
    """Cut off up to a quarter of the rows and of the columns, on either side, put the rest anywhere (crop and shift),
    mirror with probability 1/2, and with probability 1/2 erase a box of 2% to 33% of the area."""
    down, top, bottom = _shifted(generator, height)
    along, left, right = _shifted(generator, width)
    mirrored = bool(generator.random() < 0.5)
    return GeometricTransform(down, along, top, bottom, left, right, mirrored, _draw_hole(generator, height, width))


def _shifted(generator: np.random.Generator, side: int) -> tuple[int, int, int]:
    """(shift, first, end) of one axis: `lost` lines are cut off, `source` of them at the beginning."""
    lost = int(generator.integers(side // 4 + 1))
    source, first = int(generator.integers(lost + 1)), int(generator.integers(lost + 1))
    return source - first, first, first + side - lost


def _draw_hole(generator: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """torchvision's `RandomErasing` with its usual numbers: sides in a ratio of 0.3 to 3.3, uniform in its logarithm."""
    if generator.random() >= 0.5:
        return 0, 0, 0, 0
    for _ in range(TRIES):
        area = generator.uniform(0.02, 0.33) * height * width
        ratio = math.exp(generator.uniform(math.log(0.3), math.log(3.3)))
        down, across = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if down < height and across < width:
            top, left = int(generator.integers(height - down + 1)), int(generator.integers(width - across + 1))
            return top, top + down, left, left + across
    return 0, 0, 0, 0


def moved(pixels: UInt8[Tensor, "n C H W"], moves: Sequence[GeometricTransform]) -> UInt8[Tensor, "n C H W"]:
    """The images after their moves; contiguous."""
    return _moved_one_by_one(pixels, moves) if pixels.device.type == "cpu" else moved_together(pixels, moves)


def _moved_one_by_one(
    pixels: UInt8[Tensor, "n C H W"], moves: Sequence[GeometricTransform]
) -> UInt8[Tensor, "n C H W"]:
    """By slices, which a CPU copies faster than it gathers."""
    before, result = pixels.numpy(), np.zeros(pixels.shape, np.uint8)
    for image, shown, (down, along, top, bottom, left, right, mirrored, hole) in zip(
        before, result, moves, strict=True
    ):
        if top < bottom and left < right:
            target = shown[:, :, ::-1] if mirrored else shown
            target[:, top:bottom, left:right] = image[:, top + down : bottom + down, left + along : right + along]
        if hole[1]:
            shown[:, hole[0] : hole[1], hole[2] : hole[3]] = 0
    return torch.from_numpy(result)


def moved_together(pixels: UInt8[Tensor, "n C H W"], moves: Sequence[GeometricTransform]) -> UInt8[Tensor, "n C H W"]:
    """All at once, for any device."""
    num, channels, height, width = pixels.shape
    table = np.array([[*move[:7], *move.hole] for move in moves]).T[..., None]
    down, along, top, bottom, left, right, mirrored, *hole = table
    across = np.arange(width)
    rows = _source(np.arange(height), down, top, bottom)
    columns = _source(np.where(mirrored, width - 1 - across, across), along, left, right)
    row, column = (torch.from_numpy(lines).to(pixels.device) for lines in (rows, columns))
    black = (row < 0)[:, :, None] | (column < 0)[:, None, :]
    places = (row.clamp_(min=0) * width)[:, :, None] + column.clamp_(min=0)[:, None, :]
    flat = places.view(num, 1, -1).expand(-1, channels, -1)
    result = pixels.reshape(num, channels, -1).gather(2, flat).view(num, channels, height, width)
    if np.any(hole):
        y, x = np.arange(height), np.arange(width)
        inside = ((y >= hole[0]) & (y < hole[1]))[:, :, None] & ((x >= hole[2]) & (x < hole[3]))[:, None, :]
        black |= torch.from_numpy(inside).to(pixels.device)
    return result.masked_fill_(black[:, None], 0)


def _source(places: np.ndarray, shift: np.ndarray, first: np.ndarray, end: np.ndarray) -> Int[np.ndarray, "n length"]:
    """The source line that each line of the result shows; -1: none (black)."""
    return np.where((places >= first) & (places < end), places + shift, -1)
