"""Training in two processes: the same step as one, the same last bit after kills, and nobody left waiting for nobody."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from s3ta.config import config_hash, override, to_json
from s3ta.data import BatchOrder, DataConfig, open_dataset
from s3ta.distributed import Ranks
from s3ta.files import read_lines, sole_use
from s3ta.recipes import get_recipe, shrink_recipe
from s3ta.train import is_finished
from s3ta.train.checkpoint import buffers_of
from s3ta.train.loop import seeded_model
from s3ta.train.run_folder import init_run_folder
from s3ta.train.step import Trainer
from tests.processes import PATIENCE, free_port, together

from .helpers import CPU, Pictures, curve, recipe, same_run, snapshot
from .launch import CHANGES, DIGITS, WORDS, Torchrun
from .process import CHANGE, CRASHES, ONE_STEP, RUN, SHARED, crashes_alone, go, main, one_step

ALONE = Ranks()


# --- what both processes saw ----------------------------------------------------------------------------------------------


def _pictures_in_a_folder(root: Path) -> Any:
    """A recipe on 16 image files, of which one in the second process's share of the second step cannot be read."""
    for i in range(16):
        path = root / "set" / "train" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 12), (16 * i, 99, 255 - 16 * i)).save(path)
    shutil.copytree(root / "set/train", root / "set/val")
    data = DataConfig(source="folder:set", image_size=12, num_validation=0)
    plain = recipe("resnet", batch_size=4)
    model = plain.model.model_copy(
        update={"num_classes": 2, "vision": plain.model.vision.model_copy(update={"in_channels": 3})}
    )
    config = plain.model_copy(update={"data": data, "model": model})
    examples = open_dataset(data, "train", root)
    damaged = root / "set" / str(examples.ids[BatchOrder(examples, 4, 0).position(1).indices[3]])
    damaged.write_bytes(b"no image")
    (root / "recipe.json").write_text(to_json(config))
    return damaged


def _programs(folder: Path) -> list[tuple[str, list[str], str, str]]:
    """Name, words, port and what is broken in each command that both processes run; `{rank}` differs."""
    here, other = folder / "programs", ["--data-root", str(folder)]
    commands = {
        "digits": (WORDS, ""),
        "again": ([*WORDS, "--out", str(here / "digits")], ""),
        "odd batch": ([*WORDS, "batch_size=15"], ""),
        "odd group": ([*WORDS, "batch_size=12", "batch_norm.group=4"], ""),
        "one image each": ([*WORDS, "batch_size=2"], ""),
        "held": (WORDS, ""),
        "another recipe": ([*WORDS, "seed=1"], ""),
        "damaged checkpoint": (WORDS, ""),
        "not finite": (WORDS, "images"),
        "unreadable": (["train", str(folder / "recipe.json"), *other, "--device", "cpu"], ""),
        "no data": (
            ["train", str(folder / "recipe.json"), "--data-root", str(folder) + "/{rank}", "--device", "cpu"],
            "",
        ),
    }
    return [
        (name, words if "--out" in words else [*words, "--out", str(here / name)], str(free_port()), how)
        for name, (words, how) in commands.items()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def damaged(folder: Path) -> Path:
    return _pictures_in_a_folder(folder)


@pytest.fixture(scope="module")
def told(folder: Path, damaged: Path) -> list[dict[str, Any]]:
    """What each of two processes says of all parts in `process.py`."""
    config = override(shrink_recipe(get_recipe(DIGITS)), CHANGES)
    here = folder / "programs"
    init_run_folder(here / "another recipe", config)
    init_run_folder(here / "damaged checkpoint", config)
    (here / "damaged checkpoint/checkpoint.safetensors").write_bytes(b"torn")
    (folder / "0").mkdir()
    (folder / "0/set").symlink_to(folder / "set")  # the second process has no data in "no data"
    go(SHARED, folder / "more", ALONE, CHANGE)
    (folder / "programs.json").write_text(json.dumps(_programs(folder)))
    with sole_use(here / "held"):
        together(main, folder, count=2)
    return [pickle.loads((folder / f"told-{rank}").read_bytes()) for rank in range(2)]


# --- one step --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return {name: one_step(config, ALONE) for name, config in ONE_STEP.items()}


def _furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest relative difference of a tensor, in the Euclidean norm."""
    assert one.keys() == other.keys()
    return max(
        float((one[k].double() - other[k].double()).norm() / one[k].double().norm().clamp_min(1e-30)) for k in one
    )


@pytest.mark.parametrize("name", ONE_STEP)
def test_two_processes_with_half_the_batch_each_equal_one_with_all_of_it(told, alone, name):
    """Of everything but BN's moving averages, which each process keeps of its own groups (T13): those of the first
    process are saved as the model's, and those of all of them are in the checkpoint."""
    whole, parts = alone[name], [each["steps"][name] for each in told]
    assert all(torch.equal(parts[0]["weights"][k], parts[1]["weights"][k]) for k in whole["weights"])
    moved = {k: parts[0]["weights"][k] - parts[0]["before"][k] for k in whole["weights"]}
    should = {k: whole["weights"][k] - whole["before"][k] for k in whole["weights"]}
    print(
        f"{name}: weights {_furthest(whole['weights'], parts[0]['weights']):.1e}, update {_furthest(should, moved):.1e}"
    )
    assert _furthest(whole["weights"], parts[0]["weights"]) < 1e-5
    for part in parts:
        assert part["loss_sum"] == pytest.approx(whole["loss_sum"], rel=1e-5)
        assert part["num_correct"] == whole["num_correct"]


@pytest.mark.parametrize("name", ONE_STEP)
def test_each_process_attacks_its_share_with_the_draws_that_its_examples_have_in_one(told, alone, name):
    whole, parts = alone[name], [each["steps"][name] for each in told]
    assert parts[0]["ids"] + parts[1]["ids"] == whole["ids"]
    for field in ("clean", "labels", "targets", "start", "attacked"):
        if whole[field] is None:
            assert [part[field] for part in parts] == [None, None]
        else:
            assert torch.equal(torch.cat([part[field] for part in parts]), whole[field]), field


@pytest.mark.parametrize("name", ONE_STEP)
def test_the_attack_stays_outside_the_wrapper(told, name):
    """X39: the wrapped learner is called once per BN group and pass, in training mode, and never by the attack, which
    sees the process's own images alone and asks nobody but for one word at its end."""
    config = ONE_STEP[name]
    passes = 2 if config.weight_perturbation.gamma else 1
    size = (config.batch_norm.group or config.batch_size) // (2 if config.batch_norm.sync else 1)
    groups = config.batch_size // 2 // size
    for each in told:
        part = each["steps"][name]
        assert [call for call in part["calls"] if call[1] == "learner"] == [("update", "learner", True, size)] * (
            passes * groups
        )
        attacking = [call for call in part["calls"] if call[0] == "attack"]
        assert all(call[1:3] == ("model", False) and call[3] <= 4 for call in attacking)
        assert bool(attacking) == (config.schedule.clean_steps == 0)
        assert part["reductions"] == [1] * bool(attacking)


@pytest.mark.parametrize("name", [name for name in ONE_STEP if "synchronised" in name])
def test_synchronised_processes_keep_the_moving_averages_of_the_whole_group(told, alone, name):
    whole, parts = alone[name]["buffers"], [each["steps"][name]["buffers"] for each in told]
    assert all(torch.equal(parts[0][k], parts[1][k]) for k in whole)
    assert _furthest(whole, parts[0]) < 1e-5


@pytest.mark.parametrize("rank", [0, 1])
def test_without_synchronisation_each_process_keeps_the_moving_averages_of_its_own_groups(told, rank):
    """In a plain loop over the process's images, with the weights that both share in the end of each step."""
    part, model = told[rank]["steps"]["accumulated"], seeded_model(ONE_STEP["accumulated"]).train()
    for weights, buffers in (("before", "buffers"), ("weights", "buffers after two")):
        model.load_state_dict(part[weights], strict=False)
        for group in part["attacked"].split(4):
            model(group)
        assert _furthest(dict(model.named_buffers()), part[buffers]) < 1e-6


def test_the_average_of_the_weights_is_that_of_one_process_and_kept_by_the_first(told, alone):
    weights = ONE_STEP["clipped"], alone["clipped"]["weights"]
    whole, first, second = (
        each["average"] for each in (alone["clipped"], *(each["steps"]["clipped"] for each in told))
    )
    assert second == {}
    assert _furthest({k: whole[k] for k in weights[1]}, {k: first[k] for k in weights[1]}) < 1e-5


# --- whole runs ------------------------------------------------------------------------------------------------------------


def test_the_learning_curve_of_two_processes_begins_as_that_of_one(told, folder, tmp_path):
    go(RUN, tmp_path, ALONE)
    one, two = ([json.loads(line) for line in curve(each)] for each in (tmp_path, folder / "whole"))
    assert [(line["kind"], line["step"]) for line in one] == [(line["kind"], line["step"]) for line in two]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-6)
    assert {**two[0], "loss": 0} == {**one[0], "loss": 0}


@pytest.mark.parametrize("finished", CRASHES)
def test_a_crash_of_both_after_any_step_changes_nothing(told, folder, finished):
    same_run(folder / "whole", folder / f"crashed-{finished}")


@pytest.mark.slow
def test_a_crash_of_three_changes_nothing(tmp_path):
    """Of three numbers the sum depends on their order, of two it does not."""
    together(crashes_alone, tmp_path, count=3)
    same_run(tmp_path / "whole", tmp_path / "crashed")


def test_the_checkpoint_holds_the_moving_averages_of_both_and_the_model_those_of_the_first(told, folder):
    state, model = (
        load_file(folder / "whole/checkpoint.safetensors"),
        load_file(folder / "whole/model/model.safetensors"),
    )
    names = [k.removeprefix("model.") for k in state if k.startswith("model.") and k.endswith("running_mean")]
    assert names
    for name in names:
        assert torch.equal(model[name], state[f"model.{name}"])
        assert not torch.equal(state[f"buffers.1.{name}"], state[f"model.{name}"])


def test_a_run_of_two_processes_resumes_with_one(told, folder):
    """With shared statistics it matters to no step how many there are, so both end alike, but for rounding."""
    assert not is_finished(folder / "fewer")
    go(SHARED, folder / "fewer", ALONE)
    _same_but_for_rounding(folder / "shared", folder / "fewer")


def test_a_run_of_one_process_resumes_with_two(told, folder):
    _same_but_for_rounding(folder / "shared", folder / "more")


def _same_but_for_rounding(one: Path, other: Path) -> None:
    lines = [[json.loads(line) for line in curve(each)] for each in (one, other)]
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for mine, its in zip(*lines, strict=True):
        if mine["kind"] == "train":
            assert its["loss"] == pytest.approx(mine["loss"], rel=1e-3)
    weights = [load_file(each / "model/model.safetensors") for each in (one, other)]
    assert _furthest(*weights) < 1e-2


def test_with_fewer_processes_the_moving_averages_of_the_first_are_gone_on_with(told, folder):
    path = folder / "whole/checkpoint.safetensors"
    trainer = Trainer(RUN, seeded_model(RUN), CPU, ALONE)
    assert trainer.load(path, f"{config_hash(RUN)}/{Pictures.fingerprint}").step == RUN.schedule.num_train_steps
    state = load_file(path)
    assert all(torch.equal(tensor, state[f"model.{name}"]) for name, tensor in buffers_of(trainer.model).items())


# --- mistakes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("met", "first", "second"),
    [
        ("first", ("UserError", "first"), ("SystemExit", "2")),
        ("second", ("SystemExit", "2"), ("UserError", "second")),
        ("both", ("UserError", "both"), ("SystemExit", "2")),
        ("none", ("", ""), ("", "")),
    ],
)
def test_a_mistake_is_told_by_the_first_that_met_it_and_ends_both(told, met, first, second):
    assert [each["mistakes"][met] for each in told] == [first, second]


@pytest.mark.parametrize(
    ("how", "words"), [("images", "The loss is nan"), ("gradient", "The attack's gradient is not finite")]
)
def test_what_is_not_finite_in_one_process_ends_both_before_any_weight_moves(told, folder, how, words):
    """The run crashed in the sixth step (the first one is clean) and keeps the state after the fourth."""
    first, second = (each["mistakes"][how] for each in told)
    assert first[0] == "UserError"
    assert first[1].startswith(f"{words} at training step 5")
    assert second == ("SystemExit", "2")
    assert max(line["step"] for line in read_lines(folder / how / "train.jsonl")) == 5
    assert curve(folder / how) == curve(folder / "whole")[: len(curve(folder / how))]
    kept = load_file(folder / how / "checkpoint.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


def test_a_run_folder_that_one_process_does_not_see_is_a_mistake(told):
    first, second = (each["mistakes"]["not shared"] for each in told)
    assert "is not the same file for all 2 processes" in first[1]
    assert second == ("SystemExit", "2")


REFUSED = {
    "odd batch": (0, "A batch of 15 images does not divide among 2 processes"),
    "odd group": (0, "BN groups of 4 images do not fit the 6 images that each of 2 processes has"),
    "one image each": (0, "Each of 2 processes has one image of a batch of 2"),
    "held": (0, "Another process is at work on"),
    "another recipe": (0, "seed is 0 there and 1 now"),
    "damaged checkpoint": (0, "is damaged, or not a checkpoint"),
    "not finite": (0, "The loss is nan at training step 6"),
    "no data": (1, "does not exist"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_on_the_command_line_is_one_sentence_of_one_process(told, folder, name):
    who, words = REFUSED[name]
    results = [each["programs"][name] for each in told]
    assert [(result["code"], result["raised"]) for result in results] == [(2, None)] * 2
    said = [[line for line in result["stderr"].splitlines() if line.startswith("s3ta: ")] for result in results]
    assert [len(lines) for lines in said] == [1 - who, who], results
    assert words in said[who][0]
    assert not any("Traceback" in result["stderr"] for result in results)
    assert all(result["seconds"] < PATIENCE / 3 for result in results), "one waited for the other"


@pytest.mark.parametrize("name", ["odd batch", "odd group", "one image each", "no data"])
def test_what_is_refused_leaves_nothing_behind(told, folder, name):
    assert not (folder / "programs" / name).exists()


def test_a_folder_that_is_held_or_taken_is_left_as_it_was(told, folder):
    assert snapshot(folder / "programs/held") == {}
    assert list(snapshot(folder / "programs/another recipe")) == ["recipe.json"]


def test_a_file_that_one_process_cannot_read_ends_both_and_is_named(told, damaged):
    first, second = (each["programs"]["unreadable"] for each in told)
    assert [first["code"], second["code"]] == [2, 2]
    assert [first["raised"], second["raised"]] == [None, None]
    assert damaged.name in second["stderr"].splitlines()[-1]
    assert first["stderr"].splitlines()[-1].startswith("s3ta: Another process of this run has ended")
    assert max(first["seconds"], second["seconds"]) < PATIENCE / 3, "one waited for the other"


def test_both_processes_end_with_code_0_and_one_reports_it(told, folder):
    first, second = (each["programs"]["digits"] for each in told)
    assert [first["code"], second["code"]] == [0, 0], first
    assert first["stdout"].splitlines()[0] == f"Trained: {folder / 'programs/digits'}"
    assert "on 2 processes" in first["stderr"]
    assert (second["stdout"], second["stderr"]) == ("", "")


def test_a_finished_run_is_not_repeated_by_two_processes_either(told, folder):
    first, second = (each["programs"]["again"] for each in told)
    assert [first["code"], second["code"]] == [0, 0]
    assert f"Already trained: {folder / 'programs/digits'}" in first["stdout"]
    assert second["stdout"] == ""


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_variables_of_torchrun_that_are_incomplete_are_one_sentence(tmp_path, monkeypatch, missing):
    from typer.testing import CliRunner

    from s3ta.cli import app

    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.delenv(name, raising=False) if name == missing else monkeypatch.setenv(name, value)
    result = CliRunner(env={"COLUMNS": "1000"}).invoke(app, [*WORDS, "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"s3ta: WORLD_SIZE is 2, but {missing} is not set")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


# --- torchrun, killed -------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    if not Path("/proc/self/environ").exists():
        pytest.skip("processes are found through /proc, which is not here")
    started: list[Torchrun] = []

    def start(*options: str, words: Sequence[str] = ()) -> Torchrun:
        started.append(Torchrun(tmp_path / "run", *options, words=words))
        return started[-1]

    yield start
    for each in started:
        if each.child.poll() is None:
            each.kill()
        each.log.close()


def _dice() -> random.Random:
    seed = int(os.environ.get("S3TA_TEST_SEED", time.time_ns() % 10**6))
    print(f"kills from S3TA_TEST_SEED={seed}")
    return random.Random(seed)


def _same_as_undisturbed(folder: Path, out: Path) -> None:
    same_run(folder / "programs/digits", out)


@pytest.mark.thorough
def test_a_kill_of_all_and_a_kill_of_one_change_nothing(told, folder, start):
    """`kill -9` to torchrun and both processes; then to one of them, after which torchrun starts both again."""
    dice = _dice()
    first = start()
    first.until(dice.randint(2, 8))
    first.kill()
    assert 1 < first.finished() < 30
    second = start("--max-restarts", "1")
    second.until(max(first.finished(), 3) + dice.randint(1, 8))
    os.kill(second.processes()[dice.randint(0, 1)], signal.SIGKILL)
    code, said = second.ended()
    assert code == 0, said
    assert said.count("Trained: ") == 1
    _same_as_undisturbed(folder, second.out)


@pytest.mark.slow
def test_ten_kills_of_both_processes_change_nothing(told, folder, start):
    dice, killed_at = _dice(), []
    for _ in range(10):
        run = start()
        run.until(run.finished() + dice.randint(1, 2))
        time.sleep(dice.random() * 0.05)
        run.kill()
        killed_at.append(run.finished())
    print(f"killed after steps {killed_at}")
    assert killed_at[0] < 30
    last = start()
    code, said = last.ended()
    assert code == 0, said
    _same_as_undisturbed(folder, last.out)


@pytest.mark.slow
def test_torchrun_starts_again_what_died_three_times(told, folder, start):
    dice, run = _dice(), start("--max-restarts", "3")
    for _ in range(3):
        before = run.finished() // 3 * 3  # what is beyond the checkpoint is cut off and done again
        run.until(before + dice.randint(4, 7))
        os.kill(run.processes()[dice.randint(0, 1)], signal.SIGKILL)
        time.sleep(1)
    code, said = run.ended()
    assert code == 0, said
    _same_as_undisturbed(folder, run.out)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 1])
def test_sigterm_to_torchrun_saves_the_step_in_progress(told, folder, start, num_workers):
    """torchrun passes it on to its processes and to theirs."""
    run = start(words=[f"num_workers={num_workers}"])
    run.until(7)
    run.child.send_signal(signal.SIGTERM)
    code, said = run.ended()
    assert code != 0
    assert said.count("s3ta: interrupted; what was finished is saved. Run the same command again to go on.") == 1
    assert not [line for line in said.splitlines() if "/s3ta/" in line], said  # torchrun shows a traceback, of its own
    from safetensors import safe_open

    with safe_open(str(run.out / "checkpoint.safetensors"), "pt") as file:
        assert json.loads(file.metadata()["s3ta"])["progress"]["step"] == run.finished() >= 7
    again = start()
    code, said = again.ended()
    assert code == 0, said
    _take_note_of_workers(run.out, num_workers)
    _same_as_undisturbed(folder, run.out)


def _take_note_of_workers(out: Path, num_workers: int) -> None:
    """The curve notes that the run went on with another number of workers, which changes nothing else in it."""
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    notes = [(line["name"], line["before"], line["value"]) for line in lines if line["kind"] == "setting"]
    assert notes == ([("num_workers", num_workers, 0)] if num_workers else [])
    kept = [json.dumps(line) for line in lines if line["kind"] != "setting"]
    (out / "train.jsonl").write_text("\n".join(kept) + "\n")
