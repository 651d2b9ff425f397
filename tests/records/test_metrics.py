"""Top-1 and success as the paper counts them: all examples, all restarts (protocol E2, E9; traps X15, X16, X36)."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ta.errors import UserError
from s3ta.records import count_scores, reduce_restarts, scores_by_restarts, to_table

from .hand_made import join, not_run, rows

LABELS = [0, 1, 2, 3, 4, 5, 6]
TARGETS = [1, 2, 3, 4, 5, 6, 7]


def by_key(found):
    return {(score.attack, score.num_attack_steps): score for score in found}


def test_hand_made_predictions_over_all_examples():
    """X16: success is never conditioned on the clean prediction; `clean_is_target` is told beside it."""
    clean = [0, 1, 2, 9, 5, 6, 9]  # three right; examples 4 and 5 are already the target
    attacked = [0, 2, 3, 4, 5, 9, 9]  # one right; examples 1, 2, 3 (clean wrong) and 4 (clean is the target) hit
    table = to_table(join(rows("targeted", attacked, LABELS, TARGETS), rows("clean", clean, LABELS)))
    found = by_key(count_scores(table))
    clean_score, score = found["clean", 0], found["targeted", 5]
    assert (clean_score.num_correct, clean_score.num_hits, clean_score.num_clean_is_target) == (3, None, None)
    assert (score.num_examples, score.num_correct, score.num_hits, score.num_clean_is_target) == (7, 1, 4, 2)
    assert score.top1 == 1 / 7
    assert score.success == 4 / 7


def test_clean_comes_first_then_read_outs_ascend():
    table = to_table(join(rows("b", LABELS, LABELS, num_steps=20), rows("b", LABELS, LABELS, num_steps=3),
                          rows("a", LABELS, LABELS), rows("clean", LABELS, LABELS)))  # fmt: skip
    assert list(by_key(count_scores(table))) == [("clean", 0), ("b", 3), ("b", 20), ("a", 5)]


def test_two_restarts_each_fooling_the_other_half_leave_nothing_correct():
    """X15: ten images, each fooled by exactly one of two restarts -> top-1 is 0, neither the mean nor the best
    batch."""
    labels = np.zeros(10, int)
    first = np.where(np.arange(10) < 5, 3, 0)
    table = to_table(join(rows("r", first, labels), rows("r", 3 - first, labels, restart=1)))
    (score,) = count_scores(table)
    assert (score.num_restarts, score.num_examples, score.num_correct) == (2, 10, 0)
    assert [nested.num_correct for nested in scores_by_restarts(table)] == [5, 0]


def test_any_restart_hits_and_counts_are_nested():
    parts = [rows("t", [TARGETS[i] if i == restart else LABELS[i] for i in range(7)], LABELS, TARGETS, restart=restart)
             for restart in range(3)]  # fmt: skip
    table = to_table(join(*parts[::-1]))
    nested = scores_by_restarts(table, (1, 2, 10, 100))
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
        count_scores(to_table(join(rows("t", [10] * 7, LABELS, TARGETS), second)))


def test_doubled_uneven_and_half_targeted_records_are_refused():
    one = rows("t", LABELS, LABELS, TARGETS)
    with pytest.raises(UserError, match="recorded twice"):
        count_scores(to_table(join(one, one)))
    (begun,) = count_scores(to_table(join(one, rows("t", LABELS[:3], LABELS[:3], TARGETS[:3], restart=1))))
    assert (begun.num_restarts, begun.num_examples) == (1, 7), "a restart that some examples lack does not count yet"
    with pytest.raises(UserError, match="have a target and others none"):
        count_scores(to_table(rows("t", LABELS, LABELS, [*TARGETS[:6], -1])))


def test_row_order_does_not_matter():
    table = to_table(
        join(
            *(rows("t", [(i + restart) % 8 for i in LABELS], LABELS, TARGETS, restart=restart) for restart in range(3))
        )
    )
    shuffled = table.take(np.random.default_rng(5).permutation(table.num_rows))
    assert count_scores(shuffled) == count_scores(table)
    (a,), (b,) = reduce_restarts(table), reduce_restarts(shuffled)
    assert a.example_ids.tolist() == b.example_ids.tolist() == sorted(a.example_ids)
    assert (a.prediction == b.prediction).all()


def test_clean_is_target_is_unknown_without_clean_records():
    assert count_scores(to_table(rows("t", LABELS, LABELS, TARGETS)))[0].num_clean_is_target is None


ANSWERS = st.lists(st.integers(0, 2), min_size=3 * 2 * 5, max_size=3 * 2 * 5)
"""Classes that three restarts, two read-outs and five examples end in; the label is 0, the target 1."""


def of_restarts(answers: np.ndarray, targets, left=None):
    """A table of one attack; where `left` (restart, example) is true the record says settled."""
    parts = []
    for restart in range(3):
        for place, steps in enumerate((2, 5)):
            for i in range(5):
                target = None if targets is None else targets[i : i + 1]
                where = {"restart": restart, "num_steps": steps, "first": i}
                gone = left is not None and left[restart, i]
                parts.append(
                    not_run("a", [0], target, **where)
                    if gone
                    else rows("a", [answers[restart, place, i]], [0], target, **where)
                )
    return to_table(join(*parts))


@given(ANSWERS, st.booleans())
def test_settled_records_change_no_verdict(drawn, is_targeted):
    """The rule by which examples leave, written out here: done in one restart at every read-out -> no further restart."""
    answers, targets = np.array(drawn).reshape(3, 2, 5), np.ones(5, int) if is_targeted else None
    done = (answers == 1).all(axis=1) if is_targeted else (answers != 0).all(axis=1)  # restart, example
    left = np.zeros_like(done)
    left[1:] = np.logical_or.accumulate(done, axis=0)[:-1]
    full, part = of_restarts(answers, targets), of_restarts(answers, targets, left)
    for count in (None, 1, 2):
        for whole, early in zip(
            reduce_restarts(full, num_restarts=count), reduce_restarts(part, num_restarts=count), strict=True
        ):
            for name in ("example_ids", "labels", "targets", "correct", "hit", "prediction", "measured", "cut"):
                assert np.array_equal(getattr(whole, name), getattr(early, name)), name
            assert (whole.num_attack_steps, whole.num_restarts) == (early.num_attack_steps, early.num_restarts)
            place, among = (2, 5).index(whole.num_attack_steps), answers[: count or 3]
            assert whole.correct.tolist() == (among[:, place] == 0).all(axis=0).tolist()
            assert whole.hit.tolist() == [bool(hit) and is_targeted for hit in (among[:, place] == 1).any(axis=0)]
            ran = (~left[: count or 3]).sum(axis=0)
            assert early.num_gradients.tolist() == (whole.num_attack_steps * ran).tolist(), (
                "what did not run cost nothing"
            )
    told = lambda table: [score[:7] for score in scores_by_restarts(table, (1, 2))]  # noqa: E731
    assert told(full) == told(part)


@given(st.lists(st.integers(0, 1), min_size=4 * 6, max_size=4 * 6), st.booleans())
def test_an_example_survives_a_cascade_if_it_survives_every_attack(drawn, is_exhaustive):
    """Against brute force: clean, then three attacks; with everybody in each, or only with those still standing."""
    answers = np.array(drawn).reshape(4, 6)
    parts, alive = [rows("clean", answers[0], [0] * 6)], answers[0] == 0
    expected, spent = [alive], np.ones(6, int)
    costs = [spent]
    for number, name in enumerate("abc", start=1):
        for i in range(6):
            runs = is_exhaustive or alive[i]
            parts.append(
                (rows if runs else lambda a, p, y, **k: not_run(a, y, **k))(name, [answers[number, i]], [0], first=i)
            )
            spent = spent + (np.arange(6) == i) * (6 if runs else 0)
        alive = alive & (answers[number] == 0)
        expected.append(alive)
        costs.append(spent)
    table = to_table(join(*parts))
    found = reduce_restarts(table, cascade=True)
    assert [outcome.attack for outcome in found] == ["clean", "a", "b", "c"]
    for outcome, right, forwards in zip(found, expected, costs, strict=True):
        assert outcome.correct.tolist() == right.tolist()
        assert outcome.measured.all()
        assert not outcome.hit.any()
        assert not outcome.cut.any()
        assert outcome.num_forwards.tolist() == forwards.tolist(), "of all attacks up to this one"
    for score, right in zip(count_scores(table, cascade=True), expected, strict=True):
        assert (score.num_examples, score.num_correct, score.num_hits) == (6, right.sum(), None)


def test_an_unfinished_cascade_speaks_of_those_it_has_met():
    """Attack b has met ex-0 to ex-2 only; ex-1 fell to a, ex-2 to b."""
    clean, a = rows("clean", [0] * 5, [0] * 5), rows("a", [0, 1, 0, 1, 0], [0] * 5)
    b = join(rows("b", [0], [0]), not_run("b", [0], first=1), rows("b", [1], [0], first=2))
    found = {o.attack: o for o in reduce_restarts(to_table(join(clean, a, b)), cascade=True)}
    assert found["a"].correct.tolist() == [True, False, True, False, True]
    assert found["b"].example_ids.tolist() == ["ex-0", "ex-1", "ex-2"]
    assert found["b"].correct.tolist() == [True, False, False]
    assert found["b"].num_gradients.tolist() == [10, 5, 10]


def test_what_a_budget_left_out_is_never_counted_as_broken():
    cut = join(
        rows("clean", [0] * 3, [0] * 3),
        rows("a", [0, 1, 0], [0] * 3),
        join(rows("a", [1], [0], restart=1), not_run("a", [0, 0], status="budget", restart=1, first=1)),
        not_run("b", [0] * 3, status="budget"),
        join(rows("c", [1, 1], [0, 0]), not_run("c", [0], status="budget", first=2)),
    )
    found = {s.attack: s for s in count_scores(to_table(cut))}
    assert list(found) == ["clean", "a"], "b met nobody and c not everybody: neither has a number"
    assert (found["a"].num_correct, found["a"].num_cut, found["a"].num_restarts) == (1, 1, 2)
    assert (found["a"].mean_gradients, found["a"].mean_forwards) == (20 / 3, 24 / 3)
    (worst,) = [s for s in count_scores(to_table(cut), cascade=True) if s.attack == "c"]
    assert (worst.num_correct, worst.num_cut) == (1, 1), "ex-2 stands, and nobody knows for how long"


def test_costs_are_means_over_all_examples():
    table = to_table(
        join(rows("clean", [0] * 2, [0] * 2), rows("a", [0, 1], [0, 0]), rows("a", [0, 1], [0, 0], restart=1))
    )
    clean, a = count_scores(table)
    assert (clean.mean_gradients, clean.mean_forwards) == (0, 1)
    assert (a.mean_gradients, a.mean_forwards) == (10, 12)
    assert pc.sum(table["num_gradients"]).as_py() == 20


def test_top1_and_success_come_in_one_score():
    """X36: neither is to be had without the other."""
    (score,) = count_scores(to_table(rows("t", [1, 0, 2], [0, 0, 0], [1, 1, 1])))
    assert {"num_correct", "num_hits", "num_clean_is_target"} <= set(score._fields)
    assert (score.top1, score.success) == (1 / 3, 1 / 3)


@pytest.mark.parametrize("starts", [(5, 12), (12, 5), (2, 3), (1, 7)])
def test_nested_scores_always_include_all_restarts_of_each_attack(starts):
    """Attacks with different numbers of restarts: each shows 1, 10, 100 of its own, and all."""
    parts = [
        rows(name, [(i + restart) % 3 for i in LABELS], LABELS, TARGETS, restart=restart)
        for name, count in zip("ab", starts, strict=True)
        for restart in range(count)
    ]
    told = [(score.attack, score.num_restarts) for score in scores_by_restarts(to_table(join(*parts)))]
    expected = [(name, n) for name, most in zip("ab", starts, strict=True) for n in sorted({1, min(10, most), most})]
    assert told == expected


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_an_example_without_its_first_restart_has_not_begun(lost):
    """Of an evaluation merged without one chunk: its examples do not count, or the restart counts for nobody."""
    whole = [rows("t", [(i + restart) % 2 for i in LABELS], LABELS, TARGETS, restart=restart) for restart in range(3)]
    part = rows("t", [(i + lost) % 2 for i in LABELS[3:]], LABELS[3:], TARGETS[3:], restart=lost)
    part["example_id"] = whole[lost]["example_id"][3:]
    table = to_table(join(*(part if restart == lost else whole[restart] for restart in range(3))))
    (found,) = reduce_restarts(table)
    assert found.num_restarts == (3 if lost == 0 else lost)
    assert found.example_ids.tolist() == sorted(part["example_id"] if lost == 0 else whole[0]["example_id"])
    (complete,) = reduce_restarts(to_table(join(*whole)), num_restarts=found.num_restarts)
    expected = dict(zip(complete.example_ids, complete.correct, strict=True))
    assert {example: expected[example] for example in found.example_ids} == dict(
        zip(found.example_ids, found.correct, strict=True)
    )
