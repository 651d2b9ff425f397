"""The run folder belongs to one recipe."""

import pytest

from s3ta.config import to_json
from s3ta.errors import UserError
from s3ta.train import init_run_folder, is_finished, read_recipe
from s3ta.train.run_folder import cut_curve

from .helpers import recipe, snapshot


def test_claiming_writes_the_whole_recipe_and_claiming_again_nothing(tmp_path):
    folder = tmp_path / "a" / "run"
    init_run_folder(folder, recipe())
    assert read_recipe(folder) == recipe()
    assert (folder / "recipe.json").read_text() == to_json(recipe())
    before = snapshot(folder)
    init_run_folder(folder, recipe())
    assert snapshot(folder) == before
    assert not is_finished(folder)


def test_an_empty_folder_may_be_claimed(tmp_path):
    init_run_folder(tmp_path, recipe())
    assert read_recipe(tmp_path) == recipe()


def test_another_recipe_is_refused_with_the_differences(tmp_path):
    init_run_folder(tmp_path, recipe())
    before = snapshot(tmp_path)
    with pytest.raises(UserError) as caught:
        init_run_folder(tmp_path, recipe("resnet", optimizer={"learning_rate": 0.5}, seed=3))
    for words in ("model.kind", '"s3ta"', '"resnet"', "another recipe", "--out"):
        assert words in str(caught.value)
    with pytest.raises(UserError, match="seed is 0 there and 3 now"):
        init_run_folder(tmp_path, recipe(seed=3))
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "x"}', '{"unknown": 1}'])
def test_a_damaged_recipe_is_named(tmp_path, content):
    (tmp_path / "recipe.json").write_text(content)
    for act in (lambda: read_recipe(tmp_path), lambda: init_run_folder(tmp_path, recipe())):
        with pytest.raises(UserError, match=r"recipe\.json"):
            act()
    assert (tmp_path / "recipe.json").read_text() == content


def test_a_folder_without_a_recipe_is_no_run_folder(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no recipe\.json"):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        ('{"step": 1}\n{"step": 2}\n{"step": 3}\n', 2, '{"step": 1}\n{"step": 2}\n'),
        ('{"step": 1}\n{"st', 5, '{"step": 1}\n'),
        ('{"step": 1}\n{"step": 2}', 2, '{"step": 1}\n{"step": 2}\n'),
        ('{"step": 1}\n', 0, ""),
        ('{"step": 1}\n', 1, '{"step": 1}\n'),
    ],
)
def test_the_curve_is_cut_to_the_checkpoint(tmp_path, before, step, after):
    (tmp_path / "train.jsonl").write_text(before)
    cut_curve(tmp_path, step)
    assert (tmp_path / "train.jsonl").read_text() == after


def test_cutting_a_curve_that_does_not_exist_writes_nothing(tmp_path):
    cut_curve(tmp_path, 5)
    assert not list(tmp_path.iterdir())


def test_settings_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="read_outs"):
        recipe(attack={"read_outs": (1,)})
    with pytest.raises(ValueError, match="one attack per image"):
        recipe(attack={"num_restarts": 2})
    with pytest.raises(ValueError, match="needs an S3TA model"):
        recipe("resnet", schedule={"glimpses": ((0, 2),)})
