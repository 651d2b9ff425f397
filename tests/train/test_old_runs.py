"""Runs that began before today's settings existed go on, to the same last bit."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from s3ta.config import config_hash, from_json, to_json
from s3ta.train import TrainConfig, init_run_folder, read_recipe
from s3ta.train.run_folder import note_changes

from .helpers import Crash, crash_at, recipe, run, same_run

NEW = ("loss", "batch_norm", "averaging", "weight_perturbation", "compute")
HASHES = {"s3ta": "2c0a94c97470", "resnet": "21899302d0c6"}
"""What the program said of these recipes when checkpoints had format 1."""


def _as_it_was(folder, kind):
    """Turn recipe and checkpoint into those that the first program wrote."""
    recipe_path, path = folder / "recipe.json", folder / "checkpoint.safetensors"
    settings = json.loads(recipe_path.read_text())
    recipe_path.write_text(json.dumps({name: value for name, value in settings.items() if name not in NEW}))
    with safe_open(str(path), "pt") as file:
        about = json.loads(file.metadata()["s3ta"])
    del about["config"]
    progress = {name: about["progress"][name] for name in ("step", "loss_sum", "num_correct", "num_seen", "seconds")}
    about |= {"format": 1, "recipe": f"{HASHES[kind]}/f00d", "progress": progress}
    save_file(load_file(path), path, metadata={"s3ta": json.dumps(about)})


@pytest.mark.parametrize(
    "change",
    [
        {"loss": {"kind": "trades"}, "attack": {"random_start_prob": 1.0, "objective": "divergence"}},
        {"batch_norm": {"group": 2}},
        {"averaging": {"decay": 0.5}},
        {"weight_perturbation": {"gamma": 0.01}},
        {"compute": {"channels_last": True}},
        {"compute": {"deterministic": False}},
    ],
)
def test_new_settings_make_another_recipe(change):
    assert config_hash(recipe(**change)) != config_hash(recipe(attack=change.get("attack")))


@pytest.mark.parametrize(
    "change", [{"must_agree": False}, {"compiled": True}, {"units_per_checkpoint": 1}, {"attack_batch": 2}]
)
def test_how_the_same_result_is_computed_makes_no_other_recipe(change):
    one, other = (recipe(compute={"channels_last": True} | more) for more in ({}, change))
    assert config_hash(one) == config_hash(other)


@pytest.mark.parametrize("kind", HASHES)
def test_a_run_of_the_first_program_goes_on(tmp_path, kind):
    config = recipe(kind)
    run(config, tmp_path / "whole")
    folder = tmp_path / "old"
    init_run_folder(folder, config)
    with pytest.raises(Crash):
        run(config, folder, crash_at(5))
    _as_it_was(folder, kind)
    assert from_json(TrainConfig, (folder / "recipe.json").read_bytes(), "it") == config
    init_run_folder(folder, config)
    run(read_recipe(folder), folder)
    same_run(tmp_path / "whole", folder)
    with safe_open(str(folder / "checkpoint.safetensors"), "pt") as file:
        about = json.loads(file.metadata()["s3ta"])
    assert about["config"] == to_json(config)


@pytest.mark.parametrize(("before", "after"), [("fail", "skip"), ("skip", "fail")])
@pytest.mark.parametrize("is_old", [False, True])
def test_a_stopped_run_resumes_with_another_on_unreadable(tmp_path, before, after, is_old):
    """Checkpoints bore a hash that told `skip` from `fail`."""
    first, second = (recipe("resnet", data={"on_unreadable": value}) for value in (before, after))
    init_run_folder(tmp_path, first)
    with pytest.raises(Crash):
        run(first, tmp_path, crash_at(5))
    if is_old:
        path = tmp_path / "checkpoint.safetensors"
        with safe_open(str(path), "pt") as file:
            about = json.loads(file.metadata()["s3ta"])
        about["recipe"] = "6af9154aa9e4/f00d"
        save_file(load_file(path), path, metadata={"s3ta": json.dumps(about)})
    init_run_folder(tmp_path, second)
    run(second, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["kind"] == "setting"] == [
        {"kind": "setting", "step": 4, "name": "data.on_unreadable", "before": before, "value": after}
    ]
    with safe_open(str(tmp_path / "checkpoint.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["s3ta"])["recipe"] == f"{config_hash(first)}/f00d"


def test_what_an_older_run_noted_is_what_it_goes_on_from(tmp_path):
    """Its curve says `on_unreadable`, without a name."""
    init_run_folder(tmp_path, recipe(data={"on_unreadable": "fail"}))
    (tmp_path / "train.jsonl").write_text('{"kind": "on_unreadable", "step": 2, "value": "skip"}\n')
    assert note_changes(tmp_path, 4, recipe(data={"on_unreadable": "skip"})) == []
    assert note_changes(tmp_path, 4, recipe(data={"on_unreadable": "fail"})) == ["data.on_unreadable"]
