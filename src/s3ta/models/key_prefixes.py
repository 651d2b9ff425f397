"""Under which names a file holds the weights: what wrappers put before them comes off."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from s3ta.errors import UserError
from s3ta.models.state_dict_selection import State

PREFIXES = ("module.", "model.", "net.", "_orig_mod.", "backbone.", "encoder.", "attacker.", "1.")
"""What wrappers put before the names of weights, alone or one after another (`module.attacker.model.` is Madry's copy of
`module.model.`; `1.` the network behind a normalisation in `nn.Sequential`)."""


def prefixes(keys: Collection[str]) -> list[str]:
    """The wrappers, and wrappers of wrappers, that some of the names begin with; fewest first."""
    starts = [""]
    for start in starts:  # also those that are added meanwhile
        starts += [start + word for word in PREFIXES if any(key.startswith(start + word) for key in keys)]
    return starts


def strip_wrappers(key: str) -> str:
    """The name without its wrappers: `module.normalizer.new_mean` -> `normalizer.new_mean`."""
    while word := next((word for word in PREFIXES if key.startswith(word)), ""):
        key = key[len(word) :]
    return key


def misfits(net: State, state: State, prefix: str) -> list[str]:
    """What keeps the stored weights from being those of the network, one phrase for each."""
    present = {_memory(value) for key, value in net.items() if prefix + key in state}
    problems = []
    for key, value in net.items():
        stored = state.get(prefix + key)
        if stored is None:
            if not key.endswith("num_batches_tracked") and _memory(value) not in present:
                problems.append(f"'{key}' is missing")
        elif stored.shape != value.shape:
            problems.append(f"'{key}' is {tuple(stored.shape)} in the file, {tuple(value.shape)} in the network")
    return problems


def _memory(value: Tensor) -> Any:
    """The same for weights that are shared: a file may hold one of them only."""
    return (value.data_ptr(), value.shape, value.stride()) if value.numel() else id(value)


def choose_prefix(net: State, state: State, file: str, container: str) -> tuple[str, list[str], list[str]]:
    """The prefix of the network's weights in the file, those of equal copies of them, and notes.

    Raises UserError where the weights fit in no way, or in several that differ."""
    tried = {prefix: misfits(net, state, prefix) for prefix in prefixes(state)}
    fitting = [prefix for prefix, wrong in tried.items() if not wrong]
    if not fitting:
        others = [prefix for prefix in _endings(net, state) if not misfits(net, state, prefix)]
        names = [prefix.rstrip(".") for prefix in others]
        if len(names) == 1:
            return others[0], [], [f"The weights in {file} that fit the network are those under '{names[0]}'."]
        if names:
            raise UserError(
                f"{file} holds several networks that fit ({', '.join(names)}): leave the others out, as with --ignore-keys "
                f"'{names[-1]}'."
            )
        wrong = min(tried.values(), key=len)
        raise UserError(
            f"{file}{f' ({container})' if container else ''} does not fit the network: {'; '.join(wrong[:3])} "
            f"({len(wrong)} of its {len(net)} weights do not fit). Tried the names as they are"
            f"{''.join(f', without {prefix}' for prefix in tried if prefix)}; the file's begin with "
            f"'{next(iter(state))}' ({_guess(net, state, file)})."
        )
    first, *copies = fitting
    for copy in copies:
        for key in net:
            values = [state[start + key] for start in (first, copy) if start + key in state]
            if len(values) == 2 and not (values[0].dtype == values[1].dtype and torch.equal(*values)):
                raise UserError(
                    f"{file} holds the weights twice, as {first or 'they are'} and {copy}, and '{key}' differs: "
                    "keep one of them."
                )
    return first, copies, []


def fits(net: State, state: State) -> bool:
    """Whether the network could be filled with these weights, whatever stands before their names."""
    return any(not misfits(net, state, prefix) for prefix in [*prefixes(state), *_endings(net, state)])


def _endings(net: State, state: State) -> list[str]:
    """What stands before the name of one of the network's weights, wherever that name ends one of the file's."""
    name = max(net, key=len, default="")
    return [key.removesuffix(name) for key in state if key.endswith(f".{name}")]


def _guess(net: State, state: State, file: str) -> str:
    """A likely cause of the misfit, as a question."""
    if re.search(r"-\d+-of-\d+\b", file):
        return "it is one of several shards: give their index, or their folder"
    pairs = [(state[key].shape, value.shape) for key, value in net.items() if key in state]
    wrong = [(theirs, ours) for theirs, ours in pairs if theirs != ours]
    channels = {
        theirs[1] for theirs, ours in wrong if len(theirs) == 4 and theirs[2:] == ours[2:] and theirs[0] == ours[0]
    }
    classes = {theirs[0] for theirs, ours in wrong if theirs[1:] == ours[1:]}
    options = [f"--in-channels {n}" for n in channels] + [f"--num-classes {n}" for n in classes]
    if wrong and len(channels) <= 1 and len(classes) <= 1 and options:
        return f"another number of classes or channels? See {' and '.join(options)}"
    return "another network, or another number of classes or channels?"
