"""What is measured: one of our models, or anybody's, opened and ready; and what belongs to this machine, never to a result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from s3ta.data import DataConfig, holds_files, open_dataset, resolve_source
from s3ta.errors import UserError
from s3ta.files import read_json
from s3ta.models import (
    LoadOptions,
    ModelMetadata,
    find_weights,
    is_external,
    model_metadata,
    open_model,
    read_config,
    refuse_unknown_source,
)
from s3ta.models.load_options import LIBRARIES
from s3ta.progress import console
from s3ta.train import TrainConfig, read_recipe, run_folder_of


class RuntimeOptions(NamedTuple):
    """The data root, the device, and whether data may be downloaded."""

    data_root: Path = Path("data")
    device: str = "auto"
    download: bool = False


def device_at(runtime: RuntimeOptions) -> torch.device:
    """`auto`: the GPU where there is one. Raises UserError for a device that torch does not know or have."""
    if runtime.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=runtime.device)
        return torch.device(runtime.device)
    except (RuntimeError, AssertionError):
        raise UserError(f"There is no device '{runtime.device}' here: use auto, cpu or cuda.") from None


class OpenedModel(NamedTuple):
    """A model with what its folder says of it."""

    source: str
    """As a person named it; never written into results."""
    model: nn.Module
    classes: tuple[str, ...] | None
    """Names of its outputs, where it says them."""
    recipe: TrainConfig | None
    """How it was trained, where it is a run folder."""
    folder: Path
    """Where its evaluations go."""

    @property
    def card(self) -> ModelMetadata:
        return model_metadata(self.model)


def open_for_evaluation(
    source: str,
    opening: LoadOptions | None = None,
    data: DataConfig | None = None,
    split: str = "test",
    runtime: RuntimeOptions | None = None,
) -> OpenedModel:
    """Open a run folder, model folder, Hub id, `timm:NAME`, `torchvision:NAME`, `example:NAME` or `package.module:factory`.

    `opening`: what a person says of a foreign model. `data`, `split`, `runtime`: what it will be measured on; images that have
    a size of their own say what size a factory's model takes, where nobody did.
    Raises UserError as `s3ta.models.open_model`, and where `opening` says of one of our models what its folder knows better."""
    opening = opening or LoadOptions()
    refuse_unknown_source(source)
    if is_external(source):
        is_factory = not source.startswith(LIBRARIES)
        if is_factory and opening.image_size is None and data is not None and not holds_files(data.source):
            opening = _sized(opening, data, split, runtime or RuntimeOptions())
        model = open_model(source, opening)
        card = model_metadata(model)
        for sentence in [*(f"note: {note}" for note in card.config.get("notes", [])), *card.origins.remarks]:
            console.print(sentence)
        weights = "" if opening.weights is None else f"-{Path(opening.weights).stem}"
        short = re.sub(r"[^A-Za-z0-9_.+-]+", "-", source + weights)
        return OpenedModel(source, model, card.classes, None, Path("runs") / short)
    _refuse_folder_of_others(Path(source))
    _, saved = read_config(find_weights(source))
    options = opening._replace(class_names=None, micro_batch=None)._asdict()
    given = [name.replace("_", "-") for name, value in options.items() if value not in (None, ())]
    if given:
        raise UserError(f"{source} is a model of ours, which knows its own --{given[0]}: leave that out.")
    classes = opening.class_names or saved
    run = run_folder_of(Path(source))
    recipe = None if run is None else read_recipe(run)
    folder = Path(source) if Path(source).is_dir() else Path("runs") / source.replace("/", "--")
    return OpenedModel(source, open_model(source), None if classes is None else tuple(classes), recipe, folder)


def _refuse_folder_of_others(folder: Path) -> None:
    """UserError where a folder holds a network of timm or transformers, with what to write instead."""
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else None
    if not isinstance(config, dict) or "format" in config:
        return
    if isinstance(name := config.get("architecture"), str):
        raise UserError(f"{folder} holds weights of timm's {name}: write timm:{name} --weights {folder}.")
    if isinstance(names := config.get("architectures"), list) and names:
        raise UserError(
            f"{folder} holds weights of {names[0]}, of transformers: write a factory that builds the network and answers with "
            f"its logits, and give --weights {folder}."
        )


def _sized(opening: LoadOptions, data: DataConfig, split: str, runtime: RuntimeOptions) -> LoadOptions:
    """With the size of the images, and with their channels where nobody named others."""
    located = resolve_source(data.source, runtime.data_root)
    config = data.model_copy(update={"source": located.source})
    channels, height, width = open_dataset(config, split, located.root, runtime.download).shape
    if height != width:
        raise UserError(f"The images of {data.source} are {height}x{width}: choose a square with --image-size.")
    return opening._replace(image_size=height, in_channels=opening.in_channels or channels)


def recipe_data(subject: OpenedModel) -> DataConfig:
    """The data that a run folder was trained on. Raises UserError where the model is of no run folder."""
    if subject.recipe is None:
        raise UserError(f"{subject.source} does not say which data it belongs to: name them with --data.")
    return subject.recipe.data
