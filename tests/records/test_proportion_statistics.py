"""Intervals against published values and by simulated coverage; pairing refuses what was not measured alike (X35)."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom

from s3ta.errors import UserError
from s3ta.records import PairedCounts, compare_paired, mcnemar, paired_difference, to_table, wilson
from s3ta.records.proportion_statistics import finite_share

from .hand_made import join, rows, typed

COUNTS = st.integers(0, 60)


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_published_values(count, total, low, high):
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3."""
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)
    assert wilson(total - count, total) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Cavo et al. 2012, as in Fagerland, Lydersen & Laake 2017, Statistical Analysis of Contingency Tables, ch. 8
        (PairedCounts(59, 6, 16, 80), -0.1186, -0.0046),
        # Altman et al. 2000, Statistics with Confidence, table 6.2
        (PairedCounts(14, 5, 0, 22), 0.0115, 0.2265),
        # Bentur et al. 2009, as in Fagerland et al.
        (PairedCounts(1, 1, 7, 12), -0.5069, -0.0256),
    ],
)
def test_newcombes_method_10_gives_the_published_values(counts, low, high):
    assert paired_difference(counts) == pytest.approx((low, high), abs=6e-5)
    assert counts.interval == paired_difference(counts)


def test_mcnemar_gives_the_published_value_and_the_binomial_sum():
    assert mcnemar(6, 16) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar(0, 0) == mcnemar(3, 3) == 1
    assert mcnemar(0, 5) == 2 / 2**5
    assert mcnemar(400, 600) == pytest.approx(2 * sum(comb(1000, i) for i in range(401)) / 2**1000, rel=1e-12)
    assert 0 <= mcnemar(10_000, 15_000) < 1e-200


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_interval_holds_the_difference_and_turns_with_the_models(both, only_a, only_b, neither):
    counts = PairedCounts(both, only_a, only_b, neither)
    if counts.total:
        low, high = counts.interval
        assert -1 <= low <= counts.difference <= high <= 1
        assert PairedCounts(both, only_b, only_a, neither).interval == pytest.approx((-high, -low), abs=1e-12)
        assert PairedCounts(both, only_b, only_a, neither).p_value == counts.p_value
        assert PairedCounts(neither, only_a, only_b, both).interval == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("total", [53, 211])
def test_the_paired_interval_covers_the_true_difference(total):
    """1,500 simulated comparisons per truth: 95 % intervals cover in 93 % to 99 % (3 sigma of 1,500 trials is 1.7
    points)."""
    random = np.random.default_rng(11)
    for truth in ([0.5, 0.2, 0.1, 0.2], [0.05, 0.1, 0.1, 0.75], [0.8, 0.02, 0.1, 0.08]):
        draws = random.multinomial(total, truth, size=1500)
        covered = sum(
            low <= truth[1] - truth[2] <= high
            for low, high in (PairedCounts(*map(int, draw)).interval for draw in draws)
        )
        assert 0.93 <= covered / 1500 <= 0.99


def test_wilsons_interval_covers_the_true_rate():
    random = np.random.default_rng(13)
    for p in (0.07, 0.5, 0.93):
        intervals = [wilson(int(count), 101) for count in random.binomial(101, p, size=1500)]
        assert 0.93 <= np.mean([low <= p <= high for low, high in intervals]) <= 0.98


@pytest.mark.parametrize(("count", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_proportions_are_refused(count, total):
    with pytest.raises(ValueError, match="not a proportion"):
        wilson(count, total)


LABELS, TARGETS = [0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]


def table(attacked, **changes):
    targeted = rows("targeted-5", attacked, changes.get("labels", LABELS), changes.get("targets", TARGETS),
                    first=changes.get("first", 0))  # fmt: skip
    parts = [targeted, rows("clean", LABELS, LABELS)]
    if changes.get("second"):
        parts.append(rows("targeted-5", changes["second"], LABELS, TARGETS, restart=1))
    return to_table(join(*parts))


A = [0, 1, 2, 4, 5, 6, 9]  # right: 0 1 2; hit: 3 4 5
B = [0, 2, 9, 3, 5, 9, 9]  # right: 0 3;   hit: 1 4


def test_pairs_are_aligned_by_example():
    shuffled = table(B).take([6, 0, 3, 5, 1, 2, 4, 7, 8, 9, 10, 11, 12, 13])
    clean, targeted = compare_paired(table(A), typed(), shuffled, typed(model__name="other", device="cuda"))
    assert (clean.attack, clean.top1, clean.success) == ("clean", PairedCounts(7, 0, 0, 0), None)
    assert targeted.top1 == PairedCounts(both=1, only_a=2, only_b=1, neither=3)
    assert targeted.success == PairedCounts(both=1, only_a=2, only_b=1, neither=3)
    assert targeted.top1.difference == 1 / 7


def test_restarts_are_reduced_before_pairing():
    again = table(A, second=[9] * 7)
    assert compare_paired(again, typed(), again, typed())[1].top1 == PairedCounts(0, 0, 0, 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": [*TARGETS[:6], 3]}, "the target of example 'ex-6' is 7 in the first and 3 in the second"),
        ({"labels": [*LABELS[:6], 8]}, "the label of example 'ex-6' is 6 in the first and 8 in the second"),
        ({"first": 1}, r"example 'ex-0' is in only one of them .*\(2 such examples\)"),
        ({"second": B}, "1 restarts in the first and 2 in the second"),
    ],
)
def test_records_of_other_examples_or_targets_are_not_compared(changes, message):
    with pytest.raises(UserError, match=message):
        compare_paired(table(A), typed(), table(B, **changes), typed())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__fingerprint": "beef"}, 'data.fingerprint is "f00d" in the first and "beef" in the second'),
        ({"seed": 3}, "seed is 0 in the first and 3 in the second"),
        (
            {"suite__attacks__1__step_size": 0.02},
            r"suite\.attacks\.targeted-5\.step_size is 0\.01 in the first and 0\.02",
        ),
    ],
)
def test_records_of_other_settings_are_not_compared(changes, message):
    with pytest.raises(UserError, match=message):
        compare_paired(table(A), typed(), table(B), typed(**changes))


def test_a_cascade_is_not_compared_with_single_attacks():
    together = typed(suite__cascade=True)
    with pytest.raises(UserError, match=r"suite\.cascade is false in the first and true in the second"):
        compare_paired(table(A), typed(), table(B), together)
    clean, worst = compare_paired(table(A), together, table(B), together)
    assert (clean.top1, worst.success) == (PairedCounts(7, 0, 0, 0), None)
    assert worst.top1 == PairedCounts(both=1, only_a=2, only_b=1, neither=3)


def test_two_budgets_are_not_compared():
    with pytest.raises(UserError, match="budget is null in the first and 100 in the second"):
        compare_paired(table(A), typed(budget=None), table(B), typed(budget=100))


def test_an_attack_on_one_side_only_is_not_compared():
    with pytest.raises(UserError, match="only one has records of attack 'targeted-5' at 5 steps"):
        compare_paired(table(A), typed(), to_table(rows("clean", LABELS, LABELS)), typed())


# --- against independent computations ---------------------------------------------------------------------------------


def test_wilson_and_mcnemar_are_those_of_scipy():
    random = np.random.default_rng(0)
    for total in (1, 2, 7, 60, 1000, 50_000):
        for count in {0, 1, total, *random.integers(0, total + 1, 8).tolist()}:
            theirs = binomtest(count, total).proportion_ci(method="wilson")
            assert wilson(count, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    for only_a, only_b in random.integers(0, 80, (60, 2)).tolist():
        if only_a + only_b:
            expected = binomtest(only_a, only_a + only_b).pvalue
            assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("available", "total"), [(1, 1), (10, 4), (10, 10), (200, 40), (1000, 990), (97, 96)])
def test_the_share_of_a_finite_whole_is_scipys_hypergeometric_test_turned_round(available, total):
    """All true counts that a two-sided test at 2 x 2.5% does not refuse, one by one."""
    for count in {0, 1, total // 3, total - 1, total} & set(range(total + 1)):
        low, high = finite_share(count, total, available)
        kept = [
            k for k in range(count, available - (total - count) + 1)
            if hypergeom.sf(count - 1, available, k, total) > 0.025 and hypergeom.cdf(count, available, k, total) > 0.025
        ]  # fmt: skip
        assert (low, high) == pytest.approx((min(kept) / available, max(kept) / available), abs=1e-12)
        assert low - 1 / available <= count / total <= high + 1 / available


@pytest.mark.parametrize(("available", "total", "right"), [(300, 60, 12), (300, 60, 290), (500, 400, 250), (50, 5, 1)])
def test_the_share_of_a_finite_whole_is_covered(available, total, right):
    """Exactly, by summing over all draws: at least 95%."""
    chances = hypergeom.pmf(np.arange(total + 1), available, right, total)
    covered = 0.0
    for count in np.flatnonzero(chances > 0).tolist():
        low, high = finite_share(count, total, available)
        covered += chances[count] * (low <= right / available <= high)
    assert covered >= 0.95


@pytest.mark.parametrize("bad", [(-1, 5, 10), (6, 5, 10), (3, 11, 10), (0, 0, 10)])
def test_impossible_shares_of_a_finite_set_are_refused(bad):
    with pytest.raises(ValueError, match="is not a share"):
        finite_share(*bad)


@pytest.mark.parametrize(
    ("counts", "winner"),
    [
        (PairedCounts(150, 5, 0, 101), 0),  # the interval alone calls a winner: +2.0 points [+0.1, +3.8], but p is 0.0625
        (PairedCounts(150, 6, 0, 100), 1), (PairedCounts(150, 0, 6, 100), -1), (PairedCounts(100, 30, 30, 96), 0),
        (PairedCounts(0, 0, 0, 9), 0), (PairedCounts(36, 12, 2, 0), 1), (PairedCounts(150, 4, 0, 102), 0),
    ],
)  # fmt: skip
def test_interval_and_p_together_name_a_winner(counts, winner):
    assert counts.winner == winner
    if winner:
        assert counts.interval.excludes_zero
        assert counts.p_value < 0.05
