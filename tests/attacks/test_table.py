"""The table of attacks leaves out nothing: every setting occurs with another value than its default, and every choice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from pydantic import TypeAdapter, create_model

from s3ta.attacks import AdamConfig, AttackConfig, PGDConfig, RandomKey, run_attack
from s3ta.attacks.cost import attack_cost
from s3ta.config import Config

from .helpers import names, pictures, small_s3ta
from .table import ATTACKS, AUTOATTACK, IN_THE_LOOP, LOOKING, PLAIN


def configs_in(value: Any) -> Iterator[Config]:
    """A config and all that it holds."""
    if isinstance(value, Config):
        yield value
        for name in type(value).model_fields:
            yield from configs_in(getattr(value, name))


def members_of(annotation: Any) -> set[type[Config]]:
    """The config classes that a type names."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return {annotation}
    return set().union(*(members_of(part) for part in get_args(annotation)))


def kinds_in(annotation: Any) -> set[type[Config]]:
    """The same, and those of their settings."""
    members = members_of(annotation)
    return members.union(*(kinds_in(field.annotation) for kind in members for field in kind.model_fields.values()))


def choices_in(annotation: Any) -> set[Any]:
    """The words that a setting may have, if it is one of several."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return set().union(*(choices_in(part) for part in get_args(annotation)))


def missing(kinds: set[type[Config]], attacks: list[Config]) -> list[str]:
    """CLASS.SETTING for what no attack gives another value than the default, CLASS.SETTING=CHOICE for what none chooses."""
    held: dict[type[Config], list[Config]] = {kind: [] for kind in kinds}
    for config in (part for attack in attacks for part in configs_in(attack)):
        held.get(type(config), []).append(config)
    lacking = []
    for kind, configs in held.items():
        for name, field in kind.model_fields.items():
            values = [getattr(config, name) for config in configs]
            default = field.get_default(call_default_factory=True, validated_data={})
            choices = choices_in(field.annotation) - {value for value in values if isinstance(value, str)}
            lacking += [f"{kind.__name__}.{name}={choice}" for choice in sorted(choices)]
            if name != "kind" and all(value == default for value in values):
                lacking.append(f"{kind.__name__}.{name}")
            others = members_of(field.annotation) - {type(value) for value in values}
            lacking += sorted(f"{kind.__name__}.{name}={other.__name__}" for other in others)
    return lacking


def test_every_setting_of_every_attack_occurs_in_the_table() -> None:
    assert missing(kinds_in(AttackConfig), list(ATTACKS.values())) == []


def test_every_kind_of_attack_is_known_to_this_test() -> None:
    names = {kind.__name__ for kind in kinds_in(AttackConfig)}
    assert names >= {
        "PGDConfig",
        "AdamConfig",
        "AutoAttackComponentConfig",
        "BackpropGradient",
        "SPSA",
        "AttentionSteering",
        "BoxRegion",
        "GridRegion",
    }


def test_a_new_setting_that_no_attack_uses_is_missed() -> None:
    newer = create_model("Newer", __base__=PGDConfig, sharpness=(float, 1.0), way=(Literal["a", "b"], "a"))
    held: list[Config] = [newer(**PLAIN["l2"].model_dump()), newer(way="b")]
    lacking = missing({newer}, held)
    assert "Newer.sharpness" in lacking
    assert "Newer.way" not in lacking
    assert not any(word.startswith("Newer.way=") for word in lacking)
    assert "Newer.way=b" in missing({newer}, held[:1])


def test_no_attack_stands_twice_in_the_table() -> None:
    texts = [TypeAdapter(AttackConfig).dump_json(attack) for attack in ATTACKS.values()]
    assert len(set(texts)) == len(ATTACKS)
    assert len(ATTACKS) == len(IN_THE_LOOP) + 4
    assert [name for name in IN_THE_LOOP if IN_THE_LOOP[name].needs_trace] == list(LOOKING)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_of_the_table_is_brief(name: str) -> None:
    attack = ATTACKS[name]
    assert attack_cost(attack).total <= 60
    assert attack.num_attack_steps <= (4 if isinstance(attack, PGDConfig | AdamConfig) else 20)


@pytest.mark.parametrize("name", IN_THE_LOOP)
def test_the_stated_cost_is_what_the_model_is_asked(name: str) -> None:
    config, model, passes = IN_THE_LOOP[name], small_s3ta(), []
    model.vision.register_forward_hook(lambda module, given, keys: passes.append(len(given[0])))
    clean = (pictures(3, (2, 12, 10), dtype=torch.float32) * 255).round() / 255
    labels, targets = torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
    outputs_fn = model.unroll if config.needs_trace else model
    attacked = run_attack(
        outputs_fn, clean, labels, config=config, targets=targets, draw=RandomKey(0, tuple(names(3)), ("x", 0))
    )
    assert sum(passes) == 3 * attack_cost(config).num_forwards
    assert attacked.num_forwards[-1].tolist() == [attack_cost(config).num_forwards] * 3
    assert attacked.num_gradients[-1].tolist() == [attack_cost(config).num_gradients] * 3


@pytest.mark.parametrize("name", AUTOATTACK)
def test_parts_of_autoattack_cost_no_more_than_stated_and_stay_in_their_ball(name: str) -> None:
    pytest.importorskip("pyautoattack")
    config, model = AUTOATTACK[name], small_s3ta()
    clean = (pictures(3, (2, 12, 12), dtype=torch.float32) * 255).round() / 255
    labels = model(clean).argmax(1)
    attacked = run_attack(model, clean, labels, config=config, draw=RandomKey(0, tuple(names(3)), ("x", 0)))
    change = (attacked.final - clean).flatten(1).norm(dim=1, p=2 if config.norm == "l2" else torch.inf)
    assert (change <= config.radius + 1e-6).all()
    assert (attacked.num_forwards[-1] > 0).all()
    assert (attacked.num_forwards[-1] <= attack_cost(config).num_forwards).all()
    assert (attacked.num_gradients[-1] <= attack_cost(config).num_gradients).all()
    if config.eight_bit:
        assert (attacked.final * 255 - (attacked.final * 255).round()).abs().max() < 1e-4
