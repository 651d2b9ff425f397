"""Image files in a folder as a data set: read when asked for, and each looked over once before it is measured."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from s3ta.data.augment import WHOLE, Augment, augmented_picture, augmented_pixels, check_augment
from s3ta.data.config import DataConfig
from s3ta.data.dataset import Dataset, UnreadableError
from s3ta.data.folder_layout import Part, part_of, refuse_no_folder
from s3ta.data.folder_listing import FileFacts, ids_of, normalize_name, on_one_line
from s3ta.data.image_files import decoded, load_image, looked_over, why_unreadable
from s3ta.data.preprocessing import DEFAULT, described
from s3ta.errors import UserError
from s3ta.files import sha256


class FolderDataset(Dataset):
    """The images of one part of a data folder."""

    reads_files = True

    def __init__(self, config: DataConfig, split: str, base: Path, part: Part) -> None:
        """Ids are paths from `base`, such as val/CLASS/FILE, so that an id names one picture over all splits."""
        self._how = config.preprocessing or DEFAULT
        size = size_of_files(config)
        self.source, self.split, self.classes = normalize_name(config.source), split, list(part.images)
        self.left_out, self.note = part.left_out, part.note
        self.facts: dict[int, FileFacts] = {}
        """What `problem` saw of the files that can be read, by position."""
        self._base, self._skip = base, config.on_unreadable == "skip"
        self._augment: Augment = config.augment
        files = [image for images in part.images.values() for image in images]
        counts = [len(images) for images in part.images.values()]
        self.ids: Sequence[str] = ids_of([image.path for image in files])
        self.labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self._spelled = {
            index: image.path for index, image in enumerate(files) if image.path != self.ids[index]
        }  # by the file system, where it differs from the id
        self.shape = (config.channels or 3, size, size)
        check_augment(config.augment, config.source, self.shape)
        self.preprocessing = described(self._how, size)
        pixels_by = "" if self.preprocessing == described(DEFAULT, size) else f"{sorted(self.preprocessing.items())}\n"
        sizes = ("gone" if image.size is None else image.size for image in files)
        listing = "".join(f"{name}:{size}\n" for name, size in zip(self.ids, sizes, strict=True)).encode()
        self.fingerprint = sha256(f"{self.shape}\n{pixels_by}".encode() + listing)
        self.content = sha256(listing)

    def image(self, index: int, draw: tuple[int, int] | None = None) -> UInt8[np.ndarray, "C H W"]:
        """As `Dataset.image`. Raises UnreadableError for a file that cannot be read, named by its id."""
        channels, size, _ = self.shape
        path, name = self._path(index), self.ids[index]
        try:
            if draw is not None and self._augment in WHOLE:
                return augmented_picture(decoded(path, size, channels, self._how), size, self._augment, name, draw)
            pixels = load_image(path, size, channels, self._how)
        except UserError as error:
            unreadable = UnreadableError(self._by_id(error, index))
            unreadable.skip = self._skip
            raise unreadable from None
        return augmented_pixels(pixels, self._augment, name, draw)

    def problem(self, index: int) -> str | None:
        """Why this file cannot be read, named by its id; None where it can. What else is seen of it is kept in `facts`."""
        path = self._path(index)
        try:
            content, modified = _read(path)
            _, is_transparent = looked_over(path, io.BytesIO(content), self.shape[1], self.shape[0], self._how)
            self.facts[index] = FileFacts(len(content), modified, sha256(content), is_transparent)
        except UserError as error:
            return self._by_id(error, index)
        return None

    def _path(self, index: int) -> Path:
        return self._base / self._spelled.get(index, self.ids[index])

    def _by_id(self, error: UserError, index: int) -> str:
        return str(error).replace(on_one_line(self._path(index)), on_one_line(self.ids[index]), 1)


def _read(path: Path) -> tuple[bytes, str]:
    """A file's bytes, and when it was changed (UTC, to the second). Raises UserError that begins with the path."""
    try:
        modified = datetime.fromtimestamp(int(path.stat().st_mtime), UTC).isoformat()
        return path.read_bytes(), modified
    except OSError as error:
        raise UserError(f"{on_one_line(path)} {why_unreadable(error, path)}.") from None


def open_folder(config: DataConfig, split: str, base: Path) -> Dataset:
    """The train or test part of a data folder. Raises UserError as `folder_layout.part_of`, and for sizes that do not fit."""
    refuse_no_folder(base)
    size_of_files(config)
    return FolderDataset(config, split, base, part_of(base, split))


def file_facts(dataset: Dataset, positions: Sequence[int]) -> dict[str, FileFacts]:
    """What was seen of these examples' files when they were looked over (`example_selection.find_unreadable`), by id."""
    folder, numbers = dataset.innermost()
    facts = folder.facts if isinstance(folder, FolderDataset) else {}
    return {dataset.ids[position]: facts[numbers[position]] for position in positions if numbers[position] in facts}


def folder_summary(dataset: Dataset) -> str:
    """One line on what was not used and how the part was found; empty where everything is as expected, and for arrays."""
    folder, _ = dataset.innermost()
    if not isinstance(folder, FolderDataset):
        return ""
    sentence = folder.left_out.sentence()
    are = " is" if len(folder.ids) == 1 else "s are"
    parts = [folder.note, f"{len(folder.ids)} image{are} used, left out: {sentence}" if sentence else ""]
    line = ". ".join(filter(None, parts))
    return f"{folder.source} ({folder.split}): {line}." if line else ""


def size_of_files(config: DataConfig) -> int:
    """Height and width that files get. Raises UserError where none is known, or two."""
    how = config.preprocessing or DEFAULT
    size = config.image_size or how.image_size
    if size is None:
        raise UserError(f"{config.source} needs a size for its images: set data.image_size.")
    if how.image_size not in (None, size):
        raise UserError(
            f"The preprocessing {described(how, how.image_size or size)['name']} gives {how.image_size} px, but {size} px "
            "are asked for: choose another data.preprocessing."
        )
    if how.resize is not None and how.resize < size:
        raise UserError(
            f"A cut of {size} px does not fit a shorter side of {how.resize} px: set data.preprocessing.resize to {size} "
            "or more."
        )
    return size
