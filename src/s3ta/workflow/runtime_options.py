"""What belongs to this machine, and never to a result."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from s3ta.errors import UserError


class RuntimeOptions(NamedTuple):
    """The data root, the device, and whether data may be downloaded."""

    data_root: Path = Path("data")
    device: str = "auto"
    download: bool = False


_FEW = 3.5
"""Seconds below which an estimate is no number."""


def device_at(place: RuntimeOptions) -> torch.device:
    """`auto`: the GPU where there is one. Raises UserError for a device that torch does not know or have."""
    if place.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place.device)
        return torch.device(place.device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device '{place.device}' here: use auto, cpu or cuda.") from None


def about(seconds: float) -> str:
    """`about 5 min`, or `a few seconds`."""
    return minutes(seconds) if seconds < _FEW else f"about {minutes(seconds)}"


def minutes(seconds: float) -> str:
    """A time as people say it."""
    if seconds < _FEW:
        return "a few seconds"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
