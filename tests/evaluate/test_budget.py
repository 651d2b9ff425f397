"""A budget: no example costs more, what does not fit is left out whole, and the numbers say that they are upper bounds."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from s3ta.attacks import AttackCost, AutoAttackComponentConfig, PGDConfig
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, evaluate, runner
from s3ta.evaluate.plan import AttackRound
from s3ta.records import STATUS_OVER_BUDGET, STATUS_RUN, Ledger, check_records, compare_paired, count_scores
from tests.evaluate.small import chunk_bytes, ignore, killed_after, rows
from tests.evaluate.toys import SETTINGS, answered_as_by, random_resnet

COUNT = 7


def pgd(name: str, steps: int, num_restarts: int = 1) -> NamedAttack:
    config = PGDConfig(
        objective="untargeted", radius=0.01, step_size=0.01, num_attack_steps=steps, num_restarts=num_restarts
    )
    return NamedAttack(name=name, attack=config)


PLAN = Suite(name="s", description="d", attacks=(pgd("three", 3, 4), pgd("ten", 10), pgd("two", 2)))
"""Costs per example: clean 1; three: 3 gradients with 3 forwards and 1 verdict = 7 a restart; ten: 21; two: 5."""


def run(folder: Path, budget: int | None, suite: Suite = PLAN, **changes) -> Ledger:
    model = random_resnet()
    chosen = SETTINGS._replace(max_passes=budget, **changes)
    return evaluate(EvaluationTask(model, answered_as_by(model, COUNT), suite, range(COUNT), chosen), folder, ignore)


def spent(ledger: Ledger) -> dict[str, int]:
    """Evaluations of each example; records of one attack and restart add up on the way, so the largest counts."""
    most: dict[tuple, int] = defaultdict(int)
    for row in rows(ledger):
        key = (row["example_id"], row["attack"], row["restart"])
        most[key] = max(most[key], row["num_gradients"] + row["num_forwards"])
    total: dict[str, int] = defaultdict(int)
    for (example, _, _), cost in most.items():
        total[example] += cost
    return total


@pytest.mark.parametrize("budget", [1, 7, 8, 21, 27, 1000])
def test_no_example_exceeds_its_budget_and_attacks_that_fit_are_run(tmp_path: Path, budget: int) -> None:
    """Exhaustive, so that all examples do the same: whole restarts as they come, as long as they fit."""
    ledger = run(tmp_path, budget, exhaustive=True)
    costs = [("three", 0, 7), ("three", 1, 7), ("three", 2, 7), ("three", 3, 7), ("ten", 0, 21), ("two", 0, 5)]
    left, expected = budget - 1, {}
    for name, restart, cost in costs:
        expected[name, restart] = STATUS_RUN if cost <= left else STATUS_OVER_BUDGET
        left -= cost if cost <= left else 0
    for row in rows(ledger):
        if row["attack"] != "clean":
            assert row["status"] == expected[row["attack"], row["restart"]]
            if row["status"] == STATUS_OVER_BUDGET:
                assert (row["correct"], row["loss"], row["num_gradients"], row["num_forwards"]) == (None, None, 0, 0)
    assert set(spent(ledger).values()) == {budget - left}
    assert max(spent(ledger).values()) <= budget
    table = {score.attack: score for score in count_scores(ledger.table())}
    assert ("three" in table, "ten" in table, "two" in table) == (
        expected["three", 0] == STATUS_RUN,
        expected["ten", 0] == STATUS_RUN,
        expected["two", 0] == STATUS_RUN,
    ), "an attack without any record has no score"
    told = [finding for finding in check_records(ledger.table(), ledger.typed_manifest) if finding.kind == "incomplete"]
    assert bool(told) == (STATUS_OVER_BUDGET in expected.values())
    if told:
        assert told[0].severity == "warning"
        for name in ("three", "ten", "two"):
            number = sum(status == STATUS_OVER_BUDGET for (attack, _), status in expected.items() if attack == name)
            assert (f"{number * COUNT} records of '{name}'" in told[0].sentence) == (number > 0)
        assert ("no number at all" in told[0].sentence) == (len(table) < 4)


def test_scores_become_upper_bounds_and_say_so(tmp_path: Path) -> None:
    """Two of four restarts fit. The full run can only be lower, and differs only in examples that count as cut."""
    part, whole = run(tmp_path / "part", 15), run(tmp_path / "whole", None)
    cut = next(s for s in count_scores(part.table()) if s.attack == "three")
    full = next(s for s in count_scores(whole.table()) if s.attack == "three")
    assert cut.num_restarts == full.num_restarts == 4
    assert full.num_cut == 0
    assert cut.num_cut == cut.num_correct > 0, "whoever still stands was not attacked to the end"
    assert cut.num_correct - cut.num_cut <= full.num_correct <= cut.num_correct
    two = next(s for s in count_scores(whole.table(), num_restarts=2) if s.attack == "three")
    assert cut.num_correct == two.num_correct, "what ran is what two restarts give"


def test_leaving_early_frees_budget_for_what_comes_after(tmp_path: Path) -> None:
    early, whole = run(tmp_path / "early", 36), run(tmp_path / "whole", 36, exhaustive=True)
    assert max(spent(early).values()) <= 36
    ran = lambda ledger: sum(r["attack"] == "ten" and r["status"] == STATUS_RUN for r in rows(ledger))  # noqa: E731
    assert ran(whole) == 0 < ran(early), "1 + 4 x 7 leaves no room for 21, but 1 + 7 does"


def test_autoattacks_worst_case_is_what_must_fit(tmp_path: Path) -> None:
    """An upper bound is needed before the start; what is spent is less, and is what counts afterwards."""
    pytest.importorskip("pyautoattack")
    square = AutoAttackComponentConfig(part="square", radius=0.3, num_attack_steps=5)  # at most 9 and 1 for the verdict
    suite = Suite(name="a", description="d", attacks=(NamedAttack(name="square", attack=square), pgd("two", 2)))
    assert {r["status"] for r in rows(run(tmp_path / "a", 10, suite)) if r["attack"] == "square"} == {
        STATUS_OVER_BUDGET
    }
    enough = run(tmp_path / "b", 16, suite)
    assert {r["status"] for r in rows(enough)} == {STATUS_RUN}
    assert max(spent(enough).values()) <= 16


@pytest.mark.parametrize("after", [2, 8, 14])
def test_an_evaluation_killed_under_a_budget_resumes_to_the_same_bytes(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chunk_bytes(run(tmp_path / "whole", 36).folder)
    with killed_after(after, monkeypatch):
        run(tmp_path / "killed", 36)
    assert chunk_bytes(run(tmp_path / "killed", 36).folder) == whole


def test_a_cascade_under_a_budget_counts_the_cut_as_standing(tmp_path: Path) -> None:
    cascade = PLAN.model_copy(update={"cascade": True, "attacks": (pgd("two", 2), pgd("ten", 10), pgd("one", 1))})
    ledger = run(tmp_path, 10, cascade)
    table = {score.attack: score for score in count_scores(ledger.table(), cascade=True)}
    assert list(table) == ["clean", "two", "ten", "one"]
    assert table["two"].num_cut == 0
    assert table["ten"].num_correct == table["two"].num_correct == table["ten"].num_cut > 0
    assert table["one"].num_cut == table["one"].num_correct, "the number after it is an upper bound as well"
    assert any(f.kind == "incomplete" for f in check_records(ledger.table(), ledger.typed_manifest))


def test_other_budgets_are_other_measurements(tmp_path: Path) -> None:
    one, other = run(tmp_path / "one", 15), run(tmp_path / "other", 22)
    with pytest.raises(UserError, match="budget is 15 there and 22 now"):
        run(tmp_path / "one", 22)
    with pytest.raises(UserError, match="budget is 15 in the first and 22 in the second"):
        compare_paired(one.table(), one.typed_manifest, other.table(), other.typed_manifest)


READ_OUT = Suite(
    name="r",
    description="d",
    attacks=(
        NamedAttack(
            name="four",
            attack=PGDConfig(
                objective="untargeted", radius=0.01, step_size=0.01, num_attack_steps=4, read_outs=(1, 2, 3)
            ),
        ),
        pgd("two", 2),
    ),
)
"""Costs: clean 1; four: 4 gradients with 4 forwards and 4 verdicts = 12, once 9, for 1 verdict counted; two: 5."""


def _as_once_counted(folder: Path, budget: int) -> Ledger:
    """A ledger of the time when only the verdict after the last step was counted."""

    def fewer(*given: Any) -> dict[str, Any]:
        columns, read_out = records(*given), given[2]
        return {**columns, "num_forwards": columns["num_forwards"] - read_out}

    def cost(stage: AttackRound) -> AttackCost:
        spent = stage_cost(stage)
        return AttackCost(spent.num_gradients, spent.num_forwards - len(stage.read_outs) + 1)

    records, stage_cost = runner.records, vars(AttackRound)["cost"].fget
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "records", fewer)
        patch.setattr(AttackRound, "cost", property(cost))
        return run(folder, budget, READ_OUT, block=2)


@pytest.mark.parametrize("budget", [10, 12, 15])
def test_a_finished_ledger_with_other_costs_is_left_as_it_is(
    tmp_path: Path, budget: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """By today's costs, `four` fits into none of these budgets or leaves no room for `two`: what was done stays done."""
    before = chunk_bytes(_as_once_counted(tmp_path, budget).folder)
    ledger = run(tmp_path, budget, READ_OUT, block=2)
    assert chunk_bytes(ledger.folder) == before
    assert any(row["attack"] == "four" and row["status"] == STATUS_RUN for row in rows(ledger))
    assert "done again" not in capsys.readouterr().err


@pytest.mark.parametrize("lost", range(9))
def test_a_ledger_with_other_costs_takes_up_only_what_is_missing(tmp_path: Path, lost: int) -> None:
    """All other chunks stay byte for byte, and each example has its records once."""
    before = chunk_bytes(_as_once_counted(tmp_path, 15).folder)
    Ledger.read(tmp_path).chunk_path(lost).unlink()
    ledger = run(tmp_path, 15, READ_OUT, block=2)
    after = chunk_bytes(ledger.folder)
    assert {name for name in before if before[name] != after[name]} <= {ledger.chunk_path(lost).name}
    keys = [(row["example_id"], row["attack"], row["num_attack_steps"]) for row in rows(ledger)]
    assert len(keys) == len(set(keys)) == COUNT * (1 + 4 + 1)


@pytest.mark.parametrize("after", [4, 5, 7])
def test_a_killed_ledger_with_other_costs_goes_on(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_after(after, monkeypatch):
        _as_once_counted(tmp_path, 15)
    before = chunk_bytes(tmp_path)
    ledger = run(tmp_path, 15, READ_OUT, block=2)
    assert ledger.complete
    assert before.items() <= chunk_bytes(tmp_path).items()
    keys = [(row["example_id"], row["attack"], row["num_attack_steps"]) for row in rows(ledger)]
    assert len(keys) == len(set(keys)) == COUNT * (1 + 4 + 1)
