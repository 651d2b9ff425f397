"""Targets of targeted attacks as a CSV file: to attack another tool's targets, or to give it ours."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from s3ta.data.dataset import Dataset
from s3ta.data.example_selection import Finder, foreign_form, read_text
from s3ta.data.folder_listing import normalize_name, quoted
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


def read_targets(path: Path, dataset: Dataset, say: Callable[[str], None] | None = None) -> dict[str, int]:
    """Target class by example id, for the rows of a CSV file that belong to the data; others do not matter.

    A number that is the name of a class means that class, else it is a class number, from 0. Where a file can be read both
    ways, its columns `label` and `target_name` decide, if it has them and they contradict the names.

    Args:
      path: columns `example_id` (or the end of a path, as in `positions_of_ids`) and `target`: a class by name or number. Where
        there are columns `label` and `target_name` too, they must agree with the data, so that a file of another order of
        classes is noticed (X17).
      say: is told which reading was taken where both were possible.
    Raises:
      UserError: no such file or columns; a target that is no class or is the true one (X4); rows that contradict the data
        or each other; no row that belongs to the data. The sentence gives the line."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in ("example_id", "target") if name not in header]
        if missing:
            raise UserError(
                f"{path} has no column '{missing[0]}': its first line is {quoted([','.join(header)])}{foreign_form(header)}."
            )
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV file ({error}).") from None
    finder = Finder(dataset)
    by_name = _Reading(dataset, {name: number for number, name in enumerate(dataset.classes)})
    try:
        targets, reading = by_name.targets(path, rows, finder), "names of classes"
    except _OtherOrderError as contradiction:
        if not _are_ambiguous(dataset.classes):
            raise
        try:
            targets = _Reading(dataset, {}).targets(path, rows, finder)
        except UserError:
            raise contradiction from None
        reading = "class numbers, from 0, as its other columns show"
    if say is not None and _are_ambiguous(dataset.classes):
        say(f"The classes of {dataset.source} have numbers as names; those in {path} are taken as {reading}.")
    return targets


class _OtherOrderError(UserError):
    """A row whose other columns contradict its reading."""


def _are_ambiguous(classes: Sequence[str]) -> bool:
    """Whether a number may mean one class by its name and another by its place."""
    return any(
        name.isdecimal() and int(name) < len(classes) and int(name) != number for number, name in enumerate(classes)
    )


class _Reading(NamedTuple):
    """One way to take what a file of targets calls classes."""

    dataset: Dataset
    names: dict[str, int]
    """Those that count before numbers."""

    def targets(self, path: Path, rows: list[tuple[int, dict[str, str]]], finder: Finder) -> dict[str, int]:
        dataset = self.dataset
        targets: dict[str, int] = {}
        for line, row in rows:
            where = f"{path}, line {line}"
            if None in row or None in row.values():
                raise UserError(f"{where}: it has another number of cells than the first line.")
            cells = {name: text.strip() for name, text in row.items()}
            try:
                position = finder.find(row["example_id"])
                position = finder.find(cells["example_id"]) if position is None else position
            except LookupError:
                raise UserError(
                    f"{where}: {quoted([cells['example_id']])} fits several examples of {dataset.source}."
                ) from None
            if position is None:
                continue
            name, target = dataset.ids[position], self.number(cells["target"], where)
            self.check(cells, target, int(dataset.labels[position]), where)
            if targets.setdefault(name, target) != target:
                raise UserError(
                    f"{where}: {name} has the target {targets[name]} in an earlier line, and {target} here."
                )
        if not targets:
            raise UserError(
                f"{path} has {len(rows)} rows, but none for the examples of {dataset.source} ({dataset.split})"
                f"{foreign_form([row['example_id'] for _, row in rows[:1]])}."
            )
        return targets

    def check(self, cells: dict[str, str], target: int, label: int, where: str) -> None:
        """UserError where the row says something else than the data."""
        source, classes, example = self.dataset.source, self.dataset.classes, cells["example_id"]
        if cells.get("label") and self.number(cells["label"], where) != label:
            raise _OtherOrderError(
                f"{where}: the true class of {example} is {label} ('{classes[label]}') in {source}, not {cells['label']}: "
                "the file counts the classes otherwise."
            )
        if normalize_name(cells.get("target_name", "")) not in ("", classes[target].strip()):
            raise _OtherOrderError(
                f"{where}: class {target} is '{classes[target]}' in {source}, not '{cells['target_name']}': the file counts "
                "the classes otherwise."
            )
        if target == label:
            raise UserError(f"{where}: the target of {example} is its true class, {label}.")

    def number(self, text: str, where: str) -> int:
        """A class by its name, else by its number."""
        source, classes = self.dataset.source, self.dataset.classes
        number = self.names.get(text, self.names.get(normalize_name(text)))
        if number is not None:
            return number
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            if text in classes:
                return list(classes).index(text)
            raise UserError(f"{where}: {source} has no class {quoted([text])}.")
        if not 0 <= int(text) < len(classes):
            raise UserError(
                f"{where}: {int(text)} is no class number of {source}: they go from 0 to {len(classes) - 1}."
            )
        return int(text)
