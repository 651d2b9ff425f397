"""CIFAR-10 at 8/255: small enough for a first look on a CPU, and at the size that the field compares at.

The larger recipes are for one GPU. All begin with a clean phase and a slow rise of the radius, because small S3TAs stay at
chance without them; plain rivals get the same, so that rivals differ in nothing but the model. None of them has been run to
its end; expected results are the field's for the plain nets. Hours are arithmetic, at 40% of an H200's bfloat16 peak.
"""

from __future__ import annotations

from s3ta.attacks import PGDConfig
from s3ta.config import changed
from s3ta.data import DataConfig
from s3ta.models import model_config
from s3ta.recipes.shared_defaults import FIELD_ATTACK, FIELD_OPTIMIZER, GPU, PRECISION
from s3ta.train import OptimizerConfig, ScheduleConfig, TradesLoss, TrainConfig

DEPARTURES = (
    "Adam with a cosine decay instead of SGD: a CPU affords two or three short epochs, not 120.",
    "Training attack: untargeted PGD with 3 steps at radius 8/255 (the usual threat model on CIFAR-10) instead of "
    "random-targeted PGD at 16/255.",
    "A clean phase, then a rise of the radius; gradient clipping at norm 1; no label smoothing, no weight decay.",
    "Model: a vision net of three small units instead of ResNet-152, and a controller of 128 units instead of 1,024.",
)

NUM_VALIDATION = 1000
BATCH_SIZE = 128
EPOCH = (50_000 - NUM_VALIDATION) // BATCH_SIZE
"""Training steps: 382; the incomplete last batch is dropped (T4)."""
FIELD = (
    "Data: CIFAR-10, shifted and mirrored, instead of ImageNet.",
    "Training attack: untargeted PGD with 10 steps of 2/255 at radius 8/255, always from a random start (the usual threat "
    "model on CIFAR-10), instead of random-targeted PGD at 16/255.",
    "Schedule: SGD at 0.1 in batches of 128 with weight decay 5e-4, without Nesterov or warm-up of the learning rate, for 110 "
    "epochs with drops after 100 and 105 (Pang et al. 2021; Rice et al. 2020 drop after 100 and 150 of 200 epochs and stop "
    "early, since robust accuracy falls soon after the first drop). Weight decay spares biases, BN and the initial "
    "state, where the field's does not.",
    "A clean phase of 5 epochs, then a rise of the radius over 5: small S3TAs stay at chance without them (measured on the "
    "digits). No label smoothing.",
    "Model: a vision net for 32 px with a 3x3 stem instead of ResNet-152; S3TA's head, where there is one, is the paper's.",
    PRECISION,
)
"""Where the recipes at the field's size leave the paper."""
TRADES = (
    *FIELD,
    "Loss: TRADES with beta 6 (Zhang et al. 2019), whose attack ascends the divergence from the clean answer, instead of "
    "cross-entropy on attacked images alone.",
)
STRONG = (
    *(note for note in TRADES if not note.startswith(("Data:", "Schedule:"))),
    "Data: CIFAR-10 with strong augmentation instead of ImageNet.",
    "Schedule: SGD at 0.1 in batches of 128 with weight decay 5e-4, without Nesterov or warm-up of the learning rate, for 200 "
    "epochs with drops after 100 and 150 (Wu et al. 2020). Weight decay spares biases, BN and the initial state, where the "
    "field's does not.",
    "Adversarial weight perturbation with gamma 0.005 from the tenth epoch on (Wu et al. 2020), and a moving average of the "
    "weights with decay 0.995 (Rebuffi et al. 2021), which is the model.",
)


def s3ta_4_mini() -> TrainConfig:
    """S3TA with 4 glimpses on CIFAR-10, small: shows that the road from real colour images to a report is open.

    Source: none; a smoke run on real images. Expected: clean and robust accuracy well above chance (10%), far below the
    literature (ResNet-18 size: 83% clean, 50% robust). Hardware and hours: two CPU cores, about 10 minutes."""
    return small_recipe("s3ta_4_mini", "s3ta_4_resnetv2_mini")


def resnetv2_mini_dense() -> TrainConfig:
    """The plain rival of `cifar10/s3ta_4_mini`: the same vision net, average pool.

    Source, expected result, hardware and hours as there."""
    return small_recipe("resnetv2_mini_dense", "resnetv2_mini_dense")


def resnetv2_18() -> TrainConfig:
    """ResNet-18, pre-activation, 8/255: the field's usual plain net.

    Source: Pang et al. 2021, "Bag of tricks for adversarial training". Expected: about 82% clean, 48% under AutoAttack.
    Hardware and hours: one H200, 6 minutes."""
    return field_recipe("resnetv2_18", "resnetv2_18")


def resnetv2_18_dense() -> TrainConfig:
    """ResNet-18 with S3TA's strides, so a map of 16x16: the control of `cifar10/s3ta_4` (M16).

    Source: none for these strides. Expected: not known; at five times the operations, not below `cifar10/resnetv2_18`.
    Hardware and hours: one H200, 30 minutes."""
    return field_recipe("resnetv2_18_dense", "resnetv2_18_dense")


def s3ta_4() -> TrainConfig:
    """S3TA with 4 glimpses on a ResNet-18.

    Source: none; the paper has no CIFAR-10. Expected: not known; to be compared with `cifar10/resnetv2_18_dense` and
    `cifar10/resnetv2_18`. Hardware and hours: one H200, 30 minutes."""
    return field_recipe("s3ta_4", "s3ta_4_resnetv2_18")


def s3ta_16() -> TrainConfig:
    """S3TA with 16 glimpses on a ResNet-18, with the paper's curriculum in its proportions: 4, 8, 16 glimpses (T23).

    Source: none; the paper has no CIFAR-10. Expected: not known. Hardware and hours: one H200, 32 minutes."""
    curriculum = ((0, 4), (round(110 * EPOCH * 35 / 120), 8), (round(110 * EPOCH * 70 / 120), 16))
    return field_recipe("s3ta_16", "s3ta_16_resnetv2_18", curriculum)


def wrn_28_10() -> TrainConfig:
    """Wide ResNet 28-10, 8/255: the field's usual large net.

    Source: Pang et al. 2021; Gowal et al. 2020 for the size. Expected: about 86% clean, 51 to 52% under AutoAttack without
    further data. Hardware and hours: one H200, 52 minutes."""
    return field_recipe("wrn_28_10", "wrn_28_10")


def wrn_28_10_dense() -> TrainConfig:
    """Wide ResNet 28-10 with S3TA's strides, so a map of 16x16: the control of `cifar10/s3ta_4_wrn_28_10` (M16).

    Source: none for these strides. Expected: not known. Hardware and hours: one H200, 107 minutes."""
    return field_recipe("wrn_28_10_dense", "wrn_28_10_dense")


def s3ta_4_wrn_28_10() -> TrainConfig:
    """S3TA with 4 glimpses on a Wide ResNet 28-10.

    Source: none; the paper has no CIFAR-10. Expected: not known; to be compared with `cifar10/wrn_28_10_dense`.
    Hardware and hours: one H200, 107 minutes."""
    return field_recipe("s3ta_4_wrn_28_10", "s3ta_4_wrn_28_10")


def resnetv2_18_trades() -> TrainConfig:
    """ResNet-18 with TRADES, beta 6.

    Source: Zhang et al. 2019; the schedule of Pang et al. 2021. Expected: about 81% clean, 49% under AutoAttack. Hardware
    and hours: one H200, 7 minutes."""
    return _trades(field_recipe("resnetv2_18_trades", "resnetv2_18"))


def resnetv2_18_awp() -> TrainConfig:
    """ResNet-18 with TRADES, weight perturbation, weight averaging and strong augmentation: no further data.

    Source: Wu et al. 2020 (AWP), Rebuffi et al. 2021 (averaging with augmentation). Expected: 80 to 83% clean, 50 to 52%
    under AutoAttack. Hardware and hours: one H200, 15 minutes."""
    return _awp(field_recipe("resnetv2_18_awp", "resnetv2_18"))


def s3ta_4_awp() -> TrainConfig:
    """S3TA with 4 glimpses on a ResNet-18, trained like `cifar10/resnetv2_18_awp`.

    Source: none for S3TA. Expected: not known; to be compared with that recipe. Hardware and hours: one H200, 80 minutes."""
    return _awp(field_recipe("s3ta_4_awp", "s3ta_4_resnetv2_18"))


def small_recipe(name: str, model: str) -> TrainConfig:
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


def field_recipe(name: str, model: str, glimpses: tuple[tuple[int, int], ...] = ()) -> TrainConfig:
    return TrainConfig(
        name=f"cifar10/{name}",
        source="threat model and schedule of the field on CIFAR-10 (Pang et al. 2021, Rice et al. 2020); S3TA after the paper",
        departures=FIELD,
        suite="quick",
        data=DataConfig(source="torchvision:CIFAR10", augment="crop_flip", num_validation=NUM_VALIDATION),
        model=model_config(model, num_classes=10, image_size=32, in_channels=3),
        attack=FIELD_ATTACK,
        optimizer=FIELD_OPTIMIZER,
        schedule=ScheduleConfig(
            num_train_steps=110 * EPOCH,
            decay="steps",
            decay_at=(100 * EPOCH, 105 * EPOCH),
            clean_steps=5 * EPOCH,
            radius_ramp_steps=5 * EPOCH,
            glimpses=glimpses,
        ),
        compute=GPU,
        batch_size=BATCH_SIZE,
        label_smoothing=0.0,
        validate_every=EPOCH,
        checkpoint_every=EPOCH,
    )


def _trades(recipe: TrainConfig) -> TrainConfig:
    changes = {
        "source": "TRADES (Zhang et al. 2019) with the schedule of Pang et al. 2021",
        "departures": TRADES,
        "attack": {"objective": "divergence"},
        "loss": TradesLoss(beta=6.0),
    }
    return changed(recipe, changes)


def _awp(recipe: TrainConfig) -> TrainConfig:
    changes = {
        "source": "TRADES-AWP (Wu et al. 2020), weight averaging with augmentation (Rebuffi et al. 2021)",
        "departures": STRONG,
        "data": {"augment": "strong"},
        "schedule": {"num_train_steps": 200 * EPOCH, "decay_at": (100 * EPOCH, 150 * EPOCH)},
        "averaging": {"decay": 0.995},
        "weight_perturbation": {"gamma": 0.005, "from_step": 10 * EPOCH},
    }
    return changed(_trades(recipe), changes)
