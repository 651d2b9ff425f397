"""What lies in a data folder. Every entry is an image that is used, or is left out for a reason that is counted.

Links to folders are followed, as by torchvision's `ImageFolder` (`os.walk` with `followlinks`), but not in circles."""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from s3ta.errors import UserError

SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".jfif", ".jpe", ".mpo", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    *(".apng", ".dib", ".pbm", ".pnm", ".tga", ".pcx", ".sgi", ".qoi"),
}
"""Of pictures that Pillow reads. A fixed list, so that the same files are used whatever this machine's Pillow can read."""

_SYSTEM = {"__macosx", "@eadir", "thumbs.db", ".ds_store", "desktop.ini", "$recycle.bin", "system volume information"}
_SYSTEM |= {"lost+found", ".thumbnails", ".spotlight-v100", ".trashes", ".fseventsd"}

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar", ".gz")

Reason = Literal["hidden", "system", "suffix", "beside", "beside the splits", "unlabelled", "link", "circle", "special"]
_WORDS: dict[Reason, tuple[str, str]] = {
    "hidden": ("hidden file", "hidden files"),
    "system": ("thumbnail or resource fork", "thumbnails and resource forks"),
    "suffix": ("file of a kind that is not read", "files of kinds that are not read"),
    "beside": ("image beside the class folders", "images beside the class folders"),
    "beside the splits": ("entry beside the splits", "entries beside the splits"),
    "unlabelled": ("image without a label", "images without a label"),
    "link": ("link that leads nowhere", "links that lead nowhere"),
    "circle": ("link that leads round in a circle", "links that lead round in a circle"),
    "special": ("entry that is neither file nor folder", "entries that are neither files nor folders"),
}


class ImageFile(NamedTuple):
    """A file that is used."""

    path: str
    """From the folder of the data, with `/` between, as the file system spells it."""
    size: int | None
    """In bytes; None where it is gone, or where its link leads nowhere: it is then one of those that cannot be read."""


class LeftOut:
    """The entries of a folder that are not used: how many for which reason, and the first three of each."""

    def __init__(self) -> None:
        self.counts: Counter[Reason] = Counter()
        self.first: dict[Reason, list[str]] = {}
        self.suffixes: Counter[str] = Counter()
        """Of the files of kinds that are not read."""
        self.empty: list[str] = []
        """Classes without any image."""
        self.walked: dict[tuple[int, int], list[str]] = {}
        """Folders that were walked, by what makes them the same one: more than one path where links lead there."""

    def add(self, reason: Reason, path: str, count: int = 1) -> None:
        """Count an entry, or a folder with this many files."""
        self.counts[reason] += count
        if len(names := self.first.setdefault(reason, [])) < 3:
            names.append(normalize_name(path))
        if reason == "suffix":
            self.suffixes[suffix_of(path) or "no suffix"] += count

    def as_json(self) -> dict[str, Any]:
        """What a manifest says: `count` and `first` by reason; nothing where nothing was left out."""
        reasons: dict[str, Any] = {
            reason: {"count": count, "first": self.first[reason]} for reason, count in sorted(self.counts.items())
        }
        return reasons | ({"empty classes": {"count": len(self.empty), "first": self.empty[:3]}} if self.empty else {})

    def sentence(self) -> str:
        """All of it in one line; empty where nothing was left out."""
        parts = []
        for reason, words in _WORDS.items():
            count = self.counts[reason]
            if not count:
                continue
            kinds = ", ".join(f"{suffix} {number}" for suffix, number in self.suffixes.most_common(4))
            which = kinds if reason == "suffix" else quoted(self.first[reason][:1])
            parts.append(f"{count} {words[count != 1]} ({which})")
        if self.empty:
            count = len(self.empty)
            parts.append(f"{count} class{'es' if count > 1 else ''} without any image ({quoted(self.empty)})")
        return "; ".join(parts)


def quoted(names: Sequence[str]) -> str:
    """The first three names, each on one line and not endless."""
    shown = ", ".join(repr(name if len(name) <= 80 else name[:77] + "...") for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def normalize_name(name: str | Path) -> str:
    """A name as ids and results hold it: the same on macOS and Linux, and text whatever its bytes.

    Accents are composed (Unicode's NFC), and a byte that is not UTF-8 is written as `\\xe9`."""
    name = str(name)
    return name if name.isascii() else unicodedata.normalize("NFC", _with_bytes_shown(name))


def _with_bytes_shown(name: str) -> str:
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a lone half of a character, as file names on Windows may hold
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def on_one_line(name: str | Path) -> str:
    """A name as a sentence shows it: as `normalize_name`, and line breaks and the like as `\\n`."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in normalize_name(name)
    )


def suffix_of(path: str) -> str:
    """`.png` of `a/B.PNG`."""
    return PurePosixPath(path).suffix.lower()


def is_image(path: str) -> bool:
    """Whether a file name has the suffix of a picture that is read."""
    return suffix_of(path) in SUFFIXES


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name. Raises UserError where it cannot be read, so that nothing is missing unnoticed."""
    try:
        with os.scandir(folder) as listed:
            return sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise _closed(folder, error) from None


def _closed(folder: str | Path, error: OSError) -> UserError:
    denied = error.errno in (errno.EACCES, errno.EPERM)
    reason = "permission is denied" if denied else (error.strerror or type(error).__name__).lower()
    advice = "allow reading it, or move it out of the data" if denied else "repair it, or move it out of the data"
    return UserError(f"The folder {on_one_line(folder)} cannot be read ({reason}): {advice}.")


Kind = Literal["folder", "file", "gone", "circle", "special"]
REASONS: dict[Kind, Reason] = {"folder": "circle", "circle": "circle", "special": "special", "gone": "link"}
"""Why an entry of this kind is not used, a folder where it is entered already."""


def kind_of(entry: os.DirEntry[str]) -> tuple[Kind, os.stat_result | None]:
    """What an entry is, links followed. `gone`: it cannot be looked at, because it vanished, or its link leads nowhere or
    somewhere closed.

    Raises UserError where the folder that it lies in may be listed but not entered."""
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "circle", None
        if error.errno in (errno.EACCES, errno.EPERM) and not entry.is_symlink():
            raise _closed(os.path.dirname(entry.path), error) from None
        return "gone", None
    if stat.S_ISDIR(status.st_mode):
        return "folder", os.stat(entry.path)  # on Windows an entry does not know its number
    return ("file" if stat.S_ISREG(status.st_mode) else "special"), status


def walk(base: Path, inside: str, left_out: LeftOut) -> list[ImageFile]:
    """All images in the folder `base/inside` at any depth, in the order of their names; what else lies there is counted.

    Raises UserError for a folder in it that cannot be read."""
    todo: list[tuple[str, frozenset[tuple[int, int]]]] = [(inside, frozenset(map(_number, _upwards(base, inside))))]
    images: list[ImageFile] = []
    while todo:
        folder, above = todo.pop()
        left_out.walked.setdefault(_number(os.stat(base / folder)), []).append(folder)
        for entry, path in shown_entries(base, folder, left_out):
            kind, status = kind_of(entry)
            if kind == "folder" and status is not None and _number(status) not in above:
                todo.append((path, above | {_number(status)}))
            elif kind in ("file", "gone") and is_image(entry.name):
                images.append(ImageFile(path, None if status is None else status.st_size))
            else:
                left_out.add(REASONS.get(kind, "suffix"), path)
    return sorted(images, key=lambda image: normalize_name(image.path).split("/"))


def used_twice(images: Mapping[str, Sequence[ImageFile]], left_out: LeftOut) -> str:
    """What to say of images, by class, that lie in a folder which links make walked more than once; empty where none do."""
    again = {folder: paths[0] for paths in left_out.walked.values() if len(paths) > 1 for folder in paths}
    classes: dict[str, set[str]] = {}
    for name in images if again else ():
        for path, _ in images[name]:
            folder, _, file = path.rpartition("/")
            if folder in again:
                classes.setdefault(f"{again[folder]}/{file}", set()).add(name)
    if not classes:
        return ""
    link, first = next((folder, first) for folder, first in again.items() if folder != first)
    under_two = sum(len(names) > 1 for names in classes.values())
    return (
        f"{len(classes)} file{'s are' if len(classes) > 1 else ' is'} used twice, {under_two} of them under two classes: "
        f"{quoted([normalize_name(link)])} is the same folder as {quoted([normalize_name(first)])}"
    )


def _number(status: os.stat_result) -> tuple[int, int]:
    """Device and inode, by which a folder is recognised under another path."""
    return status.st_dev, status.st_ino


def _upwards(base: Path, inside: str) -> list[os.stat_result]:
    """Of the folder and those above it, up to the base."""
    path = base / inside
    return [os.stat(folder) for folder in (path, *path.parents) if folder == base or base in folder.parents]


def leads_up(base: Path, inside: str) -> bool:
    """Whether a folder is one of those that it lies in: a link that leads round in a circle."""
    itself, *parents = map(_number, _upwards(base, inside))
    return itself in parents


def shown_entries(base: Path, inside: str, left_out: LeftOut) -> Iterator[tuple[os.DirEntry[str], str]]:
    """What lies in the folder `base/inside`, with its path from `base`; what is hidden or a system's own is counted, with
    all files in it."""
    for entry in entries(base / inside):
        path = f"{inside}/{entry.name}".removeprefix("/")
        system = entry.name.lower() in _SYSTEM or entry.name.startswith("._")
        if not (system or entry.name.startswith(".")):
            yield entry, path
        else:
            inner = os.walk(entry.path) if entry.is_dir(follow_symlinks=False) else ()
            left_out.add("system" if system else "hidden", path, max(1, sum(len(files) for _, _, files in inner)))


def ids_of(paths: Sequence[str]) -> list[str]:
    """An id for each path: as `normalize_name` has it; of paths that differ only in how accents are composed, as they are.

    Raises UserError where two have one id even so."""
    ids = [normalize_name(path) for path in paths]
    if len(set(ids)) == len(ids):
        return ids
    several = {name for name, count in Counter(ids).items() if count > 1}
    ids = [_with_bytes_shown(path) if name in several else name for path, name in zip(paths, ids, strict=True)]
    if len(set(ids)) < len(ids):
        name = next(name for name, count in Counter(ids).items() if count > 1)
        raise UserError(
            f"Two image files have the same name {name!r} but for bytes that are not UTF-8: rename one of them."
        )
    return ids


class FileFacts(NamedTuple):
    """What was seen of an image file when it was decoded."""

    size: int
    modified: str
    """UTC, to the second."""
    sha256: str
    has_transparency: bool
    """Whether any pixel is not opaque, so that colours show that nobody may have seen."""
