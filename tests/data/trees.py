"""Data folders with everything in them that real ones have, written quickly: each picture tells its class by its colour."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from s3ta.data import DataConfig, Dataset, open_dataset

CLASSES = ("ant", "bee", "cat")


def picture(path: Path | bytes, label: int = 0, number: int = 0) -> None:
    """An 8 x 8 picture whose red is 50 x its class + its number."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with open(path, "wb") as file:
        Image.new("RGB", (8, 8), (50 * label + number, 100, 200)).save(file, format="PNG")


def tree(root: Path, part: str = "val", classes: tuple[str, ...] = CLASSES, count: int = 2) -> Path:
    """`root/part/CLASS/NUMBER.png`; returns `root/part`."""
    for label, name in enumerate(classes):
        for number in range(count):
            picture(root / part / name / f"{number}.png", label, number)
    return root / part


def opened(root: Path, split: str = "test", **settings: object) -> Dataset:
    """The data set of the folder."""
    config = DataConfig.model_validate({"source": f"folder:{root.name}", "image_size": 8, **settings})
    return open_dataset(config, split, root.parent)


def left_out(data: Dataset) -> dict[str, int]:
    """How many entries were left out for each reason."""
    return {reason: entry["count"] for reason, entry in data.left_out.as_json().items()}
