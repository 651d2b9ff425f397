"""Every recipe builds, tells where it comes from, survives JSON, and trains when it is shrunk."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from s3ta.config import config_hash, from_json, override, parse_radius, to_json
from s3ta.data import DataConfig, check_model_fits_data, open_dataset
from s3ta.errors import UserError
from s3ta.models import count_cost, from_pretrained, model_config
from s3ta.models.cost import mlp_hidden_like
from s3ta.recipes import RECIPES, get_recipe, shrink_recipe
from s3ta.recipes.ablations import ABLATION_RECIPES, ABLATIONS, BASES
from s3ta.train import TrainConfig
from s3ta.train.cost import HARDWARE, gpu_hours
from s3ta.workflow import RuntimeOptions, train_run


def test_names_are_unique_and_are_those_of_the_configs():
    assert len({function().name for function in RECIPES.values()}) == len(RECIPES)
    for name, function in RECIPES.items():
        assert function().name == name
        assert re.fullmatch(r"[a-z0-9]+/[a-z0-9_]+(-\d+)?", name)
    assert len({config_hash(get_recipe(name)) for name in RECIPES}) == len(RECIPES)
    assert len(set(RECIPES.values())) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_builds_and_survives_json(name, tmp_path):
    recipe = get_recipe(name)
    assert recipe == get_recipe(name)
    again = from_json(TrainConfig, to_json(recipe), "text")
    assert again == recipe
    assert type(again.model) is type(recipe.model)
    file = tmp_path / "mine.json"
    file.write_text(to_json(recipe))
    assert get_recipe(str(file)) == recipe
    model = recipe.model
    named = model_config(
        model.name.removesuffix("*"), model.num_classes, model.vision.image_size, model.vision.in_channels
    )
    assert (model == named) == (not model.name.endswith("*"))


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("words", ["source", "expected", "hardware|core|gpu"])
def test_docstring_is_a_lab_note(name, words):
    note = RECIPES[name].__doc__
    assert note.splitlines()[0].endswith(".")
    assert re.search(words, note, re.IGNORECASE)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_says_what_departs_from_the_paper(name):
    recipe = get_recipe(name)
    assert recipe.source
    text = " ".join(recipe.departures).lower()
    paper = TrainConfig(
        name="paper", model=recipe.model, attack=recipe.attack.model_copy(update={"objective": "targeted"})
    )
    departs = {
        "adam with": recipe.optimizer.kind != paper.optimizer.kind,
        "clipping": recipe.optimizer.clip_norm is not None,
        "clean phase": recipe.schedule.clean_steps > 0,
        "smoothing": recipe.label_smoothing != paper.label_smoothing,
        "untargeted": recipe.attack.objective != "targeted",
        "vision net": recipe.model.vision.backbone != "resnetv2_152",
        "nesterov": recipe.optimizer.kind == "sgd" and not recipe.optimizer.nesterov,
        "trades": recipe.loss.kind == "trades",
        "local linearity": recipe.loss.kind == "local_linearity",
        "natural training": recipe.loss.kind == "clean",
        "ablation of": name in ABLATION_RECIPES,
        "softplus in place": recipe.model.vision.activation == "softplus",
        "moving average": recipe.averaging.decay > 0,
        "weight perturbation": recipe.weight_perturbation.gamma > 0,
        "strong augmentation": recipe.data.augment == "strong",
        "bfloat16": recipe.compute.attack_precision == "bfloat16",
        "held out": recipe.data.source == "folder:imagenet",
    }
    for word, differs in departs.items():
        assert (word in text) == differs, word


FIELD = ("resnetv2_18", "resnetv2_18_dense", "s3ta_4", "s3ta_16", "wrn_28_10", "wrn_28_10_dense", "s3ta_4_wrn_28_10")
IMAGENET = ("resnetv2_152", "resnetv2_152_dense", "s3ta_2", "s3ta_4", "s3ta_8", "s3ta_16")
RIVALS = [
    ("digits/s3ta_4", "digits/resnetv2_mini_dense"),
    ("cifar10/s3ta_4_mini", "cifar10/resnetv2_mini_dense"),
    ("digits/resnetv2_mini_dense", "digits/resnetv2_mini_dense_denoise"),
    ("cifar10/resnetv2_18", "cifar10/resnetv2_18_denoise"),
    tuple(f"cifar10/{name}" for name in FIELD),
    ("cifar10/s3ta_4_awp", "cifar10/resnetv2_18_awp"),
    tuple(f"imagenette/{name}" for name in ("s3ta_4", "resnetv2_18", "resnetv2_18_dense")),
    tuple(f"imagenet/{name}-10" for name in (*IMAGENET, "resnetv2_152_denoise")),
    tuple(f"imagenet/{name}-30" for name in ("s3ta_16", "resnetv2_152", "resnetv2_152_dense", "resnetv2_152_denoise")),
]


def settings(name):
    """All that decides the weights, but for the glimpse curriculum, which only S3TA-16 has (T23)."""
    tree = get_recipe(name).identity(with_defaults=True)
    if "s3ta_16" in name:
        assert tree["schedule"]["glimpses"]
        tree["schedule"]["glimpses"] = []
    return tree


@pytest.mark.parametrize("names", RIVALS, ids=lambda names: names[0])
def test_rivals_differ_in_nothing_but_the_model(names):
    one, *others = (settings(name) for name in names)
    for other in others:
        assert {key for key in one if one[key] != other[key]} == {"name", "model"}
        ours, theirs = one["model"]["vision"], other["model"]["vision"]
        assert {key for key in ours if ours[key] != theirs[key]} <= {"dense", "backbone", "denoise"}


def test_the_field_is_compared_with_the_plain_net_and_the_control_of_the_same_size():
    vision = {name: get_recipe(f"cifar10/{name}").model.vision for name in FIELD}
    for contender, control, plain in [
        ("s3ta_4", "resnetv2_18_dense", "resnetv2_18"),
        ("s3ta_16", "resnetv2_18_dense", "resnetv2_18"),
        ("s3ta_4_wrn_28_10", "wrn_28_10_dense", "wrn_28_10"),
    ]:
        assert vision[contender] == vision[control]
        assert vision[plain] == vision[control].model_copy(update={"dense": False})


def test_more_attack_steps_are_the_only_difference_of_the_models_trained_with_30():
    for name in ("s3ta_16", "resnetv2_152", "resnetv2_152_dense", "resnetv2_152_denoise"):
        ten, thirty = get_recipe(f"imagenet/{name}-10").identity(), get_recipe(f"imagenet/{name}-30").identity()
        assert (ten["attack"].pop("num_attack_steps"), thirty["attack"].pop("num_attack_steps")) == (10, 30)
        assert (ten.pop("name"), thirty.pop("name")) == (f"imagenet/{name}-10", f"imagenet/{name}-30")
        assert ten == thirty


@pytest.mark.parametrize("row", ABLATIONS, ids=lambda row: row.name)
def test_an_ablation_differs_in_what_its_row_says_and_in_nothing_else(row):
    whole, part = BASES[row.base]().identity(with_defaults=True), get_recipe(row.name).identity(with_defaults=True)
    assert get_recipe(row.base) == BASES[row.base]()
    for change in row.changes:
        path, _, value = change.partition("=")
        *parents, last = path.split(".")
        for tree in (whole, part):
            for parent in parents:
                tree = tree[parent]
            told = tree.pop(last)
        assert told == pytest.approx(parse_radius(value) if "/" in value else loads(value))
    assert {key: value for key, value in part.items() if key not in ("name", "model")} == {
        key: value for key, value in whole.items() if key not in ("name", "model")
    }
    names = part["model"].pop("name"), whole["model"].pop("name")
    assert part["model"] == whole["model"]
    assert (names[0] == f"{names[1]}*") == row.changes[0].startswith("model.")


def loads(text):
    """As overrides are read: JSON, or a word."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@pytest.mark.parametrize("row", ABLATIONS, ids=lambda row: row.name)
def test_an_ablation_changes_something(row):
    whole, part = BASES[row.base](), get_recipe(row.name)
    assert part.identity() != whole.model_copy(update={"name": row.name}).identity()
    assert part.departures[0] == f"Ablation of {row.base}: {', '.join(row.changes)}. {row.note}"
    assert part.departures[1:] == whole.departures


@pytest.mark.parametrize(
    ("name", "s3ta"),
    [
        ("digits/resnetv2_mini_dense_mlp", "digits/s3ta_4"),
        ("imagenet/resnetv2_152_dense_mlp-10", "imagenet/s3ta_16-10"),
    ],
)
def test_the_pooled_control_is_as_large_as_the_s3ta(name, s3ta):
    control, whole = get_recipe(name).model, get_recipe(s3ta).model
    assert control.vision == whole.vision
    assert control.mlp_hidden == mlp_hidden_like(whole)
    assert abs(count_cost(control).parameters / count_cost(whole).parameters - 1) < 1e-4


TOLD = re.compile(r"Hardware\s+and\s+hours:\s+(8|one)\s+H200,\s+(\d+)\s+(hour|minute)s?\.")


@pytest.mark.parametrize("name", [name for name in RECIPES if get_recipe(name).compute.attack_precision == "bfloat16"])
def test_hours_in_a_lab_note_are_those_of_the_arithmetic(name):
    told = TOLD.search(RECIPES[name].__doc__)
    assert told, "its docstring says no hours on H200"
    gpus, unit = {"8": 8, "one": 1}[told[1]], {"hour": 1, "minute": 1 / 60}[told[3]]
    hours = gpu_hours(get_recipe(name), HARDWARE["h200"]) / gpus
    assert int(told[2]) * unit == pytest.approx(hours, rel=0.05, abs=1 / 60)


class StandIn:
    """Random pictures in the place of CIFAR-10's files."""

    classes = tuple(f"class {i}" for i in range(10))

    def __init__(self, root, train, download):
        count = 40 if train else 10
        self.data = np.random.default_rng(train).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 10 for i in range(count)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders of small PNG files with as many classes as ImageNet and Imagenette."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for name, num_classes, per_class in [("imagenet", 1000, 1), ("imagenette2-96", 10, 3)]:
        for label in range(num_classes):
            for part, number in ("train", per_class), ("val", label == 0):
                folder = root / name / part / f"n{label:08d}"
                folder.mkdir(parents=True)
                for i in range(number):
                    pixels = draw.integers(0, 256, (8, 9, 3), dtype=np.uint8)
                    Image.fromarray(pixels).resize((72, 64)).save(folder / f"{i}.png")
    return root


@pytest.fixture
def pictures(monkeypatch):
    import torchvision

    for name in ("CIFAR10",):
        monkeypatch.setattr(torchvision.datasets, name, StandIn)


def shrunk(name):
    """All that a recipe becomes when it is shrunk, but for its name and notes."""
    return to_json(shrink_recipe(get_recipe(name)).model_copy(update={"name": "x", "source": "", "departures": ()}))


DISTINCT = {
    shrunk(name): name
    for name in reversed(RECIPES)
    if not (name in ABLATION_RECIPES and name.startswith("imagenet/"))  # their models are those of other recipes
}
"""One recipe of those that become the same, such as those whose models differ in depth alone."""


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_shrunk_recipe_trains(name, tmp_path, root, pictures):
    recipe = shrink_recipe(get_recipe(name))
    held_out = [] if recipe.data.source == "digits" else ["data.num_validation=10"]
    recipe = override(recipe, ["schedule.num_train_steps=2", "num_threads=1", *held_out])
    assert train_run(recipe, tmp_path / "run", RuntimeOptions(root, "cpu"))
    lines = [json.loads(line) for line in (tmp_path / "run/train.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert [line["radius"] for line in lines if line["kind"] == "train"] == [
        0.0,
        recipe.attack.radius * recipe.is_adversarial,
    ]
    model = from_pretrained(tmp_path / "run")
    assert model.config == recipe.model
    assert not train_run(recipe, tmp_path / "run", RuntimeOptions(root, "cpu"))
    data = open_dataset(recipe.data, "test", root)
    check_model_fits_data(
        data,
        channels=model.config.vision.in_channels,
        num_classes=model.config.num_classes,
        image_size=model.config.vision.image_size,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_shrinking_keeps_what_the_recipe_is_about(name):
    whole, small = get_recipe(name), shrink_recipe(get_recipe(name))
    assert from_json(TrainConfig, to_json(small), "text") == small
    assert config_hash(small) != config_hash(whole)
    assert small.name != whole.name
    assert (small.data.source, small.attack.objective, small.attack.radius, small.optimizer) == (
        whole.data.source,
        whole.attack.objective,
        whole.attack.radius,
        whole.optimizer,
    )
    assert (small.loss, small.averaging, small.weight_perturbation.gamma, small.data.augment) == (
        whole.loss,
        whole.averaging,
        whole.weight_perturbation.gamma,
        whole.data.augment,
    )
    assert (small.batch_norm.group is None) == (whole.batch_norm.group is None)
    assert bool(small.schedule.glimpses) == bool(whole.schedule.glimpses)
    assert type(small.model) is type(whole.model)
    for part in ("dense", "denoise", "squeeze_excite", "activation"):
        assert getattr(small.model.vision, part) == getattr(whole.model.vision, part), part
    for part in ("feeds_back_logits", "scaled_attention", "cell", "queries", "first_logits", "detach_feedback"):
        assert getattr(small.model, part, None) == getattr(whole.model, part, None), part
    assert (getattr(small.model, "num_frequencies", 1) == 0) == (getattr(whole.model, "num_frequencies", 1) == 0)
    assert (getattr(small.model, "mlp_hidden", None) is None) == (getattr(whole.model, "mlp_hidden", None) is None)
    assert small.schedule.num_train_steps <= 4
    assert small.attack.num_attack_steps <= 2


def test_a_recipe_may_be_a_saved_file_of_anyone(tmp_path):
    file = tmp_path / "mine.json"
    file.write_text(to_json(override(get_recipe("digits/s3ta_4"), ["name=mine", "attack.radius=8/255"])))
    assert get_recipe(str(file)).name == "mine"
    assert get_recipe(str(file)).attack.radius == 8 / 255
    tree = json.loads(file.read_text())
    tree["attack"]["radius"] = "16/255"
    file.write_text(json.dumps(tree))
    assert get_recipe(str(file)).attack.radius == 16 / 255


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Invalid JSON"),
        ("{}", "name: Field required"),
        ('{"name": "x", "import": "os.system"}', "import: Extra inputs"),
        (None, "does not exist"),
    ],
)
def test_bad_recipe_files_are_refused(tmp_path, content, words):
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as caught:
        get_recipe(str(file))
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("digits/s3ta4", "digits/s3ta_4"),
        ("digits/s3ta-4", "digits/s3ta_4"),
        ("cifar10/s3ta_4_min", "cifar10/s3ta_4_mini"),
        ("imagenet/s3ta_16", "imagenet/s3ta_16-10"),
        ("resnetv2_mini_dense", "digits/resnetv2_mini_dense"),
    ],
)
def test_an_unknown_recipe_is_answered_with_the_nearest(typed, nearest):
    with pytest.raises(UserError) as caught:
        get_recipe(typed)
    assert f"Unknown recipe '{typed}'. Did you mean " in str(caught.value)
    assert nearest in str(caught.value)
    assert "`s3ta list recipes`" in str(caught.value)


def test_cifar_recipe_fits_the_official_files(data_folder):
    recipe = get_recipe("cifar10/s3ta_4_mini")
    assert recipe.data == DataConfig(source="torchvision:CIFAR10", augment="crop_flip")
    data = open_dataset(recipe.data, "train", data_folder)
    check_model_fits_data(data, channels=3, num_classes=10, image_size=32)
    assert len(data.ids) == 49_000


def test_a_recipe_with_an_adam_attack_shrinks():
    whole = override(get_recipe("digits/s3ta_4"), ["attack.kind=adam"])
    small = shrink_recipe(whole)
    assert from_json(TrainConfig, to_json(small), "text") == small
    assert small.attack == whole.attack.model_copy(update={"num_attack_steps": 2})
