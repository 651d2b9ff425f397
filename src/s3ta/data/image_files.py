"""Image files to pixels."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from s3ta.data.folder_listing import on_one_line, quoted
from s3ta.data.preprocessing import DEFAULT, Preprocessing, fit, scaled_size
from s3ta.errors import UserError

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


_LFS = b"version https://git-lfs"
_WHY = {
    errno.ENOENT: "does not exist",
    errno.EISDIR: "is a folder, not an image",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "cannot be read: permission is denied"),
    errno.ELOOP: "is a link that leads round in a circle",
}


def why_unreadable(error: Exception, path: Path) -> str:
    """What is wrong with a file that Pillow does not open, after its name."""
    if isinstance(error, OSError) and error.errno is not None:
        return _WHY.get(error.errno, f"cannot be read ({error.strerror or type(error).__name__})")
    with suppress(OSError), path.open("rb") as file:
        beginning = file.read(len(_LFS))
        if not beginning:
            return "is empty: it has no bytes"
        if beginning == _LFS:
            return "is a Git LFS pointer, not the image: run git lfs pull"
    return f"cannot be read as an image ({type(error).__name__}): it is damaged or of another kind"


def has_transparency(file: Path | io.BytesIO) -> bool:
    """Whether a picture has pixels that are not opaque. They are taken as their colours are stored, and those are often
    black, or anything, where a viewer shows the background. False for what is no image."""
    try:
        with Image.open(file) as opened:
            return _is_transparent(opened)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - Pillow's plug-ins raise anything
        return False


def _is_transparent(opened: Image.Image) -> bool:
    return opened.has_transparency_data and opened.convert("RGBA").getchannel("A").getextrema()[0] != 255


def transparency_note(names: Sequence[str], num_images: int) -> str:
    """What to say of pictures with transparent pixels; empty where there are none."""
    if not names:
        return ""
    return (
        f"{len(names)} of {num_images} pictures have transparent pixels ({quoted(names)}): transparency is dropped, as "
        "torchvision does, so that the colours stored underneath are what the model sees. If a background belongs there, "
        "put the pictures on one first (Pillow's Image.alpha_composite)."
    )


def _wide_pixels(opened: Image.Image) -> str:
    """Which numbers the pixels of a picture are, in words, where they are not of 8 bits; else empty.

    Of colours Pillow's mode does not say it: the way in which they are stored does, as in `RGB;16B`. Of 16 bits it would
    take the upper 8, and often fewer than 16 are in use."""
    if opened.mode == "F":
        return "floating-point"
    stored = any(re.search(r";16[BLN]\b", str(tile[3])) for tile in getattr(opened, "tile", []))
    return "16- or 32-bit" if stored or opened.mode in ("I", "I;16", "I;16B") else ""


def decoded(path: Path, size: int, channels: int, how: Preprocessing = DEFAULT) -> Image.Image:
    """The whole picture, RGB or grey, not yet resized. Raises UserError as `load_image`."""
    return looked_over(path, path, size, channels, how)[0]


def looked_over(
    path: Path, file: Path | io.BytesIO, size: int, channels: int, how: Preprocessing = DEFAULT
) -> tuple[Image.Image, bool]:
    """As `decoded`, of a file whose bytes may be read already, and as `has_transparency` where they are; decoded once. The
    path is what the file is called in sentences."""
    if channels not in _MODES:
        raise UserError(f"The model takes images with {channels} channels; image files have 1 or 3.")
    name = on_one_line(path)
    try:
        with Image.open(file) as opened:
            if kind := _wide_pixels(opened):
                raise UserError(f"{name} holds {kind} pixels: save it with 8 bits per channel first.")
            picture = opened.convert(_MODES[channels])
            is_transparent = file is not path and _is_transparent(opened)
    except Image.DecompressionBombError:
        raise UserError(
            f"{name} is too large: it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels."
        ) from None
    except (UserError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's plug-ins raise anything
        raise UserError(f"{name} {why_unreadable(error, path)}.") from None
    width, height = scaled_size(picture.size, size, how)
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{name} has {picture.width}x{picture.height} pixels, too long to be resized to {width}x{height}."
        )
    return picture, is_transparent
