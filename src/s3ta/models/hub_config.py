"""What files beside weights in a folder of the Hub (timm, transformers) say of normalisation and preparation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from s3ta.errors import UserError
from s3ta.files import read_json
from s3ta.models.weight_files import IN_FOLDERS

_FILES = ("config.json", "preprocessor_config.json")
_OF_TRANSFORMERS = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "crop_pct", "do_pad")
_OF_TIMM = ("input_size", "crop_pct", "crop_mode", "interpolation")
"""Settings of how an image file becomes an input."""
_ADVICE = "give --mean and --std, for pixels of 0 to 1"

Row: TypeAlias = tuple[float, ...]


class Beside(NamedTuple):
    """The normalisation that a folder states, for pixels in [0, 1]."""

    mean: Row | None = None
    """None: none is stated."""
    std: Row | None = None
    notes: tuple[str, ...] = ()
    """Sentences for people."""
    unused: str = ""
    """What is said of a normalisation and not used, in words."""


def settings_beside(path: Path) -> dict[str, Any]:
    """What `config.json` says beside weights in a folder of the Hub, with what `preprocessor_config.json` adds."""
    settings: dict[str, Any] = {}
    if path.name in IN_FOLDERS:
        for file in (path.parent / name for name in _FILES):
            content = read_json(file) if file.is_file() else None
            settings |= content if isinstance(content, dict) else {}
    return settings


def preparation_unused(path: Path, *, timm: bool) -> str:
    """Which settings of a folder for the preparation of image files are not used, in words; `timm`: timm reads its own."""
    settings = settings_beside(path)
    stated = settings.get("pretrained_cfg")
    names = [name for name in _OF_TRANSFORMERS if settings.get(name) is not None]
    if isinstance(stated, dict) and not timm:
        names += [name for name in _OF_TIMM if name not in names and stated.get(name) is not None]
    return _unused(path, names)


def normalisation_beside(path: Path) -> Beside:
    """The normalisation that a folder of the Hub states for its weights.

    Raises UserError for half of one, and for numbers that are none or may mean pixels of 0 to 1 as well as of 0 to 255."""
    settings = settings_beside(path)
    label = path.resolve().parent.name
    stated = settings.get("pretrained_cfg")
    if isinstance(stated, dict) and (pair := _pair(stated, ("mean", "std"), f"{label}/{_FILES[0]}")):
        return Beside(*for_unit_pixels(*pair, f"in {label}/{_FILES[0]}"))
    file = f"{label}/{_FILES[1]}"
    if settings.get("do_normalize") == False:  # noqa: E712 - what is absent, or null, is the default: it is done
        pair = (0.0,), (1.0,)
    elif (pair := _pair(settings, ("image_mean", "image_std"), file)) is None:
        return Beside(
            unused=_unused(path, [n for n in ("do_normalize", "do_rescale", "rescale_factor") if n in settings])
        )
    return _rescaled(*pair, settings, file)


def _rescaled(mean: Row, std: Row, settings: dict[str, Any], file: str) -> Beside:
    """(255 * factor * pixel - offset - mean) / std, as transformers computes it, for a pixel in [0, 1]."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    if not _is_number(factor) or factor <= 0:
        raise UserError(f"{file} has rescale_factor {factor!r}, which is no number above 0: {_ADVICE}.")
    scale, offset = 255 * factor, 1.0 if settings.get("rescale_offset") else 0.0
    if math.isclose(scale, 1, rel_tol=1e-3) and not offset:
        return Beside(*for_unit_pixels(mean, std, f"in {file}"))
    if factor == 1 and max(mean + std) <= 2:
        raise UserError(
            f"{file} says that pixels are not rescaled, and its numbers (mean {shown(mean)}, std {shown(std)}) may be for "
            f"pixels of 0 to 1 or of 0 to 255: {_ADVICE}."
        )
    mean, std = tuple((value + offset) / scale for value in mean), tuple(value / scale for value in std)
    if max(map(abs, mean + std)) > 2:
        raise UserError(f"{file} has a mean or a deviation far outside of what its rescale_factor makes: {_ADVICE}.")
    note = f"{file} rescales pixels in its own way: its mean and deviation were divided by {scale:.4g}."
    return Beside(mean, std, (note,))


_OF_BYTES = 10
"""Means and deviations of pixels of 0 to 255 lie far above, of pixels of 0 to 1 far below."""


def for_unit_pixels(mean: Row, std: Row, where: str) -> tuple[Row, Row, tuple[str, ...]]:
    """The normalisation for pixels in [0, 1]: numbers above 10 are for pixels of 0 to 255, and divided; and notes. Numbers that
    are not finite are left for others to refuse.

    Raises UserError where one of the two is for pixels of 0 to 1 and the other for pixels of 0 to 255."""
    if not all(map(math.isfinite, mean + std)) or max(mean + std) <= _OF_BYTES:
        return mean, std, ()
    if min(std) < 1 if max(mean) > _OF_BYTES else any(mean):
        raise UserError(
            f"The normalisation {where} has mean {shown(mean)} and std {shown(std)}, of which one is for pixels of 0 to 1 "
            f"and the other for pixels of 0 to 255: {_ADVICE}."
        )
    note = f"The normalisation {where} is for pixels of 0 to 255; it was divided by 255."
    return tuple(value / 255 for value in mean), tuple(value / 255 for value in std), (note,)


def _pair(settings: dict[str, Any], names: tuple[str, str], file: str) -> tuple[Row, Row] | None:
    rows: list[Row] = []
    for name in names:
        value = settings.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(map(_is_number, values)):
            raise UserError(f"{file} has {name} {value!r}, which is no number and no list of numbers: {_ADVICE}.")
        rows.append(tuple(map(float, values)))
    mean, std = rows
    if bool(mean) != bool(std):
        there, lacking = names if mean else names[::-1]
        raise UserError(f"{file} has {there} and no {lacking}: {_ADVICE} (--mean 0, --std 1 where nothing is done).")
    return (mean, std) if mean else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _unused(path: Path, names: list[str]) -> str:
    return f"what {path.resolve().parent.name} says of {', '.join(names)} is not used" if names else ""


def shown(row: Row) -> str:
    """Its numbers in four digits."""
    return ", ".join(f"{value:.4g}" for value in row)
