"""Image files to pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from s3ta.data.preprocessing import DEFAULT, Preprocessing, fit, scaled_size
from s3ta.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
MOST_PIXELS = 180_000_000  # a strip of one pixel's width would grow to any size
_MODES = {1: "L", 3: "RGB"}


def load_image(path: Path, size: int, channels: int, how: Preprocessing = DEFAULT) -> UInt8[np.ndarray, "C H W"]:
    """A picture as size x size pixels, RGB or grey, by the given preprocessing.

    Pixels are taken as they are stored, as torchvision, timm and RobustBench take them: a note of the camera to turn the
    picture (EXIF) is not followed, transparency is dropped, and of an animation the first picture counts.

    Raises UserError where the file is missing, is no image, or holds numbers that are not 8-bit colours; its sentence
    begins with the path."""
    pixels = np.array(fit(decoded(path, size, channels, how), size, how))
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def decoded(path: Path, size: int, channels: int, how: Preprocessing = DEFAULT) -> Image.Image:
    """The whole picture, RGB or grey, not yet resized. Raises UserError as `load_image`."""
    if channels not in _MODES:
        raise UserError(f"The model takes images with {channels} channels; image files have 1 or 3.")
    try:
        with Image.open(path) as opened:
            if opened.mode in ("F", "I", "I;16", "I;16B"):
                raise UserError(
                    f"{path} holds {'floating-point' if opened.mode == 'F' else '16- or 32-bit'} pixels: "
                    "save it with 8 bits per channel first."
                )
            picture = opened.convert(_MODES[channels])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not an image.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image ({type(error).__name__}): it is damaged or of another kind."
        ) from None
    width, height = scaled_size(picture.size, size, how)
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{path} has {picture.width}x{picture.height} pixels, too long to be resized to {width}x{height}."
        )
    return picture
