"""What a file holds beside the weights of the network: a normalisation, copies, averages, training aids, or too much."""

from __future__ import annotations

import torch
from torch import Tensor

from s3ta.errors import UserError
from s3ta.models.hub_config import for_unit_pixels
from s3ta.models.key_prefixes import misfits, prefixes, strip_wrappers
from s3ta.models.state_dict_selection import AVERAGED, State
from s3ta.types import dtype_name

_MODULES = ("", "normalize.", "normalizer.", "normalization.", "0.")
MEANS = tuple(module + name for module in _MODULES for name in ("mean", "mu", "new_mean"))
STDS = tuple(module + name for module in _MODULES for name in ("std", "sigma", "new_std"))
"""Names, behind any wrappers, of a normalisation that is stored with the weights (RobustBench, Madry)."""
COUNTERS = ("n_averaged",)
"""Names of what other wrappers count (`torch.optim.swa_utils.AveragedModel`); they decide no answer."""


def explained(
    left: list[str], net: State, state: State, prefix: str, unused: tuple[str, ...], in_channels: int, file: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, list[str]]:
    """The stored normalisation, and notes; everything else that was not taken must be known to decide no answer."""
    copies = [other for other in prefixes(state) if other != prefix and not misfits(net, state, other)]
    kinds: dict[str, list[str]] = {}
    for key in left:
        if any(key.startswith(other) and key[len(other) :] in net for other in copies):
            kind = "copy"
        elif unused and key.removeprefix(prefix).startswith(unused):
            kind = "aid"
        else:
            kind = _kind(strip_wrappers(key), state[key].numel() in (1, in_channels))
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
    mean, std = (_agreed(kinds.get(what, []), state, what, file) for what in ("mean", "std"))
    mean, std, scaled = for_unit_pixels(mean, std, f"stored in {file}")
    return mean, std, [*notes, *scaled]


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


def check_numbers(taken: State, net: State, file: str) -> list[str]:
    """Refuse what cannot be numbers of the network; a note where they were rounded or widened."""
    casts = set()
    for key, stored in taken.items():
        to = net[key].dtype
        if stored.is_meta or stored.layout != torch.strided or stored.is_quantized:
            raise UserError(f"{file} holds '{key}' as {_kind_of(stored)}: save ordinary weights, as float32.")
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


def _kind_of(stored: Tensor) -> str:
    if stored.is_meta:
        return "a tensor without numbers (on the meta device)"
    return "a quantised tensor" if stored.is_quantized else "a sparse tensor"
