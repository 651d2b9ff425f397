"""OpenCV's bicubic resize in whole numbers: the same bytes on every device, for one picture or for a batch of crops.

The kernel is cubic convolution with a = -0.75 over 4 x 4 pixels, without averaging where it shrinks (X18); weights are
multiples of 1/2048, as in OpenCV's arithmetic for 8 bits. All sums are of integers, so neither the order of summation nor
the device changes a bit. OpenCV itself differs by at most 1 of 255, because its vector code rounds elsewhere
(tests/data/test_opencv_bicubic.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

_BITS = 11


class AxisResize(NamedTuple):
    """One axis of a resize: the pixels from `start` on, `length` of them, become `scaled`; wanted are those from `first`."""

    start: int
    length: int
    scaled: int
    first: int = 0


def bicubic(
    pixels: UInt8[Tensor, "n C H W"],
    rows: Sequence[AxisResize],
    columns: Sequence[AxisResize],
    size: tuple[int, int],
    mirrored: Sequence[bool] | None = None,
) -> UInt8[Tensor, "n C h w"]:
    """Resize a cut (rows and columns) of every image to `size` (height, width) pixels; what lies outside of it is not looked
    at. `mirrored` results are turned left to right.

    Returns images that are contiguous if the given ones are, in channels-last order if they are in that."""
    if len(rows) == 1:  # only the cut is worked on
        (top, height, *_), (left, width, *_) = rows[0], columns[0]
        pixels = pixels[:, :, top : top + height, left : left + width]
        rows, columns = [rows[0]._replace(start=0)], [columns[0]._replace(start=0)]
    down, across = taps(rows, size[0]), taps(columns, size[1])
    if mirrored is not None:
        turned = torch.tensor(mirrored)[:, None, None]
        across = (torch.where(turned, table.flip(1), table) for table in across)
    down = (table.to(pixels.device) for table in down)
    across = (table.to(pixels.device)[:, None].expand(-1, size[0], -1, -1).flatten(0, 1) for table in across)
    num, channels, height, width = pixels.shape
    # Pixels with their channels side by side: both passes then copy runs of memory.
    lines = pixels.permute(0, 2, 3, 1).reshape(num * height, width * channels)
    tall = _weighted(lines, *down, per_group=height).reshape(num * size[0] * width, channels)
    total = _weighted(tall, *across, per_group=width)
    half = 1 << (2 * _BITS - 1)
    done = total.add_(half).bitwise_right_shift_(2 * _BITS).clamp_(0, 255).to(torch.uint8)
    return done.view(num, *size, channels).permute(0, 3, 1, 2)


def _weighted(
    lines: Int[Tensor, "m k"] | UInt8[Tensor, "m k"],
    index: Int[Tensor, "groups count 4"],
    weight: Int[Tensor, "groups count 4"],
    per_group: int,
) -> Int[Tensor, "groups*count k"]:
    """Sum of four lines each, every group reading `per_group` lines of its own."""
    first = torch.arange(len(index), device=index.device)[:, None, None] * per_group
    places, weights = (index + first).flatten(0, 1), weight.flatten(0, 1)
    total = lines.index_select(0, places[:, 0]).to(torch.int32).mul_(weights[:, :1])
    for tap in range(1, 4):
        total += lines.index_select(0, places[:, tap]).to(torch.int32).mul_(weights[:, tap : tap + 1])
    return total


def taps(cuts: Sequence[AxisResize], count: int) -> tuple[Int[Tensor, "n count 4"], Int[Tensor, "n count 4"]]:
    """For `count` results of every cut: which four pixels each is made of (the edge repeated), and their weights in 1/2048,
    int32. Places and weights are computed in float32, as OpenCV does."""
    start, length, scaled, first = np.asarray(cuts, np.int64).T[..., None]
    coordinate = ((first + np.arange(count) + 0.5) * (length / scaled) - 0.5).astype(np.float32)
    left = np.floor(coordinate)
    weight = np.rint(_cubic(coordinate - left) * (1 << _BITS)).astype(np.int32)
    index = left.astype(np.int64)[..., None] + np.arange(-1, 3)
    index = start[..., None] + np.clip(index, 0, length[..., None] - 1)
    return torch.from_numpy(index), torch.from_numpy(weight)


def _cubic(past: np.ndarray) -> np.ndarray:
    """Weights of the pixels at -1, 0, 1, 2 for a place `past` (0 to 1) after the second; float32, they sum to 1."""
    a, before = np.float32(-0.75), 1 - past
    far = ((a * (past + 1) - 5 * a) * (past + 1) + 8 * a) * (past + 1) - 4 * a
    near = ((a + 2) * past - (a + 3)) * past * past + 1
    next_ = ((a + 2) * before - (a + 3)) * before * before + 1
    return np.stack([far, near, next_, 1 - far - near - next_], axis=-1)
