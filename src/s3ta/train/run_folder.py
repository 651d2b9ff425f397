"""The run folder: which recipe it belongs to, how far it has come. Nothing in it is ever overwritten by another recipe."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from s3ta.config import changed, describe, from_json, to_json
from s3ta.errors import UserError
from s3ta.files import append_lines, read_lines, readable_errors, write_atomic
from s3ta.models import NativeClassifier, save_pretrained
from s3ta.progress import console
from s3ta.records import manifest_differences
from s3ta.train.checkpoint import NAME, step_of
from s3ta.train.config import PROSE, TrainConfig
from s3ta.train.schedule import learning_rate

RECIPE, CURVE, MODEL, MILESTONES = "recipe.json", "train.jsonl", "model", "milestones"
EVALUATIONS = "evaluations"
_LINK = f".{NAME}.link"
_LENGTH = "schedule.num_train_steps"


def init_run_folder(folder: Path, config: TrainConfig, *, on_gpu: bool = False, extend: bool = False) -> None:
    """Make the folder this recipe's own, or find that it already is; where it is to be extended, make its recipe this longer
    one. Arguments and errors as `is_claimed`."""
    if is_claimed(folder, config, on_gpu=on_gpu, extend=extend):
        if not is_longer(folder, config):
            return
        _lengthen(folder, config)
    write_atomic(folder / RECIPE, to_json(config).encode())


def is_claimed(folder: Path, config: TrainConfig, *, on_gpu: bool = False, extend: bool = False) -> bool:
    """Whether the folder is this recipe's own; False where it is free. Writes nothing.

    With `extend` the run may go on to more training steps than it was begun with. Raises UserError where the folder belongs
    to another recipe (differences named) or holds something else."""
    if (folder / RECIPE).is_file():
        there = read_recipe(folder)
        longer = with_length(there, max(there.schedule.num_train_steps, config.schedule.num_train_steps))
        different = recipe_differences(longer if extend else there, config, on_gpu=on_gpu)
        if different:
            is_only_longer = not recipe_differences(longer, config, on_gpu=on_gpu)
            advice = "Add --extend to train on, or choose" if is_only_longer else "Choose"
            raise UserError(
                f"{folder} holds a run of another recipe: {'; '.join(different[:4])}. {advice} another folder "
                "with --out, or repeat the recipe as it was."
            )
        return True
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    return False


def recipe_differences(there: TrainConfig, now: TrainConfig, *, on_gpu: bool = False) -> list[str]:
    """Why a run of one recipe may not go on with another, as phrases that name each setting with both values; none where it
    may. On a GPU the number of CPU threads changes no bit."""
    before, after = (recipe.identity(with_defaults=True) for recipe in (there, now))
    if on_gpu:
        before |= {"num_threads": after["num_threads"]}
    return [f"{name} is {old} there and {new} now" for name, old, new in manifest_differences(before, after)]


def with_length(config: TrainConfig, num_train_steps: int) -> TrainConfig:
    """The same recipe with another number of training steps."""
    return changed(config, {"schedule": {"num_train_steps": num_train_steps}})


def is_longer(folder: Path, config: TrainConfig) -> bool:
    """Whether the recipe has more training steps than that of the run folder."""
    return read_recipe(folder).schedule.num_train_steps < config.schedule.num_train_steps


def resume_differences(folder: Path, config: TrainConfig, there: TrainConfig, *, on_gpu: bool) -> list[str]:
    """As `recipe_differences`, of a checkpoint's recipe in the run folder: it may be from before the run was extended."""
    earlier = {line["before"] for line in read_lines(folder / CURVE) if line.get("name") == _LENGTH}
    if there.schedule.num_train_steps in earlier:
        there = with_length(there, config.schedule.num_train_steps)
    return recipe_differences(there, config, on_gpu=on_gpu)


def _lengthen(folder: Path, config: TrainConfig) -> None:
    """Note that the run goes on to more training steps; what is kept of the shorter one moves to names that say so."""
    if not (folder / NAME).exists():
        raise UserError(f"{folder} has no {NAME} to go on from: choose another folder with --out.")
    there, step = read_recipe(folder), step_of(folder / NAME)
    before, now = (recipe.schedule.num_train_steps for recipe in (there, config))
    note = {"kind": "setting", "step": step, "name": _LENGTH, "before": before, "value": now}
    end = folder / MILESTONES / f"100-of-{before}"
    with readable_errors(folder):
        if note not in read_lines(folder / CURVE):
            append_lines(folder / CURVE, [note])
        for kept in (folder / MILESTONES).glob("[0-9][0-9][0-9]"):
            kept.rename(kept.with_name(f"{kept.name}-of-{before}"))
        if is_finished(folder):
            end.parent.mkdir(exist_ok=True)
            (folder / MODEL).rename(end)
        if end.is_dir():
            _link_checkpoint(folder, end)
            if (folder / EVALUATIONS).is_dir():
                (folder / EVALUATIONS).rename(end / EVALUATIONS)
    console.print(f"{_LENGTH}: {before} until step {step}, {now} from here on", markup=False)
    rates = [learning_rate(each.schedule, each.optimizer.learning_rate, step) for each in (there, config)]
    if rates[0] != rates[1]:
        console.print(
            f"The learning rate follows the longer schedule from here on: {rates[1]:.3g} at step {step} instead of "
            f"{rates[0]:.3g}. A run of {now} steps from its start would have had other rates before."
        )


def read_recipe(folder: Path) -> TrainConfig:
    """The recipe of a run folder. Raises UserError where there is none."""
    if not (folder / RECIPE).is_file():
        raise UserError(f"{folder} is not a run folder: it has no {RECIPE}.")
    return from_json(TrainConfig, (folder / RECIPE).read_bytes(), str(folder / RECIPE))


def run_folder_of(folder: Path) -> Path | None:
    """The run folder that this is, or that it is a milestone of; None where it is neither."""
    candidates = [folder, *([folder.parent.parent] if folder.parent.name == MILESTONES else [])]
    return next((run for run in candidates if (run / RECIPE).is_file()), None)


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


def keep_milestone(folder: Path, name: str, model: NativeClassifier, classes: list[str]) -> None:
    """Keep the state just saved: the whole checkpoint, and a model folder that can be evaluated."""
    target = folder / MILESTONES / name
    with readable_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        _link_checkpoint(folder, target)
    save_pretrained(model, target, classes)


def _link_checkpoint(folder: Path, target: Path) -> None:
    (target / _LINK).unlink(missing_ok=True)
    try:
        os.link(folder / NAME, target / _LINK)  # the next checkpoint is another file of the same name
    except OSError:
        shutil.copyfile(folder / NAME, target / _LINK)
    os.replace(target / _LINK, target / NAME)
    (target / _LINK).unlink(missing_ok=True)  # where both were the same file already, the line above did nothing


def clear_leftovers(folder: Path) -> None:
    """Remove what kills in the middle of writing left: files with a dot before the name of what they were to become. For who
    holds the folder."""
    for part in (folder, folder / MODEL, *(folder / MILESTONES).glob("*")):
        for path in part.glob(".*.*.*"):
            path.unlink(missing_ok=True)


def refuse_lost_checkpoint(folder: Path) -> None:
    """Raises UserError where the checkpoint is gone but milestones tell that the run had come further."""
    kept = sorted((folder / MILESTONES).glob(f"*/{NAME}"), key=step_of)
    if kept:
        raise UserError(
            f"{folder} has no {NAME} but milestones: copy {kept[-1]} to {folder} to go on from there, or choose "
            "another folder with --out to train from the start."
        )


def note_changes(folder: Path, step: int, config: TrainConfig) -> list[str]:
    """Where a run goes on with settings other than before, which make it no other run, say so and keep it in the learning
    curve. Returns their names."""
    if not (folder / RECIPE).is_file():
        return []
    before, now = _settings(read_recipe(folder)), _settings(config)
    for line in read_lines(folder / CURVE):
        if line.get("kind") in ("setting", "on_unreadable"):  # the second, of `data.on_unreadable`, in older runs
            before[line.get("name", "data.on_unreadable")] = line["value"]
    changed = [name for name, value in now.items() if before.get(name, value) != value]
    for name in changed:
        note = {"kind": "setting", "step": step, "name": name, "before": before[name], "value": now[name]}
        append_lines(folder / CURVE, [note])
        console.print(f"{name}: {before[name]} until step {step}, {now[name]} from here on", markup=False)
    return changed


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting but prose, by its dotted name, as a JSON value."""
    return {name: json.loads(text) for name, text, _ in describe(config) if name not in PROSE}


def resume_curve(folder: Path, step: int, config: TrainConfig) -> bool:
    """Bring the learning curve to where the run goes on. Returns whether it computes otherwise than before from here on."""
    cut_curve(folder, step)
    return any(name.startswith("compute.") for name in note_changes(folder, step, config))


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
