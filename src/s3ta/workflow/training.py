"""Train a recipe in its run folder, with an estimate before it starts."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from s3ta.data import Dataset, check_fit, locate, open_dataset
from s3ta.files import sole_use
from s3ta.progress import console, progress
from s3ta.train import TrainConfig, claim, is_claimed, is_finished, seeded_model, train
from s3ta.workflow.place import Place, device_at, minutes


def train_run(recipe: TrainConfig, out: Path, place: Place) -> bool:
    """Train a recipe in its run folder, from wherever it stands. Returns whether there was anything left to do.

    Raises UserError for a folder of another recipe, data that do not fit, and all that `train` raises."""
    located = locate(recipe.data.source, place.data_root)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": located.source})})
    if is_claimed(out, recipe) and is_finished(out):
        return False
    data, validation = (
        open_dataset(recipe.data, split, located.root, place.download) for split in ("train", "validation")
    )
    vision = recipe.model.vision
    check_fit(data, channels=vision.in_channels, num_classes=recipe.model.num_classes, image_size=vision.image_size)
    device = device_at(place)
    total, seconds = recipe.schedule.num_train_steps, _training_seconds(recipe, data, device)
    with sole_use(out):
        claim(out, recipe)
        console.print(
            f"{recipe.name}: {total} training steps, about {minutes(seconds)} here from the first to the last",
            soft_wrap=True,
        )
        with progress(recipe.name, total) as report:
            train(recipe, out, data, validation, device, report)
    return True


def _training_seconds(recipe: TrainConfig, data: Dataset, device: torch.device) -> float:
    """Steps times the measured time of one forward pass times what a step is worth in forward passes (M17: 2N + 3)."""
    if recipe.num_threads:
        torch.set_num_threads(recipe.num_threads)
    model = seeded_model(recipe).to(device).eval()
    images = torch.zeros(recipe.batch_size, *data.shape, device=device)
    with torch.no_grad():
        model(images).sum().item()  # warm-up
        began = time.perf_counter()
        model(images).sum().item()
        forward = time.perf_counter() - began
    steps, clean = recipe.schedule.num_train_steps, min(recipe.schedule.clean_steps, recipe.schedule.num_train_steps)
    return forward * (3 * steps + 2 * recipe.attack.num_attack_steps * (steps - clean))
