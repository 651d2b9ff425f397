"""What is printed: plain text on any terminal. Names of files and classes are never markup, and no encoding stops a run."""

from __future__ import annotations

import atexit
import codecs
import io
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.table import Table

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("“”„‟″", '"'),
        **dict.fromkeys("•·∙⋅", "*"),
        **{"…": "...", "→": "->", "←": "<-", "↔": "<->", "↑": "^", "↓": "v", "«": "<<", "»": ">>", "‖": "||"},
        **{"×": "x", "÷": "/", "±": "+-", "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~"},
        **{"∞": "inf", "√": "sqrt", "∈": "in"},
    }
)
"""What stands for a sign that an encoding lacks. Rich itself draws boxes and bars from ASCII where it must."""
_ERRORS = "s3ta-plain"
_superseded: list[Any] = []
"""Streams that stood in place of standard ones: a text stream that is forgotten closes what it writes to."""


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji for `:fish:`, no colours guessed into numbers."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def drawn_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table as a console prints it: a narrow terminal breaks headers, never numbers."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False)
    for i, header in enumerate(headers):
        shown.add_column(header, min_width=max((len(row[i]) for row in rows), default=0))
    for row in rows:
        shown.add_row(*row)
    return shown


def as_text(*parts: Any) -> str:
    """What a console of 128 columns prints, as one text; parts are texts and tables."""
    screen = Console(file=io.StringIO(), width=128, markup=False, emoji=False, highlight=False, soft_wrap=True)
    with screen.capture() as captured:
        for part in parts:
            screen.print(part)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def speak_plainly() -> None:
    """From now on the standard streams of this process can print every text, whatever their encoding: a dash becomes a
    hyphen, `≤` becomes `<=`; of a name, a letter that is lacking, or a byte that is no letter, is written as an escape. Where a
    stream is closed, as by `2>&-`, its text goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, _nowhere())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


@cache
def _nowhere() -> io.TextIOBase:
    stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - it stays open until the process ends
    atexit.register(stream.close)
    return stream


@contextmanager
def standard_streams_kept() -> Iterator[None]:
    """`sys.stdout` and `sys.stderr`, with their encodings, as they were afterwards. Where one was closed or detached
    meanwhile, what stands in its place stays; where nothing does, its text goes nowhere."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    encodings = {name: _encoding(stream) for name, stream in before.items()}
    try:
        yield
    finally:
        for name, stream in before.items():
            _restore_stream(name, stream, encodings[name])


def _encoding(stream: Any) -> dict[str, Any]:
    return {"encoding": stream.encoding, "errors": stream.errors} if isinstance(stream, io.TextIOWrapper) else {}


def _restore_stream(name: str, stream: Any, encoding: dict[str, Any]) -> None:
    present = getattr(sys, name)
    if present is not stream and not any(present is stand_in for stand_in in _superseded):
        _superseded.append(present)
        with suppress(Exception):
            present.flush()
    if stream is None or _is_open(stream):
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper) and _encoding(stream) != encoding:
            stream.reconfigure(**encoding)
    elif not _is_open(present):
        setattr(sys, name, _nowhere())
    elif encoding and isinstance(present, io.TextIOWrapper):
        present.reconfigure(errors=encoding["errors"])


def _is_open(stream: Any) -> bool:
    try:
        return not stream.closed
    except Exception:  # noqa: BLE001 - a detached stream raises, and somebody else's may raise anything
        return False


def _instead(sign: str) -> str:
    """ASCII for a sign that an encoding lacks: what it looks like, or an escape such as `\\xe9`; of a byte of a file name that
    is no letter, which Python holds as half of a sign, the byte."""
    shown = " " if unicodedata.category(sign) == "Zs" else sign.translate(_PLAIN)
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:
        return f"\\x{number - 0xDC00:02x}"
    return shown if shown.isascii() else sign.encode("ascii", "backslashreplace").decode()


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_instead, error.object[error.start : error.end])), error.end


codecs.register_error(_ERRORS, _replaced)
