"""Examples on their way to the model: loaded ahead, and laid out in micro-batches of one size."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from s3ta.data import Batch, Dataset, fetch


def prefetch(
    dataset: Dataset, groups: Sequence[Sequence[int]], micro_batch: int, batch_size: int | None
) -> Iterator[Batch | None]:
    """The examples at each group of positions, in order; None for an empty group.

    Args:
      batch_size: how many examples may be in memory at once; what is beyond a micro-batch is loaded by a second thread. None:
        one micro-batch."""
    depth = max(0, (batch_size or micro_batch) // micro_batch - 1)
    if not depth:
        for group in groups:
            yield fetch(dataset, group) if group else None
        return
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(fetch, dataset, group) if group else None for group in groups[: depth + 1])
        try:
            for number in range(len(groups)):
                loading = waiting.popleft()
                yield None if loading is None else loading.result()
                if number + depth + 1 < len(groups):
                    group = groups[number + depth + 1]
                    waiting.append(pool.submit(fetch, dataset, group) if group else None)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def pad_batch(batch: Batch, size: int) -> Batch:
    """The batch filled up to `size` with copies of its last example."""
    missing = size - len(batch.images)
    if not missing:
        return batch
    return Batch(
        batch.ids + batch.ids[-1:] * missing,
        torch.cat([batch.images, batch.images[-1:].expand(missing, -1, -1, -1)]),
        torch.cat([batch.labels, batch.labels[-1:].expand(missing)]),
    )


def isolate_rows(whole: Batch, rows: slice) -> Batch:
    """A micro-batch in which every row but these holds a copy of their last one."""
    place = torch.arange(len(whole.ids))
    place[(place < rows.start) | (place >= rows.stop)] = rows.stop - 1
    return Batch([whole.ids[i] for i in place.tolist()], whole.images[place], whole.labels[place])
