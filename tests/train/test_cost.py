"""The arithmetic of cost, against the measurements and figures that the project starts from (M17)."""

import pytest

from s3ta.config import override
from s3ta.errors import UserError
from s3ta.models import model_config
from s3ta.models.cost import kept_bytes
from s3ta.recipes import get_recipe
from s3ta.train.cost import (
    HARDWARE,
    Hardware,
    count_flops,
    get_hardware,
    gpu_hours,
    passes,
    state_bytes,
    stretches,
    training_cost,
)

MEASURED = Hardware("measured h200", 141, 790, 67)
IMAGES = 120 * 1251 * 1024
FORWARD = 2 * 46_974_025_728
"""FLOP of S3TA-16 at 224 px (protocol 1.5)."""
PARAMETERS = 102_534_056


def s3ta_16(num_attack_steps, *changes):
    """S3TA-16 without its curriculum, as the planning figures have it."""
    return override(get_recipe(f"imagenet/s3ta_16-{num_attack_steps}"), ["schedule.glimpses=[]", *changes])


@pytest.mark.parametrize(
    ("num_attack_steps", "per_image", "total", "hours"), [(10, 2.16e12, 3.3e20, 292), (30, 5.92e12, 9.1e20, 800)]
)
def test_planning_figures_of_s3ta_16(num_attack_steps, per_image, total, hours):
    recipe = s3ta_16(num_attack_steps)
    whole = count_flops(recipe).total
    assert whole / IMAGES == pytest.approx(FORWARD * (2 * num_attack_steps + 3))
    assert whole / IMAGES == pytest.approx(per_image, rel=0.001)
    assert whole == pytest.approx(total, rel=0.01)
    assert gpu_hours(recipe, MEASURED, 0.4) == pytest.approx(hours, rel=0.005)
    assert gpu_hours(recipe, MEASURED, 1.0) == pytest.approx(0.4 * hours, rel=0.005)


def test_the_cost_follows_the_curriculum():
    """Protocol 1.5: what 4, 8 and 16 glimpses cost, over 35, 35 and 50 epochs."""
    mean = (35 * 46_359_527_424 + 35 * 46_564_360_192 + 50 * 46_974_025_728) / 120
    assert count_flops(get_recipe("imagenet/s3ta_16-10")).total == pytest.approx(2 * mean * 23 * IMAGES, rel=1e-12)


def test_clean_steps_cost_three_forward_passes():
    recipe = get_recipe("digits/s3ta_4")
    cut = stretches(recipe)
    assert [(part.num_train_steps, part.is_attacked) for part in cut] == [(300, False), (500, True)]
    per_forward = count_flops(override(recipe, ["schedule.clean_steps=800"])).total / (800 * 64 * 3)
    attack, update = count_flops(recipe)
    assert attack == pytest.approx(per_forward * 500 * 64 * 2 * 5)
    assert update == pytest.approx(per_forward * 800 * 64 * 3)


@pytest.mark.parametrize(
    ("name", "changes", "perturbed", "expected"),
    [
        ("cifar10/resnetv2_18", [], False, (20, 3)),
        ("cifar10/resnetv2_18_trades", [], False, (21, 6)),  # one look at the clean image; both images in the update
        ("cifar10/resnetv2_18_awp", [], False, (21, 6)),
        ("cifar10/resnetv2_18_awp", [], True, (21, 12)),
        ("cifar10/resnetv2_18", ["compute.units_per_checkpoint=1"], False, (30, 4)),  # each way back makes units again
        ("cifar10/resnetv2_18", ["attack.gradient.num_samples=3"], False, (60, 3)),
    ],
)
def test_passes_of_a_step_equal_their_formula(name, changes, perturbed, expected):
    recipe = override(get_recipe(name), changes)
    assert passes(recipe, is_attacked=True, is_perturbed=perturbed) == expected


def test_trades_costs_nothing_more_in_the_clean_phase():
    assert passes(get_recipe("cifar10/resnetv2_18_trades"), is_attacked=False, is_perturbed=False) == (0, 3)


def test_weight_perturbation_is_counted_from_its_first_step_on():
    recipe = get_recipe("cifar10/resnetv2_18_awp")
    flags = [(part.is_attacked, part.is_perturbed) for part in stretches(recipe)]
    assert flags == [(False, False), (True, False), (True, True)]
    assert sum(part.num_train_steps for part in stretches(recipe)) == recipe.schedule.num_train_steps


@pytest.mark.parametrize(
    ("precision", "units_per_checkpoint", "megabytes"), [("float32", 0, 482), ("bfloat16", 0, 241)]
)
def test_activations_of_the_dense_resnet_152_are_those_measured(precision, units_per_checkpoint, megabytes):
    kept = kept_bytes(model_config("resnetv2_152_dense"), precision, units_per_checkpoint)
    assert kept == pytest.approx(megabytes * 1e6, rel=0.005)


def test_checkpoints_keep_the_inputs_of_groups_and_one_group():
    config = model_config("resnetv2_18", num_classes=10, image_size=32)
    whole = kept_bytes(config)
    each, every_third, all_in_one = (kept_bytes(config, "float32", units) for units in (1, 3, 8))
    assert each < every_third < all_in_one
    assert all_in_one == whole  # one group: its input, and then all of it again
    size = 4 * 64 * 32 * 32  # bytes of the map that the two units of the first stage are given
    inputs = [size, size, size, size // 2, size // 2, size // 4, size // 4, size // 8]
    assert sum(inputs) < each < whole


def test_bytes_of_weights_and_optimizer_equal_their_formula():
    plain = get_recipe("imagenet/s3ta_16-10")
    as_float32 = ["compute.attack_precision=float32", "compute.update_precision=float32"]
    exact = override(plain, as_float32)
    assert state_bytes(exact, PARAMETERS) == 12 * PARAMETERS  # weights, gradients, momentum
    assert state_bytes(plain, PARAMETERS) == 14 * PARAMETERS  # and autocast's copy
    assert state_bytes(exact, PARAMETERS, num_gpus=2) == 16 * PARAMETERS  # and the exchange
    assert state_bytes(override(exact, ["optimizer.kind=adam"]), 10) == 160
    assert state_bytes(override(exact, ["averaging.decay=0.9", "weight_perturbation.gamma=0.1"]), 10) == 200


def test_precisions_have_their_own_peaks():
    mixed = s3ta_16(10, "compute.update_precision=float32")
    attack, update = count_flops(mixed)
    assert gpu_hours(mixed, HARDWARE["a100"], 0.5) * 3600 * 0.5 == pytest.approx(attack / 312e12 + update / 19.5e12)
    v100 = HARDWARE["v100"]
    assert v100.peak("bfloat16") == v100.peak("float32") == 15.7e12


def test_memory_of_a_process_follows_its_share():
    recipe = get_recipe("cifar10/resnetv2_18_trades")
    one, four = (training_cost(recipe, HARDWARE["h200"], gpus) for gpus in (1, 4))
    assert (one.attack_images, one.update_images) == (128, 128)
    assert (four.attack_images, four.update_images) == (32, 32)
    assert one.update_bytes == 2 * one.attack_bytes
    assert one.bytes_per_process == one.state_bytes + 128 * one.update_bytes
    assert four.gpu_hours == one.gpu_hours


def test_impossible_numbers_of_gpus_and_shares_are_refused():
    recipe = get_recipe("cifar10/resnetv2_18")
    for gpus, words in (0, "--gpus 0"), (3, "does not divide among 3"):
        with pytest.raises(UserError, match=words):
            training_cost(recipe, HARDWARE["h200"], gpus)
    for share in (0.0, 1.01, 40.0):
        with pytest.raises(UserError, match="is not a share"):
            gpu_hours(recipe, HARDWARE["h200"], share)
    with pytest.raises(UserError, match="h200"):
        get_hardware("h2000")
