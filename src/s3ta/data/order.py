"""The order of training data as a function of the step alone: any step can be reached without those before it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
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


class _Steps(TorchDataset[Batch | UserError]):
    def __init__(self, dataset: Dataset, batch_size: int, seed: int) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed

    def __getitem__(self, step: int) -> Batch | UserError:
        """The batch of a step. An error is handed over as a value: a worker process would wrap it in its traceback."""
        epoch, indices = position(self.dataset, self.batch_size, self.seed, step)
        try:
            return fetch(self.dataset, indices.tolist(), (self.seed, epoch))
        except UserError as error:
            return error


@contextmanager
def _workers_deaf_to_ctrl_c() -> Iterator[None]:
    """A terminal sends Ctrl-C to worker processes too, but it is the training loop that ends them: processes begun in
    the block inherit that the signal is held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    with _workers_deaf_to_ctrl_c():
        loaded = iter(loader)
    for batch in loaded:
        if isinstance(batch, UserError):
            raise batch
        yield batch
