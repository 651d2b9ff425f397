"""What the records of an evaluation say about the evaluation itself: structured warnings, each with its evidence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from s3ta.finding import Check, Finding, ask_all, worst_first
from s3ta.records import (
    checks_chance_and_sample_size,
    checks_gradient_masking,
    checks_perturbation_size,
    checks_strength,
    checks_weaker_than_short_pgd,
)
from s3ta.records.ledger import is_tiny_suite
from s3ta.records.manifest import Manifest
from s3ta.records.metrics import Outcome, reduce_restarts
from s3ta.records.schema import CLEAN, STATUS_OVER_BUDGET


def check_records(table: pa.Table, manifest: Manifest, probes: Sequence[Finding] = ()) -> list[Finding]:
    """Everything that the records show, worst first; also what was checked and found in order, and what could not be.

    `probes`: what small experiments on the model found, whose images the suite is compared on.
    Errors as of `reduce_restarts`."""
    suite = manifest.suite
    reduced = reduce_restarts(table, cascade=suite.cascade)
    last = {outcome.attack: outcome for outcome in reduced}
    num_examples = len(last[CLEAN].correct) if CLEAN in last else len(table["example_id"].unique())
    masked = checks_gradient_masking.masked_in_cascade if suite.cascade else checks_gradient_masking.masked_gradients
    questions: dict[str, Callable[[], Finding | list[Finding]]] = {
        "trial": lambda: _trial(suite.name),
        "incomplete": lambda: _cut(table, last),
        "ball": lambda: checks_perturbation_size.ball_respected(table, suite),
        "clean accuracy": lambda: checks_chance_and_sample_size.above_chance(reduced, manifest),
        "gradient masking": lambda: masked(last, suite.attacks_by_name),
        "settings": lambda: checks_perturbation_size.check_attack_settings(manifest),
        "short steps": lambda: checks_perturbation_size.ball_used(table, suite),
        "weaker than checks": lambda: checks_weaker_than_short_pgd.weaker_than_checks(reduced, suite, probes),
        "converged": lambda: checks_strength.converged(reduced),
        "more steps help": lambda: checks_strength.more_steps_help(reduced, suite),
        "restarts": lambda: checks_strength.restarts_matter(table, suite, num_examples),
        "weak attack": lambda: checks_strength.worst_case(suite),
        "fewer attacks": lambda: _left_out(suite.left_out),
        "subset": lambda: checks_chance_and_sample_size.subset_of_all(reduced, manifest),
    }
    return worst_first(ask_all(questions))


def _cut(table: pa.Table, last: dict[str, Outcome]) -> list[Finding]:
    cut = dict(Counter(table.filter(pc.field("status") == STATUS_OVER_BUDGET)["attack"].to_pylist()))
    if not cut:
        return []
    without = [name for name in cut if name not in last and name != CLEAN]
    sentence = (
        f"The budget left out {', '.join(f'{count} records of {name!r}' for name, count in cut.items())}: what was not run "
        "was not counted as broken, so every top-1 after it is an upper bound, and every success a lower one"
    )
    if without:
        sentence += f"; {', '.join(map(repr, without))} {'has' if len(without) == 1 else 'have'} no number at all"
    advice = "Evaluate again without --max-passes, or with a larger one, for a number to quote."
    return [Check("incomplete").warning(sentence + ".", {"num_left_out": cut, "without_number": without}, advice)]


def _left_out(names: list[str]) -> list[Finding]:
    if not names:
        return []
    sentence = f"Left out, for they do not fit the model or a changed setting: {', '.join(names)}."
    advice = "Beside a model that met them, this one met fewer attacks: compare attack by attack."
    return [Check("fewer attacks").note(sentence, {"left_out": names}, advice)]


def _trial(suite: str) -> list[Finding]:
    if not is_tiny_suite(suite):
        return []
    sentence = "This was a trial run (--tiny): its numbers mean nothing."
    return [Check("trial").warning(sentence, {"suite": suite}, "Evaluate again without --tiny.")]
