"""The arithmetic that training and verdicts are made in: float32, eager, deterministic, with a fixed number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import torch
from torch.backends import cuda, cudnn

from s3ta.process_state import process_state_kept

_BACKENDS: Any = torch.backends
_LOWER: tuple[Any, ...] = (
    cuda.matmul,
    *(_BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn),
    *(_BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn),
)
"""Which operations torch may compute in less than float32, on a GPU and on the CPU; each has its `fp32_precision`."""
_EXACT = ("none", "ieee")


class _Precision(NamedTuple):
    """How torch computes in float32: by its former settings, None where it refuses to tell, and by its present ones."""

    matmul: str | None
    allow_tf32: bool | None
    operations: tuple[str, ...]

    @classmethod
    def read(cls) -> _Precision:
        return cls(
            _answer(torch.get_float32_matmul_precision),
            _answer(lambda: cudnn.allow_tf32),
            tuple(operation.fp32_precision for operation in _LOWER),
        )

    def write(self) -> None:
        if self.matmul is not None:
            torch.set_float32_matmul_precision(self.matmul)
        if self.allow_tf32 is not None:
            cudnn.allow_tf32 = self.allow_tf32
        for operation, precision in zip(_LOWER, self.operations, strict=True):
            if operation.fp32_precision != precision:
                operation.fp32_precision = precision


def _answer(question: Callable[[], Any]) -> Any:
    with suppress(RuntimeError):
        return question()
    return None


@contextmanager
def exact_arithmetic(num_threads: int | None = None, *, deterministic: bool = True) -> Iterator[None]:
    """TF32 and bfloat16 off, deterministic kernels, `num_threads` CPU threads (None: as they are); all is restored afterwards,
    and what a model inside changes of the process (`process_state_kept`).

    Without `deterministic` a GPU may choose its fastest kernels, and repeats its last bits no more."""
    precision, before = _Precision.read(), (cudnn.deterministic, cudnn.benchmark)
    with process_state_kept():
        try:
            if num_threads is not None:
                torch.set_num_threads(num_threads)
            torch.set_float32_matmul_precision("highest")
            cudnn.allow_tf32 = False
            for operation in _LOWER:
                if operation.fp32_precision not in _EXACT:
                    operation.fp32_precision = "ieee"
            cudnn.deterministic, cudnn.benchmark = deterministic, not deterministic
            yield
        finally:
            precision.write()
            cudnn.deterministic, cudnn.benchmark = before
