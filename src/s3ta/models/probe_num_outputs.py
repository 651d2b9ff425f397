"""The first questions to somebody else's network: how many numbers it answers for an image, and what helps where it fails."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.external_code_errors import (
    attribute,
    is_out_of_memory,
    is_request_to_stop,
    message_of,
    original,
    reason,
    where,
)
from s3ta.models.classifier_wrapper import device_of
from s3ta.process_state import process_state_kept, seeded_global_generators
from s3ta.types import dtype_name

_SHAPES = r"(?i)\b(size|shape|dimension|channel|kernel|resolution|multipl)"
_ADVICE = {
    r"size\(\)\[0\]": ": it was exported for one number of images, export it with a batch that may vary, or evaluate it "
    "with that --batch-size",
    r"(?i)\bbatch(es)?\b": ": where it takes one number of images only, evaluate it with that --batch-size",
    _SHAPES: ": see --image-size",
}
"""Words of an error, and what may help; the first that is met counts."""


def num_outputs(net: nn.Module, in_channels: int, image_size: int, source: str, micro_batch: int | None = None) -> int:
    """The number of outputs of a network, found by asking it about an image.

    It is asked about two grey images; where it raises, about two of noise in [0, 1], and then about a micro-batch of noise,
    for a correct network may refuse what no data hold. What it raised first is told only where it answers none of them.

    `micro_batch`: how many images it will be asked about at once; None: not known.
    Raises UserError: it raises every time, or what it answers are no logits."""
    first: BaseException | None = None
    for images in _questions((in_channels, image_size, image_size), micro_batch, device_of(net)):
        try:
            with torch.no_grad(), seeded_global_generators(0), process_state_kept(source.partition(":")[0]):
                answer = net(images)
        except BaseException as caught:
            if is_request_to_stop(caught):
                raise
            first = first or original(caught)
            if is_out_of_memory(original(caught)):
                break
        else:
            return _checked(answer, images, source)
    assert first is not None, "there is always a first question"
    advice = next((advice for words, advice in _ADVICE.items() if re.search(words, message_of(first))), "")
    if is_out_of_memory(first):
        advice = ": there is too little memory for two images"
    shape = f"{in_channels} x {image_size} x {image_size}"
    raise UserError(f"{source} fails on images of {shape} ({reason(first)}{where(first)}){advice}.") from first


def _questions(shape: tuple[int, ...], micro_batch: int | None, device: torch.device) -> Iterator[Tensor]:
    """Batches of images in [0, 1], each made when it is asked for."""
    yield torch.full((2, *shape), 0.5, device=device)
    for count in (2, micro_batch):
        if count is not None:
            yield torch.rand(count, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def _checked(answer: Any, images: Tensor, source: str) -> int:
    if not isinstance(answer, Tensor):
        raise UserError(
            f"{source} answers with a {type(answer).__name__}: it must give logits, one row per image"
            f"{where_logits_are(answer)}."
        )
    count, *shape = images.shape
    if answer.ndim != 2 or len(answer) != count or not answer.shape[1] or not answer.is_floating_point():
        number = "two" if count == 2 else str(count)
        raise UserError(
            f"{source} answers {number} images of {' x '.join(map(str, shape))} with {dtype_name(answer.dtype)} of shape "
            f"{tuple(answer.shape)}: it must give logits, one row per image."
        )
    return answer.shape[1]


def where_logits_are(answer: Any) -> str:
    """`: return .logits`, or what else takes the logits out of an answer that is no tensor; empty where they are not seen."""
    keys = list(answer) if isinstance(answer, Mapping) else list(getattr(answer, "_fields", ()))
    if "logits" in keys or isinstance(attribute(answer, "logits"), Tensor):
        return ": return .logits" if isinstance(attribute(answer, "logits"), Tensor) else ': return ["logits"]'
    if isinstance(answer, Mapping):
        tensors = [key for key in keys if isinstance(answer[key], Tensor)]
        return f": return [{tensors[0]!r}]" if len(tensors) == 1 else ""
    if isinstance(answer, (tuple, list)) and answer and isinstance(answer[0], Tensor):
        return ": return the first element"
    return ""


def is_about_shapes(error: BaseException) -> bool:
    """Whether another image size, or other channels, may be what an error asks for."""
    return re.search(_SHAPES, message_of(original(error))) is not None
