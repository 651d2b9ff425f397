"""Feature denoising: blocks that smooth a map and add what they made of it (Xie et al. 2019, section 4; protocol C2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, unfold
from torch.utils.checkpoint import checkpoint

from s3ta.models.config import DenoiseConfig

_ROWS = 512
"""Places whose weights are in memory at once: of a 56x56 map 6.4 MB per image in place of 39."""
_WINDOW = 3
"""Width and height of the neighbourhood of the local operations."""


class DenoisingBlock(nn.Module):
    """x + BN(conv(denoised x)): the map plus a 1x1 convolution of its smoothed self, without a ReLU after the sum.

    The BN begins with weights of 0, so that a fresh block is the identity, to the bit."""

    def __init__(self, channels: int, config: DenoiseConfig) -> None:
        super().__init__()
        self.operation = config.operation
        self.theta: nn.Module = nn.Identity()
        self.phi: nn.Module = nn.Identity()
        if config.has_embedding:
            self.theta, self.phi = _embedding(channels), _embedding(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        return features + self.norm(self.conv(self.denoised(features)))

    def denoised(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """The map smoothed by the block's operation."""
        if self.operation == "mean":
            return avg_pool2d(features, _WINDOW, stride=1, padding=_WINDOW // 2, count_include_pad=False)
        if self.operation == "median":
            return median_filter(features)
        theta, phi = self.theta(features), self.phi(features)
        if self.operation == "bilateral":
            return bilateral_filter(theta, phi, features)
        mean = non_local_mean if self.operation == "softmax" else dot_product_mean
        return mean(theta.flatten(2), phi.flatten(2), features.flatten(2)).view_as(features)

    def extra_repr(self) -> str:
        return self.operation


def non_local_mean(
    theta: Float[Tensor, "B E n"], phi: Float[Tensor, "B E n"], values: Float[Tensor, "B C n"]
) -> Float[Tensor, "B C n"]:
    """At each of the n places the mean of all, weighted by the softmax of theta_i . phi_j / sqrt(E) over j.

    The n x n weights are made for some hundred places at a time and, where gradients are wanted, once more on the way back
    instead of being kept."""
    theta = theta * theta.shape[1] ** -0.5
    wants_gradients = torch.is_grad_enabled() and any(part.requires_grad for part in (theta, phi, values))
    means = []
    for queries in theta.split(_ROWS, dim=2):
        if wants_gradients:
            mean = checkpoint(_weighted_mean, queries, phi, values, use_reentrant=False, preserve_rng_state=False)
        else:
            mean = _weighted_mean(queries, phi, values)
        means.append(mean)
    return torch.cat(means, dim=2)


def _weighted_mean(
    queries: Float[Tensor, "B E m"], phi: Float[Tensor, "B E n"], values: Float[Tensor, "B C n"]
) -> Float[Tensor, "B C m"]:
    weights = (queries.mT @ phi).softmax(dim=-1)
    return values @ weights.mT


def dot_product_mean(
    theta: Float[Tensor, "B E n"], phi: Float[Tensor, "B E n"], values: Float[Tensor, "B C n"]
) -> Float[Tensor, "B C n"]:
    """At each of the n places the sum of all, weighted by theta_i . phi_j / n: linear, so the E x C matrix of all places is
    made first, or the n x n weights where they are smaller."""
    num_embedded, num_places = theta.shape[1:]
    if num_places * num_places < num_embedded * values.shape[1]:
        return values @ (phi.mT @ theta) / num_places
    return (values @ phi.mT) @ theta / num_places


def bilateral_filter(
    theta: Float[Tensor, "B E h w"], phi: Float[Tensor, "B E h w"], values: Float[Tensor, "B C h w"]
) -> Float[Tensor, "B C h w"]:
    """As `non_local_mean`, over the 3x3 places around each, those outside the map left out."""
    inside = _neighbours(torch.ones_like(values[:1, :1]))
    logits = (theta.unsqueeze(2) * _neighbours(phi)).sum(dim=1, keepdim=True) * theta.shape[1] ** -0.5
    weights = logits.masked_fill(inside == 0, -torch.inf).softmax(dim=2)
    return (weights * _neighbours(values)).sum(dim=2)


def median_filter(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    """The median of the 3x3 places around each, channel by channel; at the border the map is continued by its edge."""
    margin = _WINDOW // 2
    windows = pad(features, [margin] * 4, mode="replicate").unfold(2, _WINDOW, 1).unfold(3, _WINDOW, 1)
    return windows.flatten(4).median(dim=-1).values


def _neighbours(features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C k h w"]:
    """The 3x3 places around each, zeros outside the map."""
    places = unfold(features, _WINDOW, padding=_WINDOW // 2)
    return places.unflatten(1, (features.shape[1], _WINDOW**2)).unflatten(-1, features.shape[-2:])


def _embedding(channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, channels // 2, 1, bias=False)
    nn.init.normal_(convolution.weight, std=0.01)
    return convolution
