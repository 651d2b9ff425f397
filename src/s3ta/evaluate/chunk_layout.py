"""Which examples each chunk of a stage holds, where some of its chunks are there already: finished work is kept as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from s3ta.data import Dataset
from s3ta.evaluate.plan import Piece
from s3ta.records import RUN, SETTLED

Columns = dict[str, Any]


class Layout(NamedTuple):
    """The pieces of a stage, in order, and the finished chunks that cannot stay."""

    pieces: list[Piece]
    contradicted: list[int]


def layout(planned: Sequence[Piece], finished: Mapping[int, Columns], dataset: Dataset, micro_batch: int) -> Layout:
    """The planned pieces, those of finished chunks as they were recorded.

    Chunks of a block that were laid out otherwise than planned stay all the same, and the missing ones take the other
    examples: so it is under a budget whose costs were once counted otherwise. They cannot stay where they contradict each
    other or the records of earlier stages (an example left out as settled that is not, or the other way round): then an
    earlier chunk was lost, and came out otherwise when it was done again. Costs alone contradict nothing.

    Args:
      planned: all pieces of whole blocks of one stage, from the records of the stages before it.
      finished: columns of the sound chunks, by number.
      dataset: knows the ids.
      micro_batch: examples in a chunk, at most."""
    blocks: dict[int, list[Piece]] = {}
    for piece in planned:
        blocks.setdefault(piece.block, []).append(piece)
    result = Layout([], [])
    for block in blocks.values():
        positions = {dataset.ids[position]: position for piece in block for position in _statuses(piece)}
        recorded = {p.chunk: _recorded(finished[p.chunk], positions) for p in block if p.chunk in finished}
        differing = [p.chunk for p in block if p.chunk in recorded and recorded[p.chunk] != _statuses(p)]
        kept = _around(block, recorded, micro_batch) if differing else block
        result.pieces.extend(kept or block)
        result.contradicted.extend([] if kept else differing)
    return result


def _recorded(columns: Columns, positions: Mapping[str, int]) -> dict[int, str]:
    """Places of a finished chunk's examples, in its order, with their status; -1: an example of another block."""
    rows = zip(columns["example_id"], columns["status"], strict=True)
    return {positions.get(example, -1): status for example, status in rows}


def _statuses(piece: Piece) -> dict[int, str]:
    return dict.fromkeys(piece.positions, RUN) | dict(piece.left_out)


def _around(block: Sequence[Piece], recorded: Mapping[int, dict[int, str]], micro_batch: int) -> list[Piece] | None:
    """The block's pieces around its finished chunks; None where these contradict the plan or each other."""
    planned = {position: status for piece in block for position, status in _statuses(piece).items()}
    taken = {position: status for statuses in recorded.values() for position, status in statuses.items()}
    if len(taken) < sum(map(len, recorded.values())) or not taken.keys() <= planned.keys():
        return None
    if any((status == SETTLED) != (planned[position] == SETTLED) for position, status in taken.items()):
        return None
    others = {position: status for position, status in planned.items() if position not in taken}
    run = [position for position, status in others.items() if status == RUN]
    left_out = tuple((position, status) for position, status in others.items() if status != RUN)
    missing = [piece.chunk for piece in block if piece.chunk not in recorded]
    if len(run) > micro_batch * len(missing) or (others and not missing):
        return None
    pieces = []
    for piece in block:
        if piece.chunk in recorded:
            statuses = recorded[piece.chunk].items()
            ran = tuple(position for position, status in statuses if status == RUN)
            pieces.append(
                piece._replace(positions=ran, left_out=tuple(example for example in statuses if example[1] != RUN))
            )
        else:
            begin = micro_batch * missing.index(piece.chunk)
            ran = tuple(run[begin : begin + micro_batch])
            pieces.append(piece._replace(positions=ran, left_out=() if begin else left_out))
    return pieces
