"""What somebody else's module, factory or forward pass changes for the whole process is put back."""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

import pytest
import torch

from s3ta.attacks import untargeted
from s3ta.attacks.gradients import autograd_gradient
from s3ta.errors import UserError
from s3ta.explain.gallery import predict_with_attention
from s3ta.models import Classifier, LoadOptions, open_model
from s3ta.process_state import process_state_kept

CHANGES = {
    "folder": "os.chdir(os.sep)",
    "threads": "torch.set_num_threads(torch.get_num_threads() + 2)",
    "type": "torch.set_default_dtype(torch.float64)",
    "gradients": "torch.set_grad_enabled(False)",
    "stdout": "sys.stdout = io.StringIO()",
    "stderr": "sys.stderr = None",
    "arguments": "sys.argv = ['theirs', '--device', 'cuda']",
}
MODULE = """
import argparse, io, os, sys, torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4, 5)
    def forward(self, images):
        logits = self.head(images.flatten(1))
        {forward}
        return logits
def make():
    net = Net()
    {make}
    return net
{module}
"""
_counter = iter(range(10**6))


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens a network whose module, factory and forward pass do this beside."""
    monkeypatch.chdir(tmp_path)

    def opened(**parts: str) -> Classifier:
        name = f"changes_the_process_{next(_counter)}"
        source = MODULE.format(**dict.fromkeys(("module", "make", "forward"), "pass") | parts)
        (tmp_path / f"{name}.py").write_text(source)
        model = open_model(f"{name}:make", LoadOptions(image_size=4))
        assert isinstance(model, Classifier)
        return model

    return opened


def _state() -> tuple:
    torch_state = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
    return (os.getcwd(), sys.argv, sys.stdout, sys.stderr, *torch_state)


@pytest.mark.parametrize("part", ["module", "make", "forward"])
@pytest.mark.parametrize("change", CHANGES)
def test_opening_a_model_leaves_the_process_as_it_was(opened, change: str, part: str) -> None:
    before = _state()
    opened(**{part: CHANGES[change]})
    assert _state() == before


def test_a_module_does_not_see_our_command_line(opened, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["s3ta", "evaluate", "--device", "cuda"])
    opened(
        module="parser = argparse.ArgumentParser()\nparser.add_argument('--device')\n"
        "assert parser.parse_known_args() == (argparse.Namespace(device=None), [])"
    )
    with pytest.raises(UserError, match="SystemExit: 2"):
        opened(module="parser = argparse.ArgumentParser()\nparser.add_argument('data')\nparser.parse_args()")
    assert capsys.readouterr().err.startswith("usage: changes_the_process_")


def test_a_model_that_switches_gradients_off_still_has_them(opened) -> None:
    model = opened(forward=CHANGES["gradients"])
    gradient = autograd_gradient(model, untargeted(torch.tensor([1])), torch.rand(1, 3, 4, 4)).gradient
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("change", ["folder", "type", "threads"])
def test_looking_at_a_model_that_changes_the_process_restores_it(opened, change: str) -> None:
    model = opened(forward=f"{CHANGES[change]}; logits = logits + torch.zeros(5)")
    before = _state()
    for _ in range(2):
        assert predict_with_attention(model, torch.rand(2, 3, 4, 4))["probabilities"].dtype == "float32"
    assert _state() == before


def test_another_number_of_threads_is_said() -> None:
    before = torch.get_num_threads()
    with process_state_kept() as changes:
        torch.set_num_threads(before + 1)
        assert changes == []
    assert torch.get_num_threads() == before
    assert changes[0].startswith(f"The model computes with {before + 1} CPU threads")
    with process_state_kept() as changes:
        pass
    assert changes == []


def test_a_folder_that_is_gone_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").mkdir()
    os.chdir("gone")
    (tmp_path / "gone").rmdir()
    with process_state_kept():
        os.chdir(tmp_path)


def test_a_factory_named_like_a_loaded_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sys.modules["queue"] is queue
    (tmp_path / "queue.py").write_text("def make(): pass\n")
    with pytest.raises(
        UserError, match=r"^queue\.py in the current folder is called like the module queue .* rename the file"
    ):
        open_model("queue:make", LoadOptions(image_size=4))
    (tmp_path / "typer").mkdir()
    (tmp_path / "typer" / "__init__.py").write_text("def make(): pass\n")
    import typer  # noqa: F401 - loaded

    with pytest.raises(UserError, match=r"^typer/__init__\.py in the current folder .* rename the folder"):
        open_model("typer:make", LoadOptions(image_size=4))


@pytest.mark.parametrize(
    ("forward", "sentence"),
    [
        ("class Odd(Exception):\n            def __str__(self): raise KeyError(self)\n        raise Odd", r"\(Odd \("),
        ("raise type('Stop', (BaseException,), {})('enough')", "Stop: enough"),
    ],
)
def test_an_odd_error_is_one_sentence(opened, forward: str, sentence: str) -> None:
    with pytest.raises(UserError, match=f"fails on images of 3 x 4 x 4 .*{sentence}"):
        opened(forward=forward)
