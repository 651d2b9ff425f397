"""Suites by name: which attacks make one row of a table. The paper's are in `paper_suites.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from s3ta.attack_config import NamedAttack, TransferConfig
from s3ta.attacks import AutoAttackComponentConfig, GradientAttackConfig, PGDConfig
from s3ta.config import format_radius
from s3ta.errors import UserError, unknown_name
from s3ta.evaluate.attack_catalogue import PAPER_STEPS, AttackContext, get_attack
from s3ta.evaluate.paper_suites import figure7, table1, table2, table3, table4, table5, table6
from s3ta.evaluate.suite import BOTH, ImagesFrom, Suite
from s3ta.files import sha256
from s3ta.records.ledger import INFORMATIVE


def digits() -> Suite:
    """The demo's suite: radius 0.1, untargeted and random-targeted, 100 steps of 0.01 read out on the way."""
    attack = PGDConfig(radius=0.1, step_size=0.01, num_attack_steps=100, read_outs=(5, 10, 20, 50, 100))
    return _with_either_aim("digits", "PGD with up to 100 steps at radius 0.1", attack, 400)


def quick() -> Suite:
    """A first look at a model of colour images: 20 steps at 8/255."""
    attack = PGDConfig(radius=8 / 255, step_size=2 / 255, num_attack_steps=20, read_outs=(5, 10, 20))
    return _with_either_aim("quick", "PGD with 20 steps at 8/255", attack, 500)


def autoattack(situation: AttackContext) -> Suite:
    """AutoAttack's standard version: its four parts, each on what the ones before it left correct."""
    return _named("autoattack", "AutoAttack, standard version", situation, _AUTOATTACK, cascade=True)


def leaderboard_radius(num_classes: int | None) -> float:
    """The L-infinity radius of RobustBench's list, in [0, 1]: 4/255 for ImageNet (1,000 classes or more), else 8/255."""
    return (4 if num_classes is not None and num_classes >= 1000 else 8) / 255


def robustbench(situation: AttackContext) -> Suite:
    """AutoAttack on all images, as RobustBench lists it: radius 8/255 for CIFAR-10 and CIFAR-100, 4/255 for ImageNet.

    (Croce et al. 2021, https://arxiv.org/abs/2010.09670.) CIFAR means the 10,000 test images, ImageNet 5,000 of the validation
    images, which RobustBench names. At another radius than the leaderboard's the description says so."""
    listed = leaderboard_radius(situation.num_classes)
    other = situation.num_classes is not None and abs(situation.radius - listed) > 1e-9
    description = "AutoAttack, standard version, on all images (RobustBench lists 8/255 for CIFAR, 4/255 for ImageNet)"
    suite = _named("robustbench", description, situation, _AUTOATTACK, cascade=True)
    described = suite.description
    if other:
        described += f"; not the leaderboard's, which for {situation.num_classes:,} classes is {format_radius(listed)}"
    return suite.model_copy(update={"num_examples": None, "description": described})


def sequential(situation: AttackContext) -> Suite:
    """Every attack made for sequential attention, beside the same attack without it; all on all examples."""
    names = ("pgd-100", "annealed-100", *_SEQUENTIAL)
    return _named("sequential", "attacks made for a model that looks in sequence, each on its own", situation, names)


def local(situation: AttackContext) -> Suite:
    """The same Euclidean budget spent everywhere, on a quarter and on a sixteenth of the image."""
    names = ("annealed-100", "local-box-100", "small-box-100")
    described = "one Euclidean budget, spent everywhere, in a quarter, in a sixteenth of the image"
    if situation.norm == "linf" and 4 * situation.radius > 1:
        budget = f"the budget would be {4 * situation.radius:g} in the sixteenth"
        described += f" (but pixels move by 1 at most, where {budget})"
    return _named("local", described, situation, names)


def unmask(situation: AttackContext) -> Suite:
    """Sign PGD beside what sees through masked gradients: the margin, SPSA, Square."""
    names = ("pgd-100", "margin-100", "spsa-20", "square")
    return _named("unmask", "PGD beside attacks that see through masked gradients", situation, names)


def strongest(situation: AttackContext) -> Suite:
    """Worst case over PGD with restarts, the attacks made for sequential attention, and AutoAttack; cheap ones first."""
    names = ("annealed-100", "annealed-margin-100", "pgd-100", *_SEQUENTIAL, *_AUTOATTACK)
    description = "worst case over PGD with restarts, attacks on the sequence of glimpses, and AutoAttack"
    suite = _named("strongest", description, situation, names, cascade=True)
    attacks = {named.name: named.attack for named in suite.attacks}
    attacks["pgd-100"] = attacks["pgd-100"].model_copy(update={"num_restarts": 10})
    restarted = tuple(NamedAttack(name=name, attack=attack) for name, attack in attacks.items())
    return suite.model_copy(update={"attacks": restarted})


_AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
_SEQUENTIAL = (
    "all-glimpses-100",
    "each-glimpse-100",
    "steer-away-100",
    "steer-away-alone-100",
    "steer-corner-100",
    "steer-corner-alone-100",
    "more-glimpses-100",
    "fewer-glimpses-100",
)
SUITES = {
    "digits": digits,
    "quick": quick,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "table5": table5,
    "table6": table6,
    "figure7": figure7,
}
"""Suites that state their radius."""
SUITES_AT_ANY_RADIUS = {
    "autoattack": autoattack,
    "sequential": sequential,
    "local": local,
    "unmask": unmask,
    "strongest": strongest,
    "robustbench": robustbench,
}
"""Suites for any radius."""


def describe_suites() -> dict[str, str]:
    """One sentence on every suite, by name: those that state their radius, then those for any."""
    stated = {name: function().description for name, function in SUITES.items()}
    anywhere = {name: (function.__doc__ or "").splitlines()[0] for name, function in SUITES_AT_ANY_RADIUS.items()}
    return {name: f"{text[:1].upper()}{text[1:].rstrip('.')}." for name, text in (stated | anywhere).items()}


def get_suite(name: str, situation: AttackContext | None = None) -> Suite:
    """The suite of that name; `situation` is for suites that state no radius. Raises UserError, nearest names offered."""
    if name in SUITES_AT_ANY_RADIUS:
        return SUITES_AT_ANY_RADIUS[name](situation or AttackContext())
    if name not in SUITES:
        raise unknown_name("suite", name, [*SUITES, *SUITES_AT_ANY_RADIUS], "s3ta list suites")
    return SUITES[name]()


def suite_of_attacks(names: Sequence[str], situation: AttackContext) -> Suite:
    """A suite of single attacks from the catalogue. Raises UserError for names that are not there or come twice."""
    if not names:
        raise UserError("A suite of single attacks needs at least one: see `s3ta list attacks`.")
    if len(set(names)) < len(names):
        raise UserError(f"An attack is named twice: {', '.join(names)}.")
    by_rule = tuple(name for name in names if name in PAPER_STEPS)
    suite = Suite(
        name="+".join(names),
        description=", ".join(names),
        attacks=_from_catalogue(names, situation),
        gallery_attack=names[0],
        paper_steps=by_rule,
    )
    return _fitting(suite, situation)


def transfer_suite(manifest: dict[str, Any]) -> Suite:
    """The final images of each attack of another model's evaluation, from its manifest. Raises UserError for one without
    attacks, or whose images were themselves transferred."""
    source = manifest["model"]
    if not manifest["suite"]["attacks"]:
        raise UserError("That evaluation attacked nothing: it has no adversarial images to transfer.")
    attacks = []
    for settings in manifest["suite"]["attacks"]:
        name = settings["name"]
        attack = NamedAttack.from_entry(settings).attack
        if isinstance(attack, TransferConfig):
            raise UserError("These images were themselves transferred: use the folder of the model they were made on.")
        if not isinstance(attack, AutoAttackComponentConfig):
            attack = attack.model_copy(update={"read_outs": ()})
        attacks.append(NamedAttack(name=f"transfer:{name}", attack=TransferConfig(attack_name=name, attack=attack)))
    identity = {key: value for key, value in manifest.items() if key != INFORMATIVE}
    short = re.sub(r"[^A-Za-z0-9_.,+-]+", "_", f"{source['name']}-{manifest['suite']['name']}")
    return Suite(
        name=f"transfer-{short}",
        description=f"adversarial images made on {source['name']} (weights {source['sha256']})",
        attacks=tuple(attacks),
        gallery_attack=attacks[0].name,
        images_from=ImagesFrom(
            model=source["name"],
            sha256=source["sha256"],
            suite=manifest["suite"]["name"],
            evaluation=sha256(json.dumps(identity, sort_keys=True).encode()),
        ),
    )


def _named(
    name: str, description: str, situation: AttackContext, names: Sequence[str], *, cascade: bool = False
) -> Suite:
    suite = Suite(
        name=name,
        description=f"{description}, radius {format_radius(situation.radius)}",
        attacks=_from_catalogue(names, situation),
        num_examples=256,
        gallery_attack=None if cascade else names[0],
        cascade=cascade,
    )
    return _fitting(suite, situation)


def _from_catalogue(names: Sequence[str], situation: AttackContext) -> tuple[NamedAttack, ...]:
    return tuple(NamedAttack(name=name, attack=get_attack(name, situation)) for name in names)


def _fitting(suite: Suite, situation: AttackContext) -> Suite:
    """Without the attacks that do not fit the model. Raises UserError where nothing is left."""
    unfit = [named.name for named in suite.attacks if why_unsupported(named.attack, situation) is not None]
    attacks = tuple(named for named in suite.attacks if named.name not in unfit)
    if not attacks:
        raise UserError(f"{', '.join(unfit)}: {why_unsupported(suite.attacks[0].attack, situation)}.")
    return suite.model_copy(update={"attacks": attacks, "left_out": tuple(unfit)})


def why_unsupported(attack: Any, situation: AttackContext) -> str | None:
    """Why an attack cannot be run on such a model; None where it can."""
    if isinstance(attack, GradientAttackConfig):
        if attack.needs_trace and situation.num_glimpses is None:
            return "the attack looks at glimpses, and the model takes none"
        needed = {"dlr": 4 if attack.objective == "targeted" else 3}.get(attack.loss, 2)
    else:
        needed = 4 if isinstance(attack, AutoAttackComponentConfig) and attack.part == "apgd-t" else 2
    if situation.num_classes is not None and situation.num_classes < needed:
        return f"the attack needs {needed} classes, and the model has {situation.num_classes}"
    return None


def _with_either_aim(name: str, description: str, attack: PGDConfig, num_examples: int) -> Suite:
    """One attack, untargeted and random-targeted."""
    attacks = [attack.model_copy(update={"objective": objective}) for objective in BOTH]
    named = tuple(NamedAttack(name=f"{each.objective}-{each.num_attack_steps}", attack=each) for each in attacks)
    return Suite(
        name=name,
        description=f"{description}, untargeted and random-targeted",
        attacks=named,
        num_examples=num_examples,
        gallery_attack=named[0].name,
    )
