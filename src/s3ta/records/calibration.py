"""How far a model's confidence can be trusted, on clean images (protocol E13; X32). NumPy only, float64.

Confidence is the softmax probability of the prediction. Two measures are those of ImageNet-A (Hendrycks et al., Natural
Adversarial Examples): the RMS calibration error and AURRA. **The published code of the first leaves out its last bin**, the
most confident one, but divides by all images: no change there can change its number. Both forms are given here, by name.

    found = calibration_of(table)
    found.rms_published, found.rms_all_bins, found.aurra
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike

from s3ta.records.proportion_statistics import Interval, wilson
from s3ta.records.schema import CLEAN

BIN_SIZE = 100
"""Images per bin of the RMS calibration error; the last bin also takes the remainder."""


class Calibration(NamedTuple):
    """The numbers of one model, all from 0 to 1."""

    num_examples: int
    num_correct: int
    rms_published: float | None
    """As the published code computes it, without its last bin: to stand beside published numbers. With fewer than 200
    images it has no bin left and is 0, which says nothing. None: fewer than 100."""
    rms_all_bins: float | None
    """With every bin: the number to go by. None: fewer than 100 images."""
    rms_by_chance: float | None
    """What `rms_all_bins` would be (root of the mean square) of a model with the same confidences that is calibrated
    perfectly: the scatter of bins of 100."""
    aurra: float
    """Accuracy among the j most confident answers, averaged over j = 1 ... n. Ties: the earlier one first."""


class RiskCoverage(NamedTuple):
    """The risk when the least confident answers are refused: n values, from the most confident answer to all answers."""

    coverage: np.ndarray
    """Share of the images that are answered: 1/n ... 1."""
    num_wrong: np.ndarray
    """How many of the images answered are wrong."""
    risk: np.ndarray
    """Share of them."""


class ConfidenceBin(NamedTuple):
    """The answers whose confidence lies in one interval, `low` excluded (0 belongs to the first) and `high` included."""

    low: float
    high: float
    num_examples: int
    num_correct: int
    confidence: float
    """Their mean."""

    @property
    def accuracy(self) -> float:
        return self.num_correct / self.num_examples

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the accuracy."""
        return wilson(self.num_correct, self.num_examples)


def calibration(confidence: ArrayLike, correct: ArrayLike) -> Calibration:
    """Every number of `Calibration`.

    Args:
      confidence: (n,), 0 to 1.
      correct: (n,), booleans; in the same order.

    Raises:
      ValueError: no image, other lengths, a confidence outside 0 to 1, or something else than booleans."""
    sure, right = _checked(confidence, correct)
    num_bins = len(sure) // BIN_SIZE
    published = all_bins = by_chance = None
    if num_bins:
        order = np.argsort(sure, kind="stable")
        first = BIN_SIZE * np.arange(num_bins)
        sizes = np.diff(np.append(first, len(sure)))
        gap, variance = (
            np.add.reduceat(values[order], first) / sizes**power
            for values, power in ((sure - right, 1), (sure * (1 - sure), 2))
        )
        squares = sizes / len(sure) * gap**2
        published, all_bins = float(np.sqrt(squares[:-1].sum())), float(np.sqrt(squares.sum()))
        by_chance = float(np.sqrt((sizes / len(sure) * variance).sum()))
    aurra = float(np.mean(1 - risk_coverage(sure, right).risk))
    return Calibration(len(sure), int(right.sum()), published, all_bins, by_chance, aurra)


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """The errors among the most confident answers, for every number of them. Arguments and errors as in `calibration`."""
    sure, right = _checked(confidence, correct)
    answered = np.arange(1, len(sure) + 1)
    num_wrong = np.cumsum(~right[np.argsort(-sure, kind="stable")])
    return RiskCoverage(answered / len(sure), num_wrong, num_wrong / answered)


def reliability_bins(confidence: ArrayLike, correct: ArrayLike, num_bins: int = 15) -> list[ConfidenceBin]:
    """The bins of a reliability diagram, of one width, ascending, without empty ones. Errors as in `calibration`."""
    sure, right = _checked(confidence, correct)
    edges = np.linspace(0, 1, num_bins + 1)
    bin_index = np.searchsorted(edges[1:-1], sure, side="left")
    return [
        ConfidenceBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            num_examples=int((bin_index == index).sum()),
            num_correct=int(right[bin_index == index].sum()),
            confidence=float(sure[bin_index == index].mean()),
        )
        for index in np.unique(bin_index)
    ]


def clean_confidences(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Confidence (n,), float64, and correctness (n,) on the clean images, in the order of their ids: what ties go by is
    then neither the seed nor the shards of the evaluation."""
    clean = table.filter(pc.field("attack") == CLEAN)
    order = np.argsort(np.array(clean["example_id"].to_pylist(), dtype=object), kind="stable")
    confidence, correct = (clean[name].to_numpy()[order] for name in ("confidence", "correct"))
    return confidence.astype(np.float64), correct.astype(bool)


def calibration_of(table: pa.Table) -> Calibration | None:
    """The numbers of an evaluation, from its clean records; None where it has none yet."""
    confidence, correct = clean_confidences(table)
    return calibration(confidence, correct) if len(confidence) else None


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    sure, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct)
    if sure.ndim != 1 or sure.shape != right.shape or not len(sure):
        raise ValueError(f"confidence has shape {sure.shape} and correct {right.shape}: give one of each per image")
    if not ((sure >= 0) & (sure <= 1)).all():
        raise ValueError("a confidence is not in 0..1")
    if right.dtype != np.bool_:
        raise ValueError(f"correct holds {right.dtype}, not booleans")
    return sure, right
