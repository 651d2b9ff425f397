"""What a model made of some examples before and after the attack: predictions and, for S3TA, attention by glimpse."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from s3ta.attacks import frozen_in_eval_mode, seeded_global_generators
from s3ta.data import Dataset, fetch_batch
from s3ta.errors import UserError
from s3ta.models import device_of
from s3ta.process_state import process_state_kept

KEPT = ("example_ids", "targets", "adversarial", "attack")
"""The arrays that an evaluation keeps of its first examples."""


def build_gallery(
    model: nn.Module, dataset: Dataset, kept: dict[str, np.ndarray], micro_batch: int
) -> dict[str, np.ndarray]:
    """The kept arrays, and beside them `labels`, `clean` images, and what `predict_with_attention` sees, `_clean` and
    `_adversarial`.

    Args:
      model: the model that was attacked, on its device.
      dataset: where the examples come from.
      kept: ids, targets (-1: none), adversarial images (n, C, H, W) and the attack's name.
      micro_batch: the evaluation's, so that the answers shown are the recorded ones to the last bit.
    Raises UserError: the examples are not in the data set."""
    ids = [str(i) for i in kept["example_ids"]]
    positions = {example_id: i for i, example_id in enumerate(dataset.ids)}
    if any(example_id not in positions for example_id in ids):
        raise UserError(
            f"The kept images are of examples that are not in the {dataset.split} split of {dataset.source}."
        )
    _, clean, labels, _ = fetch_batch(dataset, [positions[example_id] for example_id in ids])
    arrays = kept | {"labels": labels.numpy(), "clean": clean.numpy()}
    for name, images in (("clean", clean), ("adversarial", torch.from_numpy(kept["adversarial"]))):
        arrays |= {f"{key}_{name}": value for key, value in predict_with_attention(model, images, micro_batch).items()}
    return arrays


def predict_with_attention(model: nn.Module, images: torch.Tensor, micro_batch: int = 0) -> dict[str, np.ndarray]:
    """`probabilities` (B, Y); where it takes glimpses also `attention` (T, B, N, h, w) and `glimpse_probabilities` (T, B, Y).

    The batch is filled up to `micro_batch` images with copies of the last one, which are left out of the answer."""
    count = len(images)
    images = torch.cat([images, images[-1:].expand(max(0, micro_batch - count), -1, -1, -1)])
    images = images.to(device_of(model))
    with process_state_kept(), frozen_in_eval_mode(model), seeded_global_generators(0), torch.no_grad():
        unroll = getattr(model, "unroll", None)
        if unroll is None:
            return {"probabilities": _array(model(images)[:count].float().softmax(dim=-1))}
        logits, attention = unroll(images)
    probabilities = _array(logits[:, :count].float().softmax(dim=-1))
    return {
        "probabilities": probabilities[-1],
        "glimpse_probabilities": probabilities,
        "attention": _array(attention[:, :count]),
    }


def _array(values: torch.Tensor) -> np.ndarray:
    """In float32: NumPy has no bfloat16."""
    return values.float().cpu().numpy()
