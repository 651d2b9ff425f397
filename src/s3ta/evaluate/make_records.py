"""Records made of images: the ball and the box checked, the model asked once more in float32; and records of what did not
run."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import AttackTrajectory, Threat
from s3ta.errors import UserError
from s3ta.evaluate.evaluation_task import EvaluationTask
from s3ta.evaluate.plan import AttackRound, Chunk
from s3ta.records import NO_TARGET, STATUS_RUN
from s3ta.records.checks_perturbation_size import is_inside
from s3ta.records.schema import MEASURED, SCHEMA


def unattacked(images: Tensor, num_steps: int = 0) -> AttackTrajectory:
    """Images that no attack is run on: clean ones, or another model's adversarial ones."""
    nothing = torch.zeros(1, len(images), dtype=torch.int64)
    return AttackTrajectory((num_steps,), images[None], nothing, nothing)


class AttackedBatch(NamedTuple):
    """One micro-batch after an attack: what it made of which images."""

    attack_round: AttackRound
    attacked: AttackTrajectory
    clean: Tensor
    labels: Tensor
    targets: Tensor | None
    threat: Threat | None
    """What the attack may do; None: nothing."""
    ids: list[str]
    """Of the real examples."""
    first_row: int = 0
    """The row where they begin; all others hold copies."""


def records(model: nn.Module, attacked_batch: AttackedBatch, read_out: int) -> dict[str, np.ndarray]:
    """One record per real example at one read-out, counted from 0: float32 eager classification of the image itself."""
    attack_round, attacked, clean, labels, targets, threat, ids, first = attacked_batch
    images, count = attacked.images[read_out], len(ids)
    violation = threat.violation(images, clean).max().item() if threat else (images - clean).abs().max().item()
    if not is_inside(violation, threat.radius if threat else 0.0):
        sentence = f"attack {attack_round.name} left ball or box by {violation}: its result cannot be recorded"
        raise AssertionError(sentence)
    with torch.no_grad():
        logits = model(images).float()
    if rows := (~torch.isfinite(logits).all(dim=1)).nonzero().flatten().tolist():
        example = ids[min(max(rows[0] - first, 0), count - 1)]
        problem = "is not finite (NaN or infinite): it cannot be scored as right or wrong."
        raise UserError(f"The model's answer to example {example} {problem}")
    prediction = logits.argmax(dim=1)
    aim = torch.full_like(labels, NO_TARGET) if targets is None else targets

    def real(values: Tensor) -> np.ndarray:
        return values[first : first + count].cpu().numpy()

    return {
        "example_id": np.array(ids),
        "label": real(labels),
        "target": real(aim),
        "attack": np.full(count, attack_round.name),
        "restart": np.full(count, attack_round.restart),
        "num_attack_steps": np.full(count, attacked.read_outs[read_out]),
        "prediction": real(prediction),
        "confidence": real(logits.softmax(dim=1).amax(dim=1).clamp(max=1)),
        "loss": real(cross_entropy(logits, labels, reduction="none")),
        "correct": real(prediction == labels),
        "hit": real((prediction == aim) & (aim >= 0)),
        "distance": real(threat.distance(images, clean)) if threat else np.zeros(count, np.float32),
        "num_gradients": real(attacked.num_gradients[read_out]),
        "num_forwards": real(attacked.num_forwards[read_out]) + read_out + 1,  # a verdict at each read-out up to here
        "status": np.full(count, STATUS_RUN),
    }


def left_out_records(task: EvaluationTask, chunk: Chunk) -> list[dict[str, np.ndarray]]:
    """Records of those that did not run: which, and why; nothing else is known, and nothing is invented."""
    if not chunk.left_out or chunk.attack_round.attack is None:
        return []
    positions, status = zip(*chunk.left_out, strict=True)
    dataset, count, is_targeted = task.dataset, len(positions), chunk.attack_round.attack.attack.objective == "targeted"
    ids = [dataset.ids[int(position)] for position in positions]
    labels = torch.from_numpy(np.asarray([dataset.labels[int(position)] for position in positions], np.int64))
    aim = task.targets(ids, labels) if is_targeted else torch.full_like(labels, NO_TARGET)
    unknown = {name: np.ma.masked_array(_zeros(name, count), mask=True) for name in MEASURED}
    return [
        {
            "example_id": np.array(ids),
            "label": labels.numpy(),
            "target": aim.numpy(),
            "attack": np.full(count, chunk.attack_round.name),
            "restart": np.full(count, chunk.attack_round.restart),
            "num_attack_steps": np.full(count, steps),
            **unknown,
            "num_gradients": _zeros("num_gradients", count),
            "num_forwards": _zeros("num_forwards", count),
            "status": np.array(status),
        }
        for steps in chunk.attack_round.read_outs
    ]


def no_records() -> dict[str, np.ndarray]:
    """The columns of a chunk without examples: all of them fitted into the ones before."""
    return {name: _zeros(name, 0) for name in SCHEMA.names}


def _zeros(name: str, count: int) -> np.ndarray:
    return np.zeros(count, SCHEMA.field(name).type.to_pandas_dtype())
