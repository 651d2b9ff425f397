"""Which normalisation a foreign network gets, and where it comes from: given, stored with the weights, or the library's."""

from __future__ import annotations

from collections.abc import Sequence

from s3ta.errors import UserError
from s3ta.models.external_weights import FillResult
from s3ta.models.hub_config import shown
from s3ta.models.info import UNKNOWN, PreparationSources
from s3ta.models.timm_torchvision import BuiltNetwork


def refuse_half(mean: tuple[float, ...] | None, std: tuple[float, ...] | None, stored: FillResult) -> None:
    """UserError where a mean is given without a deviation, or the other way round, and the file has no other half."""
    if mean is not None and std is None and stored.std is None:
        raise UserError("--mean is given without --std: give both; --std 1 where nothing is divided.")
    if std is not None and mean is None and stored.mean is None:
        raise UserError("--std is given without --mean: give both; --mean 0 where nothing is subtracted.")


def chosen(
    what: str,
    given: tuple[float, ...] | None,
    stored: tuple[float, ...] | None,
    usual: tuple[float, ...] | None,
    in_channels: int,
    source: str,
) -> tuple[float, ...] | None:
    """What is given, unless the weights say otherwise; else what is stored with the weights; else the library's.

    Raises UserError for a contradiction, and for a row of the wrong length that nobody gave."""
    if given is not None and stored is not None and not same_numbers(given, stored):
        raise UserError(
            f"The weights for {source} are stored with {what} {shown(stored)}, but the {what} given is {shown(given)}: "
            "give the same, or remove it from the file."
        )
    values = given if given is not None else stored if stored is not None else usual
    if given is None and values is not None and len(values) not in (1, in_channels):
        raise UserError(f"{source} has a {what} for {len(values)} channels: say --mean and --std for {in_channels}.")
    return values


def same_numbers(mine: Sequence[float], other: Sequence[float]) -> bool:
    """Equal to the digits that people write."""
    length = max(len(mine), len(other))
    pairs = zip(*(values * (length if len(values) == 1 else 1) for values in (list(mine), list(other))), strict=False)
    return min(len(mine), len(other)) in (1, length) and all(abs(a - b) < 1e-3 for a, b in pairs)


def origins(
    network: BuiltNetwork, given: bool, stored: bool, unused_normalisation: str, unused_preparation: str
) -> PreparationSources:
    """Where normalisation and preparation of a foreign network come from, with what files beside its weights say in vain."""
    library = next(iter(network.library), "")
    usual = f"{library}'s" if network.mean is not None else _default(unused_normalisation)
    normalisation = "given" if given else "stored with the weights" if stored else usual
    preparation = _default(unused_preparation)
    if network.view is not None:
        preparation = f"{library}'s{f' ({unused_preparation})' if unused_preparation else ''}"
    return PreparationSources(normalisation, preparation, network.remarks)


def _default(unused: str) -> str:
    return f"the default ({unused})" if unused else UNKNOWN
