"""Everything random in an attack, drawn on the CPU from streams with names: never from global state, and for one example
never depending on its neighbours, their number or the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.errors import UserError
from s3ta.random_streams import stream
from s3ta.types import Labels


class RandomKey(NamedTuple):
    """Whose random numbers an attack draws: those of (seed, purpose, example id, *names)."""

    seed: int
    ids: tuple[str, ...]
    """One per image."""
    names: tuple[int | str, ...] = ()
    """The attack and the restart in evaluation; "train" and the epoch in training."""
    restart: int = 0
    """Which restart this is; attacks that try one thing after another (targets, glimpses) go by it."""


def random_target(seed: int, example_id: str, label: int, num_classes: int, *names: int | str) -> int:
    """A class drawn evenly from the wrong ones: (label + U{1..Y-1}) mod Y (T15).

    In evaluation the draw belongs to (seed, example id) alone, so every model, attack, step count and restart has the
    same target (E3, E9). Training adds its epoch as a further part of the name.

    Raises UserError where there is no wrong class, or the label is not one of the classes."""
    if num_classes < 2:
        raise UserError("A targeted attack needs at least two classes.")
    if not 0 <= label < num_classes:
        raise UserError(f"Example {example_id} has label {label}, but the model has classes 0 to {num_classes - 1}.")
    offset = int(stream(seed, "target", example_id, *names).integers(1, num_classes))
    return (label + offset) % num_classes


def draw_targets(seed: int, ids: Sequence[str], labels: Labels, num_classes: int, *names: int | str) -> Labels:
    """One target per example from its own stream; see `random_target`."""
    drawn = [random_target(seed, i, int(y), num_classes, *names) for i, y in zip(ids, labels, strict=True)]
    return torch.tensor(drawn, dtype=labels.dtype, device=labels.device)


def start_noise(
    seed: int,
    example_id: str,
    shape: tuple[int, ...],
    *names: int | str,
    random_start_prob: float = 1.0,
    normal: bool = False,
) -> Float[np.ndarray, "C H W"]:
    """Noise for one example's start: uniform in [-1, 1], or all zero with probability 1 - random_start_prob (T17).

    `names` are the attack and the restart (evaluation) or the epoch (training). `normal` draws from the normal
    distribution instead, whose direction is uniform: what a start in the L2 ball needs."""
    generator = stream(seed, "start", example_id, *names)
    if generator.random() >= random_start_prob:
        return np.zeros(shape, np.float32)
    if normal:
        return generator.standard_normal(shape, dtype=np.float32)
    return generator.random(shape, dtype=np.float32) * 2 - 1


def random_signs(draw: RandomKey, like: Tensor) -> Tensor:
    """A corner of the L-infinity ball for each example: -1 or 1 at every pixel, from the streams of its start."""
    noise = [start_noise(draw.seed, i, tuple(like.shape[1:]), *draw.names) for i in draw.ids]
    return torch.from_numpy(np.stack(noise)).sign().to(like)


def needed(draw: RandomKey | None) -> RandomKey:
    """The key. Raises UserError where there is none."""
    if draw is None:
        raise UserError("This attack draws random numbers: give `draw`, such as Draw(seed=0, ids=(...)), or a start.")
    return draw
