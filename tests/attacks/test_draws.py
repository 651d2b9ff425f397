"""Targets and starts: uniform, never the label, one stream per example; the table of step sizes (X4, X6, X7, X8)."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from s3ta.attacks import PGDConfig, draw_start, draw_targets, evaluation_step_size, random_target, start_noise
from s3ta.errors import UserError

from .helpers import names, pictures

EPS = 16 / 255


@pytest.mark.parametrize(
    ("num_steps", "in_255"),
    [
        (1, 16),
        (9, 16 / 9),
        (10, 1.6),
        (11, 16 / 11),
        (15, 16 / 15),
        (16, 1),
        (30, 1),
        (100, 1),
        (250, 1),
        (1000, 1),
        (5000, 1),
        (10_000, 1),
    ],
)
def test_step_size_of_the_evaluation(num_steps, in_255):
    """X6: the rule of Feature Denoising; the paper's own numbers of steps and their sizes are among them."""
    assert evaluation_step_size(num_steps) * 255 == pytest.approx(in_255, abs=1e-12)


def test_defaults_are_the_papers_evaluation():
    config = PGDConfig()
    assert (config.objective, config.num_attack_steps, config.num_restarts, config.read_outs) == (
        "targeted",
        100,
        1,
        (),
    )
    assert (config.radius, config.step_size, config.random_start_prob) == (16 / 255, 1 / 255, 1.0)
    assert PGDConfig(radius="8/255").radius == 8 / 255


@pytest.mark.parametrize(
    "bad",
    [
        {"read_outs": (0,)},
        {"read_outs": (101,)},
        {"read_outs": (-1, 5)},
        {"radius": -0.1},
        {"radius": 1.5},
        {"radius": float("nan")},
        {"num_attack_steps": -1},
        {"num_restarts": 0},
        {"random_start_prob": 1.1},
        {"objective": "towards"},
        {"steps": 3},
        {"num_attack_steps": 2.0},
    ],
)
def test_configs_out_of_range_are_refused(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        PGDConfig(**bad)


def _chi_square_is_unsuspicious(counts):
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    statistic = ((counts - expected) ** 2 / expected).sum()
    return abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_chi_square_test_notices_biased_targets():
    counts = np.full(999, 30.0) + np.random.default_rng(0).normal(0, 30**0.5, 999)
    assert _chi_square_is_unsuspicious(counts)
    counts[:20] += 20
    assert not _chi_square_is_unsuspicious(counts)


@pytest.mark.parametrize(("num_classes", "draws"), [(1000, 30_000), (7, 6_000), (3, 600)])
def test_targets_are_even_over_the_wrong_classes(num_classes, draws):
    labels = torch.arange(draws) % num_classes
    targets = draw_targets(3, names(draws), labels, num_classes)
    assert targets.dtype == labels.dtype
    assert 0 <= targets.min() <= targets.max() < num_classes
    assert (targets != labels).all()
    counts = np.bincount(((targets - labels) % num_classes).numpy(), minlength=num_classes)
    assert counts[0] == 0
    assert counts[1:].min() > 0
    assert _chi_square_is_unsuspicious(counts[1:])
    of_last = targets[labels == num_classes - 1]  # these wrap to the start
    assert of_last.max() < num_classes - 1
    if num_classes < 10:
        assert set(of_last.tolist()) == set(range(num_classes - 1))


def test_with_two_classes_the_target_is_the_other():
    assert [random_target(0, name, 1, 2) for name in names(5)] == [0] * 5
    assert [random_target(0, name, 0, 2) for name in names(5)] == [1] * 5


@pytest.mark.parametrize(
    ("label", "num_classes", "sentence"),
    [(0, 1, "at least two classes"), (7, 7, "label 7.*classes 0 to 6"), (-1, 7, "label -1")],
)
def test_impossible_targets_are_refused(label, num_classes, sentence):
    with pytest.raises(UserError, match=sentence):
        random_target(0, "x", label, num_classes)


def _draws(order, seed=5, batch=None):
    """Targets and starts of the examples in this order, in batches of this size."""
    labels, clean = torch.arange(11) % 7, pictures(11)
    batch = batch or len(order)
    targets, starts = [], []
    for at in range(0, len(order), batch):
        chosen = order[at : at + batch]
        ids = [f"image-{i}" for i in chosen]
        targets.append(draw_targets(seed, ids, labels[chosen], 7))
        starts.append(draw_start(PGDConfig(), seed, ids, clean[chosen], "pgd", 0))
    return torch.cat(targets), torch.cat(starts)


def test_draws_do_not_depend_on_batch_size_order_or_neighbours():
    in_order = list(range(11))
    targets, starts = _draws(in_order)
    for batch in (1, 2, 3, 7):
        assert all(torch.equal(a, b) for a, b in zip(_draws(in_order, batch=batch), (targets, starts), strict=True))
    order = [10, 3, 0, 7]
    assert all(torch.equal(a, b) for a, b in zip(_draws(order, batch=3), (targets[order], starts[order]), strict=True))
    other_targets, other_starts = _draws(in_order, seed=6)
    assert not torch.equal(other_targets, targets)
    assert (other_starts != starts).flatten(1).any(1).all()


def test_targets_are_the_same_for_every_attack_and_restart_and_starts_differ():
    ids, labels, clean = names(20), torch.arange(20) % 7, pictures(20)
    assert torch.equal(draw_targets(5, ids, labels, 7), draw_targets(5, ids, labels, 7))
    draws = [("pgd", 0), ("pgd", 1), ("pgd", 10), ("spsa", 0)]
    starts = [draw_start(PGDConfig(), 5, ids, clean, *draw) for draw in draws]
    for i, one in enumerate(starts):
        assert torch.equal(one, draw_start(PGDConfig(), 5, ids, clean, *draws[i]))
        for other in starts[:i]:
            assert (one != other).flatten(1).any(1).all()
    epochs = [draw_targets(5, ids, labels, 1000, epoch) for epoch in (1, 2)]  # training names the epoch as well
    assert (epochs[0] != epochs[1]).sum() >= 18


def test_starts_and_targets_equal_stored_values():
    """Records are compared over versions, so what a name draws must not change."""
    assert [random_target(0, f"image-{i}", 3, 10) for i in range(8)] == [6, 0, 8, 2, 4, 5, 6, 2]
    noise = start_noise(0, "image-0", (1, 1, 3), "pgd", 0)
    np.testing.assert_allclose(noise.ravel(), [-0.7261428, 0.5104438, 0.8904723], rtol=0, atol=1e-6)


def test_evaluation_never_starts_clean():
    clean = pictures(500, (1, 2, 3), dtype=torch.float32)
    start = draw_start(PGDConfig(num_attack_steps=0), 1, names(500), clean)
    assert (start != clean).flatten(1).any(1).all()


def test_a_fifth_of_training_starts_is_clean():
    count = 3000
    clean = pictures(count, (1, 2, 3), dtype=torch.float32)
    start = draw_start(PGDConfig(random_start_prob=0.8), 1, names(count), clean, 7)
    unmodified = (start == clean).flatten(1).all(1).float().mean().item()
    assert abs(unmodified - 0.2) < 3 * math.sqrt(0.2 * 0.8 / count)
    assert torch.equal(draw_start(PGDConfig(random_start_prob=0.0), 1, names(9), clean[:9]), clean[:9])


def test_start_noise_is_uniform_over_the_ball():
    count, shape = 50, (3, 16, 16)
    grey = torch.full((count, *shape), 0.5)
    noise = (draw_start(PGDConfig(), 1, names(count), grey) - grey).double()
    assert noise.abs().max() <= EPS + 1e-6
    assert noise.min() < -0.999 * EPS < 0.999 * EPS < noise.max()
    size = noise.numel()
    assert noise.mean().abs() < 4 * EPS / math.sqrt(3 * size)
    assert noise.var().item() == pytest.approx(EPS**2 / 3, rel=4 * math.sqrt(0.8 / size))
    assert _chi_square_is_unsuspicious(torch.histc(noise, 20, -EPS, EPS).numpy())
    neighbours = torch.corrcoef(torch.stack([noise[..., :-1].flatten(), noise[..., 1:].flatten()]))[0, 1]
    assert neighbours.abs() < 4 / math.sqrt(size)


@pytest.mark.parametrize("radius", [16 / 255, 0.7, 1.0])
def test_start_lies_in_ball_and_box(radius):
    clean = torch.cat([torch.zeros(2, 2, 5, 7), torch.ones(2, 2, 5, 7), pictures(5, dtype=torch.float32)])
    start = draw_start(PGDConfig(radius=radius), 1, names(9), clean)
    assert start.dtype == clean.dtype
    assert (start - clean).abs().max() <= radius + 1e-6
    assert start.min() == 0
    assert start.max() == 1


def test_start_noise_is_the_same_in_every_precision():
    clean = torch.full((3, 2, 5, 7), 0.5)
    low, high = (draw_start(PGDConfig(), 1, names(3), clean.to(dtype)) for dtype in (torch.float32, torch.float64))
    assert high.dtype == torch.float64
    torch.testing.assert_close(low.double(), high, rtol=0, atol=1e-7)
