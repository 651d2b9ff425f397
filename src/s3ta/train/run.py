"""The run folder: which recipe it belongs to, how far it has come. Nothing in it is ever overwritten by another recipe."""

from __future__ import annotations

import json
from pathlib import Path

from s3ta.config import from_json, to_json
from s3ta.errors import UserError
from s3ta.files import read_lines, write_atomic
from s3ta.records import manifest_differences
from s3ta.train.config import TrainConfig

RECIPE, CURVE, MODEL = "recipe.json", "train.jsonl", "model"


def claim(folder: Path, config: TrainConfig) -> None:
    """Make the folder this recipe's own, or find that it already is. Errors as `is_claimed`."""
    if not is_claimed(folder, config):
        write_atomic(folder / RECIPE, to_json(config).encode())


def is_claimed(folder: Path, config: TrainConfig) -> bool:
    """Whether the folder is this recipe's own; False where it is free. Writes nothing.

    Raises UserError where it belongs to another recipe (differences named) or holds something else."""
    recipe = folder / RECIPE
    if recipe.is_file():
        found = from_json(TrainConfig, recipe.read_bytes(), str(recipe))
        different = [
            f"{where} is {there} there and {now} now"
            for where, there, now in manifest_differences(found.identity(), config.identity())
        ]
        if different:
            raise UserError(
                f"{folder} holds a run of another recipe: {'; '.join(different[:4])}. Choose another folder "
                "with --out, or repeat the recipe as it was."
            )
        return True
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    return False


def read_recipe(folder: Path) -> TrainConfig:
    """The recipe of a run folder. Raises UserError where there is none."""
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder} is not a run folder: it has no {RECIPE}.")
    return from_json(TrainConfig, (folder / RECIPE).read_bytes(), str(folder / RECIPE))


def is_finished(folder: Path) -> bool:
    """Whether the run's final weights are there."""
    return (folder / MODEL / "model.safetensors").is_file()


def cut_curve(folder: Path, step: int) -> None:
    """Drop lines of the learning curve beyond the checkpoint: the steps they tell of will be taken again."""
    path = folder / CURVE
    lines = read_lines(path)
    kept = [line for line in lines if line["step"] <= step]
    if path.exists() and (len(kept) < len(lines) or not path.read_bytes().endswith(b"\n")):
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
