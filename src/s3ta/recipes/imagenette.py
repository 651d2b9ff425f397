"""Imagenette at 96 px: ten easy classes of ImageNet, so attention has real photographs to look at for minutes of one GPU.

The data are a folder `imagenette2-96` with `train` and `val`. None of these recipes has been run to its end; hours are
arithmetic, at 40% of an H200's bfloat16 peak.
"""

from __future__ import annotations

from s3ta.data import DataConfig
from s3ta.models import model_config
from s3ta.recipes.shared_defaults import FIELD_ATTACK, FIELD_OPTIMIZER, GPU, PRECISION
from s3ta.train import ScheduleConfig, TrainConfig

NUM_VALIDATION = 500
BATCH_SIZE = 128
EPOCH = (9_469 - NUM_VALIDATION) // BATCH_SIZE
"""Training steps: 70; the incomplete last batch is dropped (T4)."""
DEPARTURES = (
    "Data: Imagenette at 96 px, shifted and mirrored, instead of ImageNet at 224 px.",
    "Training attack: untargeted PGD with 10 steps of 2/255 at radius 8/255, always from a random start, instead of "
    "random-targeted PGD at 16/255: with ten classes that is too weak to teach much.",
    "Schedule: SGD at 0.1 in batches of 128 with weight decay 5e-4, without Nesterov or warm-up of the learning rate, for 60 "
    "epochs with drops after 50 and 55.",
    "A clean phase of 10 epochs, then a rise of the radius over 10: small S3TAs stay at chance without them (measured on the "
    "digits). No label smoothing.",
    "Model: a vision net with a 7x7 stem and no pooling instead of ResNet-152; S3TA's head, where there is one, is the "
    "paper's.",
    PRECISION,
)


def s3ta_4() -> TrainConfig:
    """S3TA with 4 glimpses on a ResNet-18, Imagenette at 96 px, 8/255.

    Source: none. Expected: not known; clean and robust accuracy far above chance (10%). Hardware and hours: one H200, 6
    minutes."""
    return _imagenette("s3ta_4", "s3ta_4_resnetv2_18")


def resnetv2_18() -> TrainConfig:
    """The plain rival of `imagenette/s3ta_4`: ResNet-18 with timm's strides, a map of 6x6.

    Source: none. Expected: not known, as there. Hardware and hours: one H200, 1 minute."""
    return _imagenette("resnetv2_18", "resnetv2_18")


def resnetv2_18_dense() -> TrainConfig:
    """The control of `imagenette/s3ta_4`: ResNet-18 with S3TA's strides, average pool (M16).

    Source: none. Expected: not known, as there. Hardware and hours: one H200, 6 minutes."""
    return _imagenette("resnetv2_18_dense", "resnetv2_18_dense")


def _imagenette(name: str, model: str) -> TrainConfig:
    return TrainConfig(
        name=f"imagenette/{name}",
        source="no published counterpart; settings of the field on CIFAR-10 (Pang et al. 2021), shortened",
        departures=DEPARTURES,
        suite="quick",
        data=DataConfig(
            source="folder:imagenette2-96", image_size=96, augment="crop_flip", num_validation=NUM_VALIDATION
        ),
        model=model_config(model, num_classes=10, image_size=96, in_channels=3),
        attack=FIELD_ATTACK,
        optimizer=FIELD_OPTIMIZER,
        schedule=ScheduleConfig(
            num_train_steps=60 * EPOCH,
            decay="steps",
            decay_at=(50 * EPOCH, 55 * EPOCH),
            clean_steps=10 * EPOCH,
            radius_ramp_steps=10 * EPOCH,
        ),
        compute=GPU,
        batch_size=BATCH_SIZE,
        label_smoothing=0.0,
        validate_every=5 * EPOCH,
        checkpoint_every=EPOCH,
        num_workers=4,
    )
