"""The rooms put together: train a recipe, evaluate a model, answer for some images. The command line and scripts call these."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import torch

from s3ta.data import DataConfig, Dataset, check_fit, load_image, locate, open_dataset
from s3ta.errors import UserError
from s3ta.evaluate import (
    KEPT_FILE,
    Settings,
    Suite,
    choose_examples,
    evaluate,
    open_ledger,
    plan,
    seconds_per_gradient,
    suite_identity,
    total_gradients,
    total_passes,
)
from s3ta.exact import exact_arithmetic
from s3ta.explain import KEPT, gallery
from s3ta.files import read_arrays, read_json, sole_use, write_arrays
from s3ta.models import S3TA, ResNet, find_weights, from_pretrained, read_config
from s3ta.progress import console, progress
from s3ta.records import Ledger
from s3ta.train import TrainConfig, claim, is_claimed, is_finished, read_recipe, seeded_model, train

GALLERY_FILE = "gallery.npz"


class Place(NamedTuple):
    """What belongs to this machine, and never to a result."""

    data_root: Path = Path("data")
    device: str = "auto"
    download: bool = False


def device_of(place: Place) -> torch.device:
    """`auto`: the GPU where there is one. Raises UserError for a device that torch does not know or have."""
    if place.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place.device)
        return torch.device(place.device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device '{place.device}' here: use auto, cpu or cuda.") from None


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
    device = device_of(place)
    total, seconds = recipe.schedule.num_train_steps, _training_seconds(recipe, data, device)
    with sole_use(out):
        claim(out, recipe)
        console.print(
            f"{recipe.name}: {total} training steps, about {_minutes(seconds)} here from the first to the last",
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


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def evaluate_model(
    source: str,
    suite: Suite,
    data: DataConfig | None,
    split: str,
    out: Path | None,
    settings: Settings,
    place: Place,
    num_examples: int | None = None,
) -> Path:
    """Run what is missing of a suite on a model and draw the gallery. Returns the ledger's folder.

    Args:
      source: run folder, model folder or Hub id.
      suite: what to measure.
      data: where the examples come from; None: the recipe's own data (run folders only).
      split: which part of them.
      out: the ledger's folder; None: `evaluations/SUITE` in the run folder."""
    dataset_of = data or recipe_data(source)
    model = from_pretrained(source).to(device_of(place))
    vision, folder = model.config.vision, out or default_ledger(source, suite)
    located = locate(dataset_of.source, place.data_root)
    fitted = {
        "source": located.source,
        "image_size": vision.image_size,
        "channels": 1 if vision.in_channels == 1 else 3,
    }
    dataset = open_dataset(dataset_of.model_copy(update=fitted), split, located.root, place.download)
    _, classes = read_config(find_weights(source))
    check_fit(dataset, channels=vision.in_channels, num_classes=model.config.num_classes, classes=classes)
    positions = choose_examples(dataset, num_examples or _default_count(suite, dataset), settings.seed)
    pieces = plan(suite, positions, settings.micro_batch)
    with sole_use(folder):
        open_ledger(model, dataset, suite, folder, positions, settings)
        gradients, seconds = (
            total_gradients(pieces),
            seconds_per_gradient(model, dataset, settings) * total_passes(pieces),
        )
        console.print(
            f"{model.config.name}, suite {suite.name}: {len(positions)} examples, {gradients:,} gradient evaluations, "
            f"about {_minutes(seconds)} here for all; finished parts are not repeated",
            soft_wrap=True,
        )
        with progress(f"{model.config.name} {suite.name}", gradients) as report:
            evaluate(model, dataset, suite, folder, positions, settings, report)
        if (folder / KEPT_FILE).is_file():
            kept = read_arrays(folder / KEPT_FILE, KEPT)
            with exact_arithmetic(settings.num_threads):
                write_arrays(folder / GALLERY_FILE, gallery(model, dataset, kept, settings.micro_batch))
    return folder


def recipe_data(source: str) -> DataConfig:
    """The data that a run folder was trained on. Raises UserError where the source is no run folder."""
    if not (Path(source) / "recipe.json").is_file():
        raise UserError(f"{source} does not say which data it belongs to: name them with --data.")
    return read_recipe(Path(source)).data


def default_suite(source: str) -> str:
    """The suite that a run folder's recipe names; `quick` for other models."""
    return read_recipe(Path(source)).suite if (Path(source) / "recipe.json").is_file() else "quick"


def default_ledger(source: str, suite: Suite) -> Path:
    """`evaluations/SUITE` in a run folder; for a model from the Hub, in a run folder made for it under `runs/`."""
    folder = Path(source) if Path(source).is_dir() else Path("runs") / source.replace("/", "--")
    return folder / "evaluations" / suite.name


def is_evaluated(folder: Path, suite: Suite) -> bool:
    """Whether this suite's ledger is complete there, with its gallery."""
    manifest = folder / "manifest.json"
    if not manifest.is_file() or next(folder.glob("chunk-*.parquet"), None) is None:
        return False
    if read_json(manifest).get("suite") != suite_identity(suite):
        raise UserError(f"{folder} holds an evaluation with other attacks: choose another folder with --out.")
    drawn = suite.gallery_attack is None or (folder / GALLERY_FILE).is_file()
    return drawn and Ledger.read(folder).complete


def _default_count(suite: Suite, dataset: Dataset) -> int:
    return min(suite.num_examples or len(dataset.ids), len(dataset.ids))


class Answer(NamedTuple):
    """A model's answer to one image, likeliest class first."""

    image: Path
    classes: list[str]
    probabilities: list[float]


def predict(source: str, images: list[Path], top: int, place: Place) -> list[Answer]:
    """The likeliest classes of image files. Raises UserError for a file that is missing or no image."""
    model = from_pretrained(source).to(device_of(place))
    config, classes = read_config(find_weights(source))
    names = classes or [str(i) for i in range(config.num_classes)]
    answers = []
    for path in images:
        pixels = (
            torch.from_numpy(load_image(path, config.vision.image_size, config.vision.in_channels)).float().div(255)
        )
        probabilities = _probabilities(model, pixels.to(next(model.parameters()).device))
        order = probabilities.argsort(descending=True)[:top].tolist()
        answers.append(Answer(path, [names[i] for i in order], [probabilities[i].item() for i in order]))
    return answers


@torch.no_grad()
def _probabilities(model: S3TA | ResNet, image: torch.Tensor) -> torch.Tensor:
    return model(image[None])[0].softmax(dim=0)
