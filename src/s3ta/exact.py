"""The arithmetic that training and verdicts are made in: float32, eager, deterministic, with a fixed number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_arithmetic(num_threads: int | None = None, *, deterministic: bool = True) -> Iterator[None]:
    """TF32 off, deterministic kernels, `num_threads` CPU threads (None: as they are); all is restored afterwards.

    Without `deterministic` a GPU may choose its fastest kernels, and repeats its last bits no more.

    Kernels change their last bits with the batch shape and the number of threads, and a last bit can flip a verdict; so
    both are fixed and recorded."""
    before = (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )
    try:
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = deterministic
        torch.backends.cudnn.benchmark = not deterministic
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_float32_matmul_precision(before[1])
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = before[2], before[3]
        torch.backends.cudnn.benchmark = before[4]
