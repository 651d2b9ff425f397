"""What is announced is all that follows: the look at the model, the attacks, and the checks within their fifth."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s3ta import demo
from s3ta.attacks import AttackCost
from s3ta.data import ClutteredDigits
from s3ta.demo import Contender, Passes
from s3ta.evaluate import EvaluationTask, PassTimes, Settings, Suite, attack_rounds, get_suite, max_cost
from s3ta.evaluate.sanity_checks import cost, num_evaluations
from s3ta.finding import Check
from s3ta.models import ExecutionMode
from s3ta.workflow import cost_estimate
from s3ta.workflow.checks_after import planned_probing, probing
from s3ta.workflow.cost_estimate import Upcoming, seconds
from tests.evaluate.small import small_model

QUICK = get_suite("quick")
SETTINGS = Settings(batch_size=50, num_threads=1)
NOTHING = AttackCost(0, 0)


def _of(num_examples: int, settings: Settings = SETTINGS, suite: Suite = QUICK) -> EvaluationTask:
    return EvaluationTask(small_model(), ClutteredDigits("test"), suite, list(range(num_examples)), settings)


@pytest.mark.parametrize(
    ("num_passes", "num_examples", "micro_batch", "full", "num_images", "wanted"),
    [
        (81_200, 400, 50, False, 32, 32),  # the demo
        (768, 16, 50, False, 0, 16),
        (5 * 344 * 8, 500, 50, False, 8, 32),
        (5 * 344 * 8 - 1, 500, 50, False, 7, 32),
        (5 * 344 * 8 - 1, 500, 50, True, 32, 32),
        (10**9, 500, 4, False, 16, 16),
        (10**9, 500, 20, False, 20, 20),
        (10**9, 5, 50, False, 5, 5),
    ],
)
def test_experiments_cost_at_most_a_fifth_of_the_attacks(
    num_passes, num_examples, micro_batch, full, num_images, wanted
):
    plan = probing(num_passes, num_examples, micro_batch, full=full)
    assert plan == (num_images, wanted)
    assert plan.is_enough == (num_images >= min(8, wanted))
    assert plan.cost == (cost(num_images) if plan.is_enough else NOTHING)
    if not full:
        assert 5 * plan.cost.total <= num_passes
    assert num_evaluations(1) == 344


def test_the_announced_time_covers_everything_that_follows():
    """A gradient of 50 images takes 5 s, a forward pass 2 s; 120 examples in three micro-batches."""
    at = PassTimes(5.0, 2.0, 5.0)
    everything = set(range(3 * len(attack_rounds(QUICK))))
    work = max_cost(QUICK, 1)
    attacks = 3 * (5 * work.num_gradients + 2 * (work.num_forwards - work.num_gradients))
    times = seconds(_of(120), Upcoming(everything, 0, NOTHING), at)
    assert times == pytest.approx((0, attacks, 0))
    times = seconds(_of(120), Upcoming(everything, 100, AttackCost(30, 80)), at)
    assert times.lint == pytest.approx(100 / 50 * (15 * 2 + 2 * 5))
    assert times.checks == pytest.approx((30 * 5 + 50 * 2) / 50)
    assert seconds(_of(120), Upcoming(set(), 0, NOTHING), at) == (0, 0, 0)


def test_checks_take_float32_gradients_however_attacks_are_searched():
    upcoming = Upcoming({3}, 0, AttackCost(50, 50))
    slow = seconds(
        _of(50, SETTINGS._replace(attack_execution=ExecutionMode("bfloat16"))), upcoming, PassTimes(40.0, 2.0, 5.0)
    )
    assert slow.checks == pytest.approx(5)


def _announced(monkeypatch, upcoming: Upcoming, at: PassTimes, settings: Settings = SETTINGS) -> str:
    monkeypatch.setattr(cost_estimate, "measure_pass_times", lambda *given, **more: at)
    return cost_estimate.announcement(_of(100, settings), cost_estimate.Shard(), upcoming)


def test_what_takes_moments_is_announced_as_a_few_seconds_and_what_was_tried_counts(monkeypatch):
    quick = PassTimes(1e-9, 1e-9, 1e-9)
    monkeypatch.setattr(cost_estimate, "measure_attack_times", lambda *given: {1: 0.1})
    assert "evaluations, a few seconds here" in _announced(monkeypatch, Upcoming(EVERYTHING, 0, NOTHING), quick)
    monkeypatch.setattr(cost_estimate, "measure_attack_times", lambda *given: {1: 9.0})
    assert "about 18 s here" in _announced(monkeypatch, Upcoming(EVERYTHING, 0, NOTHING), quick)
    assert "about 9 s here" in _announced(monkeypatch, Upcoming({3}, 0, NOTHING), quick)


EVERYTHING = set(range(2 * len(attack_rounds(QUICK))))


def test_a_short_run_with_long_checks_is_announced_with_them(monkeypatch):
    told = _announced(monkeypatch, Upcoming(EVERYTHING, 256, cost(32)), PassTimes(1.0, 0.5, 1.0))
    assert "about 4 min here" in told
    assert ": a look at the model 49 s, attacks 87 s, checks afterwards" in told
    assert "everything is there already, and the checks take about" in _announced(
        monkeypatch, Upcoming(set(), 0, cost(32)), PassTimes(1.0, 0.5, 1.0)
    )
    assert _announced(monkeypatch, Upcoming(set(), 0, NOTHING), PassTimes(1.0, 1.0, 1.0)).endswith(
        "everything is there already."
    )


@pytest.mark.parametrize(
    ("at", "is_told"),
    [(PassTimes(8.0, 0.5, 1.0), True), (PassTimes(0.5, 0.5, 1.0), False), (PassTimes(1.05, 0.5, 1.0), False)],
)
def test_a_slower_bfloat16_is_announced(monkeypatch, at, is_told):
    settings = SETTINGS._replace(attack_execution=ExecutionMode("bfloat16"))
    told = _announced(monkeypatch, Upcoming(EVERYTHING, 0, NOTHING), at, settings)
    assert ("times as long here as in float32" in told) == is_told
    if is_told:
        assert "takes 8.0 times as long" in told
    assert "float32: leave" not in _announced(monkeypatch, Upcoming(EVERYTHING, 0, NOTHING), at)


def test_compiling_is_part_of_the_announcement(monkeypatch):
    compiled = SETTINGS._replace(attack_execution=ExecutionMode("float32", compiled=True))
    told = _announced(monkeypatch, Upcoming(EVERYTHING, 0, NOTHING), PassTimes(1.0, 1.0, 1.0), compiled)
    assert "Compiling the model" in told


def test_planned_checks_are_those_that_are_due():
    measured = _of(500)
    open_ones = {"probes": [Check("probes").note("Fewer images.", {"num_wanted": 32})]}
    raised = {"probes": [Check("black box").failed("ValueError"), Check("x").passed("Fine.")]}
    made = {"probes": [Check("black box").passed("Fine.", {"broken": 3})]}
    at_most = planned_probing(measured, {}, full=False)
    assert at_most == (25, 32)
    assert 5 * 25 * 344 <= max_cost(QUICK, 500).total < 5 * 26 * 344
    for found in (open_ones, raised):
        assert planned_probing(measured, found, full=False) is None
        assert planned_probing(measured, found, full=True) == (32, 32)
    assert planned_probing(measured, made, full=True) is None
    assert planned_probing(_of(500, suite=get_suite("table3")), {}, full=True) is None, "no gradient to probe"


# --- the demo -----------------------------------------------------------------------------------------------------


def test_the_demo_counts_what_is_slow_and_the_checks_too(tmp_path: Path):
    """What was there when all but the checks was done used to be called everything but 4 seconds."""
    contender = Contender(demo.RECIPES[0], tmp_path, is_tiny=False)
    contender.ledger.mkdir(parents=True)
    (contender.folder / "train.jsonl").write_text(json.dumps({"step": contender.num_steps}) + "\n")
    assert contender.status()[:3] == ("attacking", 0, None)
    (contender.ledger / "manifest.json").write_text(json.dumps({"data": {"num_examples": 400}, "micro_batch": 50}))
    passes = Passes.of(contender.suite, json.loads((contender.ledger / "manifest.json").read_text()))
    attacks = max_cost(contender.suite, 400).total
    assert sum(passes.of_chunks) == attacks
    assert passes.of_checks == num_evaluations(32)
    assert contender.status() == ("attacking", 0, attacks + num_evaluations(32), "")
    for chunk in range(8):  # the clean images
        (contender.ledger / f"chunk-{chunk:05d}.parquet").touch()
    assert contender.status()[1] == 400
    for chunk in range(8, len(passes.of_chunks)):
        (contender.ledger / f"chunk-{chunk:05d}.parquet").touch()
    assert contender.status() == ("attacking", attacks, passes.total, "checks")
    contender.log.write_text(
        "checks of the evaluation on 32 examples, passes: 4000/11008, about 9 s left\nwarning: x\n"
    )
    assert contender.status()[1] == attacks + 4000
    (contender.ledger / "trust.json").write_text(json.dumps({"probes": []}))
    assert contender.status()[1] == passes.total


def test_a_demo_whose_part_ends_without_its_result_says_so(tmp_path: Path):
    class Idle:
        def poll(self) -> int:
            return 0

    contender = Contender(demo.RECIPES[0], tmp_path, is_tiny=True)
    contender.log.write_text("warning: the pictures could not be drawn: TypeError\n")
    contender.child, contender.command = Idle(), "train"  # type: ignore[assignment]
    with pytest.raises(demo.UserError, match="pictures could not be drawn"):
        contender.advance()
