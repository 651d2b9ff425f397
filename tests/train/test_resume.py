"""A run may be killed, stopped or starved of disk at any moment; the same command goes on to the same last bit."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from s3ta.cli import app
from s3ta.config import override
from s3ta.errors import UserError
from s3ta.files import read_lines
from s3ta.recipes import get_recipe, shrink_recipe
from s3ta.train import is_finished, loop
from s3ta.workflow import RuntimeOptions, train_run
from tests.processes import PATIENCE

from .helpers import Crash, crash_and_resume, crash_at, curve, recipe, run, same_run, snapshot

RECIPE = "digits/resnetv2_mini_dense"
OVERRIDES = ["schedule.num_train_steps=12", "checkpoint_every=3", "validate_every=1000", "schedule.clean_steps=2"]
SLOWER = [*OVERRIDES, "schedule.num_train_steps=30", "batch_size=16"]
"""For real processes: steps long enough to be killed in."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(recipe(schedule={"num_train_steps": 10, "clean_steps": 2, "radius_ramp_steps": 3}), folder)
    return folder


SMALL = recipe(schedule={"num_train_steps": 10, "clean_steps": 2, "radius_ramp_steps": 3})


@pytest.mark.parametrize("step", range(1, 11))
def test_a_crash_after_any_step_changes_nothing(whole, tmp_path, step):
    crash_and_resume(SMALL, tmp_path, step)
    same_run(whole, tmp_path)


def test_many_crashes_in_one_run_change_nothing(whole, tmp_path):
    crash_and_resume(SMALL, tmp_path, 1, 3, 4, 4, 7, 9, 10)
    same_run(whole, tmp_path)


@pytest.mark.parametrize("moment", ["append_lines", "save_checkpoint", "save_pretrained", "validate"])
@pytest.mark.parametrize("call", [1, 3])
def test_a_crash_inside_any_write_changes_nothing(whole, tmp_path, monkeypatch, moment, call):
    real, calls = getattr(loop, moment), []

    def crash(*args, **settings):
        calls.append(1)
        if len(calls) == (1 if moment == "save_pretrained" else call):
            if moment == "append_lines":  # half a line reaches the disk
                with (tmp_path / "train.jsonl").open("a") as file:
                    file.write('{"kind": "train", "st')
            raise Crash
        return real(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(loop, moment, crash)
        with pytest.raises(Crash):
            run(SMALL, tmp_path)
    run(SMALL, tmp_path)
    same_run(whole, tmp_path)


@pytest.mark.parametrize("optimizer", [{"kind": "adam", "learning_rate": 1e-3}, {"nesterov": False, "momentum": 0.5}])
@pytest.mark.parametrize("model", ["s3ta", "resnet"])
def test_every_optimizer_resumes(tmp_path, model, optimizer):
    config = recipe(model, optimizer=optimizer, checkpoint_every=3)
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "crashed", 5)
    same_run(tmp_path / "whole", tmp_path / "crashed")


def test_a_run_that_loses_its_momentum_ends_otherwise(whole, tmp_path, monkeypatch):
    """The comparison would see it: without the optimizer's state the weights come out differently."""
    with pytest.raises(Crash):
        run(SMALL, tmp_path, crash_at(5))
    from s3ta.train import checkpoint

    monkeypatch.setattr(checkpoint, "_fill_optimizer", lambda *_: None)
    run(SMALL, tmp_path)
    with pytest.raises(AssertionError):
        same_run(whole, tmp_path)


def test_a_run_killed_between_weights_and_their_config_is_not_finished(tmp_path, monkeypatch):
    from s3ta.models import pretrained

    def crash(*_):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(pretrained, "write_json", crash)
        with pytest.raises(Crash):
            run(SMALL, tmp_path)
    assert not is_finished(tmp_path)


# --- the real program -----------------------------------------------------------------------------------------------------


def _config(overrides):
    return override(shrink_recipe(get_recipe(RECIPE)), overrides)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train_run(_config(OVERRIDES), folder, RuntimeOptions(device="cpu"))
    return folder


@pytest.fixture(scope="module")
def uninterrupted_slower(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slower") / "run"
    assert train_run(_config(SLOWER), folder, RuntimeOptions(device="cpu"))
    return folder


def _start(folder, **options):
    command = [
        sys.executable,
        "-m",
        "s3ta",
        "train",
        RECIPE,
        *SLOWER,
        "--tiny",
        "--device",
        "cpu",
        "--out",
        str(folder),
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


def _steps(folder):
    return max((line["step"] for line in read_lines(folder / "train.jsonl")), default=0)


def _wait_for(child, folder, step):
    while _steps(folder) < step and child.poll() is None:
        time.sleep(0.002)


def _kill_at_random_moments(folder, kills, dice):
    """Returns the steps at which the runs were killed; the last run is left unfinished."""
    killed_at = []
    for _ in range(kills):
        child = _start(folder)
        _wait_for(child, folder, _steps(folder) + dice.randint(1, max(1, 16 // kills)))  # past where the last one died
        time.sleep(dice.random() * 0.03)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        killed_at.append(_steps(folder))
        if is_finished(folder):
            break
    return killed_at


def _killed_run_equals(uninterrupted_slower, folder, kills):
    seed = int(os.environ.get("S3TA_TEST_SEED", time.time_ns() % 10**6))
    print(f"kills from S3TA_TEST_SEED={seed}")
    killed_at = _kill_at_random_moments(folder, kills, random.Random(seed))
    print(f"killed after steps {killed_at}")
    assert killed_at[0] < 30, "the first run was not killed in the middle"
    assert train_run(_config(SLOWER), folder, RuntimeOptions(device="cpu")) or is_finished(folder)
    same_run(uninterrupted_slower, folder)


@pytest.mark.thorough
def test_two_kills_at_random_moments_change_nothing(uninterrupted_slower, tmp_path):
    _killed_run_equals(uninterrupted_slower, tmp_path / "run", 2)


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(uninterrupted_slower, tmp_path):
    _killed_run_equals(uninterrupted_slower, tmp_path / "run", 10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_the_program_is_one_sentence(uninterrupted_slower, tmp_path, number):
    folder = tmp_path / "run"
    child = _start(folder)
    _wait_for(child, folder, 7)
    child.send_signal(number)
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130
    assert (
        said.splitlines()[-1] == "s3ta: interrupted; what was finished is saved. Run the same command again to go on."
    )
    assert "Traceback" not in said
    assert train_run(_config(SLOWER), folder, RuntimeOptions(device="cpu"))
    same_run(uninterrupted_slower, folder)


@pytest.mark.slow
def test_ctrl_c_stops_worker_processes_too(uninterrupted_slower, tmp_path):
    folder = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "s3ta",
        "train",
        RECIPE,
        *SLOWER,
        "num_workers=1",
        "--tiny",
        "--device",
        "cpu",
        "--out",
        str(folder),
    ]
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    _wait_for(child, folder, 7)
    os.killpg(child.pid, signal.SIGINT)  # what a terminal does
    _, said = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130, said
    assert "Traceback" not in said


# --- the command line inside this process ------------------------------------------------------------------------------------


def _command(folder, *more, recipe_name=RECIPE):
    # A fixed width, so that no line is broken where a test looks.
    return CliRunner(env={"COLUMNS": "1000"}).invoke(
        app, ["train", recipe_name, *OVERRIDES, *more, "--tiny", "--device", "cpu", "--out", str(folder)]
    )


def _one_sentence(result, code):
    assert result.exit_code == code, result.output
    said = [line for line in result.stderr.splitlines() if line.startswith("s3ta: ")]
    assert len(said) == 1
    assert "Traceback" not in result.output
    assert result.stderr.rstrip().endswith(said[0])
    return said[0]


def _acting_at(step, act, monkeypatch):
    @contextmanager
    def progress(*_, **__):
        def report(completed, note=""):
            if completed == step and note:
                act()

        yield report

    monkeypatch.setattr("s3ta.workflow.training.progress", progress)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_in_progress_and_leaves_with_130(uninterrupted, tmp_path, monkeypatch, number):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        _acting_at(8, lambda: os.kill(os.getpid(), number), patch)
        assert "interrupted; what was finished is saved" in _one_sentence(_command(tmp_path / "run"), 130)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert _steps(tmp_path / "run") == 8
    from safetensors import safe_open

    with safe_open(str(tmp_path / "run/checkpoint.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["s3ta"])["progress"]["step"] == 8  # not a multiple of checkpoint_every
    assert _command(tmp_path / "run").exit_code == 0
    same_run(uninterrupted, tmp_path / "run")


def test_a_second_ctrl_c_interrupts_at_once(tmp_path, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        _acting_at(8, twice, patch)
        _one_sentence(_command(tmp_path / "run"), 130)
    from safetensors import safe_open

    with safe_open(str(tmp_path / "run/checkpoint.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["s3ta"])["progress"]["step"] == 6  # the last one written by schedule


def test_a_finished_run_is_not_repeated_and_not_touched(uninterrupted):
    before = snapshot(uninterrupted)
    result = _command(uninterrupted)
    assert result.exit_code == 0
    assert f"Already trained: {uninterrupted}" in result.stdout
    assert snapshot(uninterrupted) == before
    kept = [
        f"milestones/{part}/{name}"
        for part in ("025", "050", "075")
        for name in ("checkpoint.safetensors", "config.json", "model.safetensors")
    ]
    assert sorted(before) == [
        "checkpoint.safetensors",
        *kept,
        "model/config.json",
        "model/model.safetensors",
        "recipe.json",
        "train.jsonl",
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["seed=1"], "seed is 0 there and 1 now"),
        (["attack.radius=8/255"], "attack.radius is 0.1 there and 0.031"),
        (["optimizer.clip_norm=null"], "optimizer.clip_norm is 1.0 there and null now"),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused(uninterrupted, change, words):
    before = snapshot(uninterrupted)
    sentence = _one_sentence(_command(uninterrupted, *change), 2)
    assert words in sentence
    assert "--out" in sentence
    assert snapshot(uninterrupted) == before


def test_another_recipe_is_refused_in_an_unfinished_folder_too(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _acting_at(4, lambda: os.kill(os.getpid(), signal.SIGINT), patch)
        _one_sentence(_command(tmp_path / "run"), 130)
    before = snapshot(tmp_path / "run")
    sentence = _one_sentence(_command(tmp_path / "run", recipe_name="digits/s3ta_4"), 2)
    assert "digits/s3ta_4" in sentence
    assert snapshot(tmp_path / "run") == before


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "is not empty and holds no run" in _one_sentence(_command(tmp_path), 2)
    assert list(snapshot(tmp_path)) == ["thesis.tex"]


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_file_in_the_way_is_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    _one_sentence(_command(tmp_path / name), 2)


def test_what_a_kill_during_the_first_write_leaves_is_no_obstacle(tmp_path):
    (tmp_path / ".recipe.json.k1ll3d").write_text('{"na')  # the name that write_atomic gives
    assert _command(tmp_path, "schedule.num_train_steps=1").exit_code == 0


def test_a_disk_that_fills_up_while_training_is_one_sentence(small_disk, tmp_path, monkeypatch):
    config = SMALL.model_copy(update={"checkpoint_every": 1})
    run(config, tmp_path / "whole")
    size = (tmp_path / "whole/checkpoint.safetensors").stat().st_size // 1024
    disk = small_disk(int(1.6 * size))  # one checkpoint fits, a second beside it does not
    with pytest.raises(
        UserError, match=r"Cannot write .*checkpoint\.safetensors: no space is left on the disk\. Free some space"
    ):
        run(config, disk)
    kept = snapshot(disk)
    assert sorted(kept) == ["checkpoint.safetensors", "train.jsonl"]
    roomy = tmp_path / "roomy"
    roomy.mkdir()
    for name, (content, _) in kept.items():
        (roomy / name).write_bytes(content)
    run(config, roomy)
    same_run(tmp_path / "whole", roomy)


def test_a_full_disk_ends_the_program_with_code_2(small_disk, monkeypatch):
    monkeypatch.setattr("s3ta.workflow.training.check_space", lambda *_: None)  # somebody else fills it up meanwhile
    disk = small_disk(1000)
    assert "no space is left on the disk" in _one_sentence(_command(disk / "run"), 2)


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("s3ta.files.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**12, 10**12, 10**6))
    said = _one_sentence(_command(tmp_path / "run"), 2)
    assert re.search(r"run needs about [\d.]+ GB, but the disk has 0\.001 GB free: free some space", said)
    assert not (tmp_path / "run").exists()


def test_the_curve_of_an_interrupted_run_is_cut_back_to_the_checkpoint(whole, tmp_path):
    with pytest.raises(Crash):
        run(SMALL, tmp_path, crash_at(5))
    assert max(json.loads(line)["step"] for line in curve(tmp_path)) == 5
    with pytest.raises(Crash):
        run(SMALL, tmp_path, _crash_before_the_first_step)
    assert max(json.loads(line)["step"] for line in curve(tmp_path)) == 4
    assert curve(tmp_path) == curve(whole)[: len(curve(tmp_path))]


def _crash_before_the_first_step(completed, note=""):
    raise Crash


def test_an_unfinished_run_folder_can_be_moved(whole, tmp_path):
    with pytest.raises(Crash):
        run(SMALL, tmp_path / "here", crash_at(5))
    (tmp_path / "here").rename(tmp_path / "there")
    run(SMALL, tmp_path / "there")
    same_run(whole, tmp_path / "there")
    assert str(tmp_path) not in "".join(
        content.decode(errors="replace") for content, _ in snapshot(Path(tmp_path / "there")).values()
    )
