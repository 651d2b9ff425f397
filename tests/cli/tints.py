"""Somebody else's classifier as a file of code, pictures that it gets right, and what must come out, computed by hand.

The classifier compares the mean colour of a picture with three classes. Under an attack of radius r the worst picture is
known: the true colour down by r, the others up by r. So every verdict has a closed form."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from typer.testing import CliRunner, Result

from s3ta.cli import app
from s3ta.records import Ledger

CLASSES = ("blue", "green", "red")
CHANNELS = {"red": 0, "green": 1, "blue": 2}
SCALE = 30.0
GAPS = (6, 12, 30, 40)
"""How far, in 255ths, the colour of a picture stands out; 2 x 8/255 lie in the middle."""
MODULE = f"""
import torch
from torch import nn

import s3ta


class Tint(nn.Module):
    \"\"\"Logits of the mean colour: {SCALE} x (3 x own channel - sum of all), for these channels.\"\"\"

    def __init__(self, order=(2, 1, 0)):
        super().__init__()
        self.head = nn.Conv2d(3, len(order), 1)
        with torch.no_grad():
            self.head.weight.copy_({SCALE} * (3 * torch.eye(3)[list(order)] - 1)[:, :, None, None])
            self.head.bias.zero_()

    def forward(self, images):
        return self.head(images).mean(dim=(2, 3))


class Around(nn.Module):
    def __init__(self, before=None, after=None, net=None):
        super().__init__()
        self.net, self.before, self.after = net or Tint(), before, after

    def forward(self, images):
        logits = self.net(images if self.before is None else self.before(images))
        return logits if self.after is None else self.after(logits)


def make():
    return Tint()
"""
FEW = ("--batch-size", "4", "--threads", "1", "--device", "cpu")


def s3ta(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: str | Path) -> Result:
    """The same, where it must succeed."""
    result = s3ta(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(result: Result, *words: str) -> None:
    """One sentence that begins with `s3ta:` at the end of stderr, exit code 2, nothing on stdout, no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.output
    said = result.stderr.strip().splitlines()
    assert said[-1].startswith("s3ta: "), result.stderr
    for word in words:
        assert word in said[-1], said[-1]


def write_module(folder: Path, name: str, more: str = "") -> str:
    """Make `NAME.py` importable from the current folder; a module of that name is forgotten, as in a new process."""
    sys.modules.pop(name, None)
    (folder / f"{name}.py").write_text(MODULE + more)
    return name


def write_pictures(root: Path, size: int = 8, gaps: tuple[int, ...] = GAPS, seed: int = 0) -> Path:
    """`root/val/CLASS/NUMBER.png`, grey noise with a tint; returns the root."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        folder = root / "val" / name
        folder.mkdir(parents=True)
        for number, gap in enumerate(gaps):
            pixels = random.integers(100, 140, (size, size, 1)).repeat(3, axis=2)
            pixels[..., CHANNELS[name]] += gap
            pixels[..., (CHANNELS[name] + 1) % 3] += 3  # so that no two classes tie
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return root


def colours(root: Path, ids: list[str]) -> np.ndarray:
    """Mean red, green and blue of these pictures, (n, 3), in [0, 1], float64."""
    return np.stack([np.asarray(Image.open(root / name), np.float64).mean(axis=(0, 1)) / 255 for name in ids])


def logits_of(means: np.ndarray, order: tuple[str, ...] = CLASSES) -> np.ndarray:
    """(n, 3) mean colours -> the classifier's logits for classes in this order."""
    own = means[:, [CHANNELS[name] for name in order]]
    return SCALE * (3 * own - means.sum(axis=1, keepdims=True))


def losses(logits: np.ndarray, labels: list[int]) -> np.ndarray:
    """Cross-entropies, nats."""
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=1))
    return total - logits[np.arange(len(labels)), labels]


def worst(means: np.ndarray, labels: list[int], radius: float, target: list[int] | None = None) -> np.ndarray:
    """Mean colours of the worst picture within the radius: the true colour down, the others up (or the target's alone)."""
    moved = means + (radius if target is None else -radius)
    if target is None:
        for row, label in enumerate(labels):
            moved[row, CHANNELS[CLASSES[label]]] -= 2 * radius
    else:
        for row, aim in enumerate(target):
            moved[row, CHANNELS[CLASSES[aim]]] += 2 * radius
    return moved


def rows(folder: Path, **wanted: Any) -> list[dict[str, Any]]:
    """The records with these values, sorted."""
    found = Ledger.read(folder).table().to_pylist()
    found = [row for row in found if all(row[name] == value for name, value in wanted.items())]
    return sorted(found, key=lambda row: (row["attack"], row["restart"], row["num_attack_steps"], row["example_id"]))


def chunks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("chunk-*.parquet"))}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".lock")
    }


def told_in(folder: Path) -> str:
    """Everything that the files of a folder say, compressed ones unpacked."""
    said = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        said.append(path.name)
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            said += [json.dumps(table.to_pylist()), str(table.schema.metadata)]
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                said += [str(arrays[name].tolist()) for name in arrays.files if arrays[name].dtype.kind == "U"]
        else:
            said.append(path.read_bytes().decode("latin-1"))
    return "\n".join(said)
