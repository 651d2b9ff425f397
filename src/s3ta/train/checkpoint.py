"""The complete state of a training run in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.files import sha256, write_atomic
from s3ta.models import load_weights

FORMAT = 1
NAME = "checkpoint.safetensors"


class Progress(NamedTuple):
    """How far a run has come: finished steps, and the sums behind the next log line."""

    step: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    num_seen: int = 0
    seconds: float = 0.0


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, recipe_hash: str
) -> None:
    """Write weights, optimizer state and position; data order, augmentation and attacks follow from the position."""
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    for name, state in _optimizer_state(model, optimizer).items():
        tensors |= {f"optimizer.{name}.{key}": torch.as_tensor(value) for key, value in state.items()}
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    about = {
        "format": FORMAT,
        "recipe": recipe_hash,
        "progress": progress._asdict(),
        "content": _content(tensors),
    }
    write_atomic(path, save(tensors, metadata={"s3ta": json.dumps(about)}))


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, recipe_hash: str) -> Progress:
    """Fill model and optimizer and say where the run stood.

    Raises UserError for a damaged or foreign file, a newer format, or another recipe's checkpoint."""
    about, tensors = _read(path)
    number, progress = about.get("format"), about.get("progress")
    if not isinstance(number, int) or number > FORMAT:
        raise UserError(f"{path} was written by a newer version of s3ta (format {number}): upgrade to resume it.")
    if about.get("recipe") != recipe_hash:
        raise UserError(f"{path} belongs to another recipe or other data: choose another run folder.")
    if not isinstance(progress, dict) or set(progress) != set(Progress._fields):
        raise UserError(f"{path} does not say how far the run had come: move it away to train from the start.")
    load_weights(model, _under(tensors, "model."), path)
    if about.get("content") != _content(tensors) or (progress["step"] and not _under(tensors, "optimizer.")):
        raise UserError(
            f"{path} is damaged: its content does not match its hash. Move it away to train from the start."
        )
    _fill_optimizer(model, optimizer, _under(tensors, "optimizer."))
    return Progress(**progress)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("s3ta", "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, OSError):
        raise UserError(f"{path} is damaged, or not a checkpoint: move it away to train from the start.") from None
    if not isinstance(about, dict):
        raise UserError(f"{path} is not a checkpoint of this program: move it away to train from the start.")
    return about, tensors


def _content(tensors: dict[str, Tensor]) -> str:
    """Identifies what the tensors hold, so that a flipped bit is noticed."""
    return sha256(*(part for key in sorted(tensors) for part in (key.encode(), tensors[key].numpy().tobytes())))


def _optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    return {
        name: optimizer.state[parameter] for name, parameter in model.named_parameters() if parameter in optimizer.state
    }


def _fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        own = _under(tensors, f"{name}.")
        if own:
            # Adam keeps its step count on the CPU; the moments live with the parameter.
            optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in own.items()
            }


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
