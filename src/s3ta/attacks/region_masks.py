"""Parts of an image as arrays: pixel masks, and regions that attention is steered onto."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attack_config import BoxRegion, GridRegion
from s3ta.attack_settings_checks import box_length, cell_of_pixel, vanished_cells, vanished_sentence
from s3ta.attacks.draws import RandomKey
from s3ta.errors import UserError
from s3ta.random_streams import stream


def region_mask(region: BoxRegion | GridRegion, like: Tensor, draw: RandomKey | None) -> Float[Tensor, "#B 1 H W"]:
    """1 inside the region and 0 outside, on the last two axes of `like`.

    A place that the region leaves open belongs to (seed, "place", example id) alone: the same for every attack and
    restart, so that all of them have one threat model. Raises UserError where a `#` of a grid covers no pixel."""
    height, width = like.shape[-2:]
    if isinstance(region, GridRegion):
        if vanished_cells(region.rows, height, width):
            raise UserError(vanished_sentence(region.rows, height, width))
        inside = torch.tensor([[cell == "#" for cell in row] for row in region.rows], dtype=like.dtype)
        down, right = cell_of_pixel(len(region.rows), height), cell_of_pixel(len(region.rows[0]), width)
        return inside[down][:, right][None, None].to(like.device)
    if region.row is not None and region.column is not None:
        return _box(region, (0.0, 0.0), height, width)[None, None].to(like)
    assert draw is not None, "a region without a place needs `draw`"
    drawn = [stream(draw.seed, "place", example_id).random(2) for example_id in draw.ids]
    return torch.stack([_box(region, (float(a), float(b)), height, width) for a, b in drawn])[:, None].to(like)


def _box(region: BoxRegion, drawn: tuple[float, float], height: int, width: int) -> Tensor:
    inside = torch.zeros(height, width)
    rows = _stretch(region.height, region.row, drawn[0], height)
    inside[rows, _stretch(region.width, region.column, drawn[1], width)] = 1
    return inside


def _stretch(share: float, middle: float | None, drawn: float, size: int) -> slice:
    """That share of `size` pixels around the middle; without one every place is as likely, for `drawn` uniform in [0, 1)."""
    length = box_length(share, size)
    first = int(drawn * (size - length + 1)) if middle is None else round(middle * size - length / 2)
    first = min(max(first, 0), size - length)
    return slice(first, first + length)
