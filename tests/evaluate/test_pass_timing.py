"""How long a pass takes is measured for a moment, also of a model so slow that one pass is that moment."""

from __future__ import annotations

import pytest
import torch

from s3ta.attacks import SPSA, PGDConfig
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, attack_rounds, pass_timing
from s3ta.models import ExecutionMode
from tests.evaluate.small import SETTINGS, small_suite, some_digits


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [0.0]
    monkeypatch.setattr(pass_timing.time, "perf_counter", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("takes", "seconds", "calls"),
    [
        ([0.5, 0.2, 0.3], 0.2, 3),  # the first warms up
        ([0.1, 0.3, 0.2], 0.2, 3),
        ([9.0, 8.0, 7.0], 9.0, 1),
        ([1.0, 0.9, 0.1], 0.9, 2),
    ],
)
def test_a_slow_pass_is_timed_once_and_a_quick_pass_three_times(clock, takes, seconds, calls):
    left = list(takes)

    def work() -> None:
        clock[0] += left.pop(0)

    assert pass_timing._seconds(work) == pytest.approx(seconds)
    assert len(takes) - len(left) == calls


class _Timed(torch.nn.Module):
    """Lets time pass: more of it inside autocast, and for a gradient."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.inside, self.clock = torch.nn.Linear(3600, 10), clock

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.clock[0] += 0.01 * (8 if torch.is_autocast_enabled("cpu") else 1) * (3 if images.requires_grad else 1)
        return self.inside(images.flatten(1))

    def __deepcopy__(self, memo: dict) -> _Timed:
        return _Timed(self.clock)


def _evaluation(model, suite, settings=SETTINGS):
    return EvaluationTask(model, some_digits(3), suite, [0, 1, 2], settings)


def _pace(clock, *, precision="float32", gradients=True):
    model = _Timed(clock)
    settings = SETTINGS._replace(attack_execution=ExecutionMode(precision))
    return pass_timing.measure_pass_times(_evaluation(model, small_suite(), settings), gradients=gradients)


def test_gradients_are_timed_in_the_arithmetic_of_the_search_and_in_float32(clock):
    assert _pace(clock) == pytest.approx((0.03, 0.01, 0.03))
    assert _pace(clock, precision="bfloat16") == pytest.approx((0.24, 0.01, 0.03))
    assert _pace(clock, precision="bfloat16", gradients=False) == pytest.approx((0, 0.01, 0))


@pytest.mark.parametrize("directions", [None, 1, 4096])
def test_a_chunk_takes_what_short_runs_of_the_attack_itself_took(monkeypatch, clock, directions):
    """0.2 s for a run, and 0.004 s for a step with one direction: none of it is seen in a pass of a millisecond."""
    gradient = {} if directions is None else {"gradient": SPSA(num_directions=directions, micro_batch=80)}
    attack = PGDConfig(objective="untargeted", num_attack_steps=50, read_outs=(10,), **gradient)

    def run_chunk(evaluation, chunk, batch):
        config = chunk.attack_round.attack.attack
        clock[0] += 0.2 + 0.004 * config.num_attack_steps * getattr(config.gradient, "num_directions", 1)
        runs.append((config.num_attack_steps, config.read_outs, getattr(config.gradient, "num_directions", None)))

    runs = []
    monkeypatch.setattr(pass_timing, "run_chunk", run_chunk)
    suite = Suite(name="s", description="", attacks=(NamedAttack(name="a", attack=attack),), gallery_attack="a")
    model, pace = _Timed([0.0]), pass_timing.PassTimes(0.001, 0.001, 0.001)
    times = pass_timing.measure_attack_times(_evaluation(model, suite), attack_rounds(suite), pace)
    per_step = 0.004 * (directions or 1)
    assert times == pytest.approx({1: 0.2 + 50 * per_step + 0.001}, rel=0.02)
    assert [(steps, outs) for steps, outs, _ in runs] == [(1, ()), (1, ()), (runs[2][0], ())]
    assert all(number in (directions, 10) for _, _, number in runs), "probes are few while the time is taken"
    slow = pass_timing.PassTimes(0.2, 0.1, 0.2)
    assert pass_timing.measure_attack_times(_evaluation(model, suite), attack_rounds(suite), slow) == {}


def test_an_attack_that_raises_fails_in_the_run_not_in_its_estimate(monkeypatch):
    def run_chunk(*given):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pass_timing, "run_chunk", run_chunk)
    model, pace = _Timed([0.0]), pass_timing.PassTimes(0.001, 0.001, 0.001)
    assert pass_timing.measure_attack_times(_evaluation(model, small_suite()), attack_rounds(small_suite()), pace) == {}


def test_a_model_without_gradients_is_refused_where_they_are_needed():
    class Cut(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.detach().flatten(1)[:, :10]

    with pytest.raises(UserError, match="no gradient to the image"):
        pass_timing.measure_pass_times(_evaluation(Cut(), small_suite()), gradients=True)
    assert pass_timing.measure_pass_times(_evaluation(Cut(), small_suite()), gradients=False).gradient == 0
