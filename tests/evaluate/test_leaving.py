"""Examples leave when nothing can change their verdict: the verdicts are those of the exhaustive run, at a lower cost."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from s3ta.attacks import PGDConfig, draw_targets
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, evaluate, runner
from s3ta.records import STATUS_RUN, STATUS_SETTLED, Ledger, count_scores, scores_by_restarts
from tests.evaluate.small import chunk_bytes, ignore, killed_after, rows
from tests.evaluate.toys import (
    SETTINGS,
    ByPixel,
    answered_as_by,
    by_pixel,
    random_resnet,
    scripted,
    verdicts,
)

CLASSES = 4
MEASURED = ("prediction", "loss", "correct", "hit", "distance")


def attack(name: str, objective: str, num_restarts: int = 1, read_outs: tuple[int, ...] = (), **changes) -> NamedAttack:
    config = PGDConfig(
        objective=objective, radius=1, step_size=0.1, num_attack_steps=3, read_outs=read_outs, num_restarts=num_restarts
    )
    return NamedAttack(name=name, attack=config.model_copy(update=changes))


def suite(*attacks: NamedAttack, cascade: bool = False) -> Suite:
    return Suite(name="s", description="a test", attacks=attacks, cascade=cascade)


def dictated(plan: Suite, clean: list[int], labels: list[int], script, exhaustive: bool, batches=None) -> Ledger:
    """The evaluation of an attack that does what the script says."""
    data, folder = by_pixel(clean, labels, CLASSES), Path(tempfile.mkdtemp(prefix="leaving-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_attack", scripted(script, batches))
        chosen = SETTINGS._replace(exhaustive=exhaustive)
        return evaluate(EvaluationTask(ByPixel(CLASSES), data, plan, range(len(labels)), chosen), folder, ignore)


def targets_of(labels: list[int]) -> list[int]:
    ids = [f"p-{i:03d}" for i in range(len(labels))]
    return draw_targets(SETTINGS.seed, ids, torch.tensor(labels), CLASSES).tolist()


def script_of(plan: Suite, answers: np.ndarray) -> dict:
    """answers: (attacks, restarts, read-outs, examples)."""
    return {
        (f"p-{i:03d}", named.name, restart, steps): int(answers[a, restart, place, i])
        for a, named in enumerate(plan.attacks)
        for restart in range(named.attack.num_restarts)
        for place, steps in enumerate(sorted({*named.attack.read_outs, 3}))
        for i in range(answers.shape[-1])
    }


def statuses(ledger: Ledger) -> dict[tuple, str]:
    return {(r["attack"], r["restart"], r["num_attack_steps"], r["example_id"]): r["status"] for r in rows(ledger)}


def check_full(ledger: Ledger, micro_batch: int, num_chunks_per_stage: int) -> None:
    """Freed places are taken: in every stage all chunks that run anything, but the last of them, are full."""
    ran = []
    for chunk in range(ledger.num_chunks):
        table = ledger.read_chunk(chunk)
        alive = np.array(table["status"].to_pylist(), dtype=object) == STATUS_RUN
        ran.append(len(set(np.array(table["example_id"].to_pylist(), dtype=object)[alive])))
    for first in range(0, ledger.num_chunks, num_chunks_per_stage):
        counts = ran[first : first + num_chunks_per_stage]
        total = sum(counts)
        full, rest = divmod(total, micro_batch)
        assert counts == ([micro_batch] * full + [rest] * bool(rest) + [0] * len(counts))[: len(counts)]


@settings(max_examples=6, phases=(Phase.generate,))
@given(
    answers=st.lists(st.integers(0, CLASSES - 1), min_size=2 * 4 * 2 * 7, max_size=2 * 4 * 2 * 7),
    clean=st.lists(st.integers(0, CLASSES - 1), min_size=7, max_size=7),
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=7, max_size=7),
)
def test_restarts_of_any_outcome_give_the_verdicts_of_the_exhaustive_run(answers, clean, labels) -> None:
    """Against brute force over the script: verdicts, and who left when."""
    plan = suite(attack("u", "untargeted", 4, (1,)), attack("t", "targeted", 4, (1,)))
    dictate = np.array(answers).reshape(2, 4, 2, 7)
    targets, script = targets_of(labels), script_of(plan, dictate)
    early = dictated(plan, clean, labels, script, exhaustive=False)
    whole = dictated(plan, clean, labels, script, exhaustive=True)
    assert verdicts(early) == verdicts(whole)
    for count in (1, 2, 3):
        assert verdicts(early, num_restarts=count) == verdicts(whole, num_restarts=count)
    told = lambda ledger: [s[:7] for s in scores_by_restarts(ledger.table(), (1, 2))]  # noqa: E731 - all but distance and costs
    assert told(early) == told(whole)
    found = {(o[0], o[1]): o for o in verdicts(early)}
    for a, name in enumerate("ut"):
        for place, steps in enumerate((1, 3)):
            everything = dictate[a, :, place]
            assert found[name, steps][6] == (everything == labels).all(axis=0).tolist()
            hits = (everything == targets).any(axis=0) if name == "t" else np.zeros(7, bool)
            assert found[name, steps][7] == hits.tolist()
    status = statuses(early)
    for a, name in enumerate("ut"):
        for i in range(7):
            done = [
                all(
                    dictate[a, r, p, i] == targets[i] if name == "t" else dictate[a, r, p, i] != labels[i]
                    for p in (0, 1)
                )
                for r in range(4)
            ]
            for restart in range(4):
                expected = STATUS_SETTLED if any(done[:restart]) else STATUS_RUN
                assert {status[name, restart, steps, f"p-{i:03d}"] for steps in (1, 3)} == {expected}
    check_full(early, 3, 3)
    assert set(statuses(whole).values()) == {STATUS_RUN}


@settings(max_examples=5, phases=(Phase.generate,))
@given(
    answers=st.lists(st.integers(0, 1) | st.integers(0, CLASSES - 1), min_size=3 * 2 * 7, max_size=3 * 2 * 7),
    clean=st.lists(st.integers(0, 1), min_size=7, max_size=7),
)
def test_a_cascade_of_any_outcome_gives_the_verdicts_of_the_exhaustive_run(answers, clean) -> None:
    labels = [0] * 7
    plan = suite(
        attack("first", "untargeted"), attack("second", "targeted", 2), attack("third", "untargeted"), cascade=True
    )
    dictate = np.array(answers).reshape(3, 2, 1, 7)
    script = script_of(plan, dictate)
    early = dictated(plan, clean, labels, script, exhaustive=False)
    whole = dictated(plan, clean, labels, script, exhaustive=True)
    assert verdicts(early, cascade=True) == verdicts(whole, cascade=True)
    alive = np.array(clean) == labels
    found = {o[0]: o for o in verdicts(early, cascade=True)}
    assert found["clean"][6] == alive.tolist()
    status = statuses(early)
    for a, named in enumerate(plan.attacks):
        for restart in range(named.attack.num_restarts):
            for i in range(7):
                assert status[named.name, restart, 3, f"p-{i:03d}"] == (STATUS_RUN if alive[i] else STATUS_SETTLED)
            alive = alive & (dictate[a, restart, 0] == labels)
        assert found[named.name][6] == alive.tolist()
        assert not any(found[named.name][7]), "a worst case over attacks hits nothing"
    check_full(early, 3, 3)


def one_example(objective: str, predictions: dict[tuple[int, int], int], label: int = 0) -> list[str]:
    """Statuses of the restarts of one example, read out at 1 and 3 steps: (restart, steps) -> prediction."""
    plan = suite(attack("a", objective, 3, (1,)))
    script = {("p-000", "a", restart, steps): answer for (restart, steps), answer in predictions.items()}
    ledger = dictated(plan, [label], [label], script, exhaustive=False)
    status = statuses(ledger)
    return [status["a", restart, 3, "p-000"] for restart in range(3)]


def test_an_example_that_is_right_at_any_read_out_is_not_settled() -> None:
    right = dict.fromkeys([(r, s) for r in range(3) for s in (1, 3)], 0)
    assert one_example("untargeted", right | {(0, 1): 1}) == [STATUS_RUN, STATUS_RUN, STATUS_RUN]
    assert one_example("untargeted", right | {(0, 3): 1}) == [STATUS_RUN, STATUS_RUN, STATUS_RUN], (
        "right on the way, wrong at the end"
    )
    assert one_example("untargeted", right | {(0, 1): 1, (1, 3): 1}) == [STATUS_RUN, STATUS_RUN, STATUS_RUN], (
        "not in one and the same restart"
    )
    assert one_example("untargeted", right | {(0, 1): 1, (0, 3): 2}) == [STATUS_RUN, STATUS_SETTLED, STATUS_SETTLED]


def test_an_example_that_is_wrong_but_not_hit_is_not_settled() -> None:
    (target,) = targets_of([0])
    other = next(c for c in range(1, CLASSES) if c != target)
    missed = dict.fromkeys([(r, s) for r in range(3) for s in (1, 3)], other)
    assert one_example("targeted", missed) == [STATUS_RUN, STATUS_RUN, STATUS_RUN]
    assert one_example("targeted", missed | {(0, 3): target}) == [STATUS_RUN, STATUS_RUN, STATUS_RUN]
    assert one_example("targeted", missed | {(0, 1): target, (0, 3): target}) == [
        STATUS_RUN,
        STATUS_SETTLED,
        STATUS_SETTLED,
    ]


def test_the_next_attack_begins_with_every_example() -> None:
    plan = suite(attack("a", "untargeted", 2), attack("b", "untargeted", 2))
    answers = np.ones((2, 2, 1, 5), int)
    batches: list = []
    ledger = dictated(plan, [0] * 5, [0] * 5, script_of(plan, answers), exhaustive=False, batches=batches)
    assert [(name, restart, len(set(ids))) for name, restart, ids in batches] == [
        ("a", 0, 3), ("a", 0, 2), ("b", 0, 3), ("b", 0, 2),
    ]  # fmt: skip
    assert all(len(ids) == 3 for _, _, ids in batches), "every micro-batch has the same size"
    assert sum(s == STATUS_SETTLED for s in statuses(ledger).values()) == 10


def test_records_of_skipped_attacks_say_so_and_hold_nothing() -> None:
    plan = suite(attack("a", "targeted", 2, (1,)))
    labels = [0, 1, 2, 3, 0]
    answers = np.broadcast_to(np.array(targets_of(labels)), (1, 2, 2, 5))
    ledger = dictated(plan, labels, labels, script_of(plan, answers), exhaustive=False)
    left = [row for row in rows(ledger) if row["status"] == STATUS_SETTLED]
    assert len(left) == 5 * 2, "a record per read-out"
    for row in left:
        assert [row[name] for name in MEASURED] == [None] * 5
        assert (row["num_gradients"], row["num_forwards"], row["restart"]) == (0, 0, 1)
    known = {row["example_id"]: (row["label"], row["target"]) for row in rows(ledger) if row["attack"] == "a"}
    assert list(known.values()) == list(zip(labels, targets_of(labels), strict=True))
    (score,) = [s for s in count_scores(ledger.table()) if (s.attack, s.num_attack_steps) == ("a", 3)]
    assert (score.num_examples, score.num_correct, score.num_hits, score.num_restarts) == (5, 0, 5, 2)
    assert score.mean_gradients == 3, "what the one restart cost, not two"


COUNT = 10
REAL = {
    "restarts": suite(
        attack("u", "untargeted", 5, (1,), radius=0.02, step_size=0.02),
        attack("t", "targeted", 5, (1, 2), radius=0.06, step_size=0.03),
    ),
    "cascade": suite(
        attack("weak", "untargeted", 1, radius=0.008, step_size=0.004),
        attack("t", "targeted", 3, radius=0.03, step_size=0.02),
        attack("u", "untargeted", 2, radius=0.03, step_size=0.02),
        cascade=True,
    ),
}


def real(folder: Path, kind: str, exhaustive: bool = False, **changes) -> Ledger:
    model = random_resnet()
    chosen = SETTINGS._replace(exhaustive=exhaustive, **changes)
    return evaluate(
        EvaluationTask(model, answered_as_by(model, COUNT), REAL[kind], range(COUNT), chosen), folder, ignore
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ledger]:
    """Both evaluations from beginning to end; tests do not change them."""
    return {kind: real(tmp_path_factory.mktemp("undisturbed") / kind, kind) for kind in REAL}


@pytest.mark.parametrize("kind", REAL)
def test_a_network_has_the_verdicts_of_the_exhaustive_run_at_a_lower_cost(
    kind: str, undisturbed: dict[str, Ledger], tmp_path: Path
) -> None:
    early, whole = undisturbed[kind], real(tmp_path, kind, exhaustive=True)
    cascade = kind == "cascade"
    assert verdicts(early, cascade=cascade) == verdicts(whole, cascade=cascade)
    fallen = [sum(not right for right in found[6]) for found in verdicts(early, cascade=cascade)[1:]]
    assert any(0 < number < COUNT for number in fallen), "some fall, some stand: else the test says nothing"
    theirs = {(r["attack"], r["restart"], r["num_attack_steps"], r["example_id"]): r for r in rows(whole)}
    left, spent, exhaustive = 0, 0, 0
    for row in rows(early):
        other = theirs[row["attack"], row["restart"], row["num_attack_steps"], row["example_id"]]
        exhaustive += other["num_gradients"]
        spent += row["num_gradients"]
        if row["status"] == STATUS_RUN:
            assert row["prediction"] == other["prediction"]
            assert row["loss"] == pytest.approx(other["loss"], abs=1e-4)
            assert (row["num_gradients"], row["num_forwards"]) == (other["num_gradients"], other["num_forwards"])
        else:
            left += 1
    assert 0 < left < len(theirs)
    assert spent < exhaustive
    check_full(early, SETTINGS.batch_size, -(-COUNT // SETTINGS.batch_size))


@pytest.mark.parametrize("kind", REAL)
def test_what_an_example_costs_is_what_went_through_the_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One example at a time, with a spy in the model; each read-out's verdict is one forward pass."""
    passed = {"forwards": 0, "gradients": 0}

    class Spied(type(random_resnet())):  # pyright: ignore[reportGeneralTypeIssues]
        def forward(self, images):
            passed["forwards"] += len(images)
            if images.requires_grad:
                images = images * 1
                images.register_hook(lambda gradient: passed.__setitem__("gradients", passed["gradients"] + 1))
            return super().forward(images)

    model = random_resnet()
    data = answered_as_by(model, 5)
    model.__class__ = Spied
    counted: dict[tuple, tuple[int, int]] = {}
    honest = runner.run_chunk

    def watched(evaluation, chunk, *rest):
        passed.update(forwards=0, gradients=0)
        result = honest(evaluation, chunk, *rest)
        if chunk.positions:
            (position,) = chunk.positions
            counted[chunk.attack_round.name, chunk.attack_round.restart, data.ids[position]] = (
                passed["gradients"],
                passed["forwards"],
            )
        return result

    monkeypatch.setattr(runner, "run_chunk", watched)
    plan = REAL[kind]
    ledger = evaluate(EvaluationTask(model, data, plan, range(5), SETTINGS._replace(batch_size=1)), tmp_path, ignore)
    last = {(r["attack"], r["restart"], r["example_id"]): r for r in rows(ledger)}  # rows ascend by steps
    assert counted.keys() == {key for key, row in last.items() if row["status"] == STATUS_RUN}
    for key, (gradients, forwards) in counted.items():
        row = last[key]
        assert (row["num_gradients"], row["num_forwards"]) == (gradients, forwards)


@pytest.mark.parametrize("kind", REAL)
def test_an_evaluation_killed_at_any_point_resumes_to_the_same_bytes(
    kind: str, undisturbed: dict[str, Ledger], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chunk_bytes(undisturbed[kind].folder)
    for after in (0, 6, len(whole) - 2) if kind == "restarts" else (4, 11):
        folder = tmp_path / f"killed-{after}"
        with killed_after(after, monkeypatch):
            real(folder, kind)
        present = chunk_bytes(folder)
        assert len(present) == after
        assert present.items() <= whole.items()
        if present:
            count_scores(Ledger.read(folder).table(), cascade=kind == "cascade")  # readable while unfinished
        assert chunk_bytes(real(folder, kind).folder) == whole


def test_a_damaged_chunk_in_the_middle_is_made_again_with_the_same_examples(
    undisturbed: dict[str, Ledger], tmp_path: Path
) -> None:
    before = undisturbed["restarts"].folder
    folder = Path(shutil.copytree(before, tmp_path / "copy"))
    for chunk in (5, 14):
        Ledger.read(folder).chunk_path(chunk).unlink()
    real(folder, "restarts")
    assert chunk_bytes(folder) == chunk_bytes(before)


def test_exhaustive_runs_and_others_are_two_measurements(tmp_path: Path) -> None:
    from s3ta.errors import UserError

    real(tmp_path, "restarts")
    with pytest.raises(UserError, match="exhaustive is false there and true now"):
        real(tmp_path, "restarts", exhaustive=True)
