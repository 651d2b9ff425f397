"""Small data sets whose every pixel tells where it came from."""

from pathlib import Path

import numpy as np
import timm.data

from s3ta.data import Dataset
from s3ta.random_streams import stream

INFO = Path(timm.data.__file__).parent / "_info"
IMAGENET_A = tuple(int(line) for line in (INFO / "imagenet_a_indices.txt").read_text().split())
"""The class numbers in ImageNet-1k of ImageNet-A's 200 classes, and their names (E13)."""
IMAGENET_A_WNIDS = tuple((INFO / "imagenet_a_synsets.txt").read_text().split())


class Numbered(Dataset):
    """n grey 4 x 5 images; example i is filled with i, or in training with a draw of (seed, epoch, id)."""

    source, split, classes, shape, fingerprint = "numbered", "train", ("even", "odd"), (1, 4, 5), "f00d"

    def __init__(self, count):
        self.ids = [f"number-{i}" for i in range(count)]
        self.labels = np.arange(count) % 2

    def image(self, index, draw=None):
        value = index if draw is None else stream(draw[0], "numbered", draw[1], self.ids[index]).integers(256)
        return np.full(self.shape, value, np.uint8)


def pixels(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
