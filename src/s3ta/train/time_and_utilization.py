"""Where the time of training goes, and which share of the hardware's arithmetic it uses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from s3ta.config import changed
from s3ta.train.config import TrainConfig
from s3ta.train.cost import operations_per_image

PHASES: tuple[str, ...] = ("data", "attack", "update")


class Clock:
    """Seconds per phase since it was last read. On a GPU a phase ends when its kernels have run."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        self._device = device
        # Work done twice is no use.
        costs = operations_per_image(changed(config, {"compute": {"units_per_checkpoint": 0}}))
        self._costs = [(stretch.num_train_steps, operations.total) for stretch, operations in costs]
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._images, self._operations = 0, 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts what passes inside to one of `PHASES`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._seconds[name] += time.perf_counter() - began

    def count(self, step: int, own_images: int, all_images: int) -> None:
        """A finished training step: images of this process, and of all."""
        for length, operations in self._costs:
            if step < length:
                self._operations += operations * own_images
                break
            step -= length
        self._images += all_images

    def read(self, precision: str) -> dict[str, float]:
        """`images_per_second` (of all processes), seconds in each phase, and `utilization`: convolutions and matrix products
        done here, over what this device does in large matrix products of that precision in that time. Then begins anew.

        At most 1: where training does more a second than those did (they were timed on a busy machine, or a convolution
        needs fewer operations than counted), it is itself the most that was seen."""
        total = sum(self._seconds.values()) or 1e-9
        speeds = {"images_per_second": round(self._images / total, 2)}
        speeds |= {name: round(seconds, 3) for name, seconds in self._seconds.items()}
        speeds["utilization"] = round(min(1.0, self._operations / total / measured_peak(self._device, precision)), 4)
        self._seconds, self._images, self._operations = dict.fromkeys(PHASES, 0.0), 0, 0.0
        return speeds


@lru_cache
def measured_peak(device: torch.device, precision: str, seconds: float = 0.2) -> float:
    """FLOP/s of this device in large square matrix products, the best of several: what utilization is a share of."""
    size, dtype = (8192 if device.type == "cuda" else 768), torch.bfloat16 if precision == "bfloat16" else torch.float32
    ones = torch.ones(size, size, device=device, dtype=dtype)
    best, since = float("inf"), time.perf_counter()
    while time.perf_counter() - since < seconds or best == float("inf"):
        began = time.perf_counter()
        product = ones @ ones
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
        del product
    return 2 * size**3 / best
