"""Threat models: L2 projection is the nearest point, masks hold, saved images stay allowed, starts are spread as they should
be (X3, X8)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3ta.attacks import L2, BoxRegion, GridRegion, Linf, PGDConfig, RandomKey, draw_start, run_attack, threat_model_of
from tests.reference.attacks import nearest_in_ball_and_box

from .helpers import Linear, names

SHAPE = (2, 3, 5)
seeds = st.integers(0, 2**32 - 1)
radii = st.one_of(st.sampled_from([0.0, 8 / 255, 0.1, 0.3, 1.0, 3.0]), st.floats(0, 4))
masks = st.sampled_from(["none", "shared", "per example", "boolean"])


def _images(generator, dtype=torch.float32, batch=3):
    """Random images with many pixels on the edge of the box."""
    return torch.from_numpy(generator.uniform(-0.5, 1.5, (batch, *SHAPE)).clip(0, 1)).to(dtype)


def _wild(generator, clean, scale):
    return clean + torch.from_numpy(generator.normal(0, scale, clean.shape)).to(clean)


def _mask(generator, kind, batch=3):
    """Over all channels, as regions are; the first pixel is inside, the last outside."""
    if kind == "none":
        return None
    inside = torch.from_numpy(generator.random((1 if kind == "shared" else batch, 1, *SHAPE[1:])) < 0.5)
    inside[..., 0, 0], inside[..., -1, -1] = True, False
    return inside if kind == "boolean" else inside.float()


def _kept(threat, images, clean, tolerance=1e-6):
    moved = (images - clean).double()
    length = moved.flatten(1).norm(dim=1) if isinstance(threat, L2) else moved.abs().flatten(1).amax(dim=1)
    assert images.dtype == clean.dtype
    assert (length <= threat.radius + tolerance).all()
    assert ((images >= 0) & (images <= 1)).all()
    if threat.mask is not None:
        outside = ~threat.mask.bool().expand(images.shape)
        assert outside.any()
        assert torch.equal(images[outside], clean[outside])
    assert (threat.violation(images, clean) <= tolerance).all()


@given(seeds, radii, st.sampled_from([0.01, 0.3, 2.0, 50.0]), masks)
def test_l2_projection_is_the_nearest_point_of_ball_box_and_mask(seed, radius, scale, kind):
    generator = np.random.default_rng(seed)
    clean = _images(generator, torch.float64)
    wild, mask = _wild(generator, clean, scale), _mask(generator, kind)
    projected = L2(radius, mask).project(wild, clean)
    for i in range(3):
        own = None if mask is None else mask[i % len(mask)].double()
        expected = nearest_in_ball_and_box(wild[i], clean[i], radius, own)
        torch.testing.assert_close(projected[i], expected, rtol=0, atol=1e-9)


@given(seeds, st.sampled_from([0.05, 0.3, 1.0, 2.5]), masks)
def test_no_allowed_point_is_nearer(seed, radius, kind):
    generator = np.random.default_rng(seed)
    clean, mask = _images(generator, torch.float64, 1), _mask(generator, kind, 1)
    wild = _wild(generator, clean, 1.0)
    inside = 1.0 if mask is None else mask.double()
    reached = ((L2(radius, mask).project(wild, clean) - wild) * inside).norm()
    for spread in (0.01, 0.1, 1.0):  # near the projection and far from it: cut to the box, then drawn in to the ball
        others = L2(radius, mask).project(wild, clean) + _wild(generator, torch.zeros(400, *SHAPE).double(), spread)
        moved = (others.clamp(0, 1) - clean) * inside
        lengths = moved.flatten(1).norm(dim=1).clamp(min=1e-12)
        allowed = clean + moved * (radius / lengths).clamp(max=1).view(-1, 1, 1, 1)
        assert ((allowed >= -1e-12) & (allowed <= 1 + 1e-12)).all()
        assert (((allowed - wild) * inside).flatten(1).norm(dim=1) >= reached - 1e-9).all()


def test_the_box_takes_part_in_the_l2_projection():
    """Ball, then box, which is what most libraries do, would leave a part of the radius unused."""
    clean = torch.tensor([[[[0.9, 0.5]]]], dtype=torch.float64)
    projected = L2(0.5).project(clean + torch.tensor([3.0, 1.0]), clean)
    torch.testing.assert_close(projected[0, 0, 0, 0].item(), 1.0)
    torch.testing.assert_close(projected[0, 0, 0, 1].item(), 0.5 + math.sqrt(0.25 - 0.01))


@pytest.mark.parametrize("radius", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("scale", [0.01, 3.0])
def test_l2_projection_keeps_the_ball_at_the_size_of_real_images(radius, scale):
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(1, 3, 224, 224, generator=generator)
    wild = clean + scale * torch.randn(clean.shape, generator=generator)
    projected = L2(radius).project(wild, clean)
    length = (projected.double() - clean.double()).norm().item()
    assert length <= radius + 1e-6
    assert length == pytest.approx(min(radius, (wild.clamp(0, 1) - clean).double().norm().item()), abs=1e-5)


@given(seeds, radii, st.floats(0, 100), masks, st.sampled_from([Linf, L2]))
def test_projection_start_and_noise_keep_ball_box_and_mask(seed, radius, scale, kind, norm):
    generator = np.random.default_rng(seed)
    clean = _images(generator)
    threat = norm(radius if norm is L2 else min(radius, 1.0), _mask(generator, kind))
    projected = threat.project(_wild(generator, clean, scale), clean)
    _kept(threat, projected, clean)
    torch.testing.assert_close(threat.project(projected, clean), projected, rtol=0, atol=1e-6)
    noise = torch.from_numpy(generator.uniform(-1, 1, clean.shape)).float()
    _kept(threat, threat.start(clean, noise), clean)
    assert torch.equal(threat.start(clean, torch.zeros_like(clean)), clean)
    if threat.radius == 0:
        assert torch.equal(projected, clean)
        assert torch.equal(threat.start(clean, noise), clean)


@given(seeds, masks.filter(lambda kind: kind != "none"), st.sampled_from([Linf, L2]))
def test_violation_sees_what_moved_outside_the_mask(seed, kind, norm):
    generator = np.random.default_rng(seed)
    clean = _images(generator) * 0 + 0.5
    mask = _mask(generator, kind)
    moved = clean.clone()
    moved[..., 0, 0] += 0.01
    assert (norm(1.0, mask).violation(moved, clean) == 0).all()
    moved[1, 0, -1, -1] -= 0.02
    torch.testing.assert_close(norm(1.0, mask).violation(moved, clean), torch.tensor([0, 0.02, 0]), rtol=0, atol=1e-6)


def test_l2_distance_is_the_euclidean_length():
    clean = torch.full((2, *SHAPE), 0.5)
    images = clean.clone()
    images[0, 0, 1, 1] += 0.3
    images[0, 1, 2, 3] -= 0.4
    torch.testing.assert_close(L2(1.0).distance(images, clean), torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(L2(0.3).violation(images, clean), torch.tensor([0.2, 0.0]))
    images[1, 0, 0, 0] = 1.25
    torch.testing.assert_close(L2(3.0).violation(images, clean), torch.tensor([0.0, 0.25]))


def test_a_grid_region_is_stretched_over_the_image():
    config = PGDConfig(mask=GridRegion(rows=("#..", ".##")))
    mask = threat_model_of(config, torch.zeros(2, 2, 5, 7), None).mask
    drawn = ["###....", "###....", "###....", "...####", "...####"]
    assert mask[0, 0].tolist() == [[float(cell == "#") for cell in row] for row in drawn]
    _, rows, columns = SHAPE
    assert threat_model_of(config, torch.zeros(2, *SHAPE), None).mask[0, 0].shape == (rows, columns)


def test_a_box_without_a_place_is_drawn_per_example_and_for_all_attacks_alike():
    region = BoxRegion(height=0.4, width=0.3)
    clean, draw = torch.zeros(40, 1, 10, 10), RandomKey(3, tuple(names(40)), ("a", 0))
    mask = threat_model_of(PGDConfig(mask=region), clean, draw).mask
    assert (mask.flatten(1).sum(dim=1) == 12).all()
    rows, columns = mask[:, 0].amax(dim=2), mask[:, 0].amax(dim=1)
    assert torch.equal(mask[:, 0], rows[:, :, None] * columns[:, None, :])  # rectangles
    assert (rows.sum(1) == 4).all()
    assert (rows.diff(dim=1) != 0).sum(1).max() <= 2  # in one piece
    assert (columns.diff(dim=1) != 0).sum(1).max() <= 2
    assert len({tuple(one.flatten().tolist()) for one in mask}) > 20
    again = RandomKey(3, draw.ids[::-1], ("b", 7), 7)
    assert torch.equal(threat_model_of(PGDConfig(mask=region, norm="l2"), clean, again).mask.flip(0), mask)
    fixed = threat_model_of(PGDConfig(mask=BoxRegion(height=0.4, width=0.3, row=0.0, column=1.0)), clean, None).mask
    assert fixed[0, 0, :4, 7:].sum() == fixed[0].sum() == 12


# --- whole numbers of 255ths ----------------------------------------------------------------------------------------


def _bytes(generator, batch=3):
    values = generator.integers(-60, 316, (batch, *SHAPE)).clip(0, 255)
    return torch.from_numpy(values).float() / 255


@given(
    seeds,
    st.one_of(st.sampled_from([0.0, 1 / 255, 8 / 255, 0.03137, 0.00784, 0.1, 0.3, 1.0]), st.floats(0, 1)),
    st.floats(0, 2),
    masks,
    st.sampled_from([Linf, L2]),
)
def test_eight_bit_images_are_allowed_and_whole(seed, radius, scale, kind, norm):
    generator = np.random.default_rng(seed)
    clean = _bytes(generator)
    threat = norm(radius, _mask(generator, kind))
    saved = threat.eight_bit(threat.project(_wild(generator, clean, scale), clean), clean)
    _kept(threat, saved, clean)
    assert torch.equal(((saved * 255).round() / 255), saved)
    read = (saved * 255).round().to(torch.uint8).float() / 255  # through a file and back
    assert torch.equal(read, saved)
    assert torch.equal(threat.eight_bit(saved, clean), saved)


@given(seeds, masks, st.sampled_from([Linf, L2]))
def test_eight_bit_leaves_images_that_are_whole_already(seed, kind, norm):
    generator = np.random.default_rng(seed)
    clean, mask = _bytes(generator), _mask(generator, kind)
    shift = torch.from_numpy(generator.integers(-8, 9, clean.shape)) * (1 if mask is None else mask)
    images = (clean * 255 + shift).round().clamp(0, 255) / 255
    threat = norm(8 / 255 if norm is Linf else 8 / 255 * math.sqrt(math.prod(SHAPE)), mask)
    assert torch.equal(threat.eight_bit(images, clean), images)
    assert torch.equal(threat.eight_bit(clean, clean), clean)


@given(seeds, st.sampled_from([8 / 255, 0.1, 0.06]))
def test_eight_bit_is_the_nearest_whole_image_in_the_linf_ball(seed, radius):
    generator = np.random.default_rng(seed)
    clean = _bytes(generator)
    images = Linf(radius).project(_wild(generator, clean, 0.1), clean)
    saved = Linf(radius).eight_bit(images, clean)
    whole = torch.arange(256).double() / 255
    allowed = (whole - clean.double()[..., None]).abs() <= radius + 1e-7
    nearest = torch.where(allowed, (whole - images.double()[..., None]).abs(), torch.inf).amin(dim=-1)
    torch.testing.assert_close((saved - images).abs().double(), nearest, rtol=0, atol=1e-6)


@given(seeds, st.floats(0.05, 1))
def test_eight_bit_goes_most_of_the_way_in_the_l2_ball(seed, radius):
    """Not the nearest whole image, but rounded and drawn in: pixels end within one 255th of a share of the way."""
    generator = np.random.default_rng(seed)
    clean = _bytes(generator)
    images = L2(radius).project(_wild(generator, clean, 0.3), clean)
    saved = L2(radius).eight_bit(images, clean)
    moved, kept = ((x - clean).double() * 255 for x in (images, saved))
    assert ((kept * moved >= 0) & (kept.abs() <= moved.abs() + 0.501) & (kept.abs() >= 0.5 * moved.abs() - 0.501)).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_eight_bit_attack_returns_images_that_survive_a_file(norm):
    """X31: pixels are left as they are unless `eight_bit` says otherwise."""
    generator = np.random.default_rng(5)
    clean = _bytes(generator)
    model, labels = Linear(3, SHAPE, 0, torch.float32), torch.tensor([0, 1, 2])
    settings = {"objective": "untargeted", "norm": norm, "radius": 0.1, "step_size": 0.013, "num_attack_steps": 9}
    draw = RandomKey(0, tuple(names(3)))
    whole = run_attack(
        model, clean, labels, config=PGDConfig(eight_bit=True, read_outs=(2, 5), **settings), draw=draw
    ).images
    assert torch.equal((whole * 255).round() / 255, whole)
    for images in whole:
        _kept(Linf(0.1) if norm == "linf" else L2(0.1), images, clean)
    assert (whole != clean).float().mean() > 0.1
    plain = run_attack(model, clean, labels, config=PGDConfig(**settings), draw=draw).final * 255
    assert (plain - plain.round()).abs().max() > 0.1


# --- starts ---------------------------------------------------------------------------------------------------------


def test_linf_starts_have_mean_0_and_a_third_of_the_squared_radius_as_variance():
    """X8, and what a mask leaves of it."""
    eps, count, shape = 16 / 255, 60, (3, 14, 14)
    grey = torch.full((count, *shape), 0.5, dtype=torch.float64)
    config = PGDConfig(mask=GridRegion(rows=("#.",)))
    noise = draw_start(config, 1, names(count), grey) - grey
    assert (noise[..., 7:] == 0).all()
    inside = noise[..., :7].flatten()
    assert inside.mean().abs() < 4 * eps / math.sqrt(3 * len(inside))
    # the variance of the square of a uniform number is 4/45 eps^4, so the relative error of the variance is sqrt(0.8 / n)
    assert inside.var().item() == pytest.approx(eps**2 / 3, rel=4 * math.sqrt(0.8 / len(inside)))


def test_l2_starts_lie_on_the_sphere_and_point_anywhere():
    count, shape, radius = 3000, (1, 2, 3), 0.3
    grey = torch.full((count, *shape), 0.5, dtype=torch.float64)
    moved = (draw_start(PGDConfig(norm="l2", radius=radius), 1, names(count), grey) - grey).flatten(1)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((count,), radius, dtype=torch.float64), rtol=0, atol=1e-12)
    unit = moved / radius
    # a point of the sphere in d dimensions: mean 0, covariance 1/d, and E x^4 = 3 / (d (d + 2))
    assert unit.mean(dim=0).abs().max() < 4.5 / math.sqrt(6 * count)
    covariance = unit.T @ unit / count
    assert (covariance - torch.eye(6) / 6).abs().max() < 4.5 * math.sqrt(3 / 48 / count)
    assert (unit**4).mean().item() == pytest.approx(3 / 48, rel=0.05)
    # the angle in any plane is even
    angle = torch.atan2(unit[:, 1], unit[:, 4])
    counts = torch.histc(angle, 12, -math.pi, math.pi)
    assert ((counts - count / 12).square() / (count / 12)).sum() < 11 + 4 * math.sqrt(22)


def test_l2_starts_under_a_mask_use_the_whole_radius_inside_it():
    grey = torch.full((5, 2, 6, 6), 0.5)
    moved = draw_start(PGDConfig(norm="l2", radius=0.3, mask=GridRegion(rows=("#.",))), 1, names(5), grey) - grey
    assert (moved[..., 3:] == 0).all()
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((5,), 0.3), rtol=0, atol=1e-6)


def test_l2_starts_are_clean_as_often_as_asked():
    clean = torch.rand(2000, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    start = draw_start(PGDConfig(norm="l2", radius=0.3, random_start_prob=0.8), 1, names(2000), clean)
    unmodified = (start == clean).flatten(1).all(1).float().mean().item()
    assert abs(unmodified - 0.2) < 3 * math.sqrt(0.16 / 2000)
    _kept(L2(0.3), start, clean)


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_steps_under_a_mask_are_as_long_as_they_say(share, momentum):
    """The whole length is spent where pixels may move, along the gradient there: not a share of it (W2)."""
    model, clean = Linear(2, (2, 16, 16)), torch.full((2, 2, 16, 16), 0.5, dtype=torch.float64)
    box = BoxRegion(height=share, width=share, row=0.5, column=0.5)
    config = PGDConfig(
        objective="untargeted", norm="l2", radius=1.0, step_size=0.1, num_attack_steps=10, mask=box, momentum=momentum,
        random_start_prob=0.0, read_outs=(1, 2), loss="margin",
    )  # fmt: skip
    labels = model(clean).argmax(1)
    attacked = run_attack(model, clean, labels, config=config, start=clean)
    lengths = (attacked.images - clean).flatten(2).norm(dim=2)
    torch.testing.assert_close(lengths, torch.tensor([0.1, 0.2, 1.0], dtype=torch.float64)[:, None].expand(3, 2))
    mask = threat_model_of(config, clean, None).mask
    uphill = (model.weight[1 - labels] - model.weight[labels]) * mask
    first = (attacked.images[0] - clean).flatten(1)
    torch.testing.assert_close(first, 0.1 * uphill.flatten(1) / uphill.flatten(1).norm(dim=1, keepdim=True))
