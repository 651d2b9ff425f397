"""What a classifier is made of, as data: the vision net, the attention controller, the input normalisation; and the names of
models, `[s3ta_K_]BACKBONE[_dense][_denoise][_se]`. Imports no torch."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from s3ta.config import Config
from s3ta.errors import unknown_name

Positive = Annotated[int, Field(gt=0)]
Stem = Literal["conv7_pool", "conv7", "conv3"]

BACKBONES = (
    "resnetv2_mini",
    "resnetv2_18",
    "resnetv2_34",
    "resnetv2_50",
    "resnetv2_101",
    "resnetv2_152",
    "wrn_28_8",
    "wrn_28_10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
)
"""Vision nets whose strides, stem and units are known here: pre-activation ResNets, wide ones, and those after V1."""


def default_stem(image_size: int) -> Stem:
    """The stem whose dense map fits the input: 28x28 at 224 px, 24x24 at 96, 15x15 at 60, 16x16 at 32."""
    if image_size >= 128:
        return "conv7_pool"
    return "conv7" if image_size >= 48 else "conv3"


class DenoiseConfig(Config):
    """A denoising block after the last unit of every stage (Xie et al. 2019, section 4; C2)."""

    operation: Literal["softmax", "dot_product", "bilateral", "mean", "median"] = "softmax"
    """softmax: non-local means with weights that sum to one, the published one; dot_product: non-local, weights theta.phi over
    the number of places; bilateral: softmax over the 3x3 places around each; mean, median: of these 3x3 places."""
    embedding: bool = True
    """Places are compared after two learned 1x1 convolutions to half the channels; False: as they are. The mean and the median
    compare nothing."""

    @property
    def has_embedding(self) -> bool:
        """Whether the block has these two convolutions."""
        return self.embedding and self.operation not in ("mean", "median")


class VisionConfig(Config):
    """A ResNet (timm's `ResNetV2`, narrow or wide, or `ResNet`) or another network of timm, run once per image."""

    backbone: str = Field(default="resnetv2_152", description=f"One of {', '.join(BACKBONES)}, or a network of timm.")
    dense: bool = True
    """Stride 1 in every stage except the second (paper section 3, M1-M3); never dilation. False: timm's own strides."""
    stem: Stem = "conv7_pool"
    """conv7_pool: 7x7/2 then max-pool/2 (the paper, stride 4); conv7: 7x7/2 (stride 2); conv3: 3x3/1 (stride 1)."""
    padding: Literal["symmetric", "same"] = "symmetric"
    """Of strided convolutions and pools (M4a, open in the paper): symmetric as torch's, or same, TensorFlow's SAME, for weights
    that were trained there."""
    zero_init_last: bool = False
    """Begin with every unit at the identity (M4b, open in the paper: timm's and Sonnet's V2 do not): the last convolution of a
    pre-activation unit at zero, the last BN of one after V1."""
    denoise: DenoiseConfig | None = None
    """Denoising blocks after the stages (C2); None: none."""
    squeeze_excite: bool = False
    """Every unit weighs its channels by what they hold on average, before the addition (SE, reduction 16; C4)."""
    stage: int | None = None
    """Of a network of timm: which of its maps is looked at, counted from 0, or from the end as -2; None: the last."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of a network of timm: the share of images for which its last unit is skipped in training (stochastic depth)."""
    activation: Literal["relu", "softplus"] = "relu"
    """softplus: smooth, as in the published nets of local linearity (C3); ReLU has no second derivative to learn from."""
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
    mlp_hidden: Positive | None = None
    """Units of a hidden layer with ReLU between the average and the answer (an ablation: with the width that
    `models.cost.mlp_hidden_like` gives, as many parameters as an S3TA, and no attention); None: one linear layer."""


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
    num_frequencies: Annotated[int, Field(ge=0)] = 4
    """Frequencies per axis of the spatial basis, which has (2 x this)^2 channels (M6); 0: no basis, so that no query can ask
    for a place."""
    basis_origin: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Where places are counted from in the basis: 0, 0.5 or 1 (M7, open in the paper)."""
    queries: Literal["learned", "none"] = "learned"
    """none: no query network, and the attention is uniform: every head reads the mean of the maps, so that one is enough, and
    the recurrent cell reads answers alone."""
    scaled_attention: bool = False
    """Logits of the attention over sqrt(K + S), the length of keys and basis together (the paper: as they are, M8)."""
    cell: Literal["lstm", "gru"] = "lstm"
    """What carries the state from glimpse to glimpse (the paper: an LSTM, M12)."""
    lstm_size: Positive = 1024
    """Units of the recurrent cell, of whichever kind."""
    query_hidden: Positive = 1024
    readout_hidden: Positive = 1024
    feeds_back_logits: bool = True
    """The query network sees the previous logits beside the hidden state (M10)."""
    first_logits: Literal["zeros", "readout"] = "zeros"
    """The logits fed to the first query (M11, open in the paper): zeros, or the read-out of the initial state."""
    detach_feedback: bool = False
    """Stop the gradient through the logits that are fed back (M11a, open in the paper: it flows)."""
    initial_state_std: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    """Standard deviation of the learned initial state at initialisation (M12, open in the paper)."""

    @model_validator(mode="after")
    def _parts_fit(self) -> S3TAConfig:
        has_queries, has_feedback = self.queries == "learned", self.queries == "learned" and self.feeds_back_logits
        for name, needs, there in (
            ("scaled_attention", "queries=learned", has_queries),
            ("first_logits", "queries=learned and feeds_back_logits=true", has_feedback),
            ("detach_feedback", "queries=learned and feeds_back_logits=true", has_feedback),
        ):
            if not there and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} would change nothing: it needs {needs}")
        return self


ModelConfig = Annotated[ResNetConfig | S3TAConfig, Field(discriminator="kind")]

GLIMPSES = (2, 4, 8, 16)
# A vision net of 64 channels does not feed the paper's 1024-unit controller: the mini's head is scaled to it. From 512 channels
# (resnetv2_18) up the paper's head stays: there it costs 18 MMAC per glimpse, 0.6% of the dense vision net at 32 px.
_MINI_HEAD = {"key_channels": 8, "lstm_size": 128, "query_hidden": 128, "readout_hidden": 128}


def list_models() -> list[str]:
    """Names of models on ResNets; S3TA takes any number of glimpses in place of those listed. Any network of timm that has a
    map may stand in place of the ResNet."""
    rivals = [name + part for name in BACKBONES for part in ("", "_dense", "_denoise", "_se")]
    return rivals + [f"s3ta_{glimpses}_{name}" for name in BACKBONES for glimpses in GLIMPSES]


def model_config(
    name: str, num_classes: int = 1000, image_size: int | None = None, in_channels: int = 3
) -> S3TAConfig | ResNetConfig:
    """The config that a name stands for; the stem of a ResNet follows the image size, 224 px unless said.

    A network of timm is normalised as its own card says, and has that card's image size unless another is said.

    Raises UserError for an unknown name (nearest names offered)."""
    match = re.fullmatch(rf"(?:s3ta_([1-9][0-9]*)_)?({'|'.join(BACKBONES)})(_dense)?(_denoise)?(_se)?", name)
    if match is None:
        return _on_timm(name, num_classes, image_size, in_channels)
    if match[1] and match[3]:
        raise unknown_name("model", name, list_models(), "s3ta list models")
    glimpses, backbone, dense, denoise, squeeze_excite = match.groups()
    image_size = image_size or 224
    vision = VisionConfig(
        backbone=backbone,
        dense=bool(glimpses or dense),
        stem=default_stem(image_size),
        in_channels=in_channels,
        image_size=image_size,
        zero_init_last=backbone.startswith("resnet") and "v2" not in backbone,  # as V1 is published, in timm and in C2
        denoise=DenoiseConfig() if denoise else None,
        squeeze_excite=bool(squeeze_excite),
    )
    return _with_head(name, num_classes, vision, glimpses)


def _on_timm(name: str, num_classes: int, image_size: int | None, in_channels: int) -> S3TAConfig | ResNetConfig:
    """The config of `[s3ta_K_]NAME` with a network of timm."""
    from s3ta.models.timm_backbone import timm_input, timm_names  # which loads torch

    names, match = timm_names(), re.fullmatch(r"(?:s3ta_([1-9][0-9]*)_)?(.+)", name)
    if match is None:
        raise unknown_name("model", name, list_models(), "s3ta list models")
    if match[2] not in names:
        head = f"s3ta_{match[1]}_" if match[1] else ""
        raise unknown_name("model", name, [*list_models(), *(head + known for known in names)], "s3ta list models")
    size, mean, std = timm_input(match[2])
    vision = VisionConfig(backbone=match[2], dense=False, in_channels=in_channels, image_size=image_size or size)
    if len(mean) == in_channels:
        vision = vision.model_copy(update={"mean": mean, "std": std})
    return _with_head(name, num_classes, vision, match[1])


def _with_head(name: str, num_classes: int, vision: VisionConfig, glimpses: str | None) -> S3TAConfig | ResNetConfig:
    if not glimpses:
        return ResNetConfig(name=name, num_classes=num_classes, vision=vision)
    config = S3TAConfig(name=name, num_classes=num_classes, vision=vision, num_glimpses=int(glimpses))
    return config.model_copy(update=_MINI_HEAD) if vision.backbone == "resnetv2_mini" else config
