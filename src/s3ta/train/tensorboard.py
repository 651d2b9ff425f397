"""The learning curve in TensorBoard, for those who watch their runs there; the package is an extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from s3ta.errors import UserError

FOLDER = "tensorboard"


@runtime_checkable
class CurveWriter(Protocol):
    """Is told every line of the learning curve."""

    def add(self, line: Mapping[str, Any]) -> None: ...


def check_tensorboard() -> None:
    """Raises UserError where the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise UserError("TensorBoard is not installed: pip install 's3ta[tensorboard]'.") from None


class TensorBoard:
    """Writes `RUN/tensorboard`: one scalar for each number of a line, such as `train/loss` and `train/speed/attack`."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the package is not installed."""
        check_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / FOLDER))

    def add(self, line: Mapping[str, Any]) -> None:
        self._add(str(line["kind"]), line, int(line["step"]))
        self._writer.flush()

    def _add(self, prefix: str, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                self._add(f"{prefix}/{name}", value, step)
            elif isinstance(value, int | float) and name != "step":
                self._writer.add_scalar(f"{prefix}/{name}", value, step)
