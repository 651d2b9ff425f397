"""What a file of weights holds, whatever its suffix says: safetensors, shards, a Hub folder, or what `torch.save` wrote.

Nothing of the file is run. What cannot be read is refused as what it is.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from s3ta.errors import UserError
from s3ta.external_code_errors import is_out_of_memory
from s3ta.files import read_json
from s3ta.models.pretrained import read_tensors
from s3ta.models.safe_pickle import ForbiddenError, Stored, walk
from s3ta.models.torch_file import is_larger_than_file, is_plain_pickle, read_inert, read_plain_pickle, read_with_torch

INDEX = ".index.json"
IN_FOLDERS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""Names of weights in a folder of the Hub, the first that is there being taken."""
_FOREIGN = (
    (rb"\x89HDF", "an HDF5 file, such as Keras writes"),
    (rb"GGUF", "a GGUF file"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "compressed: unpack it"),
    (rb"\x08[\x03-\x0d]\x12", "an ONNX file"),
    (rb"(?s).{257}ustar", "a tar archive: unpack it; if an old torch wrote it, load it there and save it again"),
)
"""How files of other kinds begin."""


class Source(NamedTuple):
    """Which file of weights a person means."""

    path: Path
    key: str | None
    """Of the entry in it; None: choose."""
    label: str
    """The file as results name it; of one that was found in a folder, with the name of that."""
    stem: str
    """For names of models and folders."""


def split_key(weights: str) -> Source:
    """`FILE` or `FILE#KEY`, or a folder of the Hub, for the file of weights that is in it.

    Raises UserError where there is no such file."""
    path, key = Path(weights).expanduser(), None
    if not path.exists() and "#" in weights:
        path, key = Path(weights.rpartition("#")[0]).expanduser(), weights.rpartition("#")[2]
    _refuse_parts_of_training(path)
    if path.is_file():
        return Source(path, key, path.name, path.stem)
    inside = next((path / name for name in IN_FOLDERS if (path / name).is_file()), None)
    if inside is not None:
        folder = path.resolve().name
        return Source(inside, key, f"{folder}/{inside.name}", folder)
    what = f"is a folder without {IN_FOLDERS[0]}" if path.is_dir() else "does not exist"
    raise UserError(
        f"{path} {what}. Weights are a file (safetensors, or a state dict of torch.save), a folder of the Hub, pretrained, "
        "or random."
    )


def _refuse_parts_of_training(path: Path) -> None:
    """UserError where weights lie in the parts that several processes wrote, with the command that makes one file of them."""
    folder = path.parent if path.suffix == ".distcp" else path
    if not folder.is_dir() or any((folder / name).is_file() for name in IN_FOLDERS):
        return
    if (folder / ".metadata").is_file() and (path != folder or any(folder.glob("*.distcp"))):
        raise UserError(
            f"{path} is of torch.distributed.checkpoint, in parts. Make one file of them, and give that: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} model.pt"
        )
    if any(folder.glob("*mp_rank_*")) or ((folder / "latest").is_file() and any(folder.glob("*/*mp_rank_*"))):
        top = folder.parent if (folder.parent / "latest").is_file() else folder
        raise UserError(
            f"{path} is of DeepSpeed, in parts. Make one file of them, and give that: "
            f"python {top}/zero_to_fp32.py {top} weights (the script was saved with them, and comes with DeepSpeed)"
        )


def read_state(path: Path, ignored: tuple[str, ...] = (), label: str | None = None) -> Stored:
    """What a file of weights holds, without the entries that the patterns name. Runs nothing of the file.

    Args:
      ignored: patterns such as `criterion.*` of names of entries or of weights; what lies inside goes with them.
      label: the file in sentences that are recorded; None: its name.
    Raises UserError: a file that is none of weights, damaged, or asks to run code; a pattern that nothing fits."""
    with sound(path):
        if path.name.endswith(INDEX):
            stored = Stored(_read_shards(path), [], [])
        elif _is_safetensors(path, _head(path)):
            stored = Stored(read_tensors(path), [], [])
        else:
            stored = _read_torch(path)
        left_out = _take_out(stored.value, ignored, label or path.name)
        harmless = {id(item) for part in left_out for _, item in walk(part)}
        unread = [item for item in stored.unknown if id(item) not in harmless]
        leading = next((step.names() for step, item in walk(stored.value) if item is unread[0]), []) if unread else []
    if unread:
        where = f" in {leading[0]!r}" if leading else ""
        advice = f", or leave that out with --ignore-keys {leading[0]!r}" if leading else ""
        raise UserError(
            f"{path} holds more than tensors ({unread[0].name}{where}), and to read that is to run what the file asks for, so "
            f"it is not done here: where you trust it, save only its state_dict(), with torch.save or as safetensors{advice}."
        )
    return stored._replace(unknown=[])


def objects_note(names: list[str], taken: set[str], file: str) -> list[str]:
    """A sentence on the objects of a file, by the names in its pickle, that are not among those of which weights were made."""
    helpers = ("._reconstruct", "._frombuffer", "._reconstructor", "numpy.dtype") if taken else ()
    known = ("torch.", "collections.", "_codecs.", "builtins.")
    objects = [
        name for name in names if not name.startswith(known) and name not in taken and not name.endswith(helpers)
    ]
    if not objects:
        return []
    more = f" and {len(objects) - 3} more" if len(objects) > 3 else ""
    return [f"{file} also holds Python objects ({', '.join(objects[:3])}{more}), of which nothing was loaded."]


def _take_out(value: Any, patterns: tuple[str, ...], file: str) -> list[Any]:
    """What the patterns name in the mappings of a value, taken out of these."""
    taken: list[Any] = []
    used: set[str] = set()
    for path, part in walk(value, lambda part: part.items() if isinstance(part, dict) else ()) if patterns else ():
        for key in list(part) if isinstance(part, dict) else ():
            steps = path.below(str(key)).names()
            names = [".".join(steps[start:]) for start in range(len(steps))]
            fitting = [pattern for pattern in patterns if any(_fits(name, pattern) for name in names)]
            used.update(fitting)
            if fitting:
                taken.append(part.pop(key))
    if idle := [pattern for pattern in patterns if pattern not in used]:
        raise UserError(f"--ignore-keys '{idle[0]}' fits nothing in {file}: leave it out, or name what is there.")
    return taken


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


# --- files of one kind --------------------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    """The first bytes. Raises UserError where they show that these are no weights."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    text = head.lstrip().lower()
    if not text:
        raise UserError(f"{path} is empty: fetch it again.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")) or (text.startswith(b"<") and b"<html" in text):
        raise UserError(f"{path} is a web page, not weights: fetch the file itself, by hand if need be.")
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from.")
    return head


def _is_safetensors(path: Path, head: bytes) -> bool:
    """By content: eight bytes of length, then as much JSON. What is called so and is nothing else counts, too."""
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return True
    return path.suffix.lower() == ".safetensors" and not head.startswith((b"PK", b"\x80"))


def _read_torch(path: Path) -> Stored:
    if zipfile.is_zipfile(path):
        _refuse_other_archives(path)
    if is_plain_pickle(_head(path)):
        return read_plain_pickle(path)
    try:
        return Stored(read_with_torch(path), [], [])
    except Exception as error:  # torch raises many kinds for a file that it does not read
        if is_out_of_memory(error):
            raise
    return read_inert(path)


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Around what reads values of a file that anybody may have made: whatever it raises is one sentence, a UserError."""
    try:
        yield
    except UserError:
        raise
    except ForbiddenError as error:
        raise UserError(
            f"{path} asks to run {error}, which no file of weights has a reason to: nothing of it was run; do not use it."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes of zipfile, struct and torch
        if is_out_of_memory(error):
            raise UserError(
                f"There is not enough memory to read {path} ({path.stat().st_size / 1e9:.2g} GB): close other programs, or "
                "use a machine with more."
            ) from None
        with path.open("rb") as file:
            head = file.read(300)
        if kind := next((kind for start, kind in _FOREIGN if re.match(start, head)), None):
            raise UserError(f"{path} is {kind}. Safetensors and state dicts of torch.save are read.") from None
        raise UserError(
            f"{path} is damaged, or not a file of weights: safetensors and state dicts of torch.save are read."
        ) from None


def _refuse_other_archives(path: Path) -> None:
    """UserError for a zip archive that is sound and holds no weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
            is_larger = is_larger_than_file(archive, path.stat().st_size)
    except (zipfile.BadZipFile, OSError):
        return
    if "constants.pkl" in names:
        raise UserError(f"{path} is a TorchScript program, not weights: save its state_dict() instead.")
    if any(name.endswith(("serialized_exported_program.json", "archive_format")) for name in names):
        raise UserError(f"{path} is an exported program of torch.export, not weights: save its state_dict() instead.")
    if "data.pkl" not in names:
        shown = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"{path} is a zip archive that torch.save did not write (it holds {shown}): give a file of weights."
        )
    if is_larger:
        raise UserError(
            f"{path} is a compressed archive, or one that unpacks to more than it has: torch.save writes none, and none is "
            "read. Where you trust it, load it with torch and save its state_dict() again."
        )


# --- several files ------------------------------------------------------------------------------------------------


def _read_shards(index: Path) -> dict[str, Any]:
    """All tensors of the files that an index lists, each of which lies beside it."""
    listed = read_json(index)
    files = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(files, dict) or not files or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{index} is no index of shards: it has no weight_map from names to files.")
    names = sorted(set(files.values()))
    for name in names:
        if name in ("", ".", "..") or name.endswith(INDEX) or any(sign in name for sign in "/\\:\0"):
            what = "is an index itself" if name.endswith(INDEX) else "does not lie beside it"
            raise UserError(f"{index} names '{name}', which {what}: such an index is not followed.")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        raise UserError(
            f"{index} names {len(names)} files, of which {len(missing)} are missing, first {missing[0]}: fetch them, too."
        )
    tensors: dict[str, Any] = {}
    for name in names:
        part = read_state(index.parent / name).value
        if not isinstance(part, dict):
            raise UserError(f"{index.parent / name} holds no tensors by name: it is no shard.")
        if twice := sorted(tensors.keys() & part.keys()):
            raise UserError(f"{name} holds '{twice[0]}', and so does another file of {index.name}: keep one of them.")
        tensors |= part
    if lacking := sorted(files.keys() - tensors.keys()):
        raise UserError(
            f"{index} says that {files[lacking[0]]} holds '{lacking[0]}', which is not there: fetch it again."
        )
    return tensors
