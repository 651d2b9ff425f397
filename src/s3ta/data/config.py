"""Which data, as a config: a source, its image size, and how training images are augmented."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from s3ta.config import Config


class DataConfig(Config):
    """A data source and what is done to its images."""

    source: str = "digits"
    """`digits`, `torchvision:CIFAR10`, `folder:PATH` (train/CLASS/*, test/CLASS/*) or `npz:PATH` (train.npz, test.npz)."""
    image_size: Annotated[int, Field(gt=0)] | None = None
    """Height and width in pixels; None keeps the source's own. Folders need one: resize the shorter side, cut the centre."""
    channels: Literal[1, 3] | None = None
    """Read image files as RGB (3, the default) or grey (1); other sources have channels of their own."""
    augment: Literal["none", "crop_flip"] = "none"
    """Training only. crop_flip: shift by up to 1/8 of the size (edges padded with black) and mirror every second image."""
    num_validation: Annotated[int, Field(ge=0)] | None = None
    """Training examples set apart for choices (default 1,000); digits have a validation split of their own."""
