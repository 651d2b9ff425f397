"""From a picture of any size to the square that a model takes, by a rule that has a name and can be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator

from s3ta.config import Config
from s3ta.data.resize import Cut, bicubic
from s3ta.errors import UserError, unknown_name

_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Preprocessing(Config):
    """The shorter side is resized, then the centre is cut out. Pillow's filters average where they shrink."""

    resize: Annotated[int, Field(gt=0)] | None = None
    """Pixels of the shorter side before the cut; None: the image size itself."""
    interpolation: Literal["bicubic", "bilinear", "bicubic_aliased", "none"] = "bicubic"
    """bicubic, bilinear: Pillow's; bicubic_aliased: OpenCV's, which does not average; none: not resized, only cut."""
    rounding: Literal["nearest", "half_up", "torchvision"] = "nearest"
    """nearest: longer side to the nearest pixel (halves to the even one), offset of the cut down; half_up: the same with
    halves up, as FD; torchvision (also timm): longer side down, offset to the nearest."""
    image_size: Annotated[int, Field(gt=0)] | None = None
    """The size that it is meant for, where its name says one; another is refused. None: any."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Preprocessing:
        if self.interpolation == "none" and self.resize is not None:
            raise ValueError("interpolation none does not resize: leave resize out")
        if self.resize is not None and self.image_size is not None and self.resize < self.image_size:
            raise ValueError(f"a cut of {self.image_size} px does not fit a shorter side of {self.resize} px")
        return self


DEFAULT = Preprocessing()

PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "default": DEFAULT,
    # FD and the paper (E1), with OpenCV's bicubic filter, which does not average (X18).
    "fd": Preprocessing(resize=256, interpolation="bicubic_aliased", rounding="half_up", image_size=224),
    # RobustBench's, as torchvision's Resize and CenterCrop do them. Its Res224 only resizes, so that images that are not
    # square cannot be batched: here their centre is cut. Crop288 fills what a smaller image lacks with black.
    "Res256Crop224": Preprocessing(resize=256, interpolation="bilinear", rounding="torchvision", image_size=224),
    "BicubicRes256Crop224": Preprocessing(resize=256, rounding="torchvision", image_size=224),
    "Res224": Preprocessing(resize=224, interpolation="bilinear", rounding="torchvision", image_size=224),
    "Crop288": Preprocessing(interpolation="none", rounding="torchvision", image_size=288),
}


def get_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of this name. Raises UserError for an unknown name, with the nearest ones."""
    if name not in PREPROCESSINGS:
        raise unknown_name("preprocessing", name, PREPROCESSINGS)
    return PREPROCESSINGS[name]


def preprocessing_of_view(resize: int, interpolation: Literal["bicubic", "bilinear"], image_size: int) -> Preprocessing:
    """What a model's authors do, in the numbers of `models.View`, by the rules of torchvision and timm.

    Raises UserError where the cut does not fit."""
    if resize < image_size:
        raise UserError(f"A cut of {image_size} px does not fit a shorter side of {resize} px: resize to {image_size}.")
    return Preprocessing(resize=resize, interpolation=interpolation, rounding="torchvision", image_size=image_size)


def described(how: Preprocessing, image_size: int) -> dict[str, Any]:
    """What a manifest records: name (`custom` where there is none) and every number, the same for the same pixels."""
    told = _resolved(how, image_size)
    names = (
        name
        for name, known in PREPROCESSINGS.items()
        if known.image_size in (None, image_size) and _resolved(known, image_size) == told
    )
    return {"name": next(names, "custom"), **told}


def _resolved(how: Preprocessing, image_size: int) -> dict[str, Any]:
    resize = None if how.interpolation == "none" else how.resize or image_size
    return {
        "resize": resize,
        "interpolation": how.interpolation,
        "rounding": how.rounding,
        "image_size": image_size,
    }


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
        Cut(0, side, long, _offset(long - size, how.rounding)) for side, long in zip(picture.size, scaled, strict=True)
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
        scale = target / shorter
        whole = _half_up if how.rounding == "half_up" else round
        width, height = (max(target, whole(side * scale)) for side in size)
    return width, height


def _half_up(number: float) -> int:
    return int(number + 0.5)


def _offset(surplus: int, rounding: str) -> int:
    """Where the cut begins; what is too small lies in the middle, the odd black line at its end."""
    if surplus < 0:
        return -(-surplus // 2)
    return round(surplus / 2) if rounding == "torchvision" else surplus // 2
