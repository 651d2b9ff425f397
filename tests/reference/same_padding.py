"""TensorFlow's SAME padding in plain loops and float64, from its definition alone.

Of `size` places with stride s there are ceil(size / s) windows; the padding is as small as these need, and its odd pixel comes
behind. A convolution pads with zeros, a pool looks only at what is inside."""

from __future__ import annotations

import math

import numpy as np

Map = np.ndarray
"""Channels x height x width, float64."""


def windows(size: int, kernel: int, stride: int) -> list[int]:
    """Where each window begins; may be negative, and its end may lie outside."""
    count = math.ceil(size / stride)
    padding = max((count - 1) * stride + kernel - size, 0)
    return [index * stride - padding // 2 for index in range(count)]


def convolution(features: Map, weight: np.ndarray, stride: int) -> Map:
    """`weight` is height x width x inputs x outputs, as TensorFlow stores it; no bias."""
    kernel = weight.shape[0]
    rows, columns = (windows(size, kernel, stride) for size in features.shape[1:])
    answer = np.zeros((weight.shape[3], len(rows), len(columns)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch, part = _inside(features, weight, top, left)
            answer[:, i, j] = np.tensordot(patch, part, axes=([0, 1, 2], [2, 0, 1]))
    return answer


def max_pool(features: Map, kernel: int, stride: int) -> Map:
    rows, columns = (windows(size, kernel, stride) for size in features.shape[1:])
    answer = np.zeros((features.shape[0], len(rows), len(columns)))
    for i, top in enumerate(rows):
        for j, left in enumerate(columns):
            patch = features[:, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
            answer[:, i, j] = patch.max(axis=(1, 2))
    return answer


def _inside(features: Map, weight: np.ndarray, top: int, left: int) -> tuple[Map, np.ndarray]:
    """The part of a window that lies inside, and the weights that belong to it."""
    kernel, (height, width) = weight.shape[0], features.shape[1:]
    first_row, first_column = max(top, 0), max(left, 0)
    last_row, last_column = min(top + kernel, height), min(left + kernel, width)
    patch = features[:, first_row:last_row, first_column:last_column]
    part = weight[first_row - top : last_row - top, first_column - left : last_column - left]
    return patch, part
