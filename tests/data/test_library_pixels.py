"""Image files reach a network of timm or torchvision as its library's own transform shows them, to the last byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image

from s3ta.data import DataConfig, open_dataset, with_evaluation_transform
from s3ta.models import LoadOptions, model_metadata, open_model

SIZES = ((413, 300), (256, 256), (97, 181), (224, 225), (641, 259))
NAMES = (
    *(f"timm:{name}" for name in ("test_resnet", "test_vit", "test_efficientnet", "resnet10t", "lcnet_035")),
    *(f"torchvision:{name}" for name in ("resnet18", "squeezenet1_1", "mobilenet_v3_small", "mnasnet0_5")),
    "torchvision:shufflenet_v2_x0_5",
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of random pictures of odd sizes; random pixels show every shift and every other filter."""
    root, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(4)
    (root / "val" / "noise").mkdir(parents=True)
    for number, (width, height) in enumerate(SIZES):
        pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "val" / "noise" / f"{number}.png")
    return root


def transform_of(source: str):
    """The library's own, with its mean and std."""
    library, _, name = source.partition(":")
    if library == "timm":
        config = timm.data.resolve_model_data_config(timm.create_model(name))
        return timm.data.create_transform(**config), config["mean"], config["std"]
    transform = torchvision.models.get_model_weights(name)["DEFAULT"].transforms()
    return transform, transform.mean, transform.std


@pytest.mark.parametrize("source", NAMES)
def test_pixels_are_those_of_the_librarys_own_transform(source: str, pictures: Path) -> None:
    card = model_metadata(open_model(source, LoadOptions(weights="random")))
    config = DataConfig(source=f"folder:{pictures}", image_size=card.image_size)
    data = open_dataset(with_evaluation_transform(config, card.image_size, *card.view), "test", pictures)
    transform, mean, std = transform_of(source)
    for number in range(len(SIZES)):
        with Image.open(pictures / "val" / "noise" / f"{number}.png") as picture:
            shown = transform(picture) * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
        np.testing.assert_array_equal(data.image(number), (shown * 255).round().byte().numpy(), data.ids[number])
