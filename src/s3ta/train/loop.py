"""The training loop: attack each batch, learn from the attacked images alone, and be able to stop at any step.

Nothing in it draws from global random state: the data order, augmentation, targets and starts of a step follow from the
seed and the step, so a resumed run ends with the same weights, bit for bit, as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import Draw, NotFiniteError, PGDConfig, draw_start, draw_targets, final_logits, run_attack
from s3ta.attacks.objectives import OutputsFn
from s3ta.config import config_hash
from s3ta.data import Batch, Dataset, batches, position
from s3ta.errors import UserError
from s3ta.exact import exact_arithmetic
from s3ta.files import append_lines
from s3ta.models import S3TA, ResNet, build_model, save_pretrained
from s3ta.progress import Reporter
from s3ta.train.checkpoint import NAME, Progress, load_checkpoint, save_checkpoint
from s3ta.train.config import TrainConfig
from s3ta.train.interrupt import StopRequest, stop_request
from s3ta.train.optimizer import build_optimizer
from s3ta.train.run import CURVE, MODEL, cut_curve
from s3ta.train.schedule import attack_at, glimpses_at, learning_rate
from s3ta.train.validate import looking, validate


def train(
    config: TrainConfig, folder: Path, data: Dataset, validation: Dataset, device: torch.device, report: Reporter
) -> S3TA | ResNet:
    """Train from wherever the run folder stands to the end, and save the model in it.

    Args:
      config: the recipe; the folder must have been claimed for it.
      folder: run folder; gets a checkpoint, the learning curve and, at the end, the model.
      data: training examples.
      validation: examples for choices and live accuracy; never test data.
      device: where to compute.
      report: told the number of finished steps and a short note.
    Raises:
      KeyboardInterrupt: someone asked to stop; the state is saved.
      UserError: the loss stopped being finite, the disk is full, or the checkpoint is not this recipe's."""
    with exact_arithmetic(config.num_threads):
        return _train(config, folder, data, validation, device, report)


def _train(
    config: TrainConfig, folder: Path, data: Dataset, validation: Dataset, device: torch.device, report: Reporter
) -> S3TA | ResNet:
    model = seeded_model(config).to(device)
    optimizer = build_optimizer(config.optimizer, model)
    identity = f"{config_hash(config)}/{data.fingerprint}"
    save = partial(save_checkpoint, folder / NAME, model, optimizer, recipe_hash=identity)
    progress = Progress()
    if (folder / NAME).exists():
        progress = load_checkpoint(folder / NAME, model, optimizer, identity)
    cut_curve(folder, progress.step)
    report(progress.step)
    last = config.schedule.num_train_steps
    with stop_request() as stop:
        coming = batches(data, config.batch_size, config.seed, progress.step, last, config.num_workers)
        for batch in _until_stopped(coming, stop):
            progress = _step(config, model, optimizer, data, batch, progress, folder)
            if progress.step % config.log_every == 0 or progress.step == last:
                progress = _log(config, data, progress, folder, report)
            if progress.step % config.validate_every == 0 or progress.step == last:
                glimpses = glimpses_at(config.schedule, progress.step - 1)
                scores = validate(model, validation, config.attack, config.seed, config.batch_size, glimpses)
                append_lines(folder / CURVE, [{"kind": "validation", "step": progress.step, **scores}])
            if progress.step % config.checkpoint_every == 0 or progress.step == last:
                save(progress=progress)
            if stop.asked:
                break
        if progress.step < last:
            save(progress=progress)
            raise KeyboardInterrupt
    save_pretrained(model, folder / MODEL, list(data.classes))
    return model.eval()


def _until_stopped(coming: Iterator[Batch], stop: StopRequest) -> Iterator[Batch]:
    """The batches, until someone asks to stop: worker processes may then be gone before the loop is, and that is no error."""
    while True:
        try:
            batch = next(coming, None)
        except Exception:
            if stop.asked:
                return
            raise
        if batch is None:
            return
        yield batch


def seeded_model(config: TrainConfig) -> S3TA | ResNet:
    """The recipe's model with the first weights that belong to its seed; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_model(config.model)


def _step(
    config: TrainConfig,
    model: S3TA | ResNet,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    batch: Batch,
    progress: Progress,
    folder: Path,
) -> Progress:
    began = time.monotonic()
    step, device = progress.step, next(model.parameters()).device
    epoch = position(data, config.batch_size, config.seed, step).epoch
    images, labels = batch.images.to(device), batch.labels.to(device)
    glimpses = glimpses_at(config.schedule, step)
    outputs_fn = looking(model, glimpses)
    attack = attack_at(config.schedule, config.attack, step)
    if attack is not None:
        try:
            attacked_fn = looking(model, attack.num_glimpses or glimpses, trace=attack.needs_trace)
            images = _attack(attacked_fn, attack, config, batch.ids, images, labels, epoch)
        except NotFiniteError:
            raise _diverged("The attack's gradient is not finite", step, folder) from None
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(config.schedule, config.optimizer.learning_rate, step)
    model.train()
    logits = final_logits(outputs_fn(images))
    loss = cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
    if not torch.isfinite(loss):
        raise _diverged(f"The loss is {loss.item()}", step, folder)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    clip_norm = math.inf if config.optimizer.clip_norm is None else config.optimizer.clip_norm
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    if not torch.isfinite(norm):
        raise _diverged(f"The gradient's norm is {norm.item()}", step, folder)
    optimizer.step()
    return Progress(
        step=step + 1,
        loss_sum=progress.loss_sum + loss.item() * len(labels),
        num_correct=progress.num_correct + int((logits.argmax(dim=1) == labels).sum()),
        num_seen=progress.num_seen + len(labels),
        seconds=progress.seconds + time.monotonic() - began,
    )


def _diverged(what: str, step: int, folder: Path) -> UserError:
    return UserError(
        f"{what} at training step {step}: start again in another folder with a lower optimizer.learning_rate or with "
        f"optimizer.clip_norm. The weights before that step are kept as they were saved last, in {folder / NAME}."
    )


def _attack(
    outputs_fn: OutputsFn,
    attack: PGDConfig,
    config: TrainConfig,
    ids: list[str],
    clean: Tensor,
    labels: Tensor,
    epoch: int,
) -> Tensor:
    """The batch under the step's attack: fresh targets and starts every epoch, BN on its moving averages (T19)."""
    targets = None
    if attack.objective == "targeted":
        targets = draw_targets(config.seed, ids, labels, config.model.num_classes, "train", epoch)
    start = draw_start(attack, config.seed, ids, clean, "train", epoch)
    draw = Draw(config.seed, tuple(ids), ("train", epoch))
    return run_attack(outputs_fn, clean, labels, config=attack, targets=targets, start=start, draw=draw).final


def _log(config: TrainConfig, data: Dataset, progress: Progress, folder: Path, report: Reporter) -> Progress:
    step = progress.step - 1
    attack = attack_at(config.schedule, config.attack, step)
    loss, accuracy = progress.loss_sum / progress.num_seen, progress.num_correct / progress.num_seen
    line = {
        "kind": "train",
        "step": progress.step,
        "epoch": position(data, config.batch_size, config.seed, step).epoch,
        "loss": loss,
        "accuracy": accuracy,
        "radius": attack.radius if attack else 0.0,
        "learning_rate": learning_rate(config.schedule, config.optimizer.learning_rate, step),
        "seconds": round(progress.seconds, 2),
    }
    if config.model.kind == "s3ta":
        line["num_glimpses"] = glimpses_at(config.schedule, step) or config.model.num_glimpses
    append_lines(folder / CURVE, [line])
    report(
        progress.step,
        f"loss {loss:.3f}, accuracy {accuracy:.0%}{' on clean images' if attack is None else ' under attack'}",
    )
    return progress._replace(loss_sum=0.0, num_correct=0, num_seen=0)
