"""Which examples: ids that a person lists, and image files that cannot be read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from s3ta.data.dataset import Dataset
from s3ta.data.folder_layout import TEST_FOLDERS
from s3ta.data.folder_listing import is_image, normalize_name, quoted
from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.progress import Reporter

_AMBIGUOUS = -1
_HEADERS = {"example_id", "id", "image", "image_id", "path", "file", "filename"}


class Finder:
    """Positions of examples by id, or by the end of a path that only one id has; accents may be composed or not."""

    def __init__(self, dataset: Dataset) -> None:
        self._full = {name: position for position, name in enumerate(dataset.ids)}
        self._endings: dict[str, int] = {}
        for position, name in enumerate(dataset.ids):
            parts = name.split("/")
            endings = ["/".join(parts[first:]) for first in range(1, len(parts))]
            for ending in [*endings, *([name.strip()] if name != name.strip() else [])]:  # cells of a table lose blanks
                self._endings[ending] = _AMBIGUOUS if ending in self._endings else position

    def find(self, name: str) -> int | None:
        """The position of an id; None where no example has it. Raises LookupError where several examples end so."""
        position = self._full.get(name)
        spellings = [name, name.replace("\\", "/")]
        if not name.isascii():
            spellings += [normalize_name(spelling) for spelling in spellings]
        for spelling in spellings:
            first, slash, rest = spelling.removeprefix("./").partition("/")
            for ending in (first + slash + rest, rest if first in TEST_FOLDERS else ""):
                if position is None:
                    position = self._full.get(ending, self._endings.get(ending))
        if position == _AMBIGUOUS:
            raise LookupError(name)
        return position


def positions_of_ids(dataset: Dataset, names: Sequence[str]) -> list[int]:
    """The positions of the named examples, in the order of the names.

    Names are full ids, or ends of paths that are unique: `n01440764/x.JPEG` or `x.JPEG` for `val/n01440764/x.JPEG`. Raises
    UserError for no names, and for names that are unknown, that fit several examples, or that mean an example twice."""
    if not names:
        raise UserError("No example ids are given.")
    finder = Finder(dataset)
    positions: dict[int, str] = {}
    unknown, ambiguous, repeated = [], [], []
    for name in names:
        try:
            position = finder.find(name)
        except LookupError:
            ambiguous.append(name)
            continue
        if position is None:
            unknown.append(name)
        elif position in positions:
            repeated.append(name)
        else:
            positions[position] = name
    where = f"{dataset.source} ({dataset.split})"
    for wrong, what in (
        (unknown, f"are not in {where}, whose ids look like {quoted(dataset.ids[:1])}{foreign_form(unknown)}"),
        (ambiguous, f"fit several examples of {where}: write more of the path"),
        (repeated, "mean an example that is listed already"),
    ):
        if wrong:
            raise UserError(f"{len(wrong)} of {len(names)} example ids {what}: {quoted(wrong)}.")
    return list(positions)


def foreign_form(lines: Sequence[str]) -> str:
    """What a line that was not understood seems to be, as the end of a sentence; empty where nothing shows it."""
    line = lines[0] if lines else ""
    if line.startswith(("[", "{")):
        return "; this seems to be JSON, not text with one id per line"
    for separator, name in ((";", "';'"), ("\t", "tabs")):
        if separator in line:
            return f"; cells seem to be separated by {name}: use commas"
    if line.startswith(("/", "\\\\", "~")) or line[1:3] in (":\\", ":/"):
        return "; these are absolute paths: give names relative to the data folder"
    return ""


def read_ids(path: Path) -> list[str]:
    """The example ids of a text file, one per line; empty lines and lines that begin with # do not count.

    Of a CSV row the first column counts (its header may be there), of `PATH LABEL` the path; RobustBench's lists
    (`CLASS/FILE`) are read as they are. Raises UserError where the file is missing, not UTF-8 text, or names nothing."""
    names = []
    for text in _rows(read_text(path)):
        try:
            name = _first_cell(text)
        except csv.Error as error:
            raise UserError(f"{path} is not a list of example ids ({error}).") from None
        if not names and name.lower() in _HEADERS and (name != text or name == "example_id"):
            continue
        names.append(name)
    if not names:
        raise UserError(f"{path} names no examples: it must hold one id per line.")
    return names


def write_ids(path: Path, ids: Sequence[str]) -> None:
    """Write ids as `read_ids` reads them: one per line, in quotes where it could be misread or holds a line break."""
    unclear = re.compile(r'[,"\r\n]|^#|^\s|\s\Z')
    lines = ['"' + name.replace('"', '""') + '"' if unclear.search(name) else name for name in ids]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


_ROW = re.compile(r'(?:[^\S\r\n]*("(?:[^"]|"")*")(?=[^\S\r\n]*(?:[,\r\n]|\Z)))?[^\r\n]*(?:\r\n|\r|\n|\Z)')
"""A line, which goes on where a cell in quotes at its beginning holds line breaks."""


def _rows(text: str) -> Iterator[str]:
    """The lines of a list that say something. A first cell in quotes is kept to the letter."""
    for row in _ROW.finditer(text):
        line = row[0].strip()
        if row[1] is not None:
            yield row[1]
        elif line and not line.startswith("#"):
            yield line


def _first_cell(text: str) -> str:
    """What a line says before a comma or a label; a comma inside a file's name does not count."""
    if text.startswith('"'):
        return next(csv.reader(io.StringIO(text, newline="")))[0]
    cell, comma, _ = text.partition(",")
    if comma and (is_image(cell.strip()) or not is_image(text)):
        return cell.strip()
    labelled = re.fullmatch(r"(.*\S)\s+[0-9]+", text)
    return labelled[1] if labelled and is_image(labelled[1]) else text


def read_text(path: Path) -> str:
    """A text file, its ends of lines as they are, a byte order mark taken away. Raises UserError where it is none."""
    try:
        with path.open("rb") as file:
            content = file.read(4096)
            if b"\0" not in content:
                content += file.read()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a text file.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({type(error).__name__}).") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path} is not a text file in UTF-8.")
    return text


def find_unreadable(dataset: Dataset, positions: Sequence[int], report: Reporter) -> list[tuple[int, str]]:
    """Decode every chosen image file once, one after the other, keeping none.

    Returns (position, why) of each that fails; the sentence begins with its id. Arrays have none."""
    if not dataset.reads_files:
        report(len(positions))
        return []
    failures = []
    for done, position in enumerate(positions, 1):
        if problem := dataset.problem(int(position)):
            failures.append((int(position), problem))
        report(done, f"{len(failures)} unreadable" if failures else "")
    return failures


def unreadable_error(failures: Sequence[tuple[int, str]], num_examples: int) -> UserError:
    """The sentence for a run that stops at what `find_unreadable` gave: the count, and the first."""
    return UserError(
        f"{len(failures)} of {num_examples} images cannot be used, the first: {failures[0][1].removesuffix('.')}. "
        "Repair or leave out these files, or go on without them: --on-unreadable skip."
    )
