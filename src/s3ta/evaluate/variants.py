"""A suite made smaller for a trial, or with settings of its attacks changed: always under a name that says so."""

from __future__ import annotations

import re
from typing import Any

from s3ta.attacks import SPSA, AutoAttackConfig, PGDConfig, evaluation_step_size
from s3ta.config import from_json, override, to_json
from s3ta.errors import UserError
from s3ta.evaluate.schema import NamedAttack, Suite, TransferConfig
from s3ta.files import sha256

_THREAT = ("attack.radius", "attack.norm", "attack.mask", "attack.eight_bit")
_LONGEST = 24


def tiny_suite(suite: Suite) -> Suite:
    """The same suite shrunk to seconds: at most 2 attack steps, 2 restarts and 8 examples. For trying out and tests."""
    attacks = tuple(named.model_copy(update={"attack": _tiny_attack(named.attack)}) for named in suite.attacks)
    described = suite.model_copy(update={"description": "a trial run: its numbers mean nothing", "num_examples": 8})
    return _variant(described, f"{suite.name}-tiny", attacks)


def _tiny_attack(attack: Any) -> Any:
    if isinstance(attack, TransferConfig):
        return attack
    if isinstance(attack, AutoAttackConfig):
        return attack.model_copy(update={"num_attack_steps": 3, "num_targets": 2})
    changes: dict[str, Any] = {name: min(2, getattr(attack, name)) for name in ("num_attack_steps", "num_restarts")}
    if attack.read_outs:
        changes["read_outs"] = (1,)
    if isinstance(attack, PGDConfig):
        changes["step_size"] = attack.radius / (2 if attack.annealing == "constant" else 1)
    if isinstance(attack.gradient, SPSA):
        changes["gradient"] = attack.gradient.model_copy(update={"num_directions": 4})
    return attack.model_copy(update=changes)


def changed_suite(suite: Suite, assignments: list[str]) -> Suite:
    """The suite with `attack.a=b` settings applied to each of its attacks that has them, under a name that says so.

    Where step sizes follow the paper's rule (`Suite.paper_steps`), they do so at a changed radius or number of steps too:
    `table1 attack.radius=8/255` takes steps of 1/255, with 10 steps as with 1,000. Attacks that a change of the radius makes
    the same run once (`table2`). Rates of Adam stay.

    Raises UserError for settings that no attack has (nearest names offered), or that one that has them cannot take."""
    if not assignments:
        return suite
    attacks, without = _overridden(suite, assignments)
    if suite.paper_steps and "attack.step_size" not in [text.partition("=")[0] for text in assignments]:
        before = {named.name: named.attack for named in suite.attacks}
        attacks = tuple(_ruled(before.get(named.name), named) for named in attacks)
    attacks, same = _once(suite, attacks)
    without += same
    kept = tuple(named for named in suite.attacks if named.name not in without)
    told = f"{suite.description}; changed: {', '.join(text.removeprefix('attack.') for text in assignments)}"
    changes = {"attacks": kept, "left_out": (*suite.left_out, *without), "description": told}
    suite = suite.model_copy(update=changes)
    short = "+".join(_short(text.removeprefix("attack.")) for text in assignments)
    return from_json(Suite, to_json(_variant(suite, f"{suite.name}+{short}", attacks)), "suite")


def _ruled(before: Any, named: NamedAttack) -> NamedAttack:
    """The attack with the step size that the paper's rule gives, if its radius or number of steps became another."""
    attack = named.attack
    if not isinstance(attack, PGDConfig) or not isinstance(before, PGDConfig) or attack.norm != "linf":
        return named
    if (attack.radius, attack.num_attack_steps) == (before.radius, before.num_attack_steps):
        return named
    size = evaluation_step_size(attack.num_attack_steps, attack.radius)
    return named.model_copy(update={"attack": attack.model_copy(update={"step_size": size})})


def _once(suite: Suite, attacks: tuple[NamedAttack, ...]) -> tuple[tuple[NamedAttack, ...], list[str]]:
    """The attacks without those that differed from one before them in the radius alone, and no longer do; their names."""
    before = {named.name: named.attack.model_dump() for named in suite.attacks}

    def merged(a: NamedAttack, b: NamedAttack) -> bool:
        was_a, was_b = before.get(a.name, {}), before.get(b.name, {})
        apart = {key for key in {*was_a, *was_b} if was_a.get(key) != was_b.get(key)}
        return a.attack == b.attack and "radius" in apart and apart <= {"radius", "step_size"}

    same = [b.name for i, b in enumerate(attacks) if any(merged(a, b) for a in attacks[:i])]
    return tuple(named for named in attacks if named.name not in same), same


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
            override(attacks[0], [text])  # complains
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
    """An attack that became one of another kind says so in its name."""
    kinds = [(a.attack.kind, getattr(getattr(a.attack, "gradient", None), "kind", "")) for a in (before, after)]
    new = [kind for old, kind in zip(*kinds, strict=True) if old != kind]
    return after.model_copy(update={"name": "+".join([after.name, *new])}) if new else after


def _has(named: NamedAttack, path: str) -> bool:
    if isinstance(named.attack, AutoAttackConfig) and path == "attack.num_attack_steps":
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
    renamed = tuple(named.model_copy(update={"name": new}) for named, new in zip(attacks, names, strict=True))
    shown = follow.get(suite.gallery_attack) if suite.gallery_attack else None
    return suite.model_copy(update={"name": name, "attacks": renamed, "gallery_attack": shown})
