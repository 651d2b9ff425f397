"""Files of `torch.save`, also those whose pickle `torch.load(weights_only=True)` does not take: other protocols, objects; and
weights that `pickle.dump` wrote without it, as in Detectron2's and VISSL's zoos and what people write by hand.

Tensors are made of the bytes that lie in the file; everything else stays inert (`s3ta.models.safe_pickle`).
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from s3ta.models.safe_pickle import Instance, Name, Reader, Stored

_CHUNK = 1 << 24
_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}
_PARAMETERS: dict[str, Callable[..., Any]] = {
    f"torch._utils._rebuild_{name}": lambda value, *_: value for name in ("parameter", "parameter_with_state")
}


class _Storage(NamedTuple):
    """Where the numbers of a tensor lie; `dtype` None: bytes, and the tensor says which numbers they are."""

    key: str
    dtype: torch.dtype | None
    num_values: int


def read_inert(path: Path) -> Stored:
    """What a file of `torch.save` holds: tensors, plain values, and records of everything else.

    Raises ForbiddenError (`s3ta.models.safe_pickle`), and ValueError, LookupError, TypeError, AttributeError, OSError,
    RuntimeError, EOFError, RecursionError, struct.error or zipfile.BadZipFile for a damaged file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    with path.open("rb") as file:
        return _read_stream(file)


def read_with_torch(file: Path | io.BytesIO) -> Any:
    """What `torch.load(weights_only=True)` makes of a file of `torch.save`, whose pickle is first read inertly.

    torch does run the few calls that it allows, and of some arguments they never return. Raises as `read_inert` where the
    pickle is unsound, and whatever torch raises where it does not take it."""
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive, archive.open(_listing_of(archive.namelist())) as pickle:
                Reader(pickle, _no_storage).read()
        else:
            stream.seek(0)
            for _ in ("magic number", "version", "machine", "content", "names of storages"):
                Reader(stream, _no_storage).read()
        stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of pickle protocols: read whole, or by `read_inert`
        return torch.load(file, map_location="cpu", weights_only=True)


def is_plain_pickle(head: bytes) -> bool:
    """Whether a file that begins so is one pickle (since protocol 2) and not of torch.save, which wrote its number first."""
    return head.startswith(b"\x80") and _MAGIC.to_bytes(10, "little") not in head[:64]


def read_plain_pickle(path: Path) -> Stored:
    """Its tensors, plain values, and records of everything else. Raises as `read_inert`."""

    def outside(_: Any) -> Any:
        raise ValueError("a plain pickle has nothing outside of it")

    def flat(data: bytes) -> Tensor:
        """The numbers of a storage, in a row; it is a file of `torch.save` of its own."""
        storage = read_with_torch(io.BytesIO(data))
        with warnings.catch_warnings():  # a storage that knows its type will go, and is what such files hold
            warnings.simplefilter("ignore", UserWarning)
            return torch.tensor([], dtype=storage.dtype).set_(storage.untyped())

    def tensor(flat: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
        return flat.as_strided(tuple(size), tuple(stride), offset)

    tensors = {f"torch._utils._rebuild_{name}": tensor for name in ("tensor", "tensor_v2")}
    with path.open("rb") as file:
        return Reader(file, outside, {"torch.storage._load_from_bytes": flat, **tensors, **_PARAMETERS}).read()


def _no_storage(_: Any) -> Name:
    return Name("a storage")


def _listing_of(names: list[str]) -> str:
    return next(name for name in names if name == "data.pkl" or name.endswith("/data.pkl"))


def _read_archive(archive: zipfile.ZipFile) -> Stored:
    names = archive.namelist()
    listing = _listing_of(names)
    root = listing.removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() != b"little":
        raise ValueError("its numbers are stored with the highest byte first")
    cache: dict[str, bytearray] = {}

    def content(storage: _Storage, size: int) -> bytearray:
        if storage.key not in cache:
            entry = archive.getinfo(f"{root}data/{storage.key}")
            if entry.file_size != size:
                raise ValueError("a tensor is cut short")
            with archive.open(entry) as stream:
                cache[storage.key] = _filled(stream, size)
        return cache[storage.key]

    with archive.open(listing) as stream:
        return _read_pickle(stream, content)


def _read_stream(file: BinaryIO) -> Stored:
    """The format before the archives: pickles one after another, then the numbers of every storage in a row."""
    if (magic := Reader(file, _storage_of).read().value) != _MAGIC:
        raise ValueError(f"it begins with {magic!r}")
    for _ in ("version", "machine"):
        Reader(file, _storage_of).read()
    start, storages = file.tell(), dict[str, _Storage]()

    def remembered(pid: Any) -> Any:
        storage = _storage_of(pid)
        if isinstance(storage, _Storage):
            storages[storage.key] = storage
        return storage

    Reader(file, remembered).read()
    numbers: dict[str, bytearray] = {}
    for key in Reader(file, _storage_of).read().value:
        storage: _Storage = storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if storage.dtype is None or count != storage.num_values:
            raise ValueError("a tensor is cut short")
        num_bytes = count * storage.dtype.itemsize
        if storage.key in numbers or num_bytes > os.fstat(file.fileno()).st_size:
            raise ValueError("a tensor is larger than its file")
        numbers[storage.key] = _filled(file, num_bytes)
    file.seek(start)

    def content(storage: _Storage, size: int) -> bytearray:
        if len(numbers[storage.key]) != size:
            raise ValueError("a tensor is cut short")
        return numbers[storage.key]

    return _read_pickle(file, content)


def _filled(stream: Any, size: int) -> bytearray:
    """The next `size` bytes of a stream, held once. Raises ValueError where it ends before."""
    data = bytearray(size)
    for start in range(0, size, _CHUNK):
        part = memoryview(data)[start : start + _CHUNK]
        if stream.readinto(part) < len(part):
            raise ValueError("a tensor is cut short")
    return data


def is_larger_than_file(archive: zipfile.ZipFile, file_size: int) -> bool:
    """Whether an archive unpacks to more than the bytes that it has: entries are compressed, or share their bytes.

    `torch.save` does neither, and a small file of that kind may fill the memory."""
    listed = archive.infolist()
    return any(entry.compress_type != zipfile.ZIP_STORED for entry in listed) or (
        sum(entry.file_size for entry in listed) > file_size
    )


def _storage_of(pid: Any) -> Any:
    """The storage that an id names; of a network's class, which the old format keeps so with its source, the name."""
    if not isinstance(pid, tuple):
        raise TypeError("a storage is described by no tuple")
    if pid[0] == "module" and isinstance(pid[1], Name):
        return pid[1]
    kind, storage_type, key, _, count = pid[:5]
    plain = isinstance(key, (str, int)) and isinstance(count, int) and count >= 0
    if kind not in ("storage", b"storage") or not plain or (len(pid) > 5 and pid[5] is not None):
        raise ValueError("a storage is described in a way that is not read")
    short = storage_type.full.rpartition(".")[2].removesuffix("Storage")
    return _Storage(str(key), None if short == "Untyped" else _STORAGES[short], count)


def _read_pickle(stream: Any, content: Callable[[_Storage, int], bytearray]) -> Stored:
    def tensor(
        storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *more: Any
    ) -> Tensor | Instance:
        name = next((word.full for word in more if isinstance(word, Name)), "")
        dtype = storage.dtype or getattr(torch, name.removeprefix("torch."), None)
        if not isinstance(dtype, torch.dtype):
            return Instance(name)
        if not (isinstance(size, (list, tuple)) and isinstance(stride, (list, tuple))):
            raise TypeError("the shape of a tensor is no tuple")
        num_bytes = storage.num_values * (1 if storage.dtype is None else dtype.itemsize)
        data = content(storage, num_bytes)
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.zeros(0, dtype=dtype)
        return flat.as_strided(tuple(size), tuple(stride), offset)

    def of_type(function: Name, _kind: Name, arguments: tuple[Any, ...], _state: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments of a call are no tuple")
        return calls[function.full](*arguments)

    def recorded(name: str) -> Callable[..., Instance]:
        return lambda *arguments: Instance(name, arguments)

    calls: dict[str, Callable[..., Any]] = {
        f"torch._utils._rebuild_{kind}": recorded(f"a {kind.replace('_', ' ')}")
        for kind in ("sparse_tensor", "qtensor", "meta_tensor_no_storage", "nested_tensor", "wrapper_subclass")
    }
    calls |= {f"torch._utils._rebuild_{name}": tensor for name in ("tensor", "tensor_v2", "tensor_v3")}
    calls |= {"torch._tensor._rebuild_from_type_v2": of_type, **_PARAMETERS}
    return Reader(stream, _storage_of, calls).read()


def tensor_of_array(value: Any) -> Any:
    """A stored NumPy array of numbers as a tensor; anything else as it is."""
    if not isinstance(value, Instance):
        return value
    if value.tensor is None:
        value.tensor = _tensor_of_record(value)
    return value.tensor


def _tensor_of_record(value: Instance) -> Any:
    try:
        if value.name == "numpy.ndarray":
            stored: Any = value.state
            _, shape, kind, columns_first, data = stored
        elif value.name.endswith(".numeric._frombuffer"):  # since protocol 5
            data, kind, shape, order = value.arguments
            columns_first = order == "F"
        else:
            return value
        ends = kind.state[1] if isinstance(kind.state, tuple) else "="
        array = np.frombuffer(data, np.dtype(kind.arguments[0]).newbyteorder(">" if ends == ">" else "<"))
        array = array.reshape(shape, order="F" if columns_first else "C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=True))
    except (ValueError, TypeError, AttributeError, LookupError):
        return value
