"""Augmentations of training images by name: what is drawn for one example, and its effect on a batch or on a picture.

What happens to an example follows from (seed, epoch, example id) alone. Batches of bytes of one size are changed together, on
any device; one image is a batch of one, so both give the same bytes.

- `crop_flip`: shift by up to an eighth, black where nothing was, and mirror.
- `strong`: for CIFAR-10 without further data, in the manner of Li & Spratling 2023 (cropshift, colour, random erasing):
  brightness, contrast and saturation by 0.75 to 1.25; up to a quarter of the rows and columns cut off, the rest put
  anywhere on black; mirror; a black box half of the time.
- `fd`: T1. `simple`: T2, the form that torchvision has of it, resized and truncated as in T1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from PIL import Image
from torch import Tensor

from s3ta.data.colour_augment import Colours, draw_colours, recolour
from s3ta.data.config import Augment
from s3ta.data.geometric_augment import Crop, draw_crop_flip, draw_crop_shift, draw_fd_crop, draw_simple_crop, moved
from s3ta.data.opencv_bicubic import bicubic
from s3ta.errors import UserError
from s3ta.random_streams import stream

WHOLE = ("simple", "fd")
"""Crop an image file as it was stored, not what a preprocessing left of it."""


def augmented(
    pixels: UInt8[Tensor, "n C H W"], augment: Augment, ids: Sequence[str], draw: tuple[int, int]
) -> UInt8[Tensor, "n C H W"]:
    """The images as training sees them with draw = (seed, epoch); contiguous, on the same device."""
    if augment == "none":
        return pixels
    seed, epoch = draw
    generators = [stream(seed, "augment", epoch, name) for name in ids]
    height, width = pixels.shape[2:]
    if augment == "crop_flip":
        return moved(pixels, [draw_crop_flip(generator, height, width) for generator in generators])
    if augment == "strong":
        colours = [draw_colours(generator, 0.25, "none") for generator in generators]
        moves = [draw_crop_shift(generator, height, width) for generator in generators]
        return moved(recolour(pixels, colours, "channel"), moves)
    drawn = [draw_full_augment(generator, augment, height, width, height) for generator in generators]
    return apply_whole(pixels, drawn, augment, (height, width))


def augmented_pixels(
    pixels: Shaped[np.ndarray, "C H W"], augment: Augment, example_id: str, draw: tuple[int, int] | None
) -> Shaped[np.ndarray, "C H W"]:
    """One image, as `augmented`; without a draw as it is."""
    if draw is None or augment == "none":
        return pixels
    return augmented(torch.from_numpy(pixels)[None], augment, [example_id], draw)[0].numpy()


def augmented_picture(
    picture: Image.Image, size: int, augment: Augment, example_id: str, draw: tuple[int, int]
) -> UInt8[np.ndarray, "3 size size"]:
    """A whole picture (RGB, any size) after `fd` or `simple`; contiguous."""
    generator = stream(draw[0], "augment", draw[1], example_id)
    drawn = draw_full_augment(generator, augment, picture.height, picture.width, size)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    return apply_whole(pixels, [drawn], augment, (size, size))[0].numpy()


def draw_full_augment(
    generator: np.random.Generator, augment: Augment, height: int, width: int, size: int
) -> tuple[Crop, Colours, bool]:
    """What `fd` or `simple` does to an image: its crop, its colours, whether it is mirrored."""
    draw_crop = draw_fd_crop if augment == "fd" else draw_simple_crop
    crop = draw_crop(generator, height, width, size)
    colours = draw_colours(generator, 0.4, "among" if augment == "fd" else "last")
    return crop, colours, bool(generator.random() < 0.5)


def apply_whole(
    pixels: UInt8[Tensor, "n 3 H W"],
    drawn: Sequence[tuple[Crop, Colours, bool]],
    augment: Augment,
    size: tuple[int, int],
) -> UInt8[Tensor, "n 3 h w"]:
    """Crop, resize, recolour; the mirror commutes with colours and is part of the resize."""
    crops, colours, mirrored = zip(*drawn, strict=True)
    cut = bicubic(pixels, [c.rows for c in crops], [c.columns for c in crops], size, mirrored)
    return recolour(cut.contiguous(), colours, "channel" if augment == "fd" else "grey")


def check_augment(augment: Augment, source: str, shape: tuple[int, int, int]) -> None:
    """Raises UserError where images of this shape (C, H, W) have no colours to change, or are no squares to be cut."""
    channels, height, width = shape
    if augment in ("strong", *WHOLE) and channels != 3:
        raise UserError(
            f"data.augment={augment} changes colours, but the images of {source} have {channels} "
            f"channel{'s' * (channels != 1)}, not 3: set data.augment=crop_flip."
        )
    if augment in WHOLE and height != width:
        raise UserError(
            f"data.augment={augment} makes squares, but the images of {source} are {height}x{width}: set data.image_size, "
            "or data.augment=crop_flip."
        )
