"""Attacks by name, at any radius: `s3ta evaluate MODEL --attack NAME`. The suites that fit any radius are made of these.

Each is a short construction of the one loop (or a part of AutoAttack), and its docstring says where it comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic import ValidationError

from s3ta.attacks import (
    SPSA,
    AdamConfig,
    AttentionSteering,
    AutoAttackComponentConfig,
    BoxRegion,
    PGDConfig,
    evaluation_step_size,
)
from s3ta.errors import UserError, unknown_name


class AttackContext(NamedTuple):
    """What an attack is built from: radius and norm, and facts about the model."""

    radius: float = 8 / 255
    """As people say it: of the L-infinity ball, in pixels of [0, 1]."""
    num_glimpses: int | None = None
    """How many glimpses the defender takes; None: it is no sequential model."""
    num_classes: int | None = None
    """How many classes it knows; None: not known yet, and enough for every attack."""
    is_stated: bool = False
    """Whether somebody gave the radius: then it is that of every attack, whatever its norm."""
    norm: Literal["linf", "l2"] = "linf"
    """Of the balls of all attacks that do not state their own, and of the radius."""


Built: TypeAlias = PGDConfig | AdamConfig | AutoAttackComponentConfig


def pgd_100(situation: AttackContext) -> Built:
    """Untargeted sign PGD, 100 steps of a tenth of the radius, last iterate (E7)."""
    return _pgd(situation)


def pgd_1000(situation: AttackContext) -> Built:
    """Untargeted sign PGD, 1,000 steps of a tenth of the radius, last iterate."""
    return _pgd(situation, num_attack_steps=1000)


def targeted_100(situation: AttackContext) -> Built:
    """The paper's: random target, signed gradient of its cross-entropy, 100 steps of 1/255, last iterate (E3-E6).

    With 10 steps they are of 1.6/255 at 16/255, as in the paper: see `PAPER_STEPS`."""
    return _pgd(situation, objective="targeted", step_size=evaluation_step_size(100, situation.radius))


def targeted_1000(situation: AttackContext) -> Built:
    """The paper's, 1,000 steps, read out at 100, 250 and 1,000."""
    size = evaluation_step_size(1000, situation.radius)
    counts: dict[str, Any] = {"num_attack_steps": 1000, "read_outs": (100, 250, 1000)}
    return _pgd(situation, objective="targeted", step_size=size, **counts)


def adam_250(situation: AttackContext) -> Built:
    """The paper's Adam attack: random target, 250 steps at 0.1, 0.01, 0.001 (E10)."""
    return AdamConfig(objective="targeted", radius=situation.radius, norm=situation.norm)


def spsa_100(situation: AttackContext) -> Built:
    """The paper's SPSA: random target, 4,096 mirrored directions per step, 100 steps of 1/255 (E11). 819,200 forward passes."""
    return _pgd(situation, objective="targeted", step_size=evaluation_step_size(100, situation.radius), gradient=SPSA())


def spsa_20(situation: AttackContext) -> Built:
    """An affordable SPSA: untargeted margin, 128 directions per step, 20 steps of a fifth of the radius."""
    gradient, size = SPSA(num_directions=128), situation.radius / 5
    return _pgd(situation, loss="margin", step_size=size, num_attack_steps=20, gradient=gradient, keep="best")


def margin_100(situation: AttackContext) -> Built:
    """Sign PGD on the margin, which keeps a gradient where a sure model's cross-entropy has none (E7)."""
    return _pgd(situation, loss="margin")


def dlr_100(situation: AttackContext) -> Built:
    """Sign PGD on the difference of logits ratio (Croce and Hein 2020)."""
    return _pgd(situation, loss="dlr")


def momentum_100(situation: AttackContext) -> Built:
    """MI-FGSM: signs of a running sum of gradients (Dong et al. 2018)."""
    return _pgd(situation, momentum=1.0)


def annealed_100(situation: AttackContext) -> Built:
    """Steps from the whole radius down to nothing along half a cosine, the best iterate kept."""
    return _annealed(situation)


def annealed_margin_100(situation: AttackContext) -> Built:
    """The same on the margin."""
    return _annealed(situation, loss="margin")


def multitargeted_100(situation: AttackContext) -> Built:
    """One annealed run towards each of the nine likeliest wrong classes (Gowal et al. 2019)."""
    return _annealed(situation, objective="multitargeted", num_restarts=9)


def l2_100(situation: AttackContext) -> Built:
    """PGD in an L2 ball, 100 steps of a tenth of its radius: the given one, or ten times the usual one of pixels (80/255)."""
    radius = situation.radius if situation.is_stated else 10 * situation.radius
    return _pgd(situation, norm="l2", radius=radius, step_size=radius / 10 if situation.is_stated else situation.radius)


def local_box_100(situation: AttackContext) -> Built:
    """Annealed, only in one box of a quarter of the image at a random place, twice as far: the same Euclidean budget."""
    return _in_box(situation, 2)


def small_box_100(situation: AttackContext) -> Built:
    """Annealed, only in one box of a sixteenth of the image at a random place, four times as far: the same Euclidean budget."""
    return _in_box(situation, 4)


def all_glimpses_100(situation: AttackContext) -> Built:
    """The loss of all glimpses' read-outs together."""
    return _annealed(situation, glimpses="all")


def each_glimpse_100(situation: AttackContext) -> Built:
    """The loss of each glimpse's read-out alone, one run each, worst case per example."""
    return _annealed(situation, glimpses="each", num_restarts=situation.num_glimpses or 1)


def steer_away_100(situation: AttackContext) -> Built:
    """Half loss, half pulling the maps away from where they look on the clean image."""
    return _annealed(situation, steering=AttentionSteering(towards="away"))


def steer_away_alone_100(situation: AttackContext) -> Built:
    """Pulling the maps away and nothing else: does moving the eyes suffice?"""
    return _annealed(situation, steering=AttentionSteering(towards="away", weight=1.0))


def steer_corner_100(situation: AttackContext) -> Built:
    """Half loss, half pulling the maps onto the upper left quarter."""
    return _annealed(situation, steering=_corner(0.5))


def steer_corner_alone_100(situation: AttackContext) -> Built:
    """Pulling the maps onto the upper left quarter and nothing else."""
    return _annealed(situation, steering=_corner(1.0))


def more_glimpses_100(situation: AttackContext) -> Built:
    """Gradients through twice as many glimpses as the defender takes; last iterate, for its own answer is another."""
    return _annealed(situation, num_glimpses=2 * (situation.num_glimpses or 1), keep="last")


def fewer_glimpses_100(situation: AttackContext) -> Built:
    """Gradients through half as many glimpses as the defender takes; last iterate."""
    return _annealed(situation, num_glimpses=max(1, (situation.num_glimpses or 1) // 2), keep="last")


def apgd_ce(situation: AttackContext) -> Built:
    """AutoAttack's first part: adaptive PGD on the cross-entropy, 100 steps."""
    return AutoAttackComponentConfig(part="apgd-ce", radius=situation.radius, norm=situation.norm)


def apgd_t(situation: AttackContext) -> Built:
    """AutoAttack's second part: adaptive PGD on the targeted DLR loss, nine targets, 100 steps each."""
    return AutoAttackComponentConfig(part="apgd-t", radius=situation.radius, norm=situation.norm)


def fab_t(situation: AttackContext) -> Built:
    """AutoAttack's third part: the nearest decision boundary of nine classes, 100 steps each."""
    return AutoAttackComponentConfig(part="fab-t", radius=situation.radius, norm=situation.norm)


def square(situation: AttackContext) -> Built:
    """AutoAttack's fourth part: random squares, 5,000 queries, no gradient."""
    return AutoAttackComponentConfig(part="square", radius=situation.radius, norm=situation.norm)


ATTACKS: dict[str, Callable[[AttackContext], Built]] = {
    name.replace("_", "-"): value
    for name, value in list(globals().items())
    if isfunction(value) and value.__module__ == __name__
}
"""The functions above, in their order."""
PAPER_STEPS = ("targeted-100", "targeted-1000", "spsa-100")
"""Whose step size is `evaluation_step_size` of their radius and number of steps, also where a setting changes these."""


def get_attack(name: str, situation: AttackContext) -> Built:
    """The attack of that name. Raises UserError, nearest names offered, and for a radius that its ball cannot have."""
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS, "s3ta list attacks")
    radius = situation.radius
    try:
        attack = ATTACKS[name](situation._replace(radius=min(radius, 1.0)))
        if radius <= 1:
            return attack
        if attack.norm == "l2":  # boxes cut theirs at 1, so that an attack can be built proves nothing for pixels
            return ATTACKS[name](situation)
    except ValidationError:
        pass
    advice = f"'{name}' moves pixels, which are: write 8/255, not 8."
    raise UserError(f"--radius {radius:g} is not between 0 and 1, but {advice}")


def _in_box(situation: AttackContext, factor: int) -> PGDConfig:
    """Under a mask that leaves 1 / factor^2 of the pixels, which move so much further: one Euclidean length."""
    radius = situation.radius if situation.norm == "l2" else min(1.0, factor * situation.radius)
    return _annealed(situation._replace(radius=radius), mask=BoxRegion(height=1 / factor, width=1 / factor))


def _pgd(situation: AttackContext, **settings: Any) -> PGDConfig:
    usual = {"norm": situation.norm, "radius": situation.radius, "step_size": situation.radius / 10}
    return PGDConfig(**{"objective": "untargeted", **usual, **settings})


def _annealed(situation: AttackContext, **settings: Any) -> PGDConfig:
    return _pgd(situation, **{"step_size": situation.radius, "annealing": "cosine", "keep": "best", **settings})


def _corner(weight: float) -> AttentionSteering:
    region = BoxRegion(height=0.5, width=0.5, row=0.0, column=0.0)
    return AttentionSteering(towards="region", region=region, weight=weight)
