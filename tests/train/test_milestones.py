"""The states at a quarter, half and three quarters of the way are kept for good, whole and ready to be used."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from s3ta.config import to_json
from s3ta.models import from_pretrained
from s3ta.train import run_folder
from s3ta.train.run_folder import init_run_folder, milestones, read_recipe

from .helpers import Crash, Pictures, crash_at, curve, recipe, run, same_run, snapshot, weights

CONFIG = recipe(schedule={"num_train_steps": 10}, averaging={"decay": 0.5}, checkpoint_every=4, validate_every=99)
STEPS = {"025": 3, "050": 5, "075": 8}


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (100, {25: "025", 50: "050", 75: "075"}),
        (150_120, {37_530: "025", 75_060: "050", 112_590: "075"}),
        (10, {3: "025", 5: "050", 8: "075"}),
        (4, {1: "025", 2: "050", 3: "075"}),
    ],
)
def test_a_milestone_is_the_first_step_with_so_much_done(total, expected):
    assert milestones(total) == expected


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("milestones")
    init_run_folder(folder, CONFIG)
    run(CONFIG, folder)
    return folder


def _kept(folder):
    return {name: content for name, (content, _) in snapshot(folder / "milestones").items()}


@pytest.mark.parametrize("name", STEPS)
def test_a_milestone_is_the_state_after_its_step(whole, tmp_path, name):
    """Against a run that is killed right after that step, with a checkpoint at every step."""
    with pytest.raises(Crash):
        run(CONFIG.model_copy(update={"checkpoint_every": 1}), tmp_path, crash_at(STEPS[name] + 1))
    expected, found = (
        load_file(tmp_path / "checkpoint.safetensors"),
        load_file(whole / "milestones" / name / "checkpoint.safetensors"),
    )
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    model = from_pretrained(whole / "milestones" / name)
    assert all(torch.equal(value, found[f"average.{key}"]) for key, value in model.state_dict().items())
    images = torch.stack([torch.tensor(Pictures().image(i)) for i in range(3)]) / 255
    assert model(images).isfinite().all()


def test_milestones_differ_from_each_other_and_from_the_end(whole):
    found = {(whole / "milestones" / name / "model.safetensors").read_bytes() for name in STEPS}
    assert len(found | {weights(whole)}) == 4


def test_the_next_checkpoint_leaves_a_milestone_alone(whole, tmp_path):
    with pytest.raises(Crash):
        run(CONFIG, tmp_path, crash_at(7))
    before = _kept(tmp_path)
    run(CONFIG, tmp_path)
    assert {name: content for name, content in _kept(tmp_path).items() if name in before} == before
    assert {name for name in before if name.endswith("checkpoint.safetensors")} == {
        "025/checkpoint.safetensors",
        "050/checkpoint.safetensors",
    }
    same_run(whole, tmp_path)


@pytest.mark.parametrize("function", ["keep_milestone", "save_pretrained"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_milestone_missed_by_a_kill_is_kept_at_resume(whole, tmp_path, monkeypatch, function, call):
    calls = []
    real = getattr(run_folder, function)

    def crash(*args):
        calls.append(1)
        if len(calls) == call:
            raise Crash
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, function, crash)
        with pytest.raises(Crash):
            run(CONFIG, tmp_path)
    name = sorted(STEPS)[call - 1]
    assert not (tmp_path / "milestones" / name / "model.safetensors").exists()
    run(CONFIG, tmp_path)
    assert {n: c for n, c in _kept(tmp_path).items() if not n.endswith("checkpoint.safetensors")} == {
        n: c for n, c in _kept(whole).items() if not n.endswith("checkpoint.safetensors")
    }
    same_run(whole, tmp_path)


@pytest.mark.parametrize("name", STEPS)
def test_a_run_goes_on_from_a_milestone_in_a_folder_of_its_own(whole, tmp_path, name):
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copy(whole / "recipe.json", folder)
    shutil.copy(whole / "milestones" / name / "checkpoint.safetensors", folder)
    assert to_json(read_recipe(folder)) == to_json(CONFIG)
    run(read_recipe(folder), folder)
    assert weights(folder) == weights(whole)
    one, other = (load_file(place / "checkpoint.safetensors") for place in (whole, folder))
    assert all(torch.equal(other[key], value) for key, value in one.items())
    assert curve(folder) == [
        line for line in curve(whole) if int(line.split('"step": ')[1].split(",")[0]) > STEPS[name]
    ]


def test_without_hard_links_a_milestone_is_copied(whole, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("Operation not supported")

    monkeypatch.setattr(run_folder.os, "link", refuse)
    run(CONFIG, tmp_path)
    for name in STEPS:
        one, other = (
            load_file(folder / "milestones" / name / "checkpoint.safetensors") for folder in (whole, tmp_path)
        )
        assert all(torch.equal(other[key], value) for key, value in one.items())


def test_a_milestone_is_evaluated_by_the_ordinary_command(tmp_path):
    from typer.testing import CliRunner

    from s3ta.cli import app

    cli, folder = CliRunner(env={"COLUMNS": "1000"}), tmp_path / "run"
    assert cli.invoke(app, ["train", "digits/resnetv2_mini_dense", "--tiny", "--out", str(folder)]).exit_code == 0
    told = cli.invoke(app, ["evaluate", str(folder / "milestones/050"), "--limit", "8", "--no-checks", "--tiny"])
    assert told.exit_code == 0, told.output
    assert (folder / "milestones/050/evaluations").is_dir()


def test_a_run_that_lost_its_checkpoint_is_not_begun_anew(tmp_path):
    from s3ta.errors import UserError
    from s3ta.recipes import get_recipe, shrink_recipe
    from s3ta.train.checkpoint import NAME
    from s3ta.workflow import RuntimeOptions, train_run

    config, place = shrink_recipe(get_recipe("digits/resnetv2_mini_dense")), RuntimeOptions(device="cpu")
    train_run(config, tmp_path / "run", place)
    whole = (tmp_path / "run/model/model.safetensors").read_bytes()
    (tmp_path / "run" / NAME).unlink()
    (tmp_path / "run/model/model.safetensors").unlink()
    with pytest.raises(UserError, match=r"milestones: copy .*075/checkpoint"):
        train_run(config, tmp_path / "run", place)
    (tmp_path / "run" / NAME).write_bytes((tmp_path / "run/milestones/075" / NAME).read_bytes())
    (tmp_path / "run" / f".{NAME}.abc").write_bytes(b"what a kill left")
    assert train_run(config, tmp_path / "run", place)
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == whole
    assert not (tmp_path / "run" / f".{NAME}.abc").exists()
