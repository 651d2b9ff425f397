"""Attacks that cannot do what their radius says: told from their settings, from how far images went, and from what the
checks' own short attack did to the same images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from s3ta.attack_settings_checks import mask_share
from s3ta.records import Finding, check_attack_settings, check_records, reduce_restarts, to_table
from s3ta.records.checks_perturbation_size import ball_used
from s3ta.records.checks_weaker_than_short_pgd import weaker_than_checks

from .hand_made import join, rows, typed

PGD = {
    "name": "pgd", "kind": "pgd", "objective": "untargeted", "loss": "cross_entropy", "norm": "linf", "radius": 8 / 255,
    "step_size": 0.8 / 255, "num_attack_steps": 100, "annealing": "constant", "mask": None, "keep": "last",
    "gradient": {"kind": "exact"}, "eight_bit": False,
}  # fmt: skip
ADAM = {key: value for key, value in PGD.items() if key not in ("step_size", "annealing")} | {
    "kind": "adam", "num_attack_steps": 250, "learning_rates": [[0, 0.1], [100, 0.01], [200, 0.001]],
}  # fmt: skip
QUARTER = {"kind": "box", "height": 0.5, "width": 0.5}
CORNER = {"kind": "grid", "rows": ["#...", "....", "....", "...."]}
L2 = {"norm": "l2", "step_size": 0.05, "radius": 0.5}


def told(shape: list[int] | None = None, base: dict[str, Any] = PGD, **changes: Any) -> list[tuple[str, str]]:
    facts = typed(suite__attacks=[base | changes], data__shape=shape or [3, 32, 32])
    return [(one.kind, one.severity) for one in check_attack_settings(facts)]


SLIVER = {"kind": "grid", "rows": ["." * 200 + "#"]}
NOTHING = ("small ball", "note")
SHORT, LONG = ("short steps", "warning"), ("long steps", "warning")
SMALL, LARGE = ("small ball", "warning"), ("large ball", "note")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"step_size": 0.1, "radius": 0.03}, [LONG]),  # a report's own numbers
        ({"step_size": 9 / 255}, [LONG]),
        ({"step_size": 8 / 255}, []),
        ({"step_size": 16 / 255, "annealing": "cosine"}, []),  # AutoAttack's first step
        ({"step_size": 17 / 255, "annealing": "linear"}, [LONG]),
        ({"step_size": 8 / 255, "num_attack_steps": 1}, []),  # FGSM
        ({"step_size": 10 / 255, "num_attack_steps": 1}, []),  # and from a random start (Wong et al. 2020)
        ({"step_size": 0.05 / 255}, [SHORT]),
        ({"step_size": 0.1 / 255, "annealing": "cosine"}, [SHORT]),
        ({"step_size": 8 / 255, "annealing": "cosine"}, []),
        ({"num_attack_steps": 9}, [SHORT]),
        ({"radius": 0.0, "step_size": 0.0}, [NOTHING]),
        ({"radius": 1e-12}, [LONG, NOTHING]),
        ({"radius": 0.4 / 255, "step_size": 0.1 / 255}, [NOTHING]),
        ({"radius": 0.6 / 255, "step_size": 0.1 / 255}, []),
        ({"mask": SLIVER}, [("region", "error")]),
        ({"mask": {"kind": "grid", "rows": ["#" + "." * 200 + "#"]}}, [("region", "error")]),  # in part
        ({"steering": {"towards": "region", "region": SLIVER}}, [("region", "error")]),
        ({"gradient": {"kind": "exact", "max_shift": 1000}}, [("large shift", "warning")]),
        ({"gradient": {"kind": "exact", "max_shift": 9}}, [("large shift", "warning")]),
        ({"gradient": {"kind": "exact", "max_shift": 8}}, []),
        ({"radius": 8.0 / 255, "step_size": 0.0}, [SHORT]),  # of a manifest that was written before it was refused
        ({"radius": 0.5, "step_size": 0.05}, [LARGE]),
        ({"radius": 0.5, "step_size": 0.05, "mask": QUARTER}, [LARGE]),
        ({"radius": 1.0, "step_size": 0.1, "mask": CORNER}, [LARGE]),
        ({"radius": 0.4, "step_size": 0.04, "mask": QUARTER}, []),
        ({"eight_bit": True, "radius": 0.5 / 255, "step_size": 0.5 / 255}, [SMALL]),
        ({"eight_bit": True, "radius": 1 / 255, "step_size": 0.5 / 255}, []),
    ],
)
def test_settings_of_pixel_attacks_that_cannot_reach_far_are_remarked(changes, expected):
    assert told(**changes) == expected


@pytest.mark.parametrize(
    ("shape", "changes", "expected"),
    [
        ([3, 32, 32], {}, []),  # RobustBench's
        ([3, 32, 32], {"radius": 8 / 255, "step_size": 0.003}, [SMALL]),
        ([3, 32, 32], {"radius": 16 / 255, "step_size": 0.01}, [SMALL]),
        ([3, 32, 32], {"radius": 0.1, "step_size": 0.01}, [("small ball", "note")]),
        ([3, 224, 224], {"radius": 3.0, "step_size": 0.3}, []),
        ([3, 224, 224], {"radius": 0.5}, [("small ball", "note")]),
        ([3, 224, 224], {"radius": 4 / 255, "step_size": 0.003}, [SMALL]),
        ([1, 28, 28], {"radius": 2.0, "step_size": 0.2}, []),
        ([1, 28, 28], {"radius": 8 / 255, "step_size": 0.003}, [SMALL]),
        ([3, 32, 32], {"radius": 8 / 255, "step_size": 0.003, "mask": CORNER}, [("small ball", "note")]),
        ([3, 32, 32], {"radius": 0.07, "step_size": 0.007, "mask": CORNER}, []),
        ([3, 32, 32], {"radius": 28.0, "step_size": 2.8}, [LARGE]),
        ([3, 32, 32], {"radius": 14.0, "step_size": 1.4, "mask": QUARTER}, [LARGE]),
        ([3, 32, 32], {"radius": 0.05, "step_size": 0.005, "kind": "autoattack", "part": "apgd-ce"}, [SMALL]),
    ],
)
def test_implausible_l2_radii_are_remarked(shape, changes, expected):
    """Beside one grey level at every pixel that may move: sqrt(values) / 255."""
    assert told(shape, **L2 | changes) == expected


def test_rates_of_adam_and_settings_of_a_transfer_are_looked_at_too():
    assert told(base=ADAM) == []
    assert told(base=ADAM, learning_rates=[[0, 1e-4], [100, 1e-5]]) == [SHORT]
    assert told(base=ADAM, epsilon=1000.0) == told(base=ADAM, epsilon=2e-3) == [SHORT]
    assert told(base=ADAM, epsilon=1e-3) == told(base=PGD, epsilon=1000.0) == []
    assert told(base=ADAM, radius=0.5, num_attack_steps=3) == [SHORT, LARGE]
    assert told(base={"name": "t", "kind": "transfer", "attack": PGD | {"num_attack_steps": 5}}) == [SHORT]
    assert check_attack_settings(typed(suite__attacks=[{"name": "old"}, PGD])) == []


def test_settings_are_told_with_the_records_too():
    attack = PGD | {"step_size": 0.1}
    table = to_table(join(rows("clean", [0] * 9, [0] * 9), rows("pgd", [0] * 9, [0] * 9, num_steps=100)))
    (long,) = [one for one in check_records(table, typed(suite__attacks=[attack])) if one.kind == "long steps"]
    assert "takes steps of 0.1 in a ball of radius 8/255" in long.sentence


@pytest.mark.parametrize(("share", "alarms"), [(0.24, 1), (0.6, 0), (1.0, 0)])
def test_images_that_use_little_of_an_l2_ball_are_told(share, alarms):
    """As those of masked attacks whose steps were shortened by what they may not move (W2)."""
    attack = PGD | L2 | {"mask": QUARTER, "radius": 1.0}
    part = rows("pgd", [0] * 9, [0] * 9, num_steps=100)
    part["distance"] = np.full(9, share, np.float32)
    table = to_table(join(rows("clean", [0] * 9, [0] * 9), part))
    assert len(ball_used(table, typed(suite__attacks=[attack]).suite)) == alarms
    assert ball_used(table, typed(suite__attacks=[attack | {"keep": "best"}]).suite) == []
    assert ball_used(table, typed(suite__attacks=[attack | {"norm": "linf"}]).suite) == []


def test_advice_names_settings_that_the_attack_has():
    def of(attack: dict[str, Any]) -> Finding:
        return check_attack_settings(typed(suite__attacks=[attack | {"num_attack_steps": 1}]))[0]

    assert "attack.learning_rates" in of(ADAM | {"learning_rates": [[0, 1e-3]]}).advice
    assert "attack.step_size" in of(PGD).advice
    assert "1 step goes" in of(PGD).sentence


def test_an_l2_ball_is_judged_by_the_pixels_a_mask_really_covers():
    """A column of 7 cells that are the first of 8 pixels: two of eight, not one of seven."""
    mask = {"kind": "grid", "rows": ["#......"]}
    assert mask_share(mask, 8, 8) == 2 / 8
    assert mask_share({"kind": "box", "height": 0.01, "width": 0.5}, 8, 8) == 1 / 16, "a pixel at least"
    assert mask_share(None, 8, 8) == 1


def stayed(distances: Any, num_broken: int = 0, **changes: Any) -> list[str]:
    """What is said of eleven images that end so far from the clean ones, in a ball of 8/255."""
    part = rows("pgd", [1] * num_broken + [0] * (11 - num_broken), [0] * 11, num_steps=100)
    part["distance"] = np.broadcast_to(np.asarray(distances, np.float32), 11).copy()
    table = to_table(join(rows("clean", [0] * 11, [0] * 11), part))
    return [one.kind for one in ball_used(table, typed(suite__attacks=[PGD | changes]).suite)]


@pytest.mark.parametrize(
    "changes", [{}, {"keep": "best"}, {"gradient": {"kind": "spsa"}}, {"objective": "targeted"}, {"eight_bit": True}]
)
def test_images_that_stay_where_they_were_say_nothing(changes):
    assert stayed(0, **changes) == stayed(0.1 / 255, **changes) == ["did not move"]
    assert stayed(0, num_broken=9, **changes) == ["did not move"]
    assert stayed(8 / 255, **changes) == stayed(1 / 255, **changes) == []


def test_images_that_stay_for_a_good_reason_are_no_alarm():
    assert stayed(0, num_broken=11) == [], "broken without a move"
    assert stayed(0, num_broken=10) == [], "a single image"
    assert stayed([0.0, 0.0] + [8 / 255] * 9) == [], "a few of many"
    assert stayed([0.0] * 9 + [8 / 255] * 2, num_broken=9) == [], "they ended early, for they were broken"
    assert stayed(0, kind="autoattack", part="fab-t") == [], "it returns the clean image where it fails"
    assert stayed(0, radius=0.0) == stayed(0, radius=1e-12) == [], "the settings say it"


# --- beside the checks' own attack ------------------------------------------------------------------------------------

IDS = [f"ex-{i}" for i in range(40)]


def compared(suite_breaks: int, checks_break: int, tried: int = 32, **changes: Any) -> list[Finding]:
    """The suite breaks the first so many of forty; the checks, of those that they tried, the first so many too."""
    told = {"tried": IDS[:tried], "broken": IDS[:checks_break], "radius": 8 / 255}
    probes = [Finding("larger radius", "passed", "."), Finding("loss still rising", "passed", ".", told)]
    predictions = (np.arange(40) < suite_breaks).astype(int)
    table = to_table(join(rows("clean", [0] * 40, [0] * 40), rows("pgd", predictions, [0] * 40, num_steps=100)))
    facts = typed(suite__attacks=[PGD | changes])
    found = weaker_than_checks(reduce_restarts(table), facts.suite, probes)
    assert [one for one in check_records(table, facts, probes) if one.kind == "weaker than checks"] == found
    return found


@pytest.mark.parametrize(
    ("suite_breaks", "checks_break", "severity"),
    [(10, 20, "warning"), (0, 6, "warning"), (10, 15, "passed"), (20, 10, "passed"), (32, 32, "passed")],
)
def test_a_suite_that_breaks_clearly_less_than_a_short_attack_is_told(suite_breaks, checks_break, severity):
    (found,) = compared(suite_breaks, checks_break)
    assert found.severity == severity
    assert found.evidence["only_checks_break"] == max(0, checks_break - suite_breaks)
    assert found.evidence["only_suite_breaks"] == max(0, min(suite_breaks, 32) - checks_break)
    assert found.evidence["num_examples"] == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "targeted"}, {"norm": "l2"}, {"mask": QUARTER}, {"radius": 4 / 255}, {"eight_bit": True},
        {"gradient": {"kind": "spsa"}}, {"kind": "autoattack", "part": "square"},
    ],
)  # fmt: skip
def test_an_attack_with_a_smaller_radius_is_not_held_against_the_suite(changes):
    assert compared(0, 30, **changes) == []


def test_a_divergence_suite_is_warned_and_its_advice_names_another_attack():
    assert compared(0, 30, objective="divergence")[0].severity == "warning"
    assert "--attack pgd-100" in compared(0, 30)[0].advice
    probes = [Finding("x", "passed", ".", {"tried": IDS, "broken": IDS, "radius": 8 / 255})]
    table = to_table(join(rows("clean", [0] * 40, [0] * 40), rows("pgd-100", [0] * 40, [0] * 40, num_steps=100)))
    facts = typed(suite__attacks=[PGD | {"name": "pgd-100"}])
    (found,) = weaker_than_checks(reduce_restarts(table), facts.suite, probes)
    assert "pgd-100" in found.sentence
    assert "--attack annealed-100" in found.advice


def test_an_attack_with_a_larger_radius_is_held_against_the_suite():
    assert compared(0, 30, radius=16 / 255)[0].severity == "warning"


def test_without_checks_no_attack_is_compared():
    assert weaker_than_checks([], typed(suite__attacks=[PGD]).suite, []) == []
    assert weaker_than_checks([], typed(suite__attacks=[PGD]).suite, [Finding("probes", "unchecked", ".")]) == []
