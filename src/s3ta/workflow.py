"""The rooms put together: train a recipe, evaluate a model, answer for some images. The command line and scripts call these."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from s3ta.attacks import AutoAttackConfig
from s3ta.data import DataConfig, Dataset, check_fit, load_image, locate, open_dataset
from s3ta.errors import UserError
from s3ta.evaluate import (
    KEPT_FILE,
    SUITES,
    KeptImages,
    Settings,
    Situation,
    Suite,
    changed_suite,
    choose_examples,
    evaluate,
    get_suite,
    misfit,
    open_ledger,
    pace,
    stages,
    suite_identity,
    suite_of,
    tiny_suite,
    total,
    transfer_suite,
)
from s3ta.exact import exact_arithmetic
from s3ta.explain import KEPT, gallery
from s3ta.files import read_arrays, read_json, sha256, sole_use, write_arrays
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
    images: KeptImages | None = None,
) -> Path:
    """Run what is missing of a suite on a model and draw the gallery. Returns the ledger's folder.

    Args:
      source: run folder, model folder or Hub id.
      suite: what to measure.
      data: where the examples come from; None: the recipe's own data (run folders only).
      split: which part of them.
      out: the ledger's folder; None: `evaluations/SUITE` in the run folder.
      images: for a suite of transfers, whose."""
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
    if images is not None:
        _refuse_other_data(images, dataset, positions)
    with sole_use(folder):
        ledger = open_ledger(model, dataset, suite, folder, positions, settings)
        missing = set(ledger.missing(ledger.num_chunks))
        console.print(_announcement(model, dataset, suite, len(positions), settings, missing), soft_wrap=True)
        work = total(suite, len(positions)).num_evaluations
        with progress(f"{model.config.name} {suite.name}", work) as report:
            evaluate(model, dataset, suite, ledger.folder, positions, settings, report, images)
        if (folder / KEPT_FILE).is_file():
            kept = read_arrays(folder / KEPT_FILE, KEPT)
            with exact_arithmetic(settings.num_threads):
                write_arrays(folder / GALLERY_FILE, gallery(model, dataset, kept, settings.micro_batch))
    return folder


def _announcement(
    model: S3TA | ResNet, dataset: Dataset, suite: Suite, num_examples: int, settings: Settings, missing: set[int]
) -> str:
    """What will be done, and how long what is missing takes here at most."""
    all_chunks, work = -(-num_examples // settings.micro_batch), total(suite, num_examples)
    told = f"{model.config.name}, suite {suite.name}: {num_examples} examples"
    if not missing:
        return f"{told}; everything is there already."
    gradient, forward = pace(model, dataset, settings)
    seconds = 0.0
    for stage in stages(suite):
        chunks = len(missing & set(range(stage.number * all_chunks, (stage.number + 1) * all_chunks)))
        others = stage.cost.num_forwards - stage.cost.num_gradients
        seconds += chunks * (gradient * stage.cost.num_gradients + forward * others)
    lines = [
        f"{told}, at most {work.num_gradients:,} gradient and {work.num_forwards - work.num_gradients:,} other forward "
        f"evaluations, about {_minutes(seconds)} here for what is not there yet, if none can be saved"
    ]
    if settings.budget is not None:
        lines.append(
            f"Budget: {settings.budget:,} passes per example, so at most {num_examples * settings.budget:,} in all."
        )
        dear = [s.name for s in stages(suite) if s.restart == 0 and s.cost.total > settings.budget]
        lines += [f"Beyond the budget, whatever the others cost: {', '.join(dear)}."] if dear else []
    if suite.left_out:
        lines.append(f"Left out, for they do not fit the model or a changed setting: {', '.join(suite.left_out)}.")
    return "\n".join(lines)


def choose_suite(
    source: str, name: str | None, attacks: list[str], radius: float | None, is_tiny: bool, overrides: list[str]
) -> Suite:
    """The suite that a person means, fitted to the model.

    Args:
      source: run folder, model folder or Hub id.
      name: of a suite; None: the recipe's, else `quick`.
      attacks: names of single attacks instead of a suite.
      radius: for suites and attacks that state none; None: that of the recipe, else 8/255.
    Raises UserError for a name that is unknown, and for a radius where the suite states its own."""
    config, _ = read_config(find_weights(source))
    found = radius if radius is not None else _recipe_radius(source)
    at = Situation(found, getattr(config, "num_glimpses", None), config.num_classes)
    if attacks:
        if name is not None:
            raise UserError("Give either --suite or --attack, not both.")
        suite = suite_of(attacks, at)
    else:
        name = name or default_suite(source)
        if name in SUITES and radius is not None:
            raise UserError(
                f"Suite '{name}' states its own radius: change it with attack.radius=... instead of --radius."
            )
        suite = get_suite(name, at)
    suite = changed_suite(tiny_suite(suite) if is_tiny else suite, overrides)
    _refuse_misfits(suite, at)
    return suite


def _refuse_misfits(suite: Suite, at: Situation) -> None:
    """UserError for what would only be noticed when its turn comes, hours later."""
    for named in suite.attacks:
        if reason := misfit(named.attack, at):
            raise UserError(f"{named.name} cannot be run: {reason}.")
        if isinstance(named.attack, AutoAttackConfig) and find_spec("pyautoattack") is None:
            raise UserError(f'{named.name} is a part of AutoAttack: pip install "s3ta[autoattack]" (or pyautoattack).')


def _recipe_radius(source: str) -> float:
    """The radius that a run folder was trained at, in the L-infinity ball; else the default."""
    if not (Path(source) / "recipe.json").is_file():
        return Situation().radius
    attack = read_recipe(Path(source)).attack
    return attack.radius if attack.norm == "linf" else Situation().radius


def transferred(folder: Path, settings: Settings) -> tuple[KeptImages, Suite, Settings, int]:
    """The images of another model's evaluation, with the suite, settings and number of examples to score them by."""
    images = KeptImages(folder)
    suite = transfer_suite(images.manifest)
    return images, suite, settings._replace(seed=images.manifest["seed"]), images.manifest["data"]["num_examples"]


def _refuse_other_data(images: KeptImages, dataset: Dataset, positions: list[int]) -> None:
    theirs = images.manifest["data"]
    examples = sha256("\n".join(dataset.ids[i] for i in positions).encode())
    if (theirs["fingerprint"], theirs["examples"]) != (dataset.fingerprint, examples):
        raise UserError(
            f"The images were made of other examples ({theirs['source']}, {theirs['split']}): evaluate on the same data."
        )


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
