"""Read a pickle without running it: every name of code in it stays a name, every object a record of what was stored.

Nothing is imported, called or looked up for the file. What it asks to call is one of the literals below, each with a
function of our own in its place, or is recorded as an `Unknown`, which the caller refuses or leaves out.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

FORBIDDEN = ("os", "posix", "nt", "sys", "subprocess", "shutil", "socket", "ctypes", "runpy", "importlib", "pty")
"""Modules that no file of weights has a reason to name: it is refused as a whole."""
_FORBIDDEN_BUILTINS = ("eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint")
"""So are these; `getattr` is not, for older protocols write it for every class within a class."""
MOST_DEPTH = 300
"""How deep values may lie in one another: networks of hundreds of layers need about a hundred."""
MOST_TEXT = 10_000
"""Characters of a path that is put together from parts."""
_MOST_BYTES, _BYTES_PER_BYTE = 100_000_000, 32
"""What results of calls may take in memory: so much, and so much more for each byte of the pickle."""


class Name:
    """A class or function that a pickle mentions, such as `argparse.Namespace`; never imported."""

    def __init__(self, full: str) -> None:
        self.full = full

    def __repr__(self) -> str:
        return self.full


class Instance(dict[Any, Any]):
    """An object of a class that is not loaded: its items where it is a mapping, and its state as it was stored."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.name, self.arguments, self.state, self.elements = name, arguments, None, []
        self.tensor: Any = None
        """What the record was once turned into, so that it is done once."""

    def __repr__(self) -> str:
        return self.name

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride] - it may be a key, each one its own
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


class Unknown(Instance):
    """What a call that was not made would have given."""


class ForbiddenError(Exception):
    """The pickle names code of a module in `FORBIDDEN`."""


class Stored(NamedTuple):
    """What a pickle holds."""

    value: Any
    names: list[str]
    """Every class and function that it names, each once."""
    unknown: list[Unknown]
    """What it asks to call and nobody knows, in order."""


class _Mark:
    """Where a run of values begins on the stack."""


def _mapping(*arguments: Any) -> Any:
    """`OrderedDict` and its kin from nothing, pairs or another mapping; a `defaultdict` is called with its factory."""
    given = arguments[-1] if arguments else ()
    if given is None or isinstance(given, Name):
        given = ()
    if isinstance(given, Instance) or not isinstance(given, (list, tuple, dict)):
        raise TypeError(f"the items of a mapping are a {type(given).__name__}")
    return _mapping_of(given.items() if isinstance(given, dict) else given)


def _mapping_of(pairs: Iterable[Any]) -> dict[Any, Any]:
    return {_checked_key(key): value for key, value in pairs}


def _pairs(values: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(values[::2], values[1::2], strict=True)


def _checked_key(key: Any, depth: int = 0) -> Any:
    """The key of a mapping. Raises TypeError for tuples in tuples, whose hash may take for ever, and for huge numbers."""
    if isinstance(key, tuple) and (depth > 2 or len(key) > 20 or not all(_checked_key(k, depth + 1) is k for k in key)):
        raise TypeError("a key is nested too deep")
    if isinstance(key, int) and abs(key) >= 1 << 60:
        raise TypeError("a key is a huge number")
    return key


def _items(items: Any = ()) -> list[Any]:
    if isinstance(items, Instance) or not isinstance(items, (list, tuple, dict)):
        raise TypeError(f"the items of a container are a {type(items).__name__}")
    return list(items)


def _path(*parts: str) -> str:
    if sum(map(len, parts)) > MOST_TEXT:
        raise ValueError("a path is too long")
    return "/".join(parts)


_TUPLES = ("builtins.set", "builtins.frozenset", "builtins.tuple", "torch.Size")
_PLAIN: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "builtins.dict": _mapping,
    "builtins.list": _items,
    **{name: lambda *items: tuple(_items(*items)) for name in _TUPLES},
    "_codecs.encode": lambda text, encoding="latin1": text.encode("latin1" if encoding == "latin1" else "utf-8"),
}
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_PLAIN |= {f"{module}.{name}": _path for module in ("pathlib", "pathlib._local") for name in _PATHS}
_RECORDED = (
    *(f"builtins.{name}" for name in ("bytearray", "complex", "slice", "range", "xrange")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "zoneinfo.ZoneInfo", "zoneinfo.ZoneInfo._unpickle"),
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    *("functools.partial", "numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    *("numpy.dtype", "torch.device", "torch.serialization._get_layout", "copyreg._reconstructor", "operator.getitem"),
)
"""Calls that make plain data; they are kept as records."""


class Reader:
    """One pickle of any protocol, read into plain values, `Name` and `Instance`.

    Args:
      stream: positioned at the pickle; left behind it.
      persistent: what an id outside of the pickle stands for (torch: a storage).
      calls: names of functions that the caller knows, with its own function for each."""

    def __init__(
        self, stream: Any, persistent: Callable[[Any], Any], calls: dict[str, Callable[..., Any]] | None = None
    ) -> None:
        self._stream, self._persistent, self._calls = stream, persistent, calls or {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._names: dict[str, None] = {}
        self._unknown: list[Unknown] = []
        self._num_read = self._num_made = 0

    def read(self) -> Stored:
        """Raises ValueError, LookupError, TypeError, AttributeError, EOFError or RecursionError for what is no sound
        pickle, and ForbiddenError."""
        for opcode, argument, position in pickletools.genops(self._stream):
            self._num_read, name = position or 0, opcode.name
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif name in _STEPS:
                _STEPS[name](self, argument)
            elif not opcode.stack_before and len(opcode.stack_after) == 1:  # text, bytes and numbers, of any protocol
                self._stack.append(argument)
            elif name not in ("PROTO", "FRAME", "STOP"):
                raise ValueError(f"the instruction {name} is not read")
        return Stored(self._stack.pop(), list(self._names), self._unknown)

    def _after_mark(self) -> list[Any]:
        mark = next((i for i in reversed(range(len(self._stack))) if isinstance(self._stack[i], _Mark)), None)
        if mark is None:
            raise ValueError("there is no mark")
        values = self._stack[mark + 1 :]
        del self._stack[mark:]
        return values

    def _last(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("the stack is empty")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _extend(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, (Instance, list)):
            raise TypeError("what is extended is no list")
        (target.elements if isinstance(target, Instance) else target).extend(values)

    def _set_items(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise TypeError("what gets items is no mapping")
        self._stack[-1].update(_mapping_of(_pairs(values)))

    def _name(self, module: str, name: str) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and f"{module}{name}".isprintable()):
            raise TypeError("a name is no text")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self._names[f"{module}.{name}"] = None
        builtin = module in ("builtins", "io", "_io") and name.partition(".")[0] in _FORBIDDEN_BUILTINS
        if builtin or module.partition(".")[0] in FORBIDDEN:
            raise ForbiddenError(f"{module}.{name}")
        self._stack.append(Name(f"{module}.{name}"))

    def _call(self) -> None:
        function, arguments = self._last(2)
        if not isinstance(arguments, tuple):
            raise TypeError("the arguments of a call are no tuple")
        name = function.full if isinstance(function, Name) else ""
        if name in self._calls:
            made = self._calls[name](*arguments)
        elif name in _PLAIN:
            made = _PLAIN[name](*arguments)
            self._num_made += sys.getsizeof(made)
            if self._num_made > _MOST_BYTES + _BYTES_PER_BYTE * self._num_read:
                raise ValueError("its calls make too much")
        elif name in _RECORDED or name.startswith("numpy.random."):
            by_class = (
                name.endswith(("._reconstruct", "._reconstructor")) and arguments and isinstance(arguments[0], Name)
            )
            made = Instance(arguments[0].full if by_class else name, arguments)
        else:  # also of what another such call would have given
            made = Unknown(name or getattr(function, "name", type(function).__name__), (function, *arguments))
            self._unknown.append(made)
        self._stack.append(made)

    def _new(self, class_name: Any, arguments: Any) -> None:
        self._stack.append(Instance(class_name.full, tuple(_items(arguments))))

    def _build(self) -> None:
        (state,) = self._last(1)
        if isinstance(self._stack[-1], Instance):
            self._stack[-1].state = state


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": _Mark,
}
_STEPS: dict[str, Callable[[Reader, Any], Any]] = {
    "POP": lambda r, _: r._stack.pop(),
    "POP_MARK": lambda r, _: r._after_mark(),
    "DUP": lambda r, _: r._stack.append(r._stack[-1]),
    **dict.fromkeys(("TUPLE", "FROZENSET"), lambda r, _: r._stack.append(tuple(r._after_mark()))),
    "LIST": lambda r, _: r._stack.append(r._after_mark()),
    "DICT": lambda r, _: r._stack.append(_mapping_of(_pairs(r._after_mark()))),
    **{f"TUPLE{n}": lambda r, _, n=n: r._stack.append(tuple(r._last(n))) for n in (1, 2, 3)},
    "APPEND": lambda r, _: r._extend(r._last(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda r, _: r._extend(r._after_mark())),
    "SETITEM": lambda r, _: r._set_items(r._last(2)),
    "SETITEMS": lambda r, _: r._set_items(r._after_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda r, i: r._memo.update({i: r._stack[-1]})),
    "MEMOIZE": lambda r, _: r._memo.update({len(r._memo): r._stack[-1]}),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda r, i: r._stack.append(r._memo[i])),
    "GLOBAL": lambda r, names: r._name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda r, _: r._name(*r._last(2)),
    "REDUCE": lambda r, _: r._call(),
    "NEWOBJ": lambda r, _: r._new(*r._last(2)),
    "NEWOBJ_EX": lambda r, _: r._new(*r._last(3)[:2]),
    "INST": lambda r, names: (lambda v: (r._name(*names.split(" ", 1)), r._new(r._stack.pop(), v)))(r._after_mark()),
    "OBJ": lambda r, _: (lambda v: r._new(v[0], v[1:]))(r._after_mark()),
    "BUILD": lambda r, _: r._build(),
    "BINPERSID": lambda r, _: r._stack.append(r._persistent(r._stack.pop())),
}


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What lies directly inside a value, by name: items, elements, and the state of an object."""
    if isinstance(value, dict):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((str(i), part) for i, part in enumerate(value))
    if isinstance(value, Instance):
        yield from (("", part) for part in (value.state, value.elements, value.arguments) if part is not None)


class Step(NamedTuple):
    """Where a value lies in another, as a chain, so that every value of a long one has its place for little memory."""

    above: Step | None = None
    name: str = ""
    depth: int = 0

    def below(self, name: str) -> Step:
        """Raises RecursionError where that is deeper than `MOST_DEPTH`."""
        if self.depth >= MOST_DEPTH:
            raise RecursionError(f"values lie in one another more than {MOST_DEPTH} deep")
        return Step(self, name, self.depth + 1)

    def names(self) -> list[str]:
        """From the outermost to this one; without those that have none, which are parts of one object."""
        names, step = [], self
        while step.above is not None:
            names += [step.name] if step.name else []
            step = step.above
        return names[::-1]


def walk(value: Any, inside: Callable[[Any], Iterable[tuple[Any, Any]]] = parts) -> Iterator[tuple[Step, Any]]:
    """Everything inside a value, itself first, each object once, with where it lies; `inside` says what lies in one.

    What is taken out of a value while it is the last one given is not looked into. Raises RecursionError as `Step.below`."""
    waiting: list[tuple[Step, Any]] = [(Step(), value)]
    seen: set[int] = set()
    while waiting:
        path, item = waiting.pop()
        if isinstance(item, (dict, list, tuple)):
            if id(item) in seen:
                continue
            seen.add(id(item))
        yield path, item
        waiting += reversed([(path.below(str(name)), part) for name, part in inside(item)])
