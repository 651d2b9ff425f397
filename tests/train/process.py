"""One of two processes that train together, for `test_ranks.py`: plays every part in turn and writes down what it saw.

The one-step parts run alone as well (`one_step` with `Ranks()`): that is what two processes are compared with."""

from __future__ import annotations

import gc
import json
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from typer.testing import CliRunner

from s3ta.attacks import NotFiniteError
from s3ta.cli import app
from s3ta.config import config_hash
from s3ta.determinism import exact_arithmetic
from s3ta.distributed import Ranks, ranks
from s3ta.errors import UserError
from s3ta.train import TrainConfig, TrainingRun, step, train
from s3ta.train.loop import seeded_model
from s3ta.train.prefetch import Prepared, prepared
from s3ta.train.step import Trainer

from .helpers import CPU, Crash, Pictures, crash_at, recipe, silent

CHUNKS = {"attack_batch": 4}
"""Kernels round by the batch's shape, and the attack's signs would make much of it: one process attacks in as many."""
GROUP = {"batch_norm": {"group": 4}, "compute": CHUNKS}
TRADES = {"loss": {"kind": "trades"}, "attack": {"objective": "divergence", "random_start_prob": 1.0}}


def _config(model: str = "s3ta", **changes: Any) -> TrainConfig:
    parts = {name: changes.pop(name) for name in ("attack", "optimizer", "schedule") if name in changes}
    whole = recipe(model, **parts).model_dump()
    return TrainConfig.model_validate(whole | {"batch_size": 8} | GROUP | changes)


ONE_STEP: dict[str, TrainConfig] = {
    "adversarial": _config(),
    "clean": _config(schedule={"clean_steps": 9}),
    "accumulated": _config(batch_size=24),
    "trades": _config(**TRADES, weight_perturbation={"gamma": 0.01}, batch_size=16),
    "adam": _config("resnet", optimizer={"kind": "adam", "learning_rate": 1e-3}, batch_size=16),
    "clipped": _config(optimizer={"clip_norm": 0.05}, averaging={"decay": 0.9}),
    "synchronised": _config(batch_norm={"group": 8, "sync": True}),
    "synchronised accumulated": _config(batch_norm={"group": 8, "sync": True}, batch_size=16),
    "synchronised trades": _config(
        "resnet", **TRADES, batch_norm={"sync": True}, weight_perturbation={"gamma": 0.01}, batch_size=8
    ),
}
FIRST = 3
"""The step that is compared: in the middle of an epoch."""
RUN = _config(batch_size=8, schedule={"num_train_steps": 7, "clean_steps": 1}, averaging={"decay": 0.9}, log_every=1)
SHARED = _config(batch_size=8, schedule={"num_train_steps": 6}, batch_norm={"sync": True, "group": 8}, log_every=1)
CRASHES = (1, 4, 5, 7)
"""Before the first checkpoint, at one, after one, and at the end."""
CHANGE = 3
"""After so many steps a run goes on with another number of processes."""
PICTURES = 41


def one_step(config: TrainConfig, rank: Ranks) -> dict[str, Any]:
    """One training step, watched: what was drawn, who was called in which mode, and where the weights ended."""
    with exact_arithmetic(1):
        trainer = Trainer(config, seeded_model(config), CPU, rank)
        calls: list[tuple[Any, ...]] = []
        phase = "attack"
        for who, module in (("learner", trainer.learner), ("model", trainer.model)):
            module.register_forward_pre_hook(
                lambda module, given, who=who: calls.append((phase, who, module.training, len(given[who == "learner"])))
            )
        with closing(prepared(config, Pictures(PICTURES), FIRST, CPU, rank)) as coming:
            batch = next(coming)
        with _counted_reductions() as reductions:
            attacked = trainer.attack(batch)
        phase = "update"
        loss_sum, num_correct = trainer.update(*(_regrouped if rank.count == 1 else _same)(config, batch, attacked))
    average = trainer.average.state_dict() if trainer.average else {}
    told = {
        "ids": batch.ids,
        "clean": batch.clean,
        "labels": batch.labels,
        "targets": batch.targets,
        "start": batch.start,
        "attacked": attacked,
        "before": {name: tensor.detach().clone() for name, tensor in seeded_model(config).named_parameters()},
        "weights": {name: tensor.detach().clone() for name, tensor in trainer.model.named_parameters()},
        "buffers": {name: tensor.clone() for name, tensor in trainer.model.named_buffers()},
        "average": {name: tensor.clone() for name, tensor in average.items()},
        "loss_sum": loss_sum,
        "num_correct": num_correct,
        "calls": list(calls),
        "reductions": list(reductions),
    }
    with exact_arithmetic(1):
        trainer.update(batch, attacked)
    return told | {"buffers after two": {name: tensor.clone() for name, tensor in trainer.model.named_buffers()}}


def _same(config: TrainConfig, batch: Prepared, attacked: torch.Tensor) -> tuple[Prepared, torch.Tensor]:
    return batch, attacked


def _regrouped(config: TrainConfig, batch: Prepared, attacked: torch.Tensor) -> tuple[Prepared, torch.Tensor]:
    """The batch in the order in which two processes put it into shared groups: some of one half, some of the other."""
    group = config.batch_norm.group
    if group is None or not config.batch_norm.sync:
        return batch, attacked
    order = torch.arange(len(batch.ids)).view(2, -1, group // 2).transpose(0, 1).flatten()
    return batch._replace(clean=batch.clean[order], labels=batch.labels[order]), attacked[order]


@contextmanager
def _counted_reductions() -> Iterator[list[int]]:
    """What passes between processes meanwhile, DistributedDataParallel's own gradients aside: sizes of sums."""
    sizes, real = [], distributed.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **settings: Any) -> Any:
        sizes.append(tensor.numel())
        return real(tensor, *args, **settings)

    distributed.all_reduce = counted
    try:
        yield sizes
    finally:
        distributed.all_reduce = real


def go(config: TrainConfig, folder: Path, rank: Ranks, finished: int | None = None) -> None:
    """Train in a folder; `finished`: and crash after so many steps."""
    folder.mkdir(parents=True, exist_ok=True)
    rank.wait()
    report = silent if finished is None else crash_at(finished)
    try:
        train(TrainingRun(config, folder, Pictures(PICTURES), Pictures(6, "validation"), CPU), report, rank)
    except Crash:
        assert finished is not None


def whole_runs(folder: Path, rank: Ranks) -> None:
    """Runs that nothing disturbs, runs that crash after each step and go on, and runs that go on with other numbers."""
    go(RUN, folder / "whole", rank)
    for finished in CRASHES:
        for stop_at in (finished, None):
            go(RUN, folder / f"crashed-{finished}", rank, stop_at)
    go(SHARED, folder / "shared", rank)
    go(SHARED, folder / "fewer", rank, CHANGE)
    go(SHARED, folder / "more", rank)


@contextmanager
def broken_attack(rank: int, how: str) -> Iterator[None]:
    """On the second process the attack goes wrong at its fifth batch: "images" that are no numbers, or a "gradient"."""
    real, calls = step.run_attack, []

    def broken(*args: Any, **settings: Any) -> Any:
        found = real(*args, **settings)
        calls.append(1)
        if rank == 1 and len(calls) == 5:
            if how == "gradient":
                raise NotFiniteError("planted")
            found = found._replace(images=found.images * math.nan)
        return found

    step.run_attack = broken
    try:
        yield
    finally:
        step.run_attack = real


def mistakes(folder: Path, rank: Ranks) -> dict[str, Any]:
    """What this process is left with where one of both meets a mistake."""
    told = {}
    for name, met in {"first": (0,), "second": (1,), "both": (0, 1), "none": ()}.items():
        told[name] = _left(lambda met=met, name=name: rank.together(UserError(name) if rank.rank in met else None))
    for how in ("images", "gradient"):
        with broken_attack(rank.rank, how):
            told[how] = _left(lambda how=how: go(RUN, folder / how, rank))
    alone = (folder / "whole" if rank.is_first else folder / "nowhere") / "checkpoint.safetensors"
    identity = f"{config_hash(RUN)}/{Pictures.fingerprint}"
    told["not shared"] = _left(lambda: Trainer(RUN, seeded_model(RUN), CPU, rank).load(alone, identity))
    rank.wait()
    return told


def _left(act: Callable[[], Any]) -> tuple[str, str]:
    try:
        act()
    except (UserError, SystemExit) as error:
        return type(error).__name__, str(error)
    return "", ""


def program(words: list[str], rank: int, port: str, how: str = "") -> dict[str, Any]:
    """One command of `s3ta` in this process, as torchrun would start it."""
    os.environ["MASTER_PORT"] = port
    began = time.monotonic()
    with broken_attack(rank, how) if how else nullcontext():
        result = CliRunner(env={"COLUMNS": "1000"}).invoke(app, words)
    return {
        "code": result.exit_code,
        "stdout": result.stdout,
        "stderr": result.stderr,
        "seconds": time.monotonic() - began,
        "raised": None if isinstance(result.exception, SystemExit | None) else repr(result.exception),
    }


def main(folder: Path) -> None:
    """All parts; the programs of `programs.json` last, each with a port of its own."""
    told: dict[str, Any] = {}
    with ranks(timedelta(seconds=60)) as rank:
        me = rank.rank
        told["steps"] = {name: one_step(config, rank) for name, config in ONE_STEP.items()}
        whole_runs(folder, rank)
        told["mistakes"] = mistakes(folder, rank)
    told["programs"] = {}
    for name, words, port, how in json.loads((folder / "programs.json").read_text()):
        told["programs"][name] = program([word.replace("{rank}", str(me)) for word in words], me, port, how)
        # A program that ends closes its connections, by which the other process notices. Here the process goes on, and what
        # an error left in reference cycles would keep them open, and the other process waiting, until Python collects it.
        gc.collect()
    (folder / f"told-{me}").write_bytes(pickle.dumps(told))


def crashes_alone(folder: Path) -> None:
    """Only a run that nothing disturbs, and one that crashes and goes on; for any number of processes."""
    with ranks(timedelta(seconds=60)) as rank:
        config = _config(batch_size=4 * rank.count)
        go(config, folder / "whole", rank)
        for stop_at in (3, None):
            go(config, folder / "crashed", rank, stop_at)
