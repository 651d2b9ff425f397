"""Attacks in plain words, from their settings as the manifest holds them (JSON-like; nothing of it is trusted to be there).

attack_text({"radius": 1.0, "norm": "l2", "loss": "margin"}, "l2-100", 100, 1)
    -> "100 steps, L2 radius 1, 1 start, margin loss"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from s3ta.attack_config import Exact, PGDConfig, departures
from s3ta.config import format_radius
from s3ta.records import CLEAN

Settings = Mapping[str, Any]

PARTS = {
    "apgd-ce": "AutoAttack's adaptive PGD on the cross-entropy",
    "apgd-t": "AutoAttack's adaptive PGD towards target classes",
    "fab-t": "AutoAttack's search for the nearest boundary",
    "square": "AutoAttack's random squares, no gradient",
}
NORMS = {"linf": "L-infinity", "l2": "L2"}
_DISTANCES = ("radius", "step_size")


def attack_text(settings: Settings | None, attack: str, num_attack_steps: int, num_restarts: int) -> str:
    """One line on an attack: `100 steps, radius 0.1, 1 start`. Only what departs from the paper's attack is added."""
    if attack == CLEAN:
        return "no attack"
    settings = settings or {}
    if settings.get("kind") == "transfer":
        inner = made_with(settings)
        told = attack_text(inner, str(settings.get("attack_name")), num_attack_steps, num_restarts)
        return f"images that {settings.get('attack_name')} found on another model ({told})"
    if settings.get("kind") == "autoattack":
        return ", ".join([_part(settings, num_attack_steps), *_threat(settings)])
    steps, starts = number(num_attack_steps, "step"), number(num_restarts, "start")
    return ", ".join([steps, *_threat(settings), starts, *_manner(settings)])


def threat_text(settings: Settings) -> str:
    """What the attacker may do: `radius 0.1`, `L2 radius 1`, `radius 0.2, only in a box of 25% of the image ...`."""
    return ", ".join(_threat(made_with(settings)))


def ball_text(settings: Settings | None) -> str:
    """The ball in short, radius and norm: `8/255 L-infinity`, `0.5 L2`, `0.2 L-infinity, masked`; a dash where the settings do
    not say."""
    inner = made_with(settings or {})
    if not _is_number(inner.get("radius")):
        return "–"
    masked = ", masked" if inner.get("mask") else ""
    return f"{format_radius(inner['radius'])} {NORMS.get(norm_of(inner), norm_of(inner))}{masked}"


def made_with(settings: Settings) -> Settings:
    """The settings that the images were made with: of a transfer those of the attack on the other model."""
    inner = settings.get("attack")
    return inner if settings.get("kind") == "transfer" and isinstance(inner, dict) else settings


def norm_of(settings: Settings) -> str:
    """`linf` unless said."""
    return str(made_with(settings).get("norm", "linf"))


def region_text(region: Any) -> str:
    """`a box of 25% of the image, upper left`; `a drawn region of 44% of the image`."""
    if not isinstance(region, dict):
        return str(region)
    rows = region.get("rows")
    if region.get("kind") == "grid" and isinstance(rows, list) and rows:
        cells = "".join(map(str, rows))
        return f"a drawn region of {100 * cells.count('#') / max(1, len(cells)):.0f}% of the image"
    share = float(region.get("height", 1)) * float(region.get("width", 1))
    return f"a box of {100 * share:.3g}% of the image, {_place(region.get('row'), region.get('column'))}"


def setting_text(name: str, value: Any) -> str:
    """One setting in short words, nested ones too: `exact`, `SPSA, 128 directions, delta 0.01`."""
    if value is None or value == []:
        return "–"
    if name in _DISTANCES and _is_number(value):
        return format_radius(value)
    if isinstance(value, dict) and name in NESTED:
        return NESTED[name](value)
    if name == "norm":
        return NORMS.get(str(value), str(value))
    if name == "learning_rates" and isinstance(value, list):
        return _rates(value)
    return _plain(value)


def setting_name(name: str) -> str:
    """A setting as a heading: `num_train_steps` -> `train steps`."""
    return name.removeprefix("num_").replace("_", " ")


def attack_setting_name(name: str) -> str:
    """The same for a setting of an attack."""
    return _ATTACK_NAMES.get(name) or setting_name(name)


def identity_text(value: Any) -> str:
    """A setting as a key that is equal for equal settings, whatever the order of nested ones."""
    return json.dumps(value, sort_keys=True)


def number(count: int, thing: str, things: str = "") -> str:
    """`1 step`, `1,000 steps`."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def _threat(settings: Settings) -> list[str]:
    parts = []
    if _is_number(settings.get("radius")):
        norm = str(settings.get("norm", "linf"))
        told = "" if norm == "linf" else f"{NORMS.get(norm, norm)} "
        parts.append(f"{told}radius {format_radius(settings['radius'])}")
    if settings.get("mask"):
        parts.append(f"only in {region_text(settings['mask'])}")
    if settings.get("eight_bit"):
        parts.append("8-bit images")
    return parts


def _part(settings: Settings, num_attack_steps: int) -> str:
    part = str(settings.get("part"))
    told = PARTS.get(part, part)
    if part == "square":
        return f"{told}, {number(num_attack_steps, 'query', 'queries')}"
    if part in ("apgd-t", "fab-t"):
        return f"{told}, {settings.get('num_targets')} classes, {number(num_attack_steps, 'step')} each"
    return f"{told}, {number(num_attack_steps, 'step')}"


def _manner(settings: Settings) -> list[str]:
    """How the attack goes about it, where that is not the paper's way."""
    parts = []
    if settings.get("objective") == "multitargeted":
        parts.append("each towards another likely wrong class")
    loss = settings.get("loss", "cross_entropy")
    if loss != "cross_entropy":
        parts.append({"margin": "margin loss", "dlr": "DLR loss"}.get(loss, f"loss {loss}"))
    if settings.get("kind") == "adam":
        parts.append("Adam")
    if settings.get("momentum"):
        parts.append(f"momentum {settings['momentum']:g}")
    if settings.get("annealing", "constant") != "constant":
        parts.append("shrinking steps")
    if settings.get("keep") == "best":
        parts.append("best iterate kept")
    gradient = settings.get("gradient")
    if isinstance(gradient, dict) and _gradient(gradient) != "exact":
        parts.append(f"gradients: {_gradient(gradient)}")
    return [*parts, *_on_glimpses(settings), *departures(PGDConfig, settings)]


def _on_glimpses(settings: Settings) -> list[str]:
    parts = []
    glimpses = settings.get("glimpses", "last")
    if glimpses != "last":
        told = {"all": "loss of all glimpses together", "each": "loss of another glimpse at each start"}
        parts.append(told.get(glimpses, f"loss of glimpses {glimpses}"))
    if settings.get("num_glimpses"):
        parts.append(f"gradients through {settings['num_glimpses']} glimpses")
    if isinstance(settings.get("steering"), dict):
        parts.append(_steering(settings["steering"]))
    return parts


def _steering(steering: Settings) -> str:
    where = "away from where it lay"
    if steering.get("towards") == "region":
        where = f"into {region_text(steering.get('region'))}"
    weight = steering.get("weight", 0.5)
    share = "and nothing else" if weight == 1 else f"as {100 * weight:.0f}% of the objective"
    return f"attention pulled {where}, {share}"


def _steering_setting(steering: Settings) -> str:
    where = f"into {region_text(steering.get('region'))}" if steering.get("towards") == "region" else "away"
    return f"{where}, weight {_plain(steering.get('weight'))}"


def _gradient(gradient: Settings) -> str:
    if gradient.get("kind") == "spsa":
        parts = [f"SPSA, {gradient.get('num_directions'):,} directions"]
    elif gradient.get("num_samples", 1) > 1:
        parts = [f"mean of {gradient['num_samples']}"]
    else:
        parts = [str(gradient.get("kind"))]
    return ", ".join([*parts, *departures(Exact, gradient)])


def _gradient_setting(gradient: Settings) -> str:
    told = _gradient(gradient)
    more = [f"{setting_name(key)} {_plain(gradient[key])}" for key in ("delta", "micro_batch") if key in gradient]
    return ", ".join([told, *more])


def _transferred(inner: Settings) -> str:
    steps, starts = inner.get("num_attack_steps", 0), inner.get("num_restarts", 1)
    return attack_text(inner, "", steps, starts)


def _place(row: Any, column: Any) -> str:
    if row is None or column is None:
        return "at a random place"
    down = {0.0: "upper", 0.5: "middle", 1.0: "lower"}.get(float(row))
    right = {0.0: "left", 0.5: "middle", 1.0: "right"}.get(float(column))
    if down is None or right is None:
        return f"around {100 * row:.0f}% down and {100 * column:.0f}% right"
    return "in the middle" if down == right else f"{down} {right}"


def _rates(pairs: Sequence[Any]) -> str:
    told = [f"{rate:g}" + (f" from step {since}" if since else "") for since, rate in pairs]
    return ", ".join(told)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{setting_name(str(key))} {_plain(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(f"[{_plain(item)}]" if isinstance(item, list) else str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return f"{value:,}" if isinstance(value, int) else "cross-entropy" if value == "cross_entropy" else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_ATTACK_NAMES = {
    "num_restarts": "starts",
    "num_glimpses": "glimpses in the gradient",
    "glimpses": "glimpses in the loss",
    "num_targets": "target classes",
    "keep": "iterate kept",
    "eight_bit": "8-bit images",
    "attack_name": "attack there",
    "attack": "its settings",
}
NESTED: dict[str, Callable[[Any], str]] = {
    "gradient": _gradient_setting,
    "mask": region_text,
    "steering": _steering_setting,
    "attack": _transferred,
}
