"""What an evaluation will do, before it does it: the examples, the pieces of work, the manifest."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from s3ta.data import Dataset
from s3ta.errors import UserError
from s3ta.evaluate.suites import NamedAttack, Suite
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


class Piece(NamedTuple):
    """One chunk of the ledger: one attack and restart on one micro-batch of examples."""

    attack: NamedAttack | None
    """None: the clean images."""
    restart: int
    positions: tuple[int, ...]
    """Places in the data set."""
    is_first: bool
    """Whether these are the first examples of the evaluation."""

    @property
    def name(self) -> str:
        return self.attack.name if self.attack else CLEAN

    @property
    def num_gradients(self) -> int:
        """Gradient evaluations of the whole piece, padding not counted."""
        return self.attack.attack.num_attack_steps * len(self.positions) if self.attack else 0


def choose_examples(dataset: Dataset, num_examples: int | None, seed: int) -> list[int]:
    """The places of the examples to use, in an order that depends on the seed and the data alone.

    A smaller number gives a prefix of a larger one. Raises UserError for a number the data set cannot give."""
    total = len(dataset.ids)
    if num_examples is not None and not 0 < num_examples <= total:
        raise UserError(
            f"Cannot use {num_examples} examples: the {dataset.split} split of {dataset.source} has {total}."
        )
    return stream(seed, "examples", dataset.fingerprint).permutation(total)[:num_examples].tolist()


def plan(suite: Suite, positions: Sequence[int], micro_batch: int) -> list[Piece]:
    """All pieces, clean images first; every piece is one chunk."""
    blocks = [tuple(positions[i : i + micro_batch]) for i in range(0, len(positions), micro_batch)]
    runs = [(None, 0)] + [(named, restart) for named in suite.attacks for restart in range(named.attack.num_restarts)]
    return [Piece(named, restart, block, i == 0) for named, restart in runs for i, block in enumerate(blocks)]


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
        "num_chunks": len(plan(suite, positions, settings.micro_batch)),
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
        "attacks": [{"name": a.name, **a.attack.model_dump(mode="json")} for a in suite.attacks],
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


def total_passes(pieces: Sequence[Piece]) -> int:
    """Gradients of whole micro-batches, padding included: what the time goes by."""
    return sum(piece.attack.attack.num_attack_steps for piece in pieces if piece.attack)


def total_gradients(pieces: Sequence[Piece]) -> int:
    """Gradient evaluations of all pieces together."""
    return int(np.sum([piece.num_gradients for piece in pieces], dtype=np.int64))
