"""The names of ImageNet's 1,000 classes."""

from __future__ import annotations

from functools import cache


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1,000 WordNet ids in the order of ImageNet-1k's class numbers, which is that of the alphabet (from timm)."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())
