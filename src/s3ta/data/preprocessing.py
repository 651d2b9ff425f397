"""From a picture of any size to the square that a model takes, by a rule that has a name and can be recorded."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from s3ta.data.config import DEFAULT, PREPROCESSINGS, Preprocessing
from s3ta.data.opencv_bicubic import AxisResize, bicubic

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def described(how: Preprocessing, image_size: int) -> dict[str, Any]:
    """What a manifest records: name (`custom` where there is none) and every number, the same for the same pixels."""
    resolved = _resolved(how, image_size)
    names = (
        name
        for name, known in PREPROCESSINGS.items()
        if known.image_size in (None, image_size) and _resolved(known, image_size) == resolved
    )
    return {"name": next(names, "custom"), **resolved}


def _resolved(how: Preprocessing, image_size: int) -> dict[str, Any]:
    resize = None if how.interpolation == "none" else how.resize or image_size
    return how.model_dump() | {"resize": resize, "image_size": image_size}


def fit(picture: Image.Image, size: int, how: Preprocessing = DEFAULT) -> Image.Image:
    """Resize the shorter side and cut out the centre, size x size; black where nothing was resized and it is smaller."""
    scaled = scaled_size(picture.size, size, how)
    if scaled != picture.size and how.interpolation == "bicubic_aliased":
        return _fit_aliased(picture, size, how, scaled)
    if scaled != picture.size:
        picture = picture.resize(scaled, _RESAMPLING[how.interpolation])
    left, top = (_offset(length - size, how.rounding) for length in scaled)
    return picture.crop((left, top, left + size, top + size))  # beyond the picture: black


def _fit_aliased(picture: Image.Image, size: int, how: Preprocessing, scaled: tuple[int, int]) -> Image.Image:
    columns, rows = (
        AxisResize(0, side, long, _offset(long - size, how.rounding))
        for side, long in zip(picture.size, scaled, strict=True)
    )
    array = np.array(picture)
    pixels = torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None]
    resized = bicubic(pixels, [rows], [columns], (size, size))[0].permute(1, 2, 0).numpy()
    return Image.fromarray(resized.reshape(size, size, *array.shape[2:]))


def scaled_size(size: tuple[int, int], image_size: int, how: Preprocessing) -> tuple[int, int]:
    """(width, height) after the resize."""
    if how.interpolation == "none":
        return size
    target, shorter = how.resize or image_size, min(size)
    if how.rounding == "torchvision":
        width, height = (target if side == shorter else int(target * side / shorter) for side in size)
    else:
        exact, half_up = [side * (target / shorter) for side in size], how.rounding == "half_up"
        width, height = (max(target, int(side + 0.5) if half_up else round(side)) for side in exact)
    return width, height


def _offset(surplus: int, rounding: str) -> int:
    """Where the cut begins; what is too small lies in the middle, the odd black line at its end."""
    if surplus < 0:
        return -(-surplus // 2)
    return round(surplus / 2) if rounding == "torchvision" else surplus // 2
