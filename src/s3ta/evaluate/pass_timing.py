"""How long passes and attacks take here: for the estimate before an evaluation starts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from s3ta.attack_config import SPSA, AutoAttackComponentConfig, GradientAttackConfig, TransferConfig
from s3ta.attacks import autograd_gradient, frozen_in_eval_mode, untargeted
from s3ta.data import Batch, fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate.attacked_model import attack_copy
from s3ta.evaluate.evaluation_task import EvaluationTask
from s3ta.evaluate.fixed_size_batches import pad_batch
from s3ta.evaluate.lint import model_state_restored
from s3ta.evaluate.plan import AttackRound, Chunk
from s3ta.evaluate.runner import run_chunk
from s3ta.external_code_errors import ForeignError

_ENOUGH_TRIES = 1.5
"""Seconds of measuring after which one try more is not worth the wait."""
_LIGHT = 0.1
"""Seconds of a step's passes beyond which little else counts."""
_LONG = 0.1
"""Seconds of passes in the longer of two trials."""
_ENOUGH_TRIALS = 1.2
"""Seconds after which no further attack is tried."""
_APART = ("num_attack_steps", "read_outs", "num_restarts", "radius", "step_size")
"""Settings in which two attacks may differ and still take the same time for a step."""


class PassTimes(NamedTuple):
    """Seconds for one micro-batch."""

    gradient: float
    """A pass forward and back, in the arithmetic of the search; 0 where no gradient is used."""
    forward: float
    plain_gradient: float
    """In float32, as all other gradients are taken; the same number where the search is in float32."""


def measure_pass_times(task: EvaluationTask, *, gradients: bool) -> PassTimes:
    """Seconds that a gradient (0 where none is used) and a forward pass of a whole micro-batch take here, for the estimate
    before the start; compiling is not counted. Raises UserError where a gradient is needed and the model has none."""
    model, settings, device = task.model, task.settings, task.device
    batch = pad_batch(fetch_batch(task.dataset, task.positions[:1]), settings.batch_size)
    images, labels = batch.images.to(device), batch.labels.to(device)

    plain = settings.attack_execution._replace(compiled=False)  # compiling takes longer than it would show
    attack_model = attack_copy(model, plain)

    def gradient(classifier: nn.Module) -> Callable[[], None]:
        return lambda: _gradient(classifier, images, labels)

    def forward() -> None:
        with torch.no_grad():
            model(images).sum().item()

    with (
        exact_arithmetic(settings.num_threads),
        model_state_restored(model),
        frozen_in_eval_mode(model),
        frozen_in_eval_mode(attack_model),
    ):
        searching = _seconds(gradient(attack_model)) if gradients else 0.0
        lower = gradients and plain.precision != "float32"
        return PassTimes(searching, _seconds(forward), _seconds(gradient(model)) if lower else searching)


def _gradient(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    try:
        autograd_gradient(model, untargeted(labels), images).gradient.sum().item()
    except ForeignError as error:
        if "does not require grad" not in str(error):
            raise
        raise UserError(
            "The model's logits have no gradient to the image: remove `no_grad` or `detach` from it, or choose attacks "
            "without gradients, such as --attack square."
        ) from None


def _seconds(work: Callable[[], None]) -> float:
    """Of the faster of two tries after a first one that warms up, for the machine may be busy; of fewer where that is long."""
    tried: list[float] = []
    while len(tried) < 3 and sum(tried) < _ENOUGH_TRIES:
        began = time.perf_counter()
        work()
        tried.append(time.perf_counter() - began)
    return min(tried[1:] or tried)


class Trial(NamedTuple):
    """Seconds for one micro-batch."""

    fixed: float
    per_step: float


def measure_attack_times(task: EvaluationTask, rounds: Iterable[AttackRound], pace: PassTimes) -> dict[int, float]:
    """Seconds for one micro-batch of these rounds by their number, from short runs of the attacks: on a small network draws,
    probes, transforms and records take longer than the passes. Without rounds whose passes are slow, or for which no time is
    left: the passes alone tell of them."""
    if max(pace.gradient, pace.forward) > _LIGHT:
        return {}
    began = time.perf_counter()
    trials: dict[str, Trial | None] = {}
    seconds: dict[int, float] = {}
    settings = task.settings._replace(attack_execution=task.settings.attack_execution._replace(compiled=False))
    task = replace(task, settings=settings, positions=task.positions[: settings.batch_size])
    batch: Batch | None = None
    for attack_round in rounds:
        config = attack_round.attack.attack if attack_round.attack else None
        if config is None or isinstance(config, TransferConfig):
            continue
        key = config.model_dump_json(exclude=set(_APART))
        if key not in trials and time.perf_counter() - began < _ENOUGH_TRIALS:
            try:
                with (
                    exact_arithmetic(settings.num_threads),
                    model_state_restored(task.model),
                    warnings.catch_warnings(),
                ):
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
        logits = task.model(pad_batch(batch, task.settings.batch_size).images.to(task.device))
    return batch._replace(labels=logits.argmax(dim=1)[: len(batch.ids)].to(batch.labels))


def _trial(task: EvaluationTask, attack_round: AttackRound, pace: PassTimes, batch: Batch) -> Trial | None:
    attack = attack_round.attack
    assert attack is not None
    config = attack.attack
    changes: dict[str, Any] = {"radius": 1e-6} if isinstance(config, AutoAttackComponentConfig) else {"read_outs": ()}
    scale, size = 1.0, task.settings.batch_size
    if isinstance(config, GradientAttackConfig) and isinstance(config.gradient, SPSA):
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
