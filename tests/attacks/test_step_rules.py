"""Step rules against torch's Adam, plain MI-FGSM and tables (X11, X12), path by path in float64."""

import math

import pytest
import torch

from s3ta.attacks import (
    L2,
    AdamConfig,
    Attack,
    Linf,
    PGDConfig,
    RandomKey,
    adam_step,
    annealed_step_size,
    gradient_ascent,
    l2_step,
    run_attack,
    sign_step,
    untargeted,
    with_momentum,
)
from tests.reference.attacks import gradient_of, momentum_path, optimizer_path, path

from .helpers import Linear, names, pictures, small_s3ta

LABELS = torch.tensor([3, 0, 4])
PAPER = [0.1] * 100 + [0.01] * 100 + [0.001] * 50
"""The rate of each step (E10)."""
RATES = ((0, 0.1), (100, 0.01), (200, 0.001))


def _hills(images):
    """A smooth landscape with many hills: the path depends on every step. Made of the image alone, fast."""
    flat = images.flatten(1)
    frequencies = torch.arange(1, 1 + flat.shape[1], dtype=images.dtype) % 7 + 1
    values = (3 * frequencies * flat).sin() / frequencies + (flat - 0.4).square()
    return torch.stack([-values.sum(1), values.sum(1) / 2, flat.prod(1)], dim=1)


def _loss(logits):
    return torch.nn.functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64), reduction="none")


def _walk(rule, clean, threat, num_steps, start=None, model=_hills, scale=1.0):
    """All iterates of an attack, by way of its read-outs."""
    return gradient_ascent(
        model,
        clean,
        Attack(
            threat=threat,
            objective=lambda logits: scale * _loss(logits),
            step_rule=rule,
            num_attack_steps=num_steps,
            read_outs=range(num_steps),
        ),
        start=start,
    ).images


# --- Adam -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.7)], ids=["linf", "l2"])
def test_adam_walks_the_path_of_torchs_adam_over_all_250_steps(threat):
    """X12: raw gradients, moments kept, every step projected, rates changed after steps 100 and 200."""
    clean = pictures(2, (1, 2, 5))
    ours = _walk(adam_step(RATES), clean, threat, 250)
    expected = optimizer_path(
        clean, gradient_of(_hills, _loss), PAPER, lambda images: threat.project(images, clean), 1e-9
    )
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-9)
    moves = ours.diff(dim=0).abs().flatten(1).amax(dim=1)
    assert (moves[:100] > 1e-4).any()
    assert (moves[200:] > 0).any(), "it must not have come to rest before the rates change"


def test_rates_are_those_of_the_paper_step_by_step():
    """X12: index 0 to 99 has 0.1, 100 to 199 has 0.01, 200 to 249 has 0.001."""
    config = AdamConfig()
    assert config.num_attack_steps == len(PAPER) == 250
    rule, rates = adam_step(config.learning_rates, config.beta1, config.beta2, config.epsilon), []
    images, gradient = torch.zeros(1, 1, 1, 2, dtype=torch.float64), torch.tensor([[[[2.0, -0.5]]]]).double()
    for done in range(250):  # under a constant gradient every step is rate x sign
        moved = rule(images, gradient, done) - images
        rates.append(moved[0, 0, 0, 0].item())
        assert moved[0, 0, 0, 1].item() == pytest.approx(-rates[-1], rel=1e-6)
    assert rates == pytest.approx(PAPER, rel=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_the_first_adam_step_moves_by_the_rate_along_the_sign(scale):
    """X12: 0.1 sign(g) before projection, however small the gradient; but zero where the gradient is zero."""
    gradient = scale * torch.linspace(-1, 1, 70, dtype=torch.float64).view(1, 2, 5, 7).roll(3)
    gradient[0, 0, 0, 0] = 0
    moved = adam_step(RATES)(torch.zeros_like(gradient), gradient, 0)
    torch.testing.assert_close(moved, 0.1 * gradient.sign(), rtol=0, atol=0.1 * 1e-9 / (scale / 100))


def test_the_configured_adam_attack_is_torchs_adam_on_a_real_model():
    model, clean = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    config = AdamConfig(
        objective="untargeted",
        num_attack_steps=12,
        learning_rates=((0, 0.03), (5, 0.01), (9, 0.002)),
        read_outs=tuple(range(1, 12)),
        radius=0.05,
    )
    attacked = run_attack(model, clean, LABELS, config=config, start=clean)
    expected = optimizer_path(
        clean,
        gradient_of(model, lambda logits: torch.nn.functional.cross_entropy(logits, LABELS, reduction="none")),
        [0.03] * 5 + [0.01] * 4 + [0.002] * 3,
        lambda images: torch.minimum(torch.maximum(images, clean - 0.05), clean + 0.05).clamp(0, 1),
        1e-9,
    )
    torch.testing.assert_close(attacked.images, torch.stack(expected[1:]), rtol=0, atol=1e-9)


def test_moments_are_neither_reset_nor_projected():
    """X12: a pixel pushed against the box keeps its moments, and comes back as slowly as they say."""
    clean = torch.full((1, 1, 1, 1), 0.95, dtype=torch.float64)
    rule, images, first, second = adam_step(((0, 0.1),)), clean, 0.0, 0.0
    for done, gradient in enumerate([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0]):
        images = Linf(1.0).project(rule(images, torch.full_like(clean, gradient), done), clean)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9 ** (done + 1))
        step = 0.1 * unbiased / (math.sqrt(second / (1 - 0.999 ** (done + 1))) + 1e-9)
        if done == 0:
            where = 0.95
        where = min(max(where + step, 0.0), 1.0)
        assert images.item() == pytest.approx(where, abs=1e-12)
    assert 0 < images.item() < 0.95


def test_adam_does_not_see_a_factor_of_the_objective_where_gradients_are_tiny():
    """X11: a mean over 128 images instead of a sum. With torch's own epsilon of 1e-8 the steps would shrink."""
    model, clean = Linear(5), 0.3 + 0.4 * pictures(3)
    tiny = 5e-4  # gradients of about 5e-6, divided by 128 about 4e-8

    def moves(scale, **settings):
        attacked = _walk(adam_step(((0, 0.002),), **settings), clean, Linf(0.5), 20, model=model, scale=scale)
        return attacked[-1] - clean

    def shrunk(**settings):
        return 1 - (moves(tiny / 128, **settings) / moves(tiny, **settings)).median().item()

    assert (moves(tiny).abs().median() - 0.04).abs() < 0.001
    assert 0 <= shrunk() < 0.05
    assert shrunk(epsilon=1e-8) > 0.1
    torch.testing.assert_close(moves(1 / 128), moves(1.0), rtol=0, atol=0.04 * 0.05)  # of ordinary ones nothing is seen


# --- steps of fixed length ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e6, 1.0, 1e-6, 1e-15, 1e-24, 1e-32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_l2_step_has_its_length_however_small_the_gradient(scale, dtype):
    """A model that is sure has gradients whose squares are 0 in float32."""
    images, gradient = pictures(3, dtype=dtype), pictures(3, seed=5, dtype=dtype) - 0.5
    moved = l2_step(0.37)(torch.zeros_like(images), scale * gradient, 4)
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), torch.full((3,), 0.37, dtype=dtype))
    cosine = torch.nn.functional.cosine_similarity(moved.flatten(1), gradient.flatten(1))
    torch.testing.assert_close(cosine, torch.ones(3, dtype=dtype))


def test_an_l2_step_along_no_gradient_is_no_step():
    images, gradient = pictures(2), pictures(2, seed=5)
    gradient[1] = 0
    moved = l2_step(0.37)(images, gradient, 0)
    assert torch.equal(moved[1], images[1])
    assert not torch.equal(moved[0], images[0])


@pytest.mark.parametrize(
    ("annealing", "shares"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]),
    ],
)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_annealed_step_sizes_equal_their_tables(annealing, shares, norm):
    size = annealed_step_size(0.04, 4, annealing)
    assert [size(done) for done in range(4)] == pytest.approx([0.04 * share for share in shares], abs=1e-15)
    model, clean = Linear(2), torch.full((1, 2, 5, 7), 0.5, dtype=torch.float64)
    config = PGDConfig(
        objective="untargeted", norm=norm, radius=0.5, step_size=0.04, num_attack_steps=4, annealing=annealing
    )
    far = (run_attack(model, clean, torch.tensor([0]), config=config, start=clean).final - clean).flatten()
    reached = far.norm() if norm == "l2" else far.abs().max()
    assert reached.item() == pytest.approx(0.04 * sum(shares), abs=1e-12)


# --- momentum -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.3])
def test_momentum_is_mi_fgsm(decay):
    clean = pictures(2, (1, 2, 5))
    start = Linf(0.2).project(clean + 0.1 * (pictures(2, (1, 2, 5), seed=4) - 0.5), clean)
    ours = _walk(with_momentum(sign_step(0.02), decay), clean, Linf(0.2), 30, start)
    plain = _walk(sign_step(0.02), clean, Linf(0.2), 30, start)
    project = lambda images: torch.minimum(torch.maximum(images, clean - 0.2), clean + 0.2).clamp(0, 1)  # noqa: E731
    expected = momentum_path(start, gradient_of(_hills, _loss), 0.02, decay, project, 30)
    torch.testing.assert_close(ours, torch.stack(expected), rtol=0, atol=1e-12)
    assert (ours - plain).abs().max() > 0.01


@pytest.mark.parametrize("rule", [sign_step(0.02), l2_step(0.05)], ids=["sign", "l2"])
def test_a_decay_of_0_equals_no_momentum(rule):
    clean = pictures(2, (1, 2, 5))
    threat = L2(0.5)
    torch.testing.assert_close(
        _walk(with_momentum(rule, 0.0), clean, threat, 20), _walk(rule, clean, threat, 20), rtol=0, atol=1e-12
    )


def test_momentum_is_what_the_config_says():
    model, clean = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    settings = {"objective": "untargeted", "num_attack_steps": 6, "radius": 0.05, "step_size": 0.01}
    config = PGDConfig(momentum=0.9, **settings)
    ours = run_attack(model, clean, LABELS, config=config, start=clean).final
    gradient = gradient_of(model, lambda logits: untargeted(LABELS)(logits))
    project = lambda images: torch.minimum(torch.maximum(images, clean - 0.05), clean + 0.05).clamp(0, 1)  # noqa: E731
    expected = momentum_path(clean, gradient, 0.01, 0.9, project, 6)[-1]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    plain = run_attack(model, clean, LABELS, config=PGDConfig(**settings), start=clean).final
    assert (ours != plain).double().mean() > 0.01


@pytest.mark.parametrize(
    "rule",
    [with_momentum(sign_step(0.02), 0.9), with_momentum(l2_step(0.1), 0.9), adam_step(((0, 0.03), (4, 0.01)))],
    ids=["momentum", "l2 momentum", "adam"],
)
def test_a_step_rule_that_is_used_again_starts_afresh(rule):
    clean, other = pictures(2, (1, 2, 5)), pictures(3, (1, 2, 5), seed=9)
    first = _walk(rule, clean, Linf(0.2), 7)
    _walk(rule, other, Linf(0.2), 3)
    with pytest.raises(RuntimeError, match="broken off"):
        _walk(rule, other, Linf(0.2), 3, model=_broken_off())
    assert torch.equal(_walk(rule, clean, Linf(0.2), 7), first)
    assert not torch.equal(first[-1], first[0])


def _broken_off():
    calls = []

    def model(images):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("broken off")
        return _hills(images)

    return model


@pytest.mark.parametrize(
    "rule",
    [with_momentum(sign_step(0.02), 0.9), l2_step(0.1), with_momentum(l2_step(0.1), 0.9), adam_step(((0, 0.03),))],
    ids=["momentum", "l2", "l2 momentum", "adam"],
)
@pytest.mark.parametrize("threat", [Linf(0.2), L2(0.5)], ids=["linf", "l2"])
def test_every_rule_treats_each_image_as_if_it_were_alone(rule, threat):
    """X1, X11: no length, moment or projection is taken over the batch."""
    clean = pictures(3, (1, 2, 5))
    together = _walk(rule, clean, threat, 6)
    for i in range(3):
        alone = _walk(rule, clean[i : i + 1], threat, 6)
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_plain_attack_is_the_plain_loop(norm):
    model, clean = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    config = PGDConfig(objective="untargeted", norm=norm, radius=0.3, step_size=0.08, num_attack_steps=8)
    ours = run_attack(model, clean, LABELS, config=config, start=clean).final
    if norm == "linf":
        step = lambda images, ascent, k: images + 0.08 * ascent.sign()  # noqa: E731
    else:
        step = lambda images, ascent, k: torch.stack(  # noqa: E731
            [image + 0.08 * one / one.square().sum().sqrt() for image, one in zip(images, ascent, strict=True)]
        )
    threat = Linf(0.3) if norm == "linf" else L2(0.3)
    gradient = gradient_of(model, lambda logits: -logits.log_softmax(1)[torch.arange(3), LABELS])
    expected = path(clean, gradient, step, lambda images: threat.project(images, clean), 8)[-1]
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-9)


def test_names_of_examples_do_not_matter_where_nothing_is_drawn():
    model, clean = Linear(5), pictures(3)
    config = AdamConfig(objective="untargeted", num_attack_steps=3)
    one, other = (
        run_attack(model, clean, LABELS, config=config, start=clean, draw=draw).final
        for draw in (None, RandomKey(7, tuple(names(3)), ("x",)))
    )
    assert torch.equal(one, other)
