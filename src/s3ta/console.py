"""What is printed: plain text on any terminal. Names of files and classes are never markup, and no encoding stops a run."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

from rich.console import Console

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("‘’‚‛′", "'"),
        **dict.fromkeys("“”„‟″", '"'),
        **dict.fromkeys("•·∙⋅", "*"),
        "…": "...",
        "→": "->",
        "←": "<-",
        "↔": "<->",
        "↑": "^",
        "↓": "v",
        "×": "x",
        "÷": "/",
        "±": "+-",
        "≤": "<=",
        "≥": ">=",
        "≠": "!=",
        "≈": "~",
        "∞": "inf",
        "√": "sqrt",
        "∈": "in",
        "‖": "||",
        "«": "<<",
        "»": ">>",
    }
)
"""What stands for a sign that an encoding lacks. Rich itself draws boxes and bars from ASCII where it must."""
_ERRORS = "s3ta-plain"


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no emoji for `:fish:`, no colours guessed into numbers."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def speak_plainly() -> None:
    """From now on the standard streams of this process can print every text, whatever their encoding: a dash becomes a
    hyphen, `≤` becomes `<=`; of a name, a letter that is lacking, or a byte that is no letter, is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


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
