"""Names, step sizes and descriptions follow the settings: whatever is changed, a name says what is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3ta.errors import UserError
from s3ta.evaluate import SUITES_AT_ANY_RADIUS, Suite, get_suite
from s3ta.evaluate.attack_catalogue import ATTACKS
from s3ta.workflow import SuiteChoice, choose_suite
from s3ta.workflow.model import OpenedModel
from tests.evaluate.toys import random_s3ta

SUBJECT = OpenedModel("m", random_s3ta(10), None, None, Path("m"))
"""Takes two glimpses."""


def chosen(*names: str, changes: tuple[str, ...] = (), radius: float | None = None, tiny: bool = False) -> Suite:
    """As the command line chooses: suites by their names, else single attacks."""
    (first, *_) = names
    suite, attacks = (None, list(names)) if first in ATTACKS else (first, [])
    return choose_suite(SUBJECT, SuiteChoice(suite, tuple(attacks), radius, changes, tiny))


def steps(suite: Suite) -> dict[str, float]:
    return {a.name: round(255 * a.attack.step_size, 6) for a in suite.attacks if hasattr(a.attack, "step_size")}


@pytest.mark.parametrize(
    ("attack", "number", "name", "step"),
    [
        ("targeted-100", 10, "targeted-10", 1.6),
        ("targeted-100", 5, "targeted-5", 3.2),
        ("targeted-100", 16, "targeted-16", 1.0),
        ("targeted-100", 1000, "targeted-1000", 1.0),
        ("spsa-100", 10, "spsa-10", 1.6),
        ("spsa-100", 12, "spsa-12", 1.333333),
        ("targeted-1000", 1200, "targeted-1200", 1.0),
    ],
)
def test_a_single_attack_of_the_paper_takes_the_papers_steps(attack: str, number: int, name: str, step: float) -> None:
    """E5's max(1, 16 / steps), so `targeted-10` is one attack, however it is asked for."""
    suite = chosen(attack, changes=(f"attack.num_attack_steps={number}",), radius=16 / 255)
    assert steps(suite) == {name: step}
    if name == "targeted-10":
        told = suite.attacks[0].attack.model_dump(exclude={"read_outs"})
        assert told == get_suite("table1").attacks[0].attack.model_dump(exclude={"read_outs"})
    by_hand = chosen(attack, changes=(f"attack.num_attack_steps={number}", "attack.step_size=2/255"), radius=16 / 255)
    assert steps(by_hand) == {name: 2.0}


def test_steps_of_other_attacks_stay_where_their_number_changes() -> None:
    assert steps(chosen("pgd-100", changes=("attack.num_attack_steps=10",), radius=16 / 255)) == {"pgd-10": 1.6}
    assert steps(chosen("pgd-100", changes=("attack.num_attack_steps=40",), radius=10 / 255)) == {"pgd-40": 1.0}
    assert steps(chosen("digits", changes=("attack.num_attack_steps=200",))) == {
        "untargeted-200": 2.55,
        "targeted-200": 2.55,
    }


@pytest.mark.parametrize("name", [*SUITES_AT_ANY_RADIUS, *(name for name in ATTACKS if name != "more-glimpses-100")])
@pytest.mark.parametrize("radius", ["4/255", "0.1"])
def test_attacks_use_the_radius_that_was_set(name: str, radius: str) -> None:
    """`attack.radius=R` and `--radius R` ask for one thing: step sizes, parts of a budget and description follow."""
    value = {"4/255": 4 / 255, "0.1": 0.1}[radius]
    changed, stated = chosen(name, changes=(f"attack.radius={radius}",)), chosen(name, radius=value)
    assert [(a.name, a.attack) for a in changed.attacks] == [(a.name, a.attack) for a in stated.attacks]
    assert changed.description == f"{stated.description}; changed: radius={radius}"
    assert changed.name == f"{name}+radius={radius.replace('/', '_')}"
    assert changed.num_examples == stated.num_examples


def test_the_local_budgets_stay_one_euclidean_length() -> None:
    suite = chosen("local", changes=("attack.radius=0.05",))
    assert [a.attack.radius for a in suite.attacks] == pytest.approx([0.05, 0.1, 0.2])
    assert "one Euclidean budget" in suite.description
    assert "by 1 at most" not in suite.description
    assert "pixels move by 1 at most, where the budget would be 1.6" in chosen("local", radius=0.4).description
    assert "by 1 at most" not in chosen("local", changes=("attack.norm=l2",), radius=3.0).description
    euclidean = chosen("local", changes=("attack.norm=l2",))
    assert "one Euclidean budget" not in euclidean.description
    assert euclidean.description == "the attacks of 'local'; changed: norm=l2"


@pytest.mark.parametrize(("radius", "expected"), [(None, 80 / 255), (0.5, 0.5), (8 / 255, 8 / 255), (3.0, 3.0)])
def test_a_stated_radius_is_that_of_the_l2_ball(radius: float | None, expected: float) -> None:
    """14.m, 20.g: RobustBench's 0.5 is 0.5; without any word it is ten times that of pixels."""
    (named,) = chosen("l2-100", radius=radius).attacks
    assert named.attack.radius == pytest.approx(expected)
    assert named.attack.step_size == pytest.approx(expected / 10)
    if radius is not None:
        (changed,) = chosen("l2-100", changes=(f"attack.radius={radius}",)).attacks
        assert (changed.attack.radius, changed.attack.step_size) == pytest.approx((radius, radius / 10))


def test_a_radius_above_1_needs_an_l2_ball() -> None:
    with pytest.raises(UserError, match=r"write 8/255, not 8"):
        chosen("pgd-100", radius=8.0)
    with pytest.raises(UserError, match=r"write 8/255, not 8"):
        chosen("strongest", radius=1.5)
    with pytest.raises(UserError, match="more than 1, the whole range of a pixel"):
        chosen("pgd-100", changes=("attack.radius=2",))
    for changes in (("attack.norm=l2", "attack.radius=2"), ("attack.radius=2", "attack.norm=l2")):
        (named,) = chosen("pgd-100", changes=changes).attacks
        assert (named.attack.norm, named.attack.radius, named.attack.step_size) == pytest.approx(("l2", 2, 0.2))
    for bad in ("attack.radius", "attack.radius=x", "attack.radius=-1"):
        with pytest.raises(UserError):
            chosen("pgd-100", changes=(bad,))


@pytest.mark.parametrize("name", ["small-box-100", "local-box-100", "local", "strongest", "square", "adam-250"])
@pytest.mark.parametrize("radius", [8.0, 1.01])
def test_a_stated_radius_above_1_is_refused_for_every_attack_on_pixels(name: str, radius: float) -> None:
    """Boxes go two and four times as far, but never beyond 1: `--radius 8` was taken for 1."""
    with pytest.raises(
        UserError, match=r"is not between 0 and 1, but '.*' moves pixels, which are: write 8/255, not 8"
    ):
        chosen(name, radius=radius)
    with pytest.raises(UserError, match=r"whole range of a pixel|more than pixels"):
        chosen(name, changes=(f"attack.radius={radius}",))


@pytest.mark.parametrize(
    "name", ["pgd-100", "unmask", "autoattack", "adam-250", "local", "small-box-100", "targeted-100"]
)
@pytest.mark.parametrize("radius", [0.5, 3.0])
def test_a_euclidean_radius_is_one_number_for_both_ways_to_state_it(name: str, radius: float) -> None:
    """All balls of the suite have that radius, boxes too: a Euclidean length is the same under any mask."""
    stated = chosen(name, changes=("attack.norm=l2",), radius=radius)
    for changes in ([f"attack.radius={radius}", "attack.norm=l2"], ["attack.norm=l2", f"attack.radius={radius}"]):
        changed = chosen(name, changes=tuple(changes))
        assert [(a.name, a.attack) for a in changed.attacks] == [(a.name, a.attack) for a in stated.attacks]
    assert {(a.attack.norm, a.attack.radius) for a in stated.attacks} == {("l2", radius)}
    last = chosen(name, changes=("attack.norm=l2", "attack.norm=linf"), radius=0.1)
    assert [a.attack for a in last.attacks] == [a.attack for a in chosen(name, radius=0.1).attacks]


@pytest.mark.parametrize("name", ["targeted-100", "spsa-100", "table2", "table4", "pgd-100", "adam-250"])
@pytest.mark.parametrize("radius", [(), ("attack.radius=4/255",)])
def test_attacks_of_no_steps_are_refused_in_a_sentence(name: str, radius: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"at least one step|must lie between 1 and num_attack_steps 0"):
        chosen(name, changes=("attack.num_attack_steps=0", *radius))


def test_steps_of_square_alone_are_its_queries() -> None:
    """The name said 5 and 5,000 were made. Beside attacks of steps, steps are not meant of it."""
    suite = chosen("square", changes=("attack.num_attack_steps=5",))
    assert (suite.name, suite.attacks[0].attack.num_attack_steps) == ("square+num_attack_steps=5", 5)
    both = chosen("autoattack", changes=("attack.num_attack_steps=5",))
    assert {a.name: a.attack.num_attack_steps for a in both.attacks}["square"] == 5000
    with pytest.raises(UserError, match="num_attack_steps"):
        chosen("square", changes=("attack.num_attack_steps=0",))


@pytest.mark.parametrize(
    ("attack", "change", "name"),
    [
        ("targeted-100", "attack.objective=untargeted", "untargeted-100"),
        ("multitargeted-100", "attack.objective=untargeted", "untargeted-100"),
        ("targeted-100", "attack.objective=divergence", "divergence-100"),
        ("pgd-100", "attack.objective=targeted", "pgd-100+targeted"),
        ("margin-100", "attack.loss=cross_entropy", "margin-100+cross_entropy"),
        ("dlr-100", "attack.loss=margin", "dlr-100+margin"),
        ("annealed-100", "attack.annealing=constant", "annealed-100+constant"),
        ("annealed-margin-100", "attack.loss=dlr", "annealed-margin-100+dlr"),
        ("momentum-100", "attack.momentum=0.5", "momentum-100+momentum=0.5"),
        ("momentum-100", "attack.momentum=0", "momentum-100+no_momentum"),
        ("l2-100", "attack.norm=linf", "l2-100+linf"),
        ("local-box-100", "attack.mask=null", "local-box-100+no_mask"),
        ("all-glimpses-100", "attack.glimpses=last", "all-glimpses-100+last"),
        ("more-glimpses-100", "attack.num_glimpses=3", "more-glimpses-100+num_glimpses=3"),
        ("steer-away-100", "attack.steering=null", "steer-away-100+no_steering"),
        ("pgd-100", "attack.gradient.kind=spsa", "pgd-100+spsa"),
        ("spsa-20", "attack.gradient.kind=exact", "spsa-20+exact"),
        ("pgd-100", "attack.loss=margin", "pgd-100"),
        ("margin-100", "attack.keep=best", "margin-100"),
    ],
)
def test_the_name_of_a_changed_attack_says_what_is_run(attack: str, change: str, name: str) -> None:
    suite = chosen(attack, changes=(change,), radius=0.1)
    assert [a.name for a in suite.attacks] == [name]
    assert suite.gallery_attack == name


def test_attacks_that_a_change_makes_one_run_once() -> None:
    quick = chosen("quick", changes=("attack.objective=untargeted",))
    assert [a.name for a in quick.attacks] == ["untargeted-20"]
    assert quick.left_out == ("targeted-20",)
    assert quick.description == "the attacks of 'quick'; changed: objective=untargeted"
    long = chosen("table1", changes=("attack.num_attack_steps=2000",))
    assert [(a.name, a.attack.read_outs) for a in long.attacks] == [("targeted-2000", (100, 250, 1000))]
    assert long.left_out == (), "its stem is that of the attack that is run"
    apart = chosen("pgd-100", "margin-100", changes=("attack.loss=margin",))
    assert len(apart.attacks) == 2, "another loss is another attack, also where a setting makes it the same"


@pytest.mark.parametrize("name", ["table1", "quick", "local", "targeted-100"])
def test_a_trial_suite_takes_overrides_too(name: str) -> None:
    suite = chosen(name, changes=("attack.radius=4/255",), tiny=True)
    assert "-tiny+radius=4_255" in suite.name
    assert min(a.attack.radius for a in suite.attacks) == 4 / 255
