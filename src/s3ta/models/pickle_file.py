"""Weights that `pickle.dump` wrote, without torch.save: Detectron2's and VISSL's zoos, and what people write by hand.

Each storage in one is a file of `torch.save` of its own, as bytes; torch reads it with `weights_only`. All else stays inert.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3ta.models.safe_pickle import Reader, Stored
from s3ta.models.torch_file import read_with_torch

_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")
"""With this number begins what an old torch.save wrote, which is a pickle, too."""


def is_plain_pickle(head: bytes) -> bool:
    """Whether a file that begins so is one pickle (since protocol 2) and not of torch.save."""
    return head.startswith(b"\x80") and _MAGIC not in head[:64]


def read_plain_pickle(path: Path) -> Stored:
    """Its tensors, plain values, and records of everything else. Raises as `s3ta.models.torch_file.read_inert`."""
    with path.open("rb") as file:
        return Reader(file, _no_storage, _CALLS).read()


def _no_storage(_: Any) -> Any:
    raise ValueError("a plain pickle has nothing outside of it")


def _flat(data: bytes) -> Tensor:
    """The numbers of a storage, in a row."""
    storage = read_with_torch(io.BytesIO(data))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # a storage that knows its type will go, and is what such files hold
        return torch.tensor([], dtype=storage.dtype).set_(storage.untyped())


def _tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return flat.as_strided(tuple(size), tuple(stride), offset)


def _first(value: Any, *_: Any) -> Any:
    return value


_CALLS = {
    "torch.storage._load_from_bytes": _flat,
    **dict.fromkeys(("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"), _tensor),
    **dict.fromkeys(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"), _first),
}
