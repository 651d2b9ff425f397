"""What a classifier is made of, as data: the vision net, the attention controller, the input normalisation; and the names of
models, `[s3ta_K_]BACKBONE[_dense]`. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from s3ta.config import Config
from s3ta.errors import unknown_name

Positive = Annotated[int, Field(gt=0)]
Stem = Literal["conv7_pool", "conv7", "conv3"]

BACKBONES = ("resnetv2_mini", "resnetv2_18", "resnetv2_34", "resnetv2_50", "resnetv2_101", "resnetv2_152", "wrn_28_10")


def default_stem(image_size: int) -> Stem:
    """The stem whose dense map fits the input: 28x28 at 224 px, 24x24 at 96, 15x15 at 60, 16x16 at 32."""
    if image_size >= 128:
        return "conv7_pool"
    return "conv7" if image_size >= 48 else "conv3"


class VisionConfig(Config):
    """A pre-activation ResNet, narrow or wide (timm's `ResNetV2`), run once per image."""

    backbone: str = Field(default="resnetv2_152", description=f"One of {', '.join(BACKBONES)}.")
    dense: bool = True
    """Stride 1 in every stage except the second (paper section 3, M1-M3); never dilation. False: timm's own strides."""
    stem: Stem = "conv7_pool"
    """conv7_pool: 7x7/2 then max-pool/2 (the paper, stride 4); conv7: 7x7/2 (stride 2); conv3: 3x3/1 (stride 1)."""
    zero_init_last: bool = False
    """Begin with the last convolution of every unit at zero (M4b, open in the paper: timm's and Sonnet's V2 do not)."""
    in_channels: Positive = 3
    """Image channels: 3 for colour, 1 for grey, any other count too."""
    image_size: Positive = 224
    """Height and width in pixels that the model is meant for; other sizes run, and the spatial basis follows them."""
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = (0.5,)
    """Subtracted from pixels in [0, 1] by the first layer: one number, or one per channel. With std 0.5 this is 2p - 1 (T3)."""
    std: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = (0.5,)
    """Divides after the subtraction; same shape as mean."""


class ResNetConfig(Config):
    """The plain rival: vision net, average pool, one linear layer (C1; `dense` makes the stride-matched control, M16)."""

    kind: Literal["resnet"] = "resnet"
    name: str = "resnetv2_152"
    """What people call it; `create_model(name)` gives this architecture."""
    num_classes: Positive = 1000
    vision: VisionConfig = VisionConfig(dense=False)


class S3TAConfig(Config):
    """Soft, sequential, spatial, top-down attention (paper section 3 and appendix A)."""

    kind: Literal["s3ta"] = "s3ta"
    name: str = "s3ta_16_resnetv2_152"
    """What people call it; `create_model(name)` gives this architecture."""
    num_classes: Positive = 1000
    vision: VisionConfig = VisionConfig()
    num_glimpses: Positive = 16
    """How often the model looks before it answers (the paper's unroll steps, M14); does not change the parameters."""
    num_heads: Positive = 4
    """Queries sent at every glimpse."""
    key_channels: Positive = 32
    """How many of the vision net's channels are keys; the rest are values (M5)."""
    num_frequencies: Positive = 4
    """Frequencies per axis of the spatial basis, which has (2 x this)^2 channels (M6)."""
    basis_origin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where places are counted from in the basis: 0, 0.5 or 1 (M7, open in the paper)."""
    lstm_size: Positive = 1024
    query_hidden: Positive = 1024
    readout_hidden: Positive = 1024
    first_logits: Literal["zeros", "readout"] = "zeros"
    """The logits fed to the first query (M11, open in the paper): zeros, or the read-out of the initial state."""
    detach_feedback: bool = False
    """Stop the gradient through the logits that are fed back (M11a, open in the paper: it flows)."""
    initial_state_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """Standard deviation of the learned initial state at initialisation (M12, open in the paper)."""


ModelConfig = Annotated[ResNetConfig | S3TAConfig, Field(discriminator="kind")]

GLIMPSES = (2, 4, 8, 16)
# A vision net of 64 channels does not feed the paper's 1024-unit controller: the mini's head is scaled to it. From 512 channels
# (resnetv2_18) up the paper's head stays: there it costs 18 MMAC per glimpse, 0.6% of the dense vision net at 32 px.
_MINI_HEAD = {"key_channels": 8, "lstm_size": 128, "query_hidden": 128, "readout_hidden": 128}


def list_models() -> list[str]:
    """Every name that `create_model` is tested with; S3TA takes any number of glimpses in place of those listed."""
    rivals = [name + dense for name in BACKBONES for dense in ("", "_dense")]
    return rivals + [f"s3ta_{glimpses}_{name}" for name in BACKBONES for glimpses in GLIMPSES]


def model_config(
    name: str, num_classes: int = 1000, image_size: int = 224, in_channels: int = 3
) -> S3TAConfig | ResNetConfig:
    """The config that a name stands for; the stem follows the image size.

    Raises UserError for an unknown name (nearest names offered)."""
    match = re.fullmatch(rf"(?:s3ta_([1-9][0-9]*)_)?({'|'.join(BACKBONES)})(_dense)?", name)
    if match is None or (match[1] and match[3]):
        raise unknown_name("model", name, list_models(), "s3ta list models")
    glimpses, backbone, dense = match.groups()
    vision = VisionConfig(
        backbone=backbone,
        dense=bool(glimpses or dense),
        stem=default_stem(image_size),
        in_channels=in_channels,
        image_size=image_size,
    )
    if not glimpses:
        return ResNetConfig(name=name, num_classes=num_classes, vision=vision)
    config = S3TAConfig(name=name, num_classes=num_classes, vision=vision, num_glimpses=int(glimpses))
    return config.model_copy(update=_MINI_HEAD) if backbone == "resnetv2_mini" else config
