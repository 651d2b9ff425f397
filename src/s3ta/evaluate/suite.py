"""What a suite is: the clean images and some named attacks on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from s3ta.attack_config import NamedAttack
from s3ta.config import Config
from s3ta.records import CLEAN

ObjectiveName = Literal["targeted", "untargeted"]
BOTH: tuple[ObjectiveName, ...] = ("untargeted", "targeted")


class ImagesFrom(Config):
    """Whose adversarial images a suite of transfers uses."""

    model: str
    sha256: str
    suite: str
    evaluation: str = ""
    """Hash of the whole manifest of that evaluation: how it searched, and everything else that can change an image."""


class Suite(Config):
    """The clean images and some attacks on them, all with the same examples and targets."""

    name: str
    description: str
    attacks: tuple[NamedAttack, ...]
    """None at all: clean images alone."""
    num_examples: Annotated[int, Field(gt=0)] | None = None
    """How many examples are drawn; None: all. `--num-examples` overrides it."""
    gallery_attack: str | None = None
    """The attack whose first adversarial images are kept for the report."""
    cascade: bool = False
    """Worst case over all attacks, one after the other: each runs only on what those before it left correct."""
    images_from: ImagesFrom | None = None
    paper_steps: tuple[str, ...] = ()
    """The attacks whose step sizes follow from radius and number of steps by the paper's rule
    (`s3ta.attacks.evaluation_step_size`): they do so too where a setting changes either, unless it gives the step size."""
    left_out: tuple[str, ...] = ()
    """Attacks of the suite that do not fit the model (they look at glimpses, and it has none)."""

    @model_validator(mode="after")
    def _attacks_can_be_told_apart(self) -> Suite:
        names = [named.name for named in self.attacks]
        if len(set(names)) < len(names) or CLEAN in names:
            raise ValueError(f"attacks need different names, none of them '{CLEAN}'; got {names}")
        if any(named.attack.num_attack_steps < 1 for named in self.attacks):
            raise ValueError("an attack of a suite takes at least one step")
        if self.cascade and any(set(n.attack.read_outs) - {n.attack.num_attack_steps} for n in self.attacks):
            raise ValueError("the attacks of a cascade are read out at their end alone")
        return self
