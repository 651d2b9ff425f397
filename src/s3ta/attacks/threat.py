"""What the attacker may do: a ball around each clean image, inside the box of valid pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.trace import Images


class Linf(NamedTuple):
    """Every pixel may move by at most `radius` and must stay in [0, 1] (paper section 4; radius 16/255 there)."""

    radius: float

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed images: first into the ball, then into the box.

        Written as clean + clamp(difference), so that iterates equal those of other libraries bit for bit."""
        return (clean + (images - clean).clamp(-self.radius, self.radius)).clamp(0, 1)

    def start(self, clean: Images, noise: Float[Tensor, "B C H W"]) -> Images:
        """A point of the ball for noise in [-1, 1] (zero: the clean image), projected (T17)."""
        return self.project(clean + self.radius * noise, clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        """How far each image is from its clean one, in the unit of `radius`."""
        return (images - clean).abs().flatten(1).amax(dim=1)

    def violation(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        """How far each image leaves the ball or the box; 0 when it keeps both."""
        outside_ball = (self.distance(images, clean) - self.radius).clamp(min=0)
        outside_box = (images - images.clamp(0, 1)).abs().flatten(1).amax(dim=1)
        return torch.maximum(outside_ball, outside_box)
