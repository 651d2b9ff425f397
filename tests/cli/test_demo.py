"""The demo is the two commands on two models: resumable at any moment, and never content with somebody else's parts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from s3ta import demo
from s3ta.cli import app
from s3ta.demo import Contender, run_demo
from s3ta.errors import UserError
from s3ta.files import sole_use
from tests.processes import PATIENCE


class Inside:
    """Stands for a child process: the same command line, run here and at once, without the seconds that a start takes."""

    def __init__(self, command: list[str], stdout: IO[bytes], **others: object) -> None:
        assert command[:3] == [sys.executable, "-m", "s3ta"]
        told = CliRunner().invoke(app, command[3:])
        stdout.write(told.output.encode())
        self.code = told.exit_code

    def poll(self) -> int:
        return self.code

    def wait(self, timeout: float) -> int:
        return self.code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny demo, its commands run in this process."""
    out = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Inside)
        page, table = run_demo(out, is_tiny=True)
    assert page == out / "report.html"
    assert "untargeted-2" in {row[1] for row in table.rows}
    return out


@pytest.mark.slow
def test_a_demo_that_was_killed_with_its_children_ends_with_the_same_files(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "s3ta", "demo", "--tiny", "--out", str(out)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + PATIENCE
    while not (out / "s3ta_4" / "train.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    assert "untargeted-2" in done.stdout
    assert results(out) == results(finished)


def results(out: Path) -> dict[str, bytes]:
    """Weights and records."""
    found = [*out.rglob("model.safetensors"), *out.rglob("chunk-*.parquet")]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def test_a_finished_demo_only_writes_its_report_again(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a finished part was started again"))
    before = {
        path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.suffix in (".parquet", ".safetensors")
    }
    page, table = run_demo(finished, is_tiny=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert str(finished) not in page.read_text()
    assert len(table.rows) == 2 * 3


def test_a_trial_run_is_never_taken_for_the_real_one(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    with pytest.raises(UserError, match="holds a run of another recipe: name is"):
        run_demo(out, is_tiny=False)


@pytest.mark.parametrize("lost", ["chunk-*.parquet", "chunk-00002.parquet", "gallery.npz", "*.npz", "manifest.json"])
def test_a_demo_makes_again_what_a_kill_left_missing(
    finished: Path, tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Inside)
    out = copied(finished, tmp_path)
    contender = Contender(demo.RECIPES[0], out, is_tiny=True)
    kept = {path.name: path.read_bytes() for path in contender.ledger.iterdir() if path.name != ".lock"}
    for path in contender.ledger.glob("*" if lost == "manifest.json" else lost):
        path.unlink()
    contender.look()
    assert not contender.done
    run_demo(out, is_tiny=True)
    again = {path.name: path.read_bytes() for path in contender.ledger.iterdir() if path.name != ".lock"}
    assert again == kept


def test_a_child_of_a_killed_demo_is_waited_for(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = copied(finished, tmp_path)
    contender = Contender(demo.RECIPES[0], out, is_tiny=True)
    (contender.ledger / "gallery.npz").unlink()
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a second process on the same folder"))
    monkeypatch.setattr(demo, "in_use", lambda folder: True)
    contender.advance()
    assert not contender.done
    monkeypatch.undo()
    with sole_use(contender.folder):
        pass


def test_a_failing_child_is_told_in_its_own_words(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path)
    weights = out / "s3ta_4" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (out / "s3ta_4" / "evaluations" / "digits-tiny" / "gallery.npz").unlink()
    with pytest.raises(UserError, match=r"digits/s3ta_4 failed.*model\.safetensors is damaged"):
        run_demo(out, is_tiny=True)


class Gone:
    """A child process that left by a signal."""

    def __init__(self, number: int) -> None:
        self.number = number

    def poll(self) -> int:
        return -self.number


def test_a_child_killed_before_its_work_was_done_is_told_and_after_it_is_not(finished: Path, tmp_path: Path) -> None:
    contender = Contender(demo.RECIPES[0], copied(finished, tmp_path), is_tiny=True)
    contender.child, contender.command = Gone(6), "evaluate"  # type: ignore[assignment]
    contender.advance()
    assert contender.done
    contender.done, contender.child = False, Gone(9)  # type: ignore[assignment]
    (contender.ledger / "chunk-00001.parquet").unlink()
    with pytest.raises(UserError, match="killed by signal 9"):
        contender.advance()
