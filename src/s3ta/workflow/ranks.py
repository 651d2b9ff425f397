"""The processes of one `torchrun`: each is a shard of the same evaluation, and the first one speaks for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from s3ta.errors import UserError
from s3ta.evaluate import Shard

_PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest: shards take different times."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that `torchrun` started; alone without it."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prints, draws and checks for all of them."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        return Shard(self.rank + 1, self.count)

    def agree(self, is_well: bool) -> bool:
        """What the first process says, for all of them."""
        if self.count == 1:
            return is_well
        told = torch.tensor([int(is_well)])
        distributed.broadcast(told, 0)
        return bool(told)

    def wait(self) -> None:
        """Until all have come this far."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def ranks() -> Iterator[Ranks]:
    """Joins the processes of `torchrun` (gloo: only waiting is shared, no tensors), and leaves them at the end.

    Raises UserError where torchrun's variables are incomplete."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks()
        return
    if not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError("WORLD_SIZE is set, but not by torchrun: unset it, or start with torchrun -m s3ta evaluate ...")
    distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """One GPU for each process of a machine."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device
