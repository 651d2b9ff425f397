"""Every named experiment as a small function that returns one complete config; its docstring is its lab note.

A recipe is called `DATASET/MODEL[-N]` (N: attack steps in training). A saved JSON file is a recipe too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s3ta.config import from_json
from s3ta.errors import UserError, unknown_name
from s3ta.models import S3TAConfig, model_config
from s3ta.recipes import cifar10, digits
from s3ta.train import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "digits/s3ta_4": digits.s3ta_4,
    "digits/resnetv2_mini_dense": digits.resnetv2_mini_dense,
    "cifar10/s3ta_4_mini": cifar10.s3ta_4_mini,
    "cifar10/resnetv2_mini_dense": cifar10.resnetv2_mini_dense,
}


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name, or of that JSON file. Raises UserError: unknown (nearest offered), missing or damaged."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise UserError(f"The recipe file {name} does not exist.")
        return from_json(TrainConfig, Path(name).read_bytes(), name)
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, "s3ta list recipes")
    return RECIPES[name]()


def noting(recipe: TrainConfig, assignments: list[str]) -> TrainConfig:
    """The recipe with a note of what was changed in it, so that neither its name nor its prose says what is not so."""
    told = sorted(text for text in assignments if not text.startswith("data."))  # data are told by themselves
    if not told:
        return recipe
    model = recipe.model
    if any(text.startswith("model.") for text in told):
        model = model.model_copy(update={"name": f"{model.name.removesuffix('*')}*"})
    note = f"Changed from the recipe {recipe.name}: {', '.join(told)}. What follows describes the recipe as it was."
    return recipe.model_copy(update={"model": model, "departures": (note, *recipe.departures)})


def tiny(recipe: TrainConfig) -> TrainConfig:
    """The same recipe shrunk to seconds on a CPU: the smallest vision net, 4 training steps, 2 attack steps.

    For trying out and for tests: what it trains means nothing."""
    vision = recipe.model.vision
    name = "s3ta_2_resnetv2_mini" if isinstance(recipe.model, S3TAConfig) else f"resnetv2_mini{'_dense' * vision.dense}"
    size = min(vision.image_size, 60)
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-tiny",
            "departures": ("A trial run of seconds: what it trains means nothing.", *recipe.departures),
            "model": model_config(name, recipe.model.num_classes, size, vision.in_channels),
            "data": recipe.data.model_copy(update={"image_size": None if recipe.data.image_size is None else size}),
            "attack": recipe.attack.model_copy(update={"num_attack_steps": 2, "step_size": recipe.attack.radius / 2}),
            "schedule": recipe.schedule.model_copy(
                update={
                    "num_train_steps": 4,
                    "warmup_steps": 0,
                    "decay_at": (),
                    "clean_steps": 1,
                    "radius_ramp_steps": 1,
                    "glimpses": (),
                }
            ),
            "batch_size": 8,
            "log_every": 1,
            "validate_every": 2,
            "checkpoint_every": 2,
            "num_workers": 0,
        }
    )
