"""Targets of targeted attacks as a CSV file: to attack another tool's targets, or to give it ours."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from s3ta.data.dataset import Dataset
from s3ta.data.selection import Finder, quoted, read_text
from s3ta.errors import UserError
from s3ta.files import write_atomic

COLUMNS = ("example_id", "label", "target", "target_name")


def write_targets(
    path: Path,
    ids: Sequence[str],
    labels: Sequence[int] | Shaped[np.ndarray, " n"],
    targets: Sequence[int] | Shaped[np.ndarray, " n"],
    classes: Sequence[str],
) -> None:
    """Write one row per example: id, number of the true class, number and name of the target; whole or not at all.

    Raises UserError for a target that is no class (an untargeted attack has none), and where it cannot be written."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, label, target in zip(ids, labels, targets, strict=True):
        if not 0 <= target < len(classes):
            raise UserError(f"{name} has the target {int(target)}, which is none of the {len(classes)} classes.")
        writer.writerow((name, int(label), int(target), classes[target]))
    write_atomic(path, text.getvalue().encode())


def read_targets(path: Path, dataset: Dataset) -> dict[str, int]:
    """Target class by example id, for the rows of a CSV file that belong to the data; others do not matter.

    Args:
      path: columns `example_id` (or the end of a path, as in `select_ids`) and `target`: a class number, or a name that is
        not a number. Where there are columns `label` and `target_name` too, they must agree with the data, so that a file
        of another order of classes is noticed (X17).
    Raises:
      UserError: no such file or columns; a target that is no class or is the true one (X4); rows that contradict the data
        or each other; no row that belongs to the data. The sentence gives the line."""
    reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in ("example_id", "target") if name not in header]
        if missing:
            raise UserError(f"{path} has no column '{missing[0]}': its first line is {quoted([','.join(header)])}.")
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file ({error}).") from None
    finder, numbers = Finder(dataset), {name: number for number, name in enumerate(dataset.classes)}
    targets: dict[str, int] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        if None in row or None in row.values():
            raise UserError(f"{where}: it has another number of cells than the first line.")
        cells = {name: text.strip() for name, text in row.items()}
        try:
            position = finder.find(cells["example_id"])
        except LookupError:
            raise UserError(
                f"{where}: {quoted([cells['example_id']])} fits several examples of {dataset.source}."
            ) from None
        if position is None:
            continue
        name, target = dataset.ids[position], _number(cells["target"], numbers, dataset, where)
        _check_row(cells, target, int(dataset.labels[position]), numbers, dataset, where)
        if targets.setdefault(name, target) != target:
            raise UserError(f"{where}: {name} has the target {targets[name]} in an earlier line, and {target} here.")
    if not targets:
        raise UserError(
            f"{path} has {len(rows)} rows, but none for the examples of {dataset.source} ({dataset.split})."
        )
    return targets


def _check_row(
    cells: dict[str, str], target: int, label: int, numbers: dict[str, int], dataset: Dataset, where: str
) -> None:
    """UserError where the row says something else than the data."""
    if target == label:
        raise UserError(f"{where}: the target of {cells['example_id']} is its true class, {label}.")
    if cells.get("label") and _number(cells["label"], numbers, dataset, where) != label:
        raise UserError(
            f"{where}: the true class of {cells['example_id']} is {label} ('{dataset.classes[label]}') in {dataset.source}, "
            f"not {cells['label']}: the file counts the classes otherwise."
        )
    if cells.get("target_name", "") not in ("", dataset.classes[target].strip()):
        raise UserError(
            f"{where}: class {target} is '{dataset.classes[target]}' in {dataset.source}, not '{cells['target_name']}': "
            "the file counts the classes otherwise."
        )


def _number(text: str, numbers: dict[str, int], dataset: Dataset, where: str) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        number = int(text)
    elif text in numbers:
        return numbers[text]
    else:
        raise UserError(f"{where}: {dataset.source} has no class {quoted([text])}.")
    if not 0 <= number < len(numbers):
        raise UserError(
            f"{where}: {number} is no class number of {dataset.source}: they go from 0 to {len(numbers) - 1}."
        )
    return number
