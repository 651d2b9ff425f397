"""Progress that a person can plan by: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from s3ta.terminal_output import plain_console

console = plain_console(stderr=True)
_PATIENCE, _AGAIN = 4.0, 60.0
"""Seconds after which a piece of work without a bar is named, and is named again."""
_APART = 2.0
"""Seconds between two lines of `LineReporter`."""
_instead: list[Console | None] = []
"""Where progress is shown while nothing else is (`only_progress`), innermost last; None: nowhere."""
_speakers: list[object] = []
"""Who tells what is going on, outermost first; only the last one speaks."""


@runtime_checkable
class Reporter(Protocol):
    """Tells how far a piece of work has come."""

    def __call__(self, completed: int, note: str = "") -> None: ...


@contextmanager
def only_progress(*, shown: bool) -> Iterator[None]:
    """Inside, nothing is printed but progress, and that only if it is to be shown: in somebody else's program."""
    was_quiet, console.quiet = console.quiet, True
    _instead.append(plain_console(stderr=True) if shown else None)
    try:
        yield
    finally:
        _instead.pop()
        console.quiet = was_quiet


def _screen() -> Console | None:
    return _instead[-1] if _instead else console


def _ignore(completed: int, note: str = "") -> None:
    """The progress that nobody wants to see."""


def bars() -> Progress:
    """The package's one style of progress bar."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}", markup=False),
        console=_screen(),
    )


@contextmanager
def progress(description: str, total: int, *, shown: bool = True) -> Iterator[Reporter]:
    """A reporter for one piece of work. Its first report says what an earlier, interrupted run had done.

    `shown`: no for those processes of torchrun for which another one speaks."""
    screen = _screen() if shown else None
    with _speaking():
        if screen is None:
            yield _ignore
        elif screen.is_terminal:
            with bars() as display:
                yield _bar_reporter(display, display.add_task(description, total=total, note=""))
        else:
            yield LineReporter(description, total, screen)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """For a piece of work that cannot be counted: if it takes more than a few seconds, a line says what is going on, and
    further ones, now and then, that it still is. Within it, bars and inner pieces of work speak for themselves."""
    over, began, has_spoken = threading.Event(), time.monotonic(), threading.Event()

    def tell(me: object) -> None:
        patience = _PATIENCE
        while not over.wait(patience):
            if _speakers[-1:] == [me]:
                so_far = f" {time.monotonic() - began:.0f} s so far" if has_spoken.is_set() else ""
                console.print(f"{what} ...{so_far}")
                has_spoken.set()
            patience = _AGAIN

    with _speaking() as me:
        if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun one speaks
            threading.Thread(target=tell, args=(me,), daemon=True).start()
        try:
            yield
        finally:
            over.set()
    if has_spoken.is_set():
        console.print(f"{what}: {time.monotonic() - began:.0f} s")


@contextmanager
def _speaking() -> Iterator[object]:
    me = object()
    _speakers.append(me)
    try:
        yield me
    finally:
        _speakers.remove(me)


def _bar_reporter(display: Progress, task: TaskID) -> Reporter:
    has_started = False

    def move(completed: int, note: str = "") -> None:
        nonlocal has_started
        if not has_started:  # the clock starts where an earlier, interrupted run stood
            has_started = True
            display.reset(task, completed=completed)
        display.update(task, completed=completed, note=note)

    return move


class LineReporter:
    """Where there is no terminal: a line at the start, each tenth of the way and at the end, with the time left. Lines
    between the first and the last are at least `_APART` seconds apart."""

    def __init__(self, description: str, total: int, screen: Console | None = None) -> None:
        self.description, self.total, self.screen = description, total, screen or console
        self.first, self.began, self.next_line, self.finished = -1, 0.0, 0, False
        self.last_line = -_APART
        """When the line before was printed, in seconds since the first report."""

    def __call__(self, completed: int, note: str = "") -> None:
        if self.first < 0:  # where an earlier, interrupted run stood
            self.first, self.began, self.next_line = completed, time.monotonic(), completed
        if completed < min(self.next_line, self.total) or self.finished:
            return
        elapsed, done = time.monotonic() - self.began, completed - self.first
        if completed < self.total and elapsed - self.last_line < _APART:
            return
        self.next_line, self.finished = completed + max(1, self.total // 10), completed >= self.total
        self.last_line = elapsed
        has_pace = done > 0 and completed < self.total
        left = f", about {elapsed / done * (self.total - completed):.0f} s left" if has_pace else ""
        self.screen.print(f"{self.description}: {completed}/{self.total}{left} {note}".rstrip())
