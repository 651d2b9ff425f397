"""Items made ready in a thread while the one before is at work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


def prefetch(make: Callable[[], Generator[T, None, None]], depth: int = 2) -> Generator[T, None, None]:
    """The items of an iterator that lives in a thread of its own: at most `depth` lie ready, and one more is being made.

    What it raises is raised here, at the same item. Closing the generator ends the thread and closes the iterator."""
    ready: queue.Queue[_Item | BaseException | None] = queue.Queue(depth)
    over = threading.Event()

    def put(item: _Item | BaseException | None) -> None:
        while not over.is_set():
            with suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    def feed() -> None:
        """Puts items, and at the end None or what was raised."""
        ending = None
        try:
            with closing(make()) as items:
                for item in items:
                    put(_Item(item))
                    if over.is_set():
                        return
        except BaseException as error:  # noqa: BLE001 - raised again where the items are used
            ending = error
        put(ending)

    feeder = threading.Thread(target=feed, name="feeding", daemon=True)
    feeder.start()
    try:
        while isinstance(item := ready.get(), _Item):
            yield item.value
        if item is not None:
            raise item
    finally:
        over.set()
        feeder.join()  # torch may be at work in it, and dies with a process that ends over it


class _Item(NamedTuple):
    value: Any
