"""A recipe made into another one: shrunk to seconds, brought to another batch size, or with a note of what was changed."""

from __future__ import annotations

from typing import Any

from s3ta.attacks import PGDConfig
from s3ta.config import changed, override
from s3ta.errors import UserError
from s3ta.models import ModelConfig, ResNetConfig, S3TAConfig, model_config
from s3ta.train import ComputeConfig, TrainConfig


def with_override_note(recipe: TrainConfig, assignments: list[str]) -> TrainConfig:
    """The recipe with a note of what was changed in it, so that neither its name nor its prose says what is not so."""
    changes = sorted(text for text in assignments if not text.startswith("data."))  # data are told by themselves
    if not changes:
        return recipe
    renamed = any(text.startswith("model.") for text in changes)
    model = {"name": f"{recipe.model.name.removesuffix('*')}*"} if renamed else {}
    note = f"Changed from the recipe {recipe.name}: {', '.join(changes)}. What follows describes the recipe as it was."
    return changed(recipe, {"model": model, "departures": (note, *recipe.departures)})


def scale_batch_size(recipe: TrainConfig, batch_size: int) -> TrainConfig:
    """The same recipe in batches of so many images: as many images in all, the learning rate in proportion to the batch (T13).

    Whatever counts training steps scales inversely, rounded to whole ones: their number, warm-up, drops, clean phase,
    curriculum, weight perturbation; validation, checkpoints and log too. Warm-up is dropped where the new rate does not exceed
    the one it begins at. A moving average forgets over as many images as before; a BN group that is the whole batch, or larger
    than the new one, becomes the batch.

    Raises UserError for a batch below 2 images or one that BN groups do not divide, and for Adam, whose rate has no rule."""
    if batch_size < 2:
        raise UserError(f"--batch-size {batch_size} is too small: BN needs at least 2 images.")
    before = recipe.batch_size
    if batch_size == before:
        return recipe
    if recipe.optimizer.kind != "sgd":
        raise UserError(
            f"--batch-size scales the learning rate of SGD, but {recipe.name} has {recipe.optimizer.kind}, for which the paper "
            "has no rule: set batch_size=N and optimizer.learning_rate=R instead."
        )
    rate, group = recipe.optimizer.learning_rate * batch_size / before, recipe.batch_norm.group
    if group == before:
        group = batch_size
    if group and batch_size > group and batch_size % group:
        raise UserError(
            f"--batch-size {batch_size} does not divide into BN groups of {group}: choose a multiple of {group}."
        )
    note = (
        f"Batches of {batch_size:,} images instead of {before:,}: learning rate {rate:g} instead of "
        f"{recipe.optimizer.learning_rate:g}, and {before / batch_size:g} times as many training steps (T13)."
    )
    changes = {
        "departures": (note, *recipe.departures),
        "batch_size": batch_size,
        "optimizer": {"learning_rate": rate},
        "batch_norm": {"group": group and min(group, batch_size)},
        "averaging": {"decay": recipe.averaging.decay ** (batch_size / before)},
        **_in_batches_of(recipe, batch_size, keeps_warmup=rate > recipe.schedule.warmup_from),
    }
    return override(changed(recipe, changes), [])  # checks the whole


def _in_batches_of(recipe: TrainConfig, batch_size: int, *, keeps_warmup: bool) -> dict[str, Any]:
    """Every setting that counts training steps, for another batch size."""

    def as_many(num_train_steps: int) -> int:
        return (2 * num_train_steps * recipe.batch_size + batch_size) // (2 * batch_size)  # to the nearest, half up

    schedule = recipe.schedule
    return {
        "schedule": {
            "num_train_steps": max(1, as_many(schedule.num_train_steps)),
            "warmup_steps": as_many(schedule.warmup_steps) if keeps_warmup else 0,
            "decay_at": tuple(map(as_many, schedule.decay_at)),
            "clean_steps": as_many(schedule.clean_steps),
            "radius_ramp_steps": as_many(schedule.radius_ramp_steps),
            "glimpses": tuple((as_many(first), number) for first, number in schedule.glimpses),
        },
        "weight_perturbation": {"from_step": as_many(recipe.weight_perturbation.from_step)},
        **{
            name: max(1, as_many(getattr(recipe, name))) for name in ("validate_every", "checkpoint_every", "log_every")
        },
    }


def shrink_recipe(recipe: TrainConfig) -> TrainConfig:
    """The same recipe shrunk to seconds on a CPU: the smallest vision net, 4 training steps, 2 attack steps, plain float32.

    For trying out and for tests: what it trains means nothing. What is built into the model stays."""
    vision, attack = recipe.model.vision, recipe.attack
    size = min(vision.image_size, 60)
    step_size = {"step_size": attack.radius / 2} if isinstance(attack, PGDConfig) else {}
    changes = {
        "name": f"{recipe.name}-tiny",
        "departures": ("A trial run of seconds: what it trains means nothing.", *recipe.departures),
        "model": _shrunk(recipe.model, size),
        "data": {
            "image_size": None if recipe.data.image_size is None else size,
            "preprocessing": None,  # one that is made for another size would be refused
        },
        "attack": {"num_attack_steps": 2, **step_size},
        "schedule": {
            "num_train_steps": 4,
            "warmup_steps": 0,
            "decay_at": (),
            "clean_steps": 1,
            "radius_ramp_steps": 1,
            "glimpses": ((0, 1), (2, 2)) if recipe.schedule.glimpses else (),
        },
        "batch_norm": {"group": recipe.batch_norm.group and 4},
        "weight_perturbation": {"from_step": 1},
        "compute": ComputeConfig(attack_batch=recipe.compute.attack_batch and 4),
        "batch_size": 8,
        "log_every": 1,
        "validate_every": 2,
        "checkpoint_every": 2,
        "num_workers": 0,
    }
    return changed(recipe, changes)


_PARTS = ("feeds_back_logits", "first_logits", "detach_feedback", "queries", "scaled_attention", "cell")
"""Settings of an S3TA that leave out or exchange a part of it."""


def _shrunk(model: ModelConfig, image_size: int) -> ModelConfig:
    """The model on the smallest vision net, with the parts that it has, and none larger than here they are."""
    vision = model.vision
    if isinstance(model, S3TAConfig):
        name = f"s3ta_{min(2, model.num_glimpses)}_resnetv2_mini"
    else:
        name = "resnetv2_mini" + "_dense" * vision.dense
        name += "_denoise" * (vision.denoise is not None) + "_se" * vision.squeeze_excite
    small = model_config(name, model.num_classes, image_size, vision.in_channels)
    parts = {part: getattr(vision, part) for part in ("denoise", "squeeze_excite", "activation")}
    changes: dict[str, object] = {"vision": small.vision.model_copy(update=parts)}
    if isinstance(model, S3TAConfig) and isinstance(small, S3TAConfig):
        fewer = {part: min(getattr(model, part), getattr(small, part)) for part in ("num_heads", "num_frequencies")}
        changes |= {part: getattr(model, part) for part in _PARTS} | fewer
    if isinstance(model, ResNetConfig):
        changes["mlp_hidden"] = model.mlp_hidden and 32
    changed = small.model_copy(update=changes)
    return changed if changed == small else changed.model_copy(update={"name": f"{small.name}*"})
