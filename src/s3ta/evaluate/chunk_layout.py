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
        places = {dataset.ids[place]: place for piece in block for place in _statuses(piece)}
        recorded = {p.chunk: _recorded(finished[p.chunk], places) for p in block if p.chunk in finished}
        differing = [p.chunk for p in block if p.chunk in recorded and recorded[p.chunk] != _statuses(p)]
        kept = _around(block, recorded, micro_batch) if differing else block
        result.pieces.extend(kept or block)
        result.contradicted.extend([] if kept else differing)
    return result


def _recorded(columns: Columns, places: Mapping[str, int]) -> dict[int, str]:
    """Places of a finished chunk's examples, in its order, with their status; -1: an example of another block."""
    rows = zip(columns["example_id"], columns["status"], strict=True)
    return {places.get(example, -1): status for example, status in rows}


def _statuses(piece: Piece) -> dict[int, str]:
    return dict.fromkeys(piece.positions, RUN) | dict(piece.left_out)


def _around(block: Sequence[Piece], recorded: Mapping[int, dict[int, str]], micro_batch: int) -> list[Piece] | None:
    """The block's pieces around its finished chunks; None where these contradict the plan or each other."""
    planned = {place: status for piece in block for place, status in _statuses(piece).items()}
    taken = {place: status for statuses in recorded.values() for place, status in statuses.items()}
    if len(taken) < sum(map(len, recorded.values())) or not taken.keys() <= planned.keys():
        return None
    if any((status == SETTLED) != (planned[place] == SETTLED) for place, status in taken.items()):
        return None
    others = {place: status for place, status in planned.items() if place not in taken}
    run = [place for place, status in others.items() if status == RUN]
    left_out = tuple((place, status) for place, status in others.items() if status != RUN)
    missing = [piece.chunk for piece in block if piece.chunk not in recorded]
    if len(run) > micro_batch * len(missing) or (others and not missing):
        return None
    pieces = []
    for piece in block:
        if piece.chunk in recorded:
            statuses = recorded[piece.chunk].items()
            ran = tuple(place for place, status in statuses if status == RUN)
            pieces.append(piece._replace(positions=ran, left_out=tuple(one for one in statuses if one[1] != RUN)))
        else:
            begin = micro_batch * missing.index(piece.chunk)
            ran = tuple(run[begin : begin + micro_batch])
            pieces.append(piece._replace(positions=ran, left_out=() if begin else left_out))
    return pieces
