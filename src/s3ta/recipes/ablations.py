"""One row for each experiment that is another recipe with one thing changed: a table, not a function each.

On the digits it is the model's parts that are changed; on ImageNet what the paper leaves open and may matter (protocol
section 7). `s3ta show` tells the base recipe's note with each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from s3ta.config import override
from s3ta.recipes import digits, imagenet
from s3ta.train import TrainConfig


class Ablation(NamedTuple):
    """A recipe that is another one but for a few settings."""

    base: str
    suffix: str
    """Of the name, before the number of attack steps if that has one: `imagenet/s3ta_16-10` -> `imagenet/s3ta_16_bn8-10`."""
    changes: tuple[str, ...]
    """As they are typed behind `s3ta train`."""
    note: str
    """What is changed and what for, in one sentence."""

    @property
    def name(self) -> str:
        """The recipe's own."""
        stem, dash, steps = self.base.partition("-")
        return f"{stem}_{self.suffix}{dash}{steps}"


BASES: Mapping[str, Callable[[], TrainConfig]] = {
    "digits/s3ta_4": digits.s3ta_4,
    "digits/resnetv2_mini_dense": digits.resnetv2_mini_dense,
    "imagenet/s3ta_16-10": imagenet.s3ta_16_10,
    "imagenet/s3ta_16-30": imagenet.s3ta_16_30,
    "imagenet/resnetv2_152-10": imagenet.resnetv2_152_10,
    "imagenet/resnetv2_152-30": imagenet.resnetv2_152_30,
    "imagenet/resnetv2_152_dense-10": imagenet.resnetv2_152_dense_10,
}

_S3TA, _POOLED = "digits/s3ta_4", "digits/resnetv2_mini_dense"
_PAPER, _RIVAL = "imagenet/s3ta_16-10", "imagenet/resnetv2_152-10"

ABLATIONS: tuple[Ablation, ...] = (
    Ablation(_S3TA, "heads1", ("model.num_heads=1",), "One head instead of four: how many places a glimpse needs."),
    Ablation(_S3TA, "heads2", ("model.num_heads=2",), "Two heads instead of four."),
    Ablation(_S3TA, "heads8", ("model.num_heads=8",), "Eight heads instead of four."),
    Ablation(
        _S3TA, "glimpse1", ("model.num_glimpses=1",), "One glimpse: attention with a learned query that sees nothing."
    ),
    Ablation(
        _S3TA,
        "keys2",
        ("model.key_channels=2",),
        "Two channels of keys instead of eight, so that queries ask by place.",
    ),
    Ablation(_S3TA, "keys32", ("model.key_channels=32",), "32 of 64 channels are keys instead of eight."),
    Ablation(_S3TA, "no_basis", ("model.num_frequencies=0",), "No spatial basis: queries ask by content alone."),
    Ablation(_S3TA, "no_logits", ("model.feeds_back_logits=false",), "Queries do not see the previous answer."),
    Ablation(
        _S3TA, "scaled", ("model.scaled_attention=true",), "Attention's logits over the root of the query's length."
    ),
    Ablation(_S3TA, "gru", ("model.cell=gru",), "A GRU instead of the LSTM."),
    Ablation(
        _S3TA, "readouts", ("loss.glimpses=all",), "The losses after all glimpses, averaged, instead of the last one's."
    ),
    Ablation(
        _S3TA,
        "no_queries",
        ("model.queries=none", "model.num_heads=1"),
        "The mean of the maps instead of what queries find: recurrence without attention.",
    ),
    Ablation(_S3TA, "bn8", ("batch_norm.group=8",), "BN statistics over 8 images instead of the batch of 64 (T13)."),
    Ablation(_S3TA, "bn32", ("batch_norm.group=32",), "BN statistics over 32 images instead of the batch of 64 (T13)."),
    Ablation(
        _POOLED,
        "mlp",
        ("model.mlp_hidden=7104",),
        "A hidden layer after the average, as large as S3TA's whole head: tells attention from size.",
    ),
    Ablation(_PAPER, "no_curriculum", ("schedule.glimpses=[]",), "16 glimpses from the first training step on (T23)."),
    Ablation(
        "imagenet/s3ta_16-30",
        "no_curriculum",
        ("schedule.glimpses=[]",),
        "16 glimpses from the first training step on (T23).",
    ),
    Ablation(
        _PAPER,
        "step1_6",
        ("attack.step_size=1.6/255",),
        "The training attack in steps of 1.6/255 (T18).",
    ),
    Ablation(
        _RIVAL, "step1_6", ("attack.step_size=1.6/255",), "The plain rival of that, in the same steps of 1.6/255 (T18)."
    ),
    Ablation(
        _PAPER,
        "bn8",
        ("batch_norm.group=8",),
        "BN statistics over 8 images, as on one core of the paper's, instead of 32 (T13).",
    ),
    Ablation(
        _PAPER,
        "bn_all",
        ("batch_norm.group=1024",),
        "BN statistics over the whole batch instead of 32 images (T13).",
    ),
    Ablation(
        _RIVAL,
        "rate0_1",
        ("optimizer.learning_rate=0.4", "schedule.warmup_from=0.1"),
        "The plain rival at 0.1 per 256 images, Feature Denoising's learning rate (C1).",
    ),
    Ablation(
        "imagenet/resnetv2_152-30",
        "rate0_1",
        ("optimizer.learning_rate=0.4", "schedule.warmup_from=0.1"),
        "The plain rival at 0.1 per 256 images, Feature Denoising's learning rate (C1).",
    ),
    Ablation(
        "imagenet/resnetv2_152_dense-10",
        "mlp",
        ("model.mlp_hidden=14561",),
        "A hidden layer after the average, as large as S3TA's whole head: tells attention from size.",
    ),
)


def ablated(ablation: Ablation) -> TrainConfig:
    """The base recipe with the changes; its departures begin with them. Raises UserError for changes that do not fit."""
    recipe = override(BASES[ablation.base](), list(ablation.changes))
    model = recipe.model
    if any(change.startswith("model.") for change in ablation.changes):
        model = model.model_copy(update={"name": f"{model.name}*"})
    note = f"Ablation of {ablation.base}: {', '.join(ablation.changes)}. {ablation.note}"
    update = {"name": ablation.name, "model": model, "departures": (note, *recipe.departures)}
    return recipe.model_copy(update=update)


def _recipe(ablation: Ablation) -> Callable[[], TrainConfig]:
    """The row as a function like those of the other recipes, lab note and all."""

    def build() -> TrainConfig:
        return ablated(ablation)

    hardware_note = re.search(r"Hardware\s+and\s+hours:[^.]*\.", BASES[ablation.base].__doc__ or "")
    hours = hardware_note[0] if hardware_note else f"Hardware and hours: as {ablation.base}."
    source = f"{ablation.base} with {', '.join(ablation.changes)}"
    build.__doc__ = f"{ablation.note}\n\n    Source: {source}. Expected: not known. {hours}"
    return build


ABLATION_RECIPES: dict[str, Callable[[], TrainConfig]] = {row.name: _recipe(row) for row in ABLATIONS}
