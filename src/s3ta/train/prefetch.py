"""What a training step needs before it can begin, made ready while the step before it is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

import torch

from s3ta.attacks import draw_start, draw_targets
from s3ta.data import Batch, Dataset, batches, position
from s3ta.distributed import Ranks
from s3ta.train.config import TrainAttack, TrainConfig
from s3ta.train.schedule import attack_at
from s3ta.types import Images, Labels

T = TypeVar("T")
_DEPTH = 2
"""Steps made ready ahead."""
_HANDS, _AT_ONCE = 4, 32
"""Threads that draw starts for a GPU, which would wait for one alone; and images in one of their portions."""


class Prepared(NamedTuple):
    """This process's share of a training step."""

    step: int
    epoch: int
    ids: list[str]
    clean: Images
    labels: Labels
    attack: TrainAttack | None
    """The step's attack, its radius scaled; None in the clean phase."""
    targets: Labels | None
    start: Images | None
    skipped: tuple[tuple[str, str], ...]
    """Ids of examples that could not be read and were replaced, with the reason."""


def prepared(
    config: TrainConfig, data: Dataset, first_step: int, device: torch.device, ranks: Ranks
) -> Generator[Prepared, None, None]:
    """The steps from `first_step` to the end: images and labels on the device, targets and starts drawn (T15, T17)."""
    coming = batches(
        data,
        config.batch_size,
        config.seed,
        first_step,
        config.schedule.num_train_steps,
        config.num_workers,
        device,
        (ranks.rank, ranks.count),
    )
    with closing(coming), ThreadPoolExecutor(_HANDS if device.type == "cuda" else 1) as hands:
        for step, batch in enumerate(coming, first_step):
            yield _prepare(
                config, batch, step, position(data, config.batch_size, config.seed, step).epoch, device, hands
            )


def _prepare(
    config: TrainConfig, batch: Batch, step: int, epoch: int, device: torch.device, hands: Executor
) -> Prepared:
    """Fresh targets and starts every epoch, each from the example's own stream."""
    clean, labels = batch.images.to(device), batch.labels.to(device)
    attack = attack_at(config.schedule, config.attack, step)
    targets = start = None
    if attack is not None:
        if attack.objective == "targeted":
            targets = draw_targets(config.seed, batch.ids, batch.labels.cpu(), config.model.num_classes, "train", epoch)
            targets = targets.to(device)
        start = _starts(attack, config.seed, batch.ids, clean, epoch, hands)
    return Prepared(step, epoch, batch.ids, clean, labels, attack, targets, start, batch.skipped)


def _starts(attack: TrainAttack, seed: int, ids: list[str], clean: Images, epoch: int, hands: Executor) -> Images:
    """`draw_start` of parts of the batch side by side: numpy draws outside Python's lock, and no part knows of another."""
    parts = [slice(first, first + _AT_ONCE) for first in range(0, len(ids), _AT_ONCE)]
    return torch.cat(
        list(hands.map(lambda part: draw_start(attack, seed, ids[part], clean[part], "train", epoch), parts))
    )


def prefetch(make: Callable[[], Generator[T, None, None]]) -> Generator[T, None, None]:
    """The items of an iterator that lives in a thread of its own, which stays a few of them ahead.

    What it raises is raised here, at the same item. Closing the generator ends the thread and closes the iterator."""
    feeder = _Feeder(make)
    feeder.start()
    try:
        while isinstance(said := feeder.ready.get(), _Item):
            yield said.value
        if said is not None:
            raise said
    finally:
        feeder.over.set()
        feeder.join()  # torch may be at work in it, and dies with a process that ends over it


class _Item(NamedTuple):
    value: Any


class _Feeder(threading.Thread):
    """Puts items, and at the end None or what was raised, into a queue that holds a few."""

    def __init__(self, make: Callable[[], Generator[Any, None, None]]) -> None:
        super().__init__(name="feeding", daemon=True)
        self.ready: queue.Queue[_Item | BaseException | None] = queue.Queue(_DEPTH)
        self.over = threading.Event()
        self._make = make

    def run(self) -> None:
        ending = None
        try:
            with closing(self._make()) as items:
                for item in items:
                    self._put(_Item(item))
                    if self.over.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            ending = error
        self._put(ending)

    def _put(self, said: _Item | BaseException | None) -> None:
        while not self.over.is_set():
            try:
                return self.ready.put(said, timeout=0.1)
            except queue.Full:
                continue
