"""Attacks in plain words, from their settings as the manifest holds them.

attack_text(AttackSettings(radius=1.0, norm="l2", loss="margin"), "l2-100", 100, 1)
    -> "100 steps, L2 radius 1, 1 start, margin loss"
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from s3ta.attack_config import BackpropGradient, PGDConfig, departures
from s3ta.config import format_radius
from s3ta.records import CLEAN
from s3ta.records.manifest import AttackSettings, GradientEntry, RegionEntry, SteeringEntry

PARTS = {
    "apgd-ce": "AutoAttack's adaptive PGD on the cross-entropy",
    "apgd-t": "AutoAttack's adaptive PGD towards target classes",
    "fab-t": "AutoAttack's search for the nearest boundary",
    "square": "AutoAttack's random squares, no gradient",
}
NORMS = {"linf": "L-infinity", "l2": "L2"}
_DISTANCES = ("radius", "step_size")


def attack_text(settings: AttackSettings | None, attack: str, num_attack_steps: int, num_restarts: int) -> str:
    """One line on an attack: `100 steps, radius 0.1, 1 start`. Only what departs from the paper's attack is added."""
    if attack == CLEAN:
        return "no attack"
    settings = settings or AttackSettings()
    if settings.kind == "transfer":
        inner = attack_text(settings.made_with, str(settings.attack_name), num_attack_steps, num_restarts)
        return f"images that {settings.attack_name} found on another model ({inner})"
    if settings.kind == "autoattack":
        return ", ".join([_part(settings, num_attack_steps), *_threat(settings)])
    steps, starts = number(num_attack_steps, "step"), number(num_restarts, "start")
    return ", ".join([steps, *_threat(settings), starts, *_manner(settings)])


def attack_name(attack: str, *, cascade: bool) -> str:
    """`square`; of a cascade `then square`; the clean images under their own name."""
    return f"then {attack}" if cascade and attack != CLEAN else attack


def threat_text(settings: AttackSettings) -> str:
    """What the attacker may do: `radius 0.1`, `L2 radius 1`, `radius 0.2, only in a box of 25% of the image ...`."""
    return ", ".join(_threat(settings.made_with))


def ball_text(settings: AttackSettings) -> str:
    """Radius and norm: `8/255 L-infinity`, `0.5 L2`, `0.2 L-infinity, masked`; a dash where the settings do not say."""
    inner = settings.made_with
    if inner.radius is None:
        return "–"
    return f"{format_radius(inner.radius)} {NORMS.get(inner.norm, inner.norm)}{', masked' if inner.mask else ''}"


def region_text(region: RegionEntry) -> str:
    """`a box of 25% of the image, upper left`; `a drawn region of 44% of the image`."""
    if region.kind == "grid" and region.rows:
        cells = "".join(region.rows)
        return f"a drawn region of {100 * cells.count('#') / max(1, len(cells)):.0f}% of the image"
    share = region.height * region.width
    return f"a box of {100 * share:.3g}% of the image, {_position(region.row, region.column)}"


def setting_text(name: str, value: Any) -> str:
    """One setting in short words, nested ones too: `exact`, `SPSA, 128 directions, delta 0.01`."""
    if value is None or value == []:
        return "–"
    if name in _DISTANCES and isinstance(value, int | float) and not isinstance(value, bool):
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


def number(count: int, noun: str, nouns: str = "") -> str:
    """`1 step`, `1,000 steps`."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def _threat(settings: AttackSettings) -> list[str]:
    parts = []
    if settings.radius is not None:
        norm = "" if settings.norm == "linf" else f"{NORMS.get(settings.norm, settings.norm)} "
        parts.append(f"{norm}radius {format_radius(settings.radius)}")
    if settings.mask:
        parts.append(f"only in {region_text(settings.mask)}")
    return [*parts, "8-bit images"] if settings.eight_bit else parts


def _part(settings: AttackSettings, num_attack_steps: int) -> str:
    name, steps = PARTS.get(settings.part, settings.part), number(num_attack_steps, "step")
    if settings.part == "square":
        return f"{name}, {number(num_attack_steps, 'query', 'queries')}"
    if settings.part in ("apgd-t", "fab-t"):
        return f"{name}, {settings.num_targets} classes, {steps} each"
    return f"{name}, {steps}"


def _manner(settings: AttackSettings) -> list[str]:
    """How the attack goes about it, where that is not the paper's way."""
    losses = {"cross_entropy": "", "margin": "margin loss", "dlr": "DLR loss"}
    glimpses = {"last": "", "all": "loss of all glimpses together", "each": "loss of another glimpse at each start"}
    gradient = _gradient(settings.gradient)
    parts = [
        "each towards another likely wrong class" if settings.objective == "multitargeted" else "",
        losses.get(settings.loss, f"loss {settings.loss}"),
        "Adam" if settings.kind == "adam" else "",
        f"momentum {settings.momentum:g}" if settings.momentum else "",
        "shrinking steps" if settings.annealing != "constant" else "",
        "best iterate kept" if settings.keep == "best" else "",
        f"gradients: {gradient}" if gradient != "exact" else "",
        glimpses.get(settings.glimpses, f"loss of glimpses {settings.glimpses}"),
        f"gradients through {settings.num_glimpses} glimpses" if settings.num_glimpses else "",
        _steering(settings.steering) if settings.steering else "",
    ]
    return [*(part for part in parts if part), *departures(PGDConfig, settings.raw)]


def _steering(steering: SteeringEntry) -> str:
    goal = _goal(steering, "away from where it lay")
    share = "and nothing else" if steering.weight == 1 else f"as {100 * steering.weight:.0f}% of the objective"
    return f"attention pulled {goal}, {share}"


def _goal(steering: SteeringEntry, away: str) -> str:
    return f"into {region_text(steering.region)}" if steering.towards == "region" and steering.region else away


def _gradient(gradient: GradientEntry) -> str:
    if gradient.kind == "spsa":
        parts = [f"SPSA, {gradient.num_directions:,} directions"]
    else:
        parts = [f"mean of {gradient.num_samples}" if gradient.num_samples > 1 else gradient.kind]
    return ", ".join([*parts, *departures(BackpropGradient, gradient.raw)])


def _gradient_setting(settings: dict[str, Any]) -> str:
    extras = [f"{setting_name(key)} {_plain(settings[key])}" for key in ("delta", "micro_batch") if key in settings]
    return ", ".join([_gradient(GradientEntry.model_validate(settings)), *extras])


def _steering_setting(settings: dict[str, Any]) -> str:
    steering = SteeringEntry.model_validate(settings)
    return f"{_goal(steering, 'away')}, weight {_plain(steering.weight)}"


def _transferred(settings: dict[str, Any]) -> str:
    inner = AttackSettings.model_validate(settings)
    return attack_text(inner, "", inner.num_attack_steps, inner.num_restarts)


def _position(row: float | None, column: float | None) -> str:
    if row is None or column is None:
        return "at a random place"
    down = {0.0: "upper", 0.5: "middle", 1.0: "lower"}.get(row)
    right = {0.0: "left", 0.5: "middle", 1.0: "right"}.get(column)
    if down is None or right is None:
        return f"around {100 * row:.0f}% down and {100 * column:.0f}% right"
    return "in the middle" if down == right else f"{down} {right}"


def _rates(pairs: Sequence[Any]) -> str:
    return ", ".join(f"{rate:g}" + (f" from step {since}" if since else "") for since, rate in pairs)


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
NESTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "gradient": _gradient_setting,
    "mask": lambda settings: region_text(RegionEntry.model_validate(settings)),
    "steering": _steering_setting,
    "attack": _transferred,
}
