"""What an evaluation is asked: which suite on which examples, how, where, and what comes of it. The command line and `s3ta.api`
both say it in these words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from s3ta.attacks import AutoAttackComponentConfig
from s3ta.data import DataConfig, Dataset
from s3ta.errors import UserError, unknown_name
from s3ta.evaluate import (
    ATTACKS,
    SUITES,
    SUITES_AT_ANY_RADIUS,
    AttackContext,
    Settings,
    Shard,
    Suite,
    TransferImages,
    build_suite,
    get_suite,
    leaderboard_radius,
    norm_of_overrides,
    transfer_suite,
    why_unsupported,
)
from s3ta.models import ModelMetadata
from s3ta.records import DRAWN, LISTED
from s3ta.records.ledger import INFORMATIVE
from s3ta.workflow.model import OpenedModel, RuntimeOptions

Checks = Literal["none", "some", "full"]


@dataclass(frozen=True)
class SuiteChoice:
    """The attacks that a person means."""

    name: str | None = None
    """Of a suite; None: the recipe's, else `quick`."""
    attacks: tuple[str, ...] = ()
    """Names of single attacks, instead of a suite."""
    radius: float | None = None
    """For suites and attacks that state none; None: that of the recipe, else 8/255."""
    overrides: tuple[str, ...] = ()
    """`attack.a=b` settings for all its attacks."""
    is_tiny: bool = False
    """Whether it is shrunk to seconds."""


class ExampleSelection(NamedTuple):
    """Which examples a person asks for, and how they are prepared."""

    data: DataConfig | Dataset | None = None
    """Where they are; or themselves, as the model takes them. None: the recipe's own (run folders only)."""
    split: str = "test"
    num_examples: int | None = None
    """None: as many as the suite says, else all."""
    ids: Path | Sequence[str] | None = None
    """The ids of the examples to use, in their order, or a file that lists them; instead of a drawn choice."""
    targets: Path | None = None
    """A CSV file with a target for each example; instead of drawn ones."""
    match_classes: Literal["data", "model"] | None = None
    """Match the classes of data and model by name: those of the data alone compete, or all of the model's. None: they must
    be the same, in the same order."""
    skip_unreadable: bool = False
    """Go on without images that cannot be read, instead of stopping."""


@dataclass(frozen=True)
class EvaluationOutput:
    """What comes of an evaluation, and how far it is checked."""

    folder: Path | None = None
    """Of the ledger; None: `evaluations/SUITE` in the model's folder."""
    checks: Checks = "some"
    """`none`; `some`: the model is looked over before, and the evaluation checked afterwards for at most a fifth of the
    attacks' passes; `full`: for as many as that takes."""
    strict: bool = False
    """Whether a warning about the model ends the run."""
    shard: Shard | None = None
    """The part to do here; others are done elsewhere, in the same folder or in one whose chunks are copied into it."""


@dataclass(frozen=True)
class EvaluationRequest:
    """One evaluation of any model."""

    suite: Suite
    examples: ExampleSelection = field(default_factory=ExampleSelection)
    settings: Settings = field(default_factory=Settings)
    runtime: RuntimeOptions = field(default_factory=RuntimeOptions)
    output: EvaluationOutput = field(default_factory=EvaluationOutput)
    images: TransferImages | None = None
    """For a suite of transfers, whose."""


def choose_suite(subject: OpenedModel, choice: SuiteChoice) -> Suite:
    """The suite of a name, or of single attacks, at the radius that fits what will be measured.

    Raises UserError for a name that is unknown, and for a radius where the suite states its own."""
    card, name, radius = subject.card, choice.name, choice.radius
    attacks, overrides = list(choice.attacks), list(choice.overrides)
    usual = radius if radius is not None else _usual_radius(subject, name)
    situation = AttackContext(
        usual, card.num_glimpses, card.num_classes, is_stated=radius is not None, norm=norm_of_overrides(overrides)
    )
    if not attacks:
        name = name or (subject.recipe.suite if subject.recipe else "quick")
    suite = build_suite(name, attacks, situation, choice.is_tiny, overrides)
    refuse_misfits(suite, card)
    return suite


def given_suite(
    subject: OpenedModel, suite: str | Sequence[str] | Suite, radius: float | None, overrides: tuple[str, ...]
) -> Suite:
    """The suite that a Python program gives, or names, or names the attacks of; at a radius also where it states its own.

    Raises UserError for an unknown name, nearest ones offered, and for settings beside a suite that is given."""
    if isinstance(suite, Suite):
        if radius is not None or overrides:
            raise UserError(f"Suite '{suite.name}' is given with its settings: leave radius and overrides out.")
        refuse_misfits(suite, subject.card)
        return suite
    if isinstance(suite, str) and suite in ATTACKS:
        suite = (suite,)
    if not isinstance(suite, str):
        return choose_suite(subject, SuiteChoice(attacks=tuple(suite), radius=radius, overrides=overrides))
    if suite not in (suites := [*SUITES, *SUITES_AT_ANY_RADIUS]):
        raise unknown_name("suite or attack", suite, [*suites, *ATTACKS], "s3ta list suites")
    if suite in SUITES and radius is not None:
        overrides, radius = (*_at_radius(get_suite(suite), radius), *overrides), None
    return choose_suite(subject, SuiteChoice(suite, radius=radius, overrides=overrides))


def _at_radius(suite: Suite, radius: float) -> list[str]:
    """The settings that take a suite to another radius; steps go with it, where the paper's rule does not say them."""
    attacks: list[Any] = [named.attack for named in suite.attacks]
    if all(attack.radius == radius for attack in attacks):
        return []
    settings = [f"attack.radius={radius!r}"]
    ratios = {attack.step_size / attack.radius for attack in attacks if hasattr(attack, "step_size")}
    if len(ratios) == 1 and not suite.paper_steps:
        settings.append(f"attack.step_size={ratios.pop() * radius!r}")
    return settings


def refuse_misfits(suite: Suite, card: ModelMetadata) -> None:
    """UserError for what would only be noticed when its turn comes, hours later."""
    situation = AttackContext(num_glimpses=card.num_glimpses, num_classes=card.num_classes)
    for named in suite.attacks:
        if reason := why_unsupported(named.attack, situation):
            raise UserError(f"{named.name} cannot be run: {reason}.")
        if isinstance(named.attack, AutoAttackComponentConfig) and find_spec("pyautoattack") is None:
            raise UserError(f'{named.name} is a part of AutoAttack: pip install "s3ta[autoattack]" (or pyautoattack).')


def _usual_radius(subject: OpenedModel, name: str | None) -> float:
    """The radius that a run folder was trained at, in the L-infinity ball; else the default. The leaderboard has its own."""
    if name == "robustbench":
        return leaderboard_radius(subject.card.num_classes)
    if subject.recipe is None or subject.recipe.attack.norm != "linf":
        return AttackContext().radius
    return subject.recipe.attack.radius


def transfer_request(folder: Path, settings: Settings) -> tuple[TransferImages, Suite, Settings]:
    """The images of another model's evaluation, with the suite and settings to score them by."""
    images = TransferImages(folder)
    source = images.manifest
    chosen = LISTED if source.get(INFORMATIVE, {}).get("examples") == LISTED else DRAWN
    settings = settings._replace(seed=source["seed"], targets=images.targets or None, examples=chosen)
    return images, transfer_suite(images.manifest), settings
