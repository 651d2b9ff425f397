"""What a training step needs before it can begin, made ready while the step before it is at work."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import torch

from s3ta.attacks import draw_start, draw_targets
from s3ta.data import Batch, Dataset, batches, examples_of_step
from s3ta.distributed import Ranks
from s3ta.train.config import TrainAttack, TrainConfig
from s3ta.train.schedule import attack_at
from s3ta.types import Images, Labels

_NUM_THREADS, _IMAGES_PER_TASK = 4, 32
"""Threads that draw starts for a GPU, which would wait for one alone; and images that one of them draws for at a time."""


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
    with closing(coming), ThreadPoolExecutor(_NUM_THREADS if device.type == "cuda" else 1) as threads:
        for step, batch in enumerate(coming, first_step):
            yield _prepare(
                config, batch, step, examples_of_step(data, config.batch_size, config.seed, step).epoch, device, threads
            )


def _prepare(
    config: TrainConfig, batch: Batch, step: int, epoch: int, device: torch.device, threads: Executor
) -> Prepared:
    """Fresh targets and starts every epoch, each from the example's own stream."""
    clean, labels = batch.images.to(device), batch.labels.to(device)
    attack = attack_at(config.schedule, config.attack, step)
    targets = start = None
    if attack is not None:
        if attack.objective == "targeted":
            targets = draw_targets(config.seed, batch.ids, batch.labels.cpu(), config.model.num_classes, "train", epoch)
            targets = targets.to(device)
        start = _starts(attack, config.seed, batch.ids, clean, epoch, threads)
    return Prepared(step, epoch, batch.ids, clean, labels, attack, targets, start, batch.skipped)


def _starts(attack: TrainAttack, seed: int, ids: list[str], clean: Images, epoch: int, threads: Executor) -> Images:
    """`draw_start` of parts of the batch side by side: numpy draws outside Python's lock, and no part knows of another."""
    parts = [slice(first, first + _IMAGES_PER_TASK) for first in range(0, len(ids), _IMAGES_PER_TASK)]
    return torch.cat(
        list(threads.map(lambda part: draw_start(attack, seed, ids[part], clean[part], "train", epoch), parts))
    )
