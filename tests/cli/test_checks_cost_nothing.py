"""Once the attacks are done their table is shown, whatever becomes of pictures, checks and folder afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ta.files import UnwritableError, read_arrays
from s3ta.records import Finding, Ledger, checks_strength
from s3ta.workflow import checks_after, evaluation

from .tints import FEW, chunks, contents, done, refused, s3ta, write_module, write_pictures

TABLE = "untargeted-20"
ODD = """

class Strict(Tint):
    def forward(self, images):
        assert images.min() >= 0 and images.max() <= 1, "give pixels in [0, 1]"
        return super().forward(images)


class Half(Tint):
    def forward(self, images):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(images)


class NaNFarAway(Tint):
    def forward(self, images):
        far = (images - 0.5).abs().amax(dim=(1, 2, 3)) > 0.4
        return super().forward(images) + torch.where(far, torch.nan, 0.0)[:, None]


def strict():
    return Strict()


def half():
    return Half()


def far():
    return NaNFarAway()
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of models and twelve pictures, all of which the models get right."""
    folder = tmp_path_factory.mktemp("place")
    write_module(folder, "tints_odd", ODD)
    write_pictures(folder / "pictures")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def words(out: Path, model: str = "make", *more: str) -> tuple[str, ...]:
    data = ("--data", "folder:pictures", "--data-root", ".", "--image-size", "8", "--suite", "quick", *FEW)
    return ("evaluate", f"tints_odd:{model}", *data, "--out", str(out), *more)


@pytest.fixture(scope="module")
def finished(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        out = tmp_path_factory.mktemp("finished") / "out"
        done(*words(out, "make", "--full-checks"))
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A finished evaluation, to be spoilt."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def found(out: Path, source: str = "probes") -> dict[str, Any]:
    return {one["kind"]: one for one in json.loads((out / "trust.json").read_text())[source]}


def raising(error: BaseException) -> Callable[..., Any]:
    def raises(*given: Any, **more: Any) -> Any:
        raise error

    return raises


def without_probes(out: Path) -> None:
    stored = json.loads((out / "trust.json").read_text())
    (out / "trust.json").write_text(json.dumps({"lint": stored["lint"]}))


# --- a check that raises ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "left_open"), [("strict", set[str]()), ("half", set[str]()), ("far", {"larger radius"})]
)
def test_correct_models_that_broke_the_checks_are_shown_and_checked(
    model: str, left_open: set[str], tmp_path: Path
) -> None:
    told = done(*words(tmp_path / "out", model, "--full-checks"))
    assert TABLE in told.stdout
    assert "Traceback" not in told.output
    probes = found(tmp_path / "out")
    assert {
        kind for kind, one in probes.items() if one["severity"] == "unchecked" and kind != "eight bits"
    } == left_open
    shares = read_arrays(tmp_path / "out" / "gallery.npz")["probabilities_adversarial"]
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=0.02)


def test_checks_that_raise_are_unchecked_with_the_reason_and_a_rerun_shows_the_same(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_probes(out)
    before = chunks(out)
    with monkeypatch.context() as patch:
        patch.setattr(checks_after, "probe", raising(ValueError("no such kernel")))
        patch.setattr(checks_strength, "converged", raising(ZeroDivisionError("division by zero")))
        first = done(*words(out, "make", "--full-checks"))
    assert found(out)["probes"]["severity"] == "unchecked"
    assert "ValueError: no such kernel" in found(out)["probes"]["sentence"]
    assert "ZeroDivisionError" in found(out, "records")["converged"]["sentence"]
    assert found(out, "records")["clean accuracy"]["severity"] == "passed"
    with monkeypatch.context() as patch:
        patch.setattr(checks_after, "probe", raising(AssertionError("asked twice")))
        assert done(*words(out)).stdout == first.stdout
    done(*words(out, "make", "--full-checks"))
    assert "probes" not in found(out)
    assert chunks(out) == before


def test_pictures_that_cannot_be_drawn_cost_only_themselves(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = contents(out)
    (out / "gallery.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "build_gallery", raising(TypeError("Got unsupported ScalarType BFloat16")))
        told = done(*words(out))
    assert TABLE in told.stdout
    assert "pictures for the report could not be drawn: TypeError: Got unsupported" in told.stderr
    done(*words(out))
    assert contents(out) == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_checks_that_are_interrupted_lose_nothing_and_go_on(
    out: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(out)
    without_probes(out)
    with monkeypatch.context() as patch:
        patch.setattr(checks_after, "probe", raising(error))
        told = s3ta(*words(out, "make", "--full-checks"))
    assert told.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert TABLE in told.stdout, "the table comes before the checks"
    assert TABLE in done(*words(out, "make", "--full-checks")).stdout
    assert contents(out) == whole


@pytest.mark.slow
def test_a_kill_during_the_checks_leaves_the_table_and_the_records(place: Path, finished: Path, tmp_path: Path) -> None:
    """The table has left the process by then, also through a pipe."""
    slow = "\n\ndef slow():\n    return Slow()\n\n\nclass Slow(Tint):\n    pause = 0.0\n"
    slow += "    def forward(self, images):\n        import time\n\n        time.sleep(0.01)\n"
    write_module(place, "tints_slow", slow + "        return super().forward(images)\n")
    command = [
        word.replace("tints_odd:make", "tints_slow:slow") for word in words(tmp_path / "out", "make", "--full-checks")
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "s3ta", *command],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    shown = ""
    while shown.count("\ntargeted-20") < 3 and (line := process.stdout.readline()):  # its read-outs, the last rows
        shown += line
    process.kill()
    process.communicate()
    assert "probes" not in json.loads((tmp_path / "out" / "trust.json").read_text())
    before = chunks(tmp_path / "out")
    assert len(before) == len(chunks(finished))
    again = done(*command)
    assert shown.rstrip() in again.stdout
    assert chunks(tmp_path / "out") == before
    assert len(found(tmp_path / "out")) == 8


@pytest.mark.parametrize("stored", ["{", "[]", '{"lint": "x", "probes": [1]}', '{"lint": [{"kind": "x"}]}', "null"])
def test_damaged_findings_are_replaced(out: Path, stored: str) -> None:
    whole = contents(out)
    (out / "trust.json").write_text(stored)
    assert TABLE in done(*words(out, "make", "--full-checks")).stdout
    assert contents(out) == whole


# --- folders that cannot be written -------------------------------------------------------------------------------


def test_findings_that_cannot_be_written_are_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_probes(out)
    monkeypatch.setattr(checks_after, "write_found", raising(UnwritableError("Cannot write trust.json: it is locked.")))
    alarm = Finding("black box", "warning", "Gradients seem to be masked.", {}, "Run --suite unmask.")
    monkeypatch.setattr(checks_after, "probe", lambda *given, **more: [alarm])
    told = done(*words(out, "make", "--full-checks"))
    assert TABLE in told.stdout
    assert "What was checked is not kept: Cannot write trust.json" in told.stderr
    assert "warning: black box: Gradients seem to be masked. Run --suite unmask." in told.stderr


def test_a_finished_evaluation_is_shown_where_nothing_can_be_written(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(out)
    known = done(*words(out))
    monkeypatch.setattr(evaluation, "sole_use", raising(UnwritableError("Cannot write out: the disk is read-only.")))
    told = done(*words(out))
    assert told.stdout == known.stdout
    assert "nothing is added" in told.stderr
    refused(s3ta(*words(out, "make", "--seed", "1")), "already holds another evaluation", "seed")
    (out / "chunk-00003.parquet").unlink()
    refused(s3ta(*words(out)), "Cannot write out")
    assert contents(out) == {name: content for name, content in whole.items() if name != "chunk-00003.parquet"}


def test_a_finished_evaluation_is_shown_on_a_really_read_only_disk(
    out: Path, small_disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = small_disk(4000)
    shutil.copytree(out, disk / "out", ignore=shutil.ignore_patterns(".lock*"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = done(*words(disk / "out"))
    assert TABLE in told.stdout
    refused(s3ta(*words(disk / "other")), "the disk is read-only")


# --- what checks cost ---------------------------------------------------------------------------------------------


def test_checks_spend_at_most_a_fifth_and_say_how_to_ask_for_more(out: Path, finished: Path) -> None:
    """Twelve examples under `quick` cost about 1,000 passes, and eight images 2,752."""
    without_probes(out)
    told = done(*words(out))
    open_now = found(out)["probes"]
    assert open_now["severity"] == "note"
    assert open_now["evidence"]["num_images"] == 0
    assert "--full-checks" in open_now["advice"]
    assert told.output.count(open_now["sentence"]) == 1
    assert found(finished).keys() >= {"larger radius", "local linearity"}
    refused(s3ta(*words(out, "make", "--full-checks", "--no-checks")), "choose one of them")


def test_the_passes_of_the_records_are_those_of_the_last_read_outs(out: Path) -> None:
    table = Ledger.read(out).table()
    last: dict[tuple[str, str], tuple[int, int]] = {}
    for row in table.to_pylist():
        key, spent = (row["example_id"], row["attack"]), (row["num_gradients"], row["num_forwards"])
        last[key] = max(last.get(key, (0, 0)), spent)
    assert checks_after.num_passes(table) == sum(sum(spent) for spent in last.values())
    assert checks_after.num_passes(table) >= 12 * (1 + 2 * (20 + 20))


def test_how_memory_was_held_is_told_and_identifies_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s3ta.malloc_tuning._state", [])
    done(*words(tmp_path / "out", "make", "--no-checks", "--return-memory"))
    one = Ledger.read(tmp_path / "out")
    assert one.manifest["informative"]["memory"] == "as it was: not asked to keep memory"
    told = done(*words(tmp_path / "out", "make", "--no-checks"))
    assert "everything is there already" in told.stderr
    done(*words(tmp_path / "kept", "make", "--no-checks"))
    two = Ledger.read(tmp_path / "kept")
    assert two.manifest["informative"]["memory"] != one.manifest["informative"]["memory"]
    assert (one.identity, chunks(tmp_path / "out")) == (two.identity, chunks(tmp_path / "kept"))


def test_odd_names_are_printed_as_they_are(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = Path(shutil.copytree(place / "pictures", tmp_path / ":fish: [bold]"))
    (pictures / "val" / "red" / ":ghost:[red].png").write_bytes(b"no picture")
    told = done(
        *words(tmp_path / ":out:", "make", "--no-checks", "--data", f"folder:{pictures}", "--on-unreadable", "skip")
    )
    assert ":ghost:[red].png" in told.stderr
    assert f"Records: {tmp_path}/:out:" in told.stdout
