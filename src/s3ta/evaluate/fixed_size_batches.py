"""Examples on their way to the model: loaded ahead, and laid out in micro-batches of one size."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import torch

from s3ta.data import Batch, Dataset, fetch_batch
from s3ta.data.prefetch import prefetch
from s3ta.evaluate.plan import Settings


def load_batches(
    dataset: Dataset, groups: Sequence[Sequence[int]], settings: Settings
) -> Generator[Batch | None, None, None]:
    """The examples at each group of positions, in order; None for an empty group. What is in flight beyond a micro-batch is
    loaded ahead by a second thread."""

    def load() -> Generator[Batch | None, None, None]:
        for group in groups:
            yield fetch_batch(dataset, group) if group else None

    num_ahead = (settings.prefetch or 0) // settings.batch_size - 1
    return prefetch(load, max(1, num_ahead - 1)) if num_ahead > 0 else load()


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
    sources = torch.arange(len(whole.ids))
    sources[(sources < rows.start) | (sources >= rows.stop)] = rows.stop - 1
    return Batch([whole.ids[i] for i in sources.tolist()], whole.images[sources], whole.labels[sources])
