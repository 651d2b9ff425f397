"""One attack on all images of a data set, judged as an evaluation judges it; nothing is written."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from s3ta.attacks import frozen
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate import EvaluationTask, attack_rounds, chunks_of_round
from s3ta.evaluate.plan import AttackRound
from s3ta.evaluate.runner import run_chunk
from s3ta.progress import Reporter, progress
from s3ta.workflow.result import AttackedImages

_COUNTS = ("num_gradients", "num_forwards")
_READ = ("label", "target", "prediction", "correct", "hit", "distance", *_COUNTS)


def attacked_images(task: EvaluationTask) -> AttackedImages:
    """All examples through all restarts of the suite's one attack; of each the first restart that succeeds, else the last.

    Raises UserError as `s3ta.evaluate.evaluate`."""
    (named,) = task.suite.attacks
    is_targeted = named.attack.objective == "targeted"
    attack_model, rounds = task.attack_model, attack_rounds(task.suite)
    total = len(task.positions) * sum(attack_round.cost.total for attack_round in rounds)
    with (
        exact_arithmetic(task.settings.num_threads),
        frozen(task.model),
        frozen(attack_model),
        progress(f"{named.name}, passes", total) as report,
    ):
        done = _Done(report)
        clean, last, *others = (_run(task, attack_round, done) for attack_round in rounds)
    last["success"] = _succeeded(last, is_targeted)
    for restart in others:
        restart["success"] = _succeeded(restart, is_targeted)
        last = {name: _merged(name, values, restart[name], last["success"]) for name, values in last.items()}
    return AttackedImages(
        attack=named.name,
        radius=float(getattr(named.attack, "radius", 0)),
        images=last["images"],
        labels=clean["label"],
        targets=last["target"] if is_targeted else None,
        clean_predictions=clean["prediction"],
        predictions=last["prediction"],
        success=last["success"],
        distances=last["distance"],
        num_gradients=last["num_gradients"],
        num_forwards=last["num_forwards"],
    )


class _Done:
    """Tells how many passes are done."""

    def __init__(self, report: Reporter) -> None:
        self._report, self._count = report, 0
        report(0)

    def add(self, count: int) -> None:
        self._count += count
        self._report(self._count)


def _run(task: EvaluationTask, attack_round: AttackRound, done: _Done) -> dict[str, Tensor]:
    """The last read-out of one round, by column, and its images; in the order of the examples."""
    parts = []
    for chunk in chunks_of_round(attack_round, task.positions, task.settings.micro_batch, block=1):
        columns, images = run_chunk(task, chunk)
        last = {name: torch.from_numpy(np.asarray(columns[name])[-len(images) :]) for name in _READ}
        parts.append({**last, "images": images})
        done.add(chunk.num_evaluations)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _succeeded(columns: dict[str, Tensor], is_targeted: bool) -> Tensor:
    return columns["hit"] if is_targeted else ~columns["correct"]


def _merged(name: str, before: Tensor, now: Tensor, is_done: Tensor) -> Tensor:
    """Counts add up; everything else is the present restart's where none before succeeded."""
    if name in _COUNTS:
        return before + now
    return torch.where(is_done.view(-1, *[1] * (before.ndim - 1)), before, now)
