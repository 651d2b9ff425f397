"""What the attacker may do: a ball around each clean image, inside the box of valid pixels, perhaps only under a mask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.types import Images


def quantize_8bit(images: Tensor) -> Tensor:
    """The nearest whole 255ths, exactly as a saved image is read again."""
    # by a plain number, a GPU would multiply with its reciprocal
    return (images * 255).round() / images.new_tensor(255)


@dataclass(frozen=True)
class _Ball(ABC):
    radius: float
    mask: Tensor | None = None
    """1 where a pixel may move, 0 where not; anything that broadcasts to (B, C, H, W). None: everywhere."""

    @abstractmethod
    def distance(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        """How far each image is from its clean one, in the unit of `radius`."""

    def allowed(self, change: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """A change, or a gradient, without what it does to pixels that may not move: what a step rule must see, for one that
        looks at the whole image would else spend its length there."""
        return change if self.mask is None else change * self.mask

    def violation(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        """How far each image leaves the ball, the box or the mask; 0 when it keeps all."""
        outside_box = (images - images.clamp(0, 1)).abs().flatten(1).amax(dim=1)
        worst = torch.maximum((self.distance(images, clean) - self.radius).clamp(min=0), outside_box)
        if self.mask is None:
            return worst
        outside_mask = (images - clean).abs() * (1 - self.mask.to(images.dtype))
        return torch.maximum(worst, outside_mask.flatten(1).amax(dim=1))

    def _inside_mask(self, images: Images, clean: Images) -> Images:
        """The images where the mask lets pixels move, the clean ones elsewhere."""
        return images if self.mask is None else torch.where(self.mask.bool(), images, clean)


class Linf(_Ball):
    """Every pixel may move by at most `radius` and must stay in [0, 1] (paper section 4; radius 16/255 there)."""

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed images: first into the ball, then into the box.

        Written as clean + clamp(difference), so that iterates equal those of other libraries bit for bit."""
        moved = self.allowed((images - clean).clamp(-self.radius, self.radius))
        return (clean + moved).clamp(0, 1)

    def start(self, clean: Images, noise: Float[Tensor, "B C H W"]) -> Images:
        """A point of the ball for noise in [-1, 1] (zero: the clean image), projected (T17)."""
        return self.project(clean + self.radius * noise, clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        return (images - clean).abs().flatten(1).amax(dim=1)

    def eight_bit(self, images: Images, clean: Images) -> Images:
        """The nearest allowed images whose pixels are whole numbers of 255ths; the clean images must be such."""
        low, high = (clean - self.radius).clamp(min=0), (clean + self.radius).clamp(max=1)
        steps = (images * 255).round().clamp((low * 255 - _SLACK).ceil(), (high * 255 + _SLACK).floor())
        return self._inside_mask(steps / images.new_tensor(255), clean)


class L2(_Ball):
    """The difference to the clean image has a Euclidean length of at most `radius`; pixels stay in [0, 1]."""

    def project(self, images: Images, clean: Images) -> Images:
        """The nearest allowed images: exactly, in ball and box together, not one after the other.

        The nearest point is the difference times a factor s <= 1, cut at the box, with s as large as the ball allows. Each
        pass solves for s with the pixels now at the box held there, which can only raise s; it ends after a few passes."""
        moved = self.allowed(images - clean).flatten(1)
        low, high = -clean.flatten(1), 1 - clean.flatten(1)
        factor = (self.radius / moved.norm(dim=1, keepdim=True).clamp(min=_TINY)).clamp(max=1)
        for _ in range(moved.shape[1]):
            scaled = factor * moved
            cut = (scaled < low) | (scaled > high)
            at_box = torch.where(cut, scaled.clamp(low, high), 0).square().sum(dim=1, keepdim=True)
            free = torch.where(cut, 0, moved).square().sum(dim=1, keepdim=True)
            raised = ((self.radius**2 - at_box).clamp(min=0) / free.clamp(min=_TINY)).sqrt().clamp(max=1)
            raised = torch.maximum(raised, factor)
            if torch.equal(raised, factor):
                break
            factor = raised
        return (clean + (factor * moved).clamp(low, high).view_as(clean)).clamp(0, 1)

    def start(self, clean: Images, noise: Float[Tensor, "B C H W"]) -> Images:
        """A point of the sphere in the direction of the noise (zero: the clean image), projected."""
        return self.project(clean + self.radius * unit(self.allowed(noise)), clean)

    def distance(self, images: Images, clean: Images) -> Float[Tensor, " B"]:
        return (images - clean).double().flatten(1).norm(dim=1).to(images.dtype)

    def eight_bit(self, images: Images, clean: Images) -> Images:
        """Near allowed images whose pixels are whole numbers of 255ths: rounded, and drawn in where that left the ball."""
        moved, nearest = self.allowed(images - clean) * 255, clean
        for share in torch.linspace(0.5, 1, 26):  # rounding is never outward for small enough shares
            tried = quantize_8bit(clean + share.item() * moved / 255).clamp(0, 1)
            fits = (self.distance(tried, clean) <= self.radius).view(-1, 1, 1, 1)
            nearest = torch.where(fits, tried, nearest)
        return self._inside_mask(nearest, clean)


Threat: TypeAlias = Linf | L2
_TINY = 1e-30
_SLACK = 1e-4
"""In 255ths: a bound that is a whole number but for rounding counts as that number."""


def unit(values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each example's values at Euclidean length 1; zero stays zero."""
    largest = values.abs().flatten(1).amax(dim=1).clamp(min=torch.finfo(values.dtype).tiny).view(-1, 1, 1, 1)
    values = values / largest  # first, for the squares of tiny gradients vanish
    return values / values.flatten(1).norm(dim=1).clamp(min=_TINY).view(-1, 1, 1, 1)
