"""AutoAttack (Croce and Hein 2020, https://arxiv.org/abs/2003.01690): its four standard parts, run by `pyautoattack`.

The package is the authors' code. Added here: counts per example, images put into our ball, random state and model left
alone, errors in words. To know: all noise of a batch comes from one generator, so an example's result depends on its batch;
images that are misclassified already, and those for which a part finds nothing, come back as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from s3ta.attack_config import AutoAttackComponentConfig
from s3ta.attacks.freeze_model import frozen_in_eval_mode
from s3ta.attacks.input_validation import NotFiniteError, check_images, refuse_inference_mode
from s3ta.attacks.loop import AttackTrajectory
from s3ta.attacks.objectives import OutputsFn, final_logits
from s3ta.attacks.threat import L2, Linf
from s3ta.errors import UserError
from s3ta.external_code_errors import guarded
from s3ta.process_state import seeded_global_generators
from s3ta.types import Images, Labels, Logits

_LOGGER = logging.getLogger("s3ta.autoattack")  # hears of zero gradients (apgd-t); silent unless someone listens
_LOGGER.addHandler(logging.NullHandler())


def run_autoattack_component(
    outputs_fn: OutputsFn, clean: Images, labels: Labels, *, config: AutoAttackComponentConfig, seed: int
) -> AttackTrajectory:
    """Run one part of AutoAttack.

    A copy of an image with the same label (padding) is not attacked but shares the first one's image and counts. Images come
    back bit for bit as `pyautoattack` found them, but projected where one lies outside the ball by more than rounding
    (1e-6). Where a part fails (`fab-t`: finds nothing inside the ball) it returns the clean image.

    Returns one read-out; counted is what went through the model for each example, a first look at it included. UserError: no
    package, too few classes, images outside [0, 1] or not to be tiled (square), logits not finite."""
    check_images(clean)
    if config.part != "square":
        refuse_inference_mode()
    threat = (L2 if config.norm == "l2" else Linf)(config.radius)
    keys = [(i.tobytes(), y) for i, y in zip(clean.detach().cpu().numpy(), labels.tolist(), strict=True)]
    firsts = [i for i, key in enumerate(keys) if keys.index(key) == i]
    rows = [firsts.index(keys.index(key)) for key in keys]
    x, y = clean.detach()[firsts].float().contiguous(), labels[firsts]  # the package takes views
    with frozen_in_eval_mode(outputs_fn), seeded_global_generators(), torch.no_grad():
        model = _Model(outputs_fn, x, y, drops=config.part == "square")
        moved = _part(config, model, x, seed)(x.clone(), y)
    moved = torch.where((threat.violation(moved, x) > 1e-6).view(-1, 1, 1, 1), threat.project(moved, x), moved)
    images, gradients, forwards = (t[rows][None] for t in (moved.to(clean), model.num_gradients, model.num_forwards))
    return AttackTrajectory((config.num_attack_steps,), images, gradients, forwards)


def _part(config: AutoAttackComponentConfig, model: _Model, x: Images, seed: int) -> Callable[[Images, Labels], Tensor]:
    """The part's `perturb`, with the settings of AutoAttack's standard version."""
    try:
        from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
        from pyautoattack.fab_pt import FABAttack_PT
        from pyautoattack.square import SquareAttack
    except ImportError as error:
        raise UserError('AutoAttack needs the package pyautoattack: pip install "s3ta[autoattack]"') from error
    norm, steps, eps, device = config.norm.capitalize(), config.num_attack_steps, config.radius, x.device
    if model.num_classes < (needed := 4 if config.part == "apgd-t" else 2):
        raise UserError(f"AutoAttack's {config.part} needs {needed} classes; the model has {model.num_classes}.")
    if config.part == "apgd-ce":
        return APGDAttack(model, steps, norm, 1, eps, seed, device=device).perturb
    if config.part == "apgd-t":
        attack = APGDAttack_targeted(model, steps, norm, 1, eps, seed, device=device, logger=_LOGGER)
    elif config.part == "fab-t":
        attack = FABAttack_PT(model, norm, 1, steps, eps, seed=seed, targeted=True, device=device)
    else:
        # the size of first stripes; it crashes where they do not fit (issue 95)
        (height, width), size = x.shape[-2:], x.shape[-2] // 5
        fits = size == 1 or (size > 1 and all(height % 5 // 2 + n // size * size <= n for n in (height, width)))
        if config.norm == "l2" and not fits:
            raise UserError(f"AutoAttack's square (l2) cannot tile images of {height} x {width} pixels.")
        return SquareAttack(model, norm, steps, eps, 0.8, seed=seed, resc_schedule=False, device=device).perturb
    attack.n_target_classes = min(config.num_targets, model.num_classes - 1)
    return attack.perturb


class _Model:
    """Images -> float32 logits, counting for each example what goes through.

    `pyautoattack` drops examples but never reorders them, so the rows of a call are known by their number: those under
    attack now, all that were classified correctly (Square's last look), or all. Any other number begins a run for the next
    target, with the clean images of those left, which are found by equality: no two look the same, since examples are
    distinct and these classified correctly. Within a run only Square drops rows: those whose margin is not above 0."""

    def __init__(self, outputs_fn: OutputsFn, clean: Images, labels: Labels, *, drops: bool) -> None:
        self._outputs_fn, self._clean, self._labels, self._drops = outputs_fn, clean, labels, drops
        self.num_gradients, self.num_forwards = (torch.zeros(len(clean), dtype=torch.int64) for _ in range(2))
        self._all = self._correct = self._active = torch.arange(len(clean))
        logits = self(clean)
        self.num_classes = logits.shape[1]
        self._correct = self._active = self._all[(logits.argmax(1) == labels).cpu()]

    def __call__(self, rows: Images) -> Logits:
        if not len(rows):  # Square, where all that is left has a margin of exactly 0
            return rows.new_empty(0, self.num_classes)
        owners = self._owners(rows.detach())
        self.num_forwards.index_add_(0, owners, torch.ones_like(owners))
        if torch.is_grad_enabled() and rows.requires_grad:
            return _Answer.apply(rows, self, owners)  # pyright: ignore[reportReturnType]
        with torch.no_grad():
            logits = self.logits(rows)
        if self._drops:
            labels = self._labels[owners][:, None]
            margin = logits.gather(1, labels)[:, 0] - logits.scatter(1, labels, -torch.inf).amax(1)
            self._active = owners[(margin > 0).cpu()]
        return logits.clone()  # Square writes into it

    def _owners(self, rows: Images) -> Tensor:
        for known in (self._active, self._correct, self._all):
            if len(rows) == len(known):
                return known
        candidates = iter(self._correct.tolist())
        owners = [next((i for i in candidates if torch.equal(row, self._clean[i])), -1) for row in rows]
        if -1 in owners:  # only if the model takes an image for another class than a moment before: the nearest one
            return torch.cdist(rows.flatten(1), self._clean.flatten(1)).argmin(1).cpu()
        self._active = torch.tensor(owners)
        return self._active

    def logits(self, rows: Images) -> Logits:
        return _finite(final_logits(self._outputs_fn(rows)).float(), "logits are")


class _Answer(torch.autograd.Function):
    """The model with its own backward pass: counted, checked, and never reaching the weights, which FAB's `backward()`
    would leave gradients on where `frozen_in_eval_mode` does not see the model behind a lambda."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, model: _Model, owners: Tensor) -> Tensor:
        ctx.model, ctx.owners, ctx.rows = model, owners, rows.detach().requires_grad_(True)
        with torch.enable_grad():
            ctx.logits = model.logits(ctx.rows)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor, None, None]:
        with guarded("The model's backward pass", "AutoAttack's square needs none"):
            (gradient,) = torch.autograd.grad(ctx.logits, ctx.rows, grad_outputs[0])
        ctx.model.num_gradients.index_add_(0, ctx.owners, torch.ones_like(ctx.owners))
        return _finite(gradient, "gradient is").contiguous(), None, None


def _finite(values: Tensor, what: str) -> Tensor:
    if not torch.isfinite(values).all():
        raise NotFiniteError(f"The model's {what} not finite (NaN or infinite) during AutoAttack.")
    return values
