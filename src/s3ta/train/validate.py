"""Accuracy on the validation split while training: clean, and under the training attack at full strength."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from s3ta.attacks import Draw, PGDConfig, draw_start, draw_targets, final_logits, frozen, run_attack
from s3ta.attacks.objectives import OutputsFn
from s3ta.data import Dataset, fetch
from s3ta.models import S3TA, ResNet


def validate(
    model: S3TA | ResNet,
    dataset: Dataset,
    attack: PGDConfig,
    seed: int,
    batch_size: int,
    glimpses: int | None = None,
    limit: int = 200,
) -> dict[str, int | float]:
    """Shares of right answers over the first `limit` examples, with always the same targets and starts.

    `glimpses` is where a curriculum reads out now; None: the model's own number."""
    outputs_fn = looking(model, glimpses)
    attacked_fn = looking(model, attack.num_glimpses or glimpses, trace=attack.needs_trace)
    indices = range(min(limit, len(dataset.ids)))
    if not indices:
        return {"num_examples": 0}
    device = next(model.parameters()).device
    attack = attack.model_copy(update={"random_start_prob": 1.0})
    clean_correct = attacked_correct = 0
    for first in range(0, len(indices), batch_size):
        ids, images, labels = fetch(dataset, indices[first : first + batch_size])
        images, labels = images.to(device), labels.to(device)
        targets = draw_targets(seed, ids, labels, model.config.num_classes) if attack.objective == "targeted" else None
        start = draw_start(attack, seed, ids, images, "validation")
        draw = Draw(seed, tuple(ids), ("validation",))
        attacked = run_attack(attacked_fn, images, labels, config=attack, targets=targets, start=start, draw=draw).final
        clean_correct += _num_correct(outputs_fn, images, labels)
        attacked_correct += _num_correct(outputs_fn, attacked, labels)
    return {
        "num_examples": len(indices),
        "clean": clean_correct / len(indices),
        "attacked": attacked_correct / len(indices),
    }


def looking(model: S3TA | ResNet, glimpses: int | None, *, trace: bool = False) -> OutputsFn:
    """The model, or its trace: after another number of glimpses than its own, or where an attack wants to see it."""
    return partial(model.unroll, num_glimpses=glimpses) if (glimpses or trace) and isinstance(model, S3TA) else model


def _num_correct(outputs_fn: OutputsFn, images: Tensor, labels: Tensor) -> int:
    with frozen(outputs_fn), torch.no_grad():
        return int((final_logits(outputs_fn(images)).argmax(dim=1) == labels).sum())
