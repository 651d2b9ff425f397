"""Every named experiment as a small function that returns one complete config; its docstring is its lab note.

A recipe is called `DATASET/MODEL[-N]` (N: attack steps in training). A saved JSON file is a recipe too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from s3ta.config import from_json
from s3ta.errors import UserError, unknown_name
from s3ta.recipes import cifar10, digits, imagenet, imagenette, rivals
from s3ta.recipes.ablations import ABLATION_RECIPES
from s3ta.recipes.rescale import scale_batch_size, shrink_recipe, with_override_note
from s3ta.train import TrainConfig

__all__ = ["RECIPES", "get_recipe", "scale_batch_size", "shrink_recipe", "with_override_note"]

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    "digits/s3ta_4": digits.s3ta_4,
    "digits/resnetv2_mini_dense": digits.resnetv2_mini_dense,
    "digits/resnetv2_mini_dense_denoise": rivals.digits_denoise,
    "digits/resnetv2_mini_dense_llr": rivals.digits_llr,
    "digits/resnetv2_mini_dense_se": rivals.digits_se,
    "cifar10/s3ta_4_mini": cifar10.s3ta_4_mini,
    "cifar10/resnetv2_mini_dense": cifar10.resnetv2_mini_dense,
    "cifar10/resnetv2_18": cifar10.resnetv2_18,
    "cifar10/resnetv2_18_dense": cifar10.resnetv2_18_dense,
    "cifar10/s3ta_4": cifar10.s3ta_4,
    "cifar10/s3ta_16": cifar10.s3ta_16,
    "cifar10/wrn_28_10": cifar10.wrn_28_10,
    "cifar10/wrn_28_10_dense": cifar10.wrn_28_10_dense,
    "cifar10/s3ta_4_wrn_28_10": cifar10.s3ta_4_wrn_28_10,
    "cifar10/resnetv2_18_trades": cifar10.resnetv2_18_trades,
    "cifar10/resnetv2_18_awp": cifar10.resnetv2_18_awp,
    "cifar10/s3ta_4_awp": cifar10.s3ta_4_awp,
    "cifar10/resnetv2_18_denoise": rivals.cifar10_denoise,
    "cifar10/wrn_28_8_llr": rivals.cifar10_llr,
    "imagenette/s3ta_4": imagenette.s3ta_4,
    "imagenette/resnetv2_18": imagenette.resnetv2_18,
    "imagenette/resnetv2_18_dense": imagenette.resnetv2_18_dense,
    "imagenet/resnetv2_152-10": imagenet.resnetv2_152_10,
    "imagenet/resnetv2_152-30": imagenet.resnetv2_152_30,
    "imagenet/resnetv2_152_dense-10": imagenet.resnetv2_152_dense_10,
    "imagenet/resnetv2_152_dense-30": imagenet.resnetv2_152_dense_30,
    "imagenet/s3ta_2-10": imagenet.s3ta_2_10,
    "imagenet/s3ta_4-10": imagenet.s3ta_4_10,
    "imagenet/s3ta_8-10": imagenet.s3ta_8_10,
    "imagenet/s3ta_16-10": imagenet.s3ta_16_10,
    "imagenet/s3ta_16-30": imagenet.s3ta_16_30,
    "imagenet/resnetv2_152_denoise-10": rivals.resnetv2_152_denoise_10,
    "imagenet/resnetv2_152_denoise-30": rivals.resnetv2_152_denoise_30,
    "imagenet/resnet152_denoise-10": rivals.resnet152_denoise_10,
    "imagenet/resnet152_denoise-30": rivals.resnet152_denoise_30,
    "imagenet/resnetv2_152_llr": rivals.resnetv2_152_llr,
    "imagenet/resnetv2_152_se": rivals.resnetv2_152_se,
    "imagenet/resnet152_se": rivals.resnet152_se,
    **ABLATION_RECIPES,
}


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name, or of that JSON file. Raises UserError: unknown (nearest offered), missing or damaged."""
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise UserError(f"The recipe file {name} does not exist.")
        return from_json(TrainConfig, Path(name).read_bytes(), name)
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES, "s3ta list recipes")
    return RECIPES[name]()
