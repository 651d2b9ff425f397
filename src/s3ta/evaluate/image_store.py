"""Adversarial images kept beside a ledger, and read again to be scored on another model (transfer)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3ta.errors import UserError
from s3ta.evaluate.plan import Chunk, Settings
from s3ta.evaluate.suite import Suite
from s3ta.files import read_arrays, write_arrays
from s3ta.records import CLEAN, STATUS_RUN, Ledger

KEPT_FILE = "adversarial.npz"
"""The first images of the attack that the report shows."""
_LEDGER = "ledger"
"""The array that says which measurement the images belong to."""


def images_path(folder: Path, index: int) -> Path:
    """The images of one chunk."""
    return folder / f"images-{index:05d}.npz"


def _is_own(path: Path, ledger: Ledger) -> bool:
    """Whether the images are there and belong to this measurement."""
    try:
        return path.is_file() and str(read_arrays(path, (_LEDGER,))[_LEDGER]) == ledger.identity
    except UserError:  # damaged
        return False


class ImageReader:
    """The images kept beside a ledger, by attack, restart and example."""

    def __init__(self, ledger: Ledger) -> None:
        """Raises UserError where there are none, or those of another evaluation."""
        self._where: dict[tuple[str, int, str], tuple[Path, int]] = {}
        for index in range(ledger.num_chunks):
            path = images_path(ledger.folder, index)
            if not path.is_file():
                continue
            if not _is_own(path, ledger):
                raise UserError(f"{path} belongs to another evaluation than the manifest beside it: take it away.")
            arrays = read_arrays(path, ("example_ids", "attack", "restart"))
            for row, example_id in enumerate(arrays["example_ids"].tolist()):
                self._where[str(arrays["attack"]), int(arrays["restart"]), example_id] = (path, row)
        if not self._where:
            raise UserError(f"{ledger.folder} holds no images: evaluate the source model with --keep-images.")
        self._folder = ledger.folder

    def load(self, attack: str, restart: int, ids: list[str]) -> Tensor:
        """The images of these examples, in their order. Raises UserError where one is missing."""
        return self.load_all([(attack, restart, example_id) for example_id in ids])

    def load_all(self, keys: list[tuple[str, int, str]]) -> Tensor:
        """The images of these attacks, restarts and examples, in their order; each file is read once."""
        rows_by_path = defaultdict[Path, list[tuple[int, int]]](list)
        for number, key in enumerate(keys):
            if key not in self._where:
                raise UserError(f"{self._folder} holds no image of example {key[2]} under attack '{key[0]}'.")
            path, row = self._where[key]
            rows_by_path[path].append((number, row))
        images: list[np.ndarray] = [np.empty(0)] * len(keys)
        for path, rows in rows_by_path.items():
            stored = read_arrays(path, ("images",))["images"]
            for number, row in rows:
                images[number] = stored[row]
        return torch.from_numpy(np.stack(images))


class TransferImages(ImageReader):
    """The images of a finished evaluation that ran every attack on every example: what another model can be scored on."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder is no finished evaluation with images of every example."""
        ledger = Ledger.read(folder)
        self.manifest: dict[str, Any] = ledger.manifest
        if not ledger.complete:
            raise UserError(f"{folder} is not finished: run its evaluation to the end first.")
        if ledger.typed_manifest.suite.cascade or set(ledger.table()["status"].to_pylist()) != {STATUS_RUN}:
            raise UserError(
                f"{folder} holds images of only some examples, for others left early: evaluate with a suite that is not "
                "a cascade, without --max-passes, and with --exhaustive where it has restarts."
            )
        super().__init__(ledger)
        table = ledger.table().select(["example_id", "attack", "target"]).to_pylist()
        self.ids = [row["example_id"] for row in table if row["attack"] == CLEAN]
        """Of all examples, in the order in which they were measured."""
        self.targets = {row["example_id"]: row["target"] for row in table if row["target"] >= 0}
        """By example, where attacks had targets."""


@dataclass(frozen=True)
class ImageWriter:
    """Keeps what was asked for beside a ledger: some attacked images for the report, all of them for other models."""

    ledger: Ledger
    suite: Suite
    settings: Settings

    def lacks(self, chunk: Chunk) -> bool:
        """Whether images that belong beside this chunk are not there, or are another evaluation's: it is then run again."""
        folder = self.ledger.folder
        if self._is_shown(chunk) and not _is_own(folder / KEPT_FILE, self.ledger):
            return True
        return self._is_kept(chunk) and not _is_own(images_path(folder, chunk.number), self.ledger)

    def keep(self, chunk: Chunk, columns: dict[str, Any], final: Tensor) -> None:
        """Write the images of a chunk after the last attack step, float32 (n, C, H, W), compressed, where they are wanted. In
        the columns, the records of the examples that ran come first."""
        identity, attack = np.array(self.ledger.identity), np.array(chunk.attack_round.name)
        ids, pixels = columns["example_id"][: len(final)].tolist(), final.cpu().numpy()
        if self._is_kept(chunk):
            restart = np.array(chunk.attack_round.restart)
            arrays = {"example_ids": np.array(ids), "attack": attack, "restart": restart, "images": pixels}
            write_arrays(images_path(self.ledger.folder, chunk.number), {**arrays, _LEDGER: identity})
        if self._is_shown(chunk):
            num_shown = self.settings.num_kept
            targets = np.asarray(columns["target"][: len(ids)][:num_shown])  # those the attack was given; -1: none
            arrays = {"example_ids": np.array(ids[:num_shown]), "targets": targets, "attack": attack}
            arrays["adversarial"] = pixels[:num_shown]
            write_arrays(self.ledger.folder / KEPT_FILE, {**arrays, _LEDGER: identity})

    def _is_kept(self, chunk: Chunk) -> bool:
        return self.settings.keep_images and chunk.attack_round.attack is not None and bool(chunk.positions)

    def _is_shown(self, chunk: Chunk) -> bool:
        """Whether the report shows images of this chunk."""
        is_first = chunk.is_first and chunk.attack_round.restart == 0 and bool(chunk.positions)
        return is_first and chunk.attack_round.name == self.suite.gallery_attack
