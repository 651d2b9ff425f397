"""What a user did wrong, said in one sentence. The command line prints it and leaves with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """One clear sentence: what was wrong, where, and what to do. Never shown with a traceback by the command line."""


def unknown_name(kind: str, name: str, known: Iterable[str], see: str = "") -> UserError:
    """The error for a name that does not exist, with the nearest names that do."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else f" Known: {', '.join(known[:8])}."
    return UserError(f"Unknown {kind} '{name}'.{hint}{f' See `{see}`.' if see else ''}")


def reason_of(error: BaseException) -> str:
    """Why something failed, for the end of a sentence: a sentence of ours as it is, of anything else its kind and text."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}".rstrip(": ")
