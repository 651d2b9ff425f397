"""The suite that a person means, fitted to the model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from s3ta.attacks import AutoAttackConfig
from s3ta.errors import UserError
from s3ta.evaluate import (
    KeptImages,
    Settings,
    Situation,
    Suite,
    asked_norm,
    asked_suite,
    incompatibility,
    leaderboard_radius,
    transfer_suite,
)
from s3ta.models import ModelInfo
from s3ta.records import DRAWN, LISTED
from s3ta.records.ledger import INFORMATIVE
from s3ta.workflow.model import OpenedModel
from s3ta.workflow.request import SuiteChoice


def choose_suite(subject: OpenedModel, choice: SuiteChoice) -> Suite:
    """The suite of a name, or of single attacks, at the radius that fits what will be measured.

    Raises UserError for a name that is unknown, and for a radius where the suite states its own."""
    card, name, radius = subject.card, choice.name, choice.radius
    attacks, overrides = list(choice.attacks), list(choice.overrides)
    found = radius if radius is not None else _usual_radius(subject, name)
    at = Situation(found, card.num_glimpses, card.num_classes, is_stated=radius is not None, norm=asked_norm(overrides))
    if not attacks:
        name = name or (subject.recipe.suite if subject.recipe else "quick")
    suite = asked_suite(name, attacks, at, choice.is_tiny, overrides)
    refuse_misfits(suite, card)
    return suite


def refuse_misfits(suite: Suite, card: ModelInfo) -> None:
    """UserError for what would only be noticed when its turn comes, hours later."""
    at = Situation(num_glimpses=card.num_glimpses, num_classes=card.num_classes)
    for named in suite.attacks:
        if reason := incompatibility(named.attack, at):
            raise UserError(f"{named.name} cannot be run: {reason}.")
        if isinstance(named.attack, AutoAttackConfig) and find_spec("pyautoattack") is None:
            raise UserError(f'{named.name} is a part of AutoAttack: pip install "s3ta[autoattack]" (or pyautoattack).')


def _usual_radius(subject: OpenedModel, name: str | None) -> float:
    """The radius that a run folder was trained at, in the L-infinity ball; else the default. The leaderboard has its own."""
    if name == "robustbench":
        return leaderboard_radius(subject.card.num_classes)
    if subject.recipe is None or subject.recipe.attack.norm != "linf":
        return Situation().radius
    return subject.recipe.attack.radius


def transferred(folder: Path, settings: Settings) -> tuple[KeptImages, Suite, Settings]:
    """The images of another model's evaluation, with the suite and settings to score them by."""
    images = KeptImages(folder)
    source = images.manifest
    chosen = LISTED if source.get(INFORMATIVE, {}).get("examples") == LISTED else DRAWN
    settings = settings._replace(seed=source["seed"], targets=images.targets or None, examples=chosen)
    return images, transfer_suite(images.manifest), settings
