"""Learning really happens: a minute of the digits recipe, cut short and clean, beats chance by far."""

import json

import pytest

from s3ta.config import override
from s3ta.recipes import get_recipe
from s3ta.train import validation
from s3ta.train.validation import evenly_spaced
from s3ta.workflow import RuntimeOptions, train_run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "steps", "least"), [("digits/resnetv2_mini_dense", 60, 0.3), ("digits/s3ta_4", 200, 0.3)]
)
def test_a_short_clean_run_beats_chance(tmp_path, name, steps, least, monkeypatch):
    monkeypatch.setattr(validation, "evenly_spaced", evenly_spaced)  # not over a few
    recipe = override(
        get_recipe(name),
        [
            f"schedule.num_train_steps={steps}",
            f"schedule.clean_steps={steps}",
            "validate_every=1000",
            "attack.num_attack_steps=1",
        ],
    )
    train_run(recipe, tmp_path / "run", RuntimeOptions(device="cpu"))
    last = json.loads((tmp_path / "run/train.jsonl").read_text().splitlines()[-1])
    assert last["kind"] == "validation"
    assert last["num_examples"] == 200
    assert last["clean"] > least, last  # chance: 0.10, with a standard deviation of 0.02
