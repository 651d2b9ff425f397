"""One model measured twice: what differs, counted against what was changed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from s3ta.errors import UserError
from s3ta.records import compare_predictions, to_table, wilson

from .hand_made import join, not_run, rows

LABELS, TARGETS = np.arange(7) % 5, (np.arange(7) + 2) % 5


def measured():
    return [
        rows("pgd", LABELS, LABELS, num_steps=5),
        rows("clean", LABELS, LABELS),
        rows("aimed", TARGETS, LABELS, TARGETS, restart=0),
        rows("aimed", LABELS, LABELS, TARGETS, restart=1),
        rows("pgd", LABELS, LABELS, num_steps=2),
    ]


def test_a_measurement_does_not_differ_from_itself_in_any_order():
    table = to_table(join(*measured()))
    found = compare_predictions(table, table.take(np.random.default_rng(1).permutation(table.num_rows)))
    keys = [(flip.attack, flip.num_attack_steps, flip.restart) for flip in found]
    assert keys == [("clean", 0, 0), ("pgd", 2, 0), ("pgd", 5, 0), ("aimed", 5, 0), ("aimed", 5, 1)]
    for flip in found:
        assert flip[3:] == (7, 0, (), 0, 0.0, (), 0, 0)
        assert flip.interval == wilson(0, 7)


def test_every_kind_of_difference_is_counted_where_it_is():
    first, second = measured(), measured()
    pgd, aimed = second[0], second[2]
    pgd["prediction"] = np.where(np.isin(np.arange(7), [1, 4]), (LABELS + 1) % 5, LABELS)  # two verdicts
    pgd["correct"] = pgd["prediction"] == LABELS
    pgd["loss"] = pgd["loss"] + np.float32(0.25) * (np.arange(7) == 3)
    aimed["prediction"] = np.where(np.arange(7) < 3, (LABELS + 1) % 5, TARGETS)  # wrong before and after, hit no more
    aimed["hit"] = aimed["prediction"] == TARGETS
    _, of_2, of_5, aimed_0, _ = compare_predictions(to_table(join(*first)), to_table(join(*second)))
    assert of_2.num_predictions == 0
    assert (of_5.num_predictions, of_5.flipped, of_5.num_hits) == (2, ("ex-1", "ex-4"), 0)
    assert of_5.largest_loss_difference == pytest.approx(0.25, abs=1e-6)
    assert of_5.interval == wilson(2, 7)
    assert (aimed_0.num_predictions, aimed_0.flipped, aimed_0.num_hits) == (3, (), 3)


def test_what_ran_in_one_only_is_no_common_record():
    first = to_table(join(rows("pgd", LABELS, LABELS), rows("only", [1], [1])))
    second = to_table(join(rows("pgd", LABELS[:4], LABELS[:4]), not_run("pgd", LABELS[4:6], first=4)))
    pgd, only = compare_predictions(first, second)
    assert (pgd.num_common, pgd.num_only_a, pgd.num_only_b) == (4, 3, 0)
    assert (only.num_common, only.num_only_a, only.interval, only.largest_loss_difference) == (0, 1, None, 0)
    assert [(flip.num_only_a, flip.num_only_b) for flip in compare_predictions(second, first)] == [(0, 3), (0, 1)]


def test_other_labels_or_targets_are_named():
    def table(labels, targets):
        return to_table(rows("aimed", [4] * 3, labels, targets))

    (flip,) = compare_predictions(table([0, 1, 2], [3, 3, 3]), table([0, 2, 2], [3, 3, 1]))
    assert flip.unlike == ("ex-1", "ex-2")


def test_a_duplicate_record_is_refused():
    table = to_table(join(rows("pgd", LABELS, LABELS), rows("pgd", LABELS[:1], LABELS[:1])))
    with pytest.raises(UserError, match="'ex-0' is recorded twice under attack 'pgd'"):
        compare_predictions(table, table)
