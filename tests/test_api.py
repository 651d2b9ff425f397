"""The door from Python: the same records as the command line, nothing printed or changed, one sentence for what is wrong."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from typer.testing import CliRunner

import s3ta
from s3ta import api
from s3ta.cli import app
from s3ta.errors import UserError
from s3ta.records import Ledger

COUNT, SIZE = 24, 12
FEW = {"suite": ["pgd-100"], "overrides": ["attack.num_attack_steps=4", "attack.step_size=2/255"], "threads": 1}
FEW |= {"batch_size": 8, "checks": "none", "progress": False}
MAKE = """
import torch
from torch import nn

"""


def make() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 4)
        ).eval()


@pytest.fixture
def model() -> nn.Module:
    return make()


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    """Bytes, and the model's own answers as labels, but for every sixth."""
    pixels = np.random.default_rng(5).integers(0, 256, (COUNT, 3, SIZE, SIZE), dtype=np.uint8)
    with torch.no_grad():
        labels = make()(torch.from_numpy(pixels).float() / 255).argmax(dim=1).numpy()
    assert set(labels.tolist()) == {0, 1, 2, 3}
    return pixels, np.where(np.arange(COUNT) % 6 == 5, (labels + 1) % 4, labels)


def unchecked(function: Callable[..., Any]) -> Callable[..., Any]:
    """As users run it: the tests' check of annotations refuses wrong types before the function does."""
    return inspect.unwrap(function)


def as_floats(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).float() / 255


class Pairs(Dataset):
    """Images and labels one by one, as torchvision's data sets give them."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.pixels, self.labels = as_floats(pixels), labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pixels[index], int(self.labels[index])


# --- the same records ------------------------------------------------------------------------------------------------


def test_records_are_those_of_the_command_line(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, labels = examples
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_the_door.py").write_text(MAKE + inspect.getsource(make))
    np.savez(tmp_path / "pictures.npz", images=pixels, labels=labels)
    words = ("--data", "npz:pictures.npz", "--data-root", ".", "--image-size", SIZE, "--mean", "0.5", "--std", "0.25")
    how = ("--num-examples", 20, "--batch-size", 8, "--threads", 1, "--device", "cpu", "--seed", 3, "--out", "typed")
    typed = CliRunner().invoke(app, ["evaluate", "nets_of_the_door:make", *map(str, (*words, *how))])
    assert typed.exit_code == 0, typed.output
    result = s3ta.evaluate(
        model, *examples, num_examples=20, batch_size=8, threads=1, seed=3, mean=0.5, std=0.25, progress=False
    )
    theirs = Ledger.read(tmp_path / "typed")
    assert result.records.equals(theirs.table())
    assert len(result.records) == 20 * 7
    same = ("suite", "seed", "search", "micro_batch", "block", "num_threads", "device", "num_chunks", "budget")
    assert {key: result.manifest[key] for key in same} == {key: theirs.manifest[key] for key in same}
    assert result.manifest["data"]["content"] == theirs.manifest["data"]["content"]
    assert result.manifest["model"]["sha256"] == theirs.manifest["model"]["sha256"]
    table = [line.split() for line in typed.stdout.splitlines() if "L-infinity" in line]
    shown = [line.split() for line in repr(result).splitlines() if "L-infinity" in line]
    assert table == shown
    assert len(shown) == 6


@pytest.mark.parametrize(
    "kind", ["bytes", "tensor of bytes", "floats", "data set", "loader", "shuffled loader", "pairs"]
)
def test_the_same_images_in_any_form_give_the_same_records(
    kind: str, model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = examples
    tensors = TensorDataset(as_floats(pixels), torch.from_numpy(labels))
    forms: dict[str, tuple[Any, Any]] = {
        "bytes": (pixels, labels.tolist()),
        "tensor of bytes": (torch.from_numpy(pixels), torch.from_numpy(labels)),
        "floats": (as_floats(pixels).double().numpy(), labels.astype(np.uint8)),
        "data set": (tensors, None),
        "loader": (DataLoader(tensors, batch_size=7), None),
        "shuffled loader": (DataLoader(tensors, batch_size=7, shuffle=True, drop_last=True), None),
        "pairs": (Pairs(pixels, labels), None),
    }
    expected = s3ta.evaluate(model, as_floats(pixels), torch.from_numpy(labels), **FEW)
    assert s3ta.evaluate(model, *forms[kind], **FEW).records.equals(expected.records)


def test_images_that_are_no_bytes_are_measured_as_they_are(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    images = as_floats(examples[0]) * 0.9 + 0.0123
    result = s3ta.evaluate(model, images, examples[1], **FEW)
    clean = {row["example_id"]: row for row in result.records.to_pylist() if row["attack"] == "clean"}
    with torch.no_grad():
        answers = model(images)
    for index, logits in enumerate(answers):
        row = clean[f"test-{index:06d}"]
        assert row["prediction"] == int(logits.argmax())
        loss = torch.nn.functional.cross_entropy(logits[None], torch.tensor([int(examples[1][index])]))
        assert row["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_a_function_is_measured_like_the_module_behind_it(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    expected = s3ta.evaluate(model, *examples, **FEW)
    model.train()
    result = s3ta.evaluate(lambda images: model(images), *examples, **FEW)
    assert result.records.equals(expected.records)
    assert all(module.training for module in model.modules())


# --- what comes back -------------------------------------------------------------------------------------------------


def test_result_tells_shares_with_intervals_and_findings(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    result = s3ta.evaluate(model, *examples, **FEW | {"checks": "some"})
    assert [(score.attack, score.num_attack_steps) for score in result.scores] == [("clean", 0), ("pgd-4", 4)]
    assert result.clean.top1 == 20 / 24
    assert result.clean.top1_low == pytest.approx(0.6415, abs=1e-4)  # Wilson's interval of 20 of 24
    assert result.clean.top1_high == pytest.approx(0.9332, abs=1e-4)
    assert {finding.kind for finding in result.checks} >= {"label order", "gradient", "clean accuracy"}
    assert all(finding.severity in ("error", "warning", "note") for finding in result.findings)


def test_records_become_a_data_frame(model: nn.Module, examples: tuple[np.ndarray, np.ndarray]) -> None:
    pytest.importorskip("pandas")
    result = s3ta.evaluate(model, *examples, **FEW)
    frame = result.to_pandas()
    assert list(frame.columns) == result.records.column_names
    assert frame[frame.attack == "clean"].correct.mean() == 20 / 24


def test_without_pandas_one_sentence_says_what_to_use(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = s3ta.evaluate(model, *examples, **FEW)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match=r"^pandas is not installed: pip install pandas, or use \.records"):
        result.to_pandas()


def test_temporary_folder_goes_with_the_result(model: nn.Module, examples: tuple[np.ndarray, np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = s3ta.evaluate(model, *examples, **FEW)
        folder = result.folder
        assert folder.is_dir()
        assert "Records: in memory" in repr(result)
        del result
    assert not folder.exists()


def test_radius_takes_steps_along_where_the_suite_states_its_own(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    result = s3ta.evaluate(model, *examples, suite="quick", radius="4/255", threads=1, checks="none", progress=False)
    attacks = result.manifest["suite"]["attacks"]
    assert [attack["radius"] for attack in attacks] == pytest.approx([4 / 255] * 2)
    assert [attack["step_size"] for attack in attacks] == pytest.approx([1 / 255] * 2)
    usual = s3ta.evaluate(model, *examples, radius=8 / 255, threads=1, checks="none", progress=False)
    assert usual.manifest["suite"]["name"] == "quick"


def test_attack_gives_the_images_that_an_evaluation_would_keep(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = examples
    how = {"overrides": FEW["overrides"], "threads": 1, "batch_size": 8, "progress": False}
    attacked = s3ta.attack(model, pixels, labels, "pgd-100", radius=6 / 255, **how)
    clean = as_floats(pixels)
    assert attacked.images.shape == clean.shape
    assert float((attacked.images - clean).abs().max()) == pytest.approx(6 / 255, abs=1e-6)
    assert torch.allclose(attacked.distances, (attacked.images - clean).abs().amax(dim=(1, 2, 3)), atol=1e-7)
    with torch.no_grad():
        assert torch.equal(attacked.predictions, model(attacked.images).argmax(dim=1))
        assert torch.equal(attacked.clean_predictions, model(clean).argmax(dim=1))
    assert torch.equal(attacked.success, attacked.predictions != torch.from_numpy(labels))
    assert attacked.num_gradients.tolist() == [4] * COUNT
    measured = s3ta.evaluate(model, pixels, labels, radius=6 / 255, **FEW).records.to_pylist()
    after = sorted((row for row in measured if row["attack"] == "pgd-4"), key=lambda row: row["example_id"])
    assert [row["prediction"] for row in after] == attacked.predictions.tolist()
    assert [row["distance"] for row in after] == attacked.distances.tolist()
    shown = f"right after   {100 * float((~attacked.success).float().mean()):.1f}% ["
    assert shown in repr(attacked)


def test_attack_reaches_for_the_targets_given_and_restarts_keep_what_succeeds(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    pixels, labels = examples
    targets = (labels + 2) % 4
    how = {"threads": 1, "batch_size": 8, "progress": False, "overrides": ["attack.num_attack_steps=5"]}
    aimed = s3ta.attack(model, pixels, labels, "targeted-100", radius=0.2, targets=targets, **how)
    assert aimed.targets is not None
    assert aimed.targets.tolist() == targets.tolist()
    assert torch.equal(aimed.success, aimed.predictions == aimed.targets)
    assert aimed.success.any()
    how["overrides"] = ["attack.num_attack_steps=1", "attack.num_restarts=3"]
    once, thrice = (
        s3ta.attack(model, pixels, labels, "pgd-100", radius=0.02, **how | {"overrides": how["overrides"][:number]})
        for number in (1, 2)
    )
    assert thrice.num_gradients.tolist() == [3 * number for number in once.num_gradients.tolist()]
    assert (thrice.success | ~once.success).all()
    with torch.no_grad():
        assert torch.equal(thrice.success, model(thrice.images).argmax(dim=1) != torch.from_numpy(labels))


def test_lint_names_a_mistake_and_is_silent_about_a_correct_model(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    assert repr(s3ta.lint(model, *examples, threads=1, progress=False)) == "18 passed"
    findings = s3ta.lint(nn.Sequential(model, nn.Softmax(dim=1)), *examples, threads=1, progress=False)
    assert findings[0].kind == "probabilities"
    model.train()
    told = s3ta.lint(model, *examples, threads=1, progress=False)
    assert ("train mode", "warning") in {(finding.kind, finding.severity) for finding in told}
    assert model.training


def test_open_model_gives_a_classifier_that_the_door_takes(examples: tuple[np.ndarray, np.ndarray]) -> None:
    model = s3ta.open_model("timm:resnet18", weights="random", num_classes=4, image_size=SIZE, mean=0.5, std=0.5)
    assert model(torch.rand(2, 3, SIZE, SIZE)).shape == (2, 4)
    attacked = s3ta.attack(
        model, *examples, "pgd-100", overrides=["attack.num_attack_steps=1"], threads=1, progress=False
    )
    assert attacked.images.shape == (COUNT, 3, SIZE, SIZE)
    with pytest.raises(UserError, match=r"^resnet18\S* knows its own mean: leave that out"):
        s3ta.lint(model, *examples, mean=0.5, std=0.5)


# --- nothing printed, nothing changed --------------------------------------------------------------------------------


def test_nothing_is_printed_and_the_process_stays_as_it_was(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    model[0].train()
    model[5].bias.requires_grad_(False)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    torch.manual_seed(11)
    # not Python's generator, which the tests' check of annotations draws from
    state = (torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    with torch.no_grad():
        unchecked(api.evaluate)(model, *examples, **FEW | {"checks": "some"})
        how = {"threads": 1, "progress": False}
        unchecked(api.attack)(model, *examples, overrides=["attack.num_attack_steps=1"], **how)
        unchecked(api.lint)(model, DataLoader(Pairs(*examples), shuffle=True), threads=1, progress=False)
        assert not torch.is_grad_enabled()
    now = (torch.get_rng_state(), np.random.get_state()[1].tolist(), torch.get_num_threads())
    assert torch.equal(state[0], now[0])
    assert state[1:] == now[1:]
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert capfd.readouterr() == ("", "")


def test_progress_alone_is_printed_where_it_is_wanted(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], capfd: pytest.CaptureFixture[str]
) -> None:
    s3ta.evaluate(model, *examples, **FEW | {"progress": True})
    printed = capfd.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert lines
    assert all(line.startswith("Sequential pgd-100") and ", passes: " in line for line in lines), lines


def test_an_interrupted_call_goes_on_where_it_stopped(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    whole = s3ta.evaluate(model, *examples, **FEW)

    def interrupts(_module: nn.Module, _images: object) -> None:
        if len(list((tmp_path / "kept").glob("chunk-*.parquet"))) == 4:
            os.kill(os.getpid(), signal.SIGINT)

    hook = model.register_forward_pre_hook(interrupts)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of pytest-xdist ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            s3ta.evaluate(model, *examples, out=tmp_path / "kept", **FEW)
    finally:
        signal.signal(signal.SIGINT, handler)
        hook.remove()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").glob("chunk-*.parquet")}
    assert len(times) == 4
    result = s3ta.evaluate(model, *examples, out=tmp_path / "kept", **FEW)
    assert result.records.equals(whole.records)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert str(tmp_path / "kept") in repr(result)


# --- what is wrong ---------------------------------------------------------------------------------------------------


def wrong_calls() -> Iterator[tuple[str, dict[str, Any], str]]:
    pixels = np.zeros((4, 3, SIZE, SIZE), np.uint8)
    labels = [0, 1, 2, 3]
    floats = np.linspace(0, 1, pixels.size, dtype=np.float32).reshape(pixels.shape)
    yield "of another range", {"images": floats * 255}, r"values from 0 to 255: divide them by 255, or give uint8\.$"
    yield "normalised", {"images": floats * 4 - 2}, r"values from -2 to 2: .* the normalisation with mean and std\.$"
    yield "not finite", {"images": floats * np.nan}, r"pixels that are not finite"
    yield "of whole numbers", {"images": pixels.astype(int)}, r"of type int64: give uint8"
    yield (
        "channels last",
        {"images": pixels.transpose(0, 2, 3, 1)},
        r"12 x 12 x 3: give .* as images\.transpose",
    )
    yield "one image", {"images": pixels[0]}, r"images\[None\]"
    yield "no square", {"images": pixels[..., :8]}, r"12 x 8: only squares"
    yield "no array", {"images": "cat.png"}, r"^The images are a str: give N x C x H x W"
    yield "no labels", {"labels": None}, r"^There are no labels"
    yield "too few labels", {"labels": labels[:3]}, r"labels have shape 3 .* each of 4 images\.$"
    yield "soft labels", {"labels": np.eye(4)}, r"labels have shape 4 x 4 and type float64"
    yield "ragged labels", {"labels": [[0], [1, 2]]}, r"labels are a list"
    yield (
        "an unknown class",
        {"labels": [0, 1, 2, 4]},
        r"label is 4, .* 4 numbers for an image: labels are from 0 to 3\.$",
    )
    yield "labels twice", {"images": Pairs(pixels, np.array(labels))}, r"brings its own labels"
    yield "no pairs", {"images": TensorDataset(torch.zeros(4, 3, 8, 8)), "labels": None}, r"must be a pair"
    yield "an unknown suite", {"suite": "quik"}, r"^Unknown suite or attack 'quik'\. Did you mean quick\?"
    yield "an unknown attack", {"suite": ["pdg-100"]}, r"^Unknown attack 'pdg-100'\. Did you mean pgd-100"
    yield "a radius in pixels", {"radius": 8.0}, r"radius"
    yield "no radius", {"radius": "eight"}, r"^radius: 'eight' is neither"
    yield "half a normalisation", {"mean": 0.5}, r"^mean and std belong together"
    yield "too many images", {"num_examples": 9}, r"Cannot use 9 examples"
    yield "an empty batch", {"batch_size": 0}, r"^batch_size is 0"
    yield "16 bits", {"attack_precision": "float16"}, r"^attack_precision is 'float16'"
    yield "a name for a model", {"model": "timm:resnet18"}, r'open it with s3ta\.open_model\("timm:resnet18"\)\.$'
    yield "no logits", {"model": nn.Flatten(0)}, r"it must give logits, one row per image"
    yield "another size", {"model": nn.Sequential(nn.Flatten(), nn.Linear(7, 4))}, r"fails on images of 3 x 12 x 12"


@pytest.mark.parametrize(("options", "sentence"), [pytest.param(*rest, id=name) for name, *rest in wrong_calls()])
def test_what_is_wrong_is_one_sentence(
    options: dict[str, Any], sentence: str, model: nn.Module, tmp_path: Path
) -> None:
    given = {"model": model, "images": np.zeros((4, 3, SIZE, SIZE), np.uint8), "labels": [0, 1, 2, 3]} | options
    with pytest.raises(UserError, match=sentence) as caught:
        unchecked(api.evaluate)(**given, out=tmp_path / "records", threads=1, progress=False)
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "records").exists()


def test_a_folder_of_another_evaluation_is_refused_and_kept(
    model: nn.Module, examples: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    before = s3ta.evaluate(model, *examples, out=tmp_path / "kept", **FEW).records
    with pytest.raises(UserError, match="another evaluation"):
        s3ta.evaluate(model, *examples, out=tmp_path / "kept", seed=1, **FEW)
    assert Ledger.read(tmp_path / "kept").table().equals(before)


def test_inference_mode_is_refused(model: nn.Module, examples: tuple[np.ndarray, np.ndarray]) -> None:
    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode"):
        s3ta.attack(model, *examples, progress=False)


def test_there_is_a_target_for_each_image(model: nn.Module, examples: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(UserError, match=rf"^The targets have shape 2 .* each of {COUNT} images"):
        s3ta.attack(model, *examples, "targeted-100", targets=[1, 2], progress=False)


@pytest.mark.parametrize("targets", [[0] * COUNT, [9] * COUNT])
def test_a_target_must_be_another_class(
    targets: list[int], model: nn.Module, examples: tuple[np.ndarray, np.ndarray]
) -> None:
    with pytest.raises(UserError, match=r"The target of image \d+ is .*: it must be a class from 0 to 3 other than"):
        s3ta.attack(model, *examples, "targeted-100", targets=targets, progress=False)


def test_the_package_of_evaluations_is_called_as_the_function() -> None:
    from s3ta import evaluate as room

    assert room is sys.modules["s3ta.evaluate"]
    assert room.Settings is api.Settings
    assert inspect.signature(room) == inspect.signature(api.evaluate)
