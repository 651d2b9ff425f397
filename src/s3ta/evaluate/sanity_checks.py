"""Small experiments on a few real images after an evaluation: do the model's gradients say what an attacker needs to know?

Each asks one question of protocol X37 and answers with a finding. All attacks are the ordinary ones with fewer steps: what
counts is how they compare, not how strong they are. Images that the model gets wrong without any attack are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from s3ta.attacks import SPSA, AttackCost, Linf, PGDConfig, attack_cost, frozen_in_eval_mode, random_signs, run_attack
from s3ta.data import Batch
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate import sanity_criteria as criteria
from s3ta.evaluate.sanity_criteria import LARGE_RADIUS, NUM_LINEARITY_STEPS, NUM_NOISES, Subject, Tried
from s3ta.external_code_errors import reason
from s3ta.finding import Check, Finding, ask_all
from s3ta.models.classifier_wrapper import device_of
from s3ta.process_state import seeded_global_generators
from s3ta.progress import Reporter
from s3ta.random_streams import stream

FEWEST = 8
"""Fewer images than that, classified right, show nothing."""


def probe(model: nn.Module, batch: Batch, radius: float, seed: int, report: Reporter | None = None) -> list[Finding]:
    """Ask eight questions about a model's gradients, on a few images in one batch.

    The answers do not depend on the order of the images: they are sorted by id.

    Args:
      batch: real examples, 16 to 32 of them, best such as the model gets right.
      radius: the L-infinity radius of the evaluation, at most 1; with 0 nothing is asked.
      seed: of all random numbers: streams `start`, `probe` and `model`, attack name "probes".
      report: told how many of the `num_evaluations` are done.
    Returns:
      One finding per question, `unchecked` where the model raises on what that question needs; a single one where nothing can
      be asked, as with fewer than 8 images classified right.
    Raises:
      UserError: ids that are not one per image or not different, and as `run_attack`."""
    check, ids, count = Check("probes"), batch.ids, len(batch.images)
    if len(ids) != count or len(set(ids)) < len(ids):
        raise UserError(f"{count} images are probed under {len(set(ids))} different ids: give one id per image.")
    if radius <= 0:
        return [check.unchecked(f"The gradients were not probed: a ball of radius {radius:g} has no inside.")]
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    device = device_of(model)
    images, labels = batch.images[order].to(device), batch.labels[order].to(device)
    model_seed = int(
        stream(seed, "model", "probes", 0, "answers").integers(2**63)
    )  # if it draws from torch's generator
    tell = report or (lambda completed: None)
    tell(0)
    with exact_arithmetic(), frozen_in_eval_mode(model), seeded_global_generators(model_seed):
        try:
            clean = criteria.tried_on(model, images, labels)
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises
            return [check.failed(reason(error))]
        right, num_right = clean.right, int(clean.right.sum())
        if num_right < FEWEST:
            tell(num_evaluations(count))
            measured = f"the model gets {num_right} of {count} images right, and {FEWEST} are needed."
            evidence = {"num_right": num_right, "num_examples": count}
            return [check.unchecked(f"The gradients were not probed: {measured}", evidence)]
        kept = tuple(ids[index] for index, is_right in zip(order, right.tolist(), strict=True) if is_right)
        subject = Subject(model, Tried(*(part[right] for part in clean)), labels[right], kept, radius, seed)
        findings = _ask(subject, lambda passes: tell(passes * count))
    tell(num_evaluations(count))
    return findings


def cost(count: int) -> AttackCost:
    """Model evaluations of a probe of so many images; fewer where some are not right."""
    attacks = [attack_cost(config) for config in _attacks(0.1).values()]
    looks = sum(_passes(config) - attack_cost(config).total for config in _attacks(0.1).values())
    gradients = 3 + NUM_LINEARITY_STEPS  # at the clean images by either loss, and at the end of the attack
    others = 1 + looks + NUM_NOISES + 1 + 2  # clean, linearity's last look, saving
    return AttackCost(
        count * (gradients + sum(attack.num_gradients for attack in attacks)),
        count * (gradients + sum(attack.num_forwards for attack in attacks) + others),
    )


def num_evaluations(count: int) -> int:
    """Passes forward plus passes back of a probe of so many images."""
    return cost(count).total


def _attacks(radius: float) -> dict[str, PGDConfig]:
    """The attacks by name; PGD is read out at 20 steps, and where the last tenth begins."""
    twenty = PGDConfig(objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=20)
    pgd = twenty.model_copy(update={"num_attack_steps": 40, "read_outs": (20, 36)})
    large = PGDConfig(
        objective="untargeted",
        radius=LARGE_RADIUS,
        step_size=LARGE_RADIUS / 8,
        num_attack_steps=20,
        random_start_prob=0.0,  # noise of this size alone would destroy the image
        keep="best",
    )
    blind = PGDConfig(
        objective="untargeted",
        loss="margin",
        radius=radius,
        step_size=radius / 4,
        num_attack_steps=8,
        momentum=1.0,  # the few probes of all steps together
        random_start_prob=0.0,
        keep="best",
        gradient=SPSA(num_directions=8, delta=radius / 2),
    )
    return {"pgd": pgd, "margin": twenty.model_copy(update={"loss": "margin"}), "large": large, "spsa": blind}


def _passes(config: PGDConfig) -> int:
    """Of an attack on one image, and of a look at each of its read-outs."""
    return attack_cost(config).total + len({*config.read_outs, config.num_attack_steps})


class _Experiments:
    """What was tried, by name; asking for one that failed raises `UnansweredError` with the reason."""

    def __init__(self, subject: Subject, tell: Callable[[int], None]) -> None:
        self._tried, self._failed = dict[str, list[Tried]](), dict[str, str]()
        self._tell, self._done = tell, 1
        for name, config in _attacks(subject.radius).items():
            self._try(name, partial(_attacked, subject, config), _passes(config))
        self._try("noises", partial(_noises, subject), NUM_NOISES)

    def __getitem__(self, name: str) -> list[Tried]:
        if name in self._failed:
            raise criteria.UnansweredError(self._failed[name])
        return self._tried[name]

    def _try(self, name: str, experiment: Callable[[], list[Tried]], num_passes: int) -> None:
        try:
            self._tried[name] = experiment()
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises costs this answer alone
            self._failed[name] = reason(error)
        self._done += num_passes
        self._tell(self._done)


def _noises(subject: Subject) -> list[Tried]:
    """Images at the corners of the ball, drawn at random."""
    clean, threat = subject.clean.images, Linf(subject.radius)
    noises = [random_signs(subject.draw(number), clean) for number in range(1, NUM_NOISES + 1)]
    return [criteria.tried_on(subject.model, threat.start(clean, signs), subject.labels) for signs in noises]


def _ask(subject: Subject, tell: Callable[[int], None]) -> list[Finding]:
    tried = _Experiments(subject, tell)
    worst_noise = f"the worst of {NUM_NOISES} images of random signs"
    small_spsa, margin = "a small SPSA, which uses no gradient,", "PGD of as many steps on the margin"

    def end() -> Tried:
        return tried["pgd"][2]

    def inside() -> list[Tried]:
        return [tried["pgd"][0], end(), *tried["margin"], *tried["spsa"], *tried["noises"]]

    def noise() -> Finding:
        broken = torch.stack([experiment.broken for experiment in tried["noises"]]).any(dim=0)
        return criteria.stronger("random noise", worst_noise, broken, tried["pgd"][0])

    def rising() -> Finding:
        finding = criteria.still_rising(subject.clean, *tried["pgd"])
        return finding._replace(evidence=finding.evidence | _what_broke(subject, end()))

    questions: dict[str, Callable[[], Finding | list[Finding]]] = {
        "larger radius": lambda: criteria.larger_radius(subject, *tried["large"]),
        "random noise": noise,
        "black box": lambda: criteria.stronger("black box", small_spsa, tried["spsa"][0].broken, tried["pgd"][0]),
        "margin loss": lambda: criteria.stronger("margin loss", margin, tried["margin"][0].broken, tried["pgd"][0]),
        "zero gradients": lambda: criteria.zero_gradients(subject, end()),
        "loss still rising": rising,
        "eight bits": lambda: criteria.eight_bits(subject, end().images),
        "local linearity": lambda: criteria.linearity(subject, inside()),
    }
    return ask_all(questions)


def _what_broke(subject: Subject, end: Tried) -> dict[str, Any]:
    """By ids, to compare with the suite's attacks on the same images (`records/checks_weaker_than_short_pgd.py`)."""
    broken = [example for example, is_broken in zip(subject.ids, end.broken.tolist(), strict=True) if is_broken]
    return {"radius": subject.radius, "tried": list(subject.ids), "broken": broken}


def _attacked(subject: Subject, config: PGDConfig) -> list[Tried]:
    """Images at each read-out."""
    attacked = run_attack(subject.model, subject.clean.images, subject.labels, config=config, draw=subject.draw())
    return [criteria.tried_on(subject.model, images, subject.labels) for images in attacked.images]
