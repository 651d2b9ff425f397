"""The order of training data as a function of the step alone: any step can be reached without those before it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from s3ta.data.dataset import Batch, Dataset, fetch
from s3ta.errors import UserError
from s3ta.streams import stream


class Position(NamedTuple):
    """Where a training step lies; epochs and positions count from 0."""

    epoch: int
    indices: np.ndarray


def position(dataset: Dataset, batch_size: int, seed: int, step: int) -> Position:
    """The examples of a training step: a fresh permutation each epoch, incomplete last batches left out (T4).

    Raises UserError where the data set is smaller than one batch."""
    per_epoch = steps_per_epoch(dataset, batch_size)
    epoch, place = divmod(step, per_epoch)
    return Position(epoch, _order(seed, epoch, len(dataset.ids))[place * batch_size : (place + 1) * batch_size])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return stream(seed, "order", epoch).permutation(num_examples)


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Whole batches in one pass. Raises UserError where there is none."""
    if len(dataset.ids) < batch_size:
        raise UserError(
            f"The batch size {batch_size} is larger than the {dataset.split} split of {dataset.source}, "
            f"which has {len(dataset.ids)} examples."
        )
    return len(dataset.ids) // batch_size


class _Steps(TorchDataset[Batch]):
    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed

    def __getitem__(self, step: int) -> Batch:
        epoch, indices = position(self.dataset, self.batch_size, self.seed, step)
        return fetch(self.dataset, indices.tolist(), (self.seed, epoch))


def batches(
    dataset: Dataset, batch_size: int, seed: int, first_step: int, last_step: int, num_workers: int = 0
) -> Iterator[Batch]:
    """The batches of steps first_step .. last_step - 1, the same for any number of worker processes."""
    steps = _Steps(dataset, batch_size, seed)
    # A generator of its own keeps the loader from drawing its worker seed from torch's global state.
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first_step, last_step),
        num_workers=num_workers,
        generator=torch.Generator(),
        multiprocessing_context="spawn" if num_workers else None,
    )
    yield from loader
