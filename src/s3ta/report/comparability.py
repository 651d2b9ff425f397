"""Which runs may be compared, and on which attacks.

Runs that were not measured alike are refused (protocol X35), but for one case: attacks on glimpses that one model has none
of. Both are then shown, and compared where they met the same attacks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, takewhile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from s3ta.errors import UserError
from s3ta.records import CLEAN, Comparison, compare_paired, refuse_different_settings
from s3ta.records.manifest import Manifest
from s3ta.report.load_runs import Run, cascading


class PairOfRuns(NamedTuple):
    """Two runs and their comparisons, one per attack and read-out."""

    a: Run
    b: Run
    comparisons: list[Comparison]


def refuse_unlike(runs: Sequence[Run]) -> None:
    """Raise a UserError that names the first two runs that may not stand side by side, and why."""
    for a, b in combinations(runs, 2):
        refuse_different_settings(_with_attacks(a, _fitting(a, b)), _with_attacks(b, _fitting(b, a)))
        _refuse_other_files(a, b)


def _refuse_other_files(a: Run, b: Run) -> None:
    """Image files of the same names and sizes that were repaired in between; older evaluations do not say what theirs held."""
    hashes = [run.manifest.informative.files.sha256 for run in (a, b)]
    same_examples = a.manifest.data.examples == b.manifest.data.examples
    if same_examples and None not in hashes and hashes[0] != hashes[1]:
        raise UserError(
            f"{a.label} and {b.label} cannot be compared: their image files have the same names and sizes but hold other "
            "images (files.csv in each folder says which). Evaluate one of them again on the other's files."
        )


def compare(runs: Sequence[Run]) -> list[PairOfRuns]:
    """Every pair of runs, on the attacks that both met. Raises UserError where two were not measured alike."""
    refuse_unlike(runs)
    couples = []
    for a, b in combinations(runs, 2):
        shared = shared_attacks(a, b)
        a_side, b_side = ((_with_records(run.table, shared), _with_attacks(run, shared)) for run in (a, b))
        couples.append(PairOfRuns(a, b, compare_paired(*a_side, *b_side)))
    return couples


def shared_attacks(a: Run, b: Run) -> list[str]:
    """The attacks that both met; of a cascade those before the first that only one of them met, for a worst case over
    other attacks is another measure."""
    if not cascading([a, b]):
        return [name for name in a.attacks if name in b.attacks]
    pairs = zip(a.attacks, b.attacks, strict=False)
    return [name for name, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def unshared(runs: Sequence[Run]) -> str:
    """One sentence on the attacks that only some of the models could be given; empty where there are none."""
    left_out = {run.label: {*map(_stem, run.manifest.suite.left_out)} for run in runs}
    names = set().union(*left_out.values())
    met = list(dict.fromkeys(name for run in runs for name in run.attacks if _stem(name) in names))
    if not met:
        return ""
    without = [label for label, listed in left_out.items() if listed]
    takes = "takes" if len(without) == 1 else "take"
    return f"{' and '.join(without)} {takes} no glimpses and could not be given {', '.join(met)}."


def _fitting(run: Run, other: Run) -> list[str]:
    """The attacks of a run that the other one did not have to leave out."""
    left_out = {*map(_stem, other.manifest.suite.left_out)}
    return [name for name in run.attacks if _stem(name) not in left_out]


def _stem(name: str) -> str:
    """A name without its number of steps, which a changed suite may have replaced."""
    return re.sub(r"-\d+$", "", name)


def _with_attacks(run: Run, names: Sequence[str]) -> Manifest:
    suite = run.manifest.suite.model_copy(update={"attacks": [run.attacks[name] for name in names]})
    return run.manifest.model_copy(update={"suite": suite})


def _with_records(table: pa.Table, names: Sequence[str]) -> pa.Table:
    return table.filter(pc.field("attack").isin([CLEAN, *names]))
