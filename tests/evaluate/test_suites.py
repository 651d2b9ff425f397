"""Suites as data: settings reach the attacks that have them, names stay apart, what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from s3ta.errors import UserError
from s3ta.evaluate import (
    ATTACKS,
    SUITES_AT,
    NamedAttack,
    Situation,
    Suite,
    changed_suite,
    get_attack,
    get_suite,
    stages,
    suite_of,
    tiny_suite,
    total,
)

S3TA = Situation(16 / 255, 4)


def test_a_setting_goes_to_the_attacks_that_have_it() -> None:
    changed = changed_suite(get_suite("unmask", S3TA), ["attack.keep=best"])
    kept = {a.name: getattr(a.attack, "keep", "none") for a in changed.attacks}
    assert kept == {"pgd-100": "best", "margin-100": "best", "spsa-20": "best", "square": "none"}
    same = changed_suite(get_suite("unmask", S3TA), ["attack.loss=margin", "attack.num_targets=3"])
    assert [getattr(a.attack, "loss", None) for a in same.attacks] == ["margin", "margin", "margin", None]
    assert same.attacks[3].attack.num_targets == 3
    probes = changed_suite(get_suite("unmask", S3TA), ["attack.gradient.num_directions=7"])
    assert probes.attacks[2].attack.gradient.num_directions == 7
    unchanged = suite_of(["pgd-100", "square"], S3TA)
    assert changed_suite(unchanged, ["attack.keep=last"]).attacks == unchanged.attacks, "a value that it had already"


def test_a_value_that_one_attack_cannot_take_is_refused_and_never_skipped() -> None:
    """Else the suite's name would promise what one of its attacks does not do."""
    with pytest.raises(UserError, match="read_outs"):
        changed_suite(suite_of(["pgd-100", "targeted-1000"], S3TA), ["attack.num_attack_steps=50"])
    with pytest.raises(UserError, match="has a loss of its own"):
        changed_suite(suite_of(["pgd-100", "multitargeted-100"], S3TA), ["attack.loss=margin"])
    with pytest.raises(UserError, match="Unknown setting"):
        changed_suite(suite_of(["pgd-100", "square"], S3TA), ["attack.keeps=best"])
    with pytest.raises(UserError, match="not an override"):
        changed_suite(get_suite("unmask", S3TA), ["attack.keep"])


@pytest.mark.parametrize("name", SUITES_AT)
@pytest.mark.parametrize("at", [S3TA, Situation(0.1)], ids=["sequential", "plain"])
def test_suites_fit_any_model_and_radius_and_shrink(name: str, at: Situation) -> None:
    suite = get_suite(name, at)
    assert bool(suite.left_out) == (name in ("sequential", "strongest") and at.num_glimpses is None)
    radii = {a.attack.radius for a in suite.attacks}
    assert min(radii) == at.radius
    assert radii == {at.radius} or name == "local"
    small = tiny_suite(suite)
    assert len(small.attacks) == len(suite.attacks)
    assert total(small, 1).num_evaluations < 1200 < total(suite, 1).num_evaluations or name in ("local", "sequential")
    assert small.num_examples == 8


def test_local_budgets_are_one_euclidean_length() -> None:
    """A corner of each ball: side share x radius is the same."""
    lengths = []
    for named in get_suite("local", Situation(4 / 255)).attacks:
        mask = named.attack.mask
        share = 1.0 if mask is None else mask.height * mask.width
        lengths.append(np.sqrt(share) * named.attack.radius)
    assert lengths == pytest.approx([4 / 255] * 3)


def test_every_attack_of_the_catalogue_can_be_named_and_costs_something() -> None:
    for name in ATTACKS:
        config = get_attack(name, S3TA)
        suite = suite_of([name], S3TA)
        assert suite.gallery_attack == name
        assert len(stages(suite)) == 1 + config.num_restarts
        assert total(suite, 1).num_forwards > 3
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
