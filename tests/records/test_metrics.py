"""Top-1 and success as the paper counts them: all examples, all restarts (protocol E2, E9; traps X15, X16, X36)."""

from __future__ import annotations

import numpy as np
import pytest

from s3ta.errors import UserError
from s3ta.records import nested_scores, outcomes, scores, to_table

from .hand_made import join, rows

LABELS = [0, 1, 2, 3, 4, 5, 6]
TARGETS = [1, 2, 3, 4, 5, 6, 7]


def by_key(found):
    return {(score.attack, score.num_attack_steps): score for score in found}


def test_hand_made_predictions_over_all_examples():
    """X16: success is never conditioned on the clean prediction; `clean_is_target` is told beside it."""
    clean = [0, 1, 2, 9, 5, 6, 9]  # three right; examples 4 and 5 are already the target
    attacked = [0, 2, 3, 4, 5, 9, 9]  # one right; examples 1, 2, 3 (clean wrong) and 4 (clean is the target) hit
    table = to_table(join(rows("targeted", attacked, LABELS, TARGETS), rows("clean", clean, LABELS)))
    found = by_key(scores(table))
    clean_score, score = found["clean", 0], found["targeted", 5]
    assert (clean_score.num_correct, clean_score.num_hits, clean_score.num_clean_is_target) == (3, None, None)
    assert (score.num_examples, score.num_correct, score.num_hits, score.num_clean_is_target) == (7, 1, 4, 2)
    assert score.top1 == 1 / 7
    assert score.success == 4 / 7


def test_clean_comes_first_then_read_outs_ascend():
    table = to_table(join(rows("b", LABELS, LABELS, num_steps=20), rows("b", LABELS, LABELS, num_steps=3),
                          rows("a", LABELS, LABELS), rows("clean", LABELS, LABELS)))  # fmt: skip
    assert list(by_key(scores(table))) == [("clean", 0), ("b", 3), ("b", 20), ("a", 5)]


def test_two_restarts_each_fooling_the_other_half_leave_nothing_correct():
    """X15: ten images, each fooled by exactly one of two restarts -> top-1 is 0, neither the mean nor the best
    batch."""
    labels = np.zeros(10, int)
    first = np.where(np.arange(10) < 5, 3, 0)
    table = to_table(join(rows("r", first, labels), rows("r", 3 - first, labels, restart=1)))
    (score,) = scores(table)
    assert (score.num_restarts, score.num_examples, score.num_correct) == (2, 10, 0)
    assert [nested.num_correct for nested in nested_scores(table)] == [5, 0]


def test_any_restart_hits_and_counts_are_nested():
    parts = [rows("t", [TARGETS[i] if i == restart else LABELS[i] for i in range(7)], LABELS, TARGETS, restart=restart)
             for restart in range(3)]  # fmt: skip
    table = to_table(join(*parts[::-1]))
    nested = nested_scores(table, (1, 2, 10, 100))
    assert [(score.num_restarts, score.num_correct, score.num_hits) for score in nested] == [
        (1, 6, 1),
        (2, 5, 2),
        (3, 4, 3),
    ]


@pytest.mark.parametrize(("column", "value"), [("target", [9] * 7), ("label", [8] * 7)])
def test_a_target_or_label_redrawn_between_restarts_is_refused(column, value):
    """X15: identical targets over restarts."""
    second = rows(
        "t", [10] * 7, value if column == "label" else LABELS, value if column == "target" else TARGETS, restart=1
    )
    with pytest.raises(UserError, match=f"The {column} of example 'ex-0' changes"):
        scores(to_table(join(rows("t", [10] * 7, LABELS, TARGETS), second)))


def test_doubled_uneven_and_half_targeted_records_are_refused():
    one = rows("t", LABELS, LABELS, TARGETS)
    with pytest.raises(UserError, match="recorded twice"):
        scores(to_table(join(one, one)))
    (begun,) = scores(to_table(join(one, rows("t", LABELS[:3], LABELS[:3], TARGETS[:3], restart=1))))
    assert (begun.num_restarts, begun.num_examples) == (1, 7), "a restart that some examples lack does not count yet"
    with pytest.raises(UserError, match="have a target and others none"):
        scores(to_table(rows("t", LABELS, LABELS, [*TARGETS[:6], -1])))


def test_row_order_does_not_matter():
    table = to_table(
        join(
            *(rows("t", [(i + restart) % 8 for i in LABELS], LABELS, TARGETS, restart=restart) for restart in range(3))
        )
    )
    shuffled = table.take(np.random.default_rng(5).permutation(table.num_rows))
    assert scores(shuffled) == scores(table)
    (a,), (b,) = outcomes(table), outcomes(shuffled)
    assert a.example_ids.tolist() == b.example_ids.tolist() == sorted(a.example_ids)
    assert (a.prediction == b.prediction).all()


def test_clean_is_target_is_unknown_without_clean_records():
    assert scores(to_table(rows("t", LABELS, LABELS, TARGETS)))[0].num_clean_is_target is None
