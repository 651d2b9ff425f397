"""What the page says of how a model was trained, for recipes that learn from something else than attacked images."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from s3ta.config import to_json
from s3ta.evaluate import get_suite
from s3ta.recipes import get_recipe
from s3ta.records.manifest import RecipeEntry
from s3ta.report.experimental_setup import facts_table

from .test_paper_tables import measured, table1_chunks


@pytest.mark.parametrize(
    ("recipe", "loss", "attack"),
    [
        ("digits/s3ta_4", None, "untargeted · loss cross-entropy"),
        ("digits/s3ta_4_readouts", "adversarial · glimpses all", "untargeted · loss cross-entropy"),
        ("digits/resnetv2_mini_dense_llr", "local_linearity · gamma weight 2 · gradient weight 0.6", "local_linearity"),
        ("digits/resnetv2_mini_dense_se", "clean", "none"),
        ("cifar10/resnetv2_18_trades", "trades · beta 6", "divergence"),
    ],
)
def test_the_page_names_a_loss_that_is_not_the_usual_one(
    tmp_path: Path, recipe: str, loss: str | None, attack: str
) -> None:
    run = measured(tmp_path / "mine", get_suite("table1"), table1_chunks())
    settings = json.loads(to_json(get_recipe(recipe)))
    facts = dict(facts_table([replace(run, recipe=RecipeEntry.model_validate(settings))]).rows)
    assert facts.get("Loss") == loss
    assert attack in facts["Attack in training"]
