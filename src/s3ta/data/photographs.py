"""Twenty photographs of ImageNet with their labels, which lie in the package foolbox: `photographs`."""

from __future__ import annotations

import re

from s3ta.data.class_matching import imagenet_wnids
from s3ta.data.config import NUM_PHOTOGRAPHS, DataConfig, photographs_folder
from s3ta.data.folder_dataset import FolderDataset
from s3ta.data.folder_layout import Part
from s3ta.data.folder_listing import ImageFile, LeftOut
from s3ta.errors import UserError

_NAME = re.compile(r"imagenet_(\d\d)_(\d{1,3})\.jpg")
"""Number of the photograph, and of its class in ImageNet-1k."""


def open_photographs(config: DataConfig) -> FolderDataset:
    """The photographs with all 1,000 classes of ImageNet, prepared as any image files; their ids are their file names.

    Raises UserError where foolbox is not installed, holds others, or the image size is not known or does not fit."""
    folder, classes = photographs_folder(), imagenet_wnids()
    images: dict[str, list[ImageFile]] = {name: [] for name in classes}
    for path in sorted(folder.iterdir()):
        if match := _NAME.fullmatch(path.name):
            images[classes[int(match[2])]].append(ImageFile(path.name, path.stat().st_size))
    count = sum(len(files) for files in images.values())
    if count != NUM_PHOTOGRAPHS:
        raise UserError(f"{folder} holds {count} photographs of ImageNet, not {NUM_PHOTOGRAPHS}: use foolbox 3.3.")
    return FolderDataset(config, "test", folder, Part(images, LeftOut(), ""))
