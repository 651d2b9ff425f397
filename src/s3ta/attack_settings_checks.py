"""Can an attack do what its radius says? Rules on its settings alone, as plain numbers: asked before a suite is run, of its
records, and by `run_attack`.

    >>> [finding.kind for finding in implausible("a", {"kind": "pgd", "radius": 0.2, "step_size": 0.01, "num_attack_steps": 9})]
    ['short steps']
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from s3ta.config import format_radius
from s3ta.finding import Check, Finding

_GREY_LEVEL = 1 / 255
_FAR_BELOW = 0.3
"""Of one grey level at every pixel: what an L-infinity radius makes of an L2 ball. Published L2 radii begin above."""
_HALF = 0.5
"""At this distance every pixel can be middle grey, whatever it was; below this share of a grey level none changes."""
_ROUNDING = 1e-6
_LARGEST_EPSILON = 1e-3
"""Of Adam: input gradients are often smaller, and its steps then shorter than its rates."""
_LARGEST_SHIFT = 0.25
"""Of an image's side."""


class ImplausibleSettingsWarning(UserWarning):
    """An attack's settings cannot do what its radius says."""


def implausible(name: str, attack: dict[str, Any], shape: Sequence[int] | None = None) -> list[Finding]:
    """Steps that cannot cross the ball, or leap over it; a ball that is far smaller than its norm's usual ones, or as large as
    everything; a mask of which a part covers no pixel.

    `attack` holds its settings as JSON values; `shape` is (channels, height, width) of an image; None: unknown, and what needs
    it is not asked."""
    findings = [] if shape is None else [*_vanishing_regions(name, attack, shape)]
    radius = attack.get("radius")
    if radius is None:
        return findings
    if not radius:
        sentence = f"'{name}' has a radius of 0: nothing can move, so its numbers are those of the clean images."
        evidence = {"attack": name, "radius": radius, "nothing_moves": True}
        return [*findings, Check("small ball").note(sentence, evidence)]
    for question in (_short_steps, _long_steps, _large_epsilon):
        findings += question(name, attack)
    findings += _ball_size(name, attack, shape)
    return findings if shape is None else [*findings, *_large_shift(name, attack, shape)]


def cell_of_pixel(num_cells: int, num_pixels: int) -> list[int]:
    """Which cell of a grid, stretched over an axis, each pixel belongs to."""
    return [pixel * num_cells // num_pixels for pixel in range(num_pixels)]


def box_length(share: float, num_pixels: int) -> int:
    """Pixels of a box along an axis; one at least."""
    return max(1, round(share * num_pixels))


def vanished_cells(rows: Sequence[str], height: int, width: int) -> int:
    """How many `#` of a grid cover no pixel of an image of this size."""
    down, right = {*cell_of_pixel(len(rows), height)}, {*cell_of_pixel(len(rows[0]), width)}
    cells = [(i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if cell == "#"]
    return sum(i not in down or j not in right for i, j in cells)


def vanished_sentence(rows: Sequence[str], height: int, width: int) -> str:
    """Why such a grid is refused."""
    return (
        f"{vanished_cells(rows, height, width)} of the {''.join(rows).count('#')} '#' of a region of {len(rows)} x "
        f"{len(rows[0])} cells cover no pixel of an image of {height} x {width}: draw it with at most as many cells as there "
        "are pixels."
    )


def mask_share(mask: dict[str, Any] | None, height: int, width: int) -> float:
    """The share of an image's pixels that a mask, as its settings say it, really covers."""
    if not mask:
        return 1.0
    if rows := mask.get("rows"):
        right = cell_of_pixel(len(rows[0]), width)
        covered = sum(rows[i][j] == "#" for i in cell_of_pixel(len(rows), height) for j in right)
    else:
        covered = box_length(float(mask.get("height", 1)), height) * box_length(float(mask.get("width", 1)), width)
    return covered / (height * width)


def _vanishing_regions(name: str, attack: dict[str, Any], shape: Sequence[int]) -> Iterator[Finding]:
    height, width = shape[-2:]
    for region in (attack.get("mask"), (attack.get("steering") or {}).get("region")):
        rows = (region or {}).get("rows")
        if rows and vanished_cells(rows, height, width):
            sentence = f"'{name}': {vanished_sentence(rows, height, width)}"
            yield Check("region").error(sentence, {"attack": name, "vanished": vanished_cells(rows, height, width)}, "")


def _short_steps(name: str, attack: dict[str, Any]) -> Iterator[Finding]:
    """Attacks that cannot get from one side of their ball to the middle: a model looks robust against them."""
    steps, radius = attack.get("num_attack_steps"), attack["radius"]
    if steps is None:
        return
    if attack.get("kind") == "pgd" and attack.get("step_size") is not None:
        reach = attack["step_size"] * steps * (1 if attack.get("annealing", "constant") == "constant" else 0.5)
    elif attack.get("kind") == "adam" and attack.get("learning_rates"):
        reach = _length_of_rates(attack["learning_rates"], steps)
    else:
        return
    if reach < 0.999 * radius:
        go = "1 step goes" if steps == 1 else f"{steps} steps go"
        sentence = f"'{name}' is too short for its ball: {go} {reach:.3g} in all, and the radius is {radius:.3g}."
        evidence = {"attack": name, "num_attack_steps": steps, "reach": reach, "radius": radius}
        longer = "higher attack.learning_rates" if attack["kind"] == "adam" else "a larger attack.step_size"
        yield Check("short steps").warning(sentence, evidence, f"Give more steps or {longer}.")


def _length_of_rates(rates: Sequence[Any], steps: int) -> float:
    """How far a pixel goes whose gradient never turns: an Adam step is about as long as its rate."""
    since = [*(int(first) for first, _ in rates), steps]
    lengths = (rate * max(0, min(since[index + 1], steps) - since[index]) for index, (_, rate) in enumerate(rates))
    return float(sum(lengths))


def _long_steps(name: str, attack: dict[str, Any]) -> Iterator[Finding]:
    """Steps longer than the radius. A single step may be so long, and the first of annealed ones may cross the whole ball, as
    in APGD."""
    size, steps, radius = attack.get("step_size"), attack.get("num_attack_steps"), attack["radius"]
    if attack.get("kind") != "pgd" or size is None or steps is None or steps < 2:
        return
    longest = radius * (1 if attack.get("annealing", "constant") == "constant" else 2)
    if size > longest * (1 + _ROUNDING):
        sentence = (
            f"'{name}' takes steps of {format_radius(size)} in a ball of radius {format_radius(radius)}: they leap from one "
            "edge to another and cannot settle, so the model may look more robust than it is."
        )
        evidence = {"attack": name, "step_size": size, "radius": radius, "num_attack_steps": steps}
        advice = "Give an attack.step_size of a tenth to a quarter of the radius."
        yield Check("long steps").warning(sentence, evidence, advice)


def _large_epsilon(name: str, attack: dict[str, Any]) -> Iterator[Finding]:
    """An Adam step is rate * g / (|g| + epsilon), so about as long as its rate only where epsilon is far below |g|."""
    epsilon = attack.get("epsilon") or 0
    if attack.get("kind") == "adam" and epsilon > _LARGEST_EPSILON:
        sentence = (
            f"'{name}' adds an epsilon of {epsilon:g} to the size of the gradient that it divides by: where gradients are "
            "smaller, and those of images often are, its steps are far shorter than its rates, and may move nothing."
        )
        yield Check("short steps").warning(sentence, {"attack": name, "epsilon": epsilon}, "Give attack.epsilon=1e-9.")


def _large_shift(name: str, attack: dict[str, Any], shape: Sequence[int]) -> Iterator[Finding]:
    """Shifts wrap round: of a large one, the gradient is that of another picture."""
    shift, side = (attack.get("gradient") or {}).get("max_shift") or 0, min(shape[-2:])
    if shift > _LARGEST_SHIFT * side:
        sentence = (
            f"'{name}' averages gradients over shifts by up to {shift} pixels of {side}: they are those of other pictures, so "
            "the model may look more robust than it is."
        )
        evidence = {"attack": name, "max_shift": shift, "side": side}
        advice = "Give an attack.gradient.max_shift of a few pixels, or 0."
        yield Check("large shift").warning(sentence, evidence, advice)


def _ball_size(name: str, attack: dict[str, Any], shape: Sequence[int] | None) -> Iterator[Finding]:
    """A radius of another norm or scale."""
    radius, euclidean, check = attack["radius"], attack.get("norm") == "l2", Check("small ball")
    evidence: dict[str, Any] = {"attack": name, "radius": radius}
    larger = "Give a radius of 1/255 or more."
    if attack.get("eight_bit") and radius < _GREY_LEVEL * (1 - _ROUNDING):
        measured = f"within {radius:.3g} no pixel has another one: nothing can move."
        yield check.warning(f"'{name}' proposes whole 255ths, and {measured}", evidence, larger)
        return
    if not euclidean and radius < _HALF * _GREY_LEVEL:
        sentence = (
            f"'{name}' may move a pixel by {radius:.3g}, less than half a grey level ({_HALF * _GREY_LEVEL:.2g}): in a saved "
            "image nothing can move."
        )
        yield check.note(sentence, evidence | {"nothing_moves": True}, larger)
        return
    everything = math.inf if euclidean else _HALF
    if euclidean and shape is not None:
        length = math.sqrt(math.prod(shape) * mask_share(attack.get("mask"), *shape[-2:]))
        level, everything = length * _GREY_LEVEL, _HALF * length
        if radius < level:
            sentence = (
                f"'{name}' may move an image by a Euclidean length of {radius:.3g}; one grey level at every pixel it may "
                f"change is {level:.3g} already."
            )
            seen = evidence | {"one_grey_level_everywhere": round(level, 6)}
            if radius < _FAR_BELOW * level:
                advice = (
                    "Is that a radius of the L-infinity ball? Usual L2 radii are 0.5 at 32 pixels and 3 at 224: give "
                    "attack.radius, or attack.norm=linf."
                )
                yield check.warning(sentence, seen, advice)
            else:
                yield check.note(sentence, seen, "Say the norm beside the number.")
    if radius >= everything:
        whole = "every image can be made plain grey: nobody withstands that."
        part = "all that its mask leaves free can be made plain grey, whatever it was."
        sentence = f"Within the radius of '{name}', {radius:.3g}, {part if attack.get('mask') else whole}"
        advice = "Is it in pixels of [0, 1]? 8 of 255 is 8/255."
        yield Check("large ball").note(sentence, evidence, advice)
