"""The complete state of a training run in one safetensors file, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from s3ta.config import from_json
from s3ta.errors import UserError
from s3ta.files import sha256, write_atomic
from s3ta.models import load_weights
from s3ta.train.config import TrainConfig

FORMAT = 2
NAME = "checkpoint.safetensors"
Differences = Callable[[TrainConfig], list[str]]
"""Why a run may not go on with another recipe than this one, as phrases."""


class Progress(NamedTuple):
    """How far a run has come: finished steps, the sums behind the next log line, and whether bfloat16 has begun."""

    step: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    num_seen: int = 0
    seconds: float = 0.0
    is_lower: bool = False


class TrainState(NamedTuple):
    """What training moves."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    """The moving average of the weights."""


class Identity(NamedTuple):
    """Which run a checkpoint belongs to."""

    hash: str
    """Of the recipe, a slash, and the data's fingerprint."""
    recipe: str = ""
    """As JSON."""


def save_checkpoint(
    path: Path, state: TrainState, progress: Progress, identity: Identity, buffers: Sequence[dict[str, Tensor]] = ()
) -> None:
    """Write all that a run is; data order, augmentation, attacks and the schedule follow from the recipe and the position.

    `buffers` are those of all processes in order (`buffers_of`): each has its own moving averages of BN, and those of the
    first one are the model's."""
    model, optimizer, average = state
    parts = {"model": model.state_dict(), "average": {} if average is None else average.state_dict()}
    parts |= {f"buffers.{rank}": of_rank for rank, of_rank in enumerate(buffers[1:], 1)}
    moments = optimizer.state
    parts |= {f"optimizer.{name}": moments[tensor] for name, tensor in model.named_parameters() if tensor in moments}
    tensors = {
        f"{part}.{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for part, values in parts.items()
        for key, value in values.items()
    }
    about = {
        "format": FORMAT,
        "recipe": identity.hash,
        "progress": progress._asdict(),
        "config": identity.recipe,
        "has_state": any(key.startswith("optimizer.") for key in tensors),
        "content": _content(tensors),
    }
    write_atomic(path, save(tensors, metadata={"s3ta": json.dumps(about)}))


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """BN's moving averages and counts, as the model is saved with them."""
    parameters = dict(model.named_parameters())
    return {key: value for key, value in model.state_dict().items() if key not in parameters}


def load_checkpoint(
    path: Path, state: TrainState, identity_hash: str, differences_from: Differences | None = None, rank: int = 0
) -> Progress:
    """Fill the state and say where the run stood. A process whose own buffers are not there (the run went on with fewer)
    takes those of the first.

    Where the hash is another one, `differences_from` the recipe in the file decides, which is read through today's configs:
    settings that came later have their defaults. A file of format 1 has only a hash: that of the data is compared, and the
    run folder answers for the recipe.

    Raises UserError for a damaged or foreign file, a newer format, or another recipe's checkpoint (every difference is
    named)."""
    about = _about(path)
    with _damage_named(path):
        tensors = load_file(path)
    number, progress = about.get("format"), about.get("progress")
    if not isinstance(number, int) or number > FORMAT:
        raise UserError(f"{path} was written by a newer version of s3ta (format {number}): upgrade to resume it.")
    if about.get("recipe") != identity_hash:
        _refuse_other_run(path, about, identity_hash, differences_from)
    if not isinstance(progress, dict) or not {"step"} <= set(progress) <= set(Progress._fields):
        raise UserError(f"{path} does not say how far the run had come: move it away to train from the start.")
    load_weights(state.model, _under(tensors, "model.") | _under(tensors, f"buffers.{rank}."), path)
    if about.get("content") != _content(tensors) or (
        progress["step"] and about.get("has_state", True) and not _under(tensors, "optimizer.")
    ):
        raise UserError(
            f"{path} is damaged: its content does not match its hash. Move it away to train from the start."
        )
    if state.average is not None:
        load_weights(state.average, _under(tensors, "average."), path)
    _fill_optimizer(state.model, state.optimizer, _under(tensors, "optimizer."))
    return Progress(**progress)


def _refuse_other_run(
    path: Path, about: dict[str, Any], identity_hash: str, differences_from: Differences | None
) -> None:
    differences = ["the recipe differs"] if differences_from is None else []
    if differences_from is not None and about.get("config"):
        differences = differences_from(from_json(TrainConfig, about["config"], f"recipe in {path}"))
    data_there, data_now = (str(text).partition("/")[2] for text in (about.get("recipe"), identity_hash))
    if data_there != data_now:
        differences.append(f"the data's fingerprint is {data_there} there and {data_now} now")
    if differences:
        raise UserError(
            f"{path} belongs to another recipe or other data: {'; '.join(differences[:4])}. Choose another run folder."
        )


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, ValueError, OSError):
        raise UserError(f"{path} is damaged, or not a checkpoint: move it away to train from the start.") from None


def _about(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; its tensors are not read."""
    with _damage_named(path), safe_open(str(path), framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("s3ta", "null"))
    if not isinstance(about, dict):
        raise UserError(f"{path} is not a checkpoint of this program: move it away to train from the start.")
    return about


def step_of(path: Path) -> int:
    """How many training steps the run had done. Raises UserError for a damaged or foreign file."""
    return _about(path).get("progress", {}).get("step", 0) if path.exists() else 0


def _content(tensors: dict[str, Tensor]) -> str:
    """Identifies what the tensors hold, so that a flipped bit is noticed."""
    return sha256(*(part for key in sorted(tensors) for part in (key.encode(), tensors[key].numpy().tobytes())))


def _fill_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    is_fused = any(group.get("fused") for group in optimizer.param_groups)
    for name, parameter in model.named_parameters():
        state = _under(tensors, f"{name}.")
        if state:
            # The moments live with the parameter, in its memory order; Adam's count of steps on the CPU unless it is fused.
            optimizer.state[parameter] = {
                key: (value.to(parameter.device) if is_fused else value)
                if key == "step"
                else torch.empty_like(parameter).copy_(value)
                for key, value in state.items()
            }


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
