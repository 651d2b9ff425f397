"""The largest deviation from a tangent plane: nothing for linear losses, the closed form for quadratic ones."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from s3ta.attacks import (
    Linearization,
    RandomKey,
    final_logits,
    linearize,
    local_linearity,
    multitargeted_objective,
    untargeted,
)
from tests.attacks.helpers import Linear, names, pictures, small_s3ta

SHAPE = (2, 3, 2)
RADIUS = 0.07


class Quadratic(nn.Module):
    """One loss: bias.x + x.A.x / 2 as the first of two logits, the other 0."""

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(matrix), nn.Parameter(bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        value = flat @ self.bias + torch.einsum("bi,ij,bj->b", flat, self.matrix, flat) / 2
        return torch.stack([value, torch.zeros_like(value)], dim=1)


def first_logit(outputs) -> torch.Tensor:
    return final_logits(outputs)[:, 0]


def middle(count: int, seed: int = 1) -> torch.Tensor:
    """Images so far from black and white that the whole ball fits into the box."""
    return 0.2 + 0.6 * pictures(count, SHAPE, seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gamma(model, images, objective, radius: float = RADIUS, steps: int = 10):
    at = linearize(model, images, objective)
    draw = RandomKey(5, tuple(names(len(images))), ("linearity", 0))
    return at, local_linearity(model, at, radius=radius, draw=draw, num_attack_steps=steps)


def test_a_linear_loss_lies_in_its_tangent_plane():
    model, images = Linear(num_classes=3, shape=SHAPE), middle(4)
    labels = torch.tensor([0, 1, 2, 0])
    at, found = gamma(model, images, multitargeted_objective((labels + 1) % 3, labels))
    assert found.gamma.max() < 1e-14
    assert at.gradient.abs().min() > 0, "and it is not flat"
    other = pictures(4, SHAPE, seed=9)
    values = model(other).gather(1, ((labels + 1) % 3)[:, None]) - model(other).gather(1, labels[:, None])
    torch.testing.assert_close(at.loss + at.predicted(other), values[:, 0].detach())


def test_a_separable_quadratic_has_its_largest_deviation_at_every_corner():
    """sum of a d^2 / 2 over the pixels: radius^2 / 2 times the sum of a, wherever the image is."""
    curvature = normal(12).abs()
    model = Quadratic(torch.diag(curvature), normal(12, seed=3))
    at, found = gamma(model, middle(5), first_logit)
    expected = RADIUS**2 / 2 * curvature.sum()
    torch.testing.assert_close(found.gamma, expected.expand(5))
    moved = (found.images - at.images).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, RADIUS))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_curved_loss_of_either_sign_is_found_up_to_the_best_corner(sign):
    """A definite matrix with strong couplings: the maximum over all 4,096 corners is known by trying them."""
    root = normal(12, 12, seed=4)
    matrix = sign * root @ root.T
    corners = torch.tensor(list(itertools.product([-RADIUS, RADIUS], repeat=12)), dtype=torch.float64)
    best = (torch.einsum("bi,ij,bj->b", corners, matrix, corners) / 2).abs().max()
    _, found = gamma(Quadratic(matrix, normal(12, seed=5)), middle(16), first_logit)
    assert (found.gamma <= best + 1e-12).all(), "never more than there is"
    assert found.gamma.max() > 0.95 * best, "a search by signs ends in a local maximum, and one of 16 in a good one"
    typical = (torch.einsum("bi,ij,bj->b", corners, matrix, corners) / 2).abs().quantile(0.9)
    assert found.gamma.mean() > typical, "on average it beats nine of ten corners"


def test_the_deviation_that_is_reported_belongs_to_images_inside_ball_and_box():
    """Recomputed from the images alone, on a real network and pictures that touch black and white."""
    model, images = small_s3ta(torch.float64), pictures(3, (2, 12, 10)).round(decimals=1)
    labels = torch.tensor([0, 3, 4])
    at, found = gamma(model, images, untargeted(labels), radius=0.05)
    leaf = images.clone().requires_grad_(True)
    loss = nn.functional.cross_entropy(model(leaf), labels, reduction="none")
    (slope,) = torch.autograd.grad(loss.sum(), leaf)
    there = nn.functional.cross_entropy(model(found.images), labels, reduction="none")
    plane = loss + ((found.images - images) * slope).sum(dim=(1, 2, 3))
    torch.testing.assert_close(found.gamma, (there - plane).abs().detach())
    assert (found.images - images).abs().max() <= 0.05 + 1e-12
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert isinstance(at, Linearization)


def test_more_steps_never_find_a_smaller_deviation():
    model, images = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    objective = untargeted(torch.tensor([1, 2, 0]), "margin")
    few, many = (gamma(model, images, objective, 0.05, steps)[1].gamma for steps in (0, 12))
    assert (many >= few).all()
    assert (many > 1.05 * few).any()


def test_neighbours_do_not_matter_and_the_model_is_left_alone():
    model, images = small_s3ta(torch.float64).train(), pictures(4, (2, 12, 10))
    labels, before = torch.tensor([0, 1, 2, 3]), {name: value.clone() for name, value in model.state_dict().items()}
    _, together = gamma(model, images, untargeted(labels), 0.05)
    at = linearize(model, images[2:3], untargeted(labels[2:3]))
    draw = RandomKey(5, ("image-2",), ("linearity", 0))
    alone = local_linearity(model, at, radius=0.05, draw=draw)
    torch.testing.assert_close(alone.gamma, together.gamma[2:3])
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
