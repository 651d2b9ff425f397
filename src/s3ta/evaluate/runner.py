"""The evaluation: attack, check ball and box, classify again, record. It decides the truth; attacks only propose.

Every example runs in a micro-batch of one fixed size with one fixed number of threads, its target and start come from its
own stream, and each finished piece is one atomic chunk of the ledger. Who is left out follows from the records alone. So
the records are the same whether the run went through at once or was killed and resumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s3ta.attacks import Draw, autograd_gradient, draw_targets, frozen, run_attack, threat_of, untargeted
from s3ta.data import Batch, Dataset, check_fit, fetch
from s3ta.evaluate.kept import KeptImages, keep, lacks_images
from s3ta.evaluate.plan import Piece, Settings, manifest, pieces, stages
from s3ta.evaluate.search import attacked_fn, searched
from s3ta.evaluate.standing import Standing
from s3ta.evaluate.suites import Suite, TransferConfig
from s3ta.evaluate.verdict import left_out_records, no_records, records, untouched
from s3ta.exact import exact_arithmetic
from s3ta.models import S3TA, ResNet
from s3ta.progress import Reporter
from s3ta.records import RUN, Ledger


def evaluate(
    model: S3TA | ResNet,
    dataset: Dataset,
    suite: Suite,
    folder: Path,
    positions: Sequence[int],
    settings: Settings,
    report: Reporter,
    images: KeptImages | None = None,
) -> Ledger:
    """Run what is missing of a suite and return its ledger, complete.

    Args:
      model: on the device to use; its mode and parameters are as before afterwards.
      dataset: where the examples come from.
      suite: the attacks.
      folder: of the ledger; made, or resumed if it measures the same thing.
      positions: places of the examples in the data set (`choose_examples`).
      settings: seed, micro-batch, threads, search, who may leave.
      report: told the number of finished evaluations, those not needed among them.
      images: those of another model's evaluation, for a suite of transfers.
    Raises:
      UserError: model and data do not fit, or the folder holds another measurement (differences named)."""
    ledger = open_ledger(model, dataset, suite, folder, positions, settings)
    missing = set(ledger.missing(ledger.num_chunks))
    standing = Standing(suite, settings, dataset, positions)
    searcher, done, began = searched(model, settings.search), 0, False
    with exact_arithmetic(settings.num_threads), frozen(model), frozen(searcher):
        for stage in stages(suite):
            left_out = standing.left_out(stage)
            for piece in pieces(stage, positions, settings.micro_batch, left_out):
                if piece.chunk in missing or lacks_images(piece, suite, settings, folder):
                    if not began:
                        report(done)  # what an earlier, interrupted run had done
                        began = True
                    columns, final = run_piece(model, searcher, dataset, piece, settings, images)
                    keep(folder, piece, suite, settings, dataset, columns, final)
                    ledger.write_chunk(piece.chunk, columns)
                elif standing.matters:
                    columns = _columns(ledger, piece.chunk)
                else:
                    columns = None
                if columns is not None:
                    standing.see(columns)
                done += piece.num_evaluations
                if began:
                    report(done, "" if columns is None else _note(piece, columns))
    if not began:
        report(done)
    return ledger


def open_ledger(
    model: S3TA | ResNet, dataset: Dataset, suite: Suite, folder: Path, positions: Sequence[int], settings: Settings
) -> Ledger:
    """The ledger of this measurement, made or found. Arguments and errors as in `evaluate`."""
    check_fit(dataset, channels=model.config.vision.in_channels, num_classes=model.config.num_classes)
    device = next(model.parameters()).device
    return Ledger.open(folder, manifest(model, dataset, suite, positions, settings, device))


def run_piece(
    model: S3TA | ResNet,
    searcher: nn.Module,
    dataset: Dataset,
    piece: Piece,
    settings: Settings,
    images: KeptImages | None = None,
) -> tuple[dict[str, Any], Tensor]:
    """The records of one piece, and the images of those that ran after the last attack step."""
    device = next(model.parameters()).device
    parts, final = [], torch.empty(0, *dataset.shape)
    if piece.positions:
        ids, clean, labels = _padded(fetch(dataset, piece.positions), settings.micro_batch)
        clean, labels = clean.to(device), labels.to(device)
        draw = Draw(settings.seed, tuple(ids), (piece.stage.name, piece.stage.restart), piece.stage.restart)
        targets, config = None, piece.stage.attack.attack if piece.stage.attack else None
        if config is not None and config.objective == "targeted":
            targets = draw_targets(settings.seed, ids, labels, model.config.num_classes)
        if config is None:
            attacked, threat = untouched(clean), None
        elif isinstance(config, TransferConfig):
            assert images is not None, "a suite of transfers needs the images"
            found = images.load(config.attack_name, piece.stage.restart, ids[: len(piece.positions)])
            attacked = untouched(
                _padded(Batch(ids, found, labels), settings.micro_batch).images.to(device), config.num_attack_steps
            )
            threat = threat_of(config.attack, clean, draw)
        else:
            outputs_fn = attacked_fn(searcher, config)
            attacked = run_attack(outputs_fn, clean, labels, config=config, targets=targets, draw=draw)
            threat = threat_of(config, clean, draw)
        parts = [
            records(model, piece, attacked, read_out, clean, labels, targets, threat, ids)
            for read_out in range(len(attacked.read_outs))
        ]
        final = attacked.final[: len(piece.positions)]
    parts += left_out_records(dataset, piece, settings, model.config.num_classes)
    columns = {key: np.ma.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else no_records()
    return columns, final


def _columns(ledger: Ledger, index: int) -> dict[str, Any]:
    """A finished chunk's records, as `Standing` wants them."""
    table = ledger.read_chunk(index)
    return {name: table[name].to_pylist() for name in table.column_names}


def _note(piece: Piece, columns: dict[str, Any]) -> str:
    answers = [
        bool(correct) for correct, status in zip(columns["correct"], columns["status"], strict=True) if status == RUN
    ]
    told = f"{sum(answers)} of {len(answers)} right" if answers else "nobody left to attack"
    return f"{piece.stage.name}: {told}"


def _padded(batch: Batch, size: int) -> Batch:
    """The batch filled up to `size` with copies of its last example."""
    missing = size - len(batch.images)
    if not missing:
        return batch
    return Batch(
        batch.ids + batch.ids[-1:] * (size - len(batch.ids)),
        torch.cat([batch.images, batch.images[-1:].expand(missing, -1, -1, -1)]),
        torch.cat([batch.labels, batch.labels[-1:].expand(size - len(batch.labels))]),
    )


def pace(model: S3TA | ResNet, dataset: Dataset, settings: Settings) -> tuple[float, float]:
    """Seconds that a gradient and a forward pass of a whole micro-batch take here, for the estimate before the start."""
    batch = _padded(fetch(dataset, [0]), settings.micro_batch)
    device = next(model.parameters()).device
    images, labels = batch.images.to(device), batch.labels.to(device)

    plain = settings.search._replace(compiled=False)  # compiling takes longer than it would show
    searcher = searched(model, plain)

    def gradient() -> None:
        autograd_gradient(searcher, untargeted(labels), images).gradient.sum().item()

    def forward() -> None:
        with torch.no_grad():
            model(images).sum().item()

    with exact_arithmetic(settings.num_threads), frozen(model), frozen(searcher):
        times = []
        for work in (gradient, forward):
            work()  # warm-up
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return times[0], times[1]
