"""What a training step costs beyond its parts, and how long the loop waits for its data.

python benchmarks/training_overhead.py [--recipe digits/s3ta_4] [--rounds 7] [--train-steps 40] [--data-root data]
Bare parts: as many gradients with respect to the images as the attack has steps (eval mode, weights frozen), and one update
(forward, backward, clipping, optimizer). All in turn, CPU time, one thread. Goals: at most 1.05, and no waiting.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import draw_start, draw_targets, frozen_in_eval_mode
from s3ta.config import override
from s3ta.data import Batch, BatchOrder, batches, open_dataset, resolve_source
from s3ta.distributed import Ranks
from s3ta.recipes import get_recipe
from s3ta.train import TrainConfig, TrainingRun, seeded_model, train
from s3ta.train.prefetch import Prepared
from s3ta.train.step import Trainer
from timing import about, interleaved, line, ratios

CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="digits/s3ta_4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--train-steps", type=int, default=40)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    recipe = override(get_recipe(options.recipe), ["num_threads=1"])
    located = resolve_source(recipe.data.source, options.data_root)
    data, validation = (open_dataset(recipe.data, split, located.root) for split in ("train", "validation"))
    step = recipe.schedule.clean_steps + recipe.schedule.radius_ramp_steps
    batch = next(iter(batches(BatchOrder(data, recipe.batch_size, recipe.seed), range(step, step + 1))))
    print(about())
    print(f"{recipe.name}: {recipe.attack.num_attack_steps} attack steps, {recipe.batch_size} images")
    times = interleaved({"step": _step(recipe, batch, step), "parts": _parts(recipe, batch)}, options.rounds)
    for name in times:
        print(line(name, times[name], " s CPU"))
    print(line("step over the sum of its parts (goal 1.05)", ratios(times, "step", "parts")))

    attacked = recipe.schedule.model_copy(
        update={"num_train_steps": options.train_steps, "clean_steps": 0, "radius_ramp_steps": 0}
    )
    short = recipe.model_copy(update={"schedule": attacked, "log_every": options.train_steps, "validate_every": 10**9})
    with tempfile.TemporaryDirectory() as folder:
        train(TrainingRun(short, Path(folder), data, validation, CPU), lambda completed, note="": None)
        lines = [json.loads(text) for text in (Path(folder) / "train.jsonl").read_text().splitlines()]
    speed = lines[0]["speed"]
    total = speed["data"] + speed["attack"] + speed["update"]
    print(
        f"over {options.train_steps} steps: {speed}; waiting for data {speed['data'] / total:.2%} of the time (goal 0)"
    )


def _step(recipe: TrainConfig, batch: Batch, step: int) -> Callable[[], None]:
    trainer = Trainer(recipe, seeded_model(recipe), CPU, Ranks())
    ids, images, labels, _ = batch
    targets = None
    if recipe.attack.objective == "targeted":
        targets = draw_targets(0, ids, labels, recipe.model.num_classes, "train", 0)
    start = draw_start(recipe.attack, 0, ids, images, "train", 0)
    ready = Prepared(step, 0, ids, images, labels, recipe.attack, targets, start, ())

    def run() -> None:
        trainer.update(ready, trainer.attack(ready))

    return run


def _parts(recipe: TrainConfig, batch: Batch) -> Callable[[], None]:
    """The least that such a step must compute, written plainly."""
    model = seeded_model(recipe)
    trainer = Trainer(recipe, model, CPU, Ranks())  # for its optimizer alone
    images, labels = batch.images, batch.labels

    def run() -> None:
        with frozen_in_eval_mode(model):
            for _ in range(recipe.attack.num_attack_steps):
                pixels = images.clone().requires_grad_()
                torch.autograd.grad(cross_entropy(model(pixels), labels, reduction="sum"), pixels)
        model.train()
        trainer.optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(images), labels).backward()
        if recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.optimizer.clip_norm)
        trainer.optimizer.step()

    return run


if __name__ == "__main__":
    main()
