"""What records say about their evaluation: alarms where another attack clearly does better, and none where it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from s3ta.records import findings, mcnemar, to_table

from .hand_made import join, manifest, not_run, rows

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
    """Findings where each attack breaks these examples of forty."""
    parts = [rows("clean", [0] * COUNT, [0] * COUNT)]
    parts += [
        rows(name, np.isin(np.arange(COUNT), list(which)).astype(int), [0] * COUNT) for name, which in broken.items()
    ]
    named = [settings | {"name": name} for name, settings in attacks.items()]
    suite = {"name": "s", "attacks": named, "cascade": cascade, "left_out": list(left_out)}
    return findings(to_table(join(*parts)), manifest(suite=suite))


@pytest.mark.parametrize("name", SEES)
def test_an_attack_that_clearly_does_better_is_an_alarm(name):
    (told,) = found({"pgd": range(5), name: range(25)}, {"pgd": PGD, name: SEES[name]})
    assert (told.kind, told.severity) == ("gradient masking", "warning")
    assert f"'{name}'" in told.sentence
    assert "breaks 20 of 40 examples that stay right under 'pgd'; the other way round it is 0" in told.sentence


@pytest.mark.parametrize("name", SEES)
def test_as_good_or_by_chance_a_little_better_is_none(name):
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
        return findings(to_table(join(*parts)), manifest(suite=suite))

    assert told(False, 0, 8) == []
    assert told(True, 0, 8) == [], "whom square has not met yet it has not broken"
    assert "breaks 7 of 8 examples" in told(False, 7, 8)[0].sentence
    assert "breaks 3 of the 8 examples" in told(True, 3, 8)[0].sentence


def test_attacks_that_do_not_fit_the_model_are_told():
    (told,) = found({"pgd": range(5)}, {"pgd": PGD}, left_out=["steer-away-100", "all-glimpses-100"])
    assert (told.kind, told.severity) == ("fewer attacks", "note")
    assert "steer-away-100, all-glimpses-100" in told.sentence


def test_a_cut_by_the_budget_is_told_and_settled_records_are_not():
    parts = [rows("clean", [0] * 3, [0] * 3), rows("pgd", [1] * 3, [0] * 3)]
    suite = {"name": "s", "attacks": [PGD]}
    settled = to_table(join(*parts, not_run("pgd", [0] * 3, restart=1)))
    assert findings(settled, manifest(suite=suite)) == []
    cut = to_table(
        join(*parts, not_run("pgd", [0] * 3, restart=1, status="budget"), not_run("x", [0, 0, 0], status="budget"))
    )
    (told,) = findings(cut, manifest(suite=suite))
    assert told.kind == "incomplete"
    for words in ("3 records of 'pgd'", "3 records of 'x'", "upper bound", "'x' has no number at all"):
        assert words in told.sentence
    assert "'pgd' has no number" not in told.sentence


def test_an_old_style_manifest_raises_no_alarm_and_no_error():
    table = to_table(join(rows("clean", [0] * 9, [0] * 9), rows("untargeted-5", [1] * 9, [0] * 9)))
    assert findings(table, manifest()) == []
