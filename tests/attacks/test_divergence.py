"""The attack of TRADES: away from the model's own answer to the clean image."""

import math

import pytest
import torch

from s3ta.attack_config import AdamConfig
from s3ta.attacks import PGDConfig, RandomKey, autograd_gradient, run_attack
from s3ta.attacks.objectives import divergence

from .helpers import SHAPE, Linear, names, pictures, small_s3ta

LABELS = torch.tensor([0, 1, 2, 3])


def _softmax(row):
    exponentials = [math.exp(value) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def _by_hand(clean, other):
    """sum p log(p / q), image by image, in plain Python."""
    found = []
    for one, two in zip(clean.tolist(), other.tolist(), strict=True):
        p, q = _softmax(one), _softmax(two)
        found.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return found


def _logits(seed, scale=3.0):
    return scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_objective_is_the_divergence_from_the_clean_answer_in_nats():
    clean, other = _logits(0), _logits(1)
    assert divergence(clean)(other).tolist() == pytest.approx(_by_hand(clean, other), rel=1e-12)
    assert divergence(clean)(other).tolist() != pytest.approx(_by_hand(other, clean), rel=1e-3)  # it has a direction
    assert divergence(clean)(clean).abs().max() < 1e-15
    assert (divergence(clean)(other) > 0).all()


def test_answers_that_are_very_sure_stay_finite():
    clean, other = _logits(0, 300.0), _logits(1, 300.0)
    assert divergence(clean)(other).isfinite().all()


def test_the_gradient_is_q_minus_p_and_zero_at_the_clean_answer():
    clean, other = _logits(0), _logits(1).requires_grad_(True)
    (slope,) = torch.autograd.grad(divergence(clean)(other).sum(), other)
    torch.testing.assert_close(slope, other.detach().softmax(1) - clean.softmax(1), rtol=1e-12, atol=1e-14)
    at = clean.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(divergence(clean)(at).sum(), at)
    assert slope.abs().max() < 1e-15


@pytest.mark.parametrize("build", [lambda: Linear(5), lambda: small_s3ta(torch.float64)])
def test_the_gradient_of_images_is_that_of_finite_differences(build):
    model = build()
    shape = SHAPE if isinstance(model, Linear) else (2, 12, 10)
    clean, images = pictures(3, shape), pictures(3, shape, seed=5)
    with torch.no_grad():
        answer = model(clean)
    found = autograd_gradient(model, divergence(answer), images).gradient
    generator, h = torch.Generator().manual_seed(2), 1e-6
    for _ in range(4):
        way = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            up, down = (_by_hand(answer, model(images + sign * h * way)) for sign in (1, -1))
        expected = [(a - b) / (2 * h) for a, b in zip(up, down, strict=True)]
        assert (found * way).sum((1, 2, 3)).tolist() == pytest.approx(expected, rel=1e-4, abs=1e-8)


def _setting(model=None):
    model = model or small_s3ta(torch.float64)
    return model, pictures(4, (2, 12, 10)), RandomKey(3, tuple(names(4)), ("u", 0))


@pytest.mark.parametrize(
    "config",
    [
        PGDConfig(objective="divergence", radius=0.1, step_size=0.02, num_attack_steps=8, read_outs=(1, 3, 8)),
        PGDConfig(
            objective="divergence", norm="l2", radius=1.0, step_size=0.3, num_attack_steps=8, read_outs=(1, 3, 8)
        ),
        AdamConfig(objective="divergence", radius=0.1, num_attack_steps=8, read_outs=(1, 3, 8)),
    ],
)
def test_the_attack_ascends_it_whatever_the_labels(config):
    model, clean, draw = _setting()
    attacked = run_attack(model, clean, LABELS, config=config, draw=draw)
    other = run_attack(model, clean, LABELS.flip(0), config=config, draw=draw)
    assert torch.equal(attacked.final, other.final)
    with torch.no_grad():
        along = [sum(_by_hand(model(clean), model(images))) for images in attacked.images]
    assert 0 < along[0] < along[1] < along[2]


def test_one_step_goes_by_the_sign_of_the_gradient_at_the_start():
    model, clean, draw = _setting()
    config = PGDConfig(objective="divergence", radius=0.1, step_size=0.01, num_attack_steps=1)
    begun = run_attack(model, clean, LABELS, config=config.model_copy(update={"num_attack_steps": 0}), draw=draw).final
    with torch.no_grad():
        answer = model(clean).softmax(1)
    at = begun.clone().requires_grad_(True)
    (-(answer * model(at).log_softmax(1)).sum()).backward(inputs=[at])  # the rest does not depend on the image
    moved = torch.minimum(torch.maximum(begun + 0.01 * at.grad.sign(), clean - 0.1), clean + 0.1).clamp(0, 1)
    torch.testing.assert_close(
        run_attack(model, clean, LABELS, config=config, draw=draw).final, moved, rtol=0, atol=1e-12
    )


def test_the_clean_answer_is_asked_once_and_counted():
    model, clean, draw = Linear(5), pictures(4), RandomKey(0, tuple(names(4)), ("u", 0))
    config = PGDConfig(objective="divergence", radius=0.1, step_size=0.01, num_attack_steps=3)
    attacked = run_attack(model, clean, LABELS, config=config, draw=draw)
    assert model.calls == 4
    assert attacked.num_forwards.tolist() == [[4] * 4]
    assert attacked.num_gradients.tolist() == [[3] * 4]


def test_the_gradient_at_the_clean_image_is_zero():
    """Why training refuses `random_start_prob` below 1 with it."""
    model, clean, _ = _setting()
    with torch.no_grad():
        answer = model(clean)
    slope = autograd_gradient(model, divergence(answer), clean).gradient
    away = autograd_gradient(model, divergence(answer), clean + 0.05).gradient
    assert slope.abs().max() < 1e-12 * away.abs().max()


def test_the_divergence_takes_no_other_loss():
    with pytest.raises(ValueError, match="objective 'divergence' has a loss of its own"):
        PGDConfig(objective="divergence", loss="margin")
