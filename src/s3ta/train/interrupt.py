"""Let the step in progress finish when someone asks to stop, so that what is saved is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by the first Ctrl-C or SIGTERM; a second one of the same kind interrupts at once.

    One of each is no impatience: a parent process passes on as SIGTERM what the terminal sent to both as Ctrl-C."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    @property
    def asked(self) -> bool:
        return bool(self._seen)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if number in self._seen:
            raise KeyboardInterrupt
        self._seen.add(number)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Within the block Ctrl-C and SIGTERM set `asked` instead of raising. Outside the main thread nothing changes."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
