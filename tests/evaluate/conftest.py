"""A trained network, once for the room."""

import pytest

from s3ta.models import PooledClassifier
from tests.evaluate.toys import trained_resnet


@pytest.fixture(scope="session")
def learned() -> PooledClassifier:
    """A mini ResNet that has learned `blobs`; tests do not change it."""
    return trained_resnet()
