"""The processes of one `torchrun`: who this one is, and the little that they tell each other beside gradients."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from s3ta.errors import UserError

_PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest by default: the parts of an evaluation take different times."""

_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """This process among those that `torchrun` started; alone without it.

    Each method but `is_first` must be called by all processes, in the same order. All of them speak through the CPU
    (gloo), on machines with GPUs too: nothing here waits on a device, and no bit depends on it."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process prints, draws and checks for all of them."""
        return self.rank == 0

    def agree(self, is_well: bool) -> bool:
        """The first process's answer, for all processes."""
        if self.count == 1:
            return is_well
        flag = torch.tensor([int(is_well)])
        distributed.broadcast(flag, 0)
        return bool(flag)

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        return self.total(float(flag))[0] > 0

    def together(self, error: UserError | None) -> None:
        """All processes leave where any has met a mistake: the first that has one says it, the others are silent.

        Raises UserError: this process's error, where it is the one to say it; elsewhere SystemExit with code 2."""
        met = self.total(*(float(error is not None and rank == self.rank) for rank in range(self.count)))
        if error is not None and not any(met[: self.rank]):
            raise error
        if any(met):
            raise SystemExit(2)

    def total(self, *values: float) -> tuple[float, ...]:
        """The sum over all processes of each of these numbers, in float64: the same bits everywhere."""
        if self.count == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return tuple(sums.tolist())

    def gather(self, tensors: dict[str, Tensor]) -> list[dict[str, Tensor]] | None:
        """On the first process copies of all tensors, on the CPU, bit for bit, one dict for each rank in order; elsewhere None.
        Names, shapes and dtypes must be the same on every process."""
        if self.count == 1:
            return [{name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}]
        own_bytes = torch.cat([torch.empty(0, dtype=torch.uint8), *(_bytes(tensor) for tensor in tensors.values())])
        heard = [torch.empty_like(own_bytes) for _ in range(self.count)] if self.is_first else None
        distributed.gather(own_bytes, heard, 0)
        return None if heard is None else [_unpacked(each, tensors) for each in heard]

    def wait(self) -> None:
        """Until all have come this far."""
        self.total(0.0)  # `distributed.barrier` would wait on the GPU where there is one


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def _unpacked(data: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """The bytes of one process as the tensors that they are."""
    parts = data.split([tensor.numel() * tensor.element_size() for tensor in like.values()])
    return {  # cloned, for a view as another dtype must begin where its elements may
        name: part.clone().view(tensor.dtype).reshape(tensor.shape)
        for (name, tensor), part in zip(like.items(), parts, strict=True)
    }


@contextmanager
def ranks(patience: timedelta = _PATIENCE) -> Iterator[Ranks]:
    """Joins the processes of `torchrun`, and leaves them at the end; alone where there is one.

    Tensors on the CPU travel by gloo, those on GPUs by NCCL, and the process's own GPU becomes torch's current one. A process
    waits for the slowest as long as `patience`. Raises UserError where torchrun's variables are incomplete or do not agree."""
    count = _number("WORLD_SIZE", 1)
    if count == 1:
        yield Ranks()
        return
    if missing := [name for name in _VARIABLES if not os.environ.get(name)]:
        raise UserError(
            f"WORLD_SIZE is {count}, but {missing[0]} is not set, so this process was not started by torchrun: "
            "unset WORLD_SIZE, or start with torchrun -m s3ta COMMAND ..."
        )
    if not 0 <= _number("RANK", 0) < count:
        raise UserError(f"RANK is {os.environ['RANK']}, WORLD_SIZE {count}: start with torchrun -m s3ta COMMAND ...")
    has_gpu = torch.cuda.is_available()
    if has_gpu and _number("LOCAL_RANK", 0) < torch.cuda.device_count():
        torch.cuda.set_device(own_device(torch.device("cuda")))
    store, rank, _ = next(rendezvous("env://", timeout=patience))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if has_gpu else "gloo",
        store=PrefixStore(_attempt(store, rank, count, patience), store),
        rank=rank,
        world_size=count,
        timeout=patience,
    )
    try:
        yield Ranks(distributed.get_rank(), count)
    finally:
        distributed.destroy_process_group()


def _attempt(store: Store, rank: int, count: int, patience: timedelta) -> str:
    """A name that these processes share, and none that torchrun started before them.

    torchrun's store lives on when it starts processes again (--max-restarts), with the addresses of those that died; who
    reads one of them waits for nobody. Nothing that torchrun says tells one start from the next on all machines. So each
    process calls itself by a name never used before, and the first one answers every name until all have heard it."""
    host = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
    if rank:
        store.set(f"hello-{rank}", host)
        name = store.get(f"answer-{host}").decode()
        store.set(f"heard-{name}-{rank}", "")
        return name
    waiting, until = set(range(1, count)), time.monotonic() + patience.total_seconds()
    while waiting:
        if time.monotonic() > until:
            missing = sorted(waiting)
            raise UserError(f"Of {count} processes those of rank {missing} did not come: see what they said last.")
        for other in sorted(waiting):
            if store.check([f"hello-{other}"]):
                store.set(f"answer-{store.get(f'hello-{other}').decode()}", host)
            if store.check([f"heard-{host}-{other}"]):
                waiting.remove(other)
        time.sleep(0.01)
    return host


def own_device(device: torch.device) -> torch.device:
    """One GPU for each process of a machine; any other device as it is.

    Raises UserError where the machine has fewer GPUs than processes."""
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    index, count = _number("LOCAL_RANK", 0), torch.cuda.device_count()
    if index >= count:
        raise UserError(
            f"Process {index + 1} of this machine has no GPU of its own, for {count} can be seen: "
            f"start torchrun with --nproc-per-node {max(count, 1)}, or run on the CPU."
        )
    return torch.device("cuda", index)


def _number(name: str, default: int) -> int:
    """A variable of torchrun, a whole number from 0 up."""
    text = os.environ.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"The environment variable {name} is '{text}', not a number: start with torchrun, or unset it.")
    return int(text)
