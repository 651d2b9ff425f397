"""Weights of other people's networks: safetensors, or a state dict in any of its usual wrappings, into a network.

What is taken off is listed in literals (`state_dict_selection`, `key_prefixes`, `extra_keys`) and recorded; what is not
understood is refused. Nothing of a file is run (`safe_pickle`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from s3ta.models.extra_keys import check_numbers, explained
from s3ta.models.hub_config import Row
from s3ta.models.key_prefixes import choose_prefix, fits
from s3ta.models.state_dict_selection import AVERAGED, choose_state, objects_within
from s3ta.models.weight_files import objects_note, read_state, sound, split_key


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
    Raises:
      UserError: a file that is missing, damaged, no weights, or of another network; the sentence says which."""
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
    mean, std, of_rest = explained(left, prefix, unused, in_channels, file)
    notes += of_rest + check_numbers(taken, net_state, file)
    net.load_state_dict(taken, strict=False)  # what may be missing was decided above
    config = {"weights": f"file {file}", "container": name or None, "prefix": prefix, "notes": notes}
    if ignored:
        config["ignored"] = list(ignored)
        notes.append(f"Left out of {file} on request: {', '.join(ignored)}.")
    return FillResult(mean, std, config, path, f"@{stem}" if key is None else f"@{stem}-{key}")
