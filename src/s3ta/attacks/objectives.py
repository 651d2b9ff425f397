"""What the attacker wants more of: one number per example, never reduced over the batch. Attacks ascend."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy

from s3ta.errors import UserError
from s3ta.streams import stream
from s3ta.trace import Images, Labels, Logits, Trace

Outputs: TypeAlias = Tensor | Trace
"""What the attacked callable returns: logits (B, Y), or a Trace, of which only objectives look inside."""
OutputsFn: TypeAlias = Callable[[Images], Outputs]
Objective: TypeAlias = Callable[[Outputs], Float[Tensor, " B"]]


def final_logits(outputs: Outputs) -> Logits:
    """The answer: the logits themselves, or a Trace's last read-out."""
    return outputs.logits[-1] if isinstance(outputs, Trace) else outputs


def untargeted(labels: Labels) -> Objective:
    """The cross-entropy of the true label, no smoothing (E7)."""
    return lambda outputs: cross_entropy(final_logits(outputs), labels, reduction="none")


def targeted(targets: Labels) -> Objective:
    """Minus the cross-entropy of the target, no smoothing (T16, paper section 4.1)."""
    return lambda outputs: -cross_entropy(final_logits(outputs), targets, reduction="none")


def random_target(seed: int, example_id: str, label: int, num_classes: int, *draw: int | str) -> int:
    """A class drawn evenly from the wrong ones: (label + U{1..Y-1}) mod Y (T15).

    In evaluation the draw belongs to (seed, example id) alone, so every model, attack, step count and restart has the
    same target (E3, E9). Training adds its epoch as a further part of the name.

    Raises UserError where there is no wrong class, or the label is not one of the classes."""
    if num_classes < 2:
        raise UserError("A targeted attack needs at least two classes.")
    if not 0 <= label < num_classes:
        raise UserError(f"Example {example_id} has label {label}, but the model has classes 0 to {num_classes - 1}.")
    offset = int(stream(seed, "target", example_id, *draw).integers(1, num_classes))
    return (label + offset) % num_classes


def start_noise(
    seed: int, example_id: str, shape: tuple[int, ...], *draw: int | str, random_start_prob: float = 1.0
) -> Float[np.ndarray, "C H W"]:
    """Noise for one example's start: uniform in [-1, 1], or all zero with probability 1 - random_start_prob (T17).

    `draw` names the attack and the restart (evaluation) or the epoch (training)."""
    generator = stream(seed, "start", example_id, *draw)
    if generator.random() >= random_start_prob:
        return np.zeros(shape, np.float32)
    return generator.random(shape, dtype=np.float32) * 2 - 1
