"""What a training step needs before it can begin, made ready while the step before it is at work."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attacks import draw_start, draw_targets
from s3ta.data import BatchOrder, Dataset, batches
from s3ta.data.mixing import mixed
from s3ta.distributed import Ranks
from s3ta.random_streams import stream
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
    """The step's attack, its radius scaled; None in the clean phase, and in natural training."""
    targets: Labels | None = None
    start: Images | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    """Ids of examples that could not be read and were replaced, with the reason."""
    shares: Float[Tensor, "B Y"] | None = None
    """Of every class in each image, where images are mixed; None: the label's alone."""


def prepared(
    config: TrainConfig, data: Dataset, first_step: int, device: torch.device, ranks: Ranks
) -> Generator[Prepared, None, None]:
    """The steps from `first_step` to the end: images and labels on the device, targets and starts drawn (T15, T17)."""
    order = BatchOrder(data, config.batch_size, config.seed, (ranks.rank, ranks.count))
    coming = batches(order, range(first_step, config.schedule.num_train_steps), config.num_workers, device)
    with closing(coming), ThreadPoolExecutor(_NUM_THREADS if device.type == "cuda" else 1) as threads:
        for step, batch in enumerate(coming, first_step):
            epoch = order.position(step).epoch
            attack = attack_at(config.schedule, config.attack, step) if config.is_adversarial else None
            images, shares = batch.images.to(device), None
            if config.data.mixing is not None:
                generator, num_classes = stream(config.seed, "mix", step), config.model.num_classes
                images, shares = mixed(images, batch.labels.to(device), num_classes, config.data.mixing, generator)
            ready = Prepared(step, epoch, batch.ids, images, batch.labels, attack, skipped=batch.skipped, shares=shares)
            if attack is not None:
                ready = _drawn(ready, attack, config, threads)
            yield ready._replace(labels=batch.labels.to(device))


def _drawn(ready: Prepared, attack: TrainAttack, config: TrainConfig, threads: Executor) -> Prepared:
    """With fresh targets and starts every epoch, each from the example's own stream.

    Starts are drawn for parts of the batch side by side: numpy draws outside Python's lock, and no part knows of another."""
    ids, epoch, targets = ready.ids, ready.epoch, None
    if attack.objective == "targeted":
        targets = draw_targets(config.seed, ids, ready.labels.cpu(), config.model.num_classes, "train", epoch)
        targets = targets.to(ready.clean.device)
    parts = [slice(first, first + _IMAGES_PER_TASK) for first in range(0, len(ids), _IMAGES_PER_TASK)]
    starts = threads.map(
        lambda part: draw_start(attack, config.seed, ids[part], ready.clean[part], "train", epoch), parts
    )
    return ready._replace(targets=targets, start=torch.cat(list(starts)))
