"""Intervals and tests for proportions: how sure a percentage is, and whether two models really differ.

`wilson` for one model; `compare_paired` for two models on the same examples, which yields, per attack and
read-out, the counts of which model was right where, with `PairedCounts.interval` (95 %) and `PairedCounts.p_value`.

Sources: Wilson 1927 (JASA 22:209); Newcombe 1998 (Statistics in Medicine 17:2635), method 10, for the paired
difference: closed form, stays within [-1, 1], near-nominal coverage also at small counts; McNemar 1947, exact
conditional test.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from s3ta.attack_config import entry_as_today
from s3ta.errors import UserError
from s3ta.records.ledger import manifest_differences
from s3ta.records.manifest import Manifest
from s3ta.records.metrics import Outcome, reduce_restarts

SIGNIFICANT = 0.05
"""Exact p-values below it are called so."""


class Interval(NamedTuple):
    """A confidence interval of a proportion (0 to 1) or of a difference of proportions (-1 to 1)."""

    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


class PairedCounts(NamedTuple):
    """On how many of the same examples something is true for model a, for model b, for both or for neither."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @classmethod
    def of(cls, of_a: np.ndarray, of_b: np.ndarray) -> PairedCounts:
        """Of two answers about each example, booleans (n,)."""
        return cls(*(int(x.sum()) for x in (of_a & of_b, of_a & ~of_b, ~of_a & of_b, ~of_a & ~of_b)))

    @property
    def total(self) -> int:
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """The proportion of a minus the proportion of b, -1 to 1."""
        return (self.only_a - self.only_b) / self.total

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the difference."""
        return paired_difference(self)

    @property
    def p_value(self) -> float:
        """Exact McNemar, two-sided."""
        return mcnemar(self.only_a, self.only_b)

    @property
    def winner(self) -> int:
        """1: clearly truer for a; -1: for b; 0: undecided. The one rule for all that is called different: the 95% interval
        excludes 0 and the exact p is below 0.05. Where examples that differ are few the two may disagree; then nobody wins."""
        if self.p_value >= SIGNIFICANT or not self.interval.excludes_zero:
            return 0
        return 1 if self.difference > 0 else -1


class Comparison(NamedTuple):
    """Two models under the same attack, targets and starts, at one read-out."""

    attack: str
    num_attack_steps: int
    num_restarts: int
    top1: PairedCounts
    success: PairedCounts | None
    """None where the attack has no target."""


def wilson(count: int, total: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for `count` out of `total`; never empty, never outside [0, 1].

    Raises ValueError where `total` is not positive, `count` not in 0..total, or `confidence` not in (0, 1)."""
    if not 0 <= count <= total or total < 1:
        raise ValueError(f"{count} of {total} is not a proportion")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    z, p = NormalDist().inv_cdf(0.5 + confidence / 2), count / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    # at the ends the bound is the observed proportion itself; rounding would leave it 1e-17 off
    return Interval(0.0 if count == 0 else centre - half, 1.0 if count == total else centre + half)


def finite_share(count: int, total: int, available: int) -> Interval:
    """The share of all `available` examples of which `count` out of `total`, drawn without replacement, are so: the exact
    (hypergeometric) 95% interval, which knows what was drawn and is a point where that was all.

    Raises ValueError where `total` is not in 1..available, or `count` not in 0..total."""
    if not 0 <= count <= total <= available or total < 1:
        raise ValueError(f"{count} of {total} of {available} is not a share")
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, available + 1)))])  # of factorials

    def tail(true_count: int, first: int, last: int) -> float:
        """The chance to draw from `first` to `last` where so many of all are so."""
        x = np.arange(max(first, total - (available - true_count), 0), min(last, true_count, total) + 1)
        ways = _log_choose(logs, true_count, x) + _log_choose(logs, available - true_count, total - x)
        return float(np.exp(ways - _log_choose(logs, available, total)).sum())

    lowest, highest = count, available - (total - count)
    low = bisect_left(range(lowest, highest), True, key=lambda k: tail(k, count, total) > 0.025)
    high = bisect_left(range(lowest + 1, highest + 1), True, key=lambda k: tail(k, 0, count) <= 0.025)
    return Interval((lowest + low) / available, (lowest + high) / available)


def _log_choose(logs: np.ndarray, n: Any, k: Any) -> Any:
    return logs[n] - logs[k] - logs[n - k]


def paired_difference(counts: PairedCounts) -> Interval:
    """Newcombe's square-and-add 95% interval for the difference of two paired proportions (method 10 of his 1998 paper).

    It joins the Wilson limits of each proportion, reduced by their correlation phi (whose numerator is continuity-corrected
    when positive, and 0 when a margin is empty). Raises ValueError without examples."""
    both, only_a, only_b, neither = counts
    total = counts.total
    of_a, of_b = wilson(both + only_a, total), wilson(both + only_b, total)
    p_a, p_b = (both + only_a) / total, (both + only_b) / total
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    product = both * neither - only_a * only_b
    corrected = max(product - total / 2, 0) if product > 0 else product
    phi = corrected / math.sqrt(margins) if margins else 0.0
    down = _square_and_add(p_a - of_a.low, of_b.high - p_b, phi)
    up = _square_and_add(of_a.high - p_a, p_b - of_b.low, phi)
    return Interval(max(counts.difference - down, -1.0), min(counts.difference + up, 1.0))


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that neither wins more of the examples on which they differ; 1 where they never differ."""
    total, fewer = only_a + only_b, min(only_a, only_b)
    term = tail = 1
    for drawn in range(fewer):
        term = term * (total - drawn) // (drawn + 1)
        tail += term
    return min(1.0, 2 * tail / 2**total)


def is_significantly_stronger(only_a: int, only_b: int, least: float, level: float) -> bool:
    """Whether what breaks `only_a` examples alone is clearly stronger than what breaks `only_b` alone: by more than `least`
    examples, and with an exact p below the level."""
    return only_a - only_b > least and mcnemar(only_a, only_b) < level


def compare_paired(
    table_a: pa.Table, manifest_a: Manifest, table_b: pa.Table, manifest_b: Manifest
) -> list[Comparison]:
    """Compare two models example by example, after the restarts are reduced (correct in all, hit in any; protocol E9).

    Gives one comparison per attack and read-out, clean first, in the order of `metrics.reduce_restarts`.

    Raises UserError where the two were not measured alike (protocol X35): data fingerprint, seed, attack settings, attacks,
    examples, labels, targets or number of restarts differ. The first difference is named."""
    refuse_different_settings(manifest_a, manifest_b)
    cascade = manifest_a.suite.cascade
    by_key_a, by_key_b = (
        {(outcome.attack, outcome.num_attack_steps): outcome for outcome in reduce_restarts(table, cascade=cascade)}
        for table in (table_a, table_b)
    )
    only_one = sorted(set(by_key_a) ^ set(by_key_b))
    if only_one:
        name, num_steps = only_one[0]
        raise _unlike(f"only one has records of attack '{name}' at {num_steps} steps")
    return [_compare(outcome, by_key_b[key]) for key, outcome in by_key_a.items()]


def refuse_different_settings(manifest_a: Manifest, manifest_b: Manifest) -> None:
    """Raise the UserError of `compare_paired` where the manifests alone already show that two evaluations are not alike."""

    def identity(manifest: Manifest) -> dict[str, Any]:
        data, suite = manifest.data, manifest.suite
        return {
            "data": {
                "fingerprint": data.fingerprint if data.content is None else data.content,
                "num_classes": manifest.model.num_classes,
                "classes": data.classes,
            },
            "seed": manifest.seed,
            "search": manifest.search.model_dump(),
            "budget": manifest.budget,
            "suite": {
                "cascade": suite.cascade,
                "images_from": suite.images_from and suite.images_from.model_dump(),
                "attacks": {attack.name: entry_as_today(attack.raw) for attack in suite.attacks},
            },
        }

    differences = list(manifest_differences(identity(manifest_a), identity(manifest_b)))
    if differences:
        listed = "; ".join(f"{where} is {a} in the first and {b} in the second" for where, a, b in differences)
        raise _unlike(f"{listed}. Evaluate both on the same data, with the same suite and seed")


def _compare(a: Outcome, b: Outcome) -> Comparison:
    where = f"under attack '{a.attack}' at {a.num_attack_steps} steps"
    if not np.array_equal(a.example_ids, b.example_ids):
        other = sorted(set(a.example_ids) ^ set(b.example_ids))
        raise _unlike(f"example '{other[0]}' is in only one of them {where} ({len(other)} such examples)")
    for what, of_a, of_b in (("label", a.labels, b.labels), ("target", a.targets, b.targets)):
        differ = np.flatnonzero(of_a != of_b)
        if differ.size:
            first = differ[0]
            raise _unlike(
                f"the {what} of example '{a.example_ids[first]}' is {of_a[first]} in the first and {of_b[first]} in the "
                f"second {where}"
            )
    if a.num_restarts != b.num_restarts:
        raise _unlike(f"{a.num_restarts} restarts in the first and {b.num_restarts} in the second {where}")
    success = PairedCounts.of(a.hit, b.hit) if a.targeted else None
    return Comparison(a.attack, a.num_attack_steps, a.num_restarts, PairedCounts.of(a.correct, b.correct), success)


def _square_and_add(left: float, right: float, phi: float) -> float:
    return math.sqrt(max(left * left - 2 * phi * left * right + right * right, 0.0))


def _unlike(reason: str) -> UserError:
    return UserError(f"The two evaluations cannot be compared: {reason}.")
