"""What an evaluation is asked: which suite on which examples, how, where, and what comes of it. The command line and `s3ta.api`
both say it in these words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from s3ta.data import DataConfig, Dataset
from s3ta.evaluate import KeptImages, Settings, Shard, Suite
from s3ta.workflow.runtime_options import RuntimeOptions

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


class Examples(NamedTuple):
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
class Output:
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
    examples: Examples = field(default_factory=Examples)
    settings: Settings = field(default_factory=Settings)
    place: RuntimeOptions = field(default_factory=RuntimeOptions)
    output: Output = field(default_factory=Output)
    images: KeptImages | None = None
    """For a suite of transfers, whose."""
