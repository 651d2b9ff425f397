"""What is recorded, estimated and held by a budget is what the model is asked; and examples are known by their ids, not by
where they stand: in a chunk, in a batch, in a block."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from s3ta.attacks import PGDConfig
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, attack_rounds, evaluate, get_suite, max_cost, runner
from s3ta.models import PooledClassifier
from s3ta.records import STATUS_OVER_BUDGET, Ledger, count_scores, reduce_restarts
from s3ta.records import cascade_stages as stages_of
from tests.evaluate.small import chunk_bytes, ignore, rows
from tests.evaluate.test_leaving import attack, script_of, suite
from tests.evaluate.toys import SETTINGS, ByPixel, Templates, blobs, by_pixel, scripted


class Counted(nn.Module):
    """Forward passes per image, by hooks on the model itself."""

    def __init__(self, model: PooledClassifier) -> None:
        super().__init__()
        self.passes = 0
        model.register_forward_hook(lambda module, given, answer: self._count(len(answer)))

    def _count(self, number: int) -> None:
        self.passes += number


def pgd(name: str, steps: int, read_outs: tuple[int, ...] = (), num_restarts: int = 1, **changes) -> NamedAttack:
    config = PGDConfig(objective="untargeted", radius=0.02, step_size=0.01, num_attack_steps=steps, read_outs=read_outs)
    return NamedAttack(name=name, attack=config.model_copy(update={"num_restarts": num_restarts, **changes}))


SPENT = {
    "read-outs": suite(pgd("a", 6, (1, 3, 6))),
    "restarts": suite(pgd("a", 4, (2,), 3), pgd("b", 2)),
    "best kept": suite(pgd("a", 5, (1, 2), keep="best")),
    "a cascade": suite(pgd("a", 3), pgd("b", 4), cascade=True),
    "margin and targets": suite(pgd("a", 4, (1, 2, 3), loss="margin"), pgd("b", 3, (1,), objective="targeted")),
}


@pytest.mark.parametrize("case", SPENT)
def test_recorded_and_stated_passes_are_those_of_the_model(case: str, tmp_path: Path) -> None:
    """The verdict at each read-out is a pass, in the records, in the estimate, and so under a budget."""
    model, data = Templates(), blobs(6)
    counted = Counted(model)
    settings = SETTINGS._replace(exhaustive=True, batch_size=3)
    ledger = evaluate(EvaluationTask(model, data, SPENT[case], range(6), settings), tmp_path, ignore)
    asked = counted.passes - 4  # two images of noise, asked twice: by them a ledger knows its model again
    stated = max_cost(SPENT[case], 6).num_forwards
    most: dict[tuple, int] = {}
    for row in rows(ledger):
        key = row["example_id"], row["attack"], row["restart"]
        most[key] = max(most.get(key, 0), row["num_forwards"])
    recorded = sum(most.values())
    assert asked == stated == recorded


def test_tables_of_the_documents_state_what_is_spent() -> None:
    """docs/evaluation.md, passes per image."""
    passes = {name: sum(max_cost(get_suite(name), 1)) for name in ("table1", "table2", "table4", "table5", "table6")}
    assert {name: sum(max_cost(get_suite(name), 1)) - max_cost(get_suite(name), 1).num_gradients for name in passes} == {
        "table1": 1015, "table2": 805, "table4": 10_003, "table5": 100_201, "table6": 252,
    }  # fmt: skip
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, number in passes.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        assert row.split("|")[-2].strip() == f"{number:,}"


def test_a_budget_counts_the_verdicts_at_read_outs(tmp_path: Path) -> None:
    """4 gradients with their forwards, 4 verdicts: 12, and 1 for the clean image."""
    plan = suite(pgd("a", 4, (1, 2, 3)))
    assert attack_rounds(plan)[1].cost.total == 12
    for budget, cut in ((12, True), (13, False)):
        settings = SETTINGS._replace(max_passes=budget)
        ledger = evaluate(
            EvaluationTask(Templates(), blobs(4), plan, range(4), settings), tmp_path / str(budget), ignore
        )
        assert any(row["status"] == STATUS_OVER_BUDGET for row in rows(ledger)) == cut


# --- positions and identities -----------------------------------------------------------------------------------------


class Noisy(Templates):
    """Answers at random, by torch's generator; each row by its own part of the noise."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) + 3 * torch.randn(len(images), 4)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 9])
def test_the_number_in_flight_changes_no_record_of_a_random_model(batch_size: int, tmp_path: Path) -> None:
    """The verdict's noise belongs to the micro-batch, not to those of it that are in flight."""
    plan = suite(pgd("a", 3, (1,)), pgd("b", 2, num_restarts=2))
    settings = SETTINGS._replace(batch_size=5)
    evaluate(EvaluationTask(Noisy(), blobs(13), plan, range(13), settings), tmp_path / "whole", ignore)
    evaluate(
        EvaluationTask(Noisy(), blobs(13), plan, range(13), settings._replace(prefetch=batch_size)),
        tmp_path / "parts",
        ignore,
    )
    assert chunk_bytes(tmp_path / "parts") == chunk_bytes(tmp_path / "whole")


COUNT, CLASSES = 23, 4


def _cascade(folder: Path, seed: int, turned: slice = slice(0)) -> tuple[Ledger, Suite]:
    """Three attacks that break some, on shuffled examples, in several blocks of two micro-batches; under the first one
    these examples of the order come out the other way round."""
    random = np.random.default_rng(seed)
    labels, order = random.integers(0, CLASSES, COUNT), random.permutation(COUNT)
    broken = random.random((3, 2, 1, COUNT)) < 0.2
    broken[0, :, :, order[turned]] ^= True
    answers = np.where(broken, (labels + 1) % CLASSES, labels)
    named = (attack(name, "untargeted", restarts) for name, restarts in (("x", 1), ("y", 2), ("z", 1)))
    plan = suite(*named, cascade=True)
    data, settings = by_pixel(labels.tolist(), labels.tolist(), CLASSES), SETTINGS._replace(batch_size=3, block=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "run_attack", scripted(script_of(plan, answers)))
        return evaluate(EvaluationTask(ByPixel(CLASSES), data, plan, order.tolist(), settings), folder, ignore), plan


def test_a_cascade_that_lacks_a_chunk_says_nothing_false(tmp_path: Path) -> None:
    """Whichever chunk is lost, each example that is counted is counted as in the whole ledger, and at its own place."""
    whole, _ = _cascade(tmp_path / "whole", seed=4)
    truth = {
        (found.attack, example): bool(correct)
        for found in reduce_restarts(whole.table(), cascade=True)
        for example, correct in zip(found.example_ids, found.correct, strict=True)
    }
    counted = {found.attack: len(found.correct) for found in reduce_restarts(whole.table(), cascade=True)}
    assert set(counted.values()) == {COUNT}
    lost_some, chunks = 0, [whole.read_chunk(chunk) for chunk in range(whole.num_chunks)]
    for chunk in range(whole.num_chunks):
        table = pa.concat_tables([*chunks[:chunk], *chunks[chunk + 1 :]]).combine_chunks()
        for found in reduce_restarts(table, cascade=True):
            if found.num_restarts < 2 and found.attack == "y":
                continue  # of its first start alone, as it says
            for example, correct in zip(found.example_ids, found.correct, strict=True):
                assert truth[found.attack, example] == correct, (chunk, found.attack, example)
        for stage in stages_of(table):
            assert 0 <= stage.num_broken <= stage.num_left <= COUNT
            lost_some += stage.score.num_examples < COUNT
            assert stage.whole == (stage.score.num_examples == COUNT)
    assert lost_some > 10


@pytest.mark.parametrize("lost", [["clean"], ["x"], ["y"], ["clean", "x"]])
def test_a_cascade_that_lacks_a_whole_attack_ends_before_it(lost: list[str], tmp_path: Path) -> None:
    """Who was broken by it has left, and no other record says so."""
    whole, plan = _cascade(tmp_path, seed=4)
    names = {stage.number: stage.name for stage in attack_rounds(plan)}
    per_stage = whole.num_chunks // len(names)
    for chunk in range(whole.num_chunks):
        if names[chunk // per_stage] in lost:
            whole.chunk_path(chunk).unlink()
    told = [score.attack for score in count_scores(Ledger.read(tmp_path).table(), cascade=True)]
    assert told == {"clean": [], "x": ["clean"], "y": ["clean", "x"]}[lost[0]]


@pytest.mark.parametrize("seed", [10, 11, 12])
def test_resume_does_again_what_was_laid_out_for_other_examples(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A lost chunk of an early stage comes out otherwise (another machine may do that): later chunks of its block then
    hold others than the plan asks for, and are done again; other blocks stay as they were, byte for byte."""
    ledger, _ = _cascade(tmp_path / "resumed", seed)
    before = chunk_bytes(ledger.folder)
    ledger.chunk_path(
        8 + 0
    ).unlink()  # of attack x, the second of five stages of eight chunks: the first three examples
    again, _ = _cascade(ledger.folder, seed, turned=slice(3))
    said = capsys.readouterr().err
    fresh, _ = _cascade(tmp_path / "fresh", seed, turned=slice(3))
    assert again.complete
    assert chunk_bytes(again.folder) == chunk_bytes(fresh.folder)
    changed = [int(name[6:11]) for name, content in chunk_bytes(again.folder).items() if before[name] != content]
    assert len(changed) > 2
    assert f"chunk-{max(changed):05d}.parquet is done again" in said, "what is discarded is said"
    assert all(chunk % 8 < 2 for chunk in changed), "blocks that lost nothing are left alone"
    assert {score.num_examples for score in count_scores(again.table(), cascade=True)} == {COUNT}


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_repair_that_was_cut_short_is_finished_by_the_next_run(cut: int, tmp_path: Path) -> None:
    """Then no chunk need be missing any more: what contradicts the records before it is seen by itself."""
    ledger, _ = _cascade(tmp_path / "resumed", 11)
    fresh, _ = _cascade(tmp_path / "fresh", 11, turned=slice(3))
    for chunk in [8, 16, 17][:cut]:  # what a run did before it was killed
        ledger.chunk_path(chunk).write_bytes(fresh.chunk_path(chunk).read_bytes())
    again, _ = _cascade(ledger.folder, 11, turned=slice(3))
    assert chunk_bytes(again.folder) == chunk_bytes(fresh.folder)
