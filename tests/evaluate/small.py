"""A small evaluation that takes a second: random weights on a few cluttered digits."""

from __future__ import annotations

import numpy as np
import torch

from s3ta.attacks import PGDConfig
from s3ta.data import ClutteredDigits, Dataset
from s3ta.data.sources import Subset
from s3ta.evaluate import NamedAttack, Settings, Suite
from s3ta.models import create_model

SETTINGS = Settings(seed=3, micro_batch=4, num_threads=1, num_kept=3)


def small_model(name: str = "s3ta_2_resnetv2_mini", num_classes: int = 10) -> torch.nn.Module:
    torch.manual_seed(5)
    model = create_model(name, num_classes=num_classes, image_size=60, in_channels=1)
    for buffer_name, buffer in model.named_buffers():
        if buffer_name.endswith("running_mean"):
            buffer.uniform_(-0.1, 0.1)
    return model


def small_suite(num_restarts: int = 1) -> Suite:
    attacks = (
        NamedAttack(
            name="untargeted-3",
            attack=PGDConfig(
                objective="untargeted",
                radius=0.1,
                step_size=0.05,
                num_attack_steps=3,
                read_outs=(1, 2),
                num_restarts=num_restarts,
            ),
        ),
        NamedAttack(
            name="targeted-2",
            attack=PGDConfig(
                objective="targeted", radius=0.1, step_size=0.05, num_attack_steps=2, num_restarts=num_restarts
            ),
        ),
    )
    return Suite(name="small", description="a test", attacks=attacks, gallery_attack="targeted-2")


def some_digits(count: int = 11) -> Dataset:
    whole = ClutteredDigits("test")
    return Subset(whole, "test", np.linspace(0, len(whole.ids) - 1, count).astype(int).tolist())


def ignore(completed: int, note: str = "") -> None:
    """A progress reporter that tells nobody."""
