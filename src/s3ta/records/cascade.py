"""A cascade stage by stage: what each attack broke among the images that all before it left right."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from s3ta.records.metrics import Score, count_outcomes, reduce_restarts
from s3ta.records.schema import STATUS_RUN, filled


class CascadeStage(NamedTuple):
    """One attack of a cascade; the clean images come first, as an attack that breaks what is wrong anyway."""

    score: Score
    """Of this attack and all before it together."""
    num_left: int
    """Images that everything before left right, of those that this attack has met."""
    num_broken: int
    """How many of them are wrong after it."""
    ran: bool
    """Whether it was run on any image, or none was left for it; False: a budget left it out wholly."""
    whole: bool
    """Whether all images have met it; False only at the end of an unfinished evaluation."""


def cascade_stages(table: pa.Table) -> list[CascadeStage]:
    """Clean, then each attack in order. Errors as of `s3ta.records.reduce_restarts`."""
    result = []
    reduced = reduce_restarts(table, cascade=True)
    num_examples = len(table["example_id"].unique())
    ran = set(filled(table, "attack")[filled(table, "status") == STATUS_RUN])
    for before, outcome, score in zip([None, *reduced], reduced, count_outcomes(reduced), strict=False):
        num_left = score.num_examples
        if before is not None:
            num_left = int(before.only(outcome.example_ids).correct.sum())
        did_run = outcome.attack in ran or not num_left
        whole = score.num_examples == num_examples
        result.append(CascadeStage(score, num_left, num_left - score.num_correct, did_run, whole))
    return result
