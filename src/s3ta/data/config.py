"""Which data, as a config: a source, its image size, how files become pixels, and how training images are augmented."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from s3ta.config import Config
from s3ta.data.augment import Augment
from s3ta.data.preprocessing import DEFAULT, Preprocessing, get_preprocessing, preprocessing_of_view
from s3ta.errors import UserError


def _by_name(value: Any) -> Any:
    """`"Res256Crop224"` -> what it stands for. Anything that is not text is passed on for pydantic to judge."""
    if not isinstance(value, str):
        return value
    try:
        return get_preprocessing(value).model_dump()
    except UserError as error:
        raise ValueError(str(error).removesuffix(".").removesuffix("?")) from None


class DataConfig(Config):
    """A data source and what is done to its images."""

    OUTSIDE_IDENTITY = frozenset({"on_unreadable"})
    source: str = "digits"
    """`digits`, `torchvision:CIFAR10`, `folder:PATH` (train/CLASS/*, test/CLASS/*) or `npz:PATH` (train.npz, test.npz)."""
    image_size: Annotated[int, Field(gt=0)] | None = None
    """Height and width in pixels; None keeps the source's own. Folders need one: resize the shorter side, cut the centre."""
    channels: Literal[1, 3] | None = None
    """Read image files as RGB (3, the default) or grey (1); other sources have channels of their own."""
    augment: Augment = "none"
    """Training only. crop_flip: shift by up to 1/8 of the size (edges padded with black) and mirror every second image;
    strong: for CIFAR-10, crop and shift, mirror, colours, and a black box; fd: crops and colours of ImageNet exactly as T1;
    simple: those of torchvision (T2). The last two cut image files whole, before any preprocessing."""
    num_validation: Annotated[int, Field(ge=0)] | None = None
    """Training examples set apart for choices (default 1,000); digits have a validation split of their own."""
    preprocessing: Annotated[Preprocessing | None, BeforeValidator(_by_name)] = None
    """How image files become pixels: default, fd, Res256Crop224, BicubicRes256Crop224, Res224, Crop288, or numbers. None:
    default; in evaluation what the model's authors do, where it is known."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """Training image files that cannot be read. fail: stop, naming the file; skip: take another example, drawn from the seed,
    in its place. It may change when a stopped run goes on."""

    def identity(self, *, with_defaults: bool = False) -> dict[str, Any]:
        """As of any config; the default preprocessing is the same one whether it is named or not."""
        plain = self.model_copy(update={"preprocessing": None}) if self.preprocessing == DEFAULT else self
        return super(DataConfig, plain).identity(with_defaults=with_defaults)


def with_view(
    config: DataConfig, image_size: int, resize: int, interpolation: Literal["bicubic", "bilinear"]
) -> DataConfig:
    """The config for a model whose authors prepare image files so (the numbers of `models.View`).

    What a person chose stays, and arrays stay as they are stored. Raises UserError where the cut does not fit."""
    chosen = config.preprocessing
    if chosen is None and config.source.startswith("folder:"):
        chosen = preprocessing_of_view(resize, interpolation, image_size)
    return config.model_copy(update={"image_size": image_size, "preprocessing": chosen})
