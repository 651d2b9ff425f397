"""Networks of timm and torchvision, with what these libraries know of them: size, normalisation, preparation."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn

from s3ta.errors import UserError, unknown_name
from s3ta.external_code_errors import reason
from s3ta.models.classifier_wrapper import EvaluationTransform
from s3ta.models.hub_config import settings_beside
from s3ta.models.load_options import LoadOptions
from s3ta.process_state import seeded_global_generators

_IMAGE_SIZE = {"vit": "image_size", "maxvit": "input_size"}
"""torchvision's families that are built for one image size, and the name of that setting."""
_AIDED = ("googlenet", "inception_v3")
"""torchvision's networks with heads that only help in training, of these names:"""
_AIDS = ("AuxLogits.", "aux1.", "aux2.")


class BuiltNetwork(NamedTuple):
    """A network as its library or its factory gives it, and what is known of it."""

    net: nn.Module
    name: str
    weights: str
    """For the record."""
    library: dict[str, str]
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    view: EvaluationTransform | None = None
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """What was derived of a file of weights, or not known: sentences that begin with `note:` or `warning:`."""


def from_timm(name: str, options: LoadOptions, file: Path | None) -> BuiltNetwork:
    """NAME[.TAG] of timm, or `hf-hub:owner/name`, built under seed 0 and perhaps fetched.

    `file` will fill it: its own name, or what lies beside it, may tell of which tag it is.
    Raises UserError for a name or tag that it does not have, and for weights that cannot be had here."""
    import timm
    from timm.data.config import resolve_model_data_config
    from timm.models import get_pretrained_cfg, load_model_config_from_hf

    source = f"timm:{name}"
    if name.startswith("hf-hub:"):
        with _fetching(source):
            config = {**load_model_config_from_hf(name.removeprefix("hf-hub:"))[0], "hf_hub_id": name}
    else:
        _check_timm_name(name)
        stated = get_pretrained_cfg(name)
        config = {} if stated is None else stated.to_dict()
    _check_timm_use(name, config, options)
    fixed = config.get("fixed_input_size", False)
    settings: dict[str, Any] = {"in_chans": options.in_channels, "img_size": options.image_size if fixed else None}
    if not options.is_pretrained:
        settings["num_classes"] = options.num_classes
    tag, settings["pretrained_cfg"], remarks = _timm_preparation(name, file)
    settings = {key: value for key, value in settings.items() if value is not None}
    with _fetching(source), seeded_global_generators(0):
        net = timm.create_model(f"{name}.{tag}" if tag else name, pretrained=options.is_pretrained, **settings)
    data = resolve_model_data_config(net)
    channels, size, _ = data["input_size"]
    tag = getattr(net, "pretrained_cfg", {}).get("tag")
    view, notes = _timm_view(data, options.image_size or size)
    if options.is_pretrained and options.in_channels not in (None, channels):
        notes += (f"timm adapted the first convolution from {channels} to {options.in_channels} channels.",)
    return BuiltNetwork(
        net,
        name.rpartition("/")[2],
        f"pretrained: {tag or name}" if options.is_pretrained else "random, seed 0",
        {"timm": _version(timm)},
        size,
        tuple(data["mean"]),
        tuple(data["std"]),
        view,
        notes=notes,
        remarks=remarks,
    )


def _timm_preparation(name: str, file: Path | None) -> tuple[str, dict[str, Any] | None, tuple[str, ...]]:
    """The tag that a file of weights shows by its name, or the settings that lie beside it, and a remark."""
    from timm.models import get_pretrained_cfg, list_pretrained

    if file is None or "." in name or name.startswith("hf-hub:"):
        return "", None, ()
    beside = settings_beside(file).get("pretrained_cfg")
    if isinstance(beside, dict):
        return "", beside, (f"note: {file.parent.name}/config.json says how images are prepared; that is done.",)
    default = get_pretrained_cfg(name)

    def ways() -> Iterator[tuple[str, str, str]]:
        for known in list_pretrained(f"{name}.*"):
            if (config := get_pretrained_cfg(known)) is not None:
                way = f"{config.input_size[1]} px, crop {config.crop_pct:g}, {config.interpolation}"
                yield known.partition(".")[2], str(config.url), f"{way}, mean {config.mean[0]:.3g}"

    tag, remarks = _preparation(file, f"timm:{name}", ways(), (default and default.tag) or "")
    return tag, None, remarks


def _preparation(
    file: Path, source: str, ways: Iterable[tuple[str, str, str]], used: str
) -> tuple[str, tuple[str, ...]]:
    """The tag that a file of weights shows by its name, and a remark on that, or on what the name leaves open.

    `ways`: tag, address and preparation of all weights that a library has of this network; `used`: the tag without a file."""
    tags: dict[str, str] = {}
    for tag, url, way in ways:
        if url.rpartition("/")[2] == file.name:
            library = source.partition(":")[0]
            note = f"note: by its name, {file.name} holds the weights that {library} calls {tag}: "
            return tag, (f"{note}images are prepared as for these.",)
        tags[way] = tag if tag == used else tags.get(way, tag)
    if len(tags) < 2:
        return "", ()
    usual = next((way for way, tag in tags.items() if tag == used), "its defaults")
    others = [f"{source}.{tag} ({way})" for way, tag in tags.items() if tag != used]
    more = f", or one of {len(others) - 2} others" if len(others) > 2 else ""
    return "", (
        f"note: {file.name} does not say how its images were prepared. This is done as for {source}.{used} ({usual}); name "
        f"another instead of {source} if it is one: {', '.join(others[:2])}{more}; or give --preprocessing, --mean, --std.",
    )


def _check_timm_name(name: str) -> None:
    from timm.models import is_model, list_models, list_pretrained

    base, _, tag = name.partition(".")
    if not is_model(base):
        raise unknown_name("timm model", name, [*list_models(), *list_pretrained()] if tag else list_models())
    tags = [known.partition(".")[2] for known in list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise unknown_name(f"weights of timm's {base}:", tag, tags)


def _check_timm_use(name: str, config: dict[str, Any], options: LoadOptions) -> None:
    """Refuse, before anything is fetched, what cannot be measured."""
    if options.is_pretrained and not any(config.get(key) for key in ("url", "file", "hf_hub_id")):
        raise UserError(f"timm has no pretrained weights of {name}: give --weights FILE, or --weights random.")
    if config.get("num_classes") == 0 and (options.is_pretrained or options.num_classes is None):
        raise UserError(
            f"timm:{name} answers with features: give --num-classes, and --weights FILE or --weights random."
        )
    _, height, width = config.get("input_size", (3, 224, 224))
    if height != width and options.image_size is None:
        raise UserError(
            f"timm:{name} is for images of {height} x {width} pixels; images here are square: give --image-size."
        )


def _timm_view(data: dict[str, Any], image_size: int) -> tuple[EvaluationTransform | None, tuple[str, ...]]:
    """What timm does with an image file, and a note where an `EvaluationTransform` cannot say it."""
    if data["crop_mode"] != "center" or data["interpolation"] not in ("bicubic", "bilinear"):
        way = f"{data['crop_mode']}, {data['interpolation']}"
        return None, (f"timm prepares image files for it in a way that is not done here ({way}).",)
    return EvaluationTransform(math.floor(image_size / data["crop_pct"]), data["interpolation"]), ()


def from_torchvision(name: str, options: LoadOptions, file: Path | None) -> BuiltNetwork:
    """NAME[.TAG] of torchvision, built under seed 0 and perhaps fetched.

    `file` will fill it: its own name may tell of which tag it is.
    Raises UserError for a name or tag that it does not have, and for weights that cannot be had here."""
    import torchvision
    from torchvision import models

    source = f"torchvision:{name}"
    base, _, tag = name.partition(".")
    every, classifiers = models.list_models(), models.list_models(module=models)
    if base in every and base not in classifiers:
        raise UserError(f"{source} does not classify images: only torchvision's classification models can be measured.")
    if base not in classifiers:
        raise unknown_name("torchvision model", base, classifiers)
    entries = cast(Any, models.get_model_weights(base))
    if tag and tag not in entries.__members__:
        raise unknown_name(f"weights of torchvision's {base}:", tag, entries.__members__)
    remarks: tuple[str, ...] = ()
    if file is not None and not tag:
        tag, remarks = _torchvision_preparation(base, entries, file)
    entry = entries[tag or "DEFAULT"]
    if options.in_channels not in (None, 3):
        raise UserError(f"{source} takes images of 3 channels, not {options.in_channels}: torchvision builds no other.")
    prepared = entry.transforms()
    size, resize = prepared.crop_size[0], prepared.resize_size[0]
    image_size = options.image_size or size
    settings: dict[str, Any] = {"aux_logits": False} if base in _AIDED else {}
    if not options.is_pretrained:
        settings |= {} if options.num_classes is None else {"num_classes": options.num_classes}
        family = base.partition("_")[0]
        if family in _IMAGE_SIZE:
            settings[_IMAGE_SIZE[family]] = image_size if family == "vit" else (image_size, image_size)
        if base in _AIDED:
            # torchvision's own weights of these expect that pixels are normalised once more, inside
            settings |= {"init_weights": True, "transform_input": bool(tag)}
    with _fetching(source), seeded_global_generators(0):
        net = models.get_model(base, weights=entry if options.is_pretrained else None, **settings)
    notes = ("It transforms its input as torchvision's weights want it.",) if settings.get("transform_input") else ()
    return BuiltNetwork(
        net,
        name,
        f"pretrained: {entry.name}" if options.is_pretrained else "random, seed 0",
        {"torchvision": _version(torchvision)},
        size,
        tuple(prepared.mean),
        tuple(prepared.std),
        EvaluationTransform(resize * image_size // size, prepared.interpolation.value),
        _AIDS if base in _AIDED else (),
        notes,
        remarks,
    )


def _torchvision_preparation(base: str, entries: Any, file: Path) -> tuple[str, tuple[str, ...]]:
    """The tag that a file of weights shows by its name, and a remark on what it leaves open."""

    def ways() -> Iterator[tuple[str, str, str]]:
        for entry in entries:
            how = entry.transforms()
            size = f"shorter side to {how.resize_size[0]}, cut {how.crop_size[0]} px"
            yield entry.name, entry.url, f"{size}, {how.interpolation.value}"

    tag, remarks = _preparation(file, f"torchvision:{base}", ways(), entries.DEFAULT.name)
    if base in _AIDED and not tag:
        remarks = (
            f"warning: {file.name} does not say whether its network transforms its input, as torchvision's own weights of "
            f"{base} want it; it is measured without, as if it was trained from scratch. Where it comes from torchvision's "
            f"weights, name them: torchvision:{base}.{entries.DEFAULT.name}.",
        )
    return tag, remarks


def _version(library: Any) -> str:
    """Without what was built for which device, so that machines agree."""
    return library.__version__.partition("+")[0]


@contextmanager
def _fetching(source: str) -> Iterator[None]:
    """Around one call of a library that may fetch and build: whatever goes wrong in it becomes one sentence, none is logged."""
    loggers = [logging.getLogger(library) for library in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)  # they warn of retries
        yield
    except Exception as error:  # each library, and each way to the network, has errors of its own
        raise UserError(
            f"{source} could not be fetched or built ({reason(error)}). Where there is no network, give a file with "
            "--weights FILE, or --weights random."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
