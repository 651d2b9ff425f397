"""Adversarial images kept beside a ledger, and read again to be scored on another model (transfer)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3ta.data import Dataset
from s3ta.errors import UserError
from s3ta.evaluate.plan import Piece, Settings
from s3ta.evaluate.suites import Suite
from s3ta.files import read_arrays, write_arrays
from s3ta.records import RUN, Ledger, is_cascade

KEPT_FILE = "adversarial.npz"
"""The first images of the attack that the report shows."""
_KEYS = ("example_ids", "attack", "restart", "images")


def images_path(folder: Path, index: int) -> Path:
    """The images of one chunk."""
    return folder / f"images-{index:05d}.npz"


def write_images(folder: Path, index: int, name: str, restart: int, ids: list[str], images: Tensor) -> None:
    """Keep the final images of one chunk: float32, (n, C, H, W), compressed."""
    arrays = {
        "example_ids": np.array(ids, dtype=np.str_),
        "attack": np.array(name),
        "restart": np.array(restart),
        "images": images.cpu().numpy(),
    }
    write_arrays(images_path(folder, index), arrays)


class KeptImages:
    """The images of a finished evaluation, by attack, restart and example."""

    def __init__(self, folder: Path) -> None:
        """Raises UserError where the folder is no finished evaluation with images of every example."""
        ledger = Ledger.read(folder)
        self.manifest: dict[str, Any] = ledger.manifest
        if not ledger.complete:
            raise UserError(f"{folder} is not finished: run its evaluation to the end first.")
        if is_cascade(self.manifest) or set(ledger.table()["status"].to_pylist()) != {RUN}:
            raise UserError(
                f"{folder} holds images of only some examples, for others left early: evaluate with a suite that is not "
                "a cascade, without --budget, and with --exhaustive where it has restarts."
            )
        self._where: dict[tuple[str, int, str], tuple[Path, int]] = {}
        for index in range(ledger.num_chunks):
            path = images_path(folder, index)
            if path.is_file():
                arrays = read_arrays(path, _KEYS)
                for row, example_id in enumerate(arrays["example_ids"].tolist()):
                    self._where[str(arrays["attack"]), int(arrays["restart"]), example_id] = (path, row)
        if not self._where:
            raise UserError(f"{folder} holds no images: evaluate the source model with --keep-images.")
        self._folder, self._open = folder, (Path(), np.empty(0))

    def load(self, attack: str, restart: int, ids: list[str]) -> Tensor:
        """The images of these examples, in their order. Raises UserError where one is missing."""
        found = []
        for example_id in ids:
            place = self._where.get((attack, restart, example_id))
            if place is None:
                raise UserError(f"{self._folder} holds no image of example {example_id} under attack '{attack}'.")
            path, row = place
            if self._open[0] != path:
                self._open = (path, read_arrays(path, _KEYS)["images"])
            found.append(self._open[1][row])
        return torch.from_numpy(np.stack(found))


def _is_shown(piece: Piece, suite: Suite) -> bool:
    """Whether the report shows images of this piece."""
    shown = piece.is_first and piece.stage.restart == 0 and piece.stage.name == suite.gallery_attack
    return shown and bool(piece.positions)


def lacks_images(piece: Piece, suite: Suite, settings: Settings, folder: Path) -> bool:
    """Whether images that belong beside this chunk are not there: the piece is then run again."""
    if _is_shown(piece, suite) and not (folder / KEPT_FILE).is_file():
        return True
    wanted = settings.keep_images and piece.stage.attack is not None and bool(piece.positions)
    return wanted and not images_path(folder, piece.chunk).is_file()


def keep(
    folder: Path,
    piece: Piece,
    suite: Suite,
    settings: Settings,
    dataset: Dataset,
    columns: dict[str, Any],
    final: Tensor,
) -> None:
    """Keep what was asked for: some attacked images for the report, all of them for other models."""
    ids = [dataset.ids[i] for i in piece.positions]
    if settings.keep_images and piece.stage.attack is not None and ids:
        write_images(folder, piece.chunk, piece.stage.name, piece.stage.restart, ids, final)
    if _is_shown(piece, suite):
        shown = min(settings.num_kept, len(ids))
        arrays = {
            "example_ids": np.array(ids[:shown]),
            "targets": np.asarray(columns["target"][:shown]),  # those the attack was given; -1: none
            "adversarial": final[:shown].cpu().numpy(),
            "attack": np.array(piece.stage.name),
        }
        write_arrays(folder / KEPT_FILE, arrays)
