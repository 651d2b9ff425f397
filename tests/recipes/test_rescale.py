"""Another batch size by T13: as many images, the same epochs, the learning rate in proportion."""

import pytest

from s3ta.config import from_json, to_json
from s3ta.errors import UserError
from s3ta.recipes import RECIPES, get_recipe, scale_batch_size
from s3ta.train import TrainConfig
from s3ta.train.schedule import learning_rate

SGD = [name for name in RECIPES if get_recipe(name).optimizer.kind == "sgd"]


@pytest.mark.parametrize("factor", [0.5, 2, 4])
@pytest.mark.parametrize("name", SGD)
def test_as_many_images_are_seen_at_each_setting(name, factor):
    whole = get_recipe(name)
    batch_size = int(whole.batch_size * factor)
    other = scale_batch_size(whole, batch_size)
    assert from_json(TrainConfig, to_json(other), "text") == other
    assert other.batch_size == batch_size
    assert other.optimizer.learning_rate == pytest.approx(whole.optimizer.learning_rate * factor)
    for ours, theirs in [
        (other.schedule.num_train_steps, whole.schedule.num_train_steps),
        (other.schedule.clean_steps, whole.schedule.clean_steps),
        (other.schedule.radius_ramp_steps, whole.schedule.radius_ramp_steps),
        (other.weight_perturbation.from_step, whole.weight_perturbation.from_step),
        *zip(other.schedule.decay_at, whole.schedule.decay_at, strict=True),
        *((mine[0], its[0]) for mine, its in zip(other.schedule.glimpses, whole.schedule.glimpses, strict=True)),
    ]:
        assert abs(ours * factor - theirs) <= factor / 2
    assert [k for _, k in other.schedule.glimpses] == [k for _, k in whole.schedule.glimpses]
    assert other.averaging.decay ** (1 / factor) == pytest.approx(whole.averaging.decay)
    unchanged = {"name", "suite", "data", "model", "attack", "loss", "compute", "label_smoothing", "seed"}
    assert all(getattr(other, field) == getattr(whole, field) for field in unchanged)
    group = whole.batch_norm.group
    assert other.batch_norm.group == (batch_size if group == whole.batch_size else group)
    assert f"Batches of {batch_size:,} images instead of {whole.batch_size:,}" in other.departures[0]
    assert other.departures[1:] == whole.departures


@pytest.mark.parametrize(
    ("batch_size", "rates", "warmup_steps"),
    [
        (512, (0.05, 0.1), 12_510),
        (2048, (0.05, 0.4), 3128),
        (256, (0.05, 0.05), 0),  # T13: the scaled rate does not exceed where warm-up begins
        (32, (0.00625, 0.00625), 0),
    ],
)
def test_warm_up_stays_only_where_the_scaled_rate_exceeds_its_start(batch_size, rates, warmup_steps):
    recipe = scale_batch_size(get_recipe("imagenet/s3ta_16-10"), batch_size)
    schedule, peak = recipe.schedule, recipe.optimizer.learning_rate
    assert schedule.warmup_steps == warmup_steps
    assert peak == pytest.approx(0.05 * batch_size / 256)
    assert learning_rate(schedule, peak, 0) == pytest.approx(rates[0])
    assert learning_rate(schedule, peak, warmup_steps) == pytest.approx(rates[1])


def test_the_same_batch_size_changes_nothing():
    recipe = get_recipe("imagenet/s3ta_16-10")
    assert scale_batch_size(recipe, 1024) == recipe


def test_a_batch_smaller_than_a_group_is_a_group():
    recipe = scale_batch_size(get_recipe("imagenet/s3ta_16-10"), 4)
    assert recipe.batch_norm.group == recipe.batch_size == 4
    assert recipe.schedule.num_train_steps == 256 * 150_120


@pytest.mark.parametrize(
    ("name", "batch_size", "words"),
    [
        ("digits/s3ta_4", 32, "digits/s3ta_4 has adam"),
        ("imagenet/s3ta_16-10", 100, "--batch-size 100 does not divide into BN groups of 32"),
        ("imagenet/s3ta_16-10", 1, "--batch-size 1 is too small"),
    ],
)
def test_impossible_batch_sizes_are_refused(name, batch_size, words):
    with pytest.raises(UserError, match=words):
        scale_batch_size(get_recipe(name), batch_size)
