"""One guard around other people's code: whatever it raises becomes one sentence that says which call failed, why and where.

What runs behind it: importing and calling a factory, `train()`, `eval()`, `state_dict()`, casts, forward and backward passes.
"""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from s3ta.errors import UserError

_MOST_WORDS = 300
_OUR_FOLDER = str(Path(__file__).parent)
_LIBRARIES = (sysconfig.get_paths()["stdlib"], "site-packages", "dist-packages", "<")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class ForeignError(UserError):
    """An error of somebody else's code, in one sentence; `__cause__` is the error itself."""


@contextmanager
def guarded(call: str, advice: str = "") -> Iterator[None]:
    """Around somebody else's code: ForeignError from whatever is raised; any other UserError, Ctrl-C and the like pass.

    The sentence begins with `call` and ends with `advice`. A guard with advice also tells again what one inside it told
    without."""
    try:
        yield
    except BaseException as caught:  # it may raise anything
        if is_request_to_stop(caught):
            raise
        if isinstance(caught, UserError) and not (advice and isinstance(caught, ForeignError)):
            raise
        if type(caught).__module__.startswith("torch.") and type(caught).__name__.startswith("_"):
            raise  # no error: torch's own way out of a forward pass, as when a checkpoint has made again what it needs
        error = original(caught)
        if is_out_of_memory(error):
            raise ForeignError(
                f"{call} ran out of memory ({reason(error)}): give fewer images at once (--batch-size), or another device."
            ) from error
        raise ForeignError(f"{call} failed: {reason(error)}{where(error)}{f': {advice}' if advice else ''}.") from error


def is_request_to_stop(error: BaseException) -> bool:
    """Whether an error is no failure of somebody else's code: Ctrl-C, or a generator that is closed."""
    return isinstance(error, (KeyboardInterrupt, GeneratorExit))


def message_of(error: BaseException) -> str:
    """The message of an error; empty where its `__str__` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - somebody else's `__str__`
        return ""


def original(error: BaseException) -> BaseException:
    """The error that a `ForeignError` stands for; any other error as it is."""
    return error.__cause__ if isinstance(error, ForeignError) and error.__cause__ else error


def reason(error: BaseException) -> str:
    """The kind of an error and the beginning of its message, on one line; of a TorchScript traceback its end; of an error of
    ours the sentence."""
    message = message_of(error)
    if isinstance(error, UserError):
        return message.rstrip(".")
    if "TorchScript" in message:
        message = message.strip().rpartition("\n")[2].removeprefix(f"{type(error).__name__}: ")
    message = without_addresses(" ".join(message.split()))
    return f"{type(error).__name__}: {message[:_MOST_WORDS]}".rstrip(": .")


def without_addresses(text: str) -> str:
    """Without the places in memory that Python prints of objects, so that two runs print the same."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def where(error: BaseException) -> str:
    """` (file.py, line 3)`: where code that is neither ours nor a library's failed, by the file's name only; else nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [
        f for f in frames if not f.filename.startswith(_OUR_FOLDER) and not any(x in f.filename for x in _LIBRARIES)
    ]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device."""
    kinds = ("MemoryError", "OutOfMemoryError")
    return type(error).__name__ in kinds or any(words in message_of(error) for words in _NO_MEMORY)


def set_mode(module: Any, *, mode: bool) -> None:
    """`train(mode)` of a torch module, whatever it returns. Exported programs have no modes: only the flags are set.

    Raises ForeignError where it fails."""
    name = type(module).__name__
    with guarded(f"{name}.{'train' if mode else 'eval'}()"):
        try:
            module.train() if mode else module.eval()
        except NotImplementedError:
            for part in module.modules():
                part.training = mode


def attribute(owner: Any, name: str) -> Any:
    """An attribute of somebody else's object; None where it has none, or where asking for it fails."""
    try:
        return getattr(owner, name, None)
    except Exception:  # noqa: BLE001 - a property may raise anything
        return None


@contextmanager
def modes_kept(module: Any) -> Iterator[None]:
    """Each part of a torch module in the mode, training or eval, that it was in, afterwards."""
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
