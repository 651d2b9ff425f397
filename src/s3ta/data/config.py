"""Which data, as a config: a source, its image size, how files become pixels, and how training images are augmented.

Imports no torch; `preprocessing.py` and `augment.py` do what is asked for here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from s3ta.config import Config
from s3ta.errors import UserError, unknown_name
from s3ta.package_files import file_of_package

Augment = Literal["none", "crop_flip", "strong", "simple", "fd"]
SPLIT_NAMES = ("train", "validation", "test")
NUM_PHOTOGRAPHS = 20
TORCHVISION_DATASETS = ("CIFAR10", "CIFAR100", "FashionMNIST", "MNIST")


class Preprocessing(Config):
    """The shorter side is resized, then the centre is cut out. Pillow's filters average where they shrink."""

    resize: Annotated[int, Field(gt=0)] | None = None
    """Pixels of the shorter side before the cut; None: the image size itself."""
    interpolation: Literal["bicubic", "bilinear", "bicubic_aliased", "none"] = "bicubic"
    """bicubic, bilinear: Pillow's; bicubic_aliased: OpenCV's, which does not average; none: not resized, only cut."""
    rounding: Literal["nearest", "half_up", "torchvision"] = "nearest"
    """nearest: longer side to the nearest pixel (halves to the even one), offset of the cut down; half_up: the same with
    halves up, as FD; torchvision (also timm): longer side down, offset to the nearest."""
    image_size: Annotated[int, Field(gt=0)] | None = None
    """The size that it is meant for, where its name says one; another is refused. None: any."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Preprocessing:
        if self.interpolation == "none" and self.resize is not None:
            raise ValueError("interpolation none does not resize: leave resize out")
        if self.resize is not None and self.image_size is not None and self.resize < self.image_size:
            raise ValueError(f"a cut of {self.image_size} px does not fit a shorter side of {self.resize} px")
        return self


DEFAULT = Preprocessing()

PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "default": DEFAULT,
    # FD and the paper (E1), with OpenCV's bicubic filter, which does not average (X18).
    "fd": Preprocessing(resize=256, interpolation="bicubic_aliased", rounding="half_up", image_size=224),
    # RobustBench's, as torchvision's Resize and CenterCrop do them. Its Res224 only resizes, so that images that are not
    # square cannot be batched: here their centre is cut. Crop288 fills what a smaller image lacks with black.
    "Res256Crop224": Preprocessing(resize=256, interpolation="bilinear", rounding="torchvision", image_size=224),
    "BicubicRes256Crop224": Preprocessing(resize=256, rounding="torchvision", image_size=224),
    "Res224": Preprocessing(resize=224, interpolation="bilinear", rounding="torchvision", image_size=224),
    "Crop288": Preprocessing(interpolation="none", rounding="torchvision", image_size=288),
}


def get_preprocessing(name: str) -> Preprocessing:
    """The preprocessing of this name. Raises UserError for an unknown name, with the nearest ones."""
    if name not in PREPROCESSINGS:
        raise unknown_name("preprocessing", name, PREPROCESSINGS)
    return PREPROCESSINGS[name]


def preprocessing_of_transform(
    resize: int, interpolation: Literal["bicubic", "bilinear"], image_size: int
) -> Preprocessing:
    """What a model's authors do, in the numbers of `models.EvaluationTransform`, by the rules of torchvision and timm.

    Raises UserError where the cut does not fit."""
    if resize < image_size:
        raise UserError(f"A cut of {image_size} px does not fit a shorter side of {resize} px: resize to {image_size}.")
    return Preprocessing(resize=resize, interpolation=interpolation, rounding="torchvision", image_size=image_size)


def _by_name(value: Any) -> Any:
    """`"Res256Crop224"` -> what it stands for. Anything that is not text is passed on for pydantic to judge."""
    if not isinstance(value, str):
        return value
    try:
        return get_preprocessing(value).model_dump()
    except UserError as error:
        raise ValueError(str(error).removesuffix(".").removesuffix("?")) from None


class MixingConfig(Config):
    """Training images that are mixed with their neighbours in the batch, with their labels (`data/mixing.py`)."""

    mixup: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8
    """Both parameters of the Beta distribution of Mixup's share; 0: no Mixup."""
    cutmix: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    """The same of CutMix."""
    prob: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of batches that are mixed."""

    @model_validator(mode="after")
    def _mixes(self) -> MixingConfig:
        if not (self.mixup or self.cutmix):
            raise ValueError("give mixup or cutmix a number above 0, or leave mixing out")
        return self


class DataConfig(Config):
    """A data source and what is done to its images."""

    OUTSIDE_IDENTITY = frozenset({"on_unreadable"})
    source: str = "digits"
    """`digits`, `photographs`, `torchvision:CIFAR10`, `folder:PATH` (train/CLASS/*, test/CLASS/*) or `npz:PATH` (train.npz,
    test.npz)."""
    image_size: Annotated[int, Field(gt=0)] | None = None
    """Height and width in pixels; None keeps the source's own. Folders need one: resize the shorter side, cut the centre."""
    channels: Literal[1, 3] | None = None
    """Read image files as RGB (3, the default) or grey (1); other sources have channels of their own."""
    augment: Augment = "none"
    """Training only. crop_flip: shift by up to 1/8 of the size (edges padded with black) and mirror every second image;
    strong: for CIFAR-10, crop and shift, mirror, colours, and a black box; fd: crops and colours of ImageNet exactly as T1;
    simple: those of torchvision (T2). The last two cut image files whole, before any preprocessing."""
    mixing: MixingConfig | None = None
    """Mixup and CutMix of training images; None: neither."""
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


def with_evaluation_transform(
    config: DataConfig, image_size: int, resize: int, interpolation: Literal["bicubic", "bilinear"]
) -> DataConfig:
    """The config for a model whose authors prepare image files so (the numbers of `models.EvaluationTransform`).

    What a person chose stays, and arrays stay as they are stored. Raises UserError where the cut does not fit."""
    chosen = config.preprocessing
    if chosen is None and holds_files(config.source):
        chosen = preprocessing_of_transform(resize, interpolation, image_size)
    return config.model_copy(update={"image_size": image_size, "preprocessing": chosen})


def photographs_folder() -> Path:
    """Where the photographs lie, in the package foolbox, of which nothing is run.

    Raises UserError where it is not installed."""
    return file_of_package("foolbox", "foolbox", "data")


def holds_files(source: str) -> bool:
    """Whether the images of a source are files, which a preprocessing makes pixels of."""
    return source == "photographs" or source.startswith("folder:")


def refuse_unknown_data(source: str, split: str) -> None:
    """UserError for a source or a split that does not exist on any machine, nearest names offered."""
    if split not in SPLIT_NAMES:
        raise unknown_name("split", split, SPLIT_NAMES)
    kind, _, name = source.partition(":")
    if kind == "torchvision" and name:
        if name not in TORCHVISION_DATASETS:
            raise unknown_name("torchvision data set", name, TORCHVISION_DATASETS)
    elif source == "photographs":
        photographs_folder()
        if split != "test":
            raise UserError(
                f"The photographs are {NUM_PHOTOGRAPHS} images to measure on, without a {split} split: use test."
            )
    elif source != "digits" and not (kind in ("folder", "npz") and name):
        raise unknown_name(
            "data source", source, ["digits", "photographs", "torchvision:CIFAR10", "folder:PATH", "npz:PATH"]
        )
