"""Attacks of a public library from the same start: PGD bit for bit, the others to rounding; and where they differ, why."""

import foolbox
import pytest
import torch

from s3ta.attacks import AdamConfig, PGDConfig, draw_start, run_attack
from tests.reference.attacks import linear_optimum

from .helpers import Linear, names, pictures, small_s3ta

LABELS, TARGETS = torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
CRITERIA = {
    "untargeted": foolbox.criteria.Misclassification(LABELS),
    "targeted": foolbox.criteria.TargetedMisclassification(TARGETS),
}


def _theirs(attack_class, model, clean, objective, start, radius, **settings):
    """Their attack from our start."""

    class FromHere(attack_class):
        def get_random_start(self, x0, epsilon):
            assert x0.shape == start.shape
            return type(x0)(start)

    attack = FromHere(random_start=True, **settings)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    return attack.run(wrapped, clean, CRITERIA[objective], epsilon=radius)


def _ours(model, clean, config, start):
    return run_attack(model, clean, LABELS, config=config, targets=TARGETS, start=start).final


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("seed", [0, 1])
def test_linf_pgd_from_a_random_start_is_bit_equal(objective, num_steps, seed):
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), seed=seed, dtype=torch.float32)
    config = PGDConfig(objective=objective, num_attack_steps=num_steps, step_size=1.6 / 255)
    start = draw_start(config, seed, names(3), clean)
    theirs = _theirs(
        foolbox.attacks.LinfPGD,
        model,
        clean,
        objective,
        start,
        config.radius,
        abs_stepsize=config.step_size,
        steps=num_steps,
    )
    assert torch.equal(_ours(model, clean, config, start), theirs)
    assert (theirs != start).float().mean() > 0.5
    assert (start != clean).float().mean() > 0.9


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
@pytest.mark.parametrize("num_steps", [1, 20])
def test_l2_pgd_agrees_away_from_the_box(objective, num_steps):
    model, clean = small_s3ta(), 0.4 + 0.2 * pictures(3, (2, 12, 10), dtype=torch.float32)
    config = PGDConfig(objective=objective, norm="l2", radius=0.3, num_attack_steps=num_steps, step_size=0.05)
    start = draw_start(config.model_copy(update={"radius": 0.1}), 0, names(3), clean)
    theirs = _theirs(
        foolbox.attacks.L2PGD,
        model,
        clean,
        objective,
        start,
        0.3,
        abs_stepsize=0.05,
        steps=num_steps,
    )
    torch.testing.assert_close(_ours(model, clean, config, start), theirs, rtol=0, atol=1e-6)
    assert (theirs - start).flatten(1).norm(dim=1).min() > 0.15 or num_steps == 1
    assert 0 < theirs.min() <= theirs.max() < 1


def test_l2_pgd_differs_at_the_box_where_ours_is_the_optimum():
    """They project on the ball and cut at the box after that, which leaves a part of the radius unused; ours uses it, and on a
    linear model goes further."""
    model, clean = Linear(5).eval(), pictures(3)
    config = PGDConfig(objective="untargeted", norm="l2", radius=2.0, num_attack_steps=40, step_size=0.5)
    theirs = _theirs(
        foolbox.attacks.L2PGD, model, clean, "untargeted", clean, config.radius, abs_stepsize=0.5, steps=40
    )
    ours = _ours(model, clean, config, clean)
    length = lambda images: (images - clean).flatten(1).norm(dim=1)  # noqa: E731
    torch.testing.assert_close(length(ours), torch.full((3,), 2.0, dtype=torch.float64), rtol=0, atol=1e-9)
    assert (length(theirs) < 1.99).all()
    loss = lambda images: torch.nn.functional.cross_entropy(model(images), LABELS, reduction="none")  # noqa: E731
    assert (loss(ours) > loss(theirs)).all()
    up = torch.autograd.grad(loss(x := ours.clone().requires_grad_(True)).sum(), x)[0]
    optimum = torch.stack([linear_optimum(u, c, "l2", 2.0) for u, c in zip(up, clean, strict=True)])
    torch.testing.assert_close(ours, optimum, rtol=0, atol=1e-4)  # a fixed point: its own gradient points at it


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_momentum_agrees_where_all_gradients_have_one_length(objective):
    """They add raw gradients, Dong et al. and we those brought to length 1: equal where gradients do not change in length."""
    model, clean = Linear(2), pictures(3)
    weight = (model.weight[1] - model.weight[0]).detach()
    two = lambda images: _raised(model, images, weight)  # noqa: E731
    labels, targets = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 1])
    criterion = (
        foolbox.criteria.Misclassification(labels)
        if objective == "untargeted"
        else foolbox.criteria.TargetedMisclassification(targets)
    )
    attack = foolbox.attacks.MIFGSM(momentum=0.7, abs_stepsize=0.02, steps=9)
    theirs = attack.run(_foolbox(two), clean, criterion, epsilon=0.1)
    config = PGDConfig(objective=objective, num_attack_steps=9, radius=0.1, step_size=0.02, momentum=0.7)
    ours = run_attack(two, clean, labels, config=config, targets=targets, start=clean).final
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    plain = run_attack(
        two, clean, labels, config=config.model_copy(update={"momentum": 0.0}), targets=targets, start=clean
    ).final
    assert (plain - ours).abs().max() > 0.01


def _raised(model, images, weight):
    """Logits whose cross-entropy gradient has entries +-1 times a constant, with signs that change on the way: far from the
    boundary cross-entropy is a difference of logits, here of triangle waves of the pixels."""
    waves = (((images * 12) % 2 - 1).abs() * weight.sign()).flatten(1).sum(dim=1)
    return torch.stack([1000 - waves, -1000 + waves], dim=1) * torch.tensor([1.0, 1.0], dtype=images.dtype)


def _foolbox(function):
    class Wrapped(torch.nn.Module):
        def forward(self, images):
            return function(images)

    return foolbox.PyTorchModel(Wrapped().eval(), bounds=(0, 1))


@pytest.mark.parametrize("num_steps", [1, 2, 15])
def test_our_adam_agrees_with_its_peer(num_steps):
    """Their Adam attack with our epsilon and one rate. Theirs negates the step of a targeted attack, not the gradient: the
    same for Adam."""
    model, clean = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    for objective in ("untargeted", "targeted"):
        config = AdamConfig(
            objective=objective, num_attack_steps=num_steps, radius=0.05, learning_rates=((0, 0.01),), epsilon=1e-9
        )
        start = draw_start(config, 0, names(3), clean)
        theirs = _theirs_adam(model, clean, objective, start, num_steps)
        torch.testing.assert_close(_ours(model, clean, config, start), theirs, rtol=0, atol=1e-9)
        assert (theirs != start).double().mean() > 0.5


def _theirs_adam(model, clean, objective, start, num_steps):
    class RawAdam(foolbox.attacks.LinfAdamPGD):
        def normalize(self, gradients, *, x, bounds):  # theirs takes the sign first, which is not Adam on the gradient
            return gradients

    return _theirs(RawAdam, model, clean, objective, start, 0.05, abs_stepsize=0.01, steps=num_steps, adam_epsilon=1e-9)
