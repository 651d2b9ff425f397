"""What `s3ta.evaluate`, `s3ta.attack` and `s3ta.lint` give back: numbers to compute with, and a text to read."""

from __future__ import annotations

import re
import shutil
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from torch import Tensor

from s3ta.config import format_radius
from s3ta.errors import UserError
from s3ta.finding import WORTH_TELLING, Finding, worst_first
from s3ta.records import Ledger, Score, count_scores
from s3ta.report import evaluation_table, findings_of
from s3ta.report.checks import read_trust
from s3ta.report.result_tables import bounds, rate
from s3ta.terminal_output import as_text, drawn_table
from s3ta.workflow.preprocessing import recorded_preparation


class ReadOut(NamedTuple):
    """One attack after so many steps, over all examples; clean images first. Shares are from 0 to 1, intervals of 95%."""

    attack: str
    num_attack_steps: int
    num_restarts: int
    num_examples: int
    top1: float
    """Share of all examples that are classified as their label, after every restart."""
    top1_low: float
    top1_high: float
    success: float | None
    """Share of all examples that are classified as the attack's target; None where it has none."""
    success_low: float | None
    success_high: float | None
    max_distance: float
    """The largest distance to a clean image, in the norm of the attack."""
    mean_gradients: float
    """Gradients per example."""
    mean_forwards: float
    """Forward passes per example, those of the gradients among them."""


class Findings(tuple[Finding, ...]):
    """Findings, worst first; printed with how many checks passed or could not be made."""

    def __new__(cls, findings: Iterable[Finding]) -> Findings:
        return super().__new__(cls, worst_first(list(findings)))

    def __repr__(self) -> str:
        lines = [in_python(finding.line) for finding in self if finding.severity in WORTH_TELLING]
        counts = Counter(finding.severity for finding in self)
        lines += [f"{counts[severity]} {severity}" for severity in ("passed", "unchecked") if counts[severity]]
        return "\n".join(lines) or "nothing found"


def in_python(text: str) -> str:
    """A sentence that speaks of options of the command line, in the words of `s3ta.api`."""
    for option, argument in _ARGUMENTS.items():
        text = text.replace(option, argument)
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda match: match[1].replace("-", "_"), text)


_ARGUMENTS = {"--full-checks": 'checks="full"', "--no-checks": 'checks="none"', "--class-names FILE": "classes"}


class Result:
    """One finished evaluation: its records in a folder, or in a temporary one that goes when nobody holds the Result."""

    def __init__(self, folder: Path, *, is_temporary: bool = False) -> None:
        """Raises UserError where the folder holds no records."""
        self.folder = folder
        """As `s3ta evaluate --out` writes it."""
        self._is_temporary = is_temporary
        self._ledger = Ledger.read(folder)
        if is_temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @property
    def manifest(self) -> dict[str, Any]:
        """What was measured: hashes of weights and data, every setting, versions, hardware."""
        return self._ledger.manifest

    @cached_property
    def records(self) -> pa.Table:
        """One row per image, attack, restart and read-out."""
        return self._ledger.table()

    @cached_property
    def scores(self) -> tuple[ReadOut, ...]:
        """The clean images, then every read-out of every attack; in a cascade the worst case over all attacks so far."""
        cascade = self._ledger.typed_manifest.suite.cascade
        return tuple(_read_out(score) for score in count_scores(self.records, cascade=cascade))

    @property
    def clean(self) -> ReadOut:
        """The images before any attack."""
        return self.scores[0]

    @cached_property
    def checks(self) -> Findings:
        """Every check of the model before, by experiments after, and of the records, also those that passed."""
        return Findings(read_trust(self.folder, self.records, self._ledger.typed_manifest).findings)

    @cached_property
    def findings(self) -> Findings:
        """Errors, warnings and notes of these, each question once."""
        return Findings(findings_of(self.folder))

    def to_pandas(self) -> Any:
        """The records as a `pandas.DataFrame`. Raises UserError where pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise UserError(
                "pandas is not installed: pip install pandas, or use .records, a pyarrow Table, and .scores."
            ) from None
        return pd.DataFrame(self.records.to_pydict())

    def __repr__(self) -> str:
        model, data, suite = (self.manifest[part] for part in ("model", "data", "suite"))
        table = evaluation_table(self.folder)
        return as_text(
            f"{model['name']}, suite {suite['name']}: {data['num_examples']:,} of {data['num_available']:,} images",
            recorded_preparation(self.manifest),
            drawn_table(table.headers, table.rows),
            *([repr(self.findings)] if self.findings else []),
            "Records: in memory" if self._is_temporary else f"Records: {self.folder}",
        )


def _read_out(score: Score) -> ReadOut:
    top1, success = bounds(score), None if score.success is None else bounds(score, success=True)
    shares = {"top1_low": top1.low, "top1_high": top1.high}
    shares |= {"success_low": success and success.low, "success_high": success and success.high}
    return ReadOut(**shares, **{name: getattr(score, name) for name in ReadOut._fields if name not in shares})


@dataclass(frozen=True, eq=False, repr=False)
class AttackedImages:
    """Adversarial images and what the model says of them; tensors on the CPU, one row per image, in the order given."""

    attack: str
    """Its name."""
    radius: float
    """Of the ball that the images lie in, in pixels of [0, 1]."""
    images: Tensor
    """(n, C, H, W), float32 in [0, 1]; of several restarts the first one that succeeds, else the last."""
    labels: Tensor
    targets: Tensor | None
    """Classes to reach; None where the attack has none."""
    clean_predictions: Tensor
    """Of the images before the attack."""
    predictions: Tensor
    """Of the adversarial ones, classified again in float32."""
    success: Tensor
    """Whether the prediction is the target; without targets, whether it is not the label."""
    distances: Tensor
    """From the clean images, in the norm of the attack, in pixels of [0, 1]."""
    num_gradients: Tensor
    """Gradient evaluations spent on each image, over all restarts."""
    num_forwards: Tensor
    """Forward evaluations likewise, those of the gradients among them."""

    def __repr__(self) -> str:
        flags = {"right before": self.clean_predictions == self.labels, "right after": self.predictions == self.labels}
        if self.targets is not None:
            flags["on target"] = self.success
        count, others = len(self.labels), self.num_forwards - self.num_gradients
        return as_text(
            f"{self.attack}, radius {format_radius(self.radius)}: {count:,} images, at most "
            f"{float(self.distances.max()):.4g} from the clean ones",
            drawn_table(["", "share (95% interval)"], [[name, rate(int(f.sum()), count)] for name, f in flags.items()]),
            f"{float(self.num_gradients.double().mean()):,.0f} gradients and {float(others.double().mean()):,.0f} other "
            "forward passes per image",
        )
