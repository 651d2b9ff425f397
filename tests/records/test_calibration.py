"""Calibration (protocol E13): the published vectors, a slow second version, peers, and what the last bin is worth (X32)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ta.records import (
    calibration,
    calibration_of,
    clean_confidences,
    reliability_bins,
    risk_coverage,
    to_table,
    wilson,
)

from .hand_made import join, rows


def slow(confidence: list[float], correct: list[bool]) -> tuple[float | None, float | None, float]:
    """Published form, all bins, AURRA: lists and loops, after the description of the published code in E13."""
    n = len(confidence)
    rising = sorted(range(n), key=lambda i: (confidence[i], i))
    squares = []
    for number in range(n // 100):
        members = rising[100 * number :] if number == n // 100 - 1 else rising[100 * number : 100 * number + 100]
        mean = math.fsum(confidence[i] for i in members) / len(members)
        squares.append(len(members) / n * (mean - sum(correct[i] for i in members) / len(members)) ** 2)
    falling = sorted(range(n), key=lambda i: (-confidence[i], i))
    accuracies = [sum(correct[i] for i in falling[: j + 1]) / (j + 1) for j in range(n)]
    if not squares:
        return None, None, math.fsum(accuracies) / n
    return math.sqrt(math.fsum(squares[:-1])), math.sqrt(math.fsum(squares)), math.fsum(accuracies) / n


@pytest.mark.parametrize(
    ("n", "right", "published", "all_bins", "aurra"),
    [
        (200, lambda i: i >= 100, 0.1767767, 0.25, 0.8453267),
        (250, lambda i: i % 2 == 1, 0.1897367, 0.2449490, 0.5067918),
    ],
)
def test_calibration_errors_equal_the_published_vectors(n, right, published, all_bins, aurra):
    i = np.arange(n)
    found = calibration((i + 0.5) / n, right(i))
    assert found[2:4] + found[5:] == pytest.approx((published, all_bins, aurra), abs=1e-6)
    assert (found.num_examples, found.num_correct) == (n, int(right(i).sum()))


def draw(seed: int, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences on a few levels, so with many ties, and answers that are right about as often as not."""
    random = np.random.default_rng(seed)
    return random.integers(0, levels + 1, n) / levels, random.random(n) < 0.5


@given(st.integers(0, 2**32), st.integers(1, 431), st.integers(1, 50))
def test_aurra_agrees_with_a_slow_version_whatever_the_ties(seed, n, levels):
    confidence, correct = draw(seed, n, levels)
    found = calibration(confidence, correct)
    published, all_bins, aurra = slow(confidence.tolist(), correct.tolist())
    assert (found.rms_published is None) == (published is None) == (found.rms_by_chance is None) == (n < 100)
    if published is not None:
        assert (found.rms_published, found.rms_all_bins) == pytest.approx((published, all_bins), abs=1e-12)
    assert found.aurra == pytest.approx(aurra, abs=1e-12)


@given(st.integers(0, 2**32), st.integers(200, 431))
def test_the_published_form_leaves_out_its_last_bin(seed, n):
    """Every answer of the most confident bin turned: nothing happens to the published number, and much to the other."""
    random = np.random.default_rng(seed)
    confidence = random.permutation((np.arange(n) + 0.5) / n)
    correct = random.random(n) < 0.5
    last = np.argsort(confidence)[100 * (n // 100 - 1) :]
    correct[last] = True
    turned = correct.copy()
    turned[last] = False
    before, after = calibration(confidence, correct), calibration(confidence, turned)
    assert before.rms_published == after.rms_published
    assert after.rms_all_bins is not None
    assert before.rms_all_bins is not None
    assert after.rms_all_bins > before.rms_all_bins + 0.1
    assert after.aurra < before.aurra


def test_with_one_bin_the_published_error_is_zero():
    found = calibration(np.full(150, 0.9), np.zeros(150, bool))
    assert found.rms_published == 0
    assert found.rms_all_bins == pytest.approx(0.9)


def test_chance_alone_is_what_calibrated_models_show():
    random = np.random.default_rng(5)
    confidence = random.random(1040) ** 0.5
    squares = [calibration(confidence, random.random(1040) < confidence).rms_all_bins for _ in range(400)]
    expected = calibration(confidence, np.zeros(1040, bool)).rms_by_chance
    assert np.sqrt(np.mean(np.square(np.array(squares, float)))) == pytest.approx(expected, rel=0.04)


def test_risk_and_coverage_by_hand():
    curve = risk_coverage([0.5, 0.9, 0.5, 0.7], [True, True, False, False])
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.num_wrong.tolist() == [0, 1, 1, 2], "of the two at 0.5 the earlier comes first"
    assert curve.risk == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 20))
def test_reliability_agrees_with_scikit_learn(seed, n, num_bins):
    peer = pytest.importorskip("sklearn.calibration")  # comes with mlxtend
    random = np.random.default_rng(seed)
    confidence, correct = random.random(n), random.random(n) < 0.6
    bins = reliability_bins(confidence, correct, num_bins)
    right, sure = peer.calibration_curve(correct, confidence, n_bins=num_bins)
    assert [one.accuracy for one in bins] == pytest.approx(right.tolist())
    assert [one.confidence for one in bins] == pytest.approx(sure.tolist())
    assert sum(one.num_examples for one in bins) == n


def test_an_answer_at_an_edge_counts_in_the_bin_below():
    bins = reliability_bins([0, 0.2, 0.21, 0.4, 1], [True, False, True, True, True], 5)
    assert [(one.low, one.high, one.num_examples, one.num_correct) for one in bins] == [
        (0, pytest.approx(0.2), 2, 1), (pytest.approx(0.2), pytest.approx(0.4), 2, 2), (pytest.approx(0.8), 1, 1, 1),
    ]  # fmt: skip
    assert bins[0].interval == wilson(1, 2)


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([], [], "one of each"),
        ([0.5, 0.5], [True], "one of each"),
        ([0.5, 1.01], [True, True], "not in 0..1"),
        ([0.5, float("nan")], [True, True], "not in 0..1"),
        ([0.5, 0.5], [1, 0], "int64, not booleans"),
    ],
)
def test_wrong_lists_of_answers_are_refused(confidence, correct, message):
    for measure in (calibration, risk_coverage, reliability_bins):
        with pytest.raises(ValueError, match=message):
            measure(confidence, np.array(correct))


def test_an_evaluation_is_judged_by_its_clean_records_in_the_order_of_their_ids():
    """So neither attacks nor the order of the chunks change a number, also where confidences are equal."""
    random = np.random.default_rng(3)
    columns = rows("clean", random.integers(0, 2, 130), np.zeros(130, int))
    columns["confidence"] = (random.integers(1, 4, 130) / 4).astype(np.float32)
    attacked = rows("pgd", np.ones(130, int), np.zeros(130, int))
    table = to_table(join(columns, attacked))
    order = sorted(range(130), key=lambda i: f"ex-{i}")
    confidence, correct = clean_confidences(table)
    assert confidence.tolist() == columns["confidence"][order].tolist()
    assert correct.tolist() == (columns["prediction"][order] == 0).tolist()
    assert calibration_of(table) == calibration(confidence, correct)
    assert calibration_of(table.take(random.permutation(260))) == calibration_of(table)
    assert calibration_of(to_table(attacked)) is None
