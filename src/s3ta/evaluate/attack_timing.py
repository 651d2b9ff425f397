"""How long a micro-batch of each attack takes here, from short runs of the attack itself: on a small network the draws, probes,
transforms and records take longer than the passes."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from s3ta.attack_config import SPSA, AutoAttackConfig, LoopConfig, TransferConfig
from s3ta.data import Batch, fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate.lint import as_found
from s3ta.evaluate.micro_batches import pad_batch
from s3ta.evaluate.pass_timing import PassTimes
from s3ta.evaluate.plan import AttackRound, Chunk
from s3ta.evaluate.runner import run_chunk
from s3ta.evaluate.task import EvaluationTask

_LIGHT = 0.1
"""Seconds of a step's passes beyond which little else counts."""
_LONG = 0.1
"""Seconds of passes in the longer of two trials."""
_ENOUGH = 1.2
"""Seconds after which no further attack is tried."""
_APART = ("num_attack_steps", "read_outs", "num_restarts", "radius", "step_size")
"""Settings in which two attacks may differ and still take the same time for a step."""


class Trial(NamedTuple):
    """Seconds for one micro-batch."""

    fixed: float
    per_step: float


def measure_chunk_seconds(task: EvaluationTask, rounds: Iterable[AttackRound], pace: PassTimes) -> dict[int, float]:
    """Seconds for one micro-batch of these rounds by their number; without those whose passes are slow, or for which no time is
    left: the passes alone tell of them."""
    if max(pace.gradient, pace.forward) > _LIGHT:
        return {}
    began = time.perf_counter()
    trials: dict[str, Trial | None] = {}
    seconds: dict[int, float] = {}
    settings = task.settings._replace(search=task.settings.search._replace(compiled=False))
    task = replace(task, settings=settings, positions=task.positions[: settings.micro_batch])
    batch: Batch | None = None
    for attack_round in rounds:
        config = attack_round.attack.attack if attack_round.attack else None
        if config is None or isinstance(config, TransferConfig):
            continue
        key = config.model_dump_json(exclude=set(_APART))
        if key not in trials and time.perf_counter() - began < _ENOUGH:
            try:
                with exact_arithmetic(settings.num_threads), as_found(task.model), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the run itself warns
                    batch = batch or _as_answered(task, fetch_batch(task.dataset, task.positions))
                    trials[key] = _trial(task, attack_round, pace, batch)
            except Exception:  # noqa: BLE001 - the run itself says what is wrong
                trials[key] = None
        if trial := trials.get(key):
            verdicts = (len(attack_round.read_outs) - 1) * pace.forward
            seconds[attack_round.number] = trial.fixed + config.num_attack_steps * trial.per_step + verdicts
    return seconds


def _as_answered(task: EvaluationTask, batch: Batch) -> Batch:
    """Labelled by the model itself, so that no part of AutoAttack leaves an image out."""
    with torch.no_grad():
        logits = task.model(pad_batch(batch, task.settings.micro_batch).images.to(task.device))
    return batch._replace(labels=logits.argmax(dim=1)[: len(batch.ids)].to(batch.labels))


def _trial(task: EvaluationTask, attack_round: AttackRound, pace: PassTimes, batch: Batch) -> Trial | None:
    attack = attack_round.attack
    assert attack is not None
    config = attack.attack
    changes: dict[str, Any] = {"radius": 1e-6} if isinstance(config, AutoAttackConfig) else {"read_outs": ()}
    scale, size = 1.0, task.settings.micro_batch
    if isinstance(config, LoopConfig) and isinstance(config.gradient, SPSA):
        number = min(config.gradient.num_directions, max(1, config.gradient.micro_batch // (2 * size)))
        scale = config.gradient.num_directions / number
        changes["gradient"] = config.gradient.model_copy(update={"num_directions": number})
    cost = attack_round.cost
    passes = cost.num_gradients * pace.gradient + (cost.num_forwards - cost.num_gradients) * pace.forward
    step = passes / config.num_attack_steps / scale
    if step > _LIGHT:
        return None
    more = max(1, min(20, int(_LONG / max(step, 1e-9))))

    def seconds(num_steps: int) -> float:
        short = attack.model_copy(
            update={"attack": config.model_copy(update=changes | {"num_attack_steps": num_steps})}
        )
        chunk = Chunk(attack_round._replace(attack=short), 0, tuple(task.positions), ())
        began = time.perf_counter()
        run_chunk(task, chunk, batch)
        return time.perf_counter() - began

    seconds(1)  # warms up
    short, long = seconds(1), seconds(1 + more)
    per_step = max(0.0, long - short) / more
    return Trial(max(0.0, short - per_step), scale * per_step)
