"""What an evaluation will do, before it does it: the examples, and its chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from s3ta.attack_config import NamedAttack, TransferConfig
from s3ta.attacks import AttackCost, attack_cost, draw_targets
from s3ta.data import Dataset
from s3ta.errors import UserError
from s3ta.evaluate.suite import Suite
from s3ta.models import ExecutionMode
from s3ta.random_streams import stream
from s3ta.records import CLEAN, DRAWN, Choice


class Settings(NamedTuple):
    """How an evaluation runs; all of it is recorded, because all of it can change a last bit."""

    seed: int = 0
    batch_size: int = 50
    """Examples that go through the model together, always exactly so many (the last ones are padded)."""
    num_threads: int = 1
    num_kept: int = 8
    """Adversarial images kept for the report."""
    attack_execution: ExecutionMode = ExecutionMode()
    """How gradients are computed; verdicts are always float32."""
    exhaustive: bool = False
    """Whether examples run on although nothing could change their verdict."""
    max_passes: int | None = None
    """Evaluations (forward plus backward passes) that each example may cost; an attack that does not fit whole is left out."""
    keep_images: bool = False
    """Whether every final image is kept beside the ledger."""
    block: int = 4
    """Micro-batches whose examples share the places that become free when some leave; what shards divide among them."""
    prefetch: int | None = None
    """Examples in flight. Below the batch size, so many real ones are in each batch, beside copies; above it, so many are
    loaded ahead. None: the batch size. Changes no record of ours, so it identifies nothing."""
    targets: Mapping[str, int] | None = None
    """Targets by example id, given instead of drawn."""
    examples: Choice = DRAWN
    """How the examples were chosen: said beside the number, and no part of what identifies it."""
    origins: Mapping[str, str] | None = None
    """Where the preparation of images comes from, in words, for the manifest; it only informs."""


@dataclass(frozen=True)
class Shard:
    """A part of the work that one machine or process does: `index` of `count`, counted from 1."""

    index: int = 1
    count: int = 1

    def owns(self, block: int) -> bool:
        return block % self.count == self.index - 1

    @property
    def is_all(self) -> bool:
        return self.count == 1

    @property
    def name(self) -> str:
        return f"{self.index}-of-{self.count}"


class AttackRound(NamedTuple):
    """One attack and restart on all examples; they run one after another."""

    attack: NamedAttack | None
    """None: the clean images."""
    restart: int
    number: int

    @property
    def name(self) -> str:
        return self.attack.name if self.attack else CLEAN

    @property
    def read_outs(self) -> tuple[int, ...]:
        """The numbers of attack steps after which the model is asked for its verdict, rising; 0 for clean images."""
        if self.attack is None:
            return (0,)
        config = self.attack.attack
        return tuple(sorted({*config.read_outs, config.num_attack_steps}))

    @property
    def cost(self) -> AttackCost:
        """Evaluations of one example, the verdict's forward pass at each read-out included."""
        if self.attack is None or isinstance(self.attack.attack, TransferConfig):
            return AttackCost(0, 1)
        spent = attack_cost(self.attack.attack)
        return AttackCost(spent.num_gradients, spent.num_forwards + len(self.read_outs))


class Chunk(NamedTuple):
    """One chunk of the ledger: some examples of one round, the next in order."""

    attack_round: AttackRound
    number: int
    """Its number in the ledger."""
    positions: tuple[int, ...]
    """Places in the data set of the examples that run, at most a micro-batch."""
    left_out: tuple[tuple[int, str], ...]
    """Places of those that do not, each with its status."""
    block: int = 0
    """The block of examples that it belongs to."""
    is_first: bool = False
    """Whether this is the first chunk of its round."""

    @property
    def num_evaluations(self) -> int:
        """What the chunk would cost if every example of it ran: the measure of progress."""
        return self.attack_round.cost.total * (len(self.positions) + len(self.left_out))


def choose_examples(dataset: Dataset, num_examples: int | None, seed: int) -> list[int]:
    """The places of the examples to use, in an order that depends on the seed and the data alone.

    A smaller number gives a prefix of a larger one. Raises UserError for a number the data set cannot give."""
    total = len(dataset.ids)
    if num_examples is not None and not 0 < num_examples <= total:
        split = f"the {dataset.split} split of {dataset.source}"
        raise UserError(f"Cannot use {num_examples} examples: {split} has {total}.")
    return stream(seed, "examples", dataset.content).permutation(total)[:num_examples].tolist()


def attack_rounds(suite: Suite) -> list[AttackRound]:
    """Clean images first, then each attack, restart after restart."""
    runs = [(None, 0)] + [(named, restart) for named in suite.attacks for restart in range(named.attack.num_restarts)]
    return [AttackRound(named, restart, number) for number, (named, restart) in enumerate(runs)]


def may_leave(suite: Suite, settings: Settings) -> bool:
    """Whether a round may skip an example."""
    repeats = any(named.attack.num_restarts > 1 for named in suite.attacks)
    return settings.max_passes is not None or (not settings.exhaustive and (repeats or suite.cascade))


def micro_batches_per_block(suite: Suite, settings: Settings) -> int:
    """Micro-batches in a block: 1 where nobody leaves, for then no place becomes free."""
    return settings.block if may_leave(suite, settings) else 1


def chunks_of_round(
    attack_round: AttackRound,
    positions: Sequence[int],
    micro_batch: int,
    left_out: Mapping[int, str] | None = None,
    block: int = 4,
) -> list[Chunk]:
    """The chunks of one round, in blocks of so many micro-batches.

    Within a block, those that are left out (places, with status) make room, so that every micro-batch of it but the last is
    full; blocks do not touch each other, so that shards need not know of each other. There are always as many chunks as without
    anybody left out; the last ones of a block may be empty."""
    size, all_chunks = block * micro_batch, -(-len(positions) // micro_batch)
    cut = []
    for block_index, begin in enumerate(range(0, len(positions), size)):
        for index, (run, out) in enumerate(_filled(positions[begin : begin + size], micro_batch, left_out or {})):
            within = block_index * block + index
            number = attack_round.number * all_chunks + within
            cut.append(Chunk(attack_round, number, tuple(run), tuple(out), block_index, is_first=within == 0))
    return cut


def _filled(
    positions: Sequence[int], micro_batch: int, left_out: Mapping[int, str]
) -> list[tuple[list[int], list[tuple[int, str]]]]:
    """The micro-batches of one block: who runs, who does not."""
    filled: list[tuple[list[int], list[tuple[int, str]]]] = [([], [])]
    for position in positions:
        if position in left_out:
            filled[-1][1].append((position, left_out[position]))
            continue
        if len(filled[-1][0]) == micro_batch:
            filled.append(([], []))
        filled[-1][0].append(position)
    return filled + [([], [])] * (-(-len(positions) // micro_batch) - len(filled))


def chunks_of_shard(suite: Suite, num_examples: int, settings: Settings, shard: Shard) -> list[int]:
    """The numbers of the chunks that a shard fills, ascending."""
    all_chunks, block = -(-num_examples // settings.batch_size), micro_batches_per_block(suite, settings)
    columns = [chunk for chunk in range(all_chunks) if shard.owns(chunk // block)]
    return [attack_round.number * all_chunks + chunk for attack_round in attack_rounds(suite) for chunk in columns]


def targets_of(settings: Settings, ids: Sequence[str], labels: Tensor, num_classes: int) -> Tensor:
    """The targets of these examples: given, or drawn from (seed, example id). Raises UserError where some are not given."""
    if settings.targets is None:
        return draw_targets(settings.seed, ids, labels, num_classes)
    if lacking := [example for example in ids if example not in settings.targets]:
        raise UserError(f"No target is given for example {lacking[0]}: name one for each example, or give no targets.")
    return torch.tensor([settings.targets[example] for example in ids], dtype=labels.dtype, device=labels.device)


def num_chunks(suite: Suite, num_examples: int, micro_batch: int) -> int:
    """How many chunks the finished ledger has, whoever is left out."""
    return len(attack_rounds(suite)) * -(-num_examples // micro_batch)


def max_cost(suite: Suite, num_examples: int) -> AttackCost:
    """All evaluations of all examples, if nobody leaves early; padding not counted."""
    costs = [attack_round.cost for attack_round in attack_rounds(suite)]
    return AttackCost(
        num_examples * sum(cost.num_gradients for cost in costs),
        num_examples * sum(cost.num_forwards for cost in costs),
    )
