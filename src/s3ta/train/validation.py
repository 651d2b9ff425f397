"""Accuracy on the validation split while training: clean, and under the training attack at full strength."""

from __future__ import annotations

import torch
from torch import Tensor

from s3ta.attacks import OutputsFn, RandomKey, draw_start, draw_targets, final_logits, frozen_in_eval_mode, run_attack
from s3ta.data import Dataset, fetch_batch
from s3ta.models import NativeClassifier
from s3ta.train.config import TrainConfig
from s3ta.train.losses import make_outputs_fn

LIMIT = 200
"""Examples of the validation split that live accuracy is measured on."""


def evenly_spaced(num_examples: int, limit: int = LIMIT) -> list[int]:
    """Positions of up to `limit` examples, evenly spaced: folders lie class by class."""
    count = min(limit, num_examples)
    return [number * num_examples // count for number in range(count)]


def validate(
    model: NativeClassifier, dataset: Dataset, config: TrainConfig, batch_size: int, glimpses: int | None = None
) -> dict[str, int | float]:
    """Shares of right answers over up to `LIMIT` examples, always the same, with the same targets and starts.

    `glimpses` is where a curriculum reads out now; None: the model's own number."""
    attack, seed = config.attack.model_copy(update={"random_start_prob": 1.0}), config.seed
    outputs_fn = make_outputs_fn(model, glimpses)
    attacked_fn = make_outputs_fn(model, attack.num_glimpses or glimpses, trace=attack.needs_trace)
    indices = evenly_spaced(len(dataset.ids))
    if not indices:
        return {"num_examples": 0}
    device = next(model.parameters()).device
    clean_correct = attacked_correct = 0
    for first in range(0, len(indices), batch_size):
        ids, images, labels, _ = fetch_batch(dataset, indices[first : first + batch_size])
        images, labels = images.to(device), labels.to(device)
        targets = draw_targets(seed, ids, labels, model.config.num_classes) if attack.objective == "targeted" else None
        start = draw_start(attack, seed, ids, images, "validation")
        draw = RandomKey(seed, tuple(ids), ("validation",))
        attacked = run_attack(attacked_fn, images, labels, config=attack, targets=targets, start=start, draw=draw).final
        clean_correct += _num_correct(outputs_fn, images, labels)
        attacked_correct += _num_correct(outputs_fn, attacked, labels)
    return {
        "num_examples": len(indices),
        "clean": clean_correct / len(indices),
        "attacked": attacked_correct / len(indices),
    }


def _num_correct(outputs_fn: OutputsFn, images: Tensor, labels: Tensor) -> int:
    with frozen_in_eval_mode(outputs_fn), torch.no_grad():
        return int((final_logits(outputs_fn(images)).argmax(dim=1) == labels).sum())
