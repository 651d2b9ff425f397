"""Small experiments on a few real images after an evaluation: do the model's gradients say what an attacker needs to know?

Each asks one question of protocol X37 and answers with a finding. All attacks are the ordinary ones with fewer steps: what
counts is how they compare, not how strong they are. Images that the model gets wrong without any attack are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from s3ta.attacks import (
    SPSA,
    Evaluations,
    Linf,
    PGDConfig,
    evaluations,
    frozen,
    run_attack,
    start_noise,
)
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate.sanity_criteria import (
    LARGE_RADIUS,
    NUM_LINEARITY_STEPS,
    NUM_NOISES,
    Subject,
    Tried,
    UnansweredError,
    eight_bits,
    larger_radius,
    linearity,
    still_rising,
    stronger,
    tried_on,
    zero_gradients,
)
from s3ta.foreign_code import reason
from s3ta.models.info import device_of
from s3ta.process_state import random_state
from s3ta.progress import Reporter
from s3ta.records import Finding, unanswered
from s3ta.streams import stream
from s3ta.types import Images, Labels

FEWEST = 8
"""Fewer images than that, classified right, show nothing."""


def probe(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ids: Sequence[str],
    *,
    radius: float,
    seed: int,
    adversarial: Tensor | None = None,
    report: Reporter | None = None,
) -> list[Finding]:
    """Ask eight questions about a model's gradients, on a few images in one batch.

    The answers do not depend on the order of the images: they are sorted by id.

    Args:
      model: images in [0, 1] -> logits; frozen and put in eval mode for the duration.
      images, labels, ids: real examples, 16 to 32 of them, best such as the model gets right.
      radius: the L-infinity radius of the evaluation, at most 1; with 0 nothing is asked.
      seed: of all random numbers: streams `start`, `probe` and `model`, attack name "probes".
      adversarial: images that an attack of the evaluation found for the same examples, in the same order, to ask what is lost
        when they are saved with 8 bits; None: those found here are asked.
      report: told how many of the `num_evaluations` are done.
    Returns:
      One finding per question, `unchecked` where the model raises on what that question needs; a single one where nothing can
      be asked, as with fewer than 8 images classified right.
    Raises:
      UserError: ids that are not one per image or not different, and as `run_attack`."""
    if len(ids) != len(images) or len(set(ids)) < len(ids):
        raise UserError(f"{len(images)} images are probed under {len(set(ids))} different ids: give one id per image.")
    if adversarial is not None and adversarial.shape != images.shape:
        raise UserError(
            f"The adversarial images have shape {tuple(adversarial.shape)}, their clean ones {tuple(images.shape)}: give one "
            "for each."
        )
    if radius <= 0:
        return [
            Finding("probes", "unchecked", f"The gradients were not probed: a ball of radius {radius:g} has no inside.")
        ]
    order = sorted(range(len(ids)), key=lambda place: ids[place])
    device = device_of(model)
    images, labels = images[order].to(device), labels[order].to(device)
    tell = report or _nobody
    tell(0)
    with exact_arithmetic(), frozen(model), random_state(_model_seed(seed)):
        try:
            clean = tried_on(model, images, labels)
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises
            return [unanswered("probes", reason(error))]
        right, num_right = clean.right, int(clean.right.sum())
        if num_right < FEWEST:
            tell(num_evaluations(len(ids)))
            sentence = (
                f"The gradients were not probed: the model gets {num_right} of {len(ids)} images right, and {FEWEST} are "
                "needed."
            )
            return [Finding("probes", "unchecked", sentence, {"num_right": num_right, "num_examples": len(ids)})]
        kept = tuple(ids[place] for place, is_right in zip(order, right.tolist(), strict=True) if is_right)
        subject = Subject(model, Tried(*(part[right] for part in clean)), labels[right], kept, radius, seed)
        saved = None if adversarial is None else adversarial[order].to(device)[right]
        found = _ask(subject, saved, lambda passes: tell(passes * len(ids)))
    tell(num_evaluations(len(ids)))
    return found


def cost(count: int) -> Evaluations:
    """Model evaluations of a probe of so many images; fewer where some are not right."""
    attacks = [evaluations(config) for config in _attacks(0.1).values()]
    looks = sum(_passes(config) - evaluations(config).total for config in _attacks(0.1).values())
    gradients = 3 + NUM_LINEARITY_STEPS  # at the clean images by either loss, and at the end of the attack
    others = 1 + looks + NUM_NOISES + 1 + 2  # clean, linearity's last look, saving
    return Evaluations(
        count * (gradients + sum(one.num_gradients for one in attacks)),
        count * (gradients + sum(one.num_forwards for one in attacks) + others),
    )


def num_evaluations(count: int) -> int:
    """Passes forward plus passes back of a probe of so many images."""
    return cost(count).total


def _attacks(radius: float) -> dict[str, PGDConfig]:
    """The attacks by name; PGD is read out at 20 steps, and where the last tenth begins."""
    pgd = PGDConfig(
        objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=40, read_outs=(20, 36)
    )
    twenty = PGDConfig(objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=20)
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
    return evaluations(config).total + len({*config.read_outs, config.num_attack_steps})


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
            raise UnansweredError(self._failed[name])
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
    shape, found = tuple(clean.shape[1:]), []
    for number in range(1, NUM_NOISES + 1):
        draw = subject.draw(number)
        signs = [torch.from_numpy(start_noise(draw.seed, i, shape, *draw.names)).sign() for i in draw.ids]
        found.append(tried_on(subject.model, threat.start(clean, torch.stack(signs).to(clean)), subject.labels))
    return found


def _ask(subject: Subject, saved: Tensor | None, tell: Callable[[int], None]) -> list[Finding]:
    tried = _Experiments(subject, tell)
    worst_noise = f"the worst of {NUM_NOISES} images of random signs"

    def inside() -> list[Tried]:
        pgd, _, end = tried["pgd"]
        return [pgd, end, *tried["margin"], *tried["spsa"], *tried["noises"]]

    def end() -> Tried:
        return tried["pgd"][2]

    def kept() -> Tensor:
        return end().images if saved is None else saved

    def rising() -> Finding:
        finding = still_rising(subject.clean, *tried["pgd"])
        return finding._replace(evidence=finding.evidence | _what_broke(subject, end()))

    questions: dict[str, Callable[[str], Finding]] = {
        "larger radius": lambda kind: larger_radius(subject, *tried["large"]),
        "random noise": lambda kind: stronger(kind, worst_noise, _any_broken(tried["noises"]), tried["pgd"][0]),
        "black box": lambda kind: stronger(
            kind, "a small SPSA, which uses no gradient,", tried["spsa"][0].broken, tried["pgd"][0]
        ),
        "margin loss": lambda kind: stronger(
            kind, "PGD of as many steps on the margin", tried["margin"][0].broken, tried["pgd"][0]
        ),
        "zero gradients": lambda kind: zero_gradients(subject, end()),
        "loss still rising": lambda kind: rising(),
        "eight bits": lambda kind: eight_bits(subject, kept(), given=saved is not None),
        "local linearity": lambda kind: linearity(subject, inside()),
    }
    return [_answered(kind, question) for kind, question in questions.items()]


def _what_broke(subject: Subject, end: Tried) -> dict[str, Any]:
    """By ids, to compare with the suite's attacks on the same images (`s3ta.records.checks_radius.weaker_than_checks`)."""
    broken = [example for example, is_broken in zip(subject.ids, end.broken.tolist(), strict=True) if is_broken]
    return {"radius": subject.radius, "tried": list(subject.ids), "broken": broken}


def _answered(kind: str, question: Callable[[str], Finding]) -> Finding:
    """The answer; where the model raises instead, `unchecked` with the reason."""
    try:
        return question(kind)
    except Exception as error:  # noqa: BLE001 - as above
        return unanswered(kind, reason(error))


def _attacked(subject: Subject, config: PGDConfig) -> list[Tried]:
    """Images at each read-out."""
    found = run_attack(subject.model, subject.clean.images, subject.labels, config=config, draw=subject.draw())
    return [tried_on(subject.model, images, subject.labels) for images in found.images]


def _any_broken(tried: list[Tried]) -> Tensor:
    return torch.stack([one.broken for one in tried]).any(dim=0)


def _model_seed(seed: int) -> int:
    """For a model that draws from torch's generator."""
    return int(stream(seed, "model", "probes", 0, "answers").integers(2**63))


def _nobody(completed: int, note: str = "") -> None:
    """A reporter that tells nobody."""
