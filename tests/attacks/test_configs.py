"""Attack configs as data: the paper's numbers, every refusal in one sentence, JSON there and back, and overrides."""

import json

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from s3ta.attacks import (
    SPSA,
    AdamConfig,
    AttackConfig,
    AttentionSteering,
    AutoAttackComponentConfig,
    BackpropGradient,
    BoxRegion,
    GridRegion,
    PGDConfig,
    evaluation_step_size,
)
from s3ta.config import Config, config_hash, from_json, override, to_json
from s3ta.errors import UserError

from .table import ATTACKS

REGION = GridRegion(rows=("#.", ".#"))
KINDS = ATTACKS | {
    "default": PGDConfig(),
    "default adam": AdamConfig(),
    "default autoattack": AutoAttackComponentConfig(),
    "of 250 steps": PGDConfig(num_attack_steps=250, read_outs=(10, 100), step_size="1.6/255"),
    "onto": PGDConfig(steering=AttentionSteering(towards="region", region=REGION), glimpses="each", num_restarts=4),
}
every_kind = pytest.mark.parametrize("which", KINDS)
any_attack = TypeAdapter(AttackConfig)


class Holder(Config):
    """As a suite holds an attack."""

    name: str = "small"
    attack: AttackConfig = Field(default=PGDConfig())


def _refusal(cls, values):
    """The sentence, which must be one and name its source."""
    with pytest.raises(UserError) as error:
        from_json(cls, json.dumps(values), "file a.json")
    message = str(error.value)
    assert message.startswith("Bad file a.json: ")
    assert message.endswith(".")
    assert "{" not in message, "a whole config is no help"
    assert "\n" not in message
    return message


def test_defaults_are_the_papers_evaluation():
    config = PGDConfig()
    assert config.objective == "targeted"
    assert config.loss == "cross_entropy"
    assert config.norm == "linf"
    assert config.radius == 16 / 255
    assert config.random_start_prob == 1  # E4
    assert (config.num_attack_steps, config.step_size) == (100, 1 / 255)  # E5
    assert config.step_size == evaluation_step_size(config.num_attack_steps)
    assert evaluation_step_size(10) == pytest.approx(1.6 / 255, rel=1e-12)
    assert (config.annealing, config.momentum, config.keep, config.num_restarts) == ("constant", 0, "last", 1)
    assert config.gradient == BackpropGradient(num_samples=1, max_shift=0, noise=0.0)
    assert (config.mask, config.steering, config.num_glimpses, config.glimpses) == (None, None, None, "last")
    assert not config.eight_bit


def test_adam_has_the_papers_schedule():
    """Appendix C.2, E10: rate 0.1 up to step 100, 0.01 up to 200, 0.001 up to 250."""
    config = AdamConfig()
    assert config.num_attack_steps == 250
    assert config.learning_rates == ((0, 0.1), (100, 0.01), (200, 0.001))
    assert (config.beta1, config.beta2, config.epsilon) == (0.9, 0.999, 1e-9)
    common = PGDConfig.model_fields.keys() & AdamConfig.model_fields.keys() - {"kind", "num_attack_steps"}
    assert len(common) > 10
    assert all(getattr(config, name) == getattr(PGDConfig(), name) for name in common)


def test_spsa_has_the_papers_batch_size():
    """E11: 4096 probes, read as pairs."""
    assert SPSA().num_directions == 4096
    assert SPSA().delta == 0.01


@every_kind
def test_every_attack_is_itself_after_json_and_back(which):
    config = KINDS[which]
    for text in (to_json(config), any_attack.dump_json(config), json.dumps(config.model_dump(mode="json"))):
        back = any_attack.validate_json(text)
        assert type(back) is type(config)
        assert back == config
    assert config_hash(back) == config_hash(config)
    assert from_json(type(config), to_json(config), "x") == config


@every_kind
def test_every_attack_is_itself_inside_another_config(which):
    holder = Holder(attack=KINDS[which])
    assert from_json(Holder, to_json(holder), "x") == holder
    assert override(holder, []) == holder
    assert override(holder, ["name=other"]).attack == holder.attack


def test_every_kind_of_the_table_is_another_experiment():
    assert len({config_hash(config) for config in KINDS.values()}) == len(KINDS)


def test_a_kind_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match="does not match any of the expected tags: 'pgd', 'adam', 'autoattack'"):
        any_attack.validate_python({"kind": "fgsm"})


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (PGDConfig, {"read_outs": [0]}, "read_outs (0,) must lie between 1 and num_attack_steps 100"),
        (PGDConfig, {"read_outs": [101]}, "read_outs (101,) must lie between 1 and num_attack_steps 100"),
        (AdamConfig, {"read_outs": [1, 251]}, "read_outs (1, 251) must lie between 1 and num_attack_steps 250"),
        (PGDConfig, {"radius": 16}, "radius 16 is more than 1, the whole range of a pixel: write 16/255 or norm l2"),
        (AdamConfig, {"radius": 1.01}, "radius 1.01 is more than 1, the whole range of a pixel"),
        (
            PGDConfig,
            {"objective": "multitargeted", "loss": "dlr"},
            "'multitargeted' has a loss of its own: leave `loss`",
        ),
        (PGDConfig, {"annealing": "linear", "read_outs": [10]}, "it has no read-outs on the way"),
        (AdamConfig, {"learning_rates": []}, "learning_rates must begin at step 0 and rise, such as [[0, 0.1]"),
        (AdamConfig, {"learning_rates": [[1, 0.1]]}, "learning_rates must begin at step 0 and rise"),
        (AdamConfig, {"learning_rates": [[0, 1], [9, 1], [5, 1]]}, "learning_rates must begin at step 0 and rise"),
        (AdamConfig, {"learning_rates": [[0, 1], [0, 1]]}, "learning_rates must begin at step 0 and rise"),
        (AttentionSteering, {"towards": "region"}, "steering towards a region needs `region`, and only that does"),
        (
            AttentionSteering,
            {"region": {"kind": "box"}},
            "steering towards a region needs `region`, and only that does",
        ),
        (AutoAttackComponentConfig, {"radius": 8}, "radius 8 is more than pixels in [0, 1] can move (linf)"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_in_one_sentence(cls, values, sentence):
    assert sentence in _refusal(cls, values)


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (PGDConfig, {"radius": "1/0"}, "radius: '1/0' divides by zero"),
        (PGDConfig, {"radius": "large"}, "radius: 'large' is neither a number nor a fraction such as 16/255"),
        (PGDConfig, {"radius": -0.1}, "radius: Input should be greater than or equal to 0"),
        (PGDConfig, {"step_size": "-1/255"}, "step_size: Input should be greater than or equal to 0"),
        (PGDConfig, {"momentum": -1}, "momentum: Input should be greater than or equal to 0"),
        (PGDConfig, {"num_attack_steps": -1}, "num_attack_steps: Input should be greater than or equal to 0"),
        (PGDConfig, {"num_attack_steps": 1.5}, "num_attack_steps: Input should be a valid integer"),
        (PGDConfig, {"num_attack_steps": "9"}, "num_attack_steps: Input should be a valid integer"),
        (PGDConfig, {"num_restarts": 0}, "num_restarts: Input should be greater than or equal to 1"),
        (PGDConfig, {"num_glimpses": 0}, "num_glimpses: Input should be greater than or equal to 1"),
        (PGDConfig, {"random_start_prob": 1.1}, "random_start_prob: Input should be less than or equal to 1"),
        (PGDConfig, {"random_start_prob": -0.1}, "random_start_prob: Input should be greater than or equal to 0"),
        (PGDConfig, {"objective": "away"}, "'multitargeted', 'divergence' or 'local_linearity'"),
        (PGDConfig, {"loss": "ce"}, "'cross_entropy', 'margin' or 'dlr'"),
        (PGDConfig, {"norm": "l1"}, "'linf' or 'l2'"),
        (PGDConfig, {"keep": "first"}, "'last' or 'best'"),
        (PGDConfig, {"glimpses": "first"}, "'last', 'all' or 'each'"),
        (PGDConfig, {"annealing": "step"}, "'constant', 'linear' or 'cosine'"),
        (PGDConfig, {"eight_bit": 1}, "eight_bit: Input should be a valid boolean"),
        (PGDConfig, {"steps": 9}, "steps: Extra inputs are not permitted"),
        (PGDConfig, {"kind": "adam"}, "kind: Input should be 'pgd'"),
        (PGDConfig, {"learning_rates": [[0, 1]]}, "learning_rates: Extra inputs are not permitted"),
        (AdamConfig, {"step_size": 0.1}, "step_size: Extra inputs are not permitted"),
        (AdamConfig, {"beta1": 1}, "beta1: Input should be less than 1"),
        (AdamConfig, {"beta2": -0.1}, "beta2: Input should be greater than or equal to 0"),
        (AdamConfig, {"epsilon": 0}, "epsilon: Input should be greater than 0"),
        (AdamConfig, {"learning_rates": [[0, -1]]}, "learning_rates.0.1: Input should be greater than or equal to 0"),
        (PGDConfig, {"gradient": {"kind": "fd"}}, "does not match any of the expected tags: 'exact', 'spsa'"),
        (PGDConfig, {"gradient": {"kind": "exact", "delta": 1}}, "gradient.exact.delta: Extra inputs"),
        (SPSA, {"num_directions": 0}, "num_directions: Input should be greater than or equal to 1"),
        (SPSA, {"delta": 0}, "delta: Input should be greater than 0"),
        (SPSA, {"delta": 1e-9}, "delta 1e-09 is lost in the rounding of float32"),
        (SPSA, {"micro_batch": 1}, "micro_batch: Input should be greater than or equal to 2"),
        (BackpropGradient, {"num_samples": 0}, "num_samples: Input should be greater than or equal to 1"),
        (BackpropGradient, {"max_shift": -1}, "max_shift: Input should be greater than or equal to 0"),
        (BackpropGradient, {"noise": -1}, "noise: Input should be greater than or equal to 0"),
        (AttentionSteering, {"weight": 2}, "weight: Input should be less than or equal to 1"),
        (AttentionSteering, {"towards": "left"}, "'away' or 'region'"),
        (AutoAttackComponentConfig, {"part": "apgd"}, "'apgd-ce', 'apgd-t', 'fab-t' or 'square'"),
        (
            AutoAttackComponentConfig,
            {"num_attack_steps": 0},
            "num_attack_steps: Input should be greater than or equal to 1",
        ),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence(cls, values, sentence):
    assert sentence in _refusal(cls, values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (PGDConfig, "radius"),
        (PGDConfig, "step_size"),
        (PGDConfig, "momentum"),
        (PGDConfig, "random_start_prob"),
        (AdamConfig, "epsilon"),
        (AdamConfig, "beta1"),
        (SPSA, "delta"),
        (BackpropGradient, "noise"),
        (AttentionSteering, "weight"),
        (BoxRegion, "height"),
        (AutoAttackComponentConfig, "radius"),
    ],
)
def test_no_number_of_an_attack_may_be_infinite_or_none(cls, name, value):
    assert name in _refusal(cls, {name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_learning_rate_may_be_infinite_or_none(value):
    assert "learning_rates.1.1: Input should be a" in _refusal(AdamConfig, {"learning_rates": [[0, 1], [5, value]]})


def test_the_edges_of_what_is_allowed_are_allowed():
    assert PGDConfig(radius=1.0).radius == 1
    assert PGDConfig(radius=0.0, step_size=0.0, num_attack_steps=0).num_attack_steps == 0
    assert PGDConfig(norm="l2", radius=10.0).radius == 10
    assert PGDConfig(num_attack_steps=5, read_outs=(1, 5)).read_outs == (1, 5)
    assert PGDConfig(annealing="linear", num_attack_steps=5, read_outs=(5,)).read_outs == (5,)


@pytest.mark.parametrize(
    ("assignment", "read"),
    [
        ("attack.radius=8/255", lambda attack: attack.radius == 8 / 255),
        ("attack.step_size=1.6/255", lambda attack: attack.step_size == 1.6 / 255),
        ("attack.num_attack_steps=7", lambda attack: attack.num_attack_steps == 7),
        ("attack.read_outs=[1, 10]", lambda attack: attack.read_outs == (1, 10)),
        ("attack.objective=untargeted", lambda attack: attack.objective == "untargeted"),
        ("attack.eight_bit=true", lambda attack: attack.eight_bit is True),
        ("attack.num_glimpses=9", lambda attack: attack.num_glimpses == 9),
        ("attack.gradient.num_samples=4", lambda attack: attack.gradient == BackpropGradient(num_samples=4)),
        ("attack.gradient.noise=.5", lambda attack: attack.gradient == BackpropGradient(noise=0.5)),
        ("attack.gradient.kind=exact", lambda attack: attack.gradient == BackpropGradient()),
        (
            'attack.gradient={"kind": "spsa", "num_directions": 8}',
            lambda attack: attack.gradient == SPSA(num_directions=8),
        ),
        (
            'attack.steering={"towards": "region", "region": {"kind": "grid", "rows": ["#.", ".#"]}}',
            lambda attack: attack.steering == AttentionSteering(towards="region", region=REGION),
        ),
        ('attack.mask={"kind": "box", "row": 0.5}', lambda attack: attack.mask == BoxRegion(row=0.5)),
        ('attack={"kind": "adam", "beta1": 0.5}', lambda attack: attack == AdamConfig(beta1=0.5)),
        ('attack={"kind": "autoattack"}', lambda attack: attack == AutoAttackComponentConfig()),
    ],
)
def test_one_setting_of_an_attack_is_overridden(assignment, read):
    before = Holder()
    assert not read(before.attack) or assignment.endswith("kind=exact")
    after = override(before, [assignment])
    assert read(after.attack)
    assert before == Holder()


def test_overrides_reach_into_whatever_kind_is_there():
    spsa = Holder(attack=KINDS["spsa"])
    assert override(spsa, ["attack.gradient.num_directions=2"]).attack.gradient.num_directions == 2
    onto = Holder(attack=KINDS["onto"])
    assert override(onto, ['attack.steering.region.rows=["#"]']).attack.steering.region.rows == ("#",)
    adam = Holder(attack=KINDS["adam"])
    assert override(adam, ["attack.learning_rates=[[0, 0.5]]"]).attack.learning_rates == ((0, 0.5),)
    masked = Holder(attack=KINDS["masked"])
    assert override(masked, ["attack.mask.row=null", "attack.mask=null"]).attack.mask is None


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("attack.gradient.kinds=spsa", "Unknown setting 'attack.gradient.kinds'. Did you mean attack.gradient.kind or"),
        ("attack.gradient.kind=sps", "does not match any of the expected tags: 'exact', 'spsa'"),
        ("attack.kind=pdg", "does not match any of the expected tags: 'pgd', 'adam', 'autoattack'"),
        ("attack.radius=2", "radius 2 is more than 1, the whole range of a pixel: write 16/255 or norm l2"),
        ("attack.radius.x=2", "Unknown setting 'attack.radius.x': attack.radius is one value and has no parts."),
        ("attack.learning_rates=1", "Unknown setting 'attack.learning_rates'."),
        ("attack.radius.weight=1", "Unknown setting 'attack.radius.weight': attack.radius is one value"),
    ],
)
def test_a_bad_override_is_refused_in_one_sentence(assignment, sentence):
    with pytest.raises(UserError) as error:
        override(Holder(), [assignment])
    message = str(error.value)
    assert sentence in message
    assert message.endswith(".")
    assert "\n" not in message
