"""The training loop: attack each batch, learn from it, and be able to stop at any step, in one process or in many.

Nothing in it draws from global random state: the data order, augmentation, targets and starts of a step follow from the
seed and the step, so a resumed run ends with the same weights, bit for bit, as one that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from s3ta.config import config_hash, to_json
from s3ta.data import Dataset
from s3ta.data.prefetch import prefetch
from s3ta.determinism import exact_arithmetic
from s3ta.distributed import Ranks
from s3ta.files import append_lines
from s3ta.models import NativeClassifier, save_pretrained
from s3ta.models.execution import many_compilations
from s3ta.progress import Reporter, console
from s3ta.train import run_folder
from s3ta.train.checkpoint import NAME, Identity, Progress, buffers_of, save_checkpoint
from s3ta.train.config import TrainConfig
from s3ta.train.interrupt import stop_request
from s3ta.train.precision_check import Trial, is_plain, lower_is_due, try_out
from s3ta.train.prefetch import Prepared, prepared
from s3ta.train.schedule import glimpses_at, learning_rate
from s3ta.train.step import DivergedError, Trainer, seeded_model
from s3ta.train.tensorboard import CurveWriter
from s3ta.train.time_and_utilization import Clock
from s3ta.train.validation import validate

ALONE = Ranks()


class TrainingRun(NamedTuple):
    """A recipe in its run folder, with its data opened."""

    config: TrainConfig
    folder: Path
    """Claimed for the recipe; gets a checkpoint, the learning curve and, at the end, the model."""
    data: Dataset
    validation: Dataset
    """For choices and live accuracy; never test data."""
    device: torch.device
    start: dict[str, Tensor] | None = None
    """Weights to begin with, by their names in the model, in place of fresh ones (`s3ta.train.start`)."""


def train(
    run: TrainingRun, report: Reporter, ranks: Ranks = ALONE, board: CurveWriter | None = None
) -> NativeClassifier:
    """Train from wherever the run folder stands to the end, and save the model in it.

    Args:
      report: told the number of finished steps and a short note.
      ranks: the processes that share each batch; all must call this alike, and the first one writes.
      board: told every line of the learning curve.
    Raises:
      KeyboardInterrupt: someone asked to stop; the state is saved.
      UserError: the loss stopped being finite, the disk is full, the checkpoint is not this recipe's, the batch does not
        divide among the processes, or `config.compute` does not agree with plain float32."""
    config = run.config
    with exact_arithmetic(config.num_threads, deterministic=config.compute.deterministic), many_compilations():
        return _Run(run, report, ranks, board).to_the_end()


class _Run:
    """One process's part in one call of `train`, with its arguments."""

    def __init__(self, run: TrainingRun, report: Reporter, ranks: Ranks, board: CurveWriter | None) -> None:
        self.config, self.folder, self.data, self.validation, self.device, start = run
        self.report, self.ranks, self.board = report, ranks, board
        self.last = self.config.schedule.num_train_steps
        self.identity = Identity(f"{config_hash(self.config)}/{self.data.fingerprint}", to_json(self.config))
        model = seeded_model(self.config)
        model.load_state_dict(start or {}, strict=False)
        self.trainer = Trainer(self.config, model.to(self.device), self.device, self.ranks)
        self.progress, self.milestones = Progress(), run_folder.milestones(self.last)
        self.clock = Clock(self.config, self.device)
        self.first_step = 0  # with these options of `compute`

    def to_the_end(self) -> NativeClassifier:
        self._resume()
        feed = partial(prepared, self.config, self.data, self.progress.step, self.device, self.ranks)
        with stop_request() as signals, closing(prefetch(feed)) as coming:
            for batch in self._until_stopped(coming, signals):
                try:
                    self._check(batch)
                    self._step(batch)
                except DivergedError as error:
                    # The first process says it for all.
                    sentence = error.message(batch.step, self.folder / NAME)
                    raise (sentence if self.ranks.is_first else SystemExit(2)) from None
                self._look_around(batch)
                if self.ranks.any(bool(signals)):
                    break
            if self.progress.step < self.last:
                self._save()
                raise KeyboardInterrupt
        if self.ranks.is_first:
            save_pretrained(self.trainer.result, self.folder / run_folder.MODEL, list(self.data.classes))
        self.ranks.wait()
        return self.trainer.result.eval()

    def _resume(self) -> None:
        on_gpu = self.device.type == "cuda"
        differences_from = partial(run_folder.resume_differences, self.folder, self.config, on_gpu=on_gpu)
        self.progress = self.trainer.load(self.folder / NAME, self.identity.hash, differences_from)
        computes_anew = False
        if self.ranks.is_first:
            computes_anew = run_folder.resume_curve(self.folder, self.progress.step, self.config)
            self._keep_milestone(if_missing=True)
        self.first_step = self.progress.step if self.ranks.any(computes_anew) else 0
        self.report(self.progress.step)

    def _check(self, batch: Prepared) -> None:
        """Before the first training step with them the options of `compute` must agree with float32; bfloat16 begins once it
        does."""
        compute, trainer = self.config.compute, self.trainer
        trainer.use_lower(self.progress.is_lower)
        if batch.step == self.first_step and not is_plain(compute):
            trial = self._try_out(batch)
            if not trial.agrees and compute.must_agree:
                self.ranks.together(trial.refusal)
        if lower_is_due(compute, batch.step) and not self.progress.is_lower:
            trainer.use_lower(True)
            trial = self._try_out(batch)
            if self.ranks.is_first:
                console.print(trial.sentence, soft_wrap=True)
            self.progress = self.progress._replace(is_lower=trial.agrees or not compute.must_agree)
            trainer.use_lower(self.progress.is_lower)

    def _try_out(self, batch: Prepared) -> Trial:
        trial = try_out(self.trainer, batch.clean, batch.labels, batch.step)
        self._tell(trial.line)
        return trial

    def _until_stopped(self, coming: Iterator[Prepared], signals: set[int]) -> Iterator[Prepared]:
        """The batches, until someone asks to stop: worker processes may then be gone before the loop, which is no error."""
        while True:
            try:
                with self.clock.phase("data"):
                    batch = next(coming, None)
            except Exception:
                if signals and self.ranks.count == 1:
                    return
                raise
            if batch is None:
                return
            yield batch

    def _step(self, batch: Prepared) -> None:
        config, began = self.config, time.monotonic()
        run_folder.log_skipped(self.folder, batch.step + 1, batch.skipped)
        with self.clock.phase("attack"):
            attacked = self.trainer.attack(batch)
        with self.clock.phase("update"):
            loss_sum, num_correct = self.trainer.update(batch, attacked)
        self.clock.count(batch.step, len(batch.ids), config.batch_size)
        done = self.progress
        self.progress = done._replace(
            step=done.step + 1,
            loss_sum=done.loss_sum + loss_sum,
            num_correct=done.num_correct + int(num_correct),
            num_seen=done.num_seen + config.batch_size,
            seconds=done.seconds + time.monotonic() - began,
        )

    def _look_around(self, batch: Prepared) -> None:
        """After a step: log, validate and save where it is time to."""
        config, step = self.config, self.progress.step
        if step % config.log_every == 0 or step == self.last:
            self._log(batch)
        if (step % config.validate_every == 0 or step == self.last) and self.ranks.is_first:
            model, glimpses = self.trainer.result, glimpses_at(config.schedule, step - 1)
            scores = validate(model, self.validation, config, self.trainer.at_once, glimpses)
            self._tell({"kind": "validation", "step": step, **scores})
        if step % config.checkpoint_every == 0 or step == self.last or step in self.milestones:
            self._save()

    def _log(self, batch: Prepared) -> None:
        config, progress = self.config, self.progress
        loss, accuracy = progress.loss_sum / progress.num_seen, progress.num_correct / progress.num_seen
        speed = self.clock.read(self.trainer.precision)
        line = {
            "kind": "train",
            "step": progress.step,
            "epoch": batch.epoch,
            "loss": loss,
            "accuracy": accuracy,
            "radius": batch.attack.radius if batch.attack else 0.0,
            "learning_rate": learning_rate(config.schedule, config.optimizer.learning_rate, batch.step),
            "seconds": round(progress.seconds, 2),
            "bn_group": self.trainer.group * self.trainer.span,
            "precision": self.trainer.precision,
        }
        if config.model.kind == "s3ta":
            line["num_glimpses"] = glimpses_at(config.schedule, batch.step) or config.model.num_glimpses
        self._tell(line | {"speed": speed})
        self.report(
            progress.step,
            f"loss {loss:.3f}, accuracy {accuracy:.0%}{' under attack' if batch.attack else ' on clean images'}, "
            f"{speed['images_per_second']:.3g} images/s, {speed['utilization']:.0%} of peak",
        )
        self.progress = progress._replace(loss_sum=0.0, num_correct=0, num_seen=0)

    def _tell(self, line: dict[str, Any]) -> None:
        if self.ranks.is_first:
            append_lines(self.folder / run_folder.CURVE, [line])
            if self.board is not None:
                self.board.add(line)

    def _save(self) -> None:
        buffers = self.ranks.gather(buffers_of(self.trainer.model))
        if buffers is None:  # the first process writes for all
            return
        save_checkpoint(self.folder / NAME, self.trainer.state, self.progress, self.identity, buffers)
        self._keep_milestone()

    def _keep_milestone(self, *, if_missing: bool = False) -> None:
        name = self.milestones.get(self.progress.step)
        target = self.folder / run_folder.MILESTONES / str(name)
        if name and not (if_missing and run_folder.is_whole(target) and (target / NAME).exists()):
            run_folder.keep_milestone(self.folder, name, self.trainer.result, list(self.data.classes))
