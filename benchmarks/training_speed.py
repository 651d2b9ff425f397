"""Adversarial training with and without each speed option: images per second, memory, share of the hardware's peak, agreement.

python benchmarks/training_speed.py [--recipe imagenet/s3ta_16-10] [--device cuda] [--batch 128] [--group 32]
                                    [--attack-steps 10] [--rounds 3] [--options float32,bfloat16,...] [--csv FILE]
Noise for images and random weights: the cost is that of real ones. Every row is a fresh trainer; a row that does not fit the
memory says so. The last columns compare with plain float32 on up to 32 images (X10, X40), before the first step.
"""

from __future__ import annotations

import argparse
import csv
import gc
import resource
import statistics
import time
from pathlib import Path

import torch

from s3ta.attacks import draw_start, draw_targets
from s3ta.config import override
from s3ta.determinism import exact_arithmetic
from s3ta.distributed import Ranks
from s3ta.errors import UserError
from s3ta.models import count_cost
from s3ta.recipes import get_recipe
from s3ta.train import ComputeConfig, TrainConfig, seeded_model
from s3ta.train.cost import passes
from s3ta.train.precision_check import compared
from s3ta.train.prefetch import Prepared
from s3ta.train.step import Trainer
from s3ta.train.time_and_utilization import measured_peak
from timing import about

BFLOAT16 = ["compute.attack_precision=bfloat16", "compute.update_precision=bfloat16"]
PLAIN = [
    "compute.attack_precision=float32",
    "compute.update_precision=float32",
    "compute.compiled=false",
    "compute.channels_last=false",
    "compute.fused_optimizer=false",
    "compute.units_per_checkpoint=0",
]
OPTIONS: dict[str, list[str]] = {
    "float32": [],
    "bfloat16": BFLOAT16,
    "bfloat16 channels-last": [*BFLOAT16, "compute.channels_last=true"],
    "bfloat16 channels-last fused": [*BFLOAT16, "compute.channels_last=true", "compute.fused_optimizer=true"],
    "bfloat16 compiled": [*BFLOAT16, "compute.compiled=true"],
    "bfloat16 channels-last compiled": [*BFLOAT16, "compute.channels_last=true", "compute.compiled=true"],
    "bfloat16 channels-last checkpoint 1": [*BFLOAT16, "compute.channels_last=true", "compute.units_per_checkpoint=1"],
    "bfloat16 channels-last checkpoint 3": [*BFLOAT16, "compute.channels_last=true", "compute.units_per_checkpoint=3"],
    "float32 channels-last": ["compute.channels_last=true"],
    "float32 compiled": ["compute.compiled=true"],
    "float32 checkpoint 1": ["compute.units_per_checkpoint=1"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="imagenet/s3ta_16-10")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--attack-steps", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deterministic", action="store_true", help="only kernels that repeat their last bits")
    parser.add_argument("--options", default=",".join(OPTIONS))
    parser.add_argument("--csv", type=Path)
    asked = parser.parse_args()
    device = torch.device(asked.device)
    changes = [f"batch_size={asked.batch}", f"batch_norm.group={asked.group}", "compute.must_agree=false", *PLAIN]
    changes += [f"compute.attack_batch={asked.batch}", "schedule.clean_steps=0", "schedule.radius_ramp_steps=0"]
    if asked.attack_steps:
        changes.append(f"attack.num_attack_steps={asked.attack_steps}")
    recipe = override(get_recipe(asked.recipe), [c for c in changes if _fits(asked.recipe, c)])
    peaks = {precision: measured_peak(device, precision, 1.0) for precision in ("bfloat16", "float32")}
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(about(), where, {name: f"{peak / 1e12:.1f} TFLOP/s" for name, peak in peaks.items()})
    rows = []
    for name in asked.options.split(","):
        row = _row(name, override(recipe, OPTIONS[name]), device, peaks, asked.rounds, asked.deterministic)
        rows.append(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    if asked.csv:
        names = list(dict.fromkeys(key for row in rows for key in row))
        with asked.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)


def _fits(recipe: str, change: str) -> bool:
    """Whether the recipe has this setting."""
    try:
        override(get_recipe(recipe), [change])
    except UserError as error:
        return not str(error).startswith("Unknown setting")
    return True


def _row(
    name: str, recipe: TrainConfig, device: torch.device, peaks: dict[str, float], rounds: int, deterministic: bool
) -> dict[str, object]:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        with exact_arithmetic(deterministic=deterministic):
            return {"options": name, **_measured(recipe, device, peaks, rounds)}
    except torch.OutOfMemoryError:
        return {"options": name, "images_per_second": "out of memory"}


def _measured(recipe: TrainConfig, device: torch.device, peaks: dict[str, float], rounds: int) -> dict[str, object]:
    trainer, ready = Trainer(recipe, seeded_model(recipe).to(device), device, Ranks()), _prepared(recipe, device)
    found = None
    if recipe.compute != ComputeConfig(attack_batch=recipe.compute.attack_batch, must_agree=False):
        found = compared(trainer, ready.clean, ready.labels, None)
    _step(trainer, ready, device)  # warm-up: kernels are chosen, compiled
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    parts = [_step(trainer, ready, device) for _ in range(rounds)]
    attack, update = (statistics.median(times) for times in zip(*parts, strict=True))
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    worth = passes(recipe, is_attacked=True, is_perturbed=False)
    again = recipe.compute.units_per_checkpoint > 0  # work done twice is not counted as use
    worth = (
        passes(
            recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"units_per_checkpoint": 0})}),
            is_attacked=True,
            is_perturbed=False,
        )
        if again
        else worth
    )
    operations = 2 * count_cost(recipe.model).multiply_accumulates * worth.total * recipe.batch_size
    told = {
        "images_per_second": round(recipe.batch_size / (attack + update), 3),
        "attack_s": round(attack, 3),
        "update_s": round(update, 3),
        "peak_memory_GiB": round(memory / 2**30, 2),
        "share_of_measured_peak": round(operations / (attack + update) / peaks[recipe.compute.attack_precision], 3),
    }
    return told | ({} if found is None else {key: float(f"{value:.5g}") for key, value in found._asdict().items()})


def _prepared(recipe: TrainConfig, device: torch.device) -> Prepared:
    vision, n = recipe.model.vision, recipe.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(n, vision.in_channels, vision.image_size, vision.image_size, generator=generator)
    labels = torch.randint(recipe.model.num_classes, (n,), generator=generator)
    ids = [str(i) for i in range(n)]
    targets = draw_targets(0, ids, labels, recipe.model.num_classes)
    start = draw_start(recipe.attack, 0, ids, images, "train", 0)
    moved = (t.to(device) for t in (images, labels, targets, start))
    clean, labels, targets, start = moved
    return Prepared(0, 0, ids, clean, labels, recipe.attack, targets, start, ())


def _step(trainer: Trainer, ready: Prepared, device: torch.device) -> tuple[float, float]:
    """Seconds of attack and update."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    began = now()
    attacked = trainer.attack(ready)
    middle = now()
    trainer.update(ready, attacked)
    return middle - began, now() - middle


if __name__ == "__main__":
    main()
