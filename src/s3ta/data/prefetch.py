"""Items made ready in a thread while the one before is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[], Generator[T, None, None]], depth: int = 2) -> Generator[T, None, None]:
    """The items of an iterator that lives in a thread of its own: at most `depth` lie ready, and one more is being made.

    What it raises is raised here, at the same item. Closing the generator ends the thread and closes the iterator."""
    feeder = _Feeder(make, depth)
    feeder.start()
    try:
        while isinstance(item := feeder.ready.get(), _Item):
            yield item.value
        if item is not None:
            raise item
    finally:
        feeder.over.set()
        feeder.join()  # torch may be at work in it, and dies with a process that ends over it


class _Item(NamedTuple):
    value: Any


class _Feeder(threading.Thread):
    """Puts items, and at the end None or what was raised, into a queue that holds so many."""

    def __init__(self, make: Callable[[], Generator[Any, None, None]], depth: int) -> None:
        super().__init__(name="feeding", daemon=True)
        self.ready: queue.Queue[_Item | BaseException | None] = queue.Queue(depth)
        self.over = threading.Event()
        self._make = make

    def run(self) -> None:
        ending = None
        try:
            with closing(self._make()) as items:
                for item in items:
                    self._put(_Item(item))
                    if self.over.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            ending = error
        self._put(ending)

    def _put(self, item: _Item | BaseException | None) -> None:
        while not self.over.is_set():
            try:
                return self.ready.put(item, timeout=0.1)
            except queue.Full:
                continue
