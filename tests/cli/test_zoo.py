"""Every correct classifier of the zoo is measured, with the clean answer that is known and no false alarm; every faulty one is
caught, or refused in one true sentence. None ends in a traceback."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from s3ta.records import Ledger

from . import zoo
from .tints import done, refused, rows, s3ta

SHORT = ("--attack", "pgd-100", "attack.num_attack_steps=2", "attack.step_size=8/255")
NONE = ("--attack", "square", "--tiny")
HOW = ("--batch-size", "40", "--threads", "1", "--device", "cpu")


@pytest.fixture(autouse=True)
def torch_is_as_it_was():
    """What a network of the zoo changes for everybody must have been put back."""
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
    yield
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()) == before


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"npz:{zoo.write_images(tmp_path_factory.mktemp('zoo') / 'data.npz')}"


def words(name: str, data: str, out: Path, *more: str) -> tuple[str | Path, ...]:
    attack = () if "--attack" in more else SHORT
    return ("evaluate", f"tests.cli.zoo:{name}", "--data", data, *attack, *HOW, *more, "--out", out)


def alarms(folder: Path) -> set[str]:
    """Kinds of the findings, before and after, that are warnings or errors."""
    trust = json.loads((folder / "trust.json").read_text())
    return {one["kind"] for part in trust.values() for one in part if one["severity"] in ("warning", "error")}


def finding(folder: Path, kind: str) -> dict:
    trust = json.loads((folder / "trust.json").read_text())
    return next(one for part in trust.values() for one in part if one["kind"] == kind)


def check_measured(name: str, data: str, out: Path, *more: str, known: frozenset[str] = frozenset()) -> str:
    """It is measured, all clean images are right, and nothing is suspicious but what is known; returns what was shown."""
    shown = done(*words(name, data, out, *more))
    assert "Traceback" not in shown.output
    assert Ledger.read(out).complete
    assert all(row["correct"] for row in rows(out, attack="clean"))
    assert alarms(out) <= known, alarms(out)
    return shown.output


# --- correct ----------------------------------------------------------------------------------------------------------------

CORRECT = {
    "Net": set(),
    "Deep": set(),
    "float64_inside": set(),
    "bfloat16_inside": {"precision"},
    "half_inside": {"precision"},
    "float64_weights": set(),
    "half_weights": set(),
    "float64_by_default": set(),
    "Mixed": set(),
    "float64_answers": set(),
    "autocast_bfloat16": {"precision"},
    "KeepsFeatures": set(),
    "HoldsLock": set(),
    "HoldsIterators": set(),
    "NeverCopied": set(),
    "AwkwardProperties": set(),
    "Slotted": set(),
    "CallCounter": set(),
    "PrintsItsCalls": set(),
    "BrokenPrint": set(),
    "CachesByBatch": set(),
    "ExtraState": set(),
    "ModesWithoutReturn": set(),
    "CallOverridden": set(),
    "hooked": set(),
    "data_parallel": set(),
    "sequential": set(),
    "weight_norm": set(),
    "spectral_norm": set(),
    "parametrised": set(),
    "Lazy": set(),
    "channels_last": set(),
    "Checkpointed": set(),
    "Recurrent": {"recurrent"},
    "NoParameters": set(),
    "inference_born": set(),
    "pruned": set(),
    "Energy": set(),
    "Delegates": set(),
    "Complex": set(),
    "Sparse": set(),
    "Integers": set(),
    "nameless_sizes": set(),
    "log_softmax": set(),
    "large_offset": set(),
    "centred_with_offset": set(),
    "strided_view": set(),
    "expanded": set(),
    "transposed": set(),
    "in_place_on_its_own": set(),
    "Asserts": set(),
    "OneByOne": set(),
    "mapped": set(),
    "own_backward": set(),
    "functional": set(),
    "gradients_off_at_import": set(),
    "bilinear_inside": set(),
    "fx_graph": set(),
    "draws_from_torch": {"randomness"},
    "draws_from_numpy": {"randomness"},
    "draws_from_its_own": {"randomness"},
}
"""Correct networks, and what may be said of them."""
BY_A_COMPILER = {
    "compiled": set(),
    "compiled_inside": set(),
    "compiled_by_inductor": set(),
    "scripted": set(),
    "traced": set(),
    "frozen_script": set(),
    "optimised_script": set(),
    "exported": set(),
    "draws_from_python": {"randomness"},
}
WITHOUT_GRADIENTS = {
    "quantised": "The network is quantised",  # by the range of the whole batch, so that neighbours matter
    "quantised_statically": "The network is quantised",
    "InferenceOnly": "The logits have no graph to the image",
    "NumpyInside": "The logits have no graph to the image",
    "Detached": "The logits have no graph to the image",
    "no_way_back": "NotImplementedError: somebody else will write this (zoo.py, line ",
    "ReentrantCheckpoint": "set use_reentrant=False",
}
"""Networks that attacks by gradients cannot do with, and why; others can."""


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_network_is_measured_without_a_false_alarm(name: str, data: str, tmp_path: Path) -> None:
    check_measured(name, data, tmp_path / "out", known=frozenset(CORRECT[name]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", BY_A_COMPILER)
@pytest.mark.parametrize("micro_batch", ["40", "7"])
def test_a_compiled_or_exported_network_is_measured(name: str, micro_batch: str, data: str, tmp_path: Path) -> None:
    check_measured(name, data, tmp_path / "out", "--batch-size", micro_batch, known=frozenset(BY_A_COMPILER[name]))


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("name", WITHOUT_GRADIENTS)
def test_a_network_without_gradients_is_measured_by_attacks_that_use_none(name: str, data: str, tmp_path: Path) -> None:
    refused(s3ta(*words(name, data, tmp_path / "no")), WITHOUT_GRADIENTS[name], "square")
    without = s3ta(*words(name, data, tmp_path / "no", "--no-checks"))
    refused(without, "gradient" if "backward" not in without.stderr else "backward pass")
    pytest.importorskip("pyautoattack")
    known = frozenset({"trial", "precision", "batch dependence"} if "quantised" in name else {"trial"})
    check_measured(name, data, tmp_path / "out", *NONE, known=known)


def test_the_zoo_is_large_enough_and_every_network_is_asked() -> None:
    made_here = {
        name
        for name, value in vars(zoo).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == zoo.__name__
        and (inspect.isfunction(value) or issubclass(value, nn.Module))
    }
    asked = CORRECT.keys() | BY_A_COMPILER.keys() | WITHOUT_GRADIENTS.keys() | CAUGHT.keys() | REFUSED.keys()
    helpers = {"prototypes", "write_images", "write_hundred", "Inside", "Around", "AtHundred"}
    assert made_here - helpers == asked | {"a_hundred_classes", "sorted_as_text", "SometimesNaN"}
    assert len(CORRECT) + len(BY_A_COMPILER) >= 30
    assert len(CAUGHT) + len(REFUSED) >= 15


# --- what is done about them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("float64_inside", "Weights stay float64, for the network fails in float32"),
        ("bfloat16_inside", "Weights stay bfloat16, for the network fails in float32"),
        ("Mixed", "Weights stay float64, for the network fails in float32"),
        ("half_weights", "Weights were cast from float16 to float32."),
        ("float64_by_default", "Weights were cast from float64 to float32."),
    ],
)
def test_the_number_type_that_a_network_keeps_is_told(name: str, note: str, data: str, tmp_path: Path) -> None:
    shown = done(*words(name, data, tmp_path / "out", "--no-checks"))
    assert f"note: {note}" in shown.stderr
    notes = Ledger.read(tmp_path / "out").manifest["model"]["config"]["notes"]
    assert any(one.startswith(note) for one in notes)


def test_a_counter_in_a_buffer_is_not_taken_for_memory(data: str, tmp_path: Path) -> None:
    done(*words("CallCounter", data, tmp_path / "counter"))
    found = finding(tmp_path / "counter", "own state")
    assert (found["severity"], found["evidence"]["names"]) == ("note", ["net.calls"])
    done(*words("RunningMean", data, tmp_path / "mean"))
    found = finding(tmp_path / "mean", "own state")
    assert found["severity"] == "warning"
    assert "depend on what it saw before" in found["sentence"]


@pytest.mark.parametrize("name", ["draws_from_torch", "draws_from_numpy", "draws_from_python", "draws_from_its_own"])
def test_a_random_network_can_be_resumed(name: str, data: str, tmp_path: Path) -> None:
    """And where it draws from a generator that everybody shares, a second run makes the same records."""
    run = [str(word) for word in words(name, data, tmp_path / "out", "--no-checks", "--num-examples", "12")]
    done(*run)
    first = rows(tmp_path / "out")
    next((tmp_path / "out").glob("chunk-00001*")).unlink()
    done(*run)
    assert Ledger.read(tmp_path / "out").complete
    if name != "draws_from_its_own":
        assert rows(tmp_path / "out") == first
        done(*run[:-1], str(tmp_path / "again"))
        assert rows(tmp_path / "again") == first


@pytest.mark.parametrize(
    "option", [("--attack-precision", "bfloat16"), ("--channels-last",)], ids=lambda option: option[0]
)
@pytest.mark.parametrize("name", ["KeepsFeatures", "HoldsLock", "HoldsIterators", "hooked", "pruned"])
def test_what_cannot_be_copied_is_searched_in_another_manner(
    name: str, option: tuple[str, ...], data: str, tmp_path: Path
) -> None:
    """After the lint, which leaves a graph in a network that keeps its features."""
    check_measured(name, data, tmp_path / "out", *option)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize(
    "option", [("--attack-precision", "bfloat16"), ("--channels-last",)], ids=lambda option: option[0]
)
@pytest.mark.parametrize("name", ["scripted", "traced", "optimised_script", "exported", "compiled_inside"])
def test_a_script_is_searched_in_another_manner_or_refused_in_a_sentence(
    name: str, option: tuple[str, ...], data: str, tmp_path: Path
) -> None:
    result = s3ta(*words(name, data, tmp_path / "out", *option))
    if result.exit_code:
        refused(result, "leave")
    else:
        assert all(row["correct"] for row in rows(tmp_path / "out", attack="clean"))


def test_a_network_that_forbids_its_copy_is_refused_for_another_memory_order_only(data: str, tmp_path: Path) -> None:
    check_measured("NeverCopied", data, tmp_path / "bfloat16", "--attack-precision", "bfloat16")
    result = s3ta(*words("NeverCopied", data, tmp_path / "last", "--channels-last"))
    refused(result, "does not let itself be copied (zoo.py, line ", "leave --channels-last out")


def test_a_manner_that_the_processor_lacks_is_one_sentence(data: str, tmp_path: Path) -> None:
    """cuDNN's LSTM in bfloat16: some processors have it, others raise from deep inside."""
    result = s3ta(*words("Recurrent", data, tmp_path / "out", "--attack-precision", "bfloat16", "--no-checks"))
    if result.exit_code:
        refused(result, "computed otherwise than in plain float32 (bfloat16)", "leave that setting out")


# --- faulty -----------------------------------------------------------------------------------------------------------------

CAUGHT = {
    "softmax": "probabilities",
    "percent": "probabilities",
    "permuted": "label order",
    "blue_first": "channel order",
    "for_255": "input range",
    "batch_mean": "batch dependence",
    "InPairs": "batch dependence",
    "RunningMean": "own state",
    "TrainsInForward": "train mode",
    "saturated": "saturated loss",
    "dropout_always": "randomness",
}
"""Faulty networks that give a number, and the finding that says not to trust it."""
REFUSED = {
    "a_tuple": "answers with a tuple: it must give logits",
    "a_dict": "answers with a dict: it must give logits",
    "classes_for_logits": "with int64 of shape (2,): it must give logits",
    "nothing": "answers with a NoneType: it must give logits",
    "not_a_module": "gave a function: it must return a torch.nn.Module",
    "Writes": "A forward pass writes into its input",
    "Raises": "(LookupError: no such layer (zoo.py, line ",
    "RaisesLater": "LookupError: the licence has run out (zoo.py, line ",
    "Leaves": "(SystemExit: 3 (zoo.py, line ",
    "NoEval": "NoEval.eval() failed: PermissionError: not to be evaluated (zoo.py, line ",
    "NoState": "state_dict() of NoState failed: OSError: the weights are elsewhere (zoo.py, line ",
    "OutOfMemory": "there is too little memory",
    "meta": "is on torch's meta device, where weights have no numbers (2 of them, the first 1.weight)",
    "nan_weights": "The logits of 40 of 40 images are NaN or infinite, the first of them test-0000",
    "exported_for_one_batch": "it was exported for one number of images",
}
"""Networks that cannot be measured, and the sentence that says why."""


@pytest.mark.parametrize("name", CAUGHT)
def test_a_faulty_network_is_caught(name: str, data: str, tmp_path: Path) -> None:
    shown = done(*words(name, data, tmp_path / "out"))
    assert "Traceback" not in shown.output
    assert CAUGHT[name] in alarms(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if "exported" in name else name for name in REFUSED],
)
def test_a_network_that_cannot_be_measured_is_refused_in_one_sentence(name: str, data: str, tmp_path: Path) -> None:
    refused(s3ta(*words(name, data, tmp_path / "out")), REFUSED[name])
    assert not list((tmp_path / "out").glob("chunk-*")) or name == "RaisesLater"


# --- which examples the lint looks at -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_class", [2, 10])
def test_the_order_of_a_hundred_classes_is_checked(per_class: int, tmp_path: Path) -> None:
    """Of the examples of the data, however few of each class are measured."""
    data = f"npz:{zoo.write_hundred(tmp_path / 'data.npz', per_class)}"
    few = ("--num-examples", "60")
    shown = done(*words("sorted_as_text", data, tmp_path / "text", *few))
    assert (
        "warning: label order: The outputs seem to be in the order of their numbers as text (0, 1, 10, 2)"
        in shown.stderr
    )
    done(*words("a_hundred_classes", data, tmp_path / "right", *few))
    found = finding(tmp_path / "right", "label order")
    assert found["severity"] == "passed"
    count = found["evidence"]["images"]
    assert f"of 100 classes, by {count} examples" in found["sentence"]
    assert 32 <= count <= 256


def test_images_that_are_not_measured_only_inform(tmp_path: Path) -> None:
    """And one that is measured is named by its id."""
    path = zoo.write_images(tmp_path / "data.npz")
    with np.load(path) as stored:
        images, labels = stored["images"].copy(), stored["labels"]
    images[17, 0, 0, 0] = 0
    np.savez(path, images=images, labels=labels)
    (tmp_path / "good.txt").write_text("\n".join(f"test-{i:06d}" for i in range(40) if i != 17))
    (tmp_path / "bad.txt").write_text("\n".join(f"test-{i:06d}" for i in range(10, 20)))
    done(*words("SometimesNaN", f"npz:{path}", tmp_path / "good", "--ids", str(tmp_path / "good.txt")))
    found = finding(tmp_path / "good", "finite")
    assert found["severity"] == "note"
    assert "Not of what is measured, but of 1 other images" in found["sentence"]
    assert "test-000017" in found["sentence"]
    result = s3ta(*words("SometimesNaN", f"npz:{path}", tmp_path / "bad", "--ids", str(tmp_path / "bad.txt")))
    refused(result, "The logits of 1 of 10 images are NaN or infinite, the first of them test-000017")
