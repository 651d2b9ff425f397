"""Worst cases over attacks (cascades): counted, drawn, compared, unfinished, cut by a budget."""

from __future__ import annotations

import csv
import io
import re

import pytest

from s3ta.errors import UserError
from s3ta.records import wilson
from s3ta.report import build_report, read_out_numbers_table, read_run, read_runs, runs_summary, runs_summary_table
from s3ta.report.comparability import compare, unshared
from s3ta.report.figures import attack_figures, panels, strength_figures
from s3ta.report.winner import verdict

from .synthetic import make_worst_case
from .test_report import Reader

BREAKS = {"fast": set(range(10)), "slow": {3, *range(8, 14)}, "square": {39}}
WRONG = {0, 20}


def page_of(tmp_path, *runs):
    html = build_report(list(runs), "worst", tmp_path / "report.html").read_text(encoding="utf-8")
    return Reader(html.replace("<", " <"))  # cells become words of their own


def test_each_stage_is_counted_among_what_was_left(tmp_path):
    run = read_run(make_worst_case(tmp_path / "a", "m", BREAKS, wrong=WRONG), "worst")
    found = [(s.score.attack, s.score.num_correct, s.num_left, s.num_broken, s.ran, s.whole) for s in run.stages]
    assert found == [
        ("clean", 38, 40, 2, True, True),
        ("fast", 29, 38, 9, True, True),
        ("slow", 25, 29, 4, True, True),
        ("square", 24, 25, 1, True, True),
    ]
    assert run.num_attacks == 3


def test_the_page_says_worst_case_in_words_and_numbers(tmp_path):
    run = make_worst_case(tmp_path / "a", "m", BREAKS, wrong=WRONG)
    page = page_of(tmp_path, run)
    low, high = wilson(24, 40)
    assert page.words.count("m: 95.0% right on clean images, 60.0% in the worst case over 3 attacks") == 2
    assert "right only if the model is right on the clean image and after every attack up to that point" in page.words
    assert f"60.0% [{100 * low:.1f}, {100 * high:.1f}]" in page.words
    assert re.search(r"then slow 100 steps, radius 0.1, 1 start m n = 40 62\.5% \[[^]]*\] 4 of 29 17 \+ 6", page.words)
    assert "2 wrong" in page.words
    assert "no target" not in page.words
    assert "Records not needed, the verdict stood already 28 of 160" in page.words
    assert "Worst-case accuracy as attacks are added" in page.words
    assert "Accuracy against attack strength" not in page.words


def test_the_terminal_shows_what_each_attack_broke(tmp_path):
    run = make_worst_case(tmp_path / "a", "m", BREAKS, wrong=WRONG)
    table = runs_summary(run / "evaluations" / "worst")
    assert [row[0] for row in table.rows] == ["clean", "then fast", "then slow", "then square"]
    assert [row[1] for row in table.rows] == ["–", *["0.1 L-infinity"] * 3]
    assert table.headers[5] == "broke"
    assert [row[5] for row in table.rows] == ["–", "9 of 38", "4 of 29", "1 of 25"]
    assert [row[6:] for row in table.rows] == [["0", "1"], ["10", "4"], ["17", "6"], ["23", "8"]]
    picked = runs_summary_table([read_run(run, "worst")]).pick("Attack", "Top-1", "Gradients", "Other forwards")
    assert picked.rows[2] == ["then slow", "62.5% [47.0, 75.8]", "17", "6"]


def test_the_spreadsheet_tells_costs_and_that_it_is_a_worst_case(tmp_path):
    run = read_run(make_worst_case(tmp_path / "a", "m", BREAKS, wrong=WRONG, cut={"square": {37, 38}}), "worst")
    rows = list(csv.DictReader(io.StringIO(read_out_numbers_table([run]).csv())))
    assert [row["cascade"] for row in rows] == ["1"] * 4
    assert [float(row["mean_gradients"]) for row in rows] == pytest.approx([0, 9.5, 16.75, 22.5])
    assert float(rows[1]["mean_other_forwards"]) == pytest.approx(1 + 0.95 * 3)
    assert [row["num_cut"] for row in rows] == ["0", "0", "0", "2"]


def test_a_worst_case_gets_one_figure_and_no_panels(tmp_path):
    run = read_run(make_worst_case(tmp_path / "a", "m", BREAKS, wrong=WRONG, cut={"square": {37}}), "worst")
    assert panels(run) == []
    assert strength_figures([run]) == []
    (figure,) = attack_figures([run])
    assert "m: clean 95.0%, then fast 72.5%, then slow 62.5%, then square at most 60.0%" in figure.alt
    assert "var(--page)" in figure.svg  # the hollow mark


def test_two_models_are_compared_at_the_last_stage(tmp_path):
    better = {**BREAKS, "slow": set()}
    worse = {**BREAKS, "slow": set(range(30))}
    runs = [make_worst_case(tmp_path / n, n, b, salt=i) for i, (n, b) in enumerate([("a", worse), ("b", better)])]
    page = page_of(tmp_path, *runs)
    assert page.words.count("b is ahead in the worst case over 3 attacks") == 2
    assert re.search(r"The difference in top-1 \(b minus a\) is \+50\.0 points \[[^]]*\] in favour of b", page.words)
    (couple,) = compare(read_runs(runs, "worst"))
    assert [c.attack for c in couple.comparisons] == ["clean", *BREAKS]
    assert couple.comparisons[-1].top1 == (9, 0, 20, 11)


def test_a_leader_whose_number_is_an_upper_bound_does_not_win(tmp_path):
    worse = {**BREAKS, "slow": set(range(30))}
    a = make_worst_case(tmp_path / "a", "a", BREAKS, cut={"slow": set(range(20, 40)), "square": set(range(20, 40))})
    b = make_worst_case(tmp_path / "b", "b", worse)
    page = page_of(tmp_path, a, b)
    assert "Undecided: a and b cannot be told apart here" in page.words
    assert "a budget cut attacks on a short: its lead is no win until they are run" in page.words
    assert "is ahead" not in page.words
    # a loser's upper bound changes nothing: it can only fall further
    c = make_worst_case(tmp_path / "c", "c", worse, cut={"square": {35}})
    d = make_worst_case(tmp_path / "d", "d", BREAKS)
    assert "d is ahead in the worst case" in page_of(tmp_path, c, d).words


def test_an_attack_that_the_budget_left_out_wholly_is_no_part_of_the_worst_case(tmp_path):
    everybody = set(range(40))
    run = make_worst_case(tmp_path / "a", "m", BREAKS, cut={"slow": everybody, "square": everybody - {39}})
    page = page_of(tmp_path, run)
    loaded = read_run(run, "worst")
    assert loaded.num_attacks == 2
    assert "at most 72.5% in the worst case over 2 attacks" in page.words
    assert "In the worst case over 2 of 3 attacks" in page.words
    assert re.search(r"then slow m not run: it did not fit into the budget then square", page.words)
    assert "Incomplete. The budget left out" in page.words
    assert ("p", {"class": "warning"}) in page.tags
    assert runs_summary(run / "evaluations" / "worst").rows[2][4:6] == ["at most 75.0% [0.0, 85.8]", "not run"]
    assert "then slow" not in attack_figures([loaded])[0].alt


def test_an_unfinished_stage_is_told_but_not_in_the_headline(tmp_path):
    """Six chunks of eight and half of the seventh stage: `slow` is whole, `square` has met 20 of 40."""
    run = make_worst_case(tmp_path / "a", "m", {**BREAKS, "square": {19, 39}}, wrong=WRONG, num_done=7)
    page = page_of(tmp_path, run)
    assert "m: 7 of 8 chunks" in page.words
    assert "62.5% in the worst case over 2 attacks" in page.words
    assert "In the worst case over 2 of 3 attacks, on 40 images" in page.words
    assert re.search(r"then square .*? n = 20 \d+\.\d% \[[^]]*\] 1 of 6", page.words)
    loaded = read_run(run, "worst")
    stage = loaded.last_stage
    assert stage is not None
    assert stage.score.attack == "slow"
    assert "square" not in attack_figures([loaded])[0].alt
    begun = read_run(make_worst_case(tmp_path / "b", "m", BREAKS, num_done=1), "worst")
    assert begun.last_stage is None
    assert "this says nothing about robustness" in " ".join(verdict([begun], None).sentences)
    page_of(tmp_path, tmp_path / "b")


def test_models_of_which_one_cannot_take_an_attack_are_not_compared(tmp_path):
    """Both are shown, the reason is one sentence, and no winner is named."""
    few = {name: broken for name, broken in BREAKS.items() if name != "slow"}
    # as a shrunk suite has it: the attack is renamed, what was left out is not
    plain = make_worst_case(tmp_path / "b", "plain", few, left_out=("slow-100",))
    sequential = make_worst_case(tmp_path / "a", "seq", {"fast": BREAKS["fast"], "slow-2": set(), "square": {39}})
    page = page_of(tmp_path, plain, sequential)
    assert page.words.count("plain and seq: not compared") == 2
    assert "not compared yet" not in page.words
    assert page.words.count("plain takes no glimpses and could not be given slow-2.") == 1
    assert "Fewer attacks" not in page.words
    assert re.search(r"plain is right on \d+\.\d% \[[^]]*\] after 2 attacks; seq on .*? after 3 attacks", page.words)
    assert "is ahead" not in page.words
    assert "{" not in page.words
    order = [page.words.index(f"then {name} 100") for name in ("fast", "slow-2", "square")]
    assert order == sorted(order)
    runs = read_runs([tmp_path / "b", tmp_path / "a"], "worst")
    (couple,) = compare(runs)
    assert [c.attack for c in couple.comparisons] == ["clean", "fast"]
    assert unshared(runs[:1]) == ""
    assert "Fewer attacks. Left out, for they do not fit the model" in page_of(tmp_path, plain).words


def test_suites_that_differ_otherwise_are_still_refused(tmp_path):
    a = make_worst_case(tmp_path / "a", "a", BREAKS)
    b = make_worst_case(tmp_path / "b", "b", BREAKS, fast={"radius": 0.2})
    with pytest.raises(UserError, match=r"suite.attacks.fast.radius is 0.1 in the first and 0.2"):
        page_of(tmp_path, a, b)
    c = make_worst_case(tmp_path / "c", "c", {"fast": set()})
    with pytest.raises(UserError, match="absent in the"):
        page_of(tmp_path, a, c)


def test_a_warning_of_the_records_is_shown_and_escaped(tmp_path):
    breaks = {"fast": set(range(5)), "<b>square": set(range(5, 20))}
    square = {"<b>square": {"kind": "autoattack", "part": "square"}}
    run = make_worst_case(tmp_path / "a", "m", breaks, **square)
    html = build_report([run], "worst", tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<p class="warning"><b>Gradient masking.</b> Gradients may be masked' in html
    assert "<b>square" not in html
    assert html.index("Gradient masking") < html.index('id="summary"')
    silent = page_of(tmp_path, make_worst_case(tmp_path / "b", "m", BREAKS))
    assert "may be masked" not in silent.words
    assert "Incomplete" not in silent.words
