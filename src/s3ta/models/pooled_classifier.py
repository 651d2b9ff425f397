"""The plain rivals: the same vision net, read by averaging over all places and one linear layer (C1, M16)."""

from __future__ import annotations

from s3ta.models.config import ResNetConfig
from s3ta.models.vision import VisionClassifier, linear
from s3ta.types import Images, Logits


class PooledClassifier(VisionClassifier):
    """Images in [0, 1] -> logits. With `vision.dense` it is the stride-matched control of S3TA."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__(config)
        self.classifier = linear(self.vision.num_features, config.num_classes)

    def _get_name(self) -> str:
        """As torch prints it: manifests hold a hash of the printed modules, made when the class was called so."""
        return "ResNet" if type(self) is PooledClassifier else super()._get_name()

    def forward(self, images: Images) -> Logits:
        return self.classifier(self.vision(images).mean(dim=(2, 3)))
