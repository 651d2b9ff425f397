"""Which state dict of a file is meant: by the usual names of entries, else the only one that fits the network."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from torch import Tensor

from s3ta.errors import UserError
from s3ta.models.safe_pickle import MOST_DEPTH, Instance, Name, parts, walk
from s3ta.models.torch_file import tensor_of_array

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "unaveraged_model_state_dict")
"""Keys of a file under which people keep the weights, the first that is there being taken."""
AVERAGED = ("model_ema", "ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict")
"""Keys of the running average of the weights: taken where there is nothing else, or where it is named."""
_AVERAGE = re.compile(r"(?<!sch)ema(?![a-z])|(?<![a-z])ema|(?<!un)averag|(?<![a-z])swa(?![a-z])|swa$", re.IGNORECASE)
"""In the name of any entry: another such average, beside which the weights are taken."""
MOST_ENTRIES = 1000
"""That are looked into: a file may lead in circles."""
MOST_FOR_NAMES = 20_000_000
"""Bytes that names of weights may take: parts of a network that are shared may stand under millions of names."""
_OPTIMIZERS = ("optim", "exp_avg", "momentum_buffer")

State: TypeAlias = dict[str, Tensor]


class NameAllowance:
    """Bytes that are left of `MOST_FOR_NAMES`."""

    def __init__(self) -> None:
        self._left = MOST_FOR_NAMES

    def take(self, num_characters: int) -> None:
        """Raises ValueError where that is more than is left; each name counts for 100 more."""
        self._left -= num_characters + 100
        if self._left < 0:
            raise ValueError("its weights have too many names")


class Chosen(NamedTuple):
    """The weights that were taken."""

    name: str
    """The path of their entry, empty for the file itself."""
    state: State
    others: list[str]
    """Paths of other weights that could have been meant."""
    notes: list[str]


def choose_state(content: Any, key: str | None, file: str, fits: Callable[[State], bool]) -> Chosen:
    """The state dict that is named, or stands under usual names, or else alone fits the network.

    Args:
      key: the path of an entry, as a person named it; None: choose.
      fits: whether the network could be filled with these weights.
    Raises UserError: no weights there, or several that fit; the sentence says what there is."""
    if key is not None:
        part = _at(content, key)
        if (state := _state_of(part) or _state_of(part, mixed=True)) is None:
            raise UserError(f"{file} has no weights under '{key}': it holds {_listed(content)}.")
        return Chosen(key, state, [], [])
    known = _known_states(content) or _known_states(content, mixed=True)
    if known:
        first, *others = sorted(known, key=_is_average)
        if first:
            within = tuple(f"{path}." for path in known)
            states = _all_states(content).items()
            others += [path for path, state in states if not f"{path}.".startswith(within) and fits(state)]
        return Chosen(first, known[first], others, _notes(content, first, file))
    anywhere = _all_states(content)
    fitting = {path: state for path, state in anywhere.items() if fits(state)}
    plain = [path for path in fitting if not _is_average(path)] if len(fitting) > 1 else list(fitting)
    if len(plain) == 1:
        others = [path for path in fitting if path != plain[0]]
        notes = [f"The only weights in {file} that fit the network are those under '{plain[0]}'."]
        return Chosen(plain[0], fitting[plain[0]], others, [] if others else notes)
    if fitting:
        raise UserError(
            f"{file} holds several weights that fit the network ({', '.join(fitting)}): name one, as "
            f"{file}#{next(iter(fitting))}."
        )
    if strange := _unusual(content):
        raise UserError(f"{file} holds {strange}: give the weights as they were before, in float32.")
    seen = f" (weights lie under {', '.join(list(anywhere)[:4])}, and do not fit the network)" if anywhere else ""
    raise UserError(
        f"{file} holds no weights under a known key ({', '.join(CONTAINERS)}) but {_listed(content)}: "
        f"name one as {file}#KEY{seen}."
    )


def objects_within(content: Any, path: str) -> set[str]:
    """The classes of everything that lies in the entry of this path, such as arrays that are weights, or parts of a network."""
    return {
        item.name if isinstance(item, Instance) else item.full
        for _, item in walk(_at(content, path))
        if isinstance(item, (Instance, Name))
    }


def _at(content: Any, path: str) -> Any:
    names = [path] if isinstance(content, dict) and path in content else path.split(".") if path else []
    for name in names:
        content = next((part for key, part in parts(content) if key == name), None)
    return content


def _is_average(path: str) -> bool:
    return _AVERAGE.search(path) is not None


def _state_of(value: Any, *, mixed: bool = False, allowance: NameAllowance | None = None) -> State | None:
    """The tensors by name where it is a state dict or a whole network that was pickled; else None.

    `mixed`: single numbers and words may stand among them, such as an epoch."""
    if isinstance(value, Instance) and isinstance(value.state, dict) and "_modules" in value.state:
        return _state_of_module(value, allowance or NameAllowance()) or None
    if not isinstance(value, dict) or not value:
        return None
    entries = {str(key): tensor_of_array(part) for key, part in value.items()}
    tensors = {key: part for key, part in entries.items() if isinstance(part, Tensor)}
    others = [part for key, part in entries.items() if key not in tensors]
    return tensors if tensors and (not others or (mixed and all(map(_is_plain, others)))) else None


def _is_plain(value: Any) -> bool:
    scalar = isinstance(value, Instance) and value.name.endswith(".scalar")
    return scalar or value is None or isinstance(value, (bool, int, float, str))


def _state_of_module(whole: Instance, allowance: NameAllowance) -> State:
    """What `state_dict()` of a pickled network would hold, by its records alone; no code of it is there to be run.

    A part that stands under several names is there under each, as in `state_dict()`. Raises ValueError where these are too
    many, or endless, and TypeError for what is no record of a network."""
    state: State = {}
    waiting: list[tuple[str, int, Any]] = [("", 0, whole)]
    while waiting:
        start, depth, module = waiting.pop()
        allowance.take(len(start))
        if depth > MOST_DEPTH:
            raise ValueError("parts of a network lie in one another without end")
        settings = module.state if isinstance(module, Instance) and isinstance(module.state, dict) else {}
        hidden = settings.get("_non_persistent_buffers_set") or ()
        if not isinstance(hidden, (list, tuple)):
            raise TypeError("names of buffers are no set")
        for kind in ("_parameters", "_buffers"):
            for name, value in _named_parts(settings, kind):
                if isinstance(value, Tensor) and not (kind == "_buffers" and name in hidden):
                    allowance.take(len(start) + len(name))
                    state[f"{start}{name}"] = value
        inside = reversed(_named_parts(settings, "_modules"))
        waiting += [(f"{start}{name}.", depth + 1, part) for name, part in inside]
    return state


def _named_parts(settings: dict[Any, Any], kind: str) -> list[tuple[str, Any]]:
    parts = settings.get(kind) or {}
    if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts):
        raise TypeError(f"{kind} are no mapping from names")
    return list(parts.items())


def _notes(content: Any, path: str, file: str) -> list[str]:
    part = _at(content, path)
    if isinstance(part, Instance) and part.state is not None:
        return [f"{file} holds a whole network ({part.name}): its weights were read, and none of its code."]
    words = [f"'{key}'" for key, value in part.items() if _is_plain(value)] if isinstance(part, dict) else []
    return [f"{', '.join(words[:4])} in {file} are no tensors, and were left out."] if words else []


def _unusual(content: Any) -> str | None:
    """What other than ordinary tensors the file holds, in words."""
    for path, value in walk(content):
        kind = value.name if isinstance(value, Instance) else ""
        if getattr(value, "is_quantized", False) or "qtensor" in kind or "_packed_params" in path.name:
            kind = "a quantised network"
        if kind.startswith("a "):
            return f"{kind} ('{'.'.join(path.names())}')"
    return None


def _known_states(content: Any, *, mixed: bool = False) -> dict[str, State]:
    """Every state dict that only known keys lead to, by its path, in the order of preference."""
    states: dict[str, State] = {}
    waiting = [("", content)]
    for _ in range(MOST_ENTRIES):
        if not waiting:
            break
        path, value = waiting.pop()
        if (state := _state_of(value, mixed=mixed)) is not None:
            states[path] = state
        elif isinstance(value, dict):
            inside = [(f"{path}.{key}" if path else key, value[key]) for key in CONTAINERS + AVERAGED if key in value]
            waiting += reversed(inside)
    return states


def _all_states(content: Any) -> dict[str, State]:
    """Every state dict by its path, but those of optimizers."""
    states: dict[str, State] = {}
    allowance = NameAllowance()
    for path, value in walk(content):
        if (state := _state_of(value, allowance=allowance)) is not None:
            name = ".".join(path.names())
            allowance.take(len(name))
            if not any(word in name.lower() for word in _OPTIMIZERS):
                states[name] = state
    return states


def _listed(content: Any) -> str:
    if isinstance(content, Instance):
        return f"one {content.name}"
    if not isinstance(content, dict):
        return f"one {type(content).__name__}"
    shown = ", ".join(f"'{key}'" for key in list(content)[:6])
    return f"{shown or 'nothing'}{f' and {len(content) - 6} more' if len(content) > 6 else ''}"
