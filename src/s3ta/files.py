"""Files that are either whole or absent: atomic writes, JSON, and hashes of content."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from s3ta.errors import UserError

try:
    import fcntl
except ImportError:  # not on Windows, where two processes on one folder are not noticed
    fcntl = None

LOCK = ".lock"

_FULL = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file size limit is reached",
}
_DENIED = {
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission is denied",
    errno.EEXIST: "a file is in the way",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EPERM: "the operation is not permitted",
}


class UnwritableError(UserError):
    """A file or folder cannot be written: the disk is full or read-only, or permission is denied."""


@contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an UnwritableError that names the file; other errors pass."""
    try:
        yield
    except OSError as error:
        reason = (_FULL | _DENIED).get(error.errno or 0)
        if reason is None:
            raise
        advice = "Free some space" if error.errno in _FULL else "Choose a folder that you may write to"
        raise UnwritableError(
            f"Cannot write {path}: {reason}. {advice} and run the same command again; what was finished is kept."
        ) from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside the target, flush to the disk, then rename: a kill leaves the old file or the new, never a torn one.

    Raises UserError where the disk is full or read-only; the old file is then still there."""
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def check_space(folder: Path, needed: int) -> None:
    """Raises UserError where the disk that the folder is, or will be, on has fewer free bytes than needed."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{folder} needs about {needed / 1e9:.2g} GB, but the disk has {free / 1e9:.2g} GB free: free some space, or "
            "choose a folder on another disk."
        )


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
    """Parsed JSON. Raises UserError naming the file where it is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except ValueError:
        raise UserError(f"{path} is damaged: it does not hold JSON.") from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file; a torn last line (killed while writing) is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = []
    with suppress(ValueError):
        for line in lines:
            records.append(json.loads(line))
    return [record for record in records if isinstance(record, dict)]


def append_lines(path: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records to a JSON-lines file."""
    with readable_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


@contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes; the hold ends with this process, however it ends. Raises UserError where another
    one holds it, or a part of it."""
    with _held(folder, LOCK, shared=False, message=f"Another process is at work on {folder}"):
        yield


@contextmanager
def part_use(folder: Path, part: str) -> Iterator[None]:
    """Hold one part of the folder's work (such as `1-of-2`) against others; other parts may be worked on meanwhile. Raises
    UserError where another process holds the same part, or the whole folder."""
    whole = _held(folder, LOCK, shared=True, message=f"Another process is at work on all of {folder}")
    message = f"Another process is at work on part {part} of {folder}"
    with whole, _held(folder, f"{LOCK}-{part}", shared=False, message=message):
        yield


@contextmanager
def _held(folder: Path, name: str, *, shared: bool, message: str) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    with readable_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / name).open("wb")
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{message}: wait for it, or choose another folder.") from None
        yield


def in_use(folder: Path) -> bool:
    """Whether another process holds the folder."""
    if not (folder / LOCK).exists():
        return False
    try:
        with sole_use(folder):
            return False
    except UserError:
        return True


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises UserError where a file is in the way or writing is not allowed."""
    with readable_errors(path):
        path.mkdir(parents=True, exist_ok=True)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a compressed `.npz`, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def read_arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The named arrays of an `.npz` (None: all), nothing unpickled. Raises UserError where it is damaged or lacks one."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}
    except Exception as error:  # noqa: BLE001 - numpy raises many kinds for a damaged archive
        kind = type(error).__name__
        raise UserError(f"{path} is damaged ({kind}): remove it and run the same command again.") from None


def sha256(*parts: bytes) -> str:
    """Sixteen hexadecimal digits that identify the content."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:16]
