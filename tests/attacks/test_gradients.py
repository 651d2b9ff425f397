"""Gradient sources: estimates against the laws they must follow (X33, X34), means over samples, straight-through parts."""

import math
import random

import numpy as np
import pytest
import torch

from s3ta.attacks import (
    SPSA,
    Attack,
    BackpropGradient,
    Linf,
    PGDConfig,
    RandomKey,
    autograd_gradient,
    eot_gradient,
    final_logits,
    gradient_ascent,
    random_shift_and_noise,
    run_attack,
    sign_step,
    spsa,
    straight_through,
    untargeted,
)
from s3ta.types import Trace
from tests.reference.attacks import normal_cdf

from .helpers import Linear, Ramp, names, pictures, small_s3ta

LABELS = torch.tensor([3, 0, 4])


def _value(outputs):
    """The objective of models whose only logit is the function itself."""
    return outputs[:, 0]


def _linear(weight):
    return lambda images: (images * weight).flatten(1).sum(dim=1, keepdim=True)


def _draw(count, seed=0, *parts):
    return RandomKey(seed, tuple(names(count)), parts)


def _estimate(weight, num_directions, count, draw=None, at=0.5, micro_batch=4096):
    images = torch.full((count, *weight.shape[-3:]), at, dtype=weight.dtype)
    source = spsa(draw or _draw(count), num_directions, 0.01, micro_batch)
    return source(_linear(weight), _value, images, 0).gradient.flatten(1)


# --- SPSA: how good the estimate is ---------------------------------------------------------------------------------


def test_the_estimate_regresses_on_the_gradient_with_slope_1():
    """E11. With g the gradient, <estimate, g>/|g|^2 is the mean over n directions of (v.g)^2/|g|^2, which has mean 1 and
    variance 2 - 2 sum g^4/|g|^4: a standard error below sqrt(2/n), 0.022 for n = 4096, and 0.008 over 8 examples."""
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimate = _estimate(weight, 4096, 8)
    gradient = weight.flatten()
    slopes = estimate @ gradient / gradient.square().sum()
    assert slopes.mean().item() == pytest.approx(1, abs=0.05)
    assert slopes.std().item() == pytest.approx(math.sqrt(2 / 4096), rel=0.8)
    # the rest is noise around 0: its variance at pixel j is (|g|^2 - g_j^2) / n
    noise = (estimate - gradient).square().mean(dim=0)
    assert (noise / ((gradient.square().sum() - gradient.square()) / 4096)).mean().item() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("num_directions", [16, 64, 256, 1024])
def test_correlation_and_signs_follow_the_law(num_directions):
    """E11, X33. The estimate at pixel j is g_j plus noise of variance (|g|^2 - g_j^2)/n. So for a gradient spread evenly
    (|g_j| = 1) the cosine with g is 1/sqrt(1 + (D-1)/n), which is sqrt(n/(n+D-1)), and a sign is right with probability
    Phi(sqrt(n/(D-1))). For a gradient that is itself normal, cosine and sign agreement go by arcsin: 1/2 +
    arctan(sqrt(n/D))/pi, the 55% that the protocol computes for n = 4096 and D = 150,528."""
    size, count = 192, 48
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    error = 4 * 0.5 / math.sqrt(size * count)  # four standard errors of a share; neighbours are nearly independent
    for weight, right in (
        (normal.sign(), normal_cdf(math.sqrt(num_directions / (size - 1)))),
        (normal, 0.5 + math.atan(math.sqrt(num_directions / size)) / math.pi),
    ):
        estimate, gradient = _estimate(weight, num_directions, count), weight.flatten()
        cosine = torch.nn.functional.cosine_similarity(estimate, gradient[None]).mean().item()
        assert cosine == pytest.approx(math.sqrt(num_directions / (num_directions + size - 1)), abs=0.025)
        agreement = (estimate.sign() == gradient.sign()).double().mean().item()
        assert agreement == pytest.approx(right, abs=error + 0.006)
    assert 0.5 + math.atan(math.sqrt(4096 / 150_528)) / math.pi == pytest.approx(0.552, abs=5e-4)


def test_the_estimate_is_the_mean_over_its_probes():
    """Written out: the difference of the function over the difference of the pixel, mean over the pairs that the model was
    shown: (f(x + dv) - f(x - dv)) / (2d) v where the box cuts nothing."""
    seen = []

    def model(images):
        seen.append(images)
        return torch.stack([images.flatten(1).pow(3).sum(1), images.flatten(1).sum(1)], dim=1)

    clean = pictures(2)
    estimate = spsa(_draw(2), 5, 0.125, 8)(model, _value, clean, 3).gradient
    expected = torch.zeros_like(clean)
    for batch in seen:
        plus, minus = batch.view(2, -1, *clean.shape).unbind()
        for up, down in zip(plus, minus, strict=True):
            difference = up.flatten(1).pow(3).sum(1) - down.flatten(1).pow(3).sum(1)
            expected += difference.view(-1, 1, 1, 1) / (up - down) / 5
    torch.testing.assert_close(estimate, expected, rtol=0, atol=1e-12)
    assert [len(batch) for batch in seen] == [8, 8, 4]


@pytest.mark.parametrize("delta", [0.01, 0.2, 0.7])
def test_at_the_box_the_estimate_keeps_slope_1(delta):
    """A linear function, pixels at and near 0 and 1, where the box cuts one or both probes: the mean is the gradient still."""
    weight = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    images = torch.linspace(0, 1, 192, dtype=torch.float64).view(1, 3, 8, 8).expand(8, -1, -1, -1)
    estimate = spsa(_draw(8), 4096, delta, 4096)(_linear(weight), _value, images, 0).gradient.flatten(1)
    assert torch.isfinite(estimate).all()
    slopes = (estimate * weight.flatten()).sum(dim=1) / weight.square().sum()
    assert slopes.mean().item() == pytest.approx(1, abs=0.05)
    near = (images[0].flatten() < delta / 2) | (
        images[0].flatten() > 1 - delta / 2
    )  # each of them, not their sum alone
    noise = weight.norm() / math.sqrt(4096 * 8) * (4 if delta < 0.5 else 6)
    assert ((estimate.mean(dim=0) - weight.flatten())[near].abs() < noise).all()


def test_images_away_from_the_box_are_estimated_as_before_bit_by_bit():
    """Also beside an image of which the box cuts a pixel."""
    weight = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(4))
    inner = pictures(2, dtype=torch.float32) * 0.9 + 0.05
    cut = inner.clone()
    cut[0, 0, 0, 0] = 1.0
    alone = spsa(_draw(2), 40, 0.01, 8)(_linear(weight), _value, inner, 0).gradient
    beside = spsa(_draw(2), 40, 0.01, 8)(_linear(weight), _value, cut, 0).gradient
    assert torch.equal(alone[1], beside[1])
    assert not torch.equal(alone[0], beside[0])


def test_a_model_that_asserts_its_input_range_can_be_attacked_without_gradients():
    model, clean = Linear(5), pictures(3).round()

    def strict(images):
        assert images.min() >= 0
        assert images.max() <= 1
        return model(images)

    config = PGDConfig(
        objective="untargeted", radius=0.3, step_size=0.1, num_attack_steps=5, gradient=SPSA(num_directions=64)
    )
    attacked = run_attack(strict, clean, LABELS, config=config, draw=_draw(3))
    before, after = (
        torch.nn.functional.cross_entropy(model(images), LABELS, reduction="none") for images in (clean, attacked.final)
    )
    assert (after > before).all()


def test_only_pixels_under_the_mask_are_probed():
    seen, mask = [], torch.zeros(1, 1, 5, 7, dtype=torch.float64)
    mask[..., 1:3, 2:4] = 1
    weight = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def model(images):
        seen.append(images)
        return _linear(weight)(images)

    clean = pictures(3) * 0.8 + 0.1
    estimate = spsa(_draw(3), 300, 0.01, 600, mask)(model, _value, clean, 0).gradient
    moved = (torch.cat(seen).view(-1, *clean.shape) - clean).abs()
    assert (moved * (1 - mask)).max() == 0
    torch.testing.assert_close(moved[:, :, :, 1:3, 2:4], torch.full_like(moved[:, :, :, 1:3, 2:4], 0.01))
    assert (estimate * (1 - mask)).abs().max() == 0
    # 8 pixels in place of 70: the noise is that of 8
    cosine = torch.nn.functional.cosine_similarity((estimate * mask).flatten(1), (weight * mask).flatten()[None])
    assert (cosine > 0.95).all()


# --- SPSA: where it looks -------------------------------------------------------------------------------------------


def test_probes_are_mirrored_around_the_iterate_and_cut_at_the_box():
    """X33: the mean of what the model sees is x, not 2x and not the clean image. Powers of two, so exactly."""
    seen = []

    def model(images):
        seen.append(images)
        return images.flatten(1).sum(dim=1, keepdim=True)

    clean = (pictures(3) * 256).round() / 256
    clean = clean.clamp(1 / 128, 1 - 1 / 128)
    clean[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    inside = (clean > 0) & (clean < 1)
    spsa(_draw(3), 40, 1 / 128, 60)(model, _value, clean, 0)
    directions = []
    for batch in seen:
        assert len(batch) <= 60
        plus, minus = batch.view(2, -1, *clean.shape).unbind()
        assert torch.equal(((plus + minus) / 2)[:, inside], clean.expand_as(plus)[:, inside])
        assert ((plus - minus).abs() == torch.where(inside, 1 / 64, 1 / 128)).all()
        directions.append((plus - minus).sign())
    directions = torch.cat(directions)
    assert len(directions) == 40
    assert min(batch.min() for batch in seen) == 0
    assert max(batch.max() for batch in seen) == 1
    flat = directions.flatten(1)
    assert len({tuple(row.tolist()) for row in flat}) == 40
    assert flat.mean().abs() < 4 / math.sqrt(flat.numel())  # as many +1 as -1
    assert (directions[:, 0] != directions[:, 1]).double().mean().item() == pytest.approx(
        0.5, abs=0.05
    )  # images differ
    channels = (directions[:, :, 0] != directions[:, :, 1]).double().mean().item()
    assert channels == pytest.approx(0.5, abs=0.05)  # and channels


def test_the_estimate_follows_the_iterate():
    """X33: on a quadratic a mirrored difference is exact, so the estimate is that of the linear function there."""
    middle, clean = pictures(2, seed=3) * 0.9 + 0.05, pictures(2) * 0.9 + 0.05
    bowl = lambda images: -(images - middle.repeat(len(images) // 2, 1, 1, 1)).square().flatten(1).sum(1, True)  # noqa: E731
    source = spsa(_draw(2), 32, 0.01, 64)
    for x in (clean, clean + 0.25 * (middle - clean), middle):
        there = source(bowl, _value, x, 0).gradient
        slope = 2 * (middle - x)
        expected = torch.cat(
            [
                spsa(RandomKey(0, (name,)), 32, 0.01, 64)(_linear(slope[i]), _value, x[i : i + 1], 0).gradient
                for i, name in enumerate(names(2))
            ]
        )
        torch.testing.assert_close(there, expected, rtol=0, atol=1e-9)
        assert (there.abs().max() < 1e-9) == torch.equal(x, middle)


def test_an_attack_probes_around_every_iterate():
    """X33: the second estimate is taken where the first step led."""
    model, clean, middles = Ramp(), 0.3 + 0.4 * pictures(2), []

    def spy(images):
        middles.append(images.view(2, -1, *clean.shape).mean(dim=(0, 1)))
        return model(images)

    config = PGDConfig(
        objective="untargeted",
        num_attack_steps=4,
        step_size=0.02,
        read_outs=(1, 2, 3),
        radius=0.1,
        gradient=SPSA(num_directions=4, micro_batch=16),
    )
    attacked = run_attack(spy, clean, torch.tensor([0, 1]), config=config, start=clean, draw=_draw(2))
    torch.testing.assert_close(torch.stack(middles[1:]), attacked.images[:3], rtol=0, atol=1e-12)
    torch.testing.assert_close(middles[0], clean, rtol=0, atol=1e-12)
    assert (attacked.images.diff(dim=0) != 0).flatten(1).any(dim=1).all()


# --- SPSA: what it depends on ---------------------------------------------------------------------------------------


def _curved(images):
    flat = images.flatten(1)
    return torch.stack([(3 * flat).sin().sum(1), flat.square().sum(1), flat.prod(1)], dim=1)


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 28, 28), (3, 4, 8)], ids=["70", "784", "96"])
def test_the_estimate_of_an_image_ignores_its_neighbours_order_and_micro_batches(shape):
    """X34; also where the pixels do not fill whole bytes or whole 32-bit numbers."""
    images, labels = pictures(3, shape), torch.tensor([1, 0, 2])

    def estimate(order, micro_batch, neighbour=None):
        chosen = images[order].clone()
        if neighbour is not None:
            chosen[neighbour] = 0.123
        draw = RandomKey(0, tuple(names(3)[i] for i in order))
        return spsa(draw, 11, 0.01, micro_batch)(_curved, untargeted(labels[order]), chosen, 2).gradient

    together = estimate([0, 1, 2], 64)
    close = {"rtol": 1e-9, "atol": 1e-12}
    for micro_batch in (2, 6, 7, 18, 1000):
        torch.testing.assert_close(estimate([0, 1, 2], micro_batch), together, **close)
    torch.testing.assert_close(estimate([2, 0, 1], 64), together[[2, 0, 1]], **close)
    torch.testing.assert_close(estimate([1], 64), together[1:2], **close)
    torch.testing.assert_close(estimate([1], 2), together[1:2], **close)
    changed = estimate([0, 1, 2], 64, neighbour=2)
    torch.testing.assert_close(changed[:2], together[:2], **close)
    assert (changed[2] - together[2]).abs().max() > 0.01


def test_in_float32_only_rounding_depends_on_the_micro_batch():
    images, draw = pictures(3, dtype=torch.float32), _draw(3)
    one, other = (
        spsa(draw, 50, 0.01, size)(_curved, untargeted(torch.tensor([1, 0, 2])), images, 0).gradient for size in (6, 90)
    )
    assert one.dtype == torch.float32
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * one.abs().max().item())


def test_probes_belong_to_seed_example_names_and_step():
    """E9: another restart or step has other probes; global states have no part in them."""
    images = pictures(2)
    seen = {}
    for key, (seed, parts, step) in {
        "first": (0, ("a", 0), 0),
        "step": (0, ("a", 0), 1),
        "restart": (0, ("a", 1), 0),
        "attack": (0, ("b", 0), 0),
        "seed": (1, ("a", 0), 0),
    }.items():
        estimates = []
        for state in (1, 2):
            torch.manual_seed(state)
            np.random.seed(state)
            random.seed(state)
            before = torch.get_rng_state(), np.random.get_state()[1].copy()
            source = spsa(RandomKey(seed, tuple(names(2)), parts), 6, 0.01, 64)
            estimates.append(source(_curved, _value, images, step).gradient)
            assert torch.equal(torch.get_rng_state(), before[0])
            assert (np.random.get_state()[1] == before[1]).all()
        assert torch.equal(*estimates)
        seen[key] = estimates[0].numpy().tobytes()
    assert len(set(seen.values())) == 5


def test_an_estimate_costs_two_forward_passes_per_direction_and_no_backward_pass():
    model, clean, shown = Ramp(), pictures(3), []

    def spy(images):
        assert not torch.is_grad_enabled()
        shown.append(len(images))
        return model(images)

    ascent = spsa(_draw(3), 7, 0.01, 12)(spy, untargeted(torch.tensor([0, 1, 0])), clean, 0)
    assert (ascent.num_gradients, ascent.num_forwards, ascent.outputs) == (0, 14, None)
    assert sum(shown) == 14 * 3
    assert max(shown) == 12
    config = PGDConfig(
        objective="untargeted",
        num_attack_steps=3,
        read_outs=(1, 2),
        keep="best",
        gradient=SPSA(num_directions=7, micro_batch=12),
    )
    attacked = run_attack(model, clean, torch.tensor([0, 1, 0]), config=config, draw=_draw(3))
    assert attacked.num_gradients.tolist() == [[0] * 3] * 3
    assert attacked.num_forwards.tolist() == [[14 * n + n + 1] * 3 for n in (1, 2, 3)]  # and one look at every iterate


def test_an_estimate_reads_traces():
    model, clean = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    objective = untargeted(LABELS)
    logits = spsa(_draw(3), 4, 0.01, 8)(model, objective, clean, 0).gradient
    trace = spsa(_draw(3), 4, 0.01, 8)(model.unroll, objective, clean, 0).gradient
    torch.testing.assert_close(logits, trace, rtol=1e-9, atol=1e-12)
    seen = []
    spsa(_draw(3), 4, 0.01, 8)(model.unroll, lambda outputs: seen.append(outputs) or _first(outputs), clean, 0)
    assert all(isinstance(outputs, Trace) and outputs.attention.shape[1] == 3 for outputs in seen)


def _first(outputs):
    return final_logits(outputs)[:, 0]


def test_enough_directions_find_the_gradient_of_a_network():
    """The whole chain on S3TA: 240 pixels, 1500 directions, so a cosine of about sqrt(1500/1739) = 0.93."""
    model, clean = small_s3ta(), pictures(2, (2, 12, 10), dtype=torch.float32)
    objective = untargeted(LABELS[:2])
    with torch.no_grad():
        estimate = spsa(_draw(2), 1500, 0.01, 600)(model, objective, clean, 0).gradient.flatten(1)
    exact = autograd_gradient(model, objective, clean).gradient.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(estimate, exact)
    assert (cosine > 0.85).all()
    assert ((estimate * exact).sum(1) / exact.square().sum(1)).tolist() == pytest.approx([1, 1], abs=0.2)


# --- the mean over random transformations ---------------------------------------------------------------------------


def test_the_mean_over_samples_is_the_mean_of_their_gradients():
    model, clean, objective = small_s3ta(torch.float64), pictures(3, (2, 12, 10)), untargeted(LABELS)
    draw = _draw(3, 5, "eot")
    transform = random_shift_and_noise(draw, max_shift=2, noise=0.1)
    ascent = eot_gradient(autograd_gradient, 4, draw, [transform])(model, objective, clean, 6)
    total = torch.zeros_like(clean)
    for sample in range(4):
        images = clean.clone().requires_grad_(True)
        (-model(transform(images, 6, sample)).log_softmax(1)[torch.arange(3), LABELS]).sum().backward(inputs=[images])
        total += images.grad / 4
    torch.testing.assert_close(ascent.gradient, total, rtol=0, atol=1e-12)
    assert (ascent.num_gradients, ascent.num_forwards, ascent.outputs) == (4, 4, None)
    plain = autograd_gradient(model, objective, clean).gradient
    assert (plain - total).abs().max() > 0.01 * plain.abs().max()


def test_one_sample_without_jitter_is_the_plain_gradient():
    model, clean, objective = small_s3ta(torch.float64), pictures(3, (2, 12, 10)), untargeted(LABELS)
    one = eot_gradient(autograd_gradient, 1, _draw(3))(model, objective, clean, 0)
    assert torch.equal(one.gradient, autograd_gradient(model, objective, clean).gradient)
    config = PGDConfig(objective="untargeted", num_attack_steps=3)
    plain = run_attack(model, clean, LABELS, config=config, start=clean).final  # nothing to draw, so no `draw`
    several = config.model_copy(update={"gradient": BackpropGradient(num_samples=3)})  # of a model without randomness
    torch.testing.assert_close(
        run_attack(model, clean, LABELS, config=several, start=clean, draw=_draw(3)).final, plain, rtol=0, atol=1e-12
    )


def test_jitter_shifts_wrap_and_noise_has_its_deviation():
    images = pictures(200, (1, 6, 7))
    shifted = random_shift_and_noise(_draw(200), max_shift=2)(images, 0, 0)
    shifts = []
    for before, after in zip(images, shifted, strict=True):
        found = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(torch.roll(before, (down, right), (1, 2)), after)
        ]
        assert len(found) == 1
        shifts += found
    counts = torch.tensor([shifts.count((down, right)) for down in range(-2, 3) for right in range(-2, 3)]).double()
    assert ((counts - 8) ** 2 / 8).sum() < 24 + 4 * math.sqrt(48)  # all 25 alike
    noise = random_shift_and_noise(_draw(200), noise=0.1)(images, 0, 0) - images
    assert noise.std().item() == pytest.approx(0.1, rel=4 / math.sqrt(2 * noise.numel()))
    assert noise.mean().abs() < 4 * 0.1 / math.sqrt(noise.numel())


def test_jitter_belongs_to_the_example_the_step_and_the_sample():
    images, draw = pictures(3), _draw(3)
    transform = random_shift_and_noise(draw, max_shift=2, noise=0.1)
    alone = random_shift_and_noise(RandomKey(0, draw.ids[1:2]), max_shift=2, noise=0.1)(images[1:2], 4, 1)
    assert torch.equal(alone, transform(images, 4, 1)[1:2])
    variants = {transform(images, step, sample).numpy().tobytes() for step in range(3) for sample in range(3)}
    assert len(variants) == 9
    other = random_shift_and_noise(RandomKey(0, draw.ids, ("restart", 1)), max_shift=2, noise=0.1)(images, 0, 0)
    assert not torch.equal(other, transform(images, 0, 0))


class _Noisy(torch.nn.Module):
    """A defence that draws from torch's global generator in every pass."""

    def __init__(self, spread=0.5):
        super().__init__()
        self.inner, self.spread, self.draws = Linear(5), spread, []

    def forward(self, images):
        noise = torch.randn(images.shape, dtype=images.dtype)
        self.draws.append(noise[0, 0, 0, 0].item())
        return self.inner(images.square() * (1 + self.spread * noise))


def _twice(config, model=None, draw=None, clean=None):
    clean, results = pictures(3) if clean is None else clean, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        noisy = model or _Noisy()
        attacked = run_attack(noisy, clean, LABELS, config=config, draw=draw or _draw(3))
        results.append(attacked.images)
        assert torch.equal(torch.get_rng_state(), before[0]), "the global generator was moved"
        assert (np.random.get_state()[1] == before[1]).all()
    return results


def test_a_random_model_is_attacked_the_same_way_twice():
    config = PGDConfig(
        objective="untargeted", num_attack_steps=4, step_size=0.02, gradient=BackpropGradient(num_samples=3)
    )
    model = _Noisy()
    one, other = _twice(config, model)
    assert torch.equal(one, other)
    assert len(set(model.draws[:12])) == 12  # another draw for every sample and step
    assert model.draws[:12] == model.draws[12:]
    again = _twice(config, draw=_draw(3, 0, "restart", 1))[0]
    assert not torch.equal(again, one)


# FAILS (bug in src, to be mended there): the passes that judge iterates for keep="best" are not seeded, so a random model
# answers them from torch's global generator, and moves it.
def test_a_random_model_is_attacked_the_same_way_twice_where_the_best_iterate_counts():
    config = PGDConfig(
        objective="untargeted",
        num_attack_steps=4,
        step_size=0.02,
        keep="best",
        gradient=BackpropGradient(num_samples=3),
    )
    assert torch.equal(*_twice(config))


def test_more_samples_see_through_a_random_model():
    """With noise that hides most of it, one gradient often points the wrong way and the mean over many does not."""
    model, clean = _Noisy(3.0), 0.3 + 0.4 * pictures(3)
    true = autograd_gradient(lambda images: model.inner(images.square()), untargeted(LABELS), clean).gradient
    one = eot_gradient(autograd_gradient, 1, _draw(3))(model, untargeted(LABELS), clean, 0).gradient
    many = eot_gradient(autograd_gradient, 200, _draw(3))(model, untargeted(LABELS), clean, 0).gradient
    agree = lambda gradient: (gradient.sign() == true.sign()).double().mean().item()  # noqa: E731
    assert agree(one) < 0.75
    assert agree(many) > 0.95


# --- parts without a gradient ---------------------------------------------------------------------------------------


def _quantised(images):
    return (images * 8).round() / 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_straight_through_is_the_function_forward_and_the_surrogate_backward(dtype):
    values = pictures(5, dtype=dtype, seed=3).requires_grad_(True)
    for function in (_quantised, lambda x: (x > 0.5).to(dtype) + 0.1, lambda x: x / 3e7 + 1 / 3, torch.ones_like):
        assert torch.equal(straight_through(function)(values), function(values))
        assert torch.equal(straight_through(function, torch.sin)(values), function(values))
    weights = pictures(5, dtype=dtype, seed=4)
    plain = torch.autograd.grad((straight_through(_quantised)(values) * weights).sum(), values)[0]
    assert torch.equal(plain, weights)
    smooth = torch.autograd.grad((straight_through(_quantised, torch.sin)(values) * weights).sum(), values)[0]
    torch.testing.assert_close(smooth, weights * values.detach().cos())
    assert torch.equal(torch.autograd.grad((_quantised(values) * weights).sum(), values)[0], torch.zeros_like(values))


def test_straight_through_brings_an_attack_through_a_quantiser():
    """Without it the gradient is zero and the attack stands still, which looks like robustness."""
    model, labels, clean = Ramp(), torch.tensor([0, 1, 0]), pictures(3)
    config = PGDConfig(objective="untargeted", radius=0.2, step_size=0.03, num_attack_steps=20)
    settings = {"config": config, "start": clean}
    masked = run_attack(lambda images: model(_quantised(images)), clean, labels, **settings)
    assert torch.equal(masked.final, clean)
    through = straight_through(_quantised)
    attacked = run_attack(lambda images: model(through(images)), clean, labels, **settings)
    corner = (clean + 0.2 * model.up(labels).sign()).clamp(0, 1)
    torch.testing.assert_close(attacked.final, corner, rtol=0, atol=1e-12)


def test_the_estimate_needs_no_gradient_from_the_model():
    """SPSA sees through a quantiser finer than its probes, on a model inside which nothing can be differentiated."""
    model, labels, clean = Ramp((1, 2, 3)), torch.tensor([0, 1]), pictures(2, (1, 2, 3))

    def black_box(images):
        with torch.no_grad():
            return model((images * 400).round() / 400)

    rest = {"objective": untargeted(labels), "step_rule": sign_step(0.05), "num_attack_steps": 8, "threat": Linf(0.2)}
    attacked = gradient_ascent(black_box, clean, Attack(gradient=spsa(_draw(2), 512, 0.01, 512), **rest))
    corner = (clean + 0.2 * model.up(labels).sign()).clamp(0, 1)
    torch.testing.assert_close(attacked.final, corner, rtol=0, atol=1e-12)
