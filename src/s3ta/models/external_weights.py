"""Weights of other people's networks: safetensors, or a state dict in any of its usual wrappings, into a network.

What is taken off is listed in literals (here, in `state_dict_selection` and `key_prefixes`) and recorded; what is not
understood is refused. Nothing of a file is run (`safe_pickle`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.hub_config import Row, for_unit_pixels
from s3ta.models.key_prefixes import choose_prefix, fits, strip_wrappers
from s3ta.models.state_dict_selection import AVERAGED, State, choose_state, objects_within
from s3ta.models.weight_files import objects_note, read_state, sound, split_key
from s3ta.types import dtype_name

_MODULES = ("", "normalize.", "normalizer.", "normalization.", "0.")
MEANS = tuple(module + name for module in _MODULES for name in ("mean", "mu", "new_mean"))
STDS = tuple(module + name for module in _MODULES for name in ("std", "sigma", "new_std"))
"""Names, behind any wrappers, of a normalisation that is stored with the weights (RobustBench, Madry)."""


class FillResult(NamedTuple):
    """What a file of weights says beside the weights themselves."""

    mean: Row | None
    """Of the normalisation stored with them, for pixels in [0, 1]; None: none is stored."""
    std: Row | None
    config: dict[str, Any]
    """JSON: `weights` (the file's name), `container` and `prefix` that were taken off, `notes` (sentences for people);
    `ignored`, where patterns were given."""
    path: Path | None = None
    """Of the file; None: there is none."""
    suffix: str = ""
    """What it adds to the model's name."""


def fill(
    net: nn.Module, weights: str, in_channels: int, unused: tuple[str, ...] = (), ignored: tuple[str, ...] = ()
) -> FillResult:
    """Fill a network from a file, strictly: every weight must be there with its shape, and every other one explained.

    Args:
      net: filled in place.
      weights: safetensors, an index of shards, a folder of the Hub, or a file of `torch.save`; `FILE#KEY` names the container.
      in_channels: image channels, which a stored normalisation must fit.
      unused: names that begin so are training aids which decide no answer, such as auxiliary heads.
      ignored: patterns of entries and names to leave out.
    Raises UserError: a file that is missing, damaged, no weights, or of another network; the sentence says which."""
    path, key, file, stem = split_key(weights)
    net_state = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    content = read_state(path, ignored, file)
    with sound(path):
        name, state, others, notes = choose_state(content.value, key, file, lambda state: fits(net_state, state))
    prefix, copies, of_prefix = choose_prefix(net_state, state, file, name)
    taken = {key: state[prefix + key] for key in net_state if prefix + key in state}
    objects = objects_note(content.names, objects_within(content.value, name), file)
    notes = objects + notes + of_prefix
    if others:
        notes.append(
            f"{file} also holds {', '.join(others)}; {name or 'the rest'} was taken (another: {file}#{others[0]})."
        )
    elif name.rpartition(".")[2] in AVERAGED and key is None:
        notes.append(f"{file} holds only a running average of the weights, {name}.")
    known = {start + key for start in (prefix, *copies) for key in net_state}
    left = {key: value for key, value in state.items() if key not in known}
    mean, std, of_rest = _explained(left, prefix, unused, in_channels, file)
    notes += of_rest + _check_numbers(taken, net_state, file)
    net.load_state_dict(taken, strict=False)  # what may be missing was decided above
    config = {"weights": f"file {file}", "container": name or None, "prefix": prefix, "notes": notes}
    if ignored:
        config["ignored"] = list(ignored)
        notes.append(f"Left out of {file} on request: {', '.join(ignored)}.")
    return FillResult(mean, std, config, path, f"@{stem}" if key is None else f"@{stem}-{key}")


def _explained(
    left: State, prefix: str, unused: tuple[str, ...], in_channels: int, file: str
) -> tuple[Row | None, Row | None, list[str]]:
    """The normalisation among the weights that are left, and notes; all others must be known to decide no answer."""
    kinds: dict[str, list[str]] = {}
    for key, value in left.items():
        is_aid = unused and key.removeprefix(prefix).startswith(unused)
        kind = "aid" if is_aid else _kind(strip_wrappers(key), value.numel() in (1, in_channels))
        kinds.setdefault(kind, []).append(key)
    if strange := kinds.get("strange"):
        raise UserError(
            f"{file} holds {len(strange)} weights that the network does not have, first '{strange[0]}': it is of another "
            "network, or of this one and something more; where that is no layer but a loss or a metric, leave it out with "
            f"--ignore-keys '{strange[0].rpartition('.')[0] or strange[0]}'."
        )
    notes = []
    if averaged := kinds.get("averaged"):
        notes.append(f"{file} also holds a running average ('{averaged[0]}' and so on), which was not taken.")
    if aids := kinds.get("aid"):
        notes.append(f"{len(aids)} weights of training aids ('{aids[0]}' and so on) were left out.")
    if not {"mean", "std"} & kinds.keys():
        return None, None, notes
    mean, std = (_agreed(kinds.get(what, []), left, what, file) for what in ("mean", "std"))
    mean, std, scaled = for_unit_pixels(mean, std, f"stored in {file}")
    return mean, std, [*notes, *scaled]


def _kind(name: str, per_channel: bool) -> str:
    if per_channel and name in MEANS + STDS:
        return "mean" if name in MEANS else "std"
    if name.partition(".")[0] in AVERAGED:
        return "averaged"
    # counters decide no answer; the first is of `torch.optim.swa_utils.AveragedModel`
    return "count" if name == "n_averaged" or name.endswith("num_batches_tracked") else "strange"


def _agreed(keys: list[str], state: State, what: str, file: str) -> Row:
    """The one value that is stored, perhaps several times."""
    values = {key: tuple(state[key].double().flatten().tolist()) for key in keys}
    if len(set(values.values())) != 1:
        differ = f"different ones ({', '.join(values)})" if values else "none"
        raise UserError(f"{file} stores a normalisation, but of its {what} it has {differ}: keep one, or neither.")
    return next(iter(values.values()))


def _check_numbers(taken: State, net: State, file: str) -> list[str]:
    """Refuse what cannot be numbers of the network; a note where they were rounded or widened."""
    casts = set()
    for key, stored in taken.items():
        to = net[key].dtype
        if stored.is_meta or stored.layout != torch.strided or stored.is_quantized:
            kind = "a quantised tensor" if stored.is_quantized else "a sparse tensor"
            kind = "a tensor without numbers (on the meta device)" if stored.is_meta else kind
            raise UserError(f"{file} holds '{key}' as {kind}: save ordinary weights, as float32.")
        if stored.is_complex() and not to.is_complex:
            raise UserError(
                f"{file} holds '{key}' as complex numbers, the network as {dtype_name(to)}: of another network?"
            )
        if stored.is_floating_point() != to.is_floating_point:
            raise UserError(
                f"{file} holds '{key}' as {dtype_name(stored.dtype)}, the network as {dtype_name(to)} (quantised, or not saved "
                "whole?)."
            )
        if to.is_floating_point and stored.dtype != to:
            casts.add(f"{dtype_name(stored.dtype)} to {dtype_name(to)}")
        if to.is_floating_point and not stored.to(to).isfinite().all():
            raise UserError(f"{file} holds numbers that are not finite, first in '{key}': its training went wrong.")
    return [f"Weights were cast from {' and '.join(sorted(casts))}."] if casts else []
