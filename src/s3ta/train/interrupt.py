"""Let the step in progress finish when someone asks to stop, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_request() -> Iterator[set[int]]:
    """Within the block Ctrl-C and SIGTERM are added to the set instead of raising; a second one of the same kind interrupts at
    once. Outside the main thread nothing changes.

    One of each is no impatience: a parent process passes on as SIGTERM what the terminal sent to both as Ctrl-C."""
    seen: set[int] = set()

    def note(number: int, frame: FrameType | None) -> None:
        if number in seen:
            raise KeyboardInterrupt
        seen.add(number)

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
