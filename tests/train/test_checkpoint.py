"""Checkpoints: whole, exact, and refused with one sentence where they are damaged or not this run's."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from s3ta.config import config_hash
from s3ta.errors import UserError
from s3ta.models import build_model
from s3ta.train import checkpoint
from s3ta.train.checkpoint import (
    FORMAT,
    NAME,
    Identity,
    Progress,
    TrainState,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from s3ta.train.optimizer import build_optimizer

from .helpers import Pictures, recipe, run

CONFIG = recipe(optimizer={"kind": "adam"})


def _made(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    model = build_model(config.model)
    optimizer = build_optimizer(config.optimizer, model)
    return model, optimizer


def _step(model, optimizer, seed=0):
    model.train()
    model(torch.rand(3, 2, 12, 10, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.fixture
def saved(tmp_path):
    model, optimizer = _made()
    _step(model, optimizer)
    progress = Progress(step=7, loss_sum=1 / 3, num_correct=5, num_seen=12, seconds=0.1 + 0.2)
    save_checkpoint(tmp_path / NAME, TrainState(model, optimizer), progress, Identity("abc"))
    return tmp_path / NAME, model, optimizer, progress


@pytest.mark.parametrize("kind", [{"kind": "adam"}, {}, {"momentum": 0.5, "nesterov": False}])
def test_a_checkpoint_is_read_back_exactly(tmp_path, kind):
    config = recipe(optimizer=kind)
    model, optimizer = _made(config)
    _step(model, optimizer)
    progress = Progress(step=7, loss_sum=1 / 3, num_correct=5, num_seen=12, seconds=0.1 + 0.2)
    save_checkpoint(tmp_path / NAME, TrainState(model, optimizer), progress, Identity("abc"))
    other, other_optimizer = _made(config, seed=1)
    assert load_checkpoint(tmp_path / NAME, TrainState(other, other_optimizer), "abc") == progress
    for _ in range(2):
        for one, two in ((model, other), (optimizer, other_optimizer)):
            mine, theirs = one.state_dict(), two.state_dict()
            torch.testing.assert_close(theirs, mine, rtol=0, atol=0)
        _step(model, optimizer, seed=3)
        _step(other, other_optimizer, seed=3)


def test_a_checkpoint_before_the_first_step_is_read_back(tmp_path):
    model, optimizer = _made()
    save_checkpoint(tmp_path / NAME, TrainState(model, optimizer), Progress(), Identity("abc"))
    other, other_optimizer = _made(seed=1)
    assert (
        load_checkpoint(tmp_path / NAME, TrainState(other, other_optimizer), "abc")
        == Progress()
        == Progress(0, 0.0, 0, 0, 0.0)
    )
    assert not other_optimizer.state


def test_the_file_is_plain_safetensors(saved):
    path, model, *_ = saved
    tensors = load_file(path)
    assert {name.partition(".")[0] for name in tensors} == {"model", "optimizer"}
    assert {f"model.{name}" for name in model.state_dict()} <= tensors.keys()
    assert f"optimizer.{next(iter(dict(model.named_parameters())))}.exp_avg" in tensors
    with safe_open(str(path), "pt") as file:
        about = json.loads(file.metadata()["s3ta"])
    assert len(about.pop("content")) == 16
    assert about == {"format": FORMAT, "recipe": "abc", "config": "", "has_state": True, "progress": saved[3]._asdict()}
    assert b"pickle" not in path.read_bytes()[:100_000]


def test_the_step_is_read_without_the_tensors(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "load_file", None)
    assert step_of(saved[0]) == 7
    assert step_of(tmp_path / "none") == 0


@pytest.mark.parametrize("kind", ["truncated", "empty", "text", "header", "folder", "foreign"])
def test_a_file_that_is_no_checkpoint_has_no_step(saved, kind):
    _spoilt(saved[0], kind)
    with pytest.raises(UserError, match=r"is damaged, or not a checkpoint|is not a checkpoint of this program"):
        step_of(saved[0])


def _spoilt(path, kind):
    tensors, about = load_file(path), {"format": FORMAT, "recipe": "abc", "progress": Progress(step=7)._asdict()}
    content = path.read_bytes()
    name = "model.controller.initial_hidden"
    if kind in ("truncated", "empty", "text", "header"):
        path.write_bytes(
            {"truncated": content[:-1], "empty": b"", "text": b"not a checkpoint", "header": b"\xff" * 8 + content[8:]}[
                kind
            ]
        )
        return
    if kind == "folder":
        path.unlink()
        path.mkdir()
        return
    if kind == "newer":
        about["format"] = FORMAT + 1
    elif kind == "formatless":
        del about["format"]
    elif kind == "other":
        about["recipe"] = "abd"
    elif kind == "lacking":
        del tensors[name]
    elif kind == "extra":
        tensors["model.extra"] = torch.zeros(3)
    elif kind == "shape":
        tensors[name] = torch.zeros(1, 3)
    metadata = {"foreign": None, "list": {"s3ta": "[]"}, "torn": {"s3ta": "{"}}.get(kind, {"s3ta": json.dumps(about)})
    save_file(tensors, path, metadata=metadata)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("truncated", "is damaged, or not a checkpoint"),
        ("empty", "is damaged, or not a checkpoint"),
        ("text", "is damaged, or not a checkpoint"),
        ("header", "is damaged, or not a checkpoint"),
        ("folder", "is damaged, or not a checkpoint"),
        ("torn", "is damaged, or not a checkpoint"),
        ("foreign", "is not a checkpoint of this program"),
        ("list", "is not a checkpoint of this program"),
        ("newer", "was written by a newer version of s3ta (format 3)"),
        ("formatless", "newer version"),
        ("other", "belongs to another recipe"),
        ("lacking", "the model has 'controller.initial_hidden'"),
        ("extra", "the file has 'extra'"),
        ("shape", "'controller.initial_hidden' is (1, 3) in the file"),
    ],
)
def test_a_file_that_is_not_this_runs_checkpoint_is_refused(saved, kind, words):
    path = saved[0]
    _spoilt(path, kind)
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, TrainState(*_made(seed=1)), "abc")
    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "about",
    [
        {"format": FORMAT, "recipe": "abc"},
        {"format": FORMAT, "recipe": "abc", "progress": {"stap": 3}},
        {"format": FORMAT, "recipe": "abc", "progress": 3},
        {"format": "1", "recipe": "abc", "progress": {}},
    ],
)
def test_damaged_metadata_are_refused(saved, about):
    save_file(load_file(saved[0]), saved[0], metadata={"s3ta": json.dumps(about)})
    with pytest.raises(UserError):
        load_checkpoint(saved[0], TrainState(*_made(seed=1)), "abc")


def test_a_checkpoint_without_its_optimizer_is_refused(saved):
    tensors = {name: tensor for name, tensor in load_file(saved[0]).items() if name.startswith("model.")}
    save_file(
        tensors,
        saved[0],
        metadata={"s3ta": json.dumps({"format": FORMAT, "recipe": "abc", "progress": Progress(step=7)._asdict()})},
    )
    with pytest.raises(UserError):
        load_checkpoint(saved[0], TrainState(*_made(seed=1)), "abc")


def test_a_flipped_bit_is_noticed(saved):
    content = bytearray(saved[0].read_bytes())
    content[-100] ^= 4
    saved[0].write_bytes(content)
    with pytest.raises(UserError):
        load_checkpoint(saved[0], TrainState(*_made(seed=1)), "abc")


def test_a_run_refuses_a_checkpoint_of_another_recipe_and_keeps_it(tmp_path):
    config, other = recipe(), recipe(seed=1)
    assert config_hash(config) != config_hash(other)
    run(config, tmp_path)
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(UserError, match="other recipe or other data: seed is 0 there and 1 now"):
        run(other, tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


def test_a_run_refuses_a_checkpoint_of_other_data_by_name(tmp_path):
    run(recipe("resnet"), tmp_path)
    other = Pictures()
    other.fingerprint = "beef"
    with pytest.raises(UserError, match="other data: the data's fingerprint is f00d there and beef now"):
        run(recipe("resnet"), tmp_path, data=other)


def test_an_optimizer_that_keeps_nothing_resumes(tmp_path):
    """SGD without momentum has no state, and its checkpoint is whole all the same."""
    config = recipe(optimizer={"momentum": 0.0, "nesterov": False})
    model, optimizer = _made(config)
    _step(model, optimizer)
    save_checkpoint(tmp_path / NAME, TrainState(model, optimizer), Progress(step=3), Identity("abc"))
    other, other_optimizer = _made(config, seed=1)
    assert load_checkpoint(tmp_path / NAME, TrainState(other, other_optimizer), "abc").step == 3
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
