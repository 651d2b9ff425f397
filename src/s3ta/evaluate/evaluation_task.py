"""What an evaluation has to do: one model, some examples of a data set, a suite, and how it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from s3ta.data import Dataset
from s3ta.evaluate.attacked_model import attack_copy
from s3ta.evaluate.image_store import TransferImages
from s3ta.evaluate.plan import Settings, targets_of
from s3ta.evaluate.suite import Suite
from s3ta.models import ModelMetadata, device_of, model_metadata


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A model on some examples under a suite."""

    model: nn.Module
    """One that says what it is (`s3ta.models.model_metadata`), on the device to use."""
    dataset: Dataset
    suite: Suite
    positions: Sequence[int]
    """Places of the examples in the data set, in order (`choose_examples`)."""
    settings: Settings
    images: TransferImages | None = None
    """Those of another model's evaluation, for a suite of transfers."""
    unreadable: Sequence[str] = ()
    """Ids of the images that were left out, for they cannot be read."""

    @property
    def info(self) -> ModelMetadata:
        return model_metadata(self.model)

    @property
    def device(self) -> torch.device:
        return device_of(self.model)

    @cached_property
    def ids(self) -> list[str]:
        """Of the examples, in order."""
        return [self.dataset.ids[position] for position in self.positions]

    @cached_property
    def attack_model(self) -> nn.Module:
        """The model to compute gradients with (`attack_copy`)."""
        return attack_copy(self.model, self.settings.attack_execution)

    def targets(self, ids: Sequence[str], labels: Tensor) -> Tensor:
        """The targets of these examples (`targets_of`)."""
        return targets_of(self.settings, ids, labels, self.info.num_classes)
