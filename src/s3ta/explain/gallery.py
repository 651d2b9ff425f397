"""What a model made of some examples before and after the attack: predictions and, for S3TA, attention by glimpse."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch

from s3ta.attacks import frozen
from s3ta.data import Dataset, fetch
from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.models import S3TA, ResNet

GALLERY = "gallery.npz"


def write_gallery(model: S3TA | ResNet, dataset: Dataset, kept: Path) -> Path:
    """Put `gallery.npz` beside the adversarial images that an evaluation kept (`adversarial.npz`).

    Args:
      model: the model that was attacked, on its device.
      dataset: where the examples come from.
      kept: the evaluation's file of ids, targets and adversarial images.
    Raises:
      UserError: the file is damaged, or names examples that the data set does not have."""
    found = _read(kept)
    ids, adversarial = [str(i) for i in found["example_ids"]], found["adversarial"]
    places = {example_id: i for i, example_id in enumerate(dataset.ids)}
    if any(example_id not in places for example_id in ids):
        raise UserError(f"{kept} holds examples that are not in the {dataset.split} split of {dataset.source}.")
    _, clean, labels = fetch(dataset, [places[example_id] for example_id in ids])
    arrays = found | {"labels": labels.numpy(), "clean": clean.numpy()}
    for name, images in (("clean", clean), ("adversarial", torch.from_numpy(adversarial))):
        arrays |= {f"{key}_{name}": value for key, value in look(model, images).items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(kept.parent / GALLERY, buffer.getvalue())
    return kept.parent / GALLERY


def look(model: S3TA | ResNet, images: torch.Tensor) -> dict[str, np.ndarray]:
    """`probabilities` (B, Y); for S3TA also `attention` (T, B, N, h, w) and `glimpse_probabilities` (T, B, Y)."""
    images = images.to(next(model.parameters()).device)
    with frozen(model), torch.no_grad():
        if not isinstance(model, S3TA):
            return {"probabilities": model(images).softmax(dim=-1).cpu().numpy()}
        logits, attention = model.unroll(images)
    probabilities = logits.softmax(dim=-1).cpu().numpy()
    return {
        "probabilities": probabilities[-1],
        "glimpse_probabilities": probabilities,
        "attention": attention.cpu().numpy(),
    }


def _read(kept: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(kept, allow_pickle=False) as stored:
            return {name: stored[name] for name in ("example_ids", "targets", "adversarial", "attack")}
    except Exception as error:  # noqa: BLE001 - numpy raises many kinds for a damaged archive
        raise UserError(
            f"{kept} is damaged ({type(error).__name__}): remove that file and the chunks beside it, and evaluate again."
        ) from None
