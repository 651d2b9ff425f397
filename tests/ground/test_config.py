"""Configs are strict and frozen; radii read `16/255`; overrides, JSON and the hash tell no lies."""

import json
from typing import Literal, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from s3ta.attacks import AutoAttackComponentConfig, PGDConfig
from s3ta.config import Config, Radius, config_hash, describe, format_radius, from_json, override, parse_radius, to_json
from s3ta.data import DataConfig
from s3ta.errors import UserError
from s3ta.models import ResNetConfig, S3TAConfig
from s3ta.recipes import RECIPES, get_recipe, shrink_recipe
from s3ta.records import manifest_differences
from s3ta.train import OptimizerConfig, ScheduleConfig, TrainConfig
from s3ta.train.config import LossConfig

unit = st.floats(0, 1)
positive = st.floats(0, 1e6)
counts = st.integers(0, 2**40)
attacks = st.builds(
    PGDConfig,
    objective=st.sampled_from(["targeted", "untargeted"]),
    radius=unit,
    step_size=st.floats(1e-6, 1),
    num_attack_steps=counts,
    random_start_prob=unit,
)
optimizers = st.builds(
    OptimizerConfig,
    kind=st.sampled_from(["sgd", "adam"]),
    learning_rate=positive,
    momentum=st.floats(0.1, 1),
    nesterov=st.booleans(),
    weight_decay=positive,
    clip_norm=st.none() | positive,
)
schedules = st.builds(
    ScheduleConfig,
    num_train_steps=st.integers(1, 2**40),
    warmup_steps=counts,
    warmup_from=positive,
    decay=st.sampled_from(["steps", "cosine"]),
    decay_at=st.sets(counts, max_size=4).map(lambda steps: tuple(sorted(steps))),
    decay_factor=positive,
    clean_steps=counts,
    radius_ramp_steps=counts,
)
datas = st.builds(
    DataConfig,
    source=st.text(),
    image_size=st.none() | st.integers(1, 999),
    channels=st.sampled_from([1, 3]),
    augment=st.sampled_from(["none", "crop_flip"]),
    num_validation=counts,
)
models = st.one_of(
    st.builds(ResNetConfig, name=st.text(), num_classes=st.integers(1, 9999)),
    st.builds(S3TAConfig, name=st.text(), num_glimpses=st.integers(1, 99)),
)
recipes = st.builds(
    TrainConfig,
    name=st.text(),
    source=st.text(),
    departures=st.lists(st.text(), max_size=3).map(tuple),
    data=datas,
    model=models,
    attack=attacks,
    optimizer=optimizers,
    schedule=schedules,
    batch_size=st.integers(2, 9999),
    label_smoothing=st.floats(0, 0.99),
    seed=st.integers(0, 2**40),
)


class Inner(Config):
    """A part."""

    radius: Radius = 16 / 255
    """How far
    a pixel moves."""
    kind: Literal["a", "b"] = "a"


class Outer(Config):
    """A whole."""

    inner: Inner = Inner()
    count: int = 3
    flag: bool = False
    rate: float = 0.5
    text: str = "x"
    pair: tuple[int, ...] = (1, 2)
    maybe: float | None = None


# --- JSON ---------------------------------------------------------------------------------------------------------------


@given(recipes)
def test_a_config_survives_json(recipe):
    again = from_json(TrainConfig, to_json(recipe), "here")
    assert again == recipe
    assert to_json(again) == to_json(recipe)
    assert config_hash(again) == config_hash(recipe)
    assert override(recipe, []) == recipe


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "text: Invalid JSON"),
        ("{", "text: Invalid JSON"),
        ("[]", "text: Input should be an object"),
        ('{"inner": 3}', "inner: Input should be an object"),
        ('{"counts": 3}', "counts: Extra inputs are not permitted"),
        ('{"inner": {"radios": 3}}', "inner.radios: Extra inputs"),
        ('{"count": "3"}', 'count: Input should be a valid integer (got "3")'),
        ('{"count": true}', "count: Input should be a valid integer (got true)"),
        ('{"count": 3.0}', "count: Input should be a valid integer"),
        ('{"flag": 1}', "flag: Input should be a valid boolean"),
        ('{"flag": "true"}', "flag: Input should be a valid boolean"),
        ('{"rate": true}', "rate: Input should be a valid number"),
        ('{"rate": "1"}', "rate: Input should be a valid number"),
        ('{"text": 3}', "text: Input should be a valid string"),
        ('{"pair": [1, "2"]}', "pair.1: Input should be a valid integer"),
        ('{"inner": {"kind": "c"}}', "inner.kind: Input should be 'a' or 'b' (got \"c\")"),
        ('{"inner": {"radius": null}}', "inner.radius: Input should be a valid number (got null)"),
    ],
)
def test_wrong_json_is_one_sentence_that_names_the_field(text, sentence):
    with pytest.raises(UserError) as caught:
        from_json(Outer, text, "file.json")
    assert str(caught.value).startswith("Bad file.json: ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_at_most_three_problems_are_told():
    text = json.dumps({f"unknown{i}": i for i in range(20)})
    with pytest.raises(UserError) as caught:
        from_json(Outer, text, "file.json")
    assert str(caught.value).count("Extra inputs") == 3


def test_configs_are_frozen():
    config = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        config.count = 4
    with pytest.raises(ValidationError, match="frozen"):
        config.inner.radius = 0.5
    assert hash(config) == hash(Outer())
    for name in RECIPES:
        hash(get_recipe(name))


def test_every_class_of_a_recipe_is_strict_and_frozen():
    seen, waiting = set(), [get_recipe("digits/s3ta_4")]
    while waiting:
        config = waiting.pop()
        settings_of = type(config).model_config
        assert (settings_of["frozen"], settings_of["extra"], settings_of["strict"]) == (True, "forbid", True)
        seen.add(type(config).__name__)
        waiting += [value for _, value in config if isinstance(value, Config)]
    assert len(seen) >= 7


# --- hash and differences ----------------------------------------------------------------------------------------------


def _leaves(config, path=()):
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _leaves(value, (*path, name))
        else:
            yield (*path, name), field.annotation, value


OTHER = {
    "schedule.glimpses": [[0, 3]],
    "model.first_logits": "readout",
    "model.kind": None,
    "model.vision.stem": "conv3",
    "model.vision.padding": "same",
    "model.vision.denoise": {"operation": "mean"},
    "model.vision.stage": 2,
    "model.vision.activation": "softplus",
    "model.queries": "none",
    "model.cell": "gru",
    "loss.glimpses": "all",
    "data.mixing": {"mixup": 0.5},
    "start": {"weights": "somewhere", "sha256": "0"},
    "data.channels": 1,
    "data.preprocessing": "fd",
    "data.augment": "crop_flip",
    "data.image_size": 60,
    "optimizer.kind": "sgd",
    "schedule.decay": "steps",
    "attack.objective": "targeted",
    "attack.read_outs": None,
    "attack.num_restarts": None,
    "attack.loss": "margin",
    "attack.norm": "l2",
    "attack.mask": {"kind": "box", "height": 0.5},
    "attack.keep": "best",
    "attack.gradient.kind": None,
    "attack.glimpses": "all",
    "attack.num_glimpses": 3,
    "attack.steering": {"towards": "away"},
    "attack.kind": None,
    "attack.annealing": "cosine",
    "optimizer.clip_norm": 2.0,
    "data.num_validation": 77,
    "num_threads": 2,
    "schedule.decay_at": [3],
    "data.on_unreadable": "skip",
    "loss.kind": None,
    "batch_norm.group": 32,
    "compute.attack_precision": "bfloat16",
    "compute.update_precision": "bfloat16",
    "compute.attack_batch": 16,
}


def _another(path, annotation, value):
    if path in OTHER:
        return OTHER[path]
    assert get_origin(annotation) is not Literal, f"name another value of {path}"
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.015625
    if isinstance(value, str):
        return value + "x"
    return [value[0]] if len(value) > 1 else [0.25]


WITHOUT_WEIGHT = {
    "data.on_unreadable",
    "compute.must_agree",
    "compute.compiled",
    "compute.units_per_checkpoint",
    "compute.attack_batch",
    "source",
    "departures",
    "suite",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "num_workers",
}
"""What does not decide the trained weights, and so may change between a run and its resumption."""

LEAVES = [(".".join(path), annotation, value) for path, annotation, value in _leaves(get_recipe("digits/s3ta_4"))]


@pytest.mark.parametrize(("path", "annotation", "value"), LEAVES, ids=[leaf[0] for leaf in LEAVES])
def test_hash_and_differences_see_every_field(path, annotation, value):
    recipe = get_recipe("digits/s3ta_4")
    other = _another(path, annotation, value)
    if other is None:
        pytest.skip("only one value is allowed in a recipe")
    changed = override(recipe, [f"{path}={json.dumps(other)}"])
    assert changed != recipe
    assert (config_hash(changed) == config_hash(recipe)) == (path in WITHOUT_WEIGHT)
    told = list(manifest_differences(recipe.model_dump(mode="json"), changed.model_dump(mode="json")))
    assert {where.removeprefix(path) for where, _, _ in told} <= {"", *(f".{i}" for i in range(9))}
    assert told


class Named(Config):
    """Has a setting without a default, two without weight, and parts of several kinds."""

    OUTSIDE_IDENTITY = frozenset({"note"})
    name: str
    note: str = ""
    kind: Literal["named"] = "named"
    part: Outer = Outer(count=4)
    parts: tuple[Inner | Outer, ...] = ()
    nothing: Inner | None = None


@pytest.mark.parametrize(
    ("config", "identity"),
    [
        (Outer(), {}),
        (Outer(count=3, pair=(1, 2), inner=Inner(kind="a")), {}),
        (Outer(count=4), {"count": 4}),
        (Outer(inner=Inner(kind="b")), {"inner": {"kind": "b"}}),
        (Named(name="n"), {"name": "n", "kind": "named"}),
        (Named(name="n", note="prose"), {"name": "n", "kind": "named"}),
        (Named(name="n", part=Outer(count=4)), {"name": "n", "kind": "named"}),
        (Named(name="n", part=Outer()), {"name": "n", "kind": "named", "part": {}}),
        (Named(name="n", nothing=Inner()), {"name": "n", "kind": "named", "nothing": {}}),
        (
            Named(name="n", parts=(Inner(radius=0.5), Outer())),
            {"name": "n", "kind": "named", "parts": [{"radius": 0.5}, {}]},
        ),
    ],
)
def test_identity_leaves_out_what_equals_its_declared_default_at_every_depth(config, identity):
    assert config.identity() == identity
    assert config.identity(with_defaults=True).keys() == type(config).model_fields.keys() - config.OUTSIDE_IDENTITY


def test_a_default_that_depends_on_another_setting_is_one():
    square = AutoAttackComponentConfig(part="square")
    assert square.identity() == {"kind": "autoattack", "part": "square"}
    assert AutoAttackComponentConfig(part="square", num_attack_steps=100).identity()["num_attack_steps"] == 100
    assert "num_attack_steps" not in AutoAttackComponentConfig(num_attack_steps=100).identity()


def test_kinds_stay_although_they_are_defaults():
    adversarial, trades = (
        TypeAdapter(LossConfig).validate_python({"kind": kind}) for kind in ("adversarial", "trades")
    )
    assert adversarial.identity() == {"kind": "adversarial"} != trades.identity() == {"kind": "trades"}
    assert get_recipe("digits/s3ta_4").identity()["model"]["kind"] == "s3ta"


# --- radii --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16/255", 16 / 255),
        (" 8 / 255 ", 8 / 255),
        ("1.6/255", 1.6 / 255),
        ("0.1", 0.1),
        (".1", 0.1),
        ("1e-3", 0.001),
        ("0", 0.0),
        ("1", 1.0),
        ("0/255", 0.0),
    ],
)
def test_radii_are_read_as_people_write_them(text, value):
    assert parse_radius(text) == value
    assert override(Outer(), [f"inner.radius={text}"]).inner.radius == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("16/0", "'16/0' divides by zero"),
        ("16/0.0", "divides by zero"),
        ("0/0", "divides by zero"),
        ("1/2/3", "neither a number nor a fraction"),
        ("x", "neither a number nor a fraction such as 16/255"),
        ("16/", "neither"),
        ("/255", "neither"),
        ("16 255", "neither"),
        ("e", "inner.radius"),
        ("--1", "inner.radius"),
        ("1/.", "inner.radius"),
        ("", "neither"),
        ("0x10/255", "neither"),
        ("NaN", "inner.radius"),
        ("Infinity", "inner.radius"),
        ("-Infinity", "inner.radius"),
        ("nan", "neither"),
        ("inf", "neither"),
        ("1e999", "inner.radius"),
        ("256/255", "less than or equal to 1"),
        ("-1/255", "greater than or equal to 0"),
        ("true", "valid number"),
        ("null", "valid number"),
        ("[0.1]", "valid number"),
        ("__import__('os')", "neither"),
    ],
)
def test_what_is_no_radius_is_refused(text, words):
    with pytest.raises(UserError) as caught:
        override(Outer(), [f"inner.radius={text}"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1, True])
def test_the_class_refuses_values_that_are_no_radius(value):
    with pytest.raises(ValidationError):
        Inner(radius=value)


@pytest.mark.parametrize(
    ("radius", "text"),
    [
        (16 / 255, "16/255"),
        (1.6 / 255, "1.6/255"),
        (4 / 255, "4/255"),
        (0.1, "0.1"),
        (0.025, "0.025"),
        (0.01, "0.01"),
        (0.0, "0"),
        (1.0, "1"),
        (1 / 255, "1/255"),
        (0.0123456, "0.0123456"),
    ],
)
def test_radii_are_written_as_people_read_them(radius, text):
    assert format_radius(radius) == text


@given(st.one_of(st.integers(0, 2550).map(lambda n: n / 2550), st.integers(0, 1000).map(lambda n: n / 1000), unit))
def test_written_radii_read_back(radius):
    again = parse_radius(format_radius(radius))
    assert again == pytest.approx(radius, rel=1e-5, abs=1e-300)
    assert format_radius(again) == format_radius(radius)


# --- overrides ----------------------------------------------------------------------------------------------------------


def test_overrides_apply_in_order_and_leave_the_original():
    config = Outer()
    changed = override(
        config,
        ["count=4", "inner.radius=8/255", "flag=true", "text=a=b", "pair=[5]", "count=7", "maybe=0.25", "inner.kind=b"],
    )
    assert changed == Outer(
        count=7, inner=Inner(radius=8 / 255, kind="b"), flag=True, text="a=b", pair=(5,), maybe=0.25
    )
    assert config == Outer()
    assert override(changed, ["maybe=null", 'inner={"radius": "4/255"}']).inner == Inner(radius=4 / 255)


def test_a_config_is_checked_after_all_assignments():
    recipe = get_recipe("digits/s3ta_4")
    changed = override(recipe, ["attack.num_attack_steps=7", "attack.objective=targeted"])
    assert (changed.attack.num_attack_steps, changed.attack.objective) == (7, "targeted")
    with pytest.raises(UserError, match="read_outs"):
        override(recipe, ["attack.read_outs=[2]"])


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("attack.radios=0.1", "Unknown setting 'attack.radios'. Did you mean attack.radius"),
        ("atack.radius=0.1", "Unknown setting 'atack.radius'. Did you mean attack"),
        ("sed=3", "Did you mean seed"),
        ("schedule.num_steps=3", "Did you mean schedule.num_train_steps"),
        ("zzz=1", "Known: attack, averaging"),
        (".seed=1", "Unknown setting"),
        ("attack..radius=1", "Unknown setting"),
        ("seed.=1", "Unknown setting"),
        ("seed.x=3", "Unknown setting 'seed.x'"),
        ("attack.radius.x.y=1", "Unknown setting 'attack.radius.x.y'"),
        ("schedule.glimpses.0=1", "Unknown setting"),
        ("model_config=1", "Unknown setting"),
        ("__class__=1", "Unknown setting"),
        ("seed", "'seed' is not an override: write name=value"),
        ("=3", "is not an override"),
        ("", "is not an override"),
        ("seed=true", "seed: Input should be a valid integer (got true)"),
        ("seed=1.0", "valid integer"),
        ("seed=x", "valid integer"),
        ("seed=", "valid integer"),
        ("optimizer.learning_rate=NaN", "finite"),
        ("optimizer.learning_rate=-1", "greater than or equal to 0"),
        ("optimizer.nesterov=1", "valid boolean"),
        ("batch_size=1", "greater than 1"),
        ("label_smoothing=1", "less than 1"),
        ("attack.objective=target", "'targeted', 'untargeted', 'multitargeted', 'divergence' or 'local_linearity'"),
        ("schedule.decay=step", "'steps' or 'cosine'"),
        ("data.channels=2", "1 or 3"),
        ("model.vision.std=[0.0]", "model.s3ta.vision"),
        ("model.kind=transformer", "transformer"),
        ("model=3", "model: "),
        ("schedule.num_train_steps=0", "greater than 0"),
        ("attack.num_restarts=2", "training runs one attack"),
        ("schedule.glimpses=[[0, 0]]", "greater than 0"),
        ("schedule.glimpses=[[5, 8], [0, 4]]", "must rise"),
        ("schedule.decay_at=[7, 7]", "must rise"),
    ],
)
def test_wrong_overrides_are_one_sentence(assignment, words):
    with pytest.raises(UserError) as caught:
        override(get_recipe("digits/s3ta_4"), [assignment])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("assignment", ["seed.x=3", "attack.radius.x=1"])
def test_a_path_through_a_number_says_so(assignment):
    with pytest.raises(UserError) as caught:
        override(get_recipe("digits/s3ta_4"), [assignment])
    assert "Known: ." not in str(caught.value)


@pytest.mark.parametrize(
    "assignment",
    [
        pytest.param(text, id=what)
        for text, what in [
            ("seed=99999999999999999999999", "torch.manual_seed overflows"),
            ("optimizer.momentum=0", "torch refuses Nesterov without momentum"),
            ("model.vision.mean=[NaN]", "every logit is NaN"),
        ]
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(assignment):
    with pytest.raises(UserError):
        override(override(get_recipe("digits/s3ta_4"), ["optimizer.kind=sgd"]), [assignment])


# --- describe -----------------------------------------------------------------------------------------------------------


def test_describe_tells_every_setting_once_in_order():
    lines = describe(Outer())
    assert [line[0] for line in lines] == [
        "inner.radius",
        "inner.kind",
        "count",
        "flag",
        "rate",
        "text",
        "pair",
        "maybe",
    ]
    assert lines[0] == ("inner.radius", json.dumps(16 / 255), "How far a pixel moves.")
    assert lines[1] == ("inner.kind", '"a"', "")
    assert dict(line[:2] for line in lines)["pair"] == "[1, 2]"


@pytest.mark.parametrize("name", RECIPES)
def test_described_settings_can_be_typed_back(name):
    recipe = shrink_recipe(get_recipe(name))
    lines = describe(recipe)
    assert len({line[0] for line in lines}) == len(lines) > 40
    assert override(recipe, [f"{path}={value}" for path, value, _ in lines]) == recipe
    meant = {path: meaning for path, _, meaning in lines}
    assert "pixel may move" in meant["attack.radius"]


# --- another kind of a part ---------------------------------------------------------------------------------------------


def test_a_changed_kind_keeps_shared_settings_and_takes_its_own_defaults():
    from s3ta.attacks import SPSA, AdamConfig, BackpropGradient, PGDConfig
    from s3ta.evaluate import NamedAttack

    held = NamedAttack(name="x", attack=PGDConfig(radius=0.1, step_size=0.02, gradient=BackpropGradient(num_samples=3)))
    spsa = override(held, ["attack.gradient.kind=spsa", "attack.gradient.num_directions=8"]).attack
    assert spsa == PGDConfig(radius=0.1, step_size=0.02, gradient=SPSA(num_directions=8))
    adam = override(held, ["attack.kind=adam", "attack.epsilon=1e-6"]).attack
    assert adam == AdamConfig(radius=0.1, gradient=BackpropGradient(num_samples=3), num_attack_steps=100, epsilon=1e-6)
    assert override(held, ["attack.kind=pgd"]) == held
    with pytest.raises(UserError, match="attack"):
        override(held, ["attack.kind=spell"])


def test_a_part_that_is_none_begins_with_its_defaults():
    recipe = get_recipe("cifar10/s3ta_4_mini")
    mixed = override(recipe, ["data.mixing.mixup=0.5"])
    assert (mixed.data.mixing.mixup, mixed.data.mixing.cutmix) == (0.5, 1.0)
    started = override(recipe, ["start.part=backbone", "start.weights=runs/a"])
    assert (started.start.weights, started.start.part, started.start.sha256) == ("runs/a", "backbone", None)
    blocked = override(recipe, ["model.vision.denoise.operation=mean"])
    assert blocked.model.vision.denoise.embedding
    with pytest.raises(UserError, match=r"start\.weights"):
        override(recipe, ["start.part=backbone"])
    with pytest.raises(UserError, match=r"Unknown setting 'start\.wights'.*start\.weights"):
        override(recipe, ["start.wights=runs/a"])
