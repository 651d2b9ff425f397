"""A small evaluation that takes a second: random weights on a few cluttered digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.attacks import PGDConfig
from s3ta.data import ClutteredDigits, Dataset
from s3ta.data.sources import Subset
from s3ta.evaluate import NamedAttack, Settings, Suite, attack_rounds, chunks_of_round, runner
from s3ta.evaluate.plan import Chunk
from s3ta.models import create_model
from s3ta.records import Ledger

SETTINGS = Settings(seed=3, batch_size=4, num_threads=1, num_kept=3)


def small_model(name: str = "s3ta_2_resnetv2_mini", num_classes: int = 10) -> torch.nn.Module:
    torch.manual_seed(5)
    model = create_model(name, num_classes=num_classes, image_size=60, in_channels=1)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    return model


def small_suite(num_restarts: int = 1) -> Suite:
    attacks = (
        NamedAttack(
            name="untargeted-3",
            attack=PGDConfig(
                objective="untargeted",
                radius=0.1,
                step_size=0.05,
                num_attack_steps=3,
                read_outs=(1, 2),
                num_restarts=num_restarts,
            ),
        ),
        NamedAttack(
            name="targeted-2",
            attack=PGDConfig(
                objective="targeted", radius=0.1, step_size=0.05, num_attack_steps=2, num_restarts=num_restarts
            ),
        ),
    )
    return Suite(name="small", description="a test", attacks=attacks, gallery_attack="targeted-2")


def some_digits(count: int = 11) -> Dataset:
    whole = ClutteredDigits("test")
    return Subset(whole, "test", np.linspace(0, len(whole.ids) - 1, count).astype(int).tolist())


def planned_chunks(suite: Suite, positions: Sequence[int], micro_batch: int) -> list[Chunk]:
    """Everything to do where nobody is left out."""
    return [
        chunk
        for attack_round in attack_rounds(suite)
        for chunk in chunks_of_round(attack_round, positions, micro_batch)
    ]


def rows(ledger: Ledger) -> list[dict]:
    return sorted(
        ledger.table().to_pylist(), key=lambda r: (r["attack"], r["restart"], r["num_attack_steps"], r["example_id"])
    )


def chunk_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("chunk-*.parquet"))}


class Killed(BaseException):
    """Stands for kill -9 at the worst moment."""


@contextmanager
def killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The evaluation inside is killed while it works on the chunk after the first `count`; that it is, is checked."""
    calls, honest = 0, runner.run_chunk

    def killed(*args):
        nonlocal calls
        calls += 1
        if calls > count:
            raise Killed
        return honest(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(runner, "run_chunk", killed)
        yield


def ignore(completed: int, note: str = "") -> None:
    """A progress reporter that tells nobody."""
