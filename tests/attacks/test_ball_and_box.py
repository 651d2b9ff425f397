"""Whatever is drawn, stepped and returned stays in ball and box to 1e-6: a property, tried with hypothesis."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3ta.attacks import Attack, Linf, PGDConfig, draw_start, gradient_ascent, sign_step, untargeted

from .helpers import Linear, names

SHAPE = (2, 3, 5)
sizes = st.one_of(st.sampled_from([0.0, 1.6 / 255, 16 / 255, 1.0]), st.floats(0, 1))
seeds = st.integers(0, 2**32 - 1)


def _images(seed, batch=2):
    """Random images with many pixels on the edge of the box."""
    generator = np.random.default_rng(seed)
    return torch.from_numpy(generator.uniform(-0.5, 1.5, (batch, *SHAPE)).clip(0, 1).astype(np.float32))


def _inside(images, clean, radius):
    assert images.dtype == torch.float32
    assert ((images - clean).abs() <= radius + 1e-6).all()
    assert ((images >= 0) & (images <= 1)).all()
    assert (Linf(radius).violation(images, clean) <= 1e-6).all()


@given(seeds, sizes, sizes, st.integers(0, 4), st.floats(0, 1))
def test_every_iterate_of_an_attack_keeps_ball_and_box(seed, radius, step_size, num_steps, start_prob):
    clean = _images(seed)
    model = Linear(3, SHAPE, seed % 1000, torch.float32)
    start = draw_start(PGDConfig(radius=radius, random_start_prob=start_prob), seed, names(2), clean)
    _inside(start, clean, radius)
    attacked = gradient_ascent(
        model,
        clean,
        Attack(
            threat=Linf(radius),
            objective=untargeted(torch.tensor([0, 2])),
            step_rule=sign_step(step_size),
            num_attack_steps=num_steps,
            read_outs=range(num_steps),
        ),
        start=start,
    )
    assert attacked.read_outs == tuple(range(num_steps + 1))
    for images in attacked.images:
        _inside(images, clean, radius)


@given(seeds, sizes, st.floats(0, 100))
def test_projection_clips_to_ball_and_box(seed, radius, scale):
    clean = _images(seed)
    generator = np.random.default_rng(seed + 1)
    wild = clean + torch.from_numpy(generator.normal(0, scale, clean.shape).astype(np.float32))
    threat = Linf(radius)
    projected = threat.project(wild, clean)
    _inside(projected, clean, radius)
    torch.testing.assert_close(threat.project(projected, clean), projected, rtol=0, atol=1e-6)
    nearest = torch.minimum(torch.maximum(wild, (clean - radius).clamp(min=0)), (clean + radius).clamp(max=1))
    torch.testing.assert_close(projected, nearest, rtol=0, atol=1e-5)


@given(seeds, st.floats(0.01, 0.5), st.floats(0.001, 0.4))
def test_distance_and_violation_tell_how_far(seed, radius, excess):
    clean = _images(seed, batch=3) * 0 + 0.5
    images = clean.clone()
    images[0, 1, 2, 3] += radius + excess  # leaves the ball, and perhaps the box
    images[1, 0, 0, 0] -= radius / 2
    threat = Linf(radius)
    torch.testing.assert_close(
        threat.distance(images, clean), torch.tensor([radius + excess, radius / 2, 0]), rtol=0, atol=1e-6
    )
    outside = max(excess, 0.5 + radius + excess - 1)
    torch.testing.assert_close(threat.violation(images, clean), torch.tensor([outside, 0, 0]), rtol=0, atol=1e-6)
    box = torch.tensor([[[[1.25, -0.125, 0.5]]]])
    assert Linf(1.0).violation(box, box).tolist() == [0.25]
