"""The run folder: which recipe it belongs to, how far it has come. Nothing in it is ever overwritten by another recipe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from s3ta.config import from_json, to_json
from s3ta.errors import UserError
from s3ta.files import append_lines, read_lines, readable_errors, write_atomic
from s3ta.models import S3TA, ResNet, save_pretrained
from s3ta.progress import console
from s3ta.records import manifest_differences
from s3ta.train.checkpoint import NAME
from s3ta.train.config import TrainConfig

RECIPE, CURVE, MODEL, MILESTONES = "recipe.json", "train.jsonl", "model", "milestones"
_LINK = f".{NAME}.link"


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


def run_of(folder: Path) -> Path | None:
    """The run folder that this is, or that it is a milestone of; None where it is neither."""
    for run in (folder, *([folder.parent.parent] if folder.parent.name == MILESTONES else [])):
        if (run / RECIPE).is_file():
            return run
    return None


def is_finished(folder: Path) -> bool:
    """Whether the run's final weights are there."""
    return is_whole(folder / MODEL)


def is_whole(folder: Path) -> bool:
    """Whether a model folder has its weights, which are written last."""
    return (folder / "model.safetensors").is_file()


def milestones(num_train_steps: int) -> dict[int, str]:
    """The training steps whose state is kept for good, with the folder's name: a quarter, half and three quarters of the
    way. (The end is `checkpoint.safetensors` and `model/`.)"""
    return {-(-num_train_steps * part // 4): f"{part * 25:03d}" for part in (1, 2, 3)}


def keep_milestone(folder: Path, name: str, model: S3TA | ResNet, classes: list[str]) -> None:
    """Keep the state just saved: the whole checkpoint, and a model folder that can be evaluated."""
    target = folder / MILESTONES / name
    with readable_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        (target / _LINK).unlink(missing_ok=True)
        try:
            os.link(folder / NAME, target / _LINK)  # the next checkpoint is another file of the same name
        except OSError:
            shutil.copyfile(folder / NAME, target / _LINK)
        os.replace(target / _LINK, target / NAME)
        (target / _LINK).unlink(missing_ok=True)  # where both were the same file already, the line above did nothing
    save_pretrained(model, target, classes)


def clear_leftovers(folder: Path) -> None:
    """Remove what kills in the middle of writing left: files with a dot before the name of what they were to become. For who
    holds the folder."""
    for part in (folder, folder / MODEL, *(folder / MILESTONES).glob("*")):
        for path in part.glob(".*.*.*"):
            path.unlink(missing_ok=True)


def refuse_lost_checkpoint(folder: Path) -> None:
    """Raises UserError where the checkpoint is gone but milestones tell that the run had come further."""
    kept = sorted(path.parent for path in (folder / MILESTONES).glob(f"*/{NAME}"))
    if kept:
        raise UserError(
            f"{folder} has no {NAME} but milestones: copy {kept[-1] / NAME} to {folder} to go on from there, or choose "
            "another folder with --out to train from the start."
        )


def note_unreadable(folder: Path, step: int, value: str) -> None:
    """Where a run goes on with another `data.on_unreadable` than before, say so, and keep it in the learning curve."""
    before = None if not (folder / RECIPE).is_file() else read_recipe(folder).data.on_unreadable
    changes = [line["value"] for line in read_lines(folder / CURVE) if line.get("kind") == "on_unreadable"]
    before = changes[-1] if changes else before
    if before not in (None, value):
        append_lines(folder / CURVE, [{"kind": "on_unreadable", "step": step, "value": value}])
        console.print(f"data.on_unreadable: {before} until step {step}, {value} from here on", markup=False)


def log_skipped(folder: Path, step: int, skipped: Iterable[tuple[str, str]]) -> None:
    """Name the examples of a step (counted from 1) that could not be read, each as (id, reason), here and in the curve."""
    for example_id, reason in skipped:
        append_lines(folder / CURVE, [{"kind": "skipped", "step": step, "example_id": example_id}])
        console.print(f"left out: {reason}", markup=False, soft_wrap=True)


def cut_curve(folder: Path, step: int) -> None:
    """Drop lines of the learning curve beyond the checkpoint: the steps they tell of will be taken again."""
    path = folder / CURVE
    lines = read_lines(path)
    kept = [line for line in lines if line["step"] <= step]
    if path.exists() and (len(kept) < len(lines) or not path.read_bytes().endswith(b"\n")):
        write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
