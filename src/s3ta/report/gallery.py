"""Images for the page: clean, adversarial, the perturbation amplified, and attention glimpse by glimpse.

Every picture is a PNG or, when large and in colour, a JPEG inside the page. Attention is kept as tiny maps that the
browser stretches over the image, so that all heads of all glimpses stay small.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from PIL import Image

from s3ta.report.load_runs import Gallery, Run

MAX_EXAMPLES = 8
MAX_PIXELS = 160
"""Images are shown at most this wide, which keeps a page of eight examples and two models under 5 MB."""


class Answer(NamedTuple):
    """What a model says about one image."""

    name: str
    probability: str
    """`87%`."""
    verdict: str
    """`right`, `target` or `wrong`."""


class Before(NamedTuple):
    """One model on one example, before and after the attack."""

    model: str
    colour: int
    adversarial: str
    perturbation: str
    answer_clean: Answer
    answer_adversarial: Answer


class Example(NamedTuple):
    """One clean image and what each model and its attack made of it."""

    example_id: str
    label: str
    target: str
    """Empty without a target."""
    clean: str
    models: list[Before]


class Glimpse(NamedTuple):
    """One look: the map averaged over heads, one map per head, and the answer after it."""

    mean: str
    heads: list[str]
    answer: Answer


class Looking(NamedTuple):
    """How a model looks at one example, in order of glimpses."""

    example_id: str
    label: str
    target: str
    clean: str
    adversarial: str
    clean_glimpses: list[Glimpse]
    adversarial_glimpses: list[Glimpse]


class Attention(NamedTuple):
    """All of one model's glimpses."""

    model: str
    num_heads: int
    examples: list[Looking]


def shared_examples(runs: Sequence[Run]) -> tuple[list[str], int]:
    """The example ids that every gallery has, in the first one's order, at most `MAX_EXAMPLES`; and how many there are."""
    galleries = [run.gallery for run in runs if run.gallery is not None]
    if not galleries:
        return [], 0
    ids = [name for name in galleries[0].example_ids if all(name in other.example_ids for other in galleries)]
    return ids[:MAX_EXAMPLES], len(ids)


def amplification(runs: Sequence[Run], ids: Sequence[str]) -> float:
    """The factor that makes the largest change among the examples span the full range from black to white."""
    galleries = [run.gallery for run in runs if run.gallery is not None]
    changes = (_change(shown, shown.example_ids.index(name)) for shown in galleries for name in ids)
    largest = max((float(np.abs(change).max()) for change in changes), default=0.0)
    return 0.5 / largest if largest > 0 else 1.0


def examples(runs: Sequence[Run], ids: Sequence[str]) -> list[Example]:
    """The pictures of the shared examples, one entry per example."""
    factor = amplification(runs, ids)
    galleries = [(colour, run, run.gallery) for colour, run in enumerate(runs) if run.gallery is not None]
    shown = []
    for example_id in ids if galleries else ():
        models = []
        for colour, run, gallery in galleries:
            row = gallery.example_ids.index(example_id)
            models.append(
                Before(
                    model=run.label,
                    colour=colour,
                    adversarial=picture(gallery.adversarial[row]),
                    perturbation=picture(0.5 + factor * _change(gallery, row)),
                    answer_clean=_answer(run, gallery, row, gallery.probabilities_clean[row]),
                    answer_adversarial=_answer(run, gallery, row, gallery.probabilities_adversarial[row]),
                )
            )
        _, run, gallery = galleries[0]
        row = gallery.example_ids.index(example_id)
        shown.append(Example(example_id, *_names(run, gallery, row), picture(gallery.clean[row]), models))
    return shown


def attention(run: Run, ids: Sequence[str]) -> Attention | None:
    """The glimpses of a model that has attention; None for one that has not."""
    gallery = run.gallery
    if gallery is None or gallery.attention_clean is None:
        return None
    both_sides: list[Any] = [  # a gallery has all four of these, or none
        (gallery.attention_clean, gallery.glimpse_probabilities_clean),
        (gallery.attention_adversarial, gallery.glimpse_probabilities_adversarial),
    ]
    looks = []
    for example_id in ids:
        row = gallery.example_ids.index(example_id)
        # one scale for both rows of an example, so that the same colour is the same weight before and after
        peak_mean = max(float(attention[:, row].mean(axis=1).max()) for attention, _ in both_sides)
        peak_head = max(float(attention[:, row].max()) for attention, _ in both_sides)
        rows = [
            [
                Glimpse(
                    heat(heads.mean(axis=0), peak_mean),
                    [heat(head, peak_head) for head in heads] if len(heads) > 1 else [],
                    _answer(run, gallery, row, answer),
                )
                for heads, answer in zip(attention[:, row], probabilities[:, row], strict=True)
            ]
            for attention, probabilities in both_sides
        ]
        pictures = picture(gallery.clean[row]), picture(gallery.adversarial[row])
        looks.append(Looking(example_id, *_names(run, gallery, row), *pictures, *rows))
    return Attention(run.label, gallery.attention_clean.shape[2], looks)


def picture(image: np.ndarray) -> str:
    """An image (C, H, W) in [0, 1] as a data address: PNG, or JPEG where PNG would be large."""
    pixels = (np.clip(image, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    shown = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    if max(shown.size) > MAX_PIXELS:
        scale = MAX_PIXELS / max(shown.size)
        width, height = (max(1, round(scale * side)) for side in shown.size)
        shown = shown.resize((width, height), Image.Resampling.LANCZOS)
    large = shown.width * shown.height * len(shown.getbands()) > 64 * 64 * 3
    return _data_address(shown, "JPEG" if large else "PNG")


def heat(weights: np.ndarray, peak: float) -> str:
    """A map (h, w) of weights as a small transparent picture: nothing at 0, brightest at `peak`."""
    strength = np.clip(weights / peak, 0, 1) if peak > 0 else np.zeros_like(weights)
    pixels = colormaps["inferno"](0.3 + 0.7 * strength**0.8)
    pixels[..., 3] = 0.95 * strength**0.5
    return _data_address(Image.fromarray((pixels * 255).round().astype(np.uint8)), "PNG")


def _data_address(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _change(gallery: Gallery, row: int) -> np.ndarray:
    return gallery.adversarial[row].astype(np.float64) - gallery.clean[row]


def _names(run: Run, gallery: Gallery, row: int) -> tuple[str, str]:
    """Of the label and of the target; empty without a target."""
    label, target = int(gallery.labels[row]), int(gallery.targets[row])
    return run.class_name(label), run.class_name(target) if target >= 0 else ""


def _answer(run: Run, gallery: Gallery, row: int, probabilities: np.ndarray) -> Answer:
    best = int(probabilities.argmax())
    verdict = "right" if best == gallery.labels[row] else "target" if best == gallery.targets[row] else "wrong"
    return Answer(run.class_name(best), f"{100 * float(probabilities[best]):.0f}%", verdict)
