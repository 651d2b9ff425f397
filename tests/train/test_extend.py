"""A run goes on to more training steps than it was begun with, where that is asked for by name."""

import json

import pytest

from s3ta.errors import UserError
from s3ta.train import init_run_folder, read_recipe
from s3ta.train.checkpoint import step_of

from .helpers import Crash, crash_at, curve, recipe, run, weights


def of_length(num_train_steps, **changes):
    return recipe("resnet", schedule={"num_train_steps": num_train_steps, **changes.pop("schedule", {})}, **changes)


@pytest.fixture
def short(tmp_path):
    """A finished run of six training steps."""
    folder = tmp_path / "run"
    init_run_folder(folder, of_length(6))
    run(of_length(6), folder)
    return folder


NOTE = {"kind": "setting", "step": 6, "name": "schedule.num_train_steps", "before": 6, "value": 10}


def without_notes(folder):
    return [line for line in curve(folder) if json.loads(line)["kind"] != "setting"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_with_a_schedule_that_knows_no_end_it_is_the_run_of_that_length(short, tmp_path, is_killed):
    ends = weights(short)
    init_run_folder(short, of_length(10), extend=True)
    assert read_recipe(short) == of_length(10)
    if is_killed:  # before the next checkpoint, so that the one that is there is of the shorter run
        with pytest.raises(Crash):
            run(of_length(10), short, crash_at(7))
        assert step_of(short / "checkpoint.safetensors") == 6
        init_run_folder(short, of_length(10))
    run(of_length(10), short)
    run(of_length(10), tmp_path / "whole")
    assert weights(short) == weights(tmp_path / "whole")
    assert without_notes(short) == curve(tmp_path / "whole")
    assert [json.loads(line) for line in curve(short) if '"setting"' in line] == [NOTE]
    assert (short / "milestones" / "100-of-6" / "model.safetensors").read_bytes() == ends


def test_what_was_kept_of_the_shorter_run_says_so(short):
    kept = {path.parent.name: path.read_bytes() for path in short.glob("milestones/*/model.safetensors")}
    assert kept.keys() == {"025", "050", "075"}
    (short / "evaluations" / "quick").mkdir(parents=True)
    init_run_folder(short, of_length(10), extend=True)
    run(of_length(10), short)
    now = {path.parent.name: path.read_bytes() for path in short.glob("milestones/*/model.safetensors")}
    assert {name: now[f"{name}-of-6"] for name in kept} == kept
    assert now.keys() == {"025-of-6", "050-of-6", "075-of-6", "100-of-6", "075"}
    assert step_of(short / "milestones" / "100-of-6" / "checkpoint.safetensors") == 6
    assert (short / "milestones" / "100-of-6" / "evaluations" / "quick").is_dir()
    assert not (short / "evaluations").exists()


def test_a_cosine_rises_again_and_the_program_says_so(tmp_path, capsys):
    cosine = {"schedule": {"decay": "cosine"}}
    init_run_folder(tmp_path, of_length(6, **cosine))
    run(of_length(6, **cosine), tmp_path)
    init_run_folder(tmp_path, of_length(12, **cosine), extend=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "schedule.num_train_steps: 6 until step 6, 12 from here on" in said
    assert "follows the longer schedule from here on: 0.025 at step 6 instead of 0." in said
    assert "A run of 12 steps from its start would have had other rates before." in said


@pytest.mark.parametrize(
    ("config", "extend", "words"),
    [
        (of_length(10), False, r"num_train_steps is 6 there and 10 now. Add --extend to train on, or choose another"),
        (of_length(10, seed=1), False, r"6 there and 10 now; seed is 0 there and 1 now. Choose another"),
        (of_length(10, seed=1), True, r"another recipe: seed is 0 there and 1 now. Choose another"),
        (of_length(4), True, r"num_train_steps is 6 there and 4 now. Choose another"),
    ],
)
def test_only_a_longer_run_by_name_is_taken(short, config, extend, words):
    before = {path: path.read_bytes() for path in short.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=words):
        init_run_folder(short, config, extend=extend)
    assert {path: path.read_bytes() for path in short.rglob("*") if path.is_file()} == before


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(short):
    (short / "checkpoint.safetensors").unlink()
    with pytest.raises(UserError, match="to go on from"):
        init_run_folder(short, of_length(10), extend=True)
    assert read_recipe(short) == of_length(6)
    assert (short / "model" / "model.safetensors").is_file()


def test_the_checkpoint_of_another_run_is_no_shorter_part_of_this_one(short, tmp_path):
    other = tmp_path / "other"
    init_run_folder(other, of_length(10))
    (other / "checkpoint.safetensors").write_bytes((short / "checkpoint.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"other data: schedule.num_train_steps is 6 there and 10 now"):
        run(of_length(10), other)
