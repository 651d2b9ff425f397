"""Image files to pixels, and the two cheap augmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from s3ta.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_MODES = {1: "L", 3: "RGB"}


def load_image(path: Path, size: int, channels: int) -> UInt8[np.ndarray, "C H W"]:
    """A picture as size x size pixels: shorter side resized (bicubic, anti-aliased), centre cut out, RGB or grey.

    Raises UserError where the file is missing, is no image, or holds numbers that are not 8-bit colours."""
    if channels not in _MODES:
        raise UserError(f"The model takes images with {channels} channels; image files have 1 or 3.")
    try:
        with Image.open(path) as picture:
            if picture.mode in ("F", "I", "I;16", "I;16B"):
                raise UserError(
                    f"{path} holds {'floating-point' if picture.mode == 'F' else '16- or 32-bit'} pixels: "
                    "save it with 8 bits per channel first."
                )
            pixels = np.array(fit(picture.convert(_MODES[channels]), size))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not an image.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image ({type(error).__name__}): it is damaged or of another kind."
        ) from None
    return np.ascontiguousarray(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))


def fit(picture: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side to `size` and cut out the centre (offsets rounded down)."""
    width, height = picture.size
    scale = size / min(width, height)
    if scale != 1:
        width, height = max(size, round(width * scale)), max(size, round(height * scale))
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def crop_flip(pixels: UInt8[np.ndarray, "C H W"], generator: np.random.Generator) -> UInt8[np.ndarray, "C H W"]:
    """Shift by up to an eighth of the size, black where nothing was, and mirror with probability 1/2."""
    _, height, width = pixels.shape
    pad = max(1, height // 8)
    top, left = generator.integers(0, 2 * pad + 1, 2)
    moved = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad)))[:, top : top + height, left : left + width]
    return np.ascontiguousarray(moved[:, :, ::-1] if generator.random() < 0.5 else moved)
