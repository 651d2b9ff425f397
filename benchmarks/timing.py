"""Timing that survives a noisy machine: candidates in turn, process CPU time, one thread, ratios within one run."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import timm
import torch


def interleaved(candidates: dict[str, Callable[[], object]], rounds: int = 5) -> dict[str, list[float]]:
    """CPU seconds of each candidate in each round, after one uncounted round; A B C, A B C, ..."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for counted in range(-1, rounds):
        for name, run in candidates.items():
            began = time.process_time()
            run()
            if counted >= 0:
                times[name].append(time.process_time() - began)
    return times


def ratios(times: dict[str, list[float]], of: str, over: str) -> list[float]:
    """Round by round, so that a slow minute hits both."""
    return [a / b for a, b in zip(times[of], times[over], strict=True)]


def line(name: str, values: list[float], unit: str = "") -> str:
    return f"{name:44} median {statistics.median(values):8.4f}{unit}  (from {min(values):.4f} to {max(values):.4f})"


def about() -> str:
    return (
        f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}, "
        f"{torch.get_num_threads()} thread(s), {platform.machine()}"
    )
