"""Numbers in words: who minus whom, one rule for a winner, intervals that cover what a budget left open, and the ball."""

from __future__ import annotations

import csv
import io
import re

import pytest

from s3ta.records import Score
from s3ta.records.manifest import AttackSettings
from s3ta.report import read_run, runs_summary
from s3ta.report.attack_text import ball_text
from s3ta.report.comparability import compare
from s3ta.report.figures import forest_figure
from s3ta.report.load_runs import read_runs
from s3ta.report.result_tables import bounds, read_out_numbers_table, success_text, top1_text
from s3ta.report.winner import verdict

from .synthetic import make_run, make_worst_case


def two(tmp_path, a: int, b: int, total: int = 256):
    """The verdict on two models of which an attack breaks the first so many images."""
    folders = [
        make_worst_case(tmp_path / name, name, {"fast": set(range(broken))}, num_examples=total)
        for name, broken in (("s3ta", a), ("rival", b))
    ]
    runs = read_runs(folders, "worst")
    return verdict(runs, compare(runs)), compare(runs)[0]


def test_the_interval_alone_names_no_winner(tmp_path):
    """5 images against 0 of 256 are +2.0 points [+0.1, +3.8], but the exact p is 0.0625."""
    found, couple = two(tmp_path, 100, 105)
    counts = couple.comparisons[-1].top1
    assert counts.interval.low > 0
    assert found.title == "Undecided: s3ta and rival cannot be told apart here"
    assert "of 5 images that differ the exact McNemar p is 0.062, undecided." in found.sentences[0]
    assert "in favour" not in " ".join(found.sentences)
    assert "mark" not in found.title
    assert forest_figure(couple).svg  # drawn hollow, by the same rule


def test_one_more_image_names_a_winner(tmp_path):
    found, _ = two(tmp_path, 100, 106)
    assert found.title == "s3ta is ahead in the worst case over 1 attack at 0.1"


@pytest.mark.parametrize(("a", "b", "words"), [(20, 60, "s3ta minus rival"), (60, 20, "rival minus s3ta")])
def test_a_difference_says_who_minus_whom(tmp_path, a, b, words):
    found, _ = two(tmp_path, a, b)
    sentence = " ".join(found.sentences)
    assert re.search(
        rf"The difference in top-1 \({words}\) is \+15\.6 points \[\+[^]]*\] in favour of {words[:4]}", sentence
    )


def test_a_difference_that_names_no_winner_says_so(tmp_path):
    found, _ = two(tmp_path, 22, 20)
    assert re.search(
        r"The difference in top-1 \(rival minus s3ta\) is \+0\.8 points \[[^]]*\]: the interval contains 0, undecided",
        found.sentences[0],
    )


# --- what a budget left open ------------------------------------------------------------------------------------------


def score(**changes) -> Score:
    facts = {"num_correct": 60, "num_hits": 20, "num_cut": 0, "num_cut_misses": 0, **changes}
    return Score(
        "a",
        9,
        1,
        100,
        facts["num_correct"],
        facts["num_hits"],
        0,
        0.1,
        9,
        10,
        facts["num_cut"],
        facts["num_cut_misses"],
    )


def test_an_interval_covers_all_that_the_cut_ones_might_be():
    assert top1_text(score()) == "60.0% [50.2, 69.1]"
    assert top1_text(score(num_cut=10)) == "at most 60.0% [40.4, 69.1]", "50 of 100 has [40.4, 59.6]"
    assert top1_text(score(num_cut=60)) == "at most 60.0% [0.0, 69.1]"
    assert success_text(score()) == "20.0% [13.3, 28.9]"
    assert success_text(score(num_cut_misses=30)) == "at least 20.0% [13.3, 59.6]", "50 of 100 again"
    assert success_text(score(num_hits=None)) == "–"
    assert bounds(score(num_cut_misses=80), success=True).high == 1


def test_the_spreadsheet_has_the_same_ends(tmp_path):
    everybody = set(range(40))
    run = make_worst_case(tmp_path / "a", "m", {"fast": set(range(5)), "slow": {7}}, cut={"slow": everybody - {7}})
    rows = list(csv.DictReader(io.StringIO(read_out_numbers_table([read_run(run, "worst")]).csv())))
    assert (float(rows[-1]["top1_low"]), rows[-1]["num_cut"]) == (0, "34")
    assert float(rows[-1]["top1_high"]) > 34 / 40


# --- the ball ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"radius": 8 / 255}, "8/255 L-infinity"),
        ({"radius": 0.5, "norm": "l2"}, "0.5 L2"),
        ({"radius": 0.1, "norm": "linf", "mask": {"kind": "box"}}, "0.1 L-infinity, masked"),
        ({"kind": "transfer", "attack": {"radius": 3.0, "norm": "l2"}}, "3 L2"),
        ({}, "–"), ({"radius": "8/255"}, "–"),
    ],
)  # fmt: skip
def test_a_ball_is_radius_and_norm(settings, text):
    assert ball_text(AttackSettings.model_validate(settings)) == text


def test_the_summary_names_the_ball_of_each_attack(tmp_path):
    """14.m: an L2 radius of 5 where 0.5 was meant could not be seen."""
    table = runs_summary(make_run(tmp_path / "a", "m") / "evaluations" / "quick")
    assert table.headers[:3] == ["attack", "radius", "steps"]
    assert {row[1] for row in table.rows if row[0] != "clean"} == {"0.1 L-infinity"}
    assert table.rows[0][1] == "–"
