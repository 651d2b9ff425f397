"""Consoles that are full or closed, and Ctrl-C while libraries load: one sentence each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from s3ta.cli import shared


class _Full:
    """A standard stream on a full disk."""

    encoding, errors = "utf-8", "strict"

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def isatty(self) -> bool:
        return False


def _raises(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def _run(command: Callable[[], Any]) -> int:
    with pytest.raises(typer.Exit) as caught:
        shared.plain_errors(command)()
    return caught.value.exit_code


@pytest.mark.parametrize(
    "command", [lambda: shared.out_console.print("text"), lambda: None], ids=["printed", "held until the end"]
)
def test_a_full_disk_under_the_output_ends_with_code_2(
    command: Callable[[], None], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(sys, "stdout", _Full())
    assert _run(command) == 2
    assert capsys.readouterr().err.startswith("s3ta: The output cannot be written (No space left on device)")


def test_a_full_disk_under_both_streams_ends_with_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", _Full())
    monkeypatch.setattr(sys, "stderr", _Full())
    assert _run(lambda: shared.out_console.print("text")) == 2


def test_other_system_errors_are_not_taken_for_blocked_output() -> None:
    with pytest.raises(OSError, match="something else"):
        shared.plain_errors(_raises(OSError(5, "something else")))()


def test_ctrl_c_waits_until_libraries_are_loaded() -> None:
    steps = []

    def command() -> None:
        with shared._interrupts_held():
            os.kill(os.getpid(), signal.SIGINT)
            steps.append("loaded")
        steps.append("went on")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever tests before have left
    try:
        assert _run(command) == 130
        assert steps == ["loaded"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
@pytest.mark.parametrize(("words", "code"), [("--version", 2), ("list models", 2), ("list nothing", 2)])
def test_the_program_ends_well_on_full_and_closed_streams(words: str, code: int) -> None:
    command = f"{sys.executable} -m s3ta {words}"
    full = subprocess.run(f"{command} > /dev/full", shell=True, capture_output=True, text=True, check=False)
    assert full.returncode == code
    assert full.stderr.startswith("s3ta: ") or "Usage" in full.stderr
    assert "Traceback" not in full.stderr
    closed = subprocess.run(f"{command} 2>&-", shell=True, capture_output=True, text=True, check=False)
    assert closed.returncode == (code if words == "list nothing" else 0)
