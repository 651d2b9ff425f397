"""What an evaluation will do, before it does it: the examples, the pieces of work, the manifest."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from s3ta.attacks import Evaluations, evaluations
from s3ta.data import Dataset
from s3ta.errors import UserError
from s3ta.evaluate.search import Search
from s3ta.evaluate.suites import NamedAttack, Suite, TransferConfig
from s3ta.files import sha256
from s3ta.models import S3TA, ResNet, num_parameters, weights_hash
from s3ta.records import CLEAN, FORMAT
from s3ta.streams import stream


class Settings(NamedTuple):
    """How an evaluation runs; all of it is recorded, because all of it can change a last bit."""

    seed: int = 0
    micro_batch: int = 50
    """Examples that go through the model together, always exactly so many (the last ones are padded)."""
    num_threads: int = 1
    num_kept: int = 8
    """Adversarial images kept for the report."""
    search: Search = Search()
    """How gradients are computed; verdicts are always float32."""
    exhaustive: bool = False
    """Whether examples run on although nothing could change their verdict."""
    budget: int | None = None
    """Evaluations (forward plus backward passes) that each example may cost; an attack that does not fit whole is left out."""
    keep_images: bool = False
    """Whether every final image is kept beside the ledger."""


class Stage(NamedTuple):
    """One attack and restart on all examples; they run one after another."""

    attack: NamedAttack | None
    """None: the clean images."""
    restart: int
    number: int

    @property
    def name(self) -> str:
        return self.attack.name if self.attack else CLEAN

    @property
    def cost(self) -> Evaluations:
        """Evaluations of one example, the verdict's forward passes included."""
        if self.attack is None or isinstance(self.attack.attack, TransferConfig):
            return Evaluations(0, 1)
        spent = evaluations(self.attack.attack)
        return Evaluations(spent.num_gradients, spent.num_forwards + 1)


class Piece(NamedTuple):
    """One chunk of the ledger: some examples of one stage, the next in order."""

    stage: Stage
    chunk: int
    """Its number in the ledger."""
    positions: tuple[int, ...]
    """Places in the data set of the examples that run, at most a micro-batch."""
    left_out: tuple[tuple[int, str], ...]
    """Places of those that do not, each with its status."""
    is_first: bool
    """Whether this is the first chunk of its stage."""

    @property
    def num_evaluations(self) -> int:
        """What the piece would cost if every example of it ran: the measure of progress."""
        return self.stage.cost.total * (len(self.positions) + len(self.left_out))


def choose_examples(dataset: Dataset, num_examples: int | None, seed: int) -> list[int]:
    """The places of the examples to use, in an order that depends on the seed and the data alone.

    A smaller number gives a prefix of a larger one. Raises UserError for a number the data set cannot give."""
    total = len(dataset.ids)
    if num_examples is not None and not 0 < num_examples <= total:
        raise UserError(
            f"Cannot use {num_examples} examples: the {dataset.split} split of {dataset.source} has {total}."
        )
    return stream(seed, "examples", dataset.fingerprint).permutation(total)[:num_examples].tolist()


def stages(suite: Suite) -> list[Stage]:
    """Clean images first, then each attack, restart after restart."""
    runs = [(None, 0)] + [(named, restart) for named in suite.attacks for restart in range(named.attack.num_restarts)]
    return [Stage(named, restart, number) for number, (named, restart) in enumerate(runs)]


def pieces(
    stage: Stage, positions: Sequence[int], micro_batch: int, left_out: Mapping[int, str] | None = None
) -> list[Piece]:
    """The chunks of one stage: those that are left out make room, so that every micro-batch but the last is full.

    There are always as many chunks as without anybody left out; the last ones may be empty.

    Args:
      positions: all examples, in order.
      left_out: places of the examples that do not run, with their status."""
    left_out = left_out or {}
    num_chunks = -(-len(positions) // micro_batch)
    filled: list[tuple[list[int], list[tuple[int, str]]]] = [([], [])]
    for place in positions:
        if place in left_out:
            filled[-1][1].append((place, left_out[place]))
            continue
        if len(filled[-1][0]) == micro_batch:
            filled.append(([], []))
        filled[-1][0].append(place)
    filled += [([], [])] * (num_chunks - len(filled))
    return [
        Piece(stage, stage.number * num_chunks + number, tuple(run), tuple(out), number == 0)
        for number, (run, out) in enumerate(filled)
    ]


def num_chunks(suite: Suite, num_examples: int, micro_batch: int) -> int:
    """How many chunks the finished ledger has, whoever is left out."""
    return len(stages(suite)) * -(-num_examples // micro_batch)


def manifest(
    model: S3TA | ResNet,
    dataset: Dataset,
    suite: Suite,
    positions: Sequence[int],
    settings: Settings,
    device: torch.device,
) -> dict[str, Any]:
    """What identifies the measurement (`s3ta.records.ledger`); `informative` may differ when it is resumed."""
    examples = sha256("\n".join(dataset.ids[i] for i in positions).encode())
    return {
        "format": FORMAT,
        "num_chunks": num_chunks(suite, len(positions), settings.micro_batch),
        "model": {
            "name": model.config.name,
            "sha256": weights_hash(model),
            "num_parameters": num_parameters(model),
            "num_classes": model.config.num_classes,
            "config": model.config.model_dump(mode="json"),
        },
        "data": {
            "source": dataset.source,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "examples": examples,
            "num_examples": len(positions),
            "num_available": len(dataset.ids),
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
        },
        "suite": suite_identity(suite),
        "seed": settings.seed,
        "precision": "float32",
        "search": dict(settings.search._asdict()),
        "exhaustive": settings.exhaustive,
        "budget": settings.budget,
        "micro_batch": settings.micro_batch,
        "num_threads": settings.num_threads,
        "device": device.type,
        "informative": {
            "versions": {name: version(name) for name in ("s3ta", "torch", "timm", "numpy")},
            "hardware": hardware(device),
            "python": platform.python_version(),
        },
    }


def suite_identity(suite: Suite) -> dict[str, Any]:
    """The suite as the manifest tells it."""
    return {
        "name": suite.name,
        "description": suite.description,
        "gallery_attack": suite.gallery_attack,
        "cascade": suite.cascade,
        "left_out": list(suite.left_out),
        "images_from": suite.images_from and suite.images_from.model_dump(mode="json"),
        "attacks": [
            {"name": a.name, "objective": a.attack.objective, **a.attack.model_dump(mode="json")} for a in suite.attacks
        ],
    }


def hardware(device: torch.device) -> str:
    """The processor or GPU in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


class Total(NamedTuple):
    """What a whole evaluation costs at most."""

    num_gradients: int
    num_forwards: int
    """Those of the gradients among them."""

    @property
    def num_evaluations(self) -> int:
        return self.num_gradients + self.num_forwards


def total(suite: Suite, num_examples: int) -> Total:
    """All evaluations of all examples, if nobody leaves early; padding not counted."""
    costs = [stage.cost for stage in stages(suite)]
    return Total(
        num_examples * sum(cost.num_gradients for cost in costs),
        num_examples * sum(cost.num_forwards for cost in costs),
    )
