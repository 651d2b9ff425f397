"""From a config to images: every attack of the paper and of the field as a construction of the one loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from s3ta.attack_config import AdamConfig, AutoAttackComponentConfig, BackpropGradient, GradientAttackConfig, PGDConfig
from s3ta.attack_settings_checks import ImplausibleSettingsWarning, implausible
from s3ta.attacks import glimpse_objectives, objectives
from s3ta.attacks.autoattack import run_autoattack_component
from s3ta.attacks.draws import RandomKey, needed, start_noise
from s3ta.attacks.freeze_model import frozen_in_eval_mode, unwrapped
from s3ta.attacks.gradients import gradient_source, straight_through
from s3ta.attacks.input_validation import LOW_PRECISION, check_examples, check_quantized, watched
from s3ta.attacks.local_linearity import linearize, tangent_gap_gradient
from s3ta.attacks.loop import Attack, AttackTrajectory, gradient_ascent
from s3ta.attacks.objectives import ModelOutputs, Objective, OutputsFn, final_logits
from s3ta.attacks.region_masks import region_mask
from s3ta.attacks.step_rules import step_rule
from s3ta.attacks.threat import L2, Linf, Threat, quantize_8bit
from s3ta.errors import UserError
from s3ta.process_state import seeded_global_generators
from s3ta.random_streams import stream
from s3ta.types import Images, Labels

LoopAttack: TypeAlias = PGDConfig | AdamConfig


class _Examples(NamedTuple):
    """What is attacked."""

    clean: Images
    labels: Labels
    targets: Labels | None
    draw: RandomKey | None
    shares: Tensor | None


def run_attack(
    outputs_fn: OutputsFn,
    clean: Images,
    labels: Labels,
    *,
    config: PGDConfig | AdamConfig | AutoAttackComponentConfig,
    targets: Labels | None = None,
    start: Images | None = None,
    draw: RandomKey | None = None,
    shares: Float[Tensor, "B Y"] | None = None,
) -> AttackTrajectory:
    """Run the configured attack once (one restart).

    Images of 16 bits are attacked in float32, cast for the model, and come back in float32: 16 bits are too coarse to keep
    them in the ball.

    Args:
      outputs_fn: images in [0, 1] -> logits or Trace.
      targets: classes to reach; needed by a targeted attack, ignored by any other.
      start: where to begin; None: drawn, as `draw_start` does.
      draw: names the random numbers; needed where there are any besides a given start.
      shares: of every class in each image, where images are mixed (Mixup): the cross-entropy to leave is theirs.
    Raises:
      UserError: as `check_examples` and `watched`, and for an attack that does not fit the model.
    Warns:
      UserWarning: the model seems to answer with probabilities, whose gradients are weak, or answers in 16 bits; as
        ImplausibleSettingsWarning, the settings cannot do what the radius says."""
    check_examples(clean, labels, targets)
    for finding in implausible(config.kind, config.model_dump(mode="json"), clean.shape[1:]):
        if finding.severity == "warning":
            warnings.warn(f"Implausible attack settings: {finding.text}", ImplausibleSettingsWarning, stacklevel=2)
    dtype = clean.dtype
    if dtype in LOW_PRECISION:
        clean, start = clean.float(), None if start is None else start.float()
    clean = clean.clamp(0, 1)  # a rounding beyond is let pass
    if config.eight_bit:
        check_quantized(clean)
    if draw is not None and (num_ids := len(draw.ids)) != len(clean):
        raise UserError(f"`draw` names {num_ids} examples, but there are {len(clean)} images: give one id per image.")
    outputs_fn = unwrapped(outputs_fn)
    seed = None if draw is None else int(stream(draw.seed, "model", *draw.names).integers(2**63))
    with frozen_in_eval_mode(outputs_fn), seeded_global_generators(seed):
        given = outputs_fn if dtype == clean.dtype else lambda images: outputs_fn(images.to(dtype))
        checked = watched(given, labels, targets if config.objective == "targeted" else None)
        if dtype in LOW_PRECISION:
            checked = _answering_in_float32(checked)
        threat = threat_model_of(config, clean, draw)
        if isinstance(config, AutoAttackComponentConfig):
            attacked_fn = _rounded(checked, None, clean) if config.eight_bit else checked
            attacked = run_autoattack_component(attacked_fn, clean, labels, config=config, seed=_seed(needed(draw)))
        else:
            attacked = _run_loop(checked, _Examples(clean, labels, targets, draw, shares), config, threat, start)
    if config.eight_bit:
        rounded = [threat.eight_bit(images, clean) for images in attacked.images]
        attacked = attacked._replace(images=torch.stack(rounded))
    return attacked


def _answering_in_float32(outputs_fn: OutputsFn) -> OutputsFn:
    return lambda images: objectives.map_outputs(Tensor.float, outputs_fn(images))


def _run_loop(
    outputs_fn: OutputsFn, examples: _Examples, config: LoopAttack, threat: Threat, start: Images | None
) -> AttackTrajectory:
    clean = examples.clean
    if start is None:
        key = needed(examples.draw)
        start = draw_start(config, key.seed, key.ids, clean, *key.names)
    if config.eight_bit:
        moved_about = isinstance(config.gradient, BackpropGradient) and config.gradient.moves_images
        outputs_fn = _rounded(outputs_fn, None if moved_about else threat, clean)
    if config.objective == "targeted" and examples.targets is not None:
        goal = objectives.targeted(examples.targets, "margin")
    else:
        goal = objectives.untargeted(examples.labels, "margin")
    objective = _objective(outputs_fn, examples, config)
    gradient = gradient_source(config.gradient, examples.draw, threat.mask)
    if config.objective == "local_linearity":
        gradient = tangent_gap_gradient(linearize(outputs_fn, clean, objective))
    attack = Attack(
        threat,
        objective,
        step_rule(config),
        config.num_attack_steps,
        config.read_outs,
        gradient,
        keep_best=None if config.keep == "last" else goal,
    )
    attacked = gradient_ascent(outputs_fn, clean, attack, start)
    return attacked._replace(
        num_gradients=attacked.num_gradients + config.first_gradients,
        num_forwards=attacked.num_forwards + config.looks_first,
    )


def draw_start(config: LoopAttack, seed: int, ids: Sequence[str], clean: Images, *names: int | str) -> Images:
    """One start per example from its own stream; see `start_noise`. Drawn on the CPU, moved to the images' device."""
    shape, prob, normal = tuple(clean.shape[1:]), config.random_start_prob, config.norm == "l2"
    noise = [start_noise(seed, i, shape, *names, random_start_prob=prob, normal=normal) for i in ids]
    threat = threat_model_of(config, clean, RandomKey(seed, tuple(ids), names))
    return threat.start(clean, torch.from_numpy(np.stack(noise)).to(clean))


def threat_model_of(config: LoopAttack | AutoAttackComponentConfig, clean: Images, draw: RandomKey | None) -> Threat:
    """The ball and box of a configured attack, with its mask; a mask's random place belongs to the example alone."""
    region = config.mask if isinstance(config, GradientAttackConfig) else None
    mask = None if region is None else region_mask(region, clean, draw)
    return (L2 if config.norm == "l2" else Linf)(config.radius, mask)


def _objective(outputs_fn: OutputsFn, examples: _Examples, config: LoopAttack) -> Objective:
    """The objective that the attack ascends."""
    clean, draw = examples.clean, examples.draw

    @cache
    @torch.no_grad()
    def looked_first() -> ModelOutputs:
        return outputs_fn(clean)

    restart = draw.restart if draw else 0
    objective = _of_classes(examples, config, looked_first)
    if config.glimpses == "all":
        objective = glimpse_objectives.all_glimpses_objective(objective)
    elif config.glimpses == "each":
        objective = glimpse_objectives.single_glimpse_objective(objective, restart)
    if config.steering is not None:
        if config.steering.towards == "away":
            steering = glimpse_objectives.attention_shift_objective(
                glimpse_objectives.trace_of(looked_first()).attention
            )
        else:
            assert config.steering.region is not None
            steering = glimpse_objectives.attention_region_objective(region_mask(config.steering.region, clean, draw))
        objective = glimpse_objectives.weighted_sum(objective, steering, config.steering.weight)
    return objective


def _of_classes(examples: _Examples, config: LoopAttack, looked_first: Callable[[], ModelOutputs]) -> Objective:
    """The part of the objective that the answer decides; `looked_first` gives that to the clean images."""
    _, labels, targets, draw, shares = examples
    if config.objective == "targeted":
        if targets is None:
            needs = "give one wrong class per image (`draw_targets` draws them)."
            raise UserError(f"A targeted attack needs targets: {needs}")
        return objectives.targeted(targets, config.loss, labels)
    if config.objective == "multitargeted":
        restart = draw.restart if draw else 0
        return objectives.multitargeted_objective(
            objectives.ranked_target(final_logits(looked_first()), labels, restart), labels
        )
    if config.objective == "divergence":
        return objectives.divergence(final_logits(looked_first()))
    if shares is not None and config.loss == "cross_entropy":
        return objectives.away_from_shares(shares)
    return objectives.untargeted(labels, config.loss)


def _rounded(outputs_fn: OutputsFn, threat: Threat | None, clean: Images) -> OutputsFn:
    """The model as it sees saved images: whole 255ths, gradients straight through.

    Inside the ball where the images are the iterates themselves; simply rounded where they are probes around them, or
    (threat None) where the images were moved about before."""

    def saved(images: Tensor) -> Tensor:
        return threat.eight_bit(images, clean) if threat and images.shape == clean.shape else quantize_8bit(images)

    rounded = straight_through(saved)
    return lambda images: outputs_fn(rounded(images))


def _seed(draw: RandomKey) -> int:
    """One seed for a package that draws for a whole batch from one generator; copies that fill a batch up do not matter."""
    return int(stream(draw.seed, "autoattack", *draw.names, *dict.fromkeys(draw.ids)).integers(2**31))
