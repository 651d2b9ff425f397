"""Exact arithmetic, whatever precision other code has asked of torch, by its former settings, its present ones or both."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.backends import cuda, cudnn, mkldnn

from s3ta.determinism import _LOWER, _Precision, exact_arithmetic


def _set(owner: object, value: str) -> Callable[[], None]:
    return lambda: setattr(owner, "fp32_precision", value)


WAYS = {
    "nothing": lambda: None,
    "former": lambda: torch.set_float32_matmul_precision("medium"),
    "matmul": _set(cuda.matmul, "tf32"),
    "conv": _set(torch.backends.cudnn.conv, "ieee"),
    "cudnn": _set(cudnn, "tf32"),
    "all": _set(torch.backends, "tf32"),
    "mkldnn": _set(mkldnn.matmul, "bf16"),
    "mkldnn conv": _set(mkldnn.conv, "bf16"),
}


@pytest.fixture(autouse=True)
def _precision_kept() -> Iterator[None]:
    before = _Precision.read()
    yield
    for owner in (torch.backends, cudnn, mkldnn):
        owner.fp32_precision = "none"  # pyright: ignore[reportAttributeAccessIssue]
    before.write()


def _precisions() -> list[str]:
    return [operation.fp32_precision for operation in _LOWER]


@pytest.mark.parametrize("second", ["nothing", "former", "all"])
@pytest.mark.parametrize("first", WAYS)
def test_every_precision_setting_is_restored(first: str, second: str) -> None:
    WAYS[first]()
    WAYS[second]()
    before = _precisions()
    with exact_arithmetic():
        assert set(_precisions()) <= {"ieee", "none"}
        assert torch.get_float32_matmul_precision() == "highest", "other code may ask, and torch answers"
        assert not cudnn.allow_tf32
    assert _precisions() == before


@pytest.mark.parametrize("owner", [mkldnn.matmul, mkldnn], ids=["matmul", "all"])
def test_products_on_the_cpu_are_float32(owner: object) -> None:
    left, right = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0)).unbind()
    expected = left @ right
    _set(owner, "bf16")()
    with exact_arithmetic():
        assert torch.equal(left @ right, expected)
