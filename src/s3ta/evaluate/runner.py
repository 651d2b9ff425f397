"""The evaluation: attack, check ball and box, classify again, record. It decides the truth; attacks only propose.

Every example runs in a micro-batch of one fixed size with one fixed number of threads, its target and start come from its
own stream, and each finished piece is one atomic chunk of the ledger. So the records are the same whether the run went
through at once or was killed and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from s3ta.attacks import Linf, autograd_gradient, draw_start, draw_targets, frozen, pgd, untargeted
from s3ta.data import Batch, Dataset, check_fit, fetch
from s3ta.errors import UserError
from s3ta.evaluate.plan import Piece, Settings, manifest, plan
from s3ta.evaluate.suites import Suite
from s3ta.exact import exact_arithmetic
from s3ta.files import write_arrays
from s3ta.models import S3TA, ResNet
from s3ta.progress import Reporter
from s3ta.records import NO_TARGET, Ledger

KEPT_FILE = "adversarial.npz"
_TOLERANCE = 1e-6


def evaluate(
    model: S3TA | ResNet,
    dataset: Dataset,
    suite: Suite,
    folder: Path,
    positions: Sequence[int],
    settings: Settings,
    report: Reporter,
) -> Ledger:
    """Run what is missing of a suite and return its ledger, complete.

    Args:
      model: on the device to use; its mode and parameters are as before afterwards.
      dataset: where the examples come from.
      suite: the attacks.
      folder: of the ledger; made, or resumed if it measures the same thing.
      positions: places of the examples in the data set (`choose_examples`).
      settings: seed, micro-batch, threads.
      report: told the number of finished gradient evaluations.
    Raises:
      UserError: model and data do not fit, or the folder holds another measurement (differences named)."""
    ledger = open_ledger(model, dataset, suite, folder, positions, settings)
    pieces = plan(suite, positions, settings.micro_batch)
    missing = set(ledger.missing(len(pieces)))
    if not (folder / KEPT_FILE).is_file():  # its images come from one piece, which is then run again
        missing |= {i for i, piece in enumerate(pieces) if _is_kept(piece, suite)}
    done = sum(piece.num_gradients for i, piece in enumerate(pieces) if i not in missing)
    report(done)
    with exact_arithmetic(settings.num_threads), frozen(model):
        for index in sorted(missing):
            piece = pieces[index]
            columns, kept = run_piece(model, dataset, piece, settings)
            if _is_kept(piece, suite):
                _keep(folder / KEPT_FILE, piece, dataset, columns, kept[: settings.num_kept])
            ledger.write_chunk(index, columns)
            done += piece.num_gradients
            report(done, f"{piece.name}: {np.mean(columns['correct']):.0%} right")
    return ledger


def open_ledger(
    model: S3TA | ResNet, dataset: Dataset, suite: Suite, folder: Path, positions: Sequence[int], settings: Settings
) -> Ledger:
    """The ledger of this measurement, made or found. Arguments and errors as in `evaluate`."""
    check_fit(dataset, channels=model.config.vision.in_channels, num_classes=model.config.num_classes)
    device = next(model.parameters()).device
    return Ledger.open(folder, manifest(model, dataset, suite, positions, settings, device))


def run_piece(
    model: S3TA | ResNet, dataset: Dataset, piece: Piece, settings: Settings
) -> tuple[dict[str, Any], Tensor]:
    """The records of one piece, and its images after the last attack step."""
    device = next(model.parameters()).device
    ids, clean, labels = _padded(fetch(dataset, piece.positions), settings.micro_batch)
    clean, labels = clean.to(device), labels.to(device)
    targets = None
    if piece.attack is None:
        read_outs, adversarial, radius = (0,), clean[None], 0.0
    else:
        config = piece.attack.attack
        if config.objective == "targeted":
            targets = draw_targets(settings.seed, ids, labels, model.config.num_classes)
        start = draw_start(config, settings.seed, ids, clean, piece.name, piece.restart)
        read_outs, adversarial, _ = pgd(model, clean, labels, config=config, targets=targets, start=start)
        radius = config.radius
    rows = [
        _records(model, piece, n, images, clean, labels, targets, radius, ids)
        for n, images in zip(read_outs, adversarial, strict=True)
    ]
    columns = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return columns, adversarial[-1, : len(piece.positions)]


def _records(
    model: S3TA | ResNet,
    piece: Piece,
    num_attack_steps: int,
    images: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    radius: float,
    ids: list[str],
) -> dict[str, np.ndarray]:
    """One record per real example at one read-out: float32 eager classification of the image itself."""
    threat = Linf(radius)
    violation = threat.violation(images, clean).max().item()
    if not violation <= _TOLERANCE:
        raise AssertionError(f"attack {piece.name} left ball or box by {violation}: its result cannot be recorded")
    with torch.no_grad():
        logits = model(images).float()
    if not torch.isfinite(logits).all():
        bad = ids[int((~torch.isfinite(logits).all(dim=1)).nonzero()[0])]
        raise UserError(
            f"The model's answer to example {bad} is not finite (NaN or infinite): it cannot be scored as right or wrong."
        )
    prediction = logits.argmax(dim=1)
    aim = torch.full_like(labels, NO_TARGET) if targets is None else targets
    count = len(piece.positions)

    def real(values: Tensor) -> np.ndarray:
        return values[:count].cpu().numpy()

    return {
        "example_id": np.array(ids[:count]),
        "label": real(labels),
        "target": real(aim),
        "attack": np.full(count, piece.name),
        "restart": np.full(count, piece.restart),
        "num_attack_steps": np.full(count, num_attack_steps),
        "prediction": real(prediction),
        "loss": real(cross_entropy(logits, labels, reduction="none")),
        "correct": real(prediction == labels),
        "hit": real((prediction == aim) & (aim >= 0)),
        "distance": real(threat.distance(images, clean)),
        "num_gradients": np.full(count, num_attack_steps),
        "num_forwards": np.full(count, num_attack_steps + 1),
    }


def _padded(batch: Batch, size: int) -> Batch:
    """The batch filled up to `size` with copies of its last example."""
    missing = size - len(batch.ids)
    if not missing:
        return batch
    return Batch(
        batch.ids + batch.ids[-1:] * missing,
        torch.cat([batch.images, batch.images[-1:].expand(missing, -1, -1, -1)]),
        torch.cat([batch.labels, batch.labels[-1:].expand(missing)]),
    )


def _is_kept(piece: Piece, suite: Suite) -> bool:
    """Whether the report shows images of this piece."""
    return piece.is_first and piece.restart == 0 and piece.name == suite.gallery_attack


def _keep(path: Path, piece: Piece, dataset: Dataset, columns: dict[str, Any], images: Tensor) -> None:
    """Keep some attacked images, with the targets that the attack was given (-1: none)."""
    arrays = {
        "example_ids": np.array([dataset.ids[i] for i in piece.positions[: len(images)]]),
        "targets": columns["target"][: len(images)],
        "adversarial": images.cpu().numpy(),
        "attack": np.array(piece.name),
    }
    write_arrays(path, arrays)


def seconds_per_gradient(model: S3TA | ResNet, dataset: Dataset, settings: Settings) -> float:
    """Measured time of one gradient of a whole micro-batch here, for the estimate shown before the start."""
    batch = _padded(fetch(dataset, [0]), settings.micro_batch)
    device = next(model.parameters()).device
    images, labels = batch.images.to(device), batch.labels.to(device)
    with exact_arithmetic(settings.num_threads), frozen(model):
        autograd_gradient(model, untargeted(labels), images).sum().item()  # warm-up
        began = time.perf_counter()
        autograd_gradient(model, untargeted(labels), images).sum().item()
        return time.perf_counter() - began
