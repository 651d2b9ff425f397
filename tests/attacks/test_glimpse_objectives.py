"""Attacks on where and how often a model looks: against sums, plain loops, finite differences and truncated models."""

from functools import partial

import numpy as np
import pytest
import torch

from s3ta.attacks import (
    AttentionSteering,
    BackpropGradient,
    BoxRegion,
    GridRegion,
    PGDConfig,
    RandomKey,
    all_glimpses_objective,
    attention_region_objective,
    attention_shift_objective,
    autograd_gradient,
    run_attack,
    single_glimpse_objective,
    targeted,
    untargeted,
    weighted_sum,
)
from s3ta.errors import UserError
from s3ta.types import Trace

from .helpers import Linear, names, pictures, small_s3ta

IMAGES, LABELS, TARGETS = (2, 12, 10), torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
CORNER = BoxRegion(height=0.5, width=0.4, row=0.0, column=0.0)
STRONG = PGDConfig(objective="untargeted", num_attack_steps=12, radius=0.1, step_size=0.02)


def _model_and_images():
    return small_s3ta(torch.float64), pictures(3, IMAGES)


def _random_trace(num_glimpses=3, num_heads=2, size=(4, 3), seed=0):
    """Logits and sharp maps that no model made."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_glimpses, 3, 5, generator=generator, dtype=torch.float64)
    maps = 3 * torch.randn(num_glimpses, 3, num_heads, *size, generator=generator, dtype=torch.float64)
    return Trace(logits, maps.flatten(-2).softmax(-1).view_as(maps))


def _run(config, model=None, restart=0, **given):
    whole, clean = _model_and_images()
    draw = RandomKey(0, tuple(names(3)), ("test", restart), restart)
    return run_attack(model or whole.unroll, clean, LABELS, config=config, targets=TARGETS, draw=draw, **given)


def _changed(config, **values):
    return config.model_validate({**config.model_dump(), **values})


def _margins(loss):
    return untargeted(LABELS, loss), targeted(TARGETS, loss, LABELS)


@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
def test_all_glimpses_is_the_sum_of_single_glimpses(loss):
    trace = _random_trace()
    for objective in _margins(loss):
        singles = [objective(trace.logits[glimpse]) for glimpse in range(3)]
        torch.testing.assert_close(all_glimpses_objective(objective)(trace), singles[0] + singles[1] + singles[2])
        assert (singles[0] != singles[1]).all()


def test_one_glimpse_takes_that_glimpse_modulo_their_number():
    trace, objective = _random_trace(), untargeted(LABELS, "margin")
    values = [single_glimpse_objective(objective, glimpse)(trace) for glimpse in range(7)]
    for glimpse, value in enumerate(values):
        assert torch.equal(value, objective(trace.logits[glimpse % 3]))
    assert len({tuple(value.tolist()) for value in values}) == 3


def _away_by_loop(reference, attention):
    """Cross-entropy of each map under its clean one, mean over glimpses and heads."""
    num_glimpses, count, num_heads, height, width = attention.shape
    values = np.zeros(count)
    for t, b, n in np.ndindex(num_glimpses, count, num_heads):
        for row, column in np.ndindex(height, width):
            values[b] -= reference[t, b, n, row, column] * np.log(attention[t, b, n, row, column])
    return values / (num_glimpses * num_heads)


def test_steering_away_is_the_cross_entropy_of_the_maps():
    clean, attacked = _random_trace(seed=1), _random_trace(seed=2)
    expected = _away_by_loop(clean.attention.numpy(), attacked.attention.numpy())
    np.testing.assert_allclose(attention_shift_objective(clean.attention)(attacked), expected, rtol=1e-12)


def test_steering_away_is_least_on_the_clean_maps():
    clean = _random_trace(seed=1)
    away = attention_shift_objective(clean.attention)
    for seed in range(5):
        other = _random_trace(seed=seed + 10)
        assert (away(other) > away(clean)).all()


def _onto_by_loop(region, attention):
    """Logarithm of the mass on the region; a map cell counts by the share of its pixels inside."""
    num_glimpses, count, num_heads, height, width = attention.shape
    values = np.zeros(count)
    for t, b, n in np.ndindex(num_glimpses, count, num_heads):
        mass = 0.0
        for row, column in np.ndindex(height, width):
            inside = region[min(b, len(region) - 1), 0]
            down, right = inside.shape[0] / height, inside.shape[1] / width
            cell = inside[
                int(np.floor(row * down)) : int(np.ceil((row + 1) * down)),
                int(np.floor(column * right)) : int(np.ceil((column + 1) * right)),
            ]
            mass += cell.mean() * attention[t, b, n, row, column]
        values[b] += np.log(mass)
    return values / (num_glimpses * num_heads)


@pytest.mark.parametrize("size", [(4, 3), (12, 9), (13, 10)])
@pytest.mark.parametrize("count", [1, 3])
def test_steering_onto_is_the_logarithm_of_the_mass_there(size, count):
    trace = _random_trace()
    generator = torch.Generator().manual_seed(3)
    region = torch.rand(count, 1, *size, generator=generator).gt(0.6).double()
    expected = _onto_by_loop(region.numpy(), trace.attention.numpy())
    np.testing.assert_allclose(attention_region_objective(region)(trace), expected, rtol=1e-12)
    assert (expected < 0).all()


def test_steering_onto_everything_is_zero():
    everything = attention_region_objective(torch.ones(1, 1, 12, 9, dtype=torch.float64))(_random_trace())
    torch.testing.assert_close(everything, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)


def test_steering_survives_maps_without_any_mass_there():
    hard = torch.zeros(1, 3, 1, 2, 2, dtype=torch.float64)
    hard[..., 0, 0] = 1
    logits = torch.zeros(1, 3, 5, dtype=torch.float64)
    for objective in (
        attention_shift_objective(hard),
        attention_region_objective(torch.tensor([[[[0.0, 1], [1, 1]]]]).double()),
    ):
        attention = hard.roll(1, dims=-1).requires_grad_(True)
        other = hard.clone().requires_grad_(True)
        values = objective(Trace(logits, attention)) + objective(Trace(logits, other))
        gradients = torch.autograd.grad(values.sum(), (attention, other))
        assert torch.isfinite(values).all()
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_mixed_objective_is_the_weighted_mean(weight):
    trace = _random_trace()
    parts = untargeted(LABELS), attention_shift_objective(_random_trace(seed=1).attention)
    expected = (1 - weight) * parts[0](trace) + weight * parts[1](trace)
    torch.testing.assert_close(weighted_sum(*parts, weight)(trace), expected)


@pytest.mark.parametrize("which", ["all", "one", "away", "onto", "mixed"])
def test_gradients_equal_finite_differences(which):
    model, images = _model_and_images()
    reference = model.unroll(pictures(3, IMAGES, seed=9)).attention.detach()
    region = torch.zeros(3, 1, 12, 10, dtype=torch.float64)
    region[:, :, 3:9, 2:8] = 1
    objective = {
        "all": all_glimpses_objective(untargeted(LABELS)),
        "one": single_glimpse_objective(targeted(TARGETS, "margin"), 0),
        "away": attention_shift_objective(reference),
        "onto": attention_region_objective(region),
        "mixed": weighted_sum(untargeted(LABELS), attention_region_objective(region), 0.3),
    }[which]
    gradient = autograd_gradient(model.unroll, objective, images).gradient
    for seed in range(3):
        direction, step = 2 * pictures(3, IMAGES, seed=seed + 20) - 1, 1e-6
        with torch.no_grad():
            up, down = (objective(model.unroll(images + sign * step * direction)) for sign in (1, -1))
        along = (gradient * direction).flatten(1).sum(1)
        assert (along.abs() > 1e-7).all()
        torch.testing.assert_close((up - down) / (2 * step), along, rtol=1e-3, atol=1e-9)


def _moved(images):
    """Total variation distance from the clean maps, mean over glimpses and heads."""
    model, clean = _model_and_images()
    with torch.no_grad():
        difference = model.unroll(images).attention - model.unroll(clean).attention
    return difference.abs().sum(dim=(-2, -1)).mean(dim=(0, 2)) / 2


def _mass(images, rows=6, columns=4):
    """Attention mass in the upper left `rows` x `columns` pixels; the map is half as high and wide."""
    model, _ = _model_and_images()
    with torch.no_grad():
        attention = model.unroll(images).attention
    assert attention.shape[-2:] == (6, 5)
    return attention[..., : rows // 2, : columns // 2].sum(dim=(-2, -1)).mean(dim=(0, 2))


def test_steering_away_moves_the_maps_more_than_an_attack_of_the_same_size():
    away = _run(_changed(STRONG, steering=AttentionSteering(weight=1.0))).final
    start = _run(_changed(STRONG, num_attack_steps=0)).final
    assert (_moved(away) > _moved(start)).all()
    assert (_moved(away) > _moved(_run(STRONG).final)).all()


def test_steering_away_finds_no_way_up_on_the_clean_image_itself():
    """The clean maps are the least of it, so a start without noise stands still: rounding alone is left."""
    model, clean = _model_and_images()
    away = attention_shift_objective(model.unroll(clean).attention.detach())
    at_clean, elsewhere = (
        autograd_gradient(model.unroll, away, images).gradient.abs().amax()
        for images in (clean, _run(_changed(STRONG, num_attack_steps=0)).final)
    )
    assert at_clean < 1e-9 * elsewhere


def test_steering_onto_a_region_gathers_mass_there_more_than_an_attack_of_the_same_size():
    clean = pictures(3, IMAGES)
    steered = _run(_changed(STRONG, steering=AttentionSteering(towards="region", region=CORNER, weight=1.0))).final
    assert (_mass(steered) > _mass(clean)).all()
    assert (_mass(steered) - _mass(clean) > (_mass(_run(STRONG).final) - _mass(clean)).abs()).all()


def test_steering_onto_another_region_gathers_mass_elsewhere():
    grids = [GridRegion(rows=("##..", "##..", "....")), GridRegion(rows=("....", "..##", "..##"))]
    steered = [
        _run(_changed(STRONG, steering=AttentionSteering(towards="region", region=r, weight=1.0))).final for r in grids
    ]
    assert (_mass(steered[0], 8, 4) > _mass(steered[1], 8, 4)).all()


def test_more_weight_steers_more_and_fools_less():
    labels = untargeted(LABELS)
    model, _ = _model_and_images()
    moved, loss = [], []
    for weight in (0.0, 0.9, 1.0):
        final = _run(_changed(STRONG, steering=AttentionSteering(weight=weight))).final
        moved.append(_moved(final).mean())
        loss.append(labels(model(final)).mean().item())
    assert moved[0] < moved[1] < moved[2]
    assert min(loss[:2]) > loss[2]


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
@pytest.mark.parametrize(
    "steering",
    [AttentionSteering(weight=0.0), AttentionSteering(towards="region", region=BoxRegion(), weight=0.0)],
    ids=["away", "onto"],
)
def test_steering_of_weight_zero_is_plain_pgd_bit_for_bit(objective, steering):
    config = _changed(STRONG, objective=objective)
    plain, steered = _run(config), _run(_changed(config, steering=steering))
    assert torch.equal(plain.images, steered.images)
    assert not torch.equal(plain.final, _run(_changed(config, steering=_changed(steering, weight=1.0))).final)


def test_all_glimpses_of_an_attack_is_pgd_on_the_sum():
    model, clean = _model_and_images()
    config = _changed(STRONG, num_attack_steps=2, random_start_prob=0.0)
    gradient = torch.zeros_like(clean)
    for glimpse in (0, 1):
        gradient += autograd_gradient(
            model.unroll, single_glimpse_objective(untargeted(LABELS), glimpse), clean
        ).gradient
    one_step = (clean + 0.02 * gradient.sign()).clamp(0, 1)
    attacked = _run(_changed(config, glimpses="all", num_attack_steps=1))
    torch.testing.assert_close(attacked.final, one_step, rtol=0, atol=1e-9)
    assert not torch.equal(_run(_changed(config, glimpses="all")).final, _run(config).final)


@pytest.mark.parametrize("restart", [0, 1, 2, 3])
def test_each_glimpse_in_turn_is_an_attack_on_a_truncated_model(restart):
    model, clean = _model_and_images()
    config = _changed(STRONG, num_attack_steps=4, num_restarts=4)
    start = (clean + 0.05).clamp(0, 1)
    each = _run(_changed(config, glimpses="each"), partial(model.unroll, num_glimpses=3), restart, start=start).final
    for length in (1, 2, 3):
        truncated = _run(config, partial(model.unroll, num_glimpses=length), restart, start=start).final
        assert torch.allclose(each, truncated, rtol=0, atol=1e-9) == (length == restart % 3 + 1)


@pytest.mark.parametrize("num_glimpses", [1, 2, 5])
def test_gradients_go_through_as_many_glimpses_as_are_asked_for(num_glimpses):
    model, clean = _model_and_images()
    images = clean.clone().requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(model.unroll(images, num_glimpses).logits[-1], LABELS, reduction="sum")
    (expected,) = torch.autograd.grad(loss, images)
    longer = partial(model.unroll, num_glimpses=num_glimpses)
    gradient = autograd_gradient(longer, untargeted(LABELS), clean).gradient
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-15)
    default = autograd_gradient(model.unroll, untargeted(LABELS), clean).gradient
    assert torch.allclose(gradient, default, rtol=1e-6) == (num_glimpses == 2)


def test_attacks_through_other_numbers_of_glimpses_give_other_images():
    model, _ = _model_and_images()
    finals = [_run(STRONG, partial(model.unroll, num_glimpses=number)).final for number in (1, 2, 5)]
    assert torch.equal(finals[1], _run(STRONG, model).final)
    assert not any(torch.equal(finals[i], finals[1]) for i in (0, 2))


LOOKING = {
    "all": {"glimpses": "all"},
    "each": {"glimpses": "each"},
    "away": {"steering": AttentionSteering()},
    "onto": {"steering": AttentionSteering(towards="region", region=CORNER)},
}


@pytest.mark.parametrize("which", LOOKING)
def test_a_model_that_does_not_show_its_glimpses_is_refused_at_its_first_answer(which):
    model = Linear(5, IMAGES)
    with pytest.raises(UserError, match=r"^This attack looks at glimpses, but the model answers with logits alone:"):
        _run(_changed(STRONG, **LOOKING[which]), model)
    assert model.calls == 1


@pytest.mark.parametrize("which", LOOKING)
def test_an_attack_that_looks_at_glimpses_says_that_it_needs_a_trace(which):
    assert _changed(STRONG, **LOOKING[which]).needs_trace
    assert _changed(STRONG, num_glimpses=3).needs_trace
    assert not STRONG.needs_trace


@pytest.mark.parametrize(
    ("change", "forwards", "gradients"),
    [
        ({}, 3, 3),
        ({"glimpses": "all"}, 3, 3),
        ({"glimpses": "each"}, 3, 3),
        ({"steering": AttentionSteering()}, 4, 3),
        ({"steering": AttentionSteering(towards="region", region=CORNER)}, 3, 3),
        ({"steering": AttentionSteering(), "objective": "multitargeted"}, 4, 3),
        ({"steering": AttentionSteering(), "keep": "best"}, 5, 3),
        ({"steering": AttentionSteering(), "gradient": BackpropGradient(num_samples=2)}, 7, 6),
    ],
)
def test_every_pass_through_the_model_is_counted(change, forwards, gradients):
    model, _ = _model_and_images()
    calls = []
    model.vision.register_forward_hook(lambda *_: calls.append(1))
    attacked = _run(_changed(STRONG, num_attack_steps=3, **change), model.unroll)
    assert len(calls) == forwards
    assert attacked.num_forwards.tolist() == [[forwards] * 3]
    assert attacked.num_gradients.tolist() == [[gradients] * 3]
