"""Runs and ledgers of earlier versions go on, and so they do after a setting is added (`make.py` made those here)."""

import json
import shutil
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

import s3ta.models.backbones
from s3ta.attack_config import NamedAttack, TransferConfig
from s3ta.attacks import PGDConfig
from s3ta.cli import app
from s3ta.errors import UserError
from s3ta.evaluate.suite import Suite
from s3ta.records import Ledger, refuse_different_settings
from s3ta.records.manifest import Manifest
from s3ta.report import build_report
from s3ta.train import TrainConfig
from tests.old.make import EVALUATE, narrow

COMMITS = ["25fcae5", "9bd7a06"]
WITH_A_PGD = (PGDConfig, TransferConfig, NamedAttack, Suite, TrainConfig)
"""Each after those that it holds."""


@pytest.fixture(autouse=True)
def small_backbone(monkeypatch):
    monkeypatch.setattr(s3ta.models.backbones, "_basic", narrow)


def _rebuild():
    for each in WITH_A_PGD:
        each.model_rebuild(force=True)


@pytest.fixture
def added_setting():
    """`PGDConfig` as it were with one more setting, `min_scale`, whose default is 1."""
    PGDConfig.model_fields["min_scale"] = FieldInfo(annotation=float, default=1.0)
    _rebuild()
    assert PGDConfig().min_scale == 1.0
    yield
    del PGDConfig.model_fields["min_scale"]
    _rebuild()


@pytest.fixture(params=[False, True], ids=["as it is", "with an added setting"])
def today(request):
    """The program as it is, and with one more setting of PGD."""
    if request.param:
        request.getfixturevalue("added_setting")
    return request.param


@pytest.fixture(params=COMMITS)
def old(request, tmp_path):
    return Path(shutil.copytree(Path(__file__).parent / request.param, tmp_path / "old"))


def command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def train(folder, *words):
    return command("train", folder / "recipe.json", *words, "--out", folder, "--device", "cpu")


def evaluate(run, ledger, *words):
    return command("evaluate", run, *EVALUATE.split(), *words, "--device", "cpu", "--out", ledger)


def test_a_stopped_training_goes_on(old, today):
    folder = old / "stopped"
    before = (folder / "train.jsonl").read_text().splitlines()
    done = train(folder)
    assert done.exit_code == 0, done.output
    assert "Trained" in done.stdout
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in before if json.loads(line)["step"] <= 6]
    assert lines[: len(kept)] == kept
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
    assert not any(line["kind"] == "setting" for line in lines)
    assert (folder / "model" / "model.safetensors").is_file()
    assert train(folder).stdout.startswith("Already trained")


def test_a_killed_ledger_goes_on(old, today):
    run = old / "finished"
    killed, whole = run / "evaluations" / "killed", run / "evaluations" / "quick+num_restarts=2"
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    done = evaluate(run, killed)
    assert done.exit_code == 0, done.output
    assert {name: (killed / name).read_bytes() for name in before} == before
    same = ("example_id", "attack", "restart", "num_attack_steps", "label", "target", "status")
    finished, known = Ledger.read(killed).table(), Ledger.read(whole).table()
    assert finished.select(same).equals(known.select(same))


def test_a_whole_run_is_neither_trained_nor_attacked_again_and_is_reported(old, today):
    run = old / "finished"
    whole = run / "evaluations" / "quick+num_restarts=2"
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert train(run).stdout.startswith("Already trained")
    done = evaluate(run, whole)
    assert done.exit_code == 0, done.output
    assert {name: (whole / name).read_bytes() for name in before} == before
    assert "untargeted-20" in build_report([run], whole.name, old / "report.html").read_text()


CHANGED = {
    "attack.momentum=0.5": (
        "attack.momentum is 0.0 there and 0.5 now",
        "suite.attacks.0.momentum is 0.0 there and 0.5 now",
    ),
    "attack.min_scale=0.5": (
        "attack.min_scale is 1.0 there and 0.5 now",
        "suite.attacks.0.min_scale is 1.0 there and 0.5 now",
    ),
}


@pytest.mark.parametrize("change", CHANGED)
@pytest.mark.usefixtures("added_setting")
def test_a_value_other_than_the_default_is_refused_by_its_name(old, change):
    of_recipe, of_ledger = CHANGED[change]
    for recipe_is_there in (True, False):  # then the checkpoint alone says what it is of
        recipe = shutil.copy(old / "stopped" / "recipe.json", old / "recipe.json")
        if not recipe_is_there:
            (old / "stopped" / "recipe.json").write_text(command("show", recipe, change).stdout)
        done = command("train", recipe, change, "--out", old / "stopped", "--device", "cpu")
        assert done.exit_code == 2
        assert f": {of_recipe}. Choose another" in " ".join(done.stderr.split())
    ledger = old / "finished" / "evaluations" / "killed"
    done = evaluate(old / "finished", ledger, change)
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert of_ledger in said
    assert "absent" not in said


def manifest(commit):
    return json.loads((Path(__file__).parent / commit / "finished/evaluations/killed/manifest.json").read_text())


def typed(raw):
    return Manifest.read(raw, Path("folder"))


def test_evaluations_of_before_and_after_a_setting_was_added_are_compared():
    refuse_different_settings(typed(manifest("25fcae5")), typed(manifest("9bd7a06")))


@pytest.mark.usefixtures("added_setting")
def test_a_ledger_with_an_added_setting_is_compared_with_one_of_before():
    before, after = manifest("9bd7a06"), manifest("9bd7a06")
    for attack in after["suite"]["attacks"]:
        attack["min_scale"] = 1.0
    refuse_different_settings(typed(before), typed(after))
    after["suite"]["attacks"][0]["min_scale"] = 0.5
    with pytest.raises(UserError, match=r"min_scale is 1.0 in the first and 0.5 in the second"):
        refuse_different_settings(typed(before), typed(after))


def test_a_setting_of_a_newer_version_is_a_difference_that_is_named(old):
    path = old / "finished" / "evaluations" / "killed" / "manifest.json"
    newer = json.loads(path.read_text())
    newer["suite"]["attacks"][1]["min_scale"] = 0.5
    path.write_text(json.dumps(newer))
    done = evaluate(old / "finished", path.parent)
    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "another evaluation: suite.attacks.1.min_scale is 0.5 there and absent now. Use" in said
    with pytest.raises(UserError, match=r"min_scale is 0.5 in the first and absent in the second"):
        refuse_different_settings(typed(newer), typed(manifest("9bd7a06")))
    recipe = json.loads((old / "stopped" / "recipe.json").read_text())
    recipe["attack"]["min_scale"] = 0.5
    (old / "stopped" / "recipe.json").write_text(json.dumps(recipe))
    shutil.copy(old / "finished" / "recipe.json", old / "recipe.json")
    done = command("train", old / "recipe.json", "--out", old / "stopped", "--device", "cpu")
    assert done.exit_code == 2
    assert "attack.pgd.min_scale: Extra inputs are not permitted" in " ".join(done.stderr.split())


def test_an_old_training_is_extended(old):
    folder = old / "stopped"
    assert "Add --extend to train on" in " ".join(train(folder, "schedule.num_train_steps=9").stderr.split())
    done = train(folder, "schedule.num_train_steps=9", "--extend")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 10))
    assert [(line["step"], line["before"], line["value"]) for line in lines if line["kind"] == "setting"] == [(6, 8, 9)]
    assert train(folder).stdout.startswith("Already trained")


def test_how_an_old_training_is_computed_may_change_and_its_curve_says_so(old):
    folder = old / "stopped"
    changes = ("compute.attack_batch=4", "compute.units_per_checkpoint=1", "log_every=2", "num_workers=0")
    done = train(folder, *changes)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    noted = {line["name"]: (line["step"], line["before"], line["value"]) for line in lines if line["kind"] == "setting"}
    assert noted == {
        "compute.attack_batch": (6, None, 4),
        "compute.units_per_checkpoint": (6, 0, 1),
        "log_every": (6, 1, 2),
    }
    assert [line["step"] for line in lines if line["kind"] == "agreement"] == [6]
    assert "log_every: 1 until step 6, 2 from here on" in done.stderr
