"""Less memory for more time: activations are kept before every so many residual units and made again on the way back."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s3ta.models.batch_norm import statistics_kept


def recomputed(units: list[nn.Module], features: Tensor, units_per_checkpoint: int) -> Tensor:
    """The units one after the other, with the same answers and gradients as without.

    Made again, BN takes the same batch's statistics but does not move its averages a second time."""
    for first in range(0, len(units), units_per_checkpoint):
        group = nn.Sequential(*units[first : first + units_per_checkpoint])

        def contexts(group: nn.Module = group) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), statistics_kept(group)

        features = checkpoint(group, features, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)  # pyright: ignore[reportAssignmentType]
    return features
