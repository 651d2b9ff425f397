"""What records say about their evaluation: alarms where something is wrong, none where it is not, and what was not checked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from s3ta.records import Finding, check_records, count_scores, mcnemar, scores_by_restarts, to_table, wilson
from s3ta.records.proportion_statistics import finite_share

from .hand_made import join, not_run, rows, typed

COUNT = 40
PGD = {
    "name": "pgd", "kind": "pgd", "objective": "untargeted", "loss": "cross_entropy", "norm": "linf", "radius": 0.1,
    "mask": None, "gradient": {"kind": "exact", "num_samples": 1}, "glimpses": "last", "steering": None,
    "num_glimpses": None, "num_attack_steps": 100, "keep": "last",
}  # fmt: skip
SEES: dict[str, dict[str, Any]] = {
    "margin": PGD | {"loss": "margin"},
    "dlr": PGD | {"loss": "dlr"},
    "spsa": PGD | {"gradient": {"kind": "spsa", "num_directions": 128}},
    "square": {"kind": "autoattack", "part": "square", "objective": "untargeted", "norm": "linf", "radius": 0.1},
}


def found(broken: dict[str, Any], attacks: dict[str, dict[str, Any]], cascade: bool = False, left_out=()) -> list:
    """What is told of masked gradients and attacks left out, where each attack breaks these examples of forty."""
    parts = [rows("clean", [0] * COUNT, [0] * COUNT)]
    parts += [
        rows(name, np.isin(np.arange(COUNT), list(which)).astype(int), [0] * COUNT) for name, which in broken.items()
    ]
    named = [settings | {"name": name} for name, settings in attacks.items()]
    suite = {"name": "s", "attacks": named, "cascade": cascade, "left_out": list(left_out)}
    return alarms(check_records(to_table(join(*parts)), typed(suite=suite)))


def alarms(told: list[Finding]) -> list[Finding]:
    return [finding for finding in told if finding.kind in ("gradient masking", "fewer attacks", "incomplete", "trial")]


@pytest.mark.parametrize("name", SEES)
def test_an_attack_that_clearly_does_better_is_an_alarm(name):
    (told,) = found({"pgd": range(5), name: range(25)}, {"pgd": PGD, name: SEES[name]})
    assert (told.kind, told.severity) == ("gradient masking", "warning")
    assert f"'{name}'" in told.sentence
    assert "breaks 20 of 40 examples that stay right under 'pgd'; the other way round it is 0" in told.sentence
    assert (told.evidence["only_this_breaks"], told.evidence["only_plain_breaks"]) == (20, 0)
    assert told.evidence["p_value"] == mcnemar(20, 0)
    assert "trust the lower number" in told.advice
    assert told.text == f"{told.sentence} {told.advice}"


@pytest.mark.parametrize("name", SEES)
def test_an_attack_that_is_better_by_chance_at_most_raises_no_alarm(name):
    attacks = {"pgd": PGD, name: SEES[name]}
    assert found({"pgd": range(20), name: range(20)}, attacks) == []
    assert found({"pgd": range(20), name: range(25)}, attacks) == [], "5 against 0: p = 0.06"
    assert found({"pgd": range(20), name: range(26)}, attacks) != [], "6 against 0: p = 0.03"
    assert mcnemar(6, 0) < 0.05 < mcnemar(5, 0)
    assert found({"pgd": range(25), name: range(5)}, attacks) == [], "the other way round"
    assert found({"pgd": range(12), name: range(10, 28)}, attacks) == [], "16 against 10"


def test_all_plain_attacks_together_are_the_measure():
    attacks = {"pgd": PGD, "more": PGD, "margin": SEES["margin"]}
    assert found({"pgd": range(10), "more": range(8, 25), "margin": range(25)}, attacks) == []
    (told,) = found({"pgd": range(5), "more": range(5, 10), "margin": range(25)}, attacks)
    assert "breaks 15 of 40 examples that stay right under 'pgd' and 'more'" in told.sentence


@pytest.mark.parametrize("change", [{"num_attack_steps": 200}, {"keep": "best"}], ids=str)
def test_a_longer_or_better_kept_attack_on_another_loss_is_just_stronger(change):
    attacks = {"pgd": PGD, "margin": SEES["margin"] | change}
    assert found({"pgd": range(5), "margin": range(30)}, attacks) == []


@pytest.mark.parametrize("name", ["spsa", "square"])
def test_few_steps_with_gradients_are_no_match_for_many_queries(name):
    attacks = {"pgd": PGD | {"num_attack_steps": 19}, name: SEES[name]}
    assert found({"pgd": range(5), name: range(30)}, attacks) == []
    assert found({"pgd": range(5), name: range(30)}, attacks | {"pgd": PGD | {"num_attack_steps": 20}}) != []


@pytest.mark.parametrize(
    "change",
    [
        {"radius": 0.2}, {"norm": "l2"}, {"objective": "targeted"}, {"mask": {"kind": "box", "height": 0.5}},
    ],
    ids=str,
)  # fmt: skip
def test_attacks_of_another_threat_model_are_not_compared(change):
    assert found({"pgd": range(5), "margin": range(30)}, {"pgd": PGD, "margin": SEES["margin"] | change}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "margin"}, {"gradient": {"kind": "spsa"}}, {"glimpses": "all"}, {"steering": {"towards": "away"}},
        {"num_glimpses": 8},
    ],
    ids=str,
)  # fmt: skip
def test_only_exact_cross_entropy_gradients_of_the_answer_are_plain(change):
    told = found({"other": range(5), "square": range(30)}, {"other": PGD | change, "square": SEES["square"]})
    assert not any("'other'" in finding.sentence and "stay right under" in finding.sentence for finding in told)


def test_square_after_everything_else_in_a_cascade():
    """AutoAttack's own rule: more than 2 % of what is left, and more than one example."""
    attacks = {"pgd": PGD, "square": SEES["square"]}
    (told,) = found({"pgd": range(10), "square": range(12)}, attacks, cascade=True)
    assert "breaks 2 of the 30 examples" in told.sentence
    assert found({"pgd": range(10), "square": range(11)}, attacks, cascade=True) == []
    assert found({"square": range(9)}, {"square": SEES["square"]}, cascade=True) != []
    assert found({"pgd": range(40), "square": range(40)}, attacks, cascade=True) == [], "nothing left to break"


def test_an_unfinished_evaluation_is_judged_by_those_that_met_both():
    def told(cascade: bool, broken_by_margin: int, met: int) -> list:
        parts = [
            rows("clean", [0] * COUNT, [0] * COUNT),
            rows("pgd", [0] * COUNT, [0] * COUNT),
            rows("square", (np.arange(met) < broken_by_margin).astype(int), [0] * met),
        ]
        suite = {"name": "s", "attacks": [PGD, SEES["square"] | {"name": "square"}], "cascade": cascade}
        return alarms(check_records(to_table(join(*parts)), typed(suite=suite)))

    assert told(False, 0, 8) == []
    assert told(True, 0, 8) == [], "whom square has not met yet it has not broken"
    assert "breaks 7 of 8 examples" in told(False, 7, 8)[0].sentence
    assert "breaks 3 of the 8 examples" in told(True, 3, 8)[0].sentence


def test_attacks_that_do_not_fit_the_model_are_told():
    (told,) = found({"pgd": range(5)}, {"pgd": PGD}, left_out=["steer-away-100", "all-glimpses-100"])
    assert (told.kind, told.severity) == ("fewer attacks", "note")
    assert "steer-away-100, all-glimpses-100" in told.sentence


def test_records_cut_by_the_budget_are_told_and_settled_ones_are_not():
    parts = [rows("clean", [0] * 3, [0] * 3), rows("pgd", [1] * 3, [0] * 3)]
    suite = {"name": "s", "attacks": [PGD]}
    settled = to_table(join(*parts, not_run("pgd", [0] * 3, restart=1)))
    assert alarms(check_records(settled, typed(suite=suite))) == []
    cut = to_table(
        join(*parts, not_run("pgd", [0] * 3, restart=1, status="budget"), not_run("x", [0, 0, 0], status="budget"))
    )
    (told,) = alarms(check_records(cut, typed(suite=suite)))
    assert (told.kind, told.severity) == ("incomplete", "warning")
    assert told.evidence == {"num_left_out": {"pgd": 3, "x": 3}, "without_number": ["x"]}
    for words in ("3 records of 'pgd'", "3 records of 'x'", "upper bound", "'x' has no number at all"):
        assert words in told.sentence
    assert "'pgd' has no number" not in told.sentence


def test_an_old_style_manifest_raises_no_alarm_and_no_error():
    table = to_table(join(rows("clean", [0] * 9, [0] * 9), rows("untargeted-5", [1] * 9, [0] * 9)))
    assert {finding.severity for finding in check_records(table, typed())} <= {"note", "unchecked", "passed"}


def of_kind(kind: str, parts: list[dict[str, Any]], attacks: list[dict[str, Any]], **changes: Any) -> list[Finding]:
    suite = {"name": "s", "attacks": attacks, "cascade": changes.pop("cascade", False)}
    told = check_records(to_table(join(*parts)), typed(suite=suite, **changes))
    assert json.loads(json.dumps([list(finding) for finding in told])) == [list(finding) for finding in told], "JSON"
    order = [("error", "warning", "note", "unchecked", "passed").index(finding.severity) for finding in told]
    assert order == sorted(order), "worst first"
    return [finding for finding in told if finding.kind == kind]


def predicted(right: Any, count: int = 200) -> np.ndarray:
    """Answers to `count` examples of class 0, right where said."""
    return 1 - np.isin(np.arange(count), list(right))


def read_out(right: Any, num_steps: int, count: int = 200, **more: Any) -> dict[str, Any]:
    return rows("pgd", predicted(right, count), [0] * count, num_steps=num_steps, **more)


CLEAN = rows("clean", [0] * 200, [0] * 200)
STEPS = PGD | {"step_size": 0.01}


@pytest.mark.parametrize(("keep", "severity"), [("last", "note"), ("best", "warning")])
def test_more_steps_that_help_the_model_are_told(keep, severity):
    """Top-1 rises from 40 to 60 of 200 by examples that turn right again, and none that turn wrong."""
    parts = [CLEAN, read_out(range(40), 50), read_out(range(60), 100)]
    (told,) = of_kind("more steps help", parts, [STEPS | {"keep": keep}])
    assert told.severity == severity
    assert "top-1 rises by 10.0 points from 50 to 100 steps" in told.sentence
    assert told.evidence["p_value"] == mcnemar(20, 0)
    (fine,) = of_kind("more steps help", [CLEAN, read_out(range(60), 50), read_out(range(40), 100)], [STEPS])
    assert (fine.severity, fine.evidence) == ("passed", {"num_compared": 1})
    parts = [CLEAN, read_out(range(40), 50), read_out(range(10, 58), 100)]
    (chance,) = of_kind("more steps help", parts, [STEPS])
    assert chance.severity == "passed", "18 against 10: p = 0.18"


def test_a_slow_rise_over_many_read_outs_is_seen_and_a_rise_of_a_point_is_not():
    parts = [CLEAN, *(read_out(range(40 + 4 * i), 10 * (i + 1)) for i in range(4))]
    (told,) = of_kind("more steps help", parts, [STEPS])
    assert told.evidence["num_attack_steps"] == [10, 40], "12 against 0, each neighbour 4 against 0"
    count = 2000
    parts = [rows("clean", [0] * count, [0] * count), read_out(range(40), 50, count), read_out(range(58), 100, count)]
    assert mcnemar(18, 0) < 1e-4
    assert of_kind("more steps help", parts, [STEPS])[0].severity == "passed"


def test_success_that_falls_with_more_steps_is_told():
    def aimed(hits: range, steps: int) -> dict[str, Any]:
        answers = np.where(np.isin(np.arange(200), list(hits)), 2, 1)
        return rows("pgd", answers, [0] * 200, [2] * 200, num_steps=steps)

    targeted = [STEPS | {"objective": "targeted"}]
    (told,) = of_kind("more steps help", [CLEAN, aimed(range(60), 50), aimed(range(40), 100)], targeted)
    assert "success falls by 10.0 points" in told.sentence
    assert (
        of_kind("more steps help", [CLEAN, aimed(range(40), 50), aimed(range(60), 100)], targeted)[0].severity
        == "passed"
    )
    (alone,) = of_kind("more steps help", [CLEAN, aimed(range(60), 50)], targeted)
    assert alone.severity == "unchecked"


def test_an_attack_that_still_gains_has_not_converged():
    parts = [CLEAN, read_out(range(100), 20), read_out(range(80), 50), read_out(range(70), 100)]
    (told,) = of_kind("converged", parts, [STEPS])
    assert (told.severity, told.evidence["num_attack_steps"], told.evidence["fall"]) == ("warning", [50, 100], 0.05)
    low, high = told.evidence["interval"]
    assert 0 < low < 0.05 < high
    assert "More attack steps would lower it further" in told.advice
    parts = [CLEAN, read_out(range(80), 50), read_out(range(10, 83), 100)]
    (noise,) = of_kind("converged", parts, [STEPS])
    assert noise.severity == "passed", "7 points, but 10 against 3"
    (little,) = of_kind("converged", [CLEAN, read_out(range(80), 50), read_out(range(76), 100)], [STEPS])
    assert (little.severity, little.evidence["fall"]) == ("passed", 0.02)


def test_read_outs_close_together_do_not_say_whether_an_attack_has_converged():
    (told,) = of_kind("converged", [CLEAN, read_out(range(80), 60), read_out(range(60), 100)], [STEPS])
    assert told.severity == "unchecked"
    parts = [CLEAN, read_out(range(100), 50), read_out(range(80), 60), read_out(range(60), 100)]
    assert of_kind("converged", parts, [STEPS])[0].evidence["num_attack_steps"] == [50, 100], (
        "the last that is far enough"
    )
    assert of_kind("converged", [CLEAN, read_out(range(80), 100)], [STEPS])[0].severity == "unchecked"


def test_restarts_that_matter_are_told_with_the_fall_that_the_scores_show():
    first, second = (read_out(right, 100, restart=r) for r, right in enumerate([range(100), range(10, 110)]))
    table = to_table(join(CLEAN, first, second))
    one, two = (score.num_correct for score in scores_by_restarts(table, (1,)) if score.attack == "pgd")
    (told,) = of_kind("restarts", [CLEAN, first, second], [STEPS])
    assert told.severity == "note"
    assert told.evidence["fall"] == (one - two) / 200 == 0.05
    (little,) = of_kind("restarts", [CLEAN, first, read_out(range(4, 104), 100, restart=1)], [STEPS])
    assert (little.severity, little.evidence["fall"]) == ("passed", 0.02)
    assert of_kind("restarts", [CLEAN, first], [STEPS])[0].severity == "unchecked"
    assert (
        of_kind("restarts", [CLEAN, first, second], [STEPS | {"objective": "multitargeted"}])[0].severity == "unchecked"
    )


def test_restarts_in_a_cascade_are_compared_on_those_that_the_attack_met():
    """'pgd' leaves 100; a second attack meets those, breaks 20 of them at first, and 10 more at its second start."""
    later = STEPS | {"name": "later"}
    parts = [
        CLEAN,
        read_out(range(100), 100),
        rows("later", predicted(range(80), 100), [0] * 100, num_steps=100),
        not_run("later", [0] * 100, num_steps=100, first=100),
        rows("later", predicted(range(70), 80), [0] * 80, num_steps=100, restart=1),
        not_run("later", [0] * 120, num_steps=100, first=80, restart=1),
    ]
    (told,) = of_kind("restarts", parts, [STEPS, later], cascade=True)
    assert (told.evidence["attack"], told.evidence["fall"]) == ("later", 0.05)
    final = count_scores(to_table(join(*parts)), cascade=True)[-1]
    assert final.num_correct == 70, "80 after its first start"


@pytest.mark.parametrize(
    ("radius", "farthest", "severity"), [(0.1, 0.1, "passed"), (0.1, 0.10001, "error"), (0.1, 0.1000005, "passed")]
)
def test_images_outside_the_ball_are_an_error(radius, farthest, severity):
    part = read_out(range(9), 100)
    part["distance"] = np.where(np.arange(200) == 17, farthest, 0.05).astype(np.float32)
    (told,) = of_kind("ball", [CLEAN, part], [STEPS | {"radius": radius}])
    assert told.severity == severity
    assert told.evidence["pgd"]["largest"] == pytest.approx(farthest, rel=1e-6)
    (moved,) = of_kind("ball", [CLEAN, part], [{"name": "pgd", "kind": "transfer", "attack": PGD | {"radius": radius}}])
    assert moved.severity == severity, "of a transfer, the radius that the images were made with"


@pytest.mark.parametrize(
    ("right", "total", "num_classes", "severity"),
    [
        (0, 8, 1000, "warning"), (15, 100, 10, "note"), (40, 80, 2, "warning"), (2, 100, 10, "warning"),
        (20, 100, 10, "passed"), (2, 8, 1000, "passed"), (60, 80, 2, "passed"),
        (5, 8, 2, "note"), (0, 2, 10, "note"), (1, 3, 10, "note"),
    ],
)  # fmt: skip
def test_a_model_that_guesses_is_told_from_one_of_which_too_little_is_known(right, total, num_classes, severity):
    parts = [rows("clean", predicted(range(right), total), [0] * total)]
    (told,) = of_kind("clean accuracy", parts, [], model__num_classes=num_classes)
    assert told.severity == severity
    assert (wilson(right, total).low > 1 / num_classes) == (severity == "passed")
    assert ("Nothing can be said about robustness" in told.sentence) == (severity == "warning")


def test_a_subset_says_how_far_it_can_be_off():
    data = {"num_examples": 200, "num_available": 10000}
    (told,) = of_kind("subset", [CLEAN, read_out(range(100), 100)], [STEPS], data=data)
    assert told.severity == "note"
    low, high = finite_share(100, 200, 10000)
    assert told.evidence["interval_pgd"] == pytest.approx([low, high], abs=1e-6)
    assert f"from {100 * low:.1f}% to {100 * high:.1f}% for 'pgd' (50.0% of these)" in told.sentence
    assert "if these were drawn at random" in told.sentence, "an old ledger does not say"
    (whole,) = of_kind("subset", [CLEAN], [STEPS], data={"num_examples": 200, "num_available": 200})
    assert whole.severity == "passed"


def test_what_chance_can_do_is_never_less_than_the_interval_says():
    """Not half a width, which near 0 and 1 is half of what the far end is away."""
    for right, total in ((0, 8), (16, 16), (58, 60)):
        parts = [rows("clean", predicted(range(right), total), [0] * total)]
        (told,) = of_kind("subset", parts, [], data={"num_examples": total, "num_available": 10**6})
        low, high = told.evidence["interval_clean"]
        assert low <= right / total <= high
        exact = binomtest(right, total).proportion_ci(method="exact")
        assert (low, high) == pytest.approx((exact.low, exact.high), abs=2e-4), (
            "of nearly endless examples: Clopper and Pearson"
        )
        assert max(high - right / total, right / total - low) > 0.08


def test_of_examples_that_nearly_are_all_chance_can_change_little():
    parts = [rows("clean", predicted(range(970), 990), [0] * 990)]
    (told,) = of_kind("subset", parts, [], data={"num_examples": 990, "num_available": 1000})
    low, high = told.evidence["interval_clean"]
    assert 0.97 <= low < 970 / 990 <= high <= 0.98
    assert high - low < 0.003


@pytest.mark.parametrize(("chosen", "words"), [("drawn", "drawn at random"), ("listed", "those of a given list")])
def test_a_list_of_examples_gets_no_bounds_for_the_rest(chosen, words):
    parts = [rows("clean", predicted(range(4), 40), [0] * 40)]
    facts = {"data": {"num_examples": 40, "num_available": 200}, "informative": {"examples": chosen}}
    (told,) = of_kind("subset", parts, [], **facts)
    assert words in told.sentence
    assert ("95%" in told.sentence) == (chosen == "drawn")
    assert ("interval_clean" in told.evidence) == (chosen == "drawn")


@pytest.mark.parametrize(
    ("attacks", "severity", "words"),
    [
        ([STEPS], "passed", "100 steps, 'pgd'"),
        ([STEPS | {"num_attack_steps": 19}], "note", "has 19 steps"),
        ([STEPS | {"num_attack_steps": 1}], "note", "has 1 step:"),
        ([STEPS | {"objective": "divergence"}], "note", "aims elsewhere than away from the label"),
        ([STEPS | {"objective": "divergence"}, STEPS | {"name": "b"}], "passed", "'b'"),
        ([STEPS | {"objective": "targeted", "num_attack_steps": 1000}], "note", "no worst case"),
        ([STEPS | {"objective": "targeted"}, STEPS | {"name": "b", "num_attack_steps": 20}], "passed", "'b'"),
        ([STEPS | {"objective": "multitargeted"}], "passed", "'pgd'"),
        ([SEES["square"] | {"name": "pgd", "num_attack_steps": 5000}], "note", "No attack of the suite uses gradients"),
        ([{"name": "pgd", "kind": "transfer", "attack": PGD}], "note", "made on another model"),
        ([], "note", "has no attack"),
    ],
)
def test_a_suite_without_a_worst_case_is_told(attacks, severity, words):
    (told,) = of_kind("weak attack", [CLEAN], attacks)
    assert told.severity == severity
    assert words in told.sentence


def test_whether_anything_without_gradients_was_compared_is_told():
    def told(attacks: list[dict[str, Any]], cascade: bool = False) -> list[str]:
        parts = [CLEAN, *(rows(attack["name"], predicted(range(50)), [0] * 200, num_steps=100) for attack in attacks)]
        return [finding.severity for finding in of_kind("black box", parts, attacks, cascade=cascade)]

    square = SEES["square"] | {"name": "square"}
    assert told([STEPS]) == ["unchecked"]
    assert told([STEPS, square]) == ["passed"]
    assert told([STEPS | {"num_attack_steps": 10}, square]) == ["unchecked"]
    assert told([square]) == ["unchecked"]
    assert told([STEPS, square], cascade=True) == ["passed"]
    first = [CLEAN, rows("square", [0] * 200, [0] * 200)]
    assert of_kind("black box", first, [square], cascade=True)[0].severity == "unchecked", "with nothing before it"
    assert told([STEPS], cascade=True) == ["unchecked"]
    parts = [CLEAN, read_out(range(180), 100), rows("square", predicted(range(50)), [0] * 200)]
    assert of_kind("black box", parts, [STEPS, square]) == [], "the alarm says it"
    parts = [CLEAN, read_out(range(50), 100), rows("margin", predicted(range(48)), [0] * 200)]
    (margin,) = of_kind("other loss", parts, [STEPS, SEES["margin"] | {"name": "margin", "step_size": 0.01}])
    assert (margin.severity, margin.evidence["compared"][0]["only_this_breaks"]) == ("passed", 2)
