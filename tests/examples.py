"""A real classifier of ImageNet and labelled photographs, out of packages, for the tests of several rooms."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3ta.data import Batch, DataConfig, Dataset, Preprocessing, fetch_batch, open_dataset
from s3ta.errors import UserError
from s3ta.models import Classifier, open_model

SMALLER = Preprocessing(resize=183, rounding="torchvision")
"""For 160 px, at which the network is right as often, in a third of the time."""


def real_network() -> Classifier:
    """EfficientNet-Lite0; the test is skipped where its package is not installed."""
    try:
        model = open_model("example:efficientnet_lite0")
    except UserError as error:
        pytest.skip(str(error))
    assert isinstance(model, Classifier)
    return model


def photograph_data(image_size: int = 160, how: Preprocessing = SMALLER) -> Dataset:
    """The photographs; the test is skipped where foolbox is not installed."""
    try:
        return open_dataset(
            DataConfig(source="photographs", image_size=image_size, preprocessing=how), "test", Path("nowhere")
        )
    except UserError as error:
        pytest.skip(str(error))


def photograph_batch() -> Batch:
    """All twenty at 160 px."""
    return fetch_batch(photograph_data(), range(20))
