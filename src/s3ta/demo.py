"""The main job in one go: two models trained and attacked side by side, one CPU core each, then the report.

Each model is a child process that runs the ordinary commands, so that the demo is nothing but what a person could type;
progress is read from the files that the children write.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from rich.progress import Progress

from s3ta.errors import UserError
from s3ta.evaluate import Suite, attack_rounds, get_suite, shrink_suite
from s3ta.files import in_use, make_folder, read_json, read_lines, readable_errors
from s3ta.progress import LineReporter, bars, console
from s3ta.recipes import get_recipe, shrink_recipe
from s3ta.records import is_tiny_suite
from s3ta.report import Table, build_report, read_runs, runs_summary_table
from s3ta.train import is_claimed, is_finished
from s3ta.workflow import is_evaluation_complete
from s3ta.workflow.checks_after import probing
from s3ta.workflow.checks_before import read_found

RECIPES = ("digits/s3ta_4", "digits/resnetv2_mini_dense")
SUITE = "digits"


class Passes(NamedTuple):
    """Forward and backward passes of an evaluation."""

    of_chunks: list[int]
    """Of each chunk of the ledger, in order."""
    of_checks: int
    """Of the experiments afterwards, at most."""

    @property
    def total(self) -> int:
        return sum(self.of_chunks) + self.of_checks

    @classmethod
    def of(cls, suite: Suite, manifest: dict[str, Any]) -> Passes:
        """Of the evaluation with this manifest, if no example leaves early."""
        count, size = manifest["data"]["num_examples"], manifest["micro_batch"]
        sizes = [min(size, count - begin) for begin in range(0, count, size)]
        chunks = [attack_round.cost.total * examples for attack_round in attack_rounds(suite) for examples in sizes]
        probed = None if is_tiny_suite(suite.name) else probing(sum(chunks), count, size, full=False)
        return cls(chunks, 0 if probed is None else probed.cost.total)


class Contender:
    """One model of the demo: its run folder, and the child process at work on it."""

    def __init__(self, recipe: str, out: Path, is_tiny: bool) -> None:
        self.recipe, self.folder = recipe, out / recipe.partition("/")[2]
        self.log = out / f"{self.folder.name}.log"
        self._tiny = ["--tiny"] * is_tiny
        config, suite = get_recipe(recipe), get_suite(SUITE)
        self.config = shrink_recipe(config) if is_tiny else config
        self.num_steps = self.config.schedule.num_train_steps
        self._passes: Passes | None = None
        self.suite = shrink_suite(suite) if is_tiny else suite
        self.ledger = self.folder / "evaluations" / self.suite.name
        self.child: subprocess.Popen[bytes] | None = None
        self.command = ""
        self.done = False

    def look(self) -> None:
        """See whether everything is done. Raises UserError where the folder holds another recipe or suite."""
        self.done = (
            is_claimed(self.folder, self.config)
            and is_finished(self.folder)
            and is_evaluation_complete(self.ledger, self.suite)
        )

    def advance(self) -> None:
        """Start the next command if none is running. Raises UserError when the last one failed."""
        if self.done:
            return
        if self.child is not None:
            code = self.child.poll()
            if code is None:
                return
            self.child = None
            if code == 130:
                raise KeyboardInterrupt
            if code < 0 and not self._command_is_done():
                raise UserError(
                    f"The process for {self.recipe} was killed by signal {-code} (is the memory full?). "
                    "Run the same command again to go on."
                )
            if code > 0 or not self._command_is_done():
                raise UserError(f"{self.recipe} failed; the end of {self.log} says: {self._last_words()}")
        if in_use(self.folder) or in_use(self.ledger):
            return  # a child of an earlier demo, whose parent was killed, is still at it
        if not is_finished(self.folder):
            self._start("train", self.recipe, "--out", str(self.folder))
        else:
            self.look()
            if not self.done:
                self._start("evaluate", str(self.folder), "--suite", SUITE, "--threads", "1")

    def _command_is_done(self) -> bool:
        """Whether the last command's result is there, whole, however its process ended."""
        return is_finished(self.folder) if self.command == "train" else is_evaluation_complete(self.ledger, self.suite)

    def _start(self, *command: str) -> None:
        self.command = command[0]
        with readable_errors(self.log), self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "s3ta", *command, "--device", "cpu", *self._tiny],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def stop(self) -> None:
        """Ask the child to save and leave."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait for the child to leave; insist after a while."""
        if self.child is not None:
            try:
                self.child.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.child.kill()

    def status(self) -> tuple[str, int, int | None, str]:
        """(activity, done, total or None if not known yet, note). Attacks and the checks after them are counted in passes, for
        chunks differ: one of clean images is a pass per image, one of a long attack hundreds."""
        lines = read_lines(self.folder / "train.jsonl")
        steps = max((line["step"] for line in lines), default=0)
        if steps < self.num_steps:
            note = f"accuracy {lines[-1]['accuracy']:.0%}" if lines and "accuracy" in lines[-1] else ""
            return "training", steps, self.num_steps, note
        path = self.ledger / "manifest.json"
        if self._passes is None and path.is_file():
            self._passes = Passes.of(self.suite, read_json(path))
        if (passes := self._passes) is None:
            return "attacking", 0, None, ""
        there = {int(chunk.stem.partition("-")[2]) for chunk in self.ledger.glob("chunk-*.parquet")}
        done = sum(cost for chunk, cost in enumerate(passes.of_chunks) if chunk in there)
        if len(there) < len(passes.of_chunks):
            return "attacking", done, passes.total, ""
        return "attacking", done + self._checked(passes.of_checks), passes.total, "checks"

    def _checked(self, most: int) -> int:
        """Passes of the checks so far, as the child says in its log."""
        if self.done or "probes" in read_found(self.ledger):
            return most
        progress_counts = re.findall(r"^checks of the evaluation.*: (\d+)/\d+", self._log_text(), re.MULTILINE)
        return min(int(progress_counts[-1]), most) if progress_counts else 0

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.is_file() else ""

    def _last_words(self) -> str:
        words = [line for line in self._log_text().splitlines() if line.strip()]
        return words[-1].removeprefix("s3ta: ") if words else "nothing"


def run_demo(out: Path, is_tiny: bool) -> tuple[Path, Table]:
    """Bring both models to the end, from wherever they stand, and write the report. Returns its path and its summary.

    Raises KeyboardInterrupt on Ctrl-C, after both children have saved their state; UserError when one of them fails."""
    make_folder(out)
    contenders = [Contender(recipe, out, is_tiny) for recipe in RECIPES]
    for contender in contenders:
        contender.look()
    if all(contender.done for contender in contenders):
        console.print("Both models are trained and attacked already; only the report is written again.")
    else:
        console.print(
            f"Training and attacking {len(contenders)} models side by side: "
            f"{'a few seconds' if is_tiny else 'about 6 minutes on two CPU cores'}. "
            "Stop it whenever you like; the same command goes on.",
            soft_wrap=True,
        )
        _work(contenders)
    folders, suite = [contender.folder for contender in contenders], contenders[0].suite.name
    table = runs_summary_table(read_runs(folders, suite)).pick("Model", "Attack", "Top-1", "Attack success")
    return build_report(folders, suite, out / "report.html"), table


def _work(contenders: list[Contender]) -> None:
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _display(contenders) as show:
            while not all(contender.done for contender in contenders):
                for contender in contenders:
                    contender.advance()
                show()
                time.sleep(0.5)
    finally:
        for contender in contenders:
            contender.stop()
        for contender in contenders:
            contender.wait()
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _display(contenders: list[Contender]) -> Iterator[Callable[[], None]]:
    """A function that shows where everybody stands: bars on a terminal, lines elsewhere."""
    if console.is_terminal:
        with bars() as display:
            yield _watch(display, contenders)
        return
    reporters: dict[str, LineReporter] = {}

    def show() -> None:
        for contender in contenders:
            activity, done, total, note = contender.status()
            name = f"{contender.folder.name}: {activity}"
            if total is not None:
                reporters.setdefault(name, LineReporter(name, total))(done, note)

    yield show


def _watch(display: Progress, contenders: list[Contender]) -> Callable[[], None]:
    tasks = [display.add_task(contender.recipe, total=contender.num_steps, note="") for contender in contenders]
    shown = dict.fromkeys(tasks, "")

    def show() -> None:
        for contender, task in zip(contenders, tasks, strict=True):
            activity, done, total, note = contender.status()
            if activity != shown[task]:
                display.reset(task, total=total)
                shown[task] = activity
            description = f"{contender.folder.name}: {activity}"
            display.update(task, description=description, completed=done, total=total, note=note)

    return show
