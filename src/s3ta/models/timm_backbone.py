"""Any network of timm that has a map of features, as a vision net: ConvNeXt, EfficientNet, Swin, ViT and the rest."""

from __future__ import annotations

from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.func import functional_call

from s3ta.errors import UserError, unknown_name
from s3ta.external_code_errors import reason
from s3ta.models.config import BACKBONES, VisionConfig
from s3ta.types import Images


class TimmBackbone:
    """timm's network up to one of its stages; what comes after that stage is not built."""

    def __init__(self, config: VisionConfig) -> None:
        """Raises UserError for a name that timm lacks, for a network without a map, and for settings that are for ResNets."""
        if config.backbone not in timm_names():
            raise unknown_name("backbone", config.backbone, [*BACKBONES, *timm_names()], "s3ta list models")
        _refuse_settings_of_resnets(config)
        settings: dict[str, Any] = {"in_chans": config.in_channels, "drop_path_rate": config.drop_path or None}
        if _has_fixed_size(config.backbone):
            settings["img_size"] = config.image_size
        try:
            self.net: Any = timm.create_model(
                config.backbone,
                pretrained=False,
                num_classes=0,
                **{name: value for name, value in settings.items() if value is not None},
            )
        except (TypeError, AssertionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"timm's {config.backbone} cannot be built for images of {config.image_size} px with {config.in_channels} "
                f"channels: {reason(error)}"
            ) from error
        maps = getattr(self.net, "feature_info", None)
        if not hasattr(self.net, "forward_intermediates") or not maps:
            raise UserError(
                f"timm's {config.backbone} gives no map of features (it has no forward_intermediates): choose another network."
            )
        stage = -1 if config.stage is None else config.stage
        if not -len(maps) <= stage < len(maps):
            raise UserError(
                f"vision.stage is {config.stage}, but {config.backbone} has {len(maps)} stages: give a number from 0 to "
                f"{len(maps) - 1}, or -1 for the last, -2 for the one before it."
            )
        stage %= len(maps)
        self._is_last = stage == len(maps) - 1
        self._indices = self.net.prune_intermediate_layers([stage], prune_norm=not self._is_last, prune_head=True)
        self.num_features: int = maps[stage]["num_chs"]
        self._in_channels = config.in_channels
        with torch.device("meta"):
            whole = timm.create_model(config.backbone, pretrained=False)
        built = self.net.state_dict()
        self.not_built = tuple(key for key in whole.state_dict() if key not in built)
        self.map_size(config.image_size)

    def features(self, images: Images) -> Float[Tensor, "B F h w"]:
        """The map, channels first; of the last stage after the network's final norm."""
        (features,) = self.net.forward_intermediates(
            images,
            indices=self._indices,
            norm=self._is_last,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )
        return features

    def make_dense(self) -> None:
        """Nothing: a network of timm keeps its strides; a finer map is that of an earlier stage."""

    def map_size(self, image_size: int) -> int:
        """Of a forward pass that takes no memory. Raises UserError where the network refuses the size, or answers no map."""
        state = {**dict(self.net.named_parameters()), **dict(self.net.named_buffers())}
        nothing = {f"net.{name}": torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
        images = torch.empty(1, self._in_channels, image_size, image_size, device="meta")
        is_training = self.net.training
        try:
            with torch.no_grad():
                features = functional_call(_Features(self), nothing, (images,))
        except (AssertionError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(f"{type(self.net).__name__} refuses images of {image_size} px: {reason(error)}") from error
        finally:
            self.net.train(is_training)
        if features.ndim != 4 or features.shape[1] != self.num_features:
            raise UserError(f"{type(self.net).__name__} gives no map of features: choose another network.")
        return features.shape[-1]


class _Features(nn.Module):
    """A module around a backbone, for `functional_call`."""

    def __init__(self, backbone: TimmBackbone) -> None:
        super().__init__()
        self.net = backbone.net.eval()
        self._backbone = [backbone]

    def forward(self, images: Images) -> Tensor:
        return self._backbone[0].features(images)


def timm_names() -> list[str]:
    """The networks of timm, without tags of weights: those are where a training starts from."""
    return timm.list_models()


def timm_input(name: str) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """The image size, mean and standard deviation on the card of timm's network (those of its default weights)."""
    card = get_pretrained_cfg(name)
    if card is None:
        return 224, (0.5,), (0.5,)
    return card.input_size[-1], tuple(card.mean), tuple(card.std)


def _has_fixed_size(name: str) -> bool:
    card = get_pretrained_cfg(name)
    return card is not None and card.fixed_input_size


def _refuse_settings_of_resnets(config: VisionConfig) -> None:
    declared = VisionConfig(backbone=config.backbone, dense=False)
    for name in ("dense", "stem", "padding", "zero_init_last", "denoise", "squeeze_excite", "activation"):
        if getattr(config, name) != getattr(declared, name):
            raise UserError(f"vision.{name} is for ResNets, and {config.backbone} is none: leave it out.")
