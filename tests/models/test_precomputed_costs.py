"""The committed table of costs says what counting says, and holds the model of every recipe."""

import json

import pytest
from pydantic import TypeAdapter

from s3ta.models import ModelConfig, cost, model_config, precomputed_costs
from s3ta.recipes import RECIPES, get_recipe
from s3ta.train.cost import HARDWARE, models_of, training_cost

READ = TypeAdapter(ModelConfig)
ROWS = json.loads(precomputed_costs.TABLE_FILE.read_text(encoding="utf-8"))
RENEW = "run `python benchmarks/cost_table.py`"


def _is_small(row):
    return row["model"]["vision"]["backbone"] == "resnetv2_mini"


def _name(row):
    glimpses = row["model"].get("num_glimpses", "no")
    return f"{row['model']['vision']['backbone']}-{row['model']['vision']['image_size']}px-{glimpses}-glimpses"


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if _is_small(row) else pytest.mark.slow, id=_name(row)) for row in ROWS],
)
def test_table_says_what_counting_says(row):
    config = READ.validate_json(json.dumps(row["model"]))
    counted = cost.count(config)
    assert (
        precomputed_costs.count_cost(config)
        == counted
        == (row["parameters"], row["multiply_accumulates"], tuple(row["map_size"]))
    )
    for precision in ("float32", "bfloat16"):
        assert (
            precomputed_costs.kept_bytes(config, precision)
            == cost.kept_bytes(config, precision)
            == row[f"kept_{precision}"]
        )


@pytest.fixture
def counting_fails(monkeypatch):
    def count(*_):
        raise AssertionError("counted")

    monkeypatch.setattr(cost, "count", count)
    monkeypatch.setattr(cost, "kept_bytes", count)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.usefixtures("counting_fails")
def test_table_holds_every_recipe(name):
    recipe = get_recipe(name)
    missing = {precomputed_costs.table_key(config) for config in models_of(recipe).values()} - set(
        precomputed_costs._rows()
    )
    assert not missing, RENEW
    training_cost(recipe, HARDWARE["h200"])


def test_table_holds_nothing_else():
    needed = {
        precomputed_costs.table_key(config) for name in RECIPES for config in models_of(get_recipe(name)).values()
    }
    assert set(precomputed_costs._rows()) == needed, RENEW
    assert len(ROWS) == len(needed)


@pytest.mark.usefixtures("counting_fails")
@pytest.mark.parametrize(
    "change", [{"num_classes": 11}, {"num_glimpses": 3}, {"lstm_size": 127}], ids=lambda change: str(*change)
)
def test_another_model_is_counted(change):
    known = get_recipe("digits/s3ta_4").model
    assert precomputed_costs.count_cost(known).parameters > 0
    for ask in (precomputed_costs.count_cost, precomputed_costs.kept_bytes):
        with pytest.raises(AssertionError, match="counted"):
            ask(known.model_copy(update=change))


@pytest.mark.usefixtures("counting_fails")
def test_activations_that_are_made_again_are_counted():
    with pytest.raises(AssertionError, match="counted"):
        precomputed_costs.kept_bytes(get_recipe("digits/s3ta_4").model, "float32", 1)


def test_name_costs_nothing():
    known = get_recipe("digits/s3ta_4").model
    assert precomputed_costs.count_cost(known.model_copy(update={"name": "mine*"})) == precomputed_costs.count_cost(
        known
    )
    assert precomputed_costs.count_cost(model_config("resnetv2_mini", 3, 32)) == cost.count(
        model_config("resnetv2_mini", 3, 32)
    )
