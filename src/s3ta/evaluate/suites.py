"""Suites as data: which attacks make one row of a table."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from s3ta.attacks import PGDConfig, evaluation_step_size
from s3ta.config import Config, from_json, override, to_json
from s3ta.errors import unknown_name
from s3ta.records import CLEAN

Objective = Literal["targeted", "untargeted"]
BOTH: tuple[Objective, ...] = ("untargeted", "targeted")


class NamedAttack(Config):
    """An attack under the name that its records carry."""

    name: str
    attack: PGDConfig


class Suite(Config):
    """The clean images and some attacks on them, all with the same examples and targets."""

    name: str
    description: str
    attacks: tuple[NamedAttack, ...]
    num_examples: Annotated[int, Field(gt=0)] | None = None
    """How many examples are drawn; None: all. `--num-examples` overrides it."""
    gallery_attack: str | None = None
    """The attack whose first adversarial images are kept for the report."""

    @model_validator(mode="after")
    def _attacks_can_be_told_apart(self) -> Suite:
        names = [named.name for named in self.attacks]
        if len(set(names)) < len(names) or CLEAN in names:
            raise ValueError(f"attacks need different names, none of them '{CLEAN}'; got {names}")
        if any(named.attack.num_attack_steps < 1 for named in self.attacks):
            raise ValueError("an attack of a suite takes at least one step")
        return self


def digits() -> Suite:
    """The demo's suite: radius 0.1, untargeted and random-targeted, 100 steps of 0.01 read out on the way."""
    attacks = tuple(_pgd(objective, 100, 0.1, 0.01, (5, 10, 20, 50, 100)) for objective in BOTH)
    return Suite(
        name="digits",
        description="PGD with up to 100 steps at radius 0.1, untargeted and random-targeted",
        attacks=attacks,
        num_examples=400,
        gallery_attack="untargeted-100",
    )


def quick() -> Suite:
    """A first look at a model of colour images: 20 steps at 8/255."""
    attacks = tuple(_pgd(objective, 20, 8 / 255, 2 / 255, (5, 10, 20)) for objective in BOTH)
    return Suite(
        name="quick",
        description="PGD with 20 steps at 8/255, untargeted and random-targeted",
        attacks=attacks,
        num_examples=500,
        gallery_attack="untargeted-20",
    )


def table1() -> Suite:
    """The paper's Table 1: random-targeted PGD at 16/255 with 10, 100, 250 and 1,000 steps (E3-E6)."""
    radius = 16 / 255
    attacks = (
        _pgd("targeted", 10, radius, evaluation_step_size(10), ()),
        _pgd("targeted", 1000, radius, evaluation_step_size(1000), (100, 250, 1000)),
    )
    return Suite(
        name="table1",
        description="the paper's Table 1: random-targeted PGD, 16/255, 10 to 1,000 steps",
        attacks=attacks,
        gallery_attack="targeted-1000",
    )


SUITES = {"digits": digits, "quick": quick, "table1": table1}


def get_suite(name: str) -> Suite:
    """The suite of that name. Raises UserError, nearest names offered."""
    if name not in SUITES:
        raise unknown_name("suite", name, SUITES, "s3ta list suites")
    return SUITES[name]()


def tiny_suite(suite: Suite) -> Suite:
    """The same suite shrunk to seconds: at most 2 attack steps and 8 examples. For trying out and tests."""
    attacks = tuple(
        NamedAttack(
            name=named.name,
            attack=named.attack.model_copy(
                update={
                    "num_attack_steps": min(2, named.attack.num_attack_steps),
                    "read_outs": (1,),
                    "step_size": named.attack.radius / 2,
                }
            ),
        )
        for named in suite.attacks
    )
    described = suite.model_copy(update={"description": "a trial run: its numbers mean nothing", "num_examples": 8})
    return _variant(described, f"{suite.name}-tiny", attacks)


def changed_suite(suite: Suite, assignments: list[str]) -> Suite:
    """The suite with `attack.a=b` settings applied to each of its attacks, under a name that says so.

    Raises UserError for settings that do not exist or do not fit (nearest names offered)."""
    if not assignments:
        return suite
    attacks = tuple(override(named, assignments) for named in suite.attacks)
    short = "+".join(re.sub(r"[^A-Za-z0-9_=.,-]+", "_", text.removeprefix("attack.")) for text in assignments)
    return from_json(Suite, to_json(_variant(suite, f"{suite.name}+{short}", attacks)), "suite")


def _variant(suite: Suite, name: str, attacks: tuple[NamedAttack, ...]) -> Suite:
    """The suite with its attacks replaced, in order. Names that end in the number of steps follow it, if they stay apart."""
    names = [
        re.sub(rf"-{before.attack.num_attack_steps}$", f"-{after.attack.num_attack_steps}", after.name)
        for before, after in zip(suite.attacks, attacks, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [named.name for named in attacks]
    follow = {before.name: new for before, new in zip(suite.attacks, names, strict=True)}
    renamed = tuple(named.model_copy(update={"name": new}) for named, new in zip(attacks, names, strict=True))
    shown = follow.get(suite.gallery_attack) if suite.gallery_attack else None
    return suite.model_copy(update={"name": name, "attacks": renamed, "gallery_attack": shown})


def _pgd(objective: Objective, steps: int, radius: float, step_size: float, read_outs: tuple[int, ...]) -> NamedAttack:
    attack = PGDConfig(
        objective=objective, radius=radius, step_size=step_size, num_attack_steps=steps, read_outs=read_outs
    )
    return NamedAttack(name=f"{objective}-{steps}", attack=attack)
