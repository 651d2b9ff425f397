"""The ledger of an evaluation: a manifest that says what is measured, and chunks of records.

```
FOLDER/manifest.json          what was measured: model, data, suite, seed, precision ...
FOLDER/chunk-00000.parquet    the records of the first chunk of examples; the content hash is in the Parquet metadata
```
Every file is whole or absent; resume means doing the missing chunks, and nothing sound is ever overwritten:

    ledger = Ledger.open(folder, manifest)          # a new folder, or one with the same manifest
    for index in ledger.missing():
        ledger.write_chunk(index, evaluate(index))
    table = Ledger.read(folder).table()
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeGuard

import pyarrow as pa
import pyarrow.parquet as pq

from s3ta.errors import UserError
from s3ta.files import read_json, sha256, write_atomic, write_json
from s3ta.records.manifest import DataEntry, Manifest
from s3ta.records.schema import SCHEMA, content_hash, to_table

LEDGER_FORMAT = 3
"""2: records say whether the attack ran (`status`). 3: and how sure the model was (`confidence`); chunks name their
manifest."""
INFORMATIVE = "informative"
"""The manifest's key whose content (versions, hardware) may differ between sessions and is never compared."""
Choice = Literal["drawn", "listed"]
DRAWN: Final[Choice] = "drawn"
LISTED: Final[Choice] = "listed"
"""How the examples were chosen, as `informative.examples` tells it."""

_HASH_KEY, _MANIFEST_KEY = b"s3ta.content", b"s3ta.manifest"
_PROSE = ("suite.description", "model.config.notes")
"""What is run say the settings, and of which weights their hash."""
_ABSENT = object()
"""Stands for a key that is not there; never equal to a JSON value."""
_MOST_CLASSES = 20
_COSTS = ["num_gradients", "num_forwards"]


Reader = Callable[[dict[str, Any]], dict[str, Any]]
"""Reads a manifest through today's configs before it is compared, so that settings that came later have their defaults."""


class ForeignChunkError(UserError):
    """A sound chunk, but of another evaluation."""


class Ledger:
    """The records of one suite on one model, in a folder. Make one with `open` (to write) or `read`."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        identity = {key: value for key, value in manifest.items() if key != INFORMATIVE}
        self.identity = sha256(json.dumps(identity, sort_keys=True).encode())

    @classmethod
    def open(cls, folder: Path, manifest: dict[str, Any], read: Reader = dict) -> Ledger:
        """Create the ledger, or open the one that is there if it measures the same thing.

        Args:
          folder: created with its parents if absent.
          manifest: JSON-like; `format` and `num_chunks` are required; everything but `informative` identifies the
            measurement.
          read: how both manifests are read before they are compared; the file keeps the words it was begun with.

        Raises:
          UserError: the folder holds another measurement (every difference is named by its dotted path, with both
            values), chunks without a manifest, a damaged manifest, or a format that this version does not know."""
        cls.check(folder, manifest, read)
        if not (folder / "manifest.json").exists():
            write_json(folder / "manifest.json", manifest)
        return cls.at(folder, manifest, read)  # another process may have been faster

    @classmethod
    def at(cls, folder: Path, manifest: dict[str, Any], read: Reader = dict) -> Ledger:
        """As `open`, and write nothing: where a manifest is there, its own words bind the chunks, not those of this one."""
        cls.check(folder, manifest, read)
        return cls(folder, _read_manifest(folder) if (folder / "manifest.json").exists() else manifest)

    @classmethod
    def check(cls, folder: Path, manifest: dict[str, Any], read: Reader = dict) -> None:
        """Refuse what `open` refuses, and write nothing. Arguments and errors as there."""
        manifest = json.loads(json.dumps(manifest))
        _check_manifest(manifest, folder)
        if not (folder / "manifest.json").exists():
            has_chunks = next(folder.glob("chunk-*.parquet"), None) is not None
            if has_chunks and not (folder / "manifest.json").exists():  # another process may have begun in between
                raise UserError(
                    f"{folder} holds chunks but no manifest.json, so what they measure is unknown: use another folder."
                )
            return
        there, manifest = read(_read_manifest(folder)), read(manifest)
        order = _other_order(there, manifest)
        changes = [
            f"{where} is {old} there and {new} now"
            for where, old, new in measured_differences(there, manifest)
            if not (order and where.startswith("data.classes."))
        ]
        if order or changes:
            raise UserError(
                f"{folder} already holds another evaluation: {'; '.join([*order, *changes])}. Use another folder, or the "
                "settings of the first."
            )

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """Open an existing ledger for reading; finished or not.

        Raises UserError where folder or manifest are missing, damaged, foreign or of a newer format, or no chunk is there."""
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: run `s3ta evaluate` first.")
        ledger = cls(folder, _read_manifest(folder))
        if not ledger.present():
            raise UserError(f"{folder} has a manifest but no chunk yet: run `s3ta evaluate` first.")
        return ledger

    @property
    def typed_manifest(self) -> Manifest:
        """The manifest as code reads it. Raises UserError where it is damaged."""
        return Manifest.read(self.manifest, self.folder)

    @property
    def num_chunks(self) -> int:
        """How many chunks the finished ledger has."""
        return self.manifest["num_chunks"]

    @property
    def complete(self) -> bool:
        """Whether every chunk is there and sound. Reads them all."""
        return not self.missing()

    def chunk_path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:05d}.parquet"

    def present(self) -> list[int]:
        """The chunks that are there, sound or not, ascending."""
        return [index for index in range(self.num_chunks) if self.chunk_path(index).exists()]

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Those of all chunks, or of these, that are absent or damaged, ascending. Reads every one.

        Raises UserError where a chunk belongs to another evaluation."""
        asked = range(self.num_chunks) if among is None else sorted(among)
        return [index for index in asked if not self._is_sound(index)]

    def discard_chunk(self, index: int) -> None:
        """Take a chunk away that was laid out for other examples than the measurement now asks of it; absent is fine."""
        self.chunk_path(index).unlink(missing_ok=True)

    def write_chunk(self, index: int, columns: Mapping[str, Any] | pa.Table) -> None:
        """Write one chunk, whole or not at all. A damaged one is replaced; a sound one with the same records is left
        alone, whatever the counts of passes (which once left out verdicts on the way).

        Args:
          index: 0 up to `num_chunks - 1`.
          columns: as in `to_table`.

        Raises:
          ValueError: the index or the records are invalid.
          UserError: a sound chunk with other records is there, or the disk is full."""
        if not 0 <= index < self.num_chunks:
            raise ValueError(f"chunk {index} is outside 0..{self.num_chunks - 1}")
        table = to_table(columns)
        path, digest = self.chunk_path(index), content_hash(table, str(index), self.identity)
        if self._is_sound(index):
            if not self.read_chunk(index).drop_columns(_COSTS).equals(table.drop_columns(_COSTS)):
                raise UserError(f"{path} already holds other records; finished chunks are never overwritten.")
            return
        buffer = io.BytesIO()
        metadata = {_HASH_KEY: digest.encode(), _MANIFEST_KEY: self.identity.encode()}
        pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
        write_atomic(path, buffer.getvalue())

    def read_chunk(self, index: int) -> pa.Table:
        """The records of one chunk. Raises UserError naming the file where it is missing or damaged."""
        path = self.chunk_path(index)
        try:
            # Without threads: chunks are small, and Arrow's pools have aborted programs that were done and leaving.
            table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run the evaluation again to finish it.") from None
        except (pa.ArrowException, OSError, ValueError):
            raise _damaged(path, "it is not readable Parquet") from None
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise _damaged(path, "its columns are not those of a record")
        metadata = table.schema.metadata or {}
        written, owner = (metadata.get(key, b"").decode(errors="replace") for key in (_HASH_KEY, _MANIFEST_KEY))
        try:
            sound = content_hash(table, str(index), owner) == written
        except pa.ArrowException:  # a text that is none
            sound = False
        if not sound:
            raise _damaged(path, "its content does not match its hash")
        if owner != self.identity:
            raise ForeignChunkError(f"{path} belongs to another evaluation than the manifest beside it: take it away.")
        return table.replace_schema_metadata(None)

    def table(self) -> pa.Table:
        """All records that are there, in chunk order; of an unfinished ledger, the part that is done.

        Raises UserError where a chunk is damaged (it is named), or there is none."""
        present = self.present()
        if not present:
            raise UserError(f"{self.folder} has no chunk yet: run `s3ta evaluate` first.")
        return pa.concat_tables(map(self.read_chunk, present)).combine_chunks()

    def _is_sound(self, index: int) -> bool:
        try:
            self.read_chunk(index)
        except ForeignChunkError:
            raise
        except UserError:
            return False
        return True


def is_tiny_suite(suite: str) -> bool:
    """Whether a suite of this name was shrunk to seconds (`--tiny`), so that its numbers mean nothing."""
    return re.search(r"-tiny(\+|$)", suite) is not None


def manifest_differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, str, str]]:
    """Every place where two manifests differ, as (dotted path, old value, new value); `informative` is not compared."""
    if isinstance(old, list) and isinstance(new, list):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            if where or key != INFORMATIVE:
                path = f"{where}.{key}" if where else str(key)
                yield from manifest_differences(old.get(key, _ABSENT), new.get(key, _ABSENT), path)
    elif old != new or isinstance(old, bool) != isinstance(new, bool):
        yield where, _show(old), _show(new)


def measured_differences(old: Any, new: Any) -> list[tuple[str, str, str]]:
    """As `manifest_differences`, without the prose: in other words it is the same measurement."""
    return [difference for difference in manifest_differences(old, new) if not difference[0].startswith(_PROSE)]


def _other_order(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What to say where both have the same classes in another order, and how to count them as before; else nothing."""
    before, now = (
        DataEntry.model_validate(data if isinstance(data := manifest.get("data"), dict) else {}).classes
        for manifest in (old, new)
    )
    if before == now or sorted(map(str, before)) != sorted(map(str, now)):
        return []
    shown = ", ".join(map(str, before[:_MOST_CLASSES])) + (", ..." if len(before) > _MOST_CLASSES else "")
    return [
        f"its {len(before)} classes are the same in another order, there {shown} (--class-names FILE, with the names in that "
        "order, counts them so again; the whole order is in its manifest.json, data.classes)"
    ]


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)


def _read_manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "manifest.json").exists():
        raise UserError(f"{folder} has no manifest.json: it is not the folder of an evaluation.")
    manifest = read_json(folder / "manifest.json")
    _check_manifest(manifest, folder)
    return manifest


def _check_manifest(manifest: Any, folder: Path) -> None:
    fields = manifest if isinstance(manifest, dict) else {}
    written, num_chunks = fields.get("format"), fields.get("num_chunks")
    if not _is_positive(written):
        raise UserError(f"The manifest of {folder} is not one of s3ta: it states no format.")
    if written != LEDGER_FORMAT:
        age, advice = "an older", "evaluate again in another folder, or use that version"
        if written > LEDGER_FORMAT:
            age, advice = "a newer", "upgrade s3ta"
        raise UserError(
            f"{folder} was written in format {written} by {age} s3ta; this one reads format {LEDGER_FORMAT}: {advice}."
        )
    if not _is_positive(num_chunks):
        raise UserError(
            f"The manifest of {folder} is damaged: num_chunks is {_show(num_chunks)}, not a positive whole number."
        )


def _is_positive(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}. Run the same evaluation again to replace it.")
