"""One attack on all images of a data set, judged as an evaluation judges it; nothing is written."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from s3ta.attacks import frozen_in_eval_mode
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate import EvaluationTask, attack_rounds, chunks_of_round, max_cost
from s3ta.evaluate.runner import run_chunk
from s3ta.progress import progress
from s3ta.workflow.result import AttackedImages

_COUNTS = ("num_gradients", "num_forwards")
_READ = ("label", "target", "prediction", "correct", "hit", "distance", *_COUNTS)


def attacked_images(task: EvaluationTask) -> AttackedImages:
    """All examples through all restarts of the suite's one attack; of each the first restart that succeeds, else the last.
    Raises UserError as `s3ta.evaluate.evaluate`."""
    (entry,) = task.suite.attacks
    is_targeted, attack_model = entry.attack.objective == "targeted", task.attack_model
    with (
        exact_arithmetic(task.settings.num_threads),
        frozen_in_eval_mode(task.model),
        frozen_in_eval_mode(attack_model),
    ):
        clean, last, *others = _read_outs(task)
    for restart in (last, *others):
        restart["success"] = restart["hit"] if is_targeted else ~restart["correct"]
    for restart in others:
        last = {name: _merged(name, values, restart[name], last["success"]) for name, values in last.items()}
    return AttackedImages(
        attack=entry.name,
        radius=float(getattr(entry.attack, "radius", 0)),
        labels=clean["label"],
        targets=last["target"] if is_targeted else None,
        clean_predictions=clean["prediction"],
        predictions=last["prediction"],
        distances=last["distance"],
        **{name: last[name] for name in ("images", "success", *_COUNTS)},
    )


def _read_outs(task: EvaluationTask) -> list[dict[str, Tensor]]:
    """Of each round the last read-out, by column, and its images; in the order of the examples."""
    num_planned, num_passes, read_outs = max_cost(task.suite, len(task.positions)).total, 0, []
    with progress(f"{task.suite.attacks[0].name}, passes", num_planned) as report:
        report(0)
        for attack_round in attack_rounds(task.suite):
            parts = []
            for chunk in chunks_of_round(attack_round, task.positions, task.settings.batch_size, block=1):
                columns, images = run_chunk(task, chunk)
                last = {name: torch.from_numpy(np.asarray(columns[name])[-len(images) :]) for name in _READ}
                parts.append({**last, "images": images})
                num_passes += chunk.num_evaluations
                report(num_passes)
            read_outs.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    return read_outs


def _merged(name: str, before: Tensor, now: Tensor, is_done: Tensor) -> Tensor:
    """Counts add up; everything else is the present restart's where none before succeeded."""
    if name in _COUNTS:
        return before + now
    return torch.where(is_done.view(-1, *[1] * (before.ndim - 1)), before, now)
