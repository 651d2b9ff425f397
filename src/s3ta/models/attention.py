"""One look at the feature map: the fixed spatial basis and the attention read, as pure functions.

The basis is read apart from the features. Concatenating it to keys and values, as the paper's figures draw it, would
copy the whole map (7 instead of 0.2 MB kept per image at paper size); the answers are the same.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def spatial_basis(height: int, width: int, num_frequencies: int = 4, origin: float = 0.0) -> Float[Tensor, "S h w"]:
    """The fixed code of every place: all products of a row and a column function (M6; paper A.2.5).

    An axis of length n has cos(pi u i / n) for u = 1..U, then sin(pi u i / n), with i = origin..origin+n-1 (M7:
    frequency 0 would make dead channels). Channel a * 2U + b is row function a times column function b. Values lie in [-1, 1];
    the squares over the S = (2U)^2 channels sum to U^2 at every place. Float64."""
    rows, columns = _axis(height, num_frequencies, origin), _axis(width, num_frequencies, origin)
    return torch.einsum("ai,bj->abij", rows, columns).flatten(0, 1)


def _axis(length: int, num_frequencies: int, origin: float) -> Float[Tensor, "A n"]:
    frequency = torch.arange(1, num_frequencies + 1, dtype=torch.float64, device="cpu")
    position = torch.arange(length, dtype=torch.float64, device="cpu") + origin
    angle = math.pi / length * frequency[:, None] * position
    return torch.cat([angle.cos(), angle.sin()])


def attend(
    query: Float[Tensor, "B N Q"],
    keys: Float[Tensor, "B K h w"],
    values: Float[Tensor, "B V h w"],
    basis: Float[Tensor, "S h w"],
) -> tuple[Float[Tensor, "B N V+S"], Float[Tensor, "B N h w"]]:
    """Read one answer per head (paper section 3 and A.1; M8).

    Each place's logit is the inner product of the query with [keys; basis] there, without a 1/sqrt factor. The softmax
    runs over all places at once, so each head's map sums to one, and one map weighs every value and basis channel.

    Args:
      query: as long as the keys and the basis together, Q = K + S; keys first.
      keys, values: the vision net's map, divided by channels.
      basis: the same for every example.
    Returns:
      The answers, values first and basis last, and the attention maps. Neither is detached."""
    num_keys = keys.shape[1]
    place_BKp, place_BVp, basis_Sp = keys.flatten(2), values.flatten(2), basis.flatten(1)
    logits_BNp = query[..., :num_keys] @ place_BKp + query[..., num_keys:] @ basis_Sp
    weights_BNp = logits_BNp.softmax(dim=-1)
    answers = torch.cat([weights_BNp @ place_BVp.mT, weights_BNp @ basis_Sp.mT], dim=-1)
    return answers, weights_BNp.unflatten(-1, keys.shape[-2:])
