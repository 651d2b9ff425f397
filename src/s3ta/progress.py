"""Progress that a person can plan by: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

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

console = Console(stderr=True, highlight=False)


@runtime_checkable
class Reporter(Protocol):
    """Tells how far a piece of work has come."""

    def __call__(self, completed: int, note: str = "") -> None: ...


def bars() -> Progress:
    """The package's one style of progress bar."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def progress(description: str, total: int) -> Iterator[Reporter]:
    """A reporter for one piece of work. Its first report says what an earlier, interrupted run had done."""
    if console.is_terminal:
        with bars() as display:
            task: TaskID = display.add_task(description, total=total, note="")
            yield _BarReporter(display, task)
    else:
        yield LineReporter(description, total)


class _BarReporter:
    """Moves a bar; its first report says where an earlier, interrupted run stood, and starts the clock."""

    def __init__(self, display: Progress, task: TaskID) -> None:
        self.display, self.task, self.started = display, task, False

    def __call__(self, completed: int, note: str = "") -> None:
        if not self.started:
            self.started = True
            self.display.reset(self.task, completed=completed)
        self.display.update(self.task, completed=completed, note=note)


class LineReporter:
    """Where there is no terminal: a line at the start, each tenth of the way and at the end, with the time left."""

    def __init__(self, description: str, total: int) -> None:
        self.description, self.total = description, total
        self.first, self.began, self.next_line, self.finished = -1, 0.0, 0, False

    def __call__(self, completed: int, note: str = "") -> None:
        if self.first < 0:  # where an earlier, interrupted run stood
            self.first, self.began, self.next_line = completed, time.monotonic(), completed
        if completed < min(self.next_line, self.total) or self.finished:
            return
        self.next_line, self.finished = completed + max(1, self.total // 10), completed >= self.total
        elapsed, done = time.monotonic() - self.began, completed - self.first
        left = ""
        if done > 0 and completed < self.total:
            left = f", about {elapsed / done * (self.total - completed):.0f} s left"
        console.print(f"{self.description}: {completed}/{self.total}{left} {note}".rstrip(), soft_wrap=True)
