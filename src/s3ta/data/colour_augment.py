"""Changes of colour in training (T1, T2): drawn per image, applied to a batch of bytes on any device.

Every change ends in bytes again, cut off at 0 and 255 and truncated, as in the pipeline of FD. Arithmetic is float64, one
operation at a time, and means are sums of integers, so that every device and batch gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, LIGHTING = range(4)
NUM_CHANGES = 4

EIGENVALUES = 255 * np.array([0.2175, 0.0188, 0.0045])
"""Standard deviations of ImageNet's colours along their principal axes, of 255 (T1)."""
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
"""The axes as columns; rows are red, green, blue (T1)."""


class Colours(NamedTuple):
    """What happens to the colours of one image."""

    order: tuple[int, ...]
    """The changes, first to last."""
    factors: tuple[float, float, float]
    """Of brightness, contrast and saturation; 1 changes nothing."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What lighting adds to red, green and blue, of 255."""


def draw_colours(
    generator: np.random.Generator, strength: float, lighting: Literal["none", "last", "among"]
) -> Colours:
    """Factors uniform in 1 -/+ strength, in random order; lighting, of normal numbers of deviation 0.1, not at all, after the
    others, or in random order among them (T1)."""
    order = tuple(generator.permutation(NUM_CHANGES if lighting == "among" else LIGHTING).tolist())
    brightness, contrast, saturation = generator.uniform(1 - strength, 1 + strength, 3).tolist()
    if lighting == "none":
        return Colours(order, (brightness, contrast, saturation))
    red, green, blue = (EIGENVECTORS @ (generator.normal(0, 0.1, 3) * EIGENVALUES)).tolist()
    order = (*order, LIGHTING) if lighting == "last" else order
    return Colours(order, (brightness, contrast, saturation), (red, green, blue))


def recolour(
    pixels: UInt8[Tensor, "n 3 H W"], drawn: Sequence[Colours], mean_of: Literal["channel", "grey"]
) -> UInt8[Tensor, "n 3 H W"]:
    """The images in other colours, `drawn` for each, all with the same number of changes. Contrast stretches about the mean
    of each channel (T1), or about that of the grey image (torchvision)."""
    order = np.array([colours.order for colours in drawn])
    table = [[*colours.factors, *colours.shift] for colours in drawn]
    numbers = torch.tensor(table, dtype=torch.float64)[..., None, None].to(pixels.device)
    for place in range(order.shape[1]):
        before = pixels
        for change in range(NUM_CHANGES):
            chosen = np.flatnonzero(order[:, place] == change)
            if len(chosen) == len(order):
                pixels = _changed(before, change, numbers, mean_of)
            elif len(chosen):
                at = torch.from_numpy(chosen).to(pixels.device)
                pixels = pixels.index_copy(0, at, _changed(before[at], change, numbers[at], mean_of))
    return pixels


def _changed(
    pixels: UInt8[Tensor, "n 3 H W"], change: int, numbers: Float[Tensor, "n 6 1 1"], mean_of: str
) -> UInt8[Tensor, "n 3 H W"]:
    exact = pixels.double()
    if change == LIGHTING:
        return _to_bytes(exact.add_(numbers[:, 3:]))
    factor = numbers[:, change : change + 1]
    if change == BRIGHTNESS:
        return _to_bytes(exact.mul_(factor))
    if change == SATURATION:
        return _to_bytes(exact.mul_(factor).add_(grey(pixels).double().mul_(1 - factor)))
    of = pixels if mean_of == "channel" else grey(pixels)
    mean = of.sum(dim=(2, 3), keepdim=True, dtype=torch.int64).double() / (pixels.shape[2] * pixels.shape[3])
    return _to_bytes(exact.sub_(mean).mul_(factor).add_(mean))


def _to_bytes(exact: Float[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n 3 H W"]:
    return exact.clamp_(0, 255).to(torch.uint8)


def grey(pixels: UInt8[Tensor, "n 3 H W"]) -> UInt8[Tensor, "n 1 H W"]:
    """0.299 R + 0.587 G + 0.114 B, rounded: OpenCV's bytes, by its whole numbers."""
    red, green, blue = pixels.int().split(1, dim=1)
    total = red.mul_(9798).add_(green.mul_(19235)).add_(blue.mul_(3735)).add_(1 << 14)
    return total.bitwise_right_shift_(15).to(torch.uint8)
