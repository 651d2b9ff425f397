"""The evaluation decides the truth: its records against plain recomputation, over kills, orders and subsets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.data import fetch_batch
from s3ta.errors import UserError
from s3ta.evaluate import (
    KEPT_FILE,
    EvaluationTask,
    Settings,
    attack_rounds,
    choose_examples,
    evaluate,
    get_suite,
    max_cost,
    override_suite,
    runner,
    shrink_suite,
)
from s3ta.files import read_json
from s3ta.models import create_model
from s3ta.random_streams import stream
from s3ta.records import Ledger
from tests.evaluate.small import (
    SETTINGS,
    chunk_bytes,
    ignore,
    killed_after,
    planned_chunks,
    rows,
    small_model,
    small_suite,
    some_digits,
)


def run(folder: Path, count: int = 11, settings: Settings = SETTINGS, num_restarts: int = 1, report=ignore) -> Ledger:
    data = some_digits(count)
    return evaluate(
        EvaluationTask(small_model(), data, small_suite(num_restarts), range(count), settings), folder, report
    )


def reference(
    model: torch.nn.Module, data, index: int, attack, name: str, restart: int, seed: int
) -> dict[int, torch.Tensor]:
    """PGD written out for one example, noise and target drawn by hand from their streams."""
    ids, clean, labels, _ = fetch_batch(data, [index])
    label = int(labels)
    target = (label + int(stream(seed, "target", ids[0]).integers(1, 10))) % 10
    generator = stream(seed, "start", ids[0], name, restart)
    generator.random()  # the coin for a clean start
    noise = torch.from_numpy(generator.random((1, 60, 60), dtype=np.float32) * 2 - 1)
    x = (clean + (clean + attack.radius * noise - clean).clamp(-attack.radius, attack.radius)).clamp(0, 1)
    seen = {}
    for step in range(1, attack.num_attack_steps + 1):
        x = x.detach().requires_grad_()
        logits = model(x)
        loss = torch.nn.functional.cross_entropy(
            logits, torch.tensor([label if attack.objective == "untargeted" else target])
        )
        (gradient,) = torch.autograd.grad(loss if attack.objective == "untargeted" else -loss, x)
        x = x.detach() + attack.step_size * gradient.sign()
        x = (clean + (x - clean).clamp(-attack.radius, attack.radius)).clamp(0, 1)
        seen[step] = x
    return {"label": label, "target": target, "seen": seen}


def test_records_equal_a_plain_recomputation(tmp_path: Path) -> None:
    table = rows(run(tmp_path, num_restarts=2, settings=SETTINGS._replace(exhaustive=True)))
    data, model, suite = some_digits(), small_model().eval(), small_suite(2)
    assert len(table) == 11 * (1 + 2 * 3 + 2 * 1)
    checked = 0
    for named in suite.attacks:
        for index in (0, 4, 10):
            for restart in (0, 1):
                expected = reference(model, data, index, named.attack, named.name, restart, SETTINGS.seed)
                for row in table:
                    if (row["example_id"], row["attack"], row["restart"]) != (data.ids[index], named.name, restart):
                        continue
                    logits = model(expected["seen"][row["num_attack_steps"]])
                    assert row["label"] == expected["label"]
                    assert row["target"] == (expected["target"] if named.attack.objective == "targeted" else -1)
                    assert row["prediction"] == int(logits.argmax())
                    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])).item()
                    assert row["loss"] == pytest.approx(loss, abs=1e-4)
                    assert row["correct"] == (row["prediction"] == row["label"])
                    assert row["hit"] == (row["prediction"] == row["target"])
                    assert row["distance"] <= named.attack.radius + 1e-6
                    assert (row["num_gradients"], row["num_forwards"]) == (
                        row["num_attack_steps"],
                        row["num_attack_steps"] + 1 + sum(n < row["num_attack_steps"] for n in named.attack.read_outs),
                    )
                    checked += 1
    assert checked == 3 * 2 * (3 + 1)


def test_clean_records_are_the_clean_images(tmp_path: Path) -> None:
    clean = [row for row in rows(run(tmp_path)) if row["attack"] == "clean"]
    assert len(clean) == 11
    assert {(row["distance"], row["target"], row["num_attack_steps"], row["num_gradients"]) for row in clean} == {
        (0.0, -1, 0, 0)
    }


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8])
def test_a_killed_evaluation_goes_on_to_the_same_bytes(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    with killed_after(after, monkeypatch):
        run(tmp_path / "killed")
    assert len(chunk_bytes(tmp_path / "killed")) == after
    first = []
    resumed = run(tmp_path / "killed", report=lambda done, note="": first.append(done))
    assert chunk_bytes(resumed.folder) == chunk_bytes(whole.folder)
    assert (resumed.folder / KEPT_FILE).read_bytes() == (whole.folder / KEPT_FILE).read_bytes()
    assert first[0] == sum(chunk.num_evaluations for chunk in planned_chunks(small_suite(), range(11), 4)[:after])


def test_a_finished_evaluation_runs_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    monkeypatch.setattr(runner, "run_chunk", lambda *args: pytest.fail("a finished chunk ran again"))
    run(tmp_path)


def test_lost_images_are_made_again_and_no_record_changes(tmp_path: Path) -> None:
    run(tmp_path)
    before, images = chunk_bytes(tmp_path), (tmp_path / KEPT_FILE).read_bytes()
    (tmp_path / KEPT_FILE).unlink()
    run(tmp_path)
    assert (tmp_path / KEPT_FILE).read_bytes() == images
    assert chunk_bytes(tmp_path) == before


def test_a_torn_chunk_is_noticed_and_made_again(tmp_path: Path) -> None:
    ledger = run(tmp_path)
    before = chunk_bytes(tmp_path)
    ledger.chunk_path(2).write_bytes(before["chunk-00002.parquet"][:-20])
    run(tmp_path)
    assert chunk_bytes(tmp_path) == before


def test_the_last_examples_are_padded_and_the_padding_is_not_recorded(tmp_path: Path) -> None:
    """11 = 4 + 4 + 3: the last micro-batch holds a copy. In a run of 8 the first 8 examples have the same records."""
    full, part = rows(run(tmp_path / "11")), rows(run_prefix(tmp_path / "8"))
    assert len({row["example_id"] for row in full}) == 11
    kept = {row["example_id"] for row in part}
    assert [row for row in full if row["example_id"] in kept] == part


def run_prefix(folder: Path) -> Ledger:
    return evaluate(EvaluationTask(small_model(), some_digits(), small_suite(), range(8), SETTINGS), folder, ignore)


def test_order_and_neighbours_do_not_change_an_example(tmp_path: Path) -> None:
    data = some_digits()
    backwards = evaluate(
        EvaluationTask(small_model(), data, small_suite(), list(reversed(range(11))), SETTINGS), tmp_path / "b", ignore
    )
    for a, b in zip(rows(run(tmp_path / "a")), rows(backwards), strict=True):
        assert {k: v for k, v in a.items() if k not in ("loss", "distance")} == {
            k: b[k] for k in a if k not in ("loss", "distance")
        }
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4)


def test_another_measurement_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    before = chunk_bytes(tmp_path)
    with pytest.raises(UserError, match="seed is 3 there and 4 now"):
        run(tmp_path, settings=SETTINGS._replace(seed=4))
    with pytest.raises(UserError, match="micro_batch"):
        run(tmp_path, settings=SETTINGS._replace(batch_size=5))
    model = small_model()
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with pytest.raises(UserError, match=r"model\.sha256"):
        evaluate(EvaluationTask(model, some_digits(), small_suite(), range(11), SETTINGS), tmp_path, ignore)
    assert chunk_bytes(tmp_path) == before


def test_the_model_and_torch_are_left_as_they_were(tmp_path: Path) -> None:
    model = small_model().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(9)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_float32_matmul_precision("high")
    try:
        evaluate(EvaluationTask(model, some_digits(), small_suite(), range(4), SETTINGS), tmp_path, ignore)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_an_attack_that_leaves_the_ball_is_never_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runner.run_attack

    def cheat(*args, **kwargs):
        attacked = honest(*args, **kwargs)
        return attacked._replace(images=(attacked.images + 0.3).clamp(0, 1))

    monkeypatch.setattr(runner, "run_attack", cheat)
    with pytest.raises(AssertionError, match="left ball or box"):
        run(tmp_path)
    assert all(row["attack"] == "clean" for row in Ledger.read(tmp_path).table().to_pylist())


def test_models_and_data_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="7 classes, but digits has 10"):
        evaluate(
            EvaluationTask(small_model(num_classes=7), some_digits(), small_suite(), range(4), SETTINGS),
            tmp_path,
            ignore,
        )
    assert not tmp_path.joinpath("manifest.json").exists()


def test_the_manifest_tells_what_was_measured_and_nothing_of_the_machine(tmp_path: Path) -> None:
    run(tmp_path)
    text = (tmp_path / "manifest.json").read_text()
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["num_chunks"] == len(planned_chunks(small_suite(), range(11), 4)) == 9
    assert manifest["data"]["num_examples"] == manifest["data"]["num_available"] == 11
    assert str(Path.home()) not in text
    assert str(tmp_path) not in text


def test_examples_are_a_seeded_prefix() -> None:
    data = some_digits()
    assert choose_examples(data, 5, 0) == choose_examples(data, 9, 0)[:5]
    assert choose_examples(data, None, 0) != choose_examples(data, None, 1)
    assert sorted(choose_examples(data, None, 1)) == list(range(11))
    for number in (0, 12):
        with pytest.raises(UserError, match="has 11"):
            choose_examples(data, number, 0)


def test_evaluations_are_counted_before_they_are_spent() -> None:
    """Two restarts of 3 and of 2 steps; one forward pass more for each verdict (3 read-outs, 1), one for the clean image."""
    found = max_cost(small_suite(2), 11)
    assert (found.num_gradients, found.num_forwards) == (11 * 2 * (3 + 2), 11 * (2 * (3 + 3 + 2 + 1) + 1))
    assert found.total == sum(chunk.num_evaluations for chunk in planned_chunks(small_suite(2), range(11), 4))
    assert [(stage.name, stage.restart) for stage in attack_rounds(small_suite(2))] == [
        ("clean", 0),
        ("untargeted-3", 0),
        ("untargeted-3", 1),
        ("targeted-2", 0),
        ("targeted-2", 1),
    ]


def test_a_model_that_answers_nan_is_not_called_robust(tmp_path: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.controller.readout[2].bias[4] = float("nan")
    with pytest.raises(UserError, match="is not finite"):
        evaluate(EvaluationTask(model, some_digits(), small_suite(), range(4), SETTINGS), tmp_path, ignore)
    assert chunk_bytes(tmp_path) == {}


def test_settings_change_every_attack_of_a_suite_and_its_name() -> None:
    changed = override_suite(small_suite(), ["attack.num_restarts=3", "attack.radius=16/255"])
    assert changed.name == "small+num_restarts=3+radius=16_255"
    assert {(a.attack.num_restarts, a.attack.radius) for a in changed.attacks} == {(3, 16 / 255)}
    assert [a.attack.num_attack_steps for a in changed.attacks] == [3, 2]
    assert override_suite(small_suite(), []) == small_suite()
    longer = override_suite(small_suite(), ["attack.num_attack_steps=7"])
    assert [a.name for a in longer.attacks] == ["untargeted-7", "targeted-7"]
    assert longer.gallery_attack == "targeted-7"
    assert [a.name for a in shrink_suite(get_suite("table1")).attacks] == ["targeted-10", "targeted-1000"], "kept apart"
    assert shrink_suite(get_suite("digits")).gallery_attack == "untargeted-2"
    with pytest.raises(UserError, match=r"Did you mean attack\.num_restarts"):
        override_suite(small_suite(), ["attack.num_restart=3"])
    with pytest.raises(UserError, match="read_outs"):
        override_suite(small_suite(), ["attack.num_attack_steps=1"])


def test_recurrent_parts_run_backward_in_eval_mode_on_any_device() -> None:
    """X13: cuDNN's LSTM cannot; an LSTMCell, or plain operations, can."""
    for name in ("s3ta_2_resnetv2_mini", "s3ta_2_resnetv2_18"):
        parts = list(create_model(name).modules())
        assert not any(isinstance(part, torch.nn.RNNBase) for part in parts)
        assert any(isinstance(part, torch.nn.LSTMCell) for part in parts)
