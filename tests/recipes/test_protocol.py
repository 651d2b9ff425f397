"""The ImageNet recipes against the protocol's tables: T1-T23, X27, X28, X29, and every open choice a field."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.config import describe, to_json
from s3ta.data import Dataset, steps_per_epoch
from s3ta.models import build_model, count_cost
from s3ta.recipes import RECIPES, get_recipe
from s3ta.report.paper_tables import PAPER
from s3ta.train.optimizer import decayed
from s3ta.train.schedule import attack_at, glimpses_at, learning_rate

LIKE_THE_PAPER = re.compile(r"imagenet/(s3ta_\d+|resnetv2_152(_dense|_denoise)?)-\d+")
NAMES = [name for name in RECIPES if LIKE_THE_PAPER.fullmatch(name)]
"""Those that are trained as the paper trains all of its nets."""
EPOCH = 1251
DOCUMENT = Path(__file__).parents[2] / "docs" / "protocol.md"


def rate(recipe, step):
    return learning_rate(recipe.schedule, recipe.optimizer.learning_rate, step)


class TrainingPart(Dataset):
    """So many training images that nobody looks at."""

    source, split, classes, shape, fingerprint = "nothing", "train", ("one",), (3, 1, 1), ""
    labels = np.zeros(1, np.int64)

    def __init__(self, count):
        self.ids = range(count)

    def image(self, index, draw=None):
        raise NotImplementedError


@pytest.mark.parametrize("name", NAMES)
def test_an_epoch_has_the_papers_1251_steps_of_the_images_that_are_not_held_out(name):
    recipe = get_recipe(name)
    assert steps_per_epoch(TrainingPart(1_281_167 - recipe.data.num_validation), recipe.batch_size) == EPOCH
    assert recipe.schedule.num_train_steps == 120 * EPOCH == 150_120
    assert 0 < recipe.data.num_validation <= 143


@pytest.mark.parametrize(("name", "num_images", "epochs", "drops"), [
    ("cifar10/s3ta_4", 50_000, 110, (100, 105)),
    ("cifar10/s3ta_4_awp", 50_000, 200, (100, 150)),
    ("imagenette/s3ta_4", 9_469, 60, (50, 55)),
])  # fmt: skip
def test_epochs_of_the_smaller_recipes_are_whole(name, num_images, epochs, drops):
    recipe = get_recipe(name)
    epoch = steps_per_epoch(TrainingPart(num_images - recipe.data.num_validation), recipe.batch_size)
    assert recipe.schedule.num_train_steps == epochs * epoch
    assert recipe.schedule.decay_at == tuple(drop * epoch for drop in drops)


@pytest.mark.parametrize("name", NAMES)
def test_learning_rates_equal_the_papers_table(name):
    """X28: at the first steps, at the end of warm-up, and at the first steps of epochs 36, 71 and 96."""
    recipe = get_recipe(name)
    steps = (0, 6254, 6255, 35 * EPOCH, 70 * EPOCH, 95 * EPOCH, 120 * EPOCH - 1)
    expected = (0.05, 0.05 + 0.15 * 6254 / 6255, 0.2, 0.02, 0.002, 0.0002, 0.0002)
    assert [rate(recipe, step) for step in steps] == pytest.approx(expected, rel=1e-9)
    for boundary, before in ((35, 0.2), (70, 0.02), (95, 0.002)):
        assert rate(recipe, boundary * EPOCH - 1) == pytest.approx(before)
    assert rate(recipe, 1000) == pytest.approx(0.05 + 0.15 * 1000 / 6255)  # per step, not per epoch


@pytest.mark.parametrize("name", ["imagenet/s3ta_16-10", "imagenet/s3ta_16-30"])
def test_curriculum_of_s3ta_16_by_epoch(name):
    """X27."""
    schedule = get_recipe(name).schedule
    for epoch in range(1, 121):
        expected = 4 if epoch <= 35 else 8 if epoch <= 70 else 16
        assert {glimpses_at(schedule, (epoch - 1) * EPOCH), glimpses_at(schedule, epoch * EPOCH - 1)} == {expected}


def test_no_other_model_has_a_curriculum():
    for name in NAMES:
        assert bool(get_recipe(name).schedule.glimpses) == ("s3ta_16" in name)


@pytest.mark.parametrize("name", NAMES)
def test_training_attack_is_the_papers(name):
    """T14, T17, T18: also with 10 steps each is 1/255; T12: nothing but attacked images from the first step on."""
    recipe = get_recipe(name)
    attack = recipe.attack
    assert (attack.objective, attack.loss, attack.norm, attack.keep) == ("targeted", "cross_entropy", "linf", "last")
    assert (attack.radius, attack.step_size, attack.random_start_prob) == (16 / 255, 1 / 255, 0.8)
    assert attack.num_attack_steps == int(name.rpartition("-")[2])
    assert attack_at(recipe.schedule, attack, 0) == attack
    assert (recipe.loss.kind, recipe.label_smoothing) == ("adversarial", 0.1)


@pytest.mark.parametrize("name", NAMES)
def test_optimizer_and_data_are_the_papers(name):
    recipe = get_recipe(name)
    optimizer = recipe.optimizer
    assert optimizer.learning_rate == pytest.approx(0.05 * recipe.batch_size / 256) == 0.2  # T9, T13
    assert (optimizer.kind, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.9, True)  # T6
    assert (optimizer.weight_decay, optimizer.clip_norm) == (1e-4, None)  # T7, T13
    assert (recipe.batch_norm.group, recipe.averaging.decay, recipe.weight_perturbation.gamma) == (32, 0, 0)  # T13
    assert (recipe.data.augment, recipe.data.image_size) == ("fd", 224)  # T1
    assert recipe.data.preprocessing.resize == 256  # E1
    assert (recipe.model.vision.mean, recipe.model.vision.std) == ((0.5,), (0.5,))  # T3
    assert recipe.suite == "table1"


def test_sum_of_decayed_parameters():
    """X29: convolutions, linear layers and the LSTM's matrices; no bias, BN or initial state."""
    with torch.device("meta"):
        model = build_model(get_recipe("imagenet/s3ta_16-10").model)
    names = decayed(model)
    assert sum(p.numel() for name, p in model.named_parameters() if name in names) == 102_376_640


OPEN_CHOICES = {
    "M4b": "model.vision.zero_init_last",
    "M7": "model.num_frequencies model.basis_origin",
    "M11": "model.first_logits",
    "M11a": "model.detach_feedback",
    "M12": "model.initial_state_std",
    "T2": "data.augment",
    "T3": "model.vision.mean model.vision.std",
    "T6": "optimizer.kind optimizer.momentum optimizer.nesterov",
    "T8": "optimizer.weight_decay",
    "T11": "schedule.warmup_steps schedule.warmup_from",
    "T12": "label_smoothing",
    "T13": "optimizer.learning_rate batch_size optimizer.clip_norm batch_norm.group batch_norm.sync averaging.decay",
    "T17": "attack.random_start_prob",
    "T18": "attack.step_size",
    "T20": "compute.attack_precision compute.update_precision",
    "T23": "schedule.glimpses",
}


@pytest.mark.parametrize("number", OPEN_CHOICES)
def test_every_open_choice_is_a_field_of_the_resolved_recipe(number):
    recipe = get_recipe("imagenet/s3ta_16-10")
    told = {name: meaning for name, _, meaning in describe(recipe)}
    for field in OPEN_CHOICES[number].split():
        assert field in told
        value = json.loads(to_json(recipe))
        for part in field.split("."):
            value = value[part]


def documented_fields():
    """(number, setting) of every choice of model and training in docs/protocol.md; `.b` continues `a.`."""
    for row in re.findall(r"^\| ([MT]\d+[ab]?) \|(?:[^|]*\|){3}([^|]*)\|$", DOCUMENT.read_text(), re.M):
        prefix = ""
        for name in re.findall(r"`([a-z_.]+)`", row[1]):
            path = f"{prefix}{name}" if name.startswith(".") else name
            prefix = path.rpartition(".")[0]
            yield row[0], path


def test_every_open_choice_that_the_documents_name_is_a_field_of_the_recipe():
    told = {name for name, _, _ in describe(get_recipe("imagenet/s3ta_16-10"))}
    named = list(documented_fields())
    assert {"T6", "T10", "T11", "T12", "T13", "T18", "T23", "M7", "M12"} <= {number for number, _ in named}
    assert [(number, path) for number, path in named if path not in told] == []


def test_expected_results_are_the_rows_of_the_papers_table_1():
    """Clean top-1, and top-1 with 10, 100, 250 and 1,000 steps, digit for digit."""
    rows = {row.model: row.cells for row in PAPER["table1"].rows if row.source == "paper"}
    for name in NAMES:
        if "dense" in name or "denoise" in name:
            continue
        model, _, steps = name.removeprefix("imagenet/").rpartition("-")
        model = "ResNet-152" if model == "resnetv2_152" else model.upper().replace("_", "-")
        row = next(rows[key] for key in (f"{model}-{steps}", f"{model} ({steps})", model) if key in rows)
        note = " ".join(RECIPES[name].__doc__.split())
        expected = note.partition("Expected: ")[2].partition(" under attack")[0]
        printed = [cell.partition(" / ")[0] for cell in row]
        assert [float(number) for number in re.findall(r"\d+\.\d+", expected)] == [*map(float, printed)], name


def test_feature_denoisings_own_net_is_trained_as_its_authors_do():
    """C2, T10, T18: V1, 0.1 per 256 images from 0.1 on, 110 epochs, max(1, 16 / N) per step, four blocks; else as the paper."""
    for name, step_size in (("imagenet/resnet152_denoise-10", 1.6 / 255), ("imagenet/resnet152_denoise-30", 1 / 255)):
        recipe, ours = get_recipe(name), get_recipe(name.replace("resnet152", "resnetv2_152"))
        assert [rate(recipe, step) for step in (0, 6255, 35 * EPOCH, 95 * EPOCH)] == pytest.approx(
            [0.1, 0.4, 0.04, 0.0004]
        )
        assert recipe.schedule.num_train_steps == 110 * EPOCH
        assert recipe.attack.step_size == pytest.approx(step_size)
        assert recipe.attack.model_copy(update={"step_size": 1 / 255}) == ours.attack
        assert (recipe.batch_norm, recipe.label_smoothing, recipe.loss) == (ours.batch_norm, 0.1, ours.loss)
        assert recipe.model.vision.denoise == ours.model.vision.denoise
        assert (recipe.model.vision.backbone, recipe.model.vision.zero_init_last) == ("resnet152", True)


def test_denoises_expected_results_are_its_row_of_table_1():
    row = next(row for row in PAPER["table1"].rows if (row.model, row.source) == ("DENOISE", "paper"))
    note = " ".join(RECIPES["imagenet/resnet152_denoise-30"].__doc__.split())
    expected = note.partition("Expected: ")[2].partition(" under attack")[0]
    printed = [float(cell.partition(" / ")[0]) for cell in row.cells]
    assert [float(number) for number in re.findall(r"\d+\.\d+", expected)] == printed


def test_local_linearity_has_the_values_of_c3():
    recipe = get_recipe("imagenet/resnetv2_152_llr")
    assert (recipe.loss.gamma_weight, recipe.loss.gradient_weight) == (3, 6)
    assert (recipe.attack.kind, recipe.attack.radius, recipe.attack.num_attack_steps) == ("adam", 4 / 255, 2)
    assert (recipe.schedule.radius_ramp_steps, recipe.model.vision.activation) == (5 * EPOCH, "relu")
    assert rate(recipe, 6255) == pytest.approx(0.2)
    code = get_recipe("cifar10/wrn_28_8_llr")
    assert (code.attack.radius, code.attack.num_attack_steps, code.attack.learning_rates) == (8 / 255, 10, ((0, 0.1),))
    assert (code.model.vision.backbone, code.model.vision.activation) == ("wrn_28_8", "softplus")
    assert (code.optimizer.momentum, code.optimizer.nesterov, code.schedule.radius_ramp_steps) == (0.9, False, 500)
    # 2 x cross-entropy + 4 x (gamma + 0.3 x rise) with L2 2e-4 at 0.1, all but the rate halved
    assert (1, code.loss.gamma_weight, code.loss.gradient_weight, code.optimizer.weight_decay) == pytest.approx(
        (2 / 2, 4 / 2, 4 * 0.3 / 2, 2e-4 / 2)
    )
    assert code.optimizer.learning_rate == 0.1 * 2


def test_squeeze_and_excite_learns_from_clean_images():
    for name, parameters in (("resnetv2_152_se", 66_814_168), ("resnet152_se", 66_821_848)):
        recipe = get_recipe(f"imagenet/{name}")
        assert not recipe.is_adversarial
        assert (recipe.suite, count_cost(recipe.model).parameters) == ("figure7", parameters)
