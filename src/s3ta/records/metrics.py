"""From records to counts: top-1 and attack success, over all examples and over restarts.

Definitions (protocol E2, E9; the paper's, appendix C.1): top-1 is the share of *all* examples that are classified as
their label; attack success the share of *all* examples that are classified as the target. Nothing is conditioned on
the clean prediction. Over restarts an example is correct only if it is correct in every one, and hit if any one hits.
A restart that was not run, because nothing could change the verdict any more, takes no part.

In a *cascade* (worst case over attacks) each attack meets only the examples that all before it left correct. Its outcome
is then that of all attacks up to it together: correct means correct on the clean image and after each of them.

`reduce_restarts` reduces the restarts and keeps the examples (`intervals.compare_paired` pairs them); `count_scores` counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from s3ta.errors import UserError
from s3ta.records.schema import CLEAN, NO_TARGET, SCHEMA, STATUS_OVER_BUDGET, STATUS_RUN, filled


class Score(NamedTuple):
    """The counts of one attack at one read-out. Always show top-1 and success together (X36)."""

    attack: str
    num_attack_steps: int
    """The read-out; 0 for clean images."""
    num_restarts: int
    num_examples: int
    """All examples, whatever their clean prediction: the denominator of every rate."""
    num_correct: int
    """Examples classified as their label after every restart."""
    num_hits: int | None
    """Examples classified as their target after any restart; None where the attack has no target."""
    num_clean_is_target: int | None
    """Examples whose *clean* image is already classified as the target (X16: counted, never removed); None: unknown."""
    max_distance: float
    """The largest distance to a clean image, in the norm of the attack."""
    mean_gradients: float
    """Gradient evaluations per example, over all restarts; in a cascade over all attacks up to this one."""
    mean_forwards: float
    """Forward evaluations likewise, those of the gradients among them."""
    num_cut: int = 0
    """Correct examples that a budget kept from being attacked to the end: top-1 is then an upper bound."""
    num_cut_misses: int = 0
    """Examples not on target that it kept so: success is then a lower bound."""

    @property
    def top1(self) -> float:
        return self.num_correct / self.num_examples

    @property
    def success(self) -> float | None:
        return None if self.num_hits is None else self.num_hits / self.num_examples


@dataclass(frozen=True, eq=False)
class Outcome:
    """The verdict on each example under one attack at one read-out, after restarts are reduced; arrays of one length."""

    attack: str
    num_attack_steps: int
    num_restarts: int
    example_ids: np.ndarray
    """Texts, ascending."""
    labels: np.ndarray
    targets: np.ndarray
    """-1: none."""
    correct: np.ndarray
    """In all restarts."""
    hit: np.ndarray
    """In any restart."""
    prediction: np.ndarray
    """After the first restart; what a clean record says."""
    max_distance: float
    measured: np.ndarray
    """Whether the attack ran at least once, or, in a cascade, whether the verdict is known without it."""
    cut: np.ndarray
    """Whether a budget left something out."""
    num_gradients: np.ndarray
    num_forwards: np.ndarray

    @property
    def targeted(self) -> bool:
        return bool((self.targets >= 0).all())

    def only(self, example_ids: Iterable[str]) -> Outcome:
        """Of those of its examples that are among these. A set finds them: `np.isin` compares every text with every other."""
        known = set(example_ids)
        kept = np.array([example_id in known for example_id in self.example_ids], dtype=bool)
        arrays = {name: values[kept] for name, values in vars(self).items() if isinstance(values, np.ndarray)}
        return replace(self, **arrays)


def reduce_restarts(table: pa.Table, *, num_restarts: int | None = None, cascade: bool = False) -> list[Outcome]:
    """Reduce the restarts of each attack and read-out; clean first, then in order of appearance, fewest steps first.

    An attack that a budget kept from some examples altogether has no outcome and is left out.

    Args:
      table: records as of `Ledger.table`.
      num_restarts: only the first so many restarts (restart < num_restarts); None takes all that every example has, from
        the first on without a gap. Attacks with fewer keep theirs.
      cascade: whether the suite was one (manifest: `suite.cascade`).

    Raises:
      UserError: an example's label or target changes between restarts (E9, X15), or an example is recorded twice."""
    if num_restarts is not None and num_restarts < 1:
        raise ValueError(f"num_restarts is {num_restarts}, not at least 1")
    columns = {field.name: filled(table, field.name) for field in SCHEMA if not pa.types.is_string(field.type)}
    attacks, statuses = filled(table, "attack"), filled(table, "status")
    columns |= {"ran": statuses == STATUS_RUN, "cut": statuses == STATUS_OVER_BUDGET}
    example = table["example_id"].combine_chunks().dictionary_encode()
    ids, order = np.unique(example.dictionary.to_numpy(zero_copy_only=False), return_inverse=True)
    columns["example"] = order[example.indices.to_numpy()]
    reduced = []
    for name in sorted(table["attack"].unique().to_pylist(), key=lambda name: name != CLEAN):
        of_attack = attacks == name
        for num_steps in np.unique(columns["num_attack_steps"][of_attack]):
            rows = np.flatnonzero(of_attack & (columns["num_attack_steps"] == num_steps))
            restarts, examples = columns["restart"][rows], columns["example"][rows]
            leading = _leading_restarts(restarts, examples, len(ids))
            begun = leading[examples] > 0  # of an evaluation that lacks a chunk, some have only later restarts
            if not begun.any():
                continue
            common = int(leading[examples[begun]].min())
            limit = common if num_restarts is None else min(num_restarts, common)
            rows = rows[begun & (restarts < limit)]
            kept = {column: values[rows] for column, values in columns.items()}
            reduced.append(_reduce(name, int(num_steps), kept, ids))
    return _together(reduced) if cascade else [outcome for outcome in reduced if outcome.measured.all()]


def count_scores(table: pa.Table, *, num_restarts: int | None = None, cascade: bool = False) -> list[Score]:
    """Count `reduce_restarts`: one score per attack and read-out. Arguments and errors as there."""
    return count_outcomes(reduce_restarts(table, num_restarts=num_restarts, cascade=cascade))


def count_outcomes(reduced: Sequence[Outcome]) -> list[Score]:
    """The scores of what `reduce_restarts` gave, one each."""
    clean = next((outcome for outcome in reduced if outcome.attack == CLEAN), None)
    return [_count(outcome, clean) for outcome in reduced]


def scores_by_restarts(table: pa.Table, counts: Sequence[int] = (1, 10, 100)) -> list[Score]:
    """Scores over the first 1, 10, 100 restarts of the same run (the paper's table 5), as far as there are so many.

    The counts are nested: more restarts can only lower top-1 and raise success. The number run is always included, of each
    attack its own."""
    available = int(table["restart"].to_numpy().max()) + 1
    nested = {
        (score.attack != CLEAN, score.attack, score.num_attack_steps, score.num_restarts): score
        for count in sorted({count for count in counts if count < available} | {available})
        for score in count_scores(table, num_restarts=count)
    }
    return [nested[key] for key in sorted(nested)]


def _together(reduced: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of a cascade: each with everything before it, on the examples that are recorded in all of it.

    It ends where nothing is known of an attack before: then examples have left that none of the recorded attacks broke."""
    total = [outcome for outcome in reduced[:1] if outcome.attack == CLEAN]
    for outcome in reduced[1:] if total else ():
        before = total[-1]
        outcome = outcome.only(before.example_ids)
        rows = np.searchsorted(before.example_ids, outcome.example_ids)  # all of them are there
        unexplained = before.correct[rows] & ~outcome.measured & ~outcome.cut
        if unexplained.any() or not len(rows):
            break
        correct = before.correct[rows] & (outcome.correct | ~outcome.measured)
        total.append(
            replace(
                outcome,
                targets=np.full_like(outcome.targets, NO_TARGET),
                correct=correct,
                hit=np.zeros_like(outcome.hit),
                measured=np.ones_like(outcome.measured),
                cut=correct & (before.cut[rows] | outcome.cut),
                num_gradients=before.num_gradients[rows] + outcome.num_gradients,
                num_forwards=before.num_forwards[rows] + outcome.num_forwards,
            )
        )
    return total


def _leading_restarts(restarts: np.ndarray, examples: np.ndarray, num_examples: int) -> np.ndarray:
    """How many restarts of each example are recorded without a gap from the first on; the last one may be only begun."""
    there = np.zeros((num_examples, int(restarts.max()) + 1), bool)
    there[examples, restarts] = True
    return np.logical_and.accumulate(there, axis=1).sum(axis=1)


def _reduce(attack: str, num_steps: int, rows: dict[str, np.ndarray], ids: np.ndarray) -> Outcome:
    where = f"attack '{attack}' at {num_steps} steps"
    order = np.lexsort((rows["restart"], rows["example"]))
    rows = {name: values[order] for name, values in rows.items()}
    codes, counts = np.unique(rows["example"], return_counts=True)
    num_restarts = int(counts.max())
    uneven = np.flatnonzero(counts != num_restarts)
    if uneven.size:
        raise UserError(
            f"The records of {where} are uneven: example '{ids[codes[uneven[0]]]}' has {counts[uneven[0]]} restarts "
            f"and another has {num_restarts}."
        )
    by_restart = {name: values.reshape(len(codes), num_restarts) for name, values in rows.items()}
    misfit = np.flatnonzero((by_restart["restart"] != np.arange(num_restarts)).any(axis=1))
    if misfit.size:
        raise UserError(f"Example '{ids[codes[misfit[0]]]}' is recorded twice, or lacks a restart, under {where}.")
    for name in ("label", "target"):
        changed = np.flatnonzero((by_restart[name] != by_restart[name][:, :1]).any(axis=1))
        if changed.size:
            raise UserError(
                f"The {name} of example '{ids[codes[changed[0]]]}' changes between restarts of {where}: "
                "restarts cannot be counted together."
            )
    targets = by_restart["target"][:, 0]
    if (targets >= 0).any() != (targets >= 0).all():
        raise UserError(f"Some examples of {where} have a target and others none.")
    return Outcome(
        attack=attack,
        num_attack_steps=num_steps,
        num_restarts=num_restarts,
        example_ids=ids[codes],
        labels=by_restart["label"][:, 0],
        targets=targets,
        correct=np.asarray((by_restart["correct"] | ~by_restart["ran"]).all(axis=1)),
        hit=np.asarray(by_restart["hit"].any(axis=1)),
        prediction=by_restart["prediction"][:, 0],
        max_distance=float(rows["distance"].max()),
        measured=np.asarray(by_restart["ran"].any(axis=1)),
        cut=np.asarray(by_restart["cut"].any(axis=1)),
        num_gradients=by_restart["num_gradients"].sum(axis=1, dtype=np.int64),
        num_forwards=by_restart["num_forwards"].sum(axis=1, dtype=np.int64),
    )


def _count(outcome: Outcome, clean: Outcome | None) -> Score:
    clean_is_target = None
    if outcome.targeted and clean is not None and {*outcome.example_ids} <= {*clean.example_ids}:
        predictions = clean.prediction[np.searchsorted(clean.example_ids, outcome.example_ids)]
        clean_is_target = int((predictions == outcome.targets).sum())
    return Score(
        attack=outcome.attack,
        num_attack_steps=outcome.num_attack_steps,
        num_restarts=outcome.num_restarts,
        num_examples=len(outcome.example_ids),
        num_correct=int(outcome.correct.sum()),
        num_hits=int(outcome.hit.sum()) if outcome.targeted else None,
        num_clean_is_target=clean_is_target,
        max_distance=outcome.max_distance,
        mean_gradients=float(outcome.num_gradients.mean()),
        mean_forwards=float(outcome.num_forwards.mean()),
        num_cut=int((outcome.cut & outcome.correct).sum()),
        num_cut_misses=int((outcome.cut & ~outcome.hit).sum()) if outcome.targeted else 0,
    )
