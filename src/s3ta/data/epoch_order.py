"""The order of training data as a function of the step alone: any step can be reached without those before it."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from s3ta.data.dataset import Batch, Dataset, fetch_batch
from s3ta.data.device_cache import load_on_device
from s3ta.errors import UserError
from s3ta.random_streams import stream


class Position(NamedTuple):
    """Where a training step lies; epochs and positions count from 0."""

    epoch: int
    indices: np.ndarray


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


@dataclass(frozen=True, eq=False)
class BatchOrder(TorchDataset[Batch | UserError]):
    """The batches of training, by step."""

    dataset: Dataset
    batch_size: int
    """Of all processes together."""
    seed: int
    part: tuple[int, int] = (0, 1)
    """(rank, number of processes): the share of every batch that this process gets, cut in rank's order."""

    def position(self, step: int) -> Position:
        """This process's share of a step: a fresh permutation each epoch, incomplete last batches left out (T4).

        Raises UserError where the data set is smaller than one batch."""
        epoch, index = divmod(step, steps_per_epoch(self.dataset, self.batch_size))
        rank, count = self.part
        first, last = (index * self.batch_size + part * self.batch_size // count for part in (rank, rank + 1))
        return Position(epoch, _order(self.seed, epoch, len(self.dataset.ids))[first:last])

    def __getitem__(self, step: int) -> Batch | UserError:
        """The batch of a step. An error is handed over as a value: a worker process would wrap it in its traceback."""
        epoch, indices = self.position(step)
        try:
            return fetch_batch(self.dataset, indices.tolist(), (self.seed, epoch))
        except UserError as error:
            return error


@contextmanager
def _workers_deaf_to_signals() -> Iterator[None]:
    """A terminal sends Ctrl-C, and a scheduler SIGTERM, to worker processes too, but it is the training loop that ends them:
    processes begun in the block inherit that the signals are held back."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def batches(
    order: BatchOrder, steps: range, num_workers: int = 0, device: torch.device | None = None
) -> Generator[Batch, None, None]:
    """The batches of these steps, the same for any number of worker processes and any device.

    `device` is where to keep a data set of arrays (`load_on_device`) and give its batches; those of others are on the CPU.
    Closing the iterator, from any thread that it does not run in, ends the worker processes."""
    kept = None if device is None else load_on_device(order.dataset, device)
    if kept is not None:
        for step in steps:
            epoch, indices = order.position(step)
            yield kept.batch(indices, (order.seed, epoch))
        return
    # A generator of its own keeps the loader from drawing its worker seed from torch's global state.
    loader = DataLoader(
        order,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        collate_fn=_as_it_is,  # torch's own makes a list of `skipped`
        generator=torch.Generator(),
        multiprocessing_context="spawn" if num_workers else None,
    )
    with _workers_deaf_to_signals():
        loaded = iter(loader)
    try:
        for batch in loaded:
            if isinstance(batch, UserError):
                raise batch
            yield batch
    finally:
        if isinstance(loaded, _MultiProcessingDataLoaderIter):
            loaded._shutdown_workers()  # the only way to end them before the garbage collector does


def _as_it_is(batch: Any) -> Any:
    return batch
