"""What must be known of a classifier to measure it, and the wrapper that says it of anybody's network."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.external_code_errors import attribute, guarded, set_mode
from s3ta.models.vision import NativeClassifier, Normalize, check_length
from s3ta.types import Images, Logits, Trace


class EvaluationTransform(NamedTuple):
    """How the authors of a model make its input from an image file: the shorter side is resized, the centre cut out."""

    resize: int
    """Pixels of the shorter side before the cut."""
    interpolation: Literal["bicubic", "bilinear"]


DEFAULT_PROVENANCE = "the default, for nothing says otherwise"


class PreparationSources(NamedTuple):
    """Where normalisation and preparation come from, in words, and what a person should know of it. It informs only."""

    normalisation: str = "the model's own"
    """given, stored with the weights, the library's, ..., or `DEFAULT_PROVENANCE`."""
    preparation: str = "the model's"
    """Of its `view`."""
    remarks: tuple[str, ...] = ()
    """Sentences that begin with `note:` or `warning:`."""


class ModelMetadata(NamedTuple):
    """What an evaluation must know of a classifier; `classes`, `view` and `origins` are no part of its identity."""

    name: str
    num_classes: int
    in_channels: int
    image_size: int
    """Height and width in pixels that it is meant for."""
    config: dict[str, Any]
    """JSON: everything beside the weights that decides the answers."""
    num_glimpses: int | None = None
    """None: it takes none."""
    classes: tuple[str, ...] | None = None
    """Names of the outputs, in order, where they are known."""
    view: EvaluationTransform | None = None
    origins: PreparationSources = PreparationSources()


class Classifier(nn.Module):
    """Any network, as an attack and an evaluation see it: RGB images in [0, 1] -> logits (B, Y), float32.

    Normalisation, channel order and the choice of outputs happen inside, so radii keep their meaning. A network with a
    method `unroll(images, num_glimpses) -> Trace` keeps it. Whatever the network raises becomes a `ForeignError`; gradients
    are on or off afterwards as they were."""

    _outputs: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        num_classes: int,
        image_size: int,
        in_channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channel_order: Literal["rgb", "bgr"] = "rgb",
        outputs: Sequence[int] | None = None,
        classes: Sequence[str] | None = None,
        view: EvaluationTransform | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        """
        Args:
          net: images, normalised as below -> logits.
          name: what people call it.
          num_classes: how many outputs are used: those of the network, or as many as `outputs` names.
          image_size: height and width in pixels.
          in_channels: image channels.
          mean, std: of the normalisation, in pixels of [0, 1]; one number, or one per channel; None: 0 and 1, nothing.
          channel_order: the order that the network wants.
          outputs: which of its outputs are used, in this order; None: all. Taken before any softmax (X32).
          classes: their names, where known.
          view: how its authors prepare an image file.
          config: JSON, what else identifies it, such as where it came from.
        Raises UserError: a size below 1; means, deviations, outputs or names of the wrong number or out of range."""
        super().__init__()
        self.card = ModelMetadata(
            name=name,
            num_classes=num_classes,
            in_channels=in_channels,
            image_size=image_size,
            config={
                **(config or {}),
                "mean": None if mean is None else list(mean),
                "std": None if std is None else list(std),
                "channel_order": channel_order,
                "outputs": None if outputs is None else list(outputs),
            },
            num_glimpses=attribute(attribute(net, "config"), "num_glimpses"),
            classes=None if classes is None else tuple(classes),
            view=view,
        )
        _check_card(self.card)
        for what, values in (("outputs", outputs), ("class names", classes)):
            if values is not None and len(values) != num_classes:
                raise UserError(f"There are {len(values)} {what} for {num_classes} classes.")
        if outputs is not None and (len(set(outputs)) != len(outputs) or min(outputs) < 0):
            raise UserError("The outputs to use must be numbers from 0 up, each named once.")
        self.net = net
        self.channel_order = channel_order
        plain = mean is None and std is None
        self.normalize = nn.Identity() if plain else Normalize(tuple(mean or (0.0,)), tuple(std or (1.0,)))
        chosen = None if outputs is None else torch.tensor(list(outputs), dtype=torch.long)
        self.register_buffer("_outputs", chosen, persistent=False)
        if _is_sequential(net):
            self.unroll = self._unroll

    def train(self, mode: bool = True) -> Classifier:
        """As of any module; the parts of an exported program have no modes and stay as they are."""
        self.training = mode
        for part in self.children():
            set_mode(part, mode=mode)
        return self

    def forward(self, images: Images) -> Logits:
        with self._guard(images), torch.set_grad_enabled(torch.is_grad_enabled()):
            return self._chosen(self.net(self._prepared(images)))

    def _unroll(self, images: Images, num_glimpses: int | None = None) -> Trace:
        """As of the network; called `unroll` where the network has it."""
        with self._guard(images), torch.set_grad_enabled(torch.is_grad_enabled()):
            trace = self.net.unroll(self._prepared(images), num_glimpses)  # pyright: ignore[reportCallIssue]
        return Trace(self._chosen(trace.logits), trace.attention.float())

    def _guard(self, images: Tensor) -> AbstractContextManager[None]:
        if torch.compiler.is_compiling():  # whoever compiles guards the call
            return nullcontext()
        return guarded(f"{self.card.name}, asked about images of shape {tuple(images.shape)},")

    def _prepared(self, images: Tensor) -> Tensor:
        return self.normalize(images.flip(1) if self.channel_order == "bgr" else images)

    def _chosen(self, logits: Tensor) -> Tensor:
        chosen = logits if self._outputs is None else logits[..., self._outputs]
        # what is no tensor of logits is left as it is, for the checks to name
        return chosen.float() if isinstance(chosen, Tensor) and chosen.is_floating_point() else chosen


def _is_sequential(net: nn.Module) -> bool:
    """Whether a model has an `unroll` as S3TA's; one without `num_glimpses` is something else of that name."""
    try:
        return "num_glimpses" in inspect.signature(attribute(net, "unroll")).parameters
    except (TypeError, ValueError):
        return False


def _check_card(card: ModelMetadata) -> None:
    for what in ("num_classes", "in_channels", "image_size"):
        if getattr(card, what) < 1:
            raise UserError(f"{what} is {getattr(card, what)}: it must be 1 or more.")
    mean, std, channel_order = (card.config[what] for what in ("mean", "std", "channel_order"))
    for what, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        check_length(what, values, card.in_channels)
        if not all(map(math.isfinite, values)):
            raise UserError(f"{what} is {', '.join(map(str, values))}: every number must be finite.")
    if std is not None and min(std) <= 0:
        raise UserError(f"std is {', '.join(map(str, std))}: every number must be above 0.")
    if channel_order not in ("rgb", "bgr"):
        raise UserError(f"The channel order is '{channel_order}': it must be rgb or bgr.")
    if channel_order == "bgr" and card.in_channels != 3:
        raise UserError(f"Images of {card.in_channels} channels cannot be turned from RGB to BGR.")


def select_outputs(model: nn.Module, outputs: Sequence[int]) -> Classifier:
    """The same network, answering with these of its classes only, in this order; weights are shared, nothing is copied.

    Raises UserError: a number that is not a class of the model, or one named twice."""
    info = model_metadata(model)
    if not outputs or not all(0 <= output < info.num_classes for output in outputs):
        raise UserError(
            f"The outputs of {info.name} are numbered from 0 to {info.num_classes - 1}; name one or more of them."
        )
    return rewrapped(model, outputs)


def rewrapped(model: nn.Module, outputs: Sequence[int] | None = None) -> Classifier:
    """The network of a model in another `Classifier`, answering with these of its classes (None: all); nothing is copied."""
    info = model_metadata(model)
    settings = info.config if isinstance(model, Classifier) else {}
    kept, before = range(info.num_classes) if outputs is None else outputs, settings.get("outputs")
    classifier = Classifier(
        model.net if isinstance(model, Classifier) else model,
        name=info.name,
        num_classes=len(kept),
        image_size=info.image_size,
        in_channels=info.in_channels,
        mean=settings.get("mean"),
        std=settings.get("std"),
        channel_order=settings.get("channel_order", "rgb"),
        outputs=outputs if before is None else [before[output] for output in kept],
        classes=None if info.classes is None else [info.classes[output] for output in kept],
        view=info.view,
        config=info.config,
    )
    classifier.card = classifier.card._replace(origins=info.origins)
    return classifier.to(device_of(model)).train(model.training)


def model_metadata(model: nn.Module) -> ModelMetadata:
    """What a model says of itself. Raises UserError for a network that says nothing."""
    if isinstance(model, NativeClassifier):
        config = model.config
        return ModelMetadata(
            name=config.name,
            num_classes=config.num_classes,
            in_channels=config.vision.in_channels,
            image_size=config.vision.image_size,
            config=config.model_dump(mode="json"),
            num_glimpses=getattr(config, "num_glimpses", None),
        )
    info = getattr(model, "card", None)
    if not isinstance(info, ModelMetadata):
        raise UserError(
            f"{type(model).__name__} does not say what it is: wrap it, as in s3ta.Classifier(model, name=..., "
            "num_classes=..., image_size=..., mean=..., std=...)."
        )
    return info


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights; the CPU for a model without any."""
    tensor = next(iter([*model.parameters(), *model.buffers()]), None)
    return torch.device("cpu") if tensor is None else tensor.device
