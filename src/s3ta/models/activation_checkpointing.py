"""Less memory for more time: activations are kept before every so many units and made again on the way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from s3ta.models.batch_norm_statistics import statistics_kept


def checkpoint_groups(units: Sequence[nn.Module], units_per_checkpoint: int) -> Iterator[nn.Sequential]:
    """The units, so many at a time; the last group may have fewer."""
    for first in range(0, len(units), units_per_checkpoint):
        yield nn.Sequential(*units[first : first + units_per_checkpoint])


def recomputed(group: nn.Module, features: Tensor) -> Tensor:
    """The group's answer and gradients as they are without; what it computes on the way is made again for the gradients.

    Made again, BN takes the same batch's statistics but does not move its averages a second time."""
    return checkpoint(
        group,
        features,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), statistics_kept(group)),
    )  # pyright: ignore[reportReturnType]
