"""Small data sets that live on the device and are augmented there, a batch at a time; the same bytes as `fetch_batch`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from s3ta.data.augment import Augment, augmented
from s3ta.data.dataset import Batch, Dataset, Stored, as_images

MOST_BYTES = 2 << 30


class DeviceDataset:
    """A data set of arrays, its pixels and labels on one device."""

    def __init__(self, dataset: Dataset, stored: Stored, device: torch.device) -> None:
        self._ids, self._pixels = dataset.ids, stored.pixels.to(device)
        self._augment: Augment = stored.augment
        self._labels = torch.from_numpy(np.asarray(dataset.labels, np.int64)).to(device)

    def batch(self, indices: Sequence[int] | np.ndarray, draw: tuple[int, int] | None = None) -> Batch:
        """What `fetch_batch` gives for these positions, bit for bit, on the device."""
        ids = [self._ids[i] for i in indices]
        positions = torch.as_tensor(np.asarray(indices, np.int64)).to(self._pixels.device)
        pixels = self._pixels.index_select(0, positions)
        if draw is not None:
            pixels = augmented(pixels, self._augment, ids, draw)
        return Batch(ids, as_images(pixels), self._labels.index_select(0, positions))


def load_on_device(dataset: Dataset, device: torch.device, most_bytes: int = MOST_BYTES) -> DeviceDataset | None:
    """The data set on the device; None for image files, data that is drawn (digits), and more than `most_bytes` of pixels."""
    if len(dataset.ids) * int(np.prod(dataset.shape)) > most_bytes:
        return None
    stored = dataset.stored()
    return None if stored is None else DeviceDataset(dataset, stored, device)
