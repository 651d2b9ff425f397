"""`s3ta convert`: Feature Denoising's files, by made-up ones of the same layout (the published ones could not be had)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from s3ta.cli import app
from s3ta.errors import UserError
from s3ta.models import from_pretrained, model_config, num_parameters, tensorpack_weights
from s3ta.models.tensorpack_weights import feature_denoising_model, read_tensorpack, tensorpack_name
from s3ta.models.vision import PooledClassifier
from tests.reference import feature_denoising

NUM_CLASSES = 7


@pytest.fixture(scope="module")
def denoised() -> dict[str, np.ndarray]:
    return feature_denoising.made_up(50, NUM_CLASSES, is_denoised=True)


def answers(model: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.double()(torch.from_numpy(image)[None])[0].numpy()


@pytest.mark.parametrize("size", [40, 37])
def test_converted_network_answers_as_plain_float64_code(size: int, denoised: dict[str, np.ndarray]) -> None:
    model = feature_denoising_model(denoised, "R50.npz")
    assert model.config.name == "resnet50_denoise"
    image = np.random.default_rng(size).random((3, size, size))
    expected = feature_denoising.logits(denoised, image)
    assert np.std(expected) > 0.1
    assert abs(answers(model, image) - expected).max() < 1e-10 * abs(expected).max()


def test_network_without_denoising_is_converted_too() -> None:
    arrays = feature_denoising.made_up(50, NUM_CLASSES, is_denoised=False)
    model = feature_denoising_model({f"{name}": array for name, array in arrays.items()}, "R50.npz")
    assert model.config.name == "resnet50"
    image = np.random.default_rng(0).random((3, 40, 40))
    expected = feature_denoising.logits(arrays, image)
    assert abs(answers(model, image) - expected).max() < 1e-10 * abs(expected).max()


def test_channels_and_padding_are_turned(denoised: dict[str, np.ndarray]) -> None:
    """The two mistakes that X17 and X19 name move the answers."""
    image = np.random.default_rng(1).random((3, 40, 40))
    expected = feature_denoising.logits(denoised, image)
    model = feature_denoising_model(denoised, "R50.npz")
    assert abs(answers(model, image[::-1].copy()) - expected).max() > 1e-2
    config = model.config
    symmetric = PooledClassifier(
        config.model_copy(update={"vision": config.vision.model_copy(update={"padding": "symmetric"})})
    )
    symmetric.load_state_dict(model.state_dict())
    assert abs(answers(symmetric.eval(), image) - expected).max() > 1e-2


@pytest.mark.parametrize(
    ("name", "num_arrays", "count"), [("resnet152", 777, 60_192_808), ("resnet152_denoise", 805, 71_341_608)]
)
def test_names_and_shapes_of_152_layers_are_those_of_the_published_layout(
    name: str, num_arrays: int, count: int
) -> None:
    with torch.device("meta"):
        model = PooledClassifier(model_config(name))
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    layout = feature_denoising.layout(152, 1000, is_denoised=name.endswith("_denoise"))
    assert {tensorpack_name(key) for key in state} == set(layout)
    assert len(state) == len(layout) == num_arrays
    assert all(np.prod(layout[tensorpack_name(key)]) == value.numel() for key, value in state.items())
    assert num_parameters(model) == count


# --- the command ----------------------------------------------------------------------------------------------------


def convert(*words: str | Path):
    return CliRunner().invoke(app, ["convert", *map(str, words)])


def test_command_writes_a_model_folder_with_the_licence_in_its_card(
    denoised: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file, out = tmp_path / "R50-Denoise.npz", tmp_path / "model"
    np.savez(file, **{f"{name}:0": array for name, array in denoised.items()}, global_step=np.array(7))
    result = convert(file, "--out", out)
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "CC BY-NC 4.0" in said
    assert "unchecked" in said
    assert "resnet50_denoise" in said
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert "CC BY-NC 4.0" in card
    assert "unchecked" in card
    image = np.random.default_rng(3).random((3, 40, 40))
    expected = feature_denoising.logits(denoised, image)
    assert abs(answers(from_pretrained(out), image) - expected).max() < 1e-10 * abs(expected).max()
    again = convert(file, "--out", out)
    assert again.exit_code == 2
    assert "is there already and not an empty folder" in " ".join(again.stderr.split())


# --- bad files ------------------------------------------------------------------------------------------------------


def test_bad_files_are_told_in_one_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    text, torn, objects, other = (tmp_path / name for name in ("text.npz", "torn.npz", "objects.npz", "other.npz"))
    text.write_text("no archive")
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(1000))
    torn.write_bytes(buffer.getvalue()[:500])
    np.savez(objects, **{"linear/b": np.array([{"a": 1}], dtype=object)})
    np.savez(other, weights=np.ones((2, 2)))
    for file, said in [
        (tmp_path / "absent.npz", "does not exist"),
        (tmp_path, "is a folder: give the npz file"),
        (text, "is damaged, or not an npz file (BadZipFile)"),
        (torn, "is damaged, or not an npz file (BadZipFile)"),
        (objects, "holds pickled objects"),
        (other, "holds no ResNet of Feature Denoising"),
    ]:
        result = convert(file, "--out", tmp_path / "model")
        lines = " ".join(result.stderr.split())
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert said in lines
        assert "Traceback" not in lines
        assert not (tmp_path / "model").exists()


def test_a_file_that_would_unpack_to_too_much_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bomb.npz"
    np.savez_compressed(file, a=np.zeros(1_000_000))
    assert file.stat().st_size < 100_000
    monkeypatch.setattr(tensorpack_weights, "_MOST_BYTES", 1_000_000)
    monkeypatch.setattr(np, "load", lambda *given, **named: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"unpacks to 8 MB, more than any network"):
        read_tensorpack(file)


LAST = "group3/block2/conv3/bn/gamma"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.pop(LAST), rf"lacks 1 of the 295 arrays of a resnet50_denoise, the first {LAST}"),
        (
            lambda arrays: arrays.update(more=np.ones(1)),
            "holds 1 arrays that a resnet50_denoise does not have, the first more",
        ),
        (
            lambda arrays: arrays.update({LAST: np.ones(3)}),
            rf"holds {LAST} of shape \(3,\), where the network has \(2048,\)",
        ),
        (
            lambda arrays: arrays.update({"conv0/W": arrays["conv0/W"].transpose(3, 2, 0, 1)}),
            r"conv0/W of shape \(64, 3, 7, 7\), where the network has \(7, 7, 3, 64\)",
        ),
        (
            lambda arrays: arrays.update({"conv0/W": np.ones(3)}),
            r"conv0/W of shape \(3,\), where the network has \(7, 7,",
        ),
        (lambda arrays: arrays.update({LAST: np.full(2048, np.nan)}), rf"numbers in {LAST} that are not finite"),
        (lambda arrays: arrays.update({LAST: np.ones(2048, int)}), rf"{LAST} of type int64"),
        (
            lambda arrays: arrays.update({"group0/block0/non_local/conv/W": np.ones(1)}),
            r"X101-DenoiseAll\), which is not built",
        ),
        (lambda arrays: arrays.pop("linear/b"), "holds no ResNet of Feature Denoising"),
    ],
)
def test_arrays_that_do_not_fit_are_told_by_name(change, said: str, denoised: dict[str, np.ndarray]) -> None:
    arrays = dict(denoised)
    change(arrays)
    with pytest.raises(UserError, match=said):
        feature_denoising_model(arrays, "R50.npz")
