"""Weights of other people's networks: safetensors, or a state dict in any of its usual wrappings.

What is taken off is listed in the literals below and recorded; what is not understood is refused. Nothing is unpickled
that is not a tensor.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.pretrained import read_tensors

CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "unaveraged_model_state_dict")
"""Keys of a file under which people keep the weights, the first that is there being taken."""
AVERAGED = ("model_ema", "ema", "ema_model", "state_dict_ema", "ema_state_dict", "model_ema_state_dict")
"""Keys of the running average of the weights: taken where there is nothing else, or where it is named."""
PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "backbone.", "encoder.", "attacker.", "1.")
"""What wrappers put before the names of weights, alone or one after another (`module.attacker.model.` is Madry's copy of
`module.model.`; `1.` the network behind a normalisation in `nn.Sequential`)."""
DEPTH = 3
"""Of such wrappers inside each other."""
_PLACES = ("", "normalize.", "normalizer.", "normalization.", "0.")
MEANS = tuple(place + name for place in _PLACES for name in ("mean", "mu", "new_mean"))
STDS = tuple(place + name for place in _PLACES for name in ("std", "sigma", "new_std"))
"""Names, behind any wrappers, of a normalisation that is stored with the weights (RobustBench, Madry)."""
COUNTERS = ("n_averaged",)
"""Names of what other wrappers count (`torch.optim.swa_utils.AveragedModel`); they decide no answer."""

State: TypeAlias = dict[str, Tensor]


class Found(NamedTuple):
    """What a file of weights says beside the weights."""

    mean: tuple[float, ...] | None
    """Of the normalisation stored with them, for pixels in [0, 1]; None: none is stored."""
    std: tuple[float, ...] | None
    config: dict[str, Any]
    """JSON: `weights` (the file's name), `container` and `prefix` that were taken off, `notes` (sentences for people)."""


def fill(net: nn.Module, weights: str, in_channels: int, unused: tuple[str, ...] = ()) -> Found:
    """Fill a network from a file, strictly: every weight must be there with its shape, and every other one explained.

    Args:
      net: filled in place.
      weights: a `.safetensors` file, or one that `torch.load(weights_only=True)` reads; `FILE#KEY` names the container.
      in_channels: image channels, which a stored normalisation must fit.
      unused: names that begin so are training aids which decide no answer, such as auxiliary heads.
    Raises:
      UserError: a file that is missing, damaged, no weights, or of another network; the sentence says which."""
    path, key = split_key(weights)
    own = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    name, state, others = _chosen_state(read_state(path), key, path.name)
    prefix = _chosen_prefix(own, state, path.name, name)
    taken = {key: state[prefix + key] for key in own if prefix + key in state}
    notes = []
    if others:
        notes.append(
            f"{path.name} also holds {', '.join(others)}; {name or 'the rest'} was taken "
            f"(another: {path.name}#{others[0]})."
        )
    elif name.rpartition(".")[2] in AVERAGED and key is None:
        notes.append(f"{path.name} holds only a running average of the weights, {name}.")
    left = [stored for stored in state if not stored.startswith(prefix) or stored[len(prefix) :] not in taken]
    mean, std, said = _explained(left, own, state, prefix, unused, in_channels, path.name)
    notes += said + _check_numbers(taken, own, path.name)
    net.load_state_dict(taken, strict=False)  # what may be missing was decided above
    config = {"weights": f"file {path.name}", "container": name or None, "prefix": prefix, "notes": notes}
    return Found(mean, std, config)


def split_key(weights: str) -> tuple[Path, str | None]:
    """`FILE` or `FILE#KEY` -> the file and the container. Raises UserError where there is no such file."""
    path, key = Path(weights), None
    if not path.exists() and "#" in weights:
        path, key = Path(weights.rpartition("#")[0]), weights.rpartition("#")[2]
    if path.is_file():
        return path, key
    what = "is a folder" if path.is_dir() else "does not exist"
    raise UserError(
        f"{path} {what}. Weights are a file (safetensors, or a state dict of torch.save), pretrained, or random."
    )


# --- reading ------------------------------------------------------------------------------------------------------


def read_state(path: Path) -> Any:
    """What a file of weights holds: tensors by name, perhaps within other dictionaries. Runs nothing of the file."""
    try:
        with path.open("rb") as file:
            head = file.read(512).lstrip().lower()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    if not head:
        raise UserError(f"{path} is empty: fetch it again.")
    if head.startswith((b"<!doctype", b"<html", b"<?xml")) or (head.startswith(b"<") and b"<html" in head):
        raise UserError(f"{path} is a web page, not weights: fetch the file itself, by hand if need be.")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path} is a Git LFS pointer, not weights: run `git lfs pull` where it came from.")
    if path.suffix.lower() == ".safetensors":
        return read_tensors(path)
    if zipfile.is_zipfile(path) and _is_script(path):
        raise UserError(f"{path} is a TorchScript program, not weights: save its state_dict() instead.")
    try:
        with warnings.catch_warnings():
            # of pickle protocols: either the file is read whole, or refused below in our own words
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a file that is none of its own
        raise _unreadable(path, str(error)) from None


def _is_script(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _unreadable(path: Path, message: str) -> UserError:
    asked = re.search(r"(?:GLOBAL|class|function) ([\w.]+)", message) if "Weights only load failed" in message else None
    if asked is None:
        return UserError(
            f"{path} is damaged, or not a file of weights: safetensors and state dicts of torch.save are read."
        )
    return UserError(
        f"{path} holds more than tensors ({asked[1]}), and to read that is to run what the file asks for, so it is not done "
        "here: where you trust it, save only its state_dict(), with torch.save or as safetensors."
    )


# --- which weights ------------------------------------------------------------------------------------------------


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _states(content: Any, start: str = "", depth: int = DEPTH) -> dict[str, State]:
    """Every state dict under the known keys, by its path, in the order of preference."""
    if _is_state(content):
        return {start: {str(key): value for key, value in content.items()}}
    found: dict[str, State] = {}
    if isinstance(content, dict) and depth:
        for key in CONTAINERS + AVERAGED:
            found |= _states(content.get(key), f"{start}.{key}" if start else key, depth - 1)
    return found


def _chosen_state(content: Any, key: str | None, file: str) -> tuple[str, State, list[str]]:
    """The path of the weights in the file, the weights, and the paths of others."""
    if key is not None:
        state: Any = content
        for part in [key] if isinstance(content, dict) and key in content else key.split("."):
            state = state.get(part) if isinstance(state, dict) else None
        if state is None or not _is_state(state):
            raise UserError(f"{file} has no weights under '{key}': it holds {_listed(content)}.")
        return key, state, []
    found = _states(content)
    if not found:
        raise UserError(
            f"{file} holds no weights under a known key ({', '.join(CONTAINERS)}) but {_listed(content)}: "
            f"name one as {file}#KEY."
        )
    averaged = [path for path in found if set(path.split(".")) & set(AVERAGED)]
    first, *others = [path for path in found if path not in averaged] + averaged
    return first, found[first], others


def _listed(content: Any) -> str:
    if not isinstance(content, dict):
        return f"one {type(content).__name__}"
    shown = ", ".join(f"'{key}'" for key in list(content)[:6])
    return f"{shown or 'nothing'}{f' and {len(content) - 6} more' if len(content) > 6 else ''}"


# --- under which names --------------------------------------------------------------------------------------------


def prefixes(keys: Iterable[str]) -> list[str]:
    """The wrappers, and wrappers of wrappers, that some of the names begin with; fewest first."""
    keys, level = list(keys), [""]
    found = list(level)
    for _ in range(DEPTH):
        level = [
            start + word for start in level for word in PREFIXES if any(key.startswith(start + word) for key in keys)
        ]
        found += level
    return found


def bare(key: str) -> str:
    """The name without its wrappers: `module.normalizer.new_mean` -> `normalizer.new_mean`."""
    while word := next((word for word in PREFIXES if key.startswith(word)), ""):
        key = key[len(word) :]
    return key


def _misfits(own: State, state: State, prefix: str) -> list[str]:
    """What keeps the stored weights from being those of the network, one phrase for each."""
    present = {_memory(value) for key, value in own.items() if prefix + key in state}
    found = []
    for key, value in own.items():
        stored = state.get(prefix + key)
        if stored is None:
            if not key.endswith("num_batches_tracked") and _memory(value) not in present:
                found.append(f"'{key}' is missing")
        elif stored.shape != value.shape:
            found.append(f"'{key}' is {tuple(stored.shape)} in the file, {tuple(value.shape)} in the network")
    return found


def _memory(value: Tensor) -> Any:
    """The same for weights that are shared: a file may hold one of them only."""
    return (value.data_ptr(), value.shape, value.stride()) if value.numel() else id(value)


def _chosen_prefix(own: State, state: State, file: str, container: str) -> str:
    tried = {prefix: _misfits(own, state, prefix) for prefix in prefixes(state)}
    fitting = [prefix for prefix, wrong in tried.items() if not wrong]
    if not fitting:
        nearest = min(tried, key=lambda prefix: len(tried[prefix]))
        wrong = tried[nearest]
        raise UserError(
            f"{file}{f' ({container})' if container else ''} does not fit the network: {'; '.join(wrong[:3])} "
            f"({len(wrong)} of its {len(own)} weights do not fit). Tried the names as they are"
            f"{''.join(f', without {prefix}' for prefix in tried if prefix)}; the file's begin with "
            f"'{next(iter(state))}' (another network, or another number of classes or channels?)."
        )
    first, *copies = fitting
    for copy in copies:
        for key in own:
            one, two = state.get(first + key), state.get(copy + key)
            if one is not None and two is not None and not (one.dtype == two.dtype and torch.equal(one, two)):
                raise UserError(
                    f"{file} holds the weights twice, as {first or 'they are'} and {copy}, and '{key}' differs: "
                    "keep one of them."
                )
    return first


def _explained(
    left: list[str], own: State, state: State, prefix: str, unused: tuple[str, ...], in_channels: int, file: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, list[str]]:
    """The stored normalisation, and notes; everything else that was not taken must be known to decide no answer."""
    copies = [other for other in prefixes(state) if other != prefix and not _misfits(own, state, other)]
    kinds: dict[str, list[str]] = {}
    for key in left:
        if any(key.startswith(other) and key[len(other) :] in own for other in copies):
            kind = "copy"
        elif unused and key.removeprefix(prefix).startswith(unused):
            kind = "aid"
        else:
            kind = _kind(bare(key), state[key].numel() in (1, in_channels))
        kinds.setdefault(kind, []).append(key)
    if strange := kinds.get("strange"):
        raise UserError(
            f"{file} holds {len(strange)} weights that the network does not have, first '{strange[0]}': it is of another "
            "network, or of this one and something more; keep only what belongs to it."
        )
    notes = []
    if averaged := kinds.get("averaged"):
        notes.append(f"{file} also holds a running average ('{averaged[0]}' and so on), which was not taken.")
    if aids := kinds.get("aid"):
        notes.append(f"{len(aids)} weights of training aids ('{aids[0]}' and so on) were left out.")
    if not {"mean", "std"} & kinds.keys():
        return None, None, notes
    mean, std = (_agreed(kinds.get(what, []), state, what, file) for what in ("mean", "std"))
    if max(mean + std) > 2:
        notes.append(f"The normalisation stored in {file} is for pixels of 0 to 255; it was divided by 255.")
        mean, std = tuple(value / 255 for value in mean), tuple(value / 255 for value in std)
    return mean, std, notes


def _kind(name: str, per_channel: bool) -> str:
    if per_channel and name in MEANS + STDS:
        return "mean" if name in MEANS else "std"
    if name.partition(".")[0] in AVERAGED:
        return "averaged"
    return "count" if name in COUNTERS or name.endswith("num_batches_tracked") else "strange"


def _agreed(keys: list[str], state: State, what: str, file: str) -> tuple[float, ...]:
    """The one value that is stored, perhaps several times."""
    values = {key: tuple(state[key].double().flatten().tolist()) for key in keys}
    if len(set(values.values())) != 1:
        differ = f"different ones ({', '.join(values)})" if values else "none"
        raise UserError(f"{file} stores a normalisation, but of its {what} it has {differ}: keep one, or neither.")
    return next(iter(values.values()))


def _check_numbers(taken: State, own: State, file: str) -> list[str]:
    """Refuse what cannot be numbers of the network; a note where they were rounded or widened."""
    casts = set()
    for key, stored in taken.items():
        to = own[key].dtype
        if stored.is_meta or stored.layout != torch.strided or stored.is_floating_point() != to.is_floating_point:
            raise UserError(
                f"{file} holds '{key}' as {_plain(stored.dtype)}, the network as {_plain(to)} (quantised, or not saved whole?)."
            )
        if to.is_floating_point and stored.dtype != to:
            casts.add(f"{_plain(stored.dtype)} to {_plain(to)}")
        if to.is_floating_point and not stored.to(to).isfinite().all():
            raise UserError(f"{file} holds numbers that are not finite, first in '{key}': its training went wrong.")
    return [f"Weights were cast from {' and '.join(sorted(casts))}."] if casts else []


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
