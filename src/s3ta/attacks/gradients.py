"""Where an attack's gradients come from: exact, averaged over random transformations, or estimated without any (SPSA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding

from s3ta.attack_config import SPSA, BackpropGradient
from s3ta.attacks.draws import RandomKey, needed
from s3ta.attacks.input_validation import refuse_inference_mode
from s3ta.attacks.objectives import ModelOutputs, Objective, OutputsFn, map_outputs
from s3ta.external_code_errors import guarded
from s3ta.process_state import seeded_global_generators
from s3ta.random_streams import stream
from s3ta.types import Images, Trace


class GradientEstimate(NamedTuple):
    """The way up at one iterate."""

    gradient: Float[Tensor, "B C H W"]
    outputs: ModelOutputs | None
    """The model's answer at exactly the iterate, where it was computed on the way; no gradient attached."""
    num_gradients: int
    """Gradient evaluations spent on each example."""
    num_forwards: int
    """Forward evaluations spent on each example, those of its gradients among them."""


GradientSource: TypeAlias = Callable[[OutputsFn, Objective, Images, int], GradientEstimate]
"""(callable, objective, images, number of steps done) -> gradient of each example's objective at its image."""
Transform: TypeAlias = Callable[[Images, int, int], Images]
"""(images, number of steps done, sample) -> differentiably transformed images."""


def gradient_source(config: BackpropGradient | SPSA, draw: RandomKey | None, mask: Tensor | None) -> GradientSource:
    """That of an attack's settings; `mask` as of its threat model. Raises UserError where it needs `draw`, and it is None."""
    if isinstance(config, SPSA):
        return spsa(needed(draw), config.num_directions, config.delta, config.micro_batch, mask)
    if config.is_plain:
        return autograd_gradient
    key = needed(draw)
    transforms = [random_shift_and_noise(key, config.max_shift, config.noise)] if config.moves_images else []
    return eot_gradient(autograd_gradient, config.num_samples, key, transforms)


def autograd_gradient(outputs_fn: OutputsFn, objective: Objective, images: Images, step: int = 0) -> GradientEstimate:
    """The exact gradient. Objectives are summed, so each example's gradient is its own (X11); weights get none (X9).

    Raises UserError inside `torch.inference_mode()`, which records no gradients."""
    refuse_inference_mode()
    with torch.enable_grad():
        images = images.detach().requires_grad_(True)
        outputs = outputs_fn(images)
        value = objective(outputs).sum()
        with guarded("The model's backward pass", "attacks without gradients (square, spsa) need none"):
            gradient = torch.autograd.grad(value, images)[0]
    return GradientEstimate(gradient, map_outputs(Tensor.detach, outputs), 1, 1)


def eot_gradient(
    source: GradientSource, num_samples: int, draw: RandomKey, transforms: Sequence[Transform] = ()
) -> GradientSource:
    """The mean gradient over random transformations of the image, or over a model's own randomness (EOT, Athalye 2018).

    Args:
      num_samples: how many gradients of `source` are averaged at each step.
      draw: names the randomness. The global generators, which a random model draws from, are seeded from here and put back.
      transforms: what happens to the images before the model sees them, one by one; none: it is random itself."""

    def averaged(outputs_fn: OutputsFn, objective: Objective, images: Images, step: int) -> GradientEstimate:
        total, gradients, forwards = torch.zeros_like(images), 0, 0
        for sample in range(num_samples):
            seed = int(stream(draw.seed, "model", *draw.names, step, sample).integers(2**63))
            changed = outputs_fn
            for transform in reversed(transforms):
                changed = _after(transform, changed, step, sample)
            with seeded_global_generators(seed):
                estimate = source(changed, objective, images, step)
            total += estimate.gradient
            gradients, forwards = gradients + estimate.num_gradients, forwards + estimate.num_forwards
        return GradientEstimate(total / num_samples, None, gradients, forwards)

    return averaged


def random_shift_and_noise(draw: RandomKey, max_shift: int = 0, noise: float = 0.0) -> Transform:
    """Random shifts (wrapping round) by up to max_shift pixels and normal noise of that deviation, per example."""

    def transform(images: Images, step: int, sample: int) -> Images:
        changed = []
        for image, example_id in zip(images, draw.ids, strict=True):
            generator = stream(draw.seed, "transform", example_id, *draw.names, step, sample)
            down, right = (int(shift) for shift in generator.integers(-max_shift, max_shift + 1, 2))
            moved = image.roll((down, right), dims=(-2, -1))
            if noise:
                moved = moved + noise * torch.from_numpy(generator.standard_normal(image.shape, np.float32)).to(image)
            changed.append(moved)
        return torch.stack(changed)

    return transform


def straight_through(
    function: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor], Tensor]:
    """The function forward, another one's gradient backward: for parts whose gradient is zero or absent (BPDA, Athalye 2018).
    `surrogate` is differentiable and of the same shape; None: the identity.

        attack(lambda images: model(straight_through(quantise)(images)), ...)"""

    def passed(values: Tensor) -> Tensor:
        smooth = values if surrogate is None else surrogate(values)
        return (smooth - smooth.detach()) + function(values).detach()  # 0 + the function: equal bit for bit

    return passed


def spsa(
    draw: RandomKey, num_directions: int, delta: float, micro_batch: int, mask: Tensor | None = None
) -> GradientSource:
    """The gradient estimated from function values alone (E11): mean over i of [f(x + d v_i) - f(x - d v_i)] / (2 d) v_i.

    The v_i are mirrored Rademacher probes (+-1 at every pixel and channel) around the current iterate (X33), the same pair
    of an example whatever its neighbours (X34). Sums are kept in float32 or better.

    Probed images are cut to [0, 1], as the model expects them, and the difference of a pixel is divided by what it then still
    moved from one probe of a pair to the other. So the estimate is that of the slope between the two, unbiased where the
    objective is linear; where it is curved it belongs to their middle, which lies up to d / 2 inside the box.

    Args:
      draw: names the probes; each step draws its own.
      num_directions: directions v; each costs two forward passes (the paper's 4,096 read literally: OPEN CHOICE).
      delta: d, in pixels of [0, 1] (OPEN CHOICE: 0.01).
      micro_batch: images in the model at once, which bounds the memory; one pair of a whole batch at least.
      mask: 1 where a pixel may move, as of a threat model; others are not probed and get 0. None: everywhere."""

    @torch.no_grad()
    def estimate(outputs_fn: OutputsFn, objective: Objective, images: Images, step: int) -> GradientEstimate:
        count, size = len(images), images[0].numel()
        total = torch.zeros(count, size, device=images.device, dtype=torch.promote_types(images.dtype, torch.float32))
        at_once = max(1, micro_batch // (2 * count))
        factor = _span_factor(images, delta)
        movable = None if mask is None else mask.expand_as(images).flatten(1).to(total)
        table = _SIGNS.to(total)
        probes = [_packed_signs(draw, example_id, step, size) for example_id in draw.ids]
        for first in range(0, num_directions, at_once):
            number = min(at_once, num_directions - first)
            packed = torch.stack([probe(number) for probe in probes], dim=1).to(images.device)
            signs = embedding(packed.int(), table).flatten(2)[..., :size]  # (directions, B, pixels)
            if movable is not None:
                signs = signs * movable
            probed = images.new_empty(2, number, count, size)
            torch.add(images.flatten(1), signs, alpha=delta, out=probed[0])
            torch.sub(images.flatten(1), signs, alpha=delta, out=probed[1])
            if factor is not None:
                probed.clamp_(0, 1)
            values = _values(outputs_fn, objective, probed.view(-1, *images.shape[1:]), count).view(2, number, count)
            total += torch.einsum("db,dbp->bp", ((values[0] - values[1]) / (2 * delta)).to(total), signs)
        slope = (total / num_directions).view_as(images)
        return GradientEstimate(slope if factor is None else slope * factor, None, 0, 2 * num_directions)

    return estimate


def _span_factor(images: Images, delta: float) -> Tensor | None:
    """2 d over what each pixel moves from one probe of a pair to the other, exactly 1 where the box does not cut it; None where
    it cuts nothing."""
    high, low = images + delta, images - delta
    cut = (high > 1) | (low < 0)
    if not cut.any():
        return None
    return torch.where(cut, 2 * delta / (high.clamp(max=1) - low.clamp(min=0)), 1)


_SIGNS = torch.from_numpy(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1)
"""The eight signs that a byte stands for, (256, 8): probes travel as bits and are spread out where the model is."""


def _packed_signs(draw: RandomKey, example_id: str, step: int, size: int) -> Callable[[int], Tensor]:
    """A function that gives the next so many probes of one example at one step: rows of random bytes."""
    generator = stream(draw.seed, "probe", example_id, *draw.names, step)
    num_bytes = -(-size // 32) * 4  # whole 32-bit numbers: else what a request leaves over is lost, and requests matter

    def following(number: int) -> Tensor:
        drawn = np.frombuffer(generator.bytes(number * num_bytes), np.uint8)
        return torch.from_numpy(drawn.reshape(number, num_bytes).copy())

    return following


def _values(outputs_fn: OutputsFn, objective: Objective, probed: Tensor, count: int) -> Tensor:
    """The objective of every probed image; they come in rounds of the `count` examples, in order."""
    outputs = outputs_fn(probed)
    if isinstance(outputs, Trace):
        rounds = map(Trace, outputs.logits.split(count, dim=1), outputs.attention.split(count, dim=1))
    else:
        rounds = outputs.split(count)
    return torch.cat([objective(part) for part in rounds])


def _after(transform: Transform, outputs_fn: OutputsFn, step: int, sample: int) -> OutputsFn:
    return lambda images: outputs_fn(transform(images, step, sample))
