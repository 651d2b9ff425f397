"""CIFAR-10 at 8/255, small enough for a first look on a CPU."""

from __future__ import annotations

from s3ta.attacks import PGDConfig
from s3ta.data import DataConfig
from s3ta.models import model_config
from s3ta.train import OptimizerConfig, ScheduleConfig, TrainConfig

DEPARTURES = (
    "Adam with a cosine decay instead of SGD: a CPU affords two or three short epochs, not 120.",
    "Training attack: untargeted PGD with 3 steps at radius 8/255 (the usual threat model on CIFAR-10) instead of "
    "random-targeted PGD at 16/255.",
    "A clean phase, then a rise of the radius; gradient clipping at norm 1; no label smoothing, no weight decay.",
    "Model: a vision net of three small units instead of ResNet-152, and a controller of 128 units instead of 1,024.",
)


def s3ta_4_mini() -> TrainConfig:
    """S3TA with 4 glimpses on CIFAR-10, small: shows that the road from real colour images to a report is open.

    Source: none; a smoke run on real images. Expected: clean and robust accuracy well above chance (10%), far below the
    literature (ResNet-18 size: 83% clean, 50% robust). Hardware and hours: two CPU cores, about 10 minutes."""
    return _cifar10("s3ta_4_mini", "s3ta_4_resnetv2_mini")


def resnetv2_mini_dense() -> TrainConfig:
    """The plain rival of `cifar10/s3ta_4_mini`: the same vision net, average pool.

    Source, expected result, hardware and hours as there."""
    return _cifar10("resnetv2_mini_dense", "resnetv2_mini_dense")


def _cifar10(name: str, model: str) -> TrainConfig:
    return TrainConfig(
        name=f"cifar10/{name}",
        source="a small run on CIFAR-10; no published counterpart",
        departures=DEPARTURES,
        data=DataConfig(source="torchvision:CIFAR10", augment="crop_flip"),
        model=model_config(model, num_classes=10, image_size=32, in_channels=3),
        attack=PGDConfig(objective="untargeted", radius=8 / 255, step_size=4 / 255, num_attack_steps=3),
        optimizer=OptimizerConfig(kind="adam", learning_rate=2e-3, weight_decay=0.0, clip_norm=1.0),
        schedule=ScheduleConfig(num_train_steps=1200, decay="cosine", clean_steps=400, radius_ramp_steps=400),
        batch_size=128,
        label_smoothing=0.0,
        validate_every=200,
    )
