"""LLR's terms against closed forms and finite differences, and what its passes do to BN (C3)."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from s3ta.attacks import AdamConfig, PGDConfig, RandomKey, run_attack
from s3ta.models import create_model
from s3ta.models.batch_norm_statistics import statistics_fixed, statistics_recorded
from s3ta.recipes import get_recipe
from s3ta.train import LocalLinearityLoss, TrainConfig
from s3ta.train.losses import Learner, linearity_terms

LABELS = torch.tensor([0, 1, 0])


def images(number: int = 3, size: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, 1, size, size, dtype=torch.float64, generator=generator)


def with_loss(value):
    """Two logits whose cross-entropy for class 0 is the given function of the image, and for class 1 too."""

    def outputs(x: Tensor) -> Tensor:
        # -log softmax of (a, b) at 0 is l where b - a = log(exp(l) - 1); the classes take turns with the labels
        gap = torch.log(torch.expm1(value(x)))
        first = (LABELS == 0)[:, None]
        return torch.where(first, torch.stack([-gap / 2, gap / 2], 1), torch.stack([gap / 2, -gap / 2], 1))

    return outputs


def test_a_linear_loss_has_no_gamma_and_the_rise_of_its_slope() -> None:
    slope = torch.linspace(-1, 1, 9, dtype=torch.float64).view(1, 3, 3)
    clean = images()
    attacked = (clean + 0.1 * torch.randn(clean.shape, dtype=torch.float64)).clamp(0, 1)
    terms = linearity_terms(with_loss(lambda x: 5 + (slope * x).flatten(1).sum(1)), clean, attacked, LABELS)
    assert terms.gamma.abs().max() < 1e-12
    expected = (slope * (attacked - clean)).flatten(1).sum(1).abs()
    torch.testing.assert_close(terms.rise, expected, rtol=1e-10, atol=1e-12)


def test_a_quadratic_loss_has_the_gamma_of_its_closed_form() -> None:
    """l = 1 + |x|^2 / 2: gamma = |d|^2 / 2 and d.g = d.x; at the corners of the ball gamma is largest, pixels * eps^2 / 2."""
    clean = 0.5 + 0.2 * (images() - 0.5)
    radius = 0.1
    found = run_attack(
        with_loss(lambda x: 1 + x.square().flatten(1).sum(1) / 2),
        clean,
        LABELS,
        config=PGDConfig(objective="local_linearity", radius=radius, step_size=0.05, num_attack_steps=5),
        draw=RandomKey(0, ("a", "b", "c"), ("test",)),
    ).final
    terms = linearity_terms(with_loss(lambda x: 1 + x.square().flatten(1).sum(1) / 2), clean, found, LABELS)
    change = (found - clean).flatten(1)
    torch.testing.assert_close(terms.gamma, change.square().sum(1) / 2, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        terms.gamma, torch.full((3,), 9 * radius**2 / 2, dtype=torch.float64), rtol=1e-10, atol=1e-12
    )
    torch.testing.assert_close(terms.rise, (change * clean.flatten(1)).sum(1).abs(), rtol=1e-10, atol=1e-12)


def test_gradients_of_both_terms_agree_with_finite_differences() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), nn.Softplus(), nn.Linear(6, 4)).double()
    clean = images()
    attacked = (clean + 0.05 * torch.randn(clean.shape, dtype=torch.float64)).clamp(0, 1)
    names = [name for name, _ in net.named_parameters()]

    def terms(*weights: Tensor) -> tuple[Tensor, Tensor]:
        of = linearity_terms(
            lambda x: torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,)),
            clean,
            attacked,
            LABELS,
        )
        return of.gamma, of.rise

    weights = [weight.detach().requires_grad_() for weight in net.parameters()]
    assert torch.autograd.gradcheck(terms, weights)


def test_the_attack_is_that_of_the_measure_and_costs_what_it_says() -> None:
    model = create_model("resnetv2_mini", 4, 12, 1).eval()
    clean, labels = torch.rand(2, 1, 12, 12), torch.tensor([1, 3])
    config = AdamConfig(objective="local_linearity", radius=0.1, num_attack_steps=4)
    attacked = run_attack(model, clean, labels, config=config, draw=RandomKey(0, ("a", "b"), ("test",)))
    assert attacked.num_gradients[-1].tolist() == [5, 5]
    assert attacked.num_forwards[-1].tolist() == [5, 5]
    start = run_attack(
        model,
        clean,
        labels,
        config=config.model_copy(update={"num_attack_steps": 0}),
        draw=RandomKey(0, ("a", "b"), ("test",)),
    )
    at_start, at_end = (linearity_terms(model, clean, found.final, labels).gamma for found in (start, attacked))
    assert (at_end > at_start).all()


def learned(beta: LocalLinearityLoss, clean: Tensor, attacked: Tensor, labels: Tensor):
    torch.manual_seed(0)
    model = create_model("resnetv2_mini", 4, 12, 1)
    loss, _ = Learner(model, beta, 0.0)(clean, attacked, labels, None)
    loss.backward()
    return model, loss


def test_the_linear_passes_take_the_clean_batch_and_move_no_average() -> None:
    clean, labels = torch.rand(8, 1, 12, 12), torch.randint(4, (8,))
    attacked = (clean + 0.05 * torch.randn_like(clean)).clamp(0, 1)
    model, loss = learned(LocalLinearityLoss(gamma_weight=2.0, gradient_weight=0.5), clean, attacked, labels)
    plain, plain_loss = learned(LocalLinearityLoss(gamma_weight=0.0, gradient_weight=0.0), clean, attacked, labels)
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    torch.manual_seed(0)
    other = create_model("resnetv2_mini", 4, 12, 1)
    with statistics_recorded(other) as statistics:
        in_training = other(clean)
    assert len(statistics) == sum(isinstance(module, nn.BatchNorm2d) for module in other.modules())
    torch.testing.assert_close(plain_loss, cross_entropy(in_training, labels))
    with statistics_fixed(statistics):
        fixed = other(clean)
        terms = linearity_terms(other, clean, attacked, labels)
        alone = linearity_terms(other, clean[:1], attacked[:1], labels[:1])
    torch.testing.assert_close(fixed, in_training, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone.gamma, terms.gamma[:1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(loss, plain_loss + 2 * terms.gamma.mean() + 0.5 * terms.rise.mean())
    assert other.training
    assert all(module.training for module in other.modules())


def test_what_cannot_differentiate_twice_is_refused() -> None:
    recipe = get_recipe("digits/resnetv2_mini_dense")
    attack = recipe.attack.model_copy(update={"objective": "local_linearity"})
    settings = recipe.model_copy(update={"loss": LocalLinearityLoss(), "attack": attack}).model_dump()
    TrainConfig.model_validate(settings)
    for compute in ({"compiled": True}, {"units_per_checkpoint": 2}):
        with pytest.raises(ValidationError, match="differentiates a gradient"):
            TrainConfig.model_validate({**settings, "compute": compute})
    with pytest.raises(ValidationError, match=r"attack\.objective=local_linearity"):
        TrainConfig.model_validate({**settings, "attack": recipe.attack.model_dump()})
    with pytest.raises(ValidationError, match="compares exact gradients"):
        PGDConfig(objective="local_linearity", gradient={"kind": "spsa"})  # pyright: ignore
