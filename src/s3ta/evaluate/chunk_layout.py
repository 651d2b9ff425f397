"""Which examples each chunk of a round holds, where some of its chunks are there already: finished work is kept as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from s3ta.data import Dataset
from s3ta.evaluate.plan import Chunk
from s3ta.records import STATUS_RUN, STATUS_SETTLED

Columns = dict[str, Any]


class Layout(NamedTuple):
    """The chunks of a round, in order, and the finished chunks that cannot stay."""

    chunks: list[Chunk]
    contradicted: list[int]


def layout(planned: Sequence[Chunk], finished: Mapping[int, Columns], dataset: Dataset, micro_batch: int) -> Layout:
    """The planned chunks, those of finished chunks as they were recorded.

    Chunks of a block that were laid out otherwise than planned stay all the same, and the missing ones take the other
    examples: so it is under a budget whose costs were once counted otherwise. They cannot stay where they contradict each
    other or the records of earlier rounds (an example left out as settled that is not, or the other way round): then an
    earlier chunk was lost, and came out otherwise when it was done again. Costs alone contradict nothing.

    Args:
      planned: all chunks of whole blocks of one round, in order, from the records of the rounds before it.
      finished: columns of the sound chunks, by number."""
    result = Layout([], [])
    for _, chunks in groupby(planned, key=lambda chunk: chunk.block):
        block = list(chunks)
        positions = {dataset.ids[position]: position for chunk in block for position in _statuses(chunk)}
        recorded = {p.number: _recorded(finished[p.number], positions) for p in block if p.number in finished}
        differing = [p.number for p in block if p.number in recorded and recorded[p.number] != _statuses(p)]
        kept = _around(block, recorded, micro_batch) if differing else block
        result.chunks.extend(kept or block)
        result.contradicted.extend([] if kept else differing)
    return result


def _recorded(columns: Columns, positions: Mapping[str, int]) -> dict[int, str]:
    """Places of a finished chunk's examples, in its order, with their status; -1: an example of another block."""
    return {positions.get(i, -1): status for i, status in zip(columns["example_id"], columns["status"], strict=True)}


def _statuses(chunk: Chunk) -> dict[int, str]:
    return dict.fromkeys(chunk.positions, STATUS_RUN) | dict(chunk.left_out)


def _around(block: Sequence[Chunk], recorded: Mapping[int, dict[int, str]], micro_batch: int) -> list[Chunk] | None:
    """The block's chunks around its finished chunks; None where these contradict the plan or each other."""
    planned = {position: status for chunk in block for position, status in _statuses(chunk).items()}
    taken = {position: status for statuses in recorded.values() for position, status in statuses.items()}
    if len(taken) < sum(map(len, recorded.values())) or not taken.keys() <= planned.keys():
        return None
    if any((status == STATUS_SETTLED) != (planned[position] == STATUS_SETTLED) for position, status in taken.items()):
        return None
    run, left_out = _divided({position: status for position, status in planned.items() if position not in taken})
    missing = [chunk.number for chunk in block if chunk.number not in recorded]
    if len(run) > micro_batch * len(missing) or (left_out and not missing):
        return None
    chunks = []
    for chunk in block:
        if chunk.number in recorded:
            positions, others = _divided(recorded[chunk.number])
        else:
            begin = micro_batch * missing.index(chunk.number)
            positions, others = run[begin : begin + micro_batch], () if begin else left_out
        chunks.append(chunk._replace(positions=positions, left_out=others))
    return chunks


def _divided(statuses: Mapping[int, str]) -> tuple[tuple[int, ...], tuple[tuple[int, str], ...]]:
    """Places of those that run, and of those that do not with their status."""
    run = tuple(position for position, status in statuses.items() if status == STATUS_RUN)
    return run, tuple(example for example in statuses.items() if example[1] != STATUS_RUN)
