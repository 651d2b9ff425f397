"""What changes on the way: learning rate (X28), curriculum (X27, T23), clean phase and radius ramp."""

import math
from itertools import pairwise

import pytest

from s3ta.attacks import PGDConfig
from s3ta.train import ScheduleConfig
from s3ta.train.schedule import attack_at, attack_scale, glimpses_at, learning_rate

PER_EPOCH = 1251  # round(1,281,167 / 1024)
PAPER = ScheduleConfig(
    num_train_steps=120 * PER_EPOCH,
    warmup_steps=5 * PER_EPOCH,
    warmup_from=0.05,
    decay="steps",
    decay_at=(35 * PER_EPOCH, 70 * PER_EPOCH, 95 * PER_EPOCH),
    decay_factor=0.1,
    glimpses=((0, 4), (35 * PER_EPOCH, 8), (70 * PER_EPOCH, 16)),
)
ATTACK = PGDConfig(radius=0.1, step_size=0.02, num_attack_steps=5, random_start_prob=0.8)


def _first(epoch):
    """The first step of an epoch, counted from 1 as the protocol does."""
    return (epoch - 1) * PER_EPOCH


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.05),
        (6254, 0.2),
        (6255, 0.2),
        (_first(36), 0.02),
        (_first(71), 0.002),
        (_first(96), 0.0002),
        (120 * PER_EPOCH - 1, 0.0002),
        (_first(36) - 1, 0.2),
        (_first(71) - 1, 0.02),
        (_first(96) - 1, 0.002),
        (_first(6), 0.2),
    ],
)
def test_learning_rate_of_the_paper(step, rate):
    assert learning_rate(PAPER, 0.2, step) == pytest.approx(rate, rel=1e-3 if step == 6254 else 1e-12)


def test_warm_up_is_linear_per_step_and_stays_below_the_peak():
    rates = [learning_rate(PAPER, 0.2, step) for step in range(6256)]
    differences = [b - a for a, b in pairwise(rates)]
    assert min(differences) > 0
    assert max(differences) == pytest.approx(0.15 / 6255, rel=1e-6)
    assert min(differences) == pytest.approx(0.15 / 6255, rel=1e-6)
    assert rates[6254] < rates[6255] == 0.2


def test_default_is_the_papers_length_without_warm_up():
    assert ScheduleConfig().num_train_steps == 150_120 == 120 * PER_EPOCH
    assert learning_rate(ScheduleConfig(), 0.2, 0) == 0.2
    assert ScheduleConfig().warmup_from == 0.05


def test_cosine_goes_from_the_peak_to_almost_nothing():
    cosine = ScheduleConfig(num_train_steps=100, decay="cosine")
    assert learning_rate(cosine, 2.0, 0) == 2.0
    assert learning_rate(cosine, 2.0, 50) == pytest.approx(1.0)
    assert learning_rate(cosine, 2.0, 25) == pytest.approx(1 + math.sqrt(0.5))
    rates = [learning_rate(cosine, 2.0, step) for step in range(100)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.001
    warm = ScheduleConfig(num_train_steps=100, warmup_steps=20, warmup_from=0.5, decay="cosine")
    assert [learning_rate(warm, 2.0, step) for step in (0, 10, 20, 60)] == pytest.approx([0.5, 1.25, 2.0, 1.0])


def test_curriculum_of_s3ta_16():
    for epoch in range(1, 121):
        expected = 4 if epoch <= 35 else 8 if epoch <= 70 else 16
        assert {glimpses_at(PAPER, step) for step in (_first(epoch), _first(epoch) + 600, _first(epoch + 1) - 1)} == {
            expected
        }


def test_without_a_curriculum_the_model_decides():
    assert glimpses_at(ScheduleConfig(), 0) is None
    late = ScheduleConfig(glimpses=((5, 3),))
    assert [glimpses_at(late, step) for step in (0, 4, 5, 99)] == [None, None, 3, 3]


def test_clean_phase_then_ramp():
    schedule = ScheduleConfig(clean_steps=3, radius_ramp_steps=4)
    assert [attack_scale(schedule, step) for step in range(9)] == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    attacks = [attack_at(schedule, ATTACK, step) for step in range(8)]
    assert attacks[:3] == [None, None, None]
    assert attacks[4] == ATTACK.model_copy(update={"radius": 0.05, "step_size": 0.01})
    assert [a.radius for a in attacks[3:]] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert [a.step_size for a in attacks[3:]] == pytest.approx([0.005, 0.01, 0.015, 0.02, 0.02])
    assert attacks[6] == ATTACK


def test_the_paper_attacks_from_the_first_step():
    assert attack_at(ScheduleConfig(), ATTACK, 0) == ATTACK
    assert [attack_scale(ScheduleConfig(clean_steps=2), step) for step in range(4)] == [0, 0, 1, 1]
