"""Suites as data: settings reach the attacks that have them, names stay apart, what does not fit is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from s3ta.attacks import attack_cost, evaluation_step_size
from s3ta.errors import UserError
from s3ta.evaluate import (
    ATTACKS,
    SUITES,
    SUITES_AT_ANY_RADIUS,
    AttackContext,
    NamedAttack,
    Suite,
    attack_rounds,
    describe_suites,
    get_attack,
    get_suite,
    leaderboard_radius,
    max_cost,
    override_suite,
    shrink_suite,
    suite_of_attacks,
    transfer_suite,
)
from s3ta.records import is_tiny_suite

S3TA = AttackContext(16 / 255, 4)


def test_a_setting_goes_to_the_attacks_that_have_it() -> None:
    changed = override_suite(get_suite("unmask", S3TA), ["attack.keep=best"])
    kept = {a.name: getattr(a.attack, "keep", "none") for a in changed.attacks}
    assert kept == {"pgd-100": "best", "margin-100": "best", "spsa-20": "best", "square": "none"}
    same = override_suite(get_suite("unmask", S3TA), ["attack.loss=margin", "attack.num_targets=3"])
    assert [getattr(a.attack, "loss", None) for a in same.attacks] == ["margin", "margin", "margin", None]
    assert same.attacks[3].attack.num_targets == 3
    probes = override_suite(get_suite("unmask", S3TA), ["attack.gradient.num_directions=7"])
    assert probes.attacks[2].attack.gradient.num_directions == 7
    unchanged = suite_of_attacks(["pgd-100", "square"], S3TA)
    assert override_suite(unchanged, ["attack.keep=last"]).attacks == unchanged.attacks, "a value that it had already"


def test_a_value_that_one_attack_cannot_take_is_refused_and_never_skipped() -> None:
    """Else the suite's name would promise what one of its attacks does not do."""
    with pytest.raises(UserError, match="read_outs"):
        override_suite(suite_of_attacks(["pgd-100", "targeted-1000"], S3TA), ["attack.num_attack_steps=50"])
    with pytest.raises(UserError, match="has a loss of its own"):
        override_suite(suite_of_attacks(["pgd-100", "multitargeted-100"], S3TA), ["attack.loss=margin"])
    with pytest.raises(UserError, match="Unknown setting"):
        override_suite(suite_of_attacks(["pgd-100", "square"], S3TA), ["attack.keeps=best"])
    with pytest.raises(UserError, match="not an override"):
        override_suite(get_suite("unmask", S3TA), ["attack.keep"])


@pytest.mark.parametrize("name", SUITES_AT_ANY_RADIUS)
@pytest.mark.parametrize("at", [S3TA, AttackContext(0.1)], ids=["sequential", "plain"])
def test_suites_fit_any_model_and_radius_and_shrink(name: str, at: AttackContext) -> None:
    suite = get_suite(name, at)
    assert bool(suite.left_out) == (name in ("sequential", "strongest") and at.num_glimpses is None)
    radii = {a.attack.radius for a in suite.attacks}
    assert min(radii) == at.radius
    assert radii == {at.radius} or name == "local"
    small = shrink_suite(suite)
    assert len(small.attacks) == len(suite.attacks)
    assert max_cost(small, 1).total < min(1200, max_cost(suite, 1).total)
    assert small.num_examples == 8


def test_local_budgets_are_one_euclidean_length() -> None:
    """A corner of each ball: side share x radius is the same."""
    lengths = []
    for named in get_suite("local", AttackContext(4 / 255)).attacks:
        mask = named.attack.mask
        share = 1.0 if mask is None else mask.height * mask.width
        lengths.append(np.sqrt(share) * named.attack.radius)
    assert lengths == pytest.approx([4 / 255] * 3)


def test_every_attack_of_the_catalogue_can_be_named_and_costs_something() -> None:
    for name in ATTACKS:
        config = get_attack(name, S3TA)
        suite = suite_of_attacks([name], S3TA)
        assert suite.gallery_attack == name
        assert len(attack_rounds(suite)) == 1 + config.num_restarts
        assert max_cost(suite, 1).num_forwards > 3
        steps = name.rsplit("-", 1)[-1]
        assert not steps.isdigit() or config.num_attack_steps == int(steps), name
    with pytest.raises(UserError, match="Did you mean pgd-100"):
        get_attack("pgd-10", S3TA)


def test_a_cascade_has_no_read_outs_on_the_way() -> None:
    reading = NamedAttack(name="a", attack=get_attack("targeted-1000", S3TA))
    with pytest.raises(ValueError, match="read out at their end alone"):
        Suite(name="s", description="d", attacks=(reading,), cascade=True)
    strongest = get_suite("strongest", S3TA)
    assert strongest.cascade
    assert next(a for a in strongest.attacks if a.name == "pgd-100").attack.num_restarts == 10
    assert [a.name for a in strongest.attacks][-4:] == ["apgd-ce", "apgd-t", "fab-t", "square"]


# --- the paper's tables, number by number (protocol 4.1, E1 to E13) -----------------------------------------------

COMMON = {"norm": "linf", "mask": None, "random_start_prob": 1.0, "keep": "last", "eight_bit": False, "steering": None}
"""Of every attack of the paper: E4 (always a random start), E6 (last iterate)."""
PGD = {"kind": "pgd", "annealing": "constant", "momentum": 0.0, "loss": "cross_entropy", **COMMON}
# name: (kind of objective, radius in 255ths, step size in 255ths, steps, read-outs, restarts)
NUMBERS = {
    "table1": {
        "targeted-10": ("targeted", 16, 1.6, 10, (), 1),
        "targeted-1000": ("targeted", 16, 1.0, 1000, (100, 250, 1000), 1),
    },
    "table2": {
        "untargeted-200": ("untargeted", 16, 1.0, 200, (), 1),
        "margin-200": ("untargeted", 16, 1.0, 200, (), 1),
        "small-untargeted-200": ("untargeted", 4, 1.0, 200, (), 1),
        "small-margin-200": ("untargeted", 4, 1.0, 200, (), 1),
    },
    "table3": {"spsa-100": ("targeted", 16, 1.0, 100, (), 1)},
    "table4": {"targeted-10000": ("targeted", 16, 1.0, 10_000, (5000, 10_000), 1)},
    "table5": {"targeted-1000": ("targeted", 16, 1.0, 1000, (100, 1000), 100)},
    "table6": {"adam-250": ("targeted", 16, None, 250, (), 1)},
    "figure7": {},
}
EXAMPLES = {"table3": 1000, "table4": 2200, "table5": 1000}
GRADIENTS = {
    "table1": 1010,
    "table2": 800,
    "table3": 0,
    "table4": 10_000,
    "table5": 100_000,
    "table6": 250,
    "figure7": 0,
}
"""Per example: 10 + 1,000; four times 200; none; 10,000; 100 x 1,000; 250."""


@pytest.mark.parametrize("name", NUMBERS)
def test_a_table_of_the_paper_has_the_numbers_of_the_protocol(name: str) -> None:
    suite = get_suite(name)
    assert (suite.name, suite.num_examples, suite.cascade) == (name, EXAMPLES.get(name), False)
    assert [a.name for a in suite.attacks] == list(NUMBERS[name])
    for named in suite.attacks:
        objective, radius, step, steps, read_outs, restarts = NUMBERS[name][named.name]
        told = named.attack.model_dump()
        assert told["objective"] == objective
        assert told["radius"] * 255 == pytest.approx(radius, rel=1e-12)
        assert told["num_attack_steps"] == steps
        assert told["read_outs"] == read_outs
        assert told["num_restarts"] == restarts
        loss = "margin" if "margin" in named.name else "cross_entropy"
        if step is None:  # E10
            assert told["kind"] == "adam"
            assert told["learning_rates"] == ((0, 0.1), (100, 0.01), (200, 0.001))
            assert (told["beta1"], told["beta2"], told["epsilon"]) == (0.9, 0.999, 1e-9)
            assert {key: told[key] for key in COMMON} == COMMON
        else:
            assert told["step_size"] * 255 == pytest.approx(step, rel=1e-12)
            assert {key: told[key] for key in PGD} == PGD | {"loss": loss}
        gradient = (
            {"kind": "exact"} if name != "table3" else {"kind": "spsa", "num_directions": 4096, "delta": 0.01}
        )  # E11
        assert {key: told["gradient"][key] for key in gradient} == gradient
        assert suite.gallery_attack in NUMBERS[name]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_table_of_the_paper_costs_what_it_implies(name: str) -> None:
    suite = get_suite(name)
    num_gradients, num_forwards = max_cost(suite, 1)
    assert num_gradients == GRADIENTS[name]
    judged = sum(restarts for *_, restarts in NUMBERS[name].values()) + 1  # verdicts, the clean image's among them
    searched = 2 * 4096 * 100 if name == "table3" else num_gradients
    assert searched < num_forwards <= searched + 3 * judged
    assert max_cost(suite, 7).num_gradients == 7 * num_gradients
    assert name != "table3" or attack_cost(suite.attacks[0].attack) == (0, 819_200)


def test_attacks_of_one_name_are_one_attack() -> None:
    """Else two suites would share random numbers; and so restart 0 of Table 5 is Table 1's run."""
    known: dict[str, Any] = {}
    for name in NUMBERS:
        for named in get_suite(name).attacks:
            told = named.attack.model_dump(exclude={"read_outs", "num_restarts"})
            assert known.setdefault(named.name, told) == told
    at = AttackContext(16 / 255)
    for name in ("targeted-1000", "spsa-100", "adam-250"):
        assert get_attack(name, at).model_dump(exclude={"read_outs", "num_restarts"}) == known[name]


def test_step_sizes_follow_the_rule_of_feature_denoising() -> None:
    """X6, at 16/255, and where the paper states a step itself; at 8/255 and 4/255 ten steps of 1/255 cross the ball."""
    in_255 = [255 * evaluation_step_size(n) for n in (1, 10, 15, 16, 30, 100)]
    assert in_255 == pytest.approx([16, 1.6, 16 / 15, 1, 1, 1], rel=1e-12)
    assert [255 * evaluation_step_size(10, r / 255) for r in (4, 8, 12)] == pytest.approx([1, 1, 1.2], rel=1e-12)


def test_a_table_at_another_radius_has_steps_that_fit() -> None:
    changed = override_suite(get_suite("table1"), ["attack.radius=8/255"])
    assert changed.name == "table1+radius=8_255"
    assert "changed: radius=8/255" in changed.description
    steps = {a.name: 255 * a.attack.step_size for a in changed.attacks}
    assert steps == pytest.approx({"targeted-10": 1.0, "targeted-1000": 1.0}, rel=1e-12)
    assert {a.attack.radius for a in changed.attacks} == {8 / 255}
    far = override_suite(get_suite("table1"), ["attack.radius=0.3"])
    assert [a.attack.step_size for a in far.attacks] == pytest.approx([0.03, 1 / 255], rel=1e-12)
    by_hand = override_suite(get_suite("table1"), ["attack.radius=8/255", "attack.step_size=2/255"])
    assert {a.attack.step_size for a in by_hand.attacks} == {2 / 255}
    euclidean = override_suite(get_suite("table1"), ["attack.norm=l2", "attack.radius=0.5"])
    assert [a.attack.step_size for a in euclidean.attacks] == [a.attack.step_size for a in get_suite("table1").attacks]
    kept = override_suite(get_suite("table1"), ["attack.keep=best"])
    assert [a.attack.step_size for a in kept.attacks] == [a.attack.step_size for a in get_suite("table1").attacks]
    other = override_suite(get_suite("quick"), ["attack.radius=4/255"])
    assert {a.attack.step_size for a in other.attacks} == {2 / 255}, "a suite that does not follow the paper's rule"
    shorter = override_suite(get_suite("table6"), ["attack.num_attack_steps=201", "attack.radius=8/255"])
    assert [a.name for a in shorter.attacks] == ["adam-201"]
    assert shorter.attacks[0].attack.learning_rates == ((0, 0.1), (100, 0.01), (200, 0.001))


def test_table_2_at_one_radius_runs_each_attack_once() -> None:
    """And says which it left out; attacks that differ in more than the radius stay, even where a setting makes them equal."""
    changed = override_suite(get_suite("table2"), ["attack.radius=8/255"])
    assert [(a.name, a.attack.loss) for a in changed.attacks] == [
        ("untargeted-200", "cross_entropy"),
        ("margin-200", "margin"),
    ]
    assert changed.left_out == ("small-untargeted-200", "small-margin-200")
    assert changed.gallery_attack == "untargeted-200"
    both = override_suite(get_suite("table2"), ["attack.loss=dlr"])
    assert [a.name for a in both.attacks] == [
        "untargeted-200", "margin-200+dlr", "small-untargeted-200", "small-margin-200+dlr",
    ]  # fmt: skip


def test_table_2_warns_in_words() -> None:
    assert re.search("not like for like.*trained at the radius they are tested at", get_suite("table2").description)


def test_a_suite_without_attacks_takes_no_settings_of_attacks() -> None:
    suite = get_suite("figure7")
    assert [stage.name for stage in attack_rounds(suite)] == ["clean"]
    assert max_cost(suite, 3) == (0, 3)
    small = shrink_suite(suite)
    assert (small.name, small.attacks, small.num_examples, small.gallery_attack) == ("figure7-tiny", (), 8, None)
    assert override_suite(suite, []) == suite
    with pytest.raises(UserError, match=r"'figure7' attacks nothing, so 'attack\.radius=8/255' cannot be set"):
        override_suite(suite, ["attack.radius=8/255"])
    with pytest.raises(UserError, match="at least one"):
        suite_of_attacks([], S3TA)
    told = {"model": {"name": "m", "sha256": "aa"}, "suite": {"name": "figure7", "attacks": []}}
    with pytest.raises(UserError, match="attacked nothing"):
        transfer_suite(told)


@pytest.mark.parametrize("name", SUITES)
def test_every_stated_suite_shrinks(name: str) -> None:
    small = shrink_suite(get_suite(name))
    assert small.name == f"{name}-tiny"
    assert max_cost(small, 1).total <= 40
    assert len(small.attacks) == len(get_suite(name).attacks)
    assert is_tiny_suite(small.name)
    assert not is_tiny_suite(name)


def test_a_changed_trial_suite_is_still_named_a_trial() -> None:
    suite, changes = get_suite("quick"), ["attack.num_restarts=2", "attack.radius=4/255"]
    assert is_tiny_suite(override_suite(shrink_suite(suite), changes).name)
    assert not is_tiny_suite(override_suite(suite, changes).name)
    assert not is_tiny_suite("my-tinyset")


@pytest.mark.parametrize(
    ("num_classes", "radius"), [(10, 8 / 255), (100, 8 / 255), (999, 8 / 255), (1000, 4 / 255), (None, 8 / 255)]
)
def test_the_leaderboard_has_its_radius_by_the_number_of_classes(num_classes: int | None, radius: float) -> None:
    assert leaderboard_radius(num_classes) == radius


def test_robustbench_is_autoattack_on_everything() -> None:
    suite = get_suite("robustbench", AttackContext(8 / 255, None, 10))
    plain = get_suite("autoattack", AttackContext(8 / 255, None, 10))
    assert (suite.attacks, suite.cascade, suite.num_examples) == (plain.attacks, True, None)
    parts = [(a.name, a.attack.part, a.attack.num_attack_steps, a.attack.norm) for a in suite.attacks]
    assert parts == [
        ("apgd-ce", "apgd-ce", 100, "linf"),
        ("apgd-t", "apgd-t", 100, "linf"),
        ("fab-t", "fab-t", 100, "linf"),
        ("square", "square", 5000, "linf"),
    ]
    assert "8/255 for CIFAR, 4/255 for ImageNet" in suite.description
    told = {
        (radius, classes): get_suite("robustbench", AttackContext(radius / 255, None, classes)).description
        for radius in (4, 8)
        for classes in (10, 100, 1000, None)
    }
    assert [key for key, text in told.items() if "not the leaderboard's" in text] == [(4, 10), (4, 100), (8, 1000)]
    assert "for 1,000 classes is 4/255" in told[8, 1000]
    assert get_suite("robustbench", AttackContext(8 / 255, None, 3)).left_out == ("apgd-t",)


def test_every_suite_is_described_in_a_sentence() -> None:
    told = describe_suites()
    assert list(told) == [*SUITES, *SUITES_AT_ANY_RADIUS]
    for name, text in told.items():
        assert re.fullmatch(r"[A-Z][^\n]{20,250}\.", text), name
        assert ".." not in text
