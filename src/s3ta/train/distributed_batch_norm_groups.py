"""How the batch-norm groups of an update lie in the processes (T13), by arithmetic alone. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from s3ta.errors import UserError
from s3ta.train.config import TrainConfig


class BatchNormGroups(NamedTuple):
    """How BN groups lie in the processes."""

    images: int
    """Of one process in one group."""
    span: int
    """Processes that share a group; 1: it lies in one."""


def batch_norm_groups(config: TrainConfig, num_processes: int) -> BatchNormGroups:
    """How BN groups lie in so many processes: in one each where a process has enough images, else over neighbours, so that
    they are the same groups of the same images; with `batch_norm.sync` over all.

    Raises UserError where the batch, or a group, does not divide among so many processes."""
    share, rest = divmod(config.batch_size, num_processes)
    if rest:
        raise UserError(
            f"A batch of {config.batch_size} images does not divide among {num_processes} processes: change batch_size, or "
            "the number of processes of torchrun."
        )
    group = config.batch_norm.group
    needed = 1 if group is None else -(-group // share)
    span = num_processes if config.batch_norm.sync else needed
    images, rest = divmod(group or share * span, span)
    if rest and config.batch_norm.sync:
        raise UserError(
            f"batch_norm.sync spreads a BN group over all processes, but {group} images do not divide among {num_processes}: "
            "leave it out, or change batch_norm.group or the number of processes."
        )
    if rest or images < 1 or share % images or num_processes % span:
        raise UserError(
            f"BN groups of {group} images do not fit the {share} images that each of {num_processes} processes has of a batch: "
            "change batch_norm.group, batch_size, or the number of processes."
        )
    if images * span < 2:
        raise UserError(
            f"Each of {num_processes} processes has one image of a batch of {config.batch_size}, of which BN cannot take "
            "statistics: set batch_norm.sync=true, or start fewer processes."
        )
    return BatchNormGroups(images, span)
