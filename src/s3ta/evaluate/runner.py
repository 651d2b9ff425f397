"""The evaluation: attack, check ball and box, classify again, record. It decides the truth; attacks only propose.

Every example runs in a micro-batch of one fixed size with one fixed number of threads, its target and start come from its
own stream, and each finished piece is one atomic chunk of the ledger. Who is left out follows from the records of its own
block alone. So the records are the same whether the run went through at once, was killed and resumed, or was divided among
shards.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from s3ta.attacks import (
    AutoAttackConfig,
    RandomKey,
    frozen,
    random_state,
    run_attack,
    threat_of,
)
from s3ta.data import Batch, Dataset, check_fit, fetch
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate.attack_precision import attack_copy, attacked_fn
from s3ta.evaluate.batching import isolate_rows, pad_batch, prefetch
from s3ta.evaluate.chunk_layout import layout
from s3ta.evaluate.early_stopping import Standing
from s3ta.evaluate.image_store import KeptImages, images_path, keep, lacks_images
from s3ta.evaluate.manifest import as_today, manifest
from s3ta.evaluate.plan import Piece, Settings, Shard, micro_batches_per_block, own_chunks, pieces, stages, targets_of
from s3ta.evaluate.scoring import left_out_records, no_records, records, unattacked
from s3ta.evaluate.suites import Suite, TransferConfig
from s3ta.models import device_of, model_info
from s3ta.process_state import process_state_kept
from s3ta.progress import Reporter, console
from s3ta.records import RUN, Ledger
from s3ta.streams import stream

Columns = dict[str, Any]


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    suite: Suite,
    folder: Path,
    positions: Sequence[int],
    settings: Settings,
    report: Reporter,
    images: KeptImages | None = None,
    shard: Shard | None = None,
) -> Ledger:
    """Run what is missing of a suite and return its ledger: complete, or with the shard's part done.

    Args:
      model: one that says what it is (`s3ta.models.model_info`), on the device to use; as before afterwards.
      dataset: where the examples come from.
      suite: the attacks.
      folder: of the ledger; made, or resumed if it measures the same thing.
      positions: places of the examples in the data set (`choose_examples`).
      settings: seed, micro-batch, threads, search, who may leave.
      report: told the number of finished evaluations, those not needed among them.
      images: those of another model's evaluation, for a suite of transfers.
      shard: which part to do; None: all.
    Raises:
      UserError: model and data do not fit, or the folder holds another measurement (differences named)."""
    card = model_info(model)
    check_fit(dataset, channels=card.in_channels, num_classes=card.num_classes)
    facts = manifest(model, dataset, suite, positions, settings, device_of(model))
    ledger = Ledger.open(folder, facts, as_today)
    evaluate_into(model, dataset, suite, ledger, positions, settings, report, images, shard)
    return ledger


def evaluate_into(
    model: nn.Module,
    dataset: Dataset,
    suite: Suite,
    ledger: Ledger,
    positions: Sequence[int],
    settings: Settings,
    report: Reporter,
    images: KeptImages | None = None,
    shard: Shard | None = None,
) -> None:
    """As `evaluate`, into a ledger that is open."""
    shard = shard or Shard()
    missing = set(ledger.missing(own_chunks(suite, len(positions), settings, shard)))
    standing = Standing(suite, settings, dataset, positions)
    searcher, done, began = attack_copy(model, settings.search), 0, False
    warned: set[str] = set()
    with exact_arithmetic(settings.num_threads), frozen(model), frozen(searcher):
        for stage in stages(suite):
            cut = pieces(
                stage,
                positions,
                settings.micro_batch,
                standing.left_out(stage),
                micro_batches_per_block(suite, settings),
            )
            own = [piece for piece in cut if shard.owns(piece.block)]
            known = {p.chunk: _columns(ledger, p.chunk) for p in own if standing.matters and p.chunk not in missing}
            own, contradicted = layout(own, known, dataset, settings.micro_batch)
            for chunk in contradicted:
                _say_discarded(ledger, chunk)
                ledger.discard_chunk(chunk)
                images_path(ledger.folder, chunk).unlink(missing_ok=True)
                missing.add(chunk)
            todo = [p for p in own if p.chunk in missing or lacks_images(p, suite, settings, ledger)]
            loaded = prefetch(dataset, [piece.positions for piece in todo], settings.micro_batch, settings.batch_size)
            for piece in own:
                columns: Columns | None = None
                if piece in todo:
                    if not began:
                        report(done)  # what an earlier, interrupted run had done
                        began = True
                    batch = next(loaded)
                    with process_state_kept() as changes:
                        columns, final = run_piece(model, searcher, dataset, piece, settings, images, batch)
                    _warn_once(changes, warned)
                    ledger.write_chunk(piece.chunk, columns)  # refuses other records than a sound chunk holds
                    keep(ledger, piece, suite, settings, dataset, columns, final)
                else:
                    columns = known.get(piece.chunk)
                if columns is not None:
                    standing.see(columns)
                done += piece.num_evaluations
                if began:
                    report(done, "" if columns is None else _note(piece, columns))
    if not began:
        report(done)


def run_piece(
    model: nn.Module,
    searcher: nn.Module,
    dataset: Dataset,
    piece: Piece,
    settings: Settings,
    images: KeptImages | None = None,
    batch: Batch | None = None,
) -> tuple[Columns, Tensor]:
    """The records of one piece, and the images of those that ran after the last attack step.

    With fewer examples in flight than a micro-batch holds, they run in several micro-batches, each example in the row that it
    would have had, with copies in the other rows: the records are the same, in the same order. AutoAttack's parts draw noise
    for a whole micro-batch and always get it whole."""
    groups: list[list[Columns]] = []
    finals = [torch.empty(0, *dataset.shape)]
    if piece.positions:
        whole = pad_batch(batch or fetch(dataset, piece.positions), settings.micro_batch)
        count, config = len(piece.positions), piece.stage.attack.attack if piece.stage.attack else None
        size = (
            settings.micro_batch
            if isinstance(config, AutoAttackConfig)
            else settings.batch_size or settings.micro_batch
        )
        for begin in range(0, count, size):
            rows = slice(begin, min(begin + size, count))
            parts, final = _run_group(model, searcher, piece, whole, rows, settings, images)
            groups.append(parts)
            finals.append(final)
    parts = [part for read_out in zip(*groups, strict=True) for part in read_out]
    parts += left_out_records(dataset, piece, settings, model_info(model).num_classes)
    columns = {key: np.ma.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else no_records()
    return columns, torch.cat(finals)


def _run_group(
    model: nn.Module,
    searcher: nn.Module,
    piece: Piece,
    whole: Batch,
    rows: slice,
    settings: Settings,
    images: KeptImages | None,
) -> tuple[list[Columns], Tensor]:
    """One micro-batch: the records of the examples in these rows at each read-out, and their final images."""
    ids, clean, labels, _ = isolate_rows(whole, rows)
    device, real = device_of(model), ids[rows]
    clean, labels = clean.to(device), labels.to(device)
    stage = piece.stage
    draw = RandomKey(settings.seed, tuple(ids), (stage.name, stage.restart), stage.restart)
    targets, config = None, stage.attack.attack if stage.attack else None
    if config is not None and config.objective == "targeted":
        targets = targets_of(settings, ids, labels, model_info(model).num_classes)
    if config is None:
        attacked, threat = unattacked(clean), None
    elif isinstance(config, TransferConfig):
        assert images is not None, "a suite of transfers needs the images"
        attacked = unattacked(images.load(config.attack_name, stage.restart, ids).to(device), config.num_attack_steps)
        threat = threat_of(config.attack, clean, draw)
    else:
        outputs_fn = attacked_fn(searcher, config)
        attacked = run_attack(outputs_fn, clean, labels, config=config, targets=targets, draw=draw)
        threat = threat_of(config, clean, draw)
    # A model that is itself random answers the same whenever it is asked for the same verdict, with any number in flight.
    chance = int(stream(settings.seed, "verdict", stage.name, stage.restart, whole.ids[0]).integers(2**63))
    with random_state(chance):
        parts = [
            records(model, piece, attacked, read_out, clean, labels, targets, threat, real, rows.start)
            for read_out in range(len(attacked.read_outs))
        ]
    return parts, attacked.final[rows].cpu()


def _warn_once(sentences: list[str], warned: set[str]) -> None:
    for sentence in set(sentences) - warned:
        warned.add(sentence)
        warnings.warn(sentence, stacklevel=3)


def _columns(ledger: Ledger, index: int) -> Columns:
    """A finished chunk's records, as `Standing` wants them."""
    table = ledger.read_chunk(index)
    return {name: table[name].to_pylist() for name in table.column_names}


def _say_discarded(ledger: Ledger, chunk: int) -> None:
    name = ledger.chunk_path(chunk).name
    sentence = "an earlier chunk was lost and came out otherwise, so that other examples are left out."
    console.print(f"note: {name} is done again: {sentence}", markup=False, soft_wrap=True)


def _note(piece: Piece, columns: Columns) -> str:
    """How many examples of a piece are right at its last read-out."""
    last = max(columns["num_attack_steps"], default=0)
    rows = zip(columns["correct"], columns["status"], columns["num_attack_steps"], strict=True)
    answers = [bool(correct) for correct, status, steps in rows if status == RUN and steps == last]
    told = f"{sum(answers)} of {len(answers)} right" if answers else "nobody left to attack"
    return f"{piece.stage.name}: {told}"
