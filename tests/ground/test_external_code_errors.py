"""Whatever somebody else's code raises becomes one sentence: which call, why, where in their file, what to do."""

from __future__ import annotations

import random
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from s3ta.errors import UserError
from s3ta.external_code_errors import ForeignError, attribute, guarded, original, reason, set_mode, where
from s3ta.process_state import plain_generators


@pytest.fixture
def theirs(tmp_path: Path) -> dict:
    """Functions out of a file of somebody else's."""
    path = tmp_path / "theirs.py"
    path.write_text(
        "def fails():\n    raise ValueError('no\\n such   layer')\n\n\ndef leaves():\n    raise SystemExit(3)\n"
    )
    return runpy.run_path(str(path))


def test_the_sentence_says_which_call_why_where_and_what_to_do(theirs: dict) -> None:
    with pytest.raises(ForeignError) as caught, guarded("Asking net", "leave it out"):
        theirs["fails"]()
    assert str(caught.value) == "Asking net failed: ValueError: no such layer (theirs.py, line 2): leave it out."
    assert isinstance(caught.value.__cause__, ValueError)
    assert original(caught.value) is caught.value.__cause__
    with (
        pytest.raises(ForeignError, match=r"Asking net failed: SystemExit: 3 \(theirs\.py, line 6\)\."),
        guarded("Asking net"),
    ):
        theirs["leaves"]()


def test_an_error_inside_a_library_names_the_line_that_called_it(theirs: dict, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\n\n\ndef ask():\n    return torch.nn.Linear(3, 2)(torch.zeros(1, 4))\n")
    names = runpy.run_path(str(path))
    with pytest.raises(ForeignError, match=r"RuntimeError: .*shapes.* \(net\.py, line 5\)"), guarded("x"):
        names["ask"]()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("one sentence")], ids=repr)
def test_interrupts_and_user_errors_pass_unchanged(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, guarded("x"):
        raise error
    assert caught.value is error


def test_the_guard_that_has_advice_is_the_one_that_speaks(theirs: dict) -> None:
    with pytest.raises(ForeignError) as caught, guarded("In bfloat16", "leave it out"), guarded("net"):
        theirs["fails"]()
    assert str(caught.value).startswith("In bfloat16 failed: ValueError")
    with pytest.raises(ForeignError) as caught, guarded("outer"), guarded("inner", "advice"):
        theirs["fails"]()
    assert str(caught.value).startswith("inner failed")


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("x: can't allocate memory")],
    ids=repr,
)
def test_too_little_memory_is_named(error: Exception) -> None:
    with pytest.raises(ForeignError, match=r"net ran out of memory .*--batch-size"), guarded("net"):
        raise error


def test_a_checkpoint_may_leave_a_forward_pass_early() -> None:
    """Torch does it by an exception, once it has made again what it needs."""
    images = torch.rand(2, 3, requires_grad=True)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))

    def ask(x: torch.Tensor) -> torch.Tensor:
        with guarded("net"):
            return net(x)

    torch.utils.checkpoint.checkpoint(ask, images, use_reentrant=False).sum().backward()
    assert images.grad is not None


def test_the_end_of_a_script_s_traceback_is_the_reason() -> None:
    error = RuntimeError(
        "failed in the TorchScript interpreter.\nTraceback of TorchScript:\n  x\nRuntimeError: shapes differ\n"
    )
    assert reason(error) == "RuntimeError: shapes differ"
    assert where(error) == ""


def test_modes_are_set_whatever_train_returns_or_lacks() -> None:
    class NoReturn(nn.Module):
        def train(self, mode: bool = True) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            super().train(mode)

    class NoModes(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise NotImplementedError("an exported program has no modes")

    class Broken(nn.Module):
        def train(self, mode: bool = True) -> nn.Module:
            raise KeyError("mode")

    for net in (NoReturn(), nn.Sequential(NoModes(), nn.Dropout())):
        set_mode(net, mode=False)
        assert not any(module.training for module in net.modules())
        set_mode(net, mode=True)
        assert all(module.training for module in net.modules())
    with pytest.raises(ForeignError, match=r"Broken\.eval\(\) failed: KeyError: 'mode'"):
        set_mode(Broken(), mode=False)


def test_an_attribute_that_raises_counts_as_absent() -> None:
    class Odd:
        @property
        def card(self) -> str:
            raise RuntimeError

    assert attribute(Odd(), "card") is None
    assert attribute(Odd(), "nothing") is None
    assert attribute(1 + 2j, "real") == 1


def test_plain_generators_begin_from_a_seed_and_stand_where_they_stood() -> None:
    before = random.getstate(), repr(np.random.get_state(legacy=False))
    drawn = []
    for _ in range(2):
        with plain_generators(2**63 - 1):
            drawn.append((random.random(), float(np.random.rand())))
    with plain_generators():
        random.random()
        np.random.rand()
    assert drawn[0] == drawn[1]
    assert (random.getstate(), repr(np.random.get_state(legacy=False))) == before


def test_errors_without_a_message_or_of_base_exceptions_are_sentences() -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Stop(BaseException):
        pass

    for error, sentence in ((SilentError(), "x failed: SilentError"), (Stop("enough"), "x failed: Stop: enough")):
        with pytest.raises(ForeignError, match=sentence), guarded("x"):
            raise error
    with pytest.raises(GeneratorExit), guarded("x"):
        raise GeneratorExit
