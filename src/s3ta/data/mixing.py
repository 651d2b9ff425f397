"""Mixup and CutMix: each training image is mixed with its neighbour in the batch, and so are their labels.

What is drawn follows from the training step alone, and neighbours are pairs (first with second, third with fourth), so that any
number of processes with an even share mixes the same images.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from s3ta.data.config import MixingConfig
from s3ta.types import Images, Labels


def mixed(
    images: Images, labels: Labels, num_classes: int, config: MixingConfig, generator: np.random.Generator
) -> tuple[Images, Float[Tensor, "B Y"]]:
    """The mixed images, and for each the share of every class in it.

    With probability `config.prob` the batch is mixed: by Mixup (Zhang et al. 2018), image x share + neighbour x (1 - share), or
    by CutMix (Yun et al. 2019), a box of the neighbour; by either half of the time where both are asked for. The share is
    Beta-distributed; that of CutMix is corrected to the pixels of the box."""
    shares = one_hot(labels, num_classes).to(images)
    kinds = [name for name in ("mixup", "cutmix") if getattr(config, name)]
    number, is_mixed = generator.random(2)
    if not is_mixed < config.prob or len(images) < 2:
        return images, shares
    kind = kinds[int(number * len(kinds))]
    alpha = getattr(config, kind)
    share = float(generator.beta(alpha, alpha))
    order = _neighbours(len(images)).to(images.device)
    if kind == "mixup":
        images = share * images + (1 - share) * images[order]
    else:
        rows, columns = _box(generator, share, *images.shape[-2:])
        inside = torch.zeros_like(images[:1, :1], dtype=torch.bool)
        inside[..., rows, columns] = True
        images = torch.where(inside, images[order], images)
        share = 1 - inside.float().mean().item()
    return images, share * shares + (1 - share) * shares[order]


def _neighbours(number: int) -> Tensor:
    """1, 0, 3, 2, ...; the last of an odd number is mixed with itself."""
    order = torch.arange(number) ^ 1
    return order.clamp(max=number - 1)


def _box(generator: np.random.Generator, share: float, height: int, width: int) -> tuple[slice, slice]:
    """A box of 1 - share of the area, of the image's shape, its middle anywhere, cut at the border."""
    slices = []
    for length in (height, width):
        size, middle = int(length * np.sqrt(1 - share)), int(generator.integers(length))
        slices.append(slice(max(0, middle - size // 2), min(length, middle + size - size // 2)))
    return slices[0], slices[1]
