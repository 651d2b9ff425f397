"""One model measured twice: on another device, in another precision or micro-batch. How many answers changed?

for flip in compare_predictions(table_on_cpu, table_on_gpu):
    print(flip.attack, len(flip.flipped), "of", flip.num_common)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from s3ta.errors import UserError
from s3ta.records.proportion_statistics import Interval, wilson
from s3ta.records.schema import CLEAN, STATUS_RUN, filled

Key = tuple[str, int, int]
"""Attack, read-out, restart."""
Columns = dict[str, np.ndarray]

_COMPARED = ("label", "target", "prediction", "correct", "hit")


class PredictionFlips(NamedTuple):
    """Two measurements of one attack at one read-out and restart, example by example."""

    attack: str
    num_attack_steps: int
    restart: int
    num_common: int
    """Examples on which the attack ran in both."""
    num_predictions: int
    """On how many of them the prediction differs."""
    flipped: tuple[str, ...]
    """The ids of those that are right in only one: their verdict differs."""
    num_hits: int
    """How many are on target in only one."""
    largest_loss_difference: float
    """Nats; 0 where nothing is common."""
    unlike: tuple[str, ...]
    """The ids of those whose label or target differs: must be empty, else the two did not measure the same."""
    num_only_a: int
    """Examples that ran only in the first: missing in the second, or left out there by an earlier verdict or a budget."""
    num_only_b: int

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the share of verdicts that differ; None where nothing is common."""
        return wilson(len(self.flipped), self.num_common) if self.num_common else None


def compare_predictions(table_a: pa.Table, table_b: pa.Table) -> list[PredictionFlips]:
    """Compare record by record, matched by example, attack, restart and read-out.

    Gives one per attack, read-out and restart that ran in either: clean first, then in order of appearance, read-outs and
    restarts ascending. Raises UserError where an example is recorded twice."""
    of_a, of_b = _ran(table_a), _ran(table_b)
    names = list(dict.fromkeys(key[0] for key in (*of_a, *of_b)))
    keys = sorted({*of_a, *of_b}, key=lambda key: (key[0] != CLEAN, names.index(key[0]), *key[1:]))
    a, b = ({name: filled(table, name) for name in (*_COMPARED, "loss")} for table in (table_a, table_b))
    return [_compare(key, a, of_a.get(key, {}), b, of_b.get(key, {})) for key in keys]


def _ran(table: pa.Table) -> dict[Key, dict[str, int]]:
    """The rows of what ran, by example within each attack, read-out and restart."""
    columns = [table[name].to_pylist() for name in ("attack", "num_attack_steps", "restart", "example_id", "status")]
    rows_by_key: dict[Key, dict[str, int]] = {}
    for row, (attack, num_steps, restart, example_id, status) in enumerate(zip(*columns, strict=True)):
        if status == STATUS_RUN:
            rows = rows_by_key.setdefault((attack, num_steps, restart), {})
            if rows.setdefault(example_id, row) != row:
                raise UserError(
                    f"Example '{example_id}' is recorded twice under attack '{attack}' at {num_steps} steps."
                )
    return rows_by_key


def _compare(key: Key, a: Columns, of_a: dict[str, int], b: Columns, of_b: dict[str, int]) -> PredictionFlips:
    common = sorted(of_a.keys() & of_b.keys())
    rows_a, rows_b = (np.array([of[example_id] for example_id in common], dtype=int) for of in (of_a, of_b))
    differs = {name: a[name][rows_a] != b[name][rows_b] for name in _COMPARED}
    loss = np.abs(a["loss"][rows_a].astype(np.float64) - b["loss"][rows_b])
    ids = np.array(common, dtype=object)
    return PredictionFlips(
        *key,
        num_common=len(common),
        num_predictions=int(differs["prediction"].sum()),
        flipped=tuple(ids[differs["correct"]]),
        num_hits=int(differs["hit"].sum()),
        largest_loss_difference=float(loss.max(initial=0)),
        unlike=tuple(ids[differs["label"] | differs["target"]]),
        num_only_a=len(of_a.keys() - of_b.keys()),
        num_only_b=len(of_b.keys() - of_a.keys()),
    )
