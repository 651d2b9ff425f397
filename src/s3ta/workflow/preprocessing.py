"""How images become what a model takes, the same for an evaluation and for single answers; and in words where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from s3ta.data import DataConfig, holds_files, with_evaluation_transform
from s3ta.models import DEFAULT_PROVENANCE, ModelMetadata, PreparationSources
from s3ta.workflow.model import OpenedModel


class Preparation(NamedTuple):
    """The data as a model wants them, and where its treatment comes from."""

    config: DataConfig
    origins: dict[str, str]
    """Of `images` and of `normalisation`, in words."""


def prepared(subject: OpenedModel, config: DataConfig, card: ModelMetadata) -> Preparation:
    """The config with size, channels and preprocessing for a model.

    What a person chose comes first, then the recipe that the model was trained by, then what its authors do, then the
    default. Raises UserError where a cut does not fit."""
    recipe = None if subject.recipe is None else subject.recipe.data
    origin = "as they are stored"
    if holds_files(config.source):
        if config.preprocessing is not None:
            is_recipe = recipe is not None and config.preprocessing == recipe.preprocessing
            origin = "the recipe's" if is_recipe else "given"
        elif recipe is not None and holds_files(recipe.source):
            config, origin = config.model_copy(update={"preprocessing": recipe.preprocessing}), "the recipe's"
        else:
            origin = card.origins.preparation
            if card.view is None and origin == PreparationSources().preparation:
                origin = DEFAULT_PROVENANCE
    channels = 1 if card.in_channels == 1 else 3
    config = config.model_copy(update={"image_size": card.image_size, "channels": channels})
    if card.view is not None:
        config = with_evaluation_transform(config, card.image_size, *card.view)
    return Preparation(config, {"images": origin, "normalisation": card.origins.normalisation})


def recorded_preparation(manifest: Mapping[str, Any]) -> str:
    """The preparation of an evaluation's images, as a sentence; empty where its manifest does not say it."""
    how, origins = manifest["data"].get("preprocessing"), manifest.get("informative", {}).get("origins") or {}
    return "" if how is None else preprocessing_sentence(how, manifest["model"]["config"], origins)


def preprocessing_sentence(how: Mapping[str, Any], model: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The preparation of images as a manifest records it, as a sentence, with the `config` of the model and the origins."""
    size, resize = how["image_size"], how["resize"]
    images = f"cut to {size} px" if how["name"] != "none" else "not resized"
    if resize is not None:
        images = f"{how['name']} (shorter side to {resize} px, centre of {size} px, {how['interpolation']})"
    normalisation = "the model's own"
    if "mean" in model:  # not ours
        mean, std = model["mean"], model["std"]
        normalisation = (
            "none" if mean is None and std is None else f"mean {_row(mean or [0.0])}, std {_row(std or [1.0])}"
        )
        normalisation += _from(origins, "normalisation")
    return f"Images: {images}{_from(origins, 'images')}. Normalisation: {normalisation}."


def _row(values: list[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _from(origins: Mapping[str, str], what: str) -> str:
    return f", {origins[what]}" if what in origins else ""
