"""A suite made smaller for a trial, or with settings of its attacks changed: always under a name that says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from s3ta.attack_config import NamedAttack, TransferConfig
from s3ta.attacks import SPSA, AutoAttackComponentConfig, PGDConfig, evaluation_step_size
from s3ta.config import from_json, override, to_json
from s3ta.errors import UserError
from s3ta.evaluate.attack_catalogue import AttackContext
from s3ta.evaluate.suite import Suite
from s3ta.evaluate.suites import SUITES, get_suite, suite_of_attacks
from s3ta.files import sha256

_THREAT = ("attack.radius", "attack.norm", "attack.mask", "attack.eight_bit")
_STRENGTH = ("radius", "num_attack_steps", "step_size", "num_restarts", "read_outs", "num_directions", "num_targets")
"""Settings that a suite's description may still speak of after a change, for the change stands behind it."""
_CLAIMS = {
    "margin": ("loss",),
    "dlr": ("loss",),
    "momentum": ("momentum",),
    "annealed": ("annealing",),
    "l2": ("norm",),
    "box": ("mask",),
    "glimpse": ("glimpses",),
    "glimpses": ("glimpses", "num_glimpses"),
    "steer": ("steering",),
}
"""Settings that a word of an attack's name speaks of. The objective's word is replaced; another kind is added."""
_ONE_RUN = {"radius", "step_size", "num_attack_steps", "read_outs", "objective"}
"""Attacks that differed in nothing else, and no longer do, are one run."""
_LONGEST = 24


def build_suite(
    name: str | None, attacks: list[str], situation: AttackContext, is_tiny: bool, overrides: list[str]
) -> Suite:
    """The suite of a name, or of single attacks, at a radius, shrunk and changed as asked. Raises UserError for both, for what
    is unknown, and for a radius where the suite states its own."""
    if attacks and name is not None:
        raise UserError("Give either --suite or --attack, not both.")
    if name in SUITES and situation.is_stated:
        raise UserError(f"Suite '{name}' states its own radius: change it with attack.radius=... instead of --radius.")

    def built(situation: AttackContext) -> Suite:
        suite = suite_of_attacks(attacks, situation) if attacks else get_suite(str(name), situation)
        return shrink_suite(suite) if is_tiny else suite

    at_radius = None if name in SUITES else lambda radius: built(situation._replace(radius=radius, is_stated=True))
    return override_suite(built(situation), overrides, at_radius)


def shrink_suite(suite: Suite) -> Suite:
    """The same suite shrunk to seconds: at most 2 attack steps, 2 restarts and 8 examples. For trying out and tests."""
    attacks = tuple(named.model_copy(update={"attack": _tiny_attack(named.attack)}) for named in suite.attacks)
    trial = suite.model_copy(update={"description": "a trial run: its numbers mean nothing", "num_examples": 8})
    return _variant(trial, f"{suite.name}-tiny", attacks)


def _tiny_attack(attack: Any) -> Any:
    if isinstance(attack, TransferConfig):
        return attack
    if isinstance(attack, AutoAttackComponentConfig):
        return attack.model_copy(update={"num_attack_steps": 3, "num_targets": 2})
    changes: dict[str, Any] = {name: min(2, getattr(attack, name)) for name in ("num_attack_steps", "num_restarts")}
    if attack.read_outs:
        changes["read_outs"] = (1,)
    if isinstance(attack, PGDConfig):
        changes["step_size"] = attack.radius / (2 if attack.annealing == "constant" else 1)
    if isinstance(attack.gradient, SPSA):
        changes["gradient"] = attack.gradient.model_copy(update={"num_directions": 4})
    return attack.model_copy(update=changes)


def override_suite(suite: Suite, assignments: list[str], at_radius: Callable[[float], Suite] | None = None) -> Suite:
    """The suite with `attack.a=b` settings applied to each of its attacks that has them, under a name that says so.

    A suite that fits any radius is built anew at a changed one (`at_radius`), so that step sizes and the parts of a budget
    follow. Where step sizes follow the paper's rule (`Suite.paper_steps`), they do so at a changed radius or number of steps
    too. Attacks that a change makes the same run once (`table2`, with its two radii). Rates of Adam stay.

    Raises UserError for settings that no attack has (nearest names offered), or that one that has them cannot take."""
    if not assignments:
        return suite
    names, applied = [text.partition("=")[0] for text in assignments], assignments
    if at_radius is not None and "attack.radius" in names:
        suite = _rebuilt(suite, assignments, at_radius)
        applied = [text for text, name in zip(assignments, names, strict=True) if name != "attack.radius"]
    attacks, without = _overridden(suite, applied)
    kept = [named for named in suite.attacks if named.name not in without]
    if "attack.step_size" not in names:
        pairs = zip(kept, attacks, strict=True)
        attacks = tuple(_ruled(was, now) if was.name in suite.paper_steps else now for was, now in pairs)
    kept, attacks, same = _once(kept, attacks)
    stems = {_stem(named.name) for named in attacks}
    same = [name for name in same if _stem(name) not in stems]  # with fewer steps nothing is left out
    described = suite.description
    if any(name.rpartition(".")[2] not in _STRENGTH for name in names):
        described = f"the attacks of '{suite.name}'"
    described += f"; changed: {', '.join(text.removeprefix('attack.') for text in assignments)}"
    changes = {"attacks": tuple(kept), "left_out": (*suite.left_out, *without, *same), "description": described}
    suite = suite.model_copy(update=changes)
    short = "+".join(_short(text.removeprefix("attack.")) for text in assignments)
    return from_json(Suite, to_json(_variant(suite, f"{suite.name}+{short}", attacks)), "suite")


def _stem(name: str) -> str:
    """A name without its number of steps."""
    return re.sub(r"-\d+(?=\+|$)", "", name)


def _rebuilt(suite: Suite, assignments: list[str], at_radius: Callable[[float], Suite]) -> Suite:
    """The suite at the last radius that is given; above 1 only for a norm that allows it, which another setting may bring."""
    text = [text for text in assignments if text.partition("=")[0] == "attack.radius"][-1]
    tried: Any = override(suite.attacks[0], ["attack.norm=l2", text]).attack
    pixels = next((named for named in suite.attacks if getattr(named.attack, "norm", "") == "linf"), None)
    if tried.radius > 1 and pixels is not None:
        override(pixels, [text])  # complains
    return at_radius(tried.radius)


def norm_of_overrides(assignments: list[str]) -> Literal["linf", "l2"]:
    """The norm that settings ask of every attack: the last one given; L-infinity where none or another word is."""
    norms = [text.partition("=")[2] for text in assignments if text.partition("=")[0] == "attack.norm"]
    return "l2" if norms[-1:] == ["l2"] else "linf"


def _ruled(was: NamedAttack, now: NamedAttack) -> NamedAttack:
    """The attack with the step size that the paper's rule gives, if its radius or number of steps became another."""
    attack, before = now.attack, was.attack
    if not isinstance(attack, PGDConfig) or not isinstance(before, PGDConfig) or attack.norm != "linf":
        return now
    is_as_before = (attack.radius, attack.num_attack_steps) == (before.radius, before.num_attack_steps)
    if is_as_before or attack.num_attack_steps < 1:  # none: the suite refuses that
        return now
    size = evaluation_step_size(attack.num_attack_steps, attack.radius)
    return now.model_copy(update={"attack": attack.model_copy(update={"step_size": size})})


def _once(
    before: list[NamedAttack], attacks: tuple[NamedAttack, ...]
) -> tuple[list[NamedAttack], tuple[NamedAttack, ...], list[str]]:
    """The attacks without those that a change made the same as one before them: both as they were, as they are, and the
    names of those left out. Where only read-outs differ, the one that stays has those of both."""
    kept: list[tuple[NamedAttack, NamedAttack]] = []
    same = list[str]()
    for was, now in zip(before, attacks, strict=True):
        index = next((i for i, (other, known) in enumerate(kept) if _is_one_run(other, was, known, now)), None)
        if index is None:
            kept.append((was, now))
            continue
        other, known = kept[index]
        if read_outs := tuple(sorted({*known.attack.read_outs, *now.attack.read_outs})):
            attack = known.attack.model_copy(update={"read_outs": read_outs})
            kept[index] = other, known.model_copy(update={"attack": attack})
        same.append(was.name)
    return [was for was, _ in kept], tuple(now for _, now in kept), same


def _is_one_run(was_a: NamedAttack, was_b: NamedAttack, a: NamedAttack, b: NamedAttack) -> bool:
    apart, still = _differing(was_a, was_b), _differing(a, b)
    return apart <= _ONE_RUN and still <= {"read_outs"} and bool(apart - still)


def _differing(a: NamedAttack, b: NamedAttack) -> set[str]:
    """The settings in which two attacks differ."""
    left, right = a.attack.model_dump(), b.attack.model_dump()
    return {key for key in {*left, *right} if left.get(key) != right.get(key)}


def _short(assignment: str) -> str:
    """An assignment as part of a folder's name; a long value, such as a mask, as its hash."""
    name, _, value = assignment.partition("=")
    if len(value) > _LONGEST or re.search(r"[^A-Za-z0-9_.,+/-]", value):
        value = sha256(value.encode())[:8]
    return re.sub(r"[^A-Za-z0-9_=.,+-]+", "_", f"{name}={value}")


def _overridden(suite: Suite, assignments: list[str]) -> tuple[tuple[NamedAttack, ...], list[str]]:
    """Each attack with the settings that it has, and the names of those left out.

    A setting that says what the attacker may do (radius, norm, mask, eight_bit) must hold for a whole suite: attacks that
    cannot take it are left out. Raises UserError where no attack has a setting, or one that has it cannot take it."""
    attacks, without = suite.attacks, list[str]()
    if not attacks:
        raise UserError(f"Suite '{suite.name}' attacks nothing, so '{assignments[0]}' cannot be set.")
    for text in assignments:
        path = text.partition("=")[0]
        having = [_has(named, path) for named in attacks]
        if not any(having):
            # complains, but of `square` alone, whose steps are queries: then these are meant
            override(attacks[0], [text])
            having = [True] * len(attacks)
        changed = []
        for named, has in zip(attacks, having, strict=True):
            if has:
                changed.append(_told_apart(named, override(named, [text])))
            elif ".".join(path.split(".")[:2]) in _THREAT:
                without.append(named.name)
            else:
                changed.append(named)
        attacks = tuple(changed)
    return attacks, without


def _told_apart(before: NamedAttack, after: NamedAttack) -> NamedAttack:
    """An attack that is no longer what its name says gets a name that does: of another kind, with another objective, or
    with another value of a setting that a word of its name speaks of."""
    kinds = [(a.attack.kind, getattr(getattr(a.attack, "gradient", None), "kind", "")) for a in (before, after)]
    new = [kind for old, kind in zip(*kinds, strict=True) if old != kind]
    name, objective = after.name, str(after.attack.objective)
    if before.attack.objective != objective:
        words = [objective if word == before.attack.objective else word for word in name.split("-")]
        name, new = ("-".join(words), new) if objective in words else (name, [*new, objective])
    spoken_of = {setting for word in name.partition("+")[0].split("-") for setting in _CLAIMS.get(word, ())}
    for setting in sorted(spoken_of):
        was, now = (getattr(named.attack, setting, None) for named in (before, after))
        if was != now:
            new.append(now if isinstance(now, str) else _short(f"{setting}={now}") if now else f"no_{setting}")
    return after.model_copy(update={"name": "+".join([name, *new])})


def _has(named: NamedAttack, path: str) -> bool:
    if isinstance(named.attack, AutoAttackComponentConfig) and path == "attack.num_attack_steps":
        return named.attack.part != "square"  # whose steps are queries
    node: Any = named.model_dump(mode="json")
    for name in path.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def _variant(suite: Suite, name: str, attacks: tuple[NamedAttack, ...]) -> Suite:
    """The suite with its attacks replaced, in order. Names that end in the number of steps follow it, if they stay apart."""
    names = [
        re.sub(rf"-{before.attack.num_attack_steps}(?=\+|$)", f"-{after.attack.num_attack_steps}", after.name)
        for before, after in zip(suite.attacks, attacks, strict=True)
    ]
    if len(set(names)) < len(names):
        names = [named.name for named in attacks]
    follow = {before.name: new for before, new in zip(suite.attacks, names, strict=True)}
    by_rule = tuple(follow[name] for name in suite.paper_steps if name in follow)
    renamed = tuple(named.model_copy(update={"name": new}) for named, new in zip(attacks, names, strict=True))
    shown = follow.get(suite.gallery_attack) if suite.gallery_attack else None
    changes = {"name": name, "attacks": renamed, "gallery_attack": shown, "paper_steps": by_rule}
    return suite.model_copy(update=changes)
