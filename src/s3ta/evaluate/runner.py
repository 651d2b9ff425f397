"""The evaluation: attack, check ball and box, classify again, record. It decides the truth; attacks only propose.

Every example runs in a micro-batch of one fixed size with one fixed number of threads, its target and start come from its
own stream, and each finished chunk is one atomic file of the ledger. Who is left out follows from the records of its own
block alone. So the records are the same whether the run went through at once, was killed and resumed, or was divided among
shards.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3ta.attack_config import AutoAttackComponentConfig, TransferConfig
from s3ta.attacks import RandomKey, frozen_in_eval_mode, run_attack, seeded_global_generators, threat_model_of
from s3ta.data import Batch, check_model_fits_data, fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate.attacked_model import attacked_fn
from s3ta.evaluate.chunk_layout import layout
from s3ta.evaluate.early_stopping import EarlyStopping
from s3ta.evaluate.evaluation_task import EvaluationTask
from s3ta.evaluate.fixed_size_batches import isolate_rows, load_batches, pad_batch
from s3ta.evaluate.image_store import ImageWriter, images_path
from s3ta.evaluate.make_records import AttackedBatch, left_out_records, no_records, records, unattacked
from s3ta.evaluate.manifest import build_manifest, manifest_with_defaults
from s3ta.evaluate.plan import (
    AttackRound,
    Chunk,
    Shard,
    attack_rounds,
    chunks_of_round,
    chunks_of_shard,
    micro_batches_per_block,
)
from s3ta.process_state import process_state_kept
from s3ta.progress import Reporter, console
from s3ta.random_streams import stream
from s3ta.records import STATUS_RUN, Ledger

Columns = dict[str, Any]


def evaluate(task: EvaluationTask, folder: Path, report: Reporter, shard: Shard | None = None) -> Ledger:
    """Run what is missing of a suite and return its ledger: complete, or with the shard's part done.

    Args:
      task: model, examples, suite and settings; the model is as before afterwards.
      folder: of the ledger; made, or resumed if it measures the same thing.
      report: told the number of finished evaluations, those not needed among them.
      shard: which part to do; None: all.
    Raises:
      UserError: model and data do not fit, or the folder holds another measurement (differences named)."""
    info = task.info
    check_model_fits_data(task.dataset, channels=info.in_channels, num_classes=info.num_classes)
    ledger = Ledger.open(folder, build_manifest(task), manifest_with_defaults)
    evaluate_into(task, ledger, report, shard)
    return ledger


def evaluate_into(task: EvaluationTask, ledger: Ledger, report: Reporter, shard: Shard | None = None) -> None:
    """As `evaluate`, into a ledger that is open."""
    model, dataset, suite, settings = task.model, task.dataset, task.suite, task.settings
    shard, attack_model = shard or Shard(), task.attack_model
    missing = set(ledger.missing(chunks_of_shard(suite, len(task.positions), settings, shard)))
    early_stopping, keeper = EarlyStopping(task), ImageWriter(ledger, suite, settings)
    done, began = 0, False
    warned: set[str] = set()
    with exact_arithmetic(settings.num_threads), frozen_in_eval_mode(model), frozen_in_eval_mode(attack_model):
        for attack_round in attack_rounds(suite):
            planned = _planned(task, attack_round, early_stopping, shard)
            sound = [chunk.number for chunk in planned if chunk.number not in missing and early_stopping.matters]
            finished = {number: _columns(ledger, number) for number in sound}
            chunks, contradicted = layout(planned, finished, dataset, settings.batch_size)
            for number in contradicted:
                _say_discarded(ledger, number)
                ledger.discard_chunk(number)
                images_path(ledger.folder, number).unlink(missing_ok=True)
                missing.add(number)
            todo = [chunk for chunk in chunks if chunk.number in missing or keeper.lacks(chunk)]
            with closing(load_batches(dataset, [chunk.positions for chunk in todo], settings)) as batches:
                for chunk in chunks:
                    columns = finished.get(chunk.number)
                    if chunk in todo:
                        if not began:
                            report(done)  # what an earlier, interrupted run had done
                            began = True
                        batch = next(batches)
                        with process_state_kept() as changes:
                            columns, final = run_chunk(task, chunk, batch)
                        _warn_once(changes, warned)
                        ledger.write_chunk(chunk.number, columns)  # refuses other records than a sound chunk holds
                        keeper.keep(chunk, columns, final)
                    if columns is not None:
                        early_stopping.see(columns)
                    done += chunk.num_evaluations
                    if began:
                        report(done, "" if columns is None else _note(chunk, columns))
    if not began:
        report(done)


def _planned(task: EvaluationTask, attack_round: AttackRound, stopping: EarlyStopping, shard: Shard) -> list[Chunk]:
    """The shard's chunks of one round, as they are before any of them was done."""
    block, left_out = micro_batches_per_block(task.suite, task.settings), stopping.left_out(attack_round)
    chunks = chunks_of_round(attack_round, task.positions, task.settings.batch_size, left_out, block)
    return [chunk for chunk in chunks if shard.owns(chunk.block)]


def run_chunk(task: EvaluationTask, chunk: Chunk, batch: Batch | None = None) -> tuple[Columns, Tensor]:
    """The records of one chunk, and the images of those that ran after the last attack step.

    With fewer examples in flight than a micro-batch holds, they run in several micro-batches, each example in the row that it
    would have had, with copies in the other rows: the records are the same, in the same order. AutoAttack's parts draw noise
    for a whole micro-batch and always get it whole."""
    dataset, settings = task.dataset, task.settings
    groups, finals = list[list[Columns]](), [torch.empty(0, *dataset.shape)]
    if chunk.positions:
        whole = pad_batch(batch or fetch_batch(dataset, chunk.positions), settings.batch_size)
        count, size = len(chunk.positions), settings.prefetch or settings.batch_size
        if chunk.attack_round.attack and isinstance(chunk.attack_round.attack.attack, AutoAttackComponentConfig):
            size = settings.batch_size
        for begin in range(0, count, size):
            parts, final = _run_group(task, chunk.attack_round, whole, slice(begin, min(begin + size, count)))
            groups.append(parts)
            finals.append(final)
    parts = [part for read_out in zip(*groups, strict=True) for part in read_out]
    parts += left_out_records(task, chunk)
    columns = {key: np.ma.concatenate([part[key] for part in parts]) for key in parts[0]} if parts else no_records()
    return columns, torch.cat(finals)


def _run_group(
    task: EvaluationTask, attack_round: AttackRound, whole: Batch, rows: slice
) -> tuple[list[Columns], Tensor]:
    """One micro-batch: the records of the examples in these rows at each read-out, and their final images."""
    model, device, seed = task.model, task.device, task.settings.seed
    ids, clean, labels, _ = isolate_rows(whole, rows)
    clean, labels = clean.to(device), labels.to(device)
    draw = RandomKey(seed, tuple(ids), (attack_round.name, attack_round.restart), attack_round.restart)
    targets, config = None, attack_round.attack.attack if attack_round.attack else None
    if config is not None and config.objective == "targeted":
        targets = task.targets(ids, labels)
    if config is None:
        attacked, threat = unattacked(clean), None
    elif isinstance(config, TransferConfig):
        assert task.images is not None, "a suite of transfers needs the images"
        images = task.images.load(config.attack_name, attack_round.restart, ids)
        attacked = unattacked(images.to(device), config.num_attack_steps)
        threat = threat_model_of(config.attack, clean, draw)
    else:
        outputs_fn = attacked_fn(task.attack_model, config)
        attacked = run_attack(outputs_fn, clean, labels, config=config, targets=targets, draw=draw)
        threat = threat_model_of(config, clean, draw)
    attacked_batch = AttackedBatch(attack_round, attacked, clean, labels, targets, threat, ids[rows], rows.start)
    # A model that is itself random answers the same whenever it is asked for the same verdict, with any number in flight.
    chance = int(stream(seed, "verdict", attack_round.name, attack_round.restart, whole.ids[0]).integers(2**63))
    with seeded_global_generators(chance):
        parts = [records(model, attacked_batch, read_out) for read_out in range(len(attacked.read_outs))]
    return parts, attacked.final[rows].cpu()


def _warn_once(sentences: list[str], warned: set[str]) -> None:
    for sentence in set(sentences) - warned:
        warned.add(sentence)
        warnings.warn(sentence, stacklevel=3)


def _columns(ledger: Ledger, index: int) -> Columns:
    """A finished chunk's records, as `EarlyStopping` wants them."""
    table = ledger.read_chunk(index)
    return {name: table[name].to_pylist() for name in table.column_names}


def _say_discarded(ledger: Ledger, number: int) -> None:
    name = ledger.chunk_path(number).name
    sentence = "an earlier chunk was lost and came out otherwise, so that other examples are left out."
    console.print(f"note: {name} is done again: {sentence}", markup=False, soft_wrap=True)


def _note(chunk: Chunk, columns: Columns) -> str:
    """How many examples of a chunk are right at its last read-out."""
    last = max(columns["num_attack_steps"], default=0)
    rows = zip(columns["correct"], columns["status"], columns["num_attack_steps"], strict=True)
    answers = [bool(correct) for correct, status, steps in rows if status == STATUS_RUN and steps == last]
    right = f"{sum(answers)} of {len(answers)} right" if answers else "nobody left to attack"
    return f"{chunk.attack_round.name}: {right}"
