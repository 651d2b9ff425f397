"""Which normalisation a foreign network gets, and where it comes from: given, stored with the weights, or the library's."""

from __future__ import annotations

from collections.abc import Sequence

from s3ta.errors import UserError
from s3ta.models.classifier_wrapper import DEFAULT_PROVENANCE, PreparationSources
from s3ta.models.external_weights import FillResult
from s3ta.models.hub_config import Beside, Row, for_unit_pixels, normalisation_beside, preparation_unused, shown
from s3ta.models.load_options import LoadOptions
from s3ta.models.timm_torchvision import BuiltNetwork


def choose_normalisation(
    network: BuiltNetwork, stored: FillResult, options: LoadOptions, in_channels: int, source: str
) -> tuple[Row | None, Row | None, tuple[str, ...], PreparationSources]:
    """What is given, unless the weights say otherwise; else what is stored with the weights, or beside; else the library's.

    Returns mean, std, notes, and the origins with what files beside the weights say in vain.
    Raises UserError for a contradiction, for half of one, and for a row of the wrong length that nobody gave."""
    library = next(iter(network.library), "")
    mean, std, notes = options.mean, options.std, tuple[str, ...]()
    beside, unused_preparation = Beside(), ""
    if (file := stored.path) is not None:
        if all(row is None for row in (mean, std, stored.mean, stored.std)):
            beside = normalisation_beside(file)
            stored, notes = stored._replace(mean=beside.mean, std=beside.std), beside.notes
        unused_preparation = preparation_unused(file, timm=library == "timm")
    if mean is not None and std is None and stored.std is None:
        raise UserError("--mean is given without --std: give both; --std 1 where nothing is divided.")
    if std is not None and mean is None and stored.mean is None:
        raise UserError("--std is given without --mean: give both; --mean 0 where nothing is subtracted.")
    is_given = mean is not None and std is not None
    if mean is not None and std is not None:
        mean, std, notes = for_unit_pixels(mean, std, "given")
    given = {"mean": mean, "std": std}
    for what, row in given.items():
        of_weights = getattr(stored, what)
        refuse_contradiction(what, row, of_weights, source)
        if row is None:
            given[what] = row = getattr(network, what) if of_weights is None else of_weights
            if row is not None and len(row) not in (1, in_channels):
                raise UserError(
                    f"{source} has a {what} for {len(row)} channels: say --mean and --std for {in_channels}."
                )
    usual = f"{library}'s" if network.mean is not None else _default(beside.unused)
    preparation = _default(unused_preparation)
    if network.view is not None:
        preparation = f"{library}'s{f' ({unused_preparation})' if unused_preparation else ''}"
    normalisation = "given" if is_given else usual if stored.mean is None else "stored with the weights"
    origins = PreparationSources(normalisation, preparation, network.remarks)
    return given["mean"], given["std"], notes, origins


def refuse_contradiction(what: str, given: Row | None, stored: Row | None, source: str) -> None:
    """UserError where a mean or a deviation is given and the weights are stored with another."""
    if given is not None and stored is not None and not same_numbers(given, stored):
        raise UserError(
            f"The weights for {source} are stored with {what} {shown(stored)}, but the {what} given is {shown(given)}: "
            "give the same, or remove it from the file."
        )


def same_numbers(mine: Sequence[float], other: Sequence[float]) -> bool:
    """Equal to the digits that people write."""
    length = max(len(mine), len(other))
    rows = [[*row] * length if len(row) == 1 else [*row] for row in (mine, other)]
    return len(rows[0]) == len(rows[1]) and all(abs(a - b) < 1e-3 for a, b in zip(*rows, strict=True))


def _default(unused: str) -> str:
    return f"the default ({unused})" if unused else DEFAULT_PROVENANCE
