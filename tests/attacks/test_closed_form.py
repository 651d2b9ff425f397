"""PGD where the answer is known: on linear models, and against a five-line reference (X3, X5, X14, X30)."""

import pytest
import torch

from s3ta.attacks import (
    Linf,
    PGDConfig,
    autograd_gradient,
    draw_start,
    final_logits,
    perturb,
    pgd,
    sign_step,
    targeted,
    untargeted,
)
from s3ta.trace import Trace
from tests.reference.pgd import iterates

from .helpers import Linear, names, pictures, small_s3ta

LABELS = torch.tensor([0, 1, 0])
RADIUS, STEP = 16 / 255, 1 / 255


def _direction(model, classes):
    """Sign of the cross-entropy's gradient with two classes: towards the other one."""
    other = model.weight.detach()[1 - classes] - model.weight.detach()[classes]
    assert (other != 0).all()
    return other.sign()


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_one_step_is_one_signed_step(objective):
    model, clean = Linear(), 0.2 + 0.6 * pictures(3)
    config = PGDConfig(objective=objective, num_attack_steps=1)
    attacked = pgd(model, clean, LABELS, config=config, targets=LABELS, start=clean)
    sign = 1 if objective == "untargeted" else -1
    expected = clean + sign * STEP * _direction(model, LABELS)
    torch.testing.assert_close(attacked.final, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_many_steps_reach_the_corner_of_ball_and_box(objective):
    model, clean = Linear(), pictures(3)
    config = PGDConfig(objective=objective, num_attack_steps=40)
    start = draw_start(config, 3, names(3), clean)
    attacked = pgd(model, clean, LABELS, config=config, targets=LABELS, start=start)
    sign = 1 if objective == "untargeted" else -1
    corner = (clean + sign * RADIUS * _direction(model, LABELS)).clamp(0, 1)
    assert ((corner == 0) | (corner == 1)).any()
    torch.testing.assert_close(attacked.final, corner, rtol=0, atol=1e-15)


def test_radius_and_steps_are_in_pixel_space():
    model, clean = small_s3ta(), pictures(7, (2, 12, 10), dtype=torch.float32)
    labels = torch.arange(7) % 5
    one = pgd(model, clean, labels, config=PGDConfig(num_attack_steps=1), targets=labels, start=clean).final
    gradient = autograd_gradient(model, targeted(labels), clean)
    inside = (gradient != 0) & (clean > STEP) & (clean < 1 - STEP)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close((one - clean)[inside], (STEP * gradient.sign())[inside], rtol=0, atol=1e-7)
    assert torch.equal(one[gradient == 0], clean[gradient == 0])
    far = pgd(model, clean, labels, config=PGDConfig(num_attack_steps=100), targets=labels, start=clean).final
    moved = (far - clean).abs()
    assert moved.max() <= RADIUS + 1e-6
    assert (moved > RADIUS - 1e-6).float().mean() > 0.01
    assert far.min() >= 0
    assert far.max() <= 1


def test_a_pixel_without_gradient_stays():
    model, clean = Linear(), 0.2 + 0.6 * pictures(3)
    with torch.no_grad():
        model.weight[:, 1, 2, 3] = 0
    final = pgd(model, clean, LABELS, config=PGDConfig(num_attack_steps=7), targets=LABELS, start=clean).final
    assert torch.equal(final[:, 1, 2, 3], clean[:, 1, 2, 3])
    assert (final != clean).sum() == final.numel() - 3


@pytest.mark.parametrize("trial", range(3))
def test_targeted_descends_the_cross_entropy_of_the_target(trial):
    model, clean = small_s3ta(torch.float64), pictures(7, (2, 12, 10), seed=trial)
    labels = torch.arange(7) % 5
    targets = (labels + 1 + trial) % 5
    config = PGDConfig(num_attack_steps=20, radius=0.3, step_size=0.03, read_outs=(1, 5))
    attacked = pgd(model, clean, labels, config=config, targets=targets, start=clean)
    with torch.no_grad():
        losses = [-targeted(targets)(model(images)) for images in (clean, *attacked.images)]
        ascent = pgd(
            model,
            clean,
            labels,
            config=config.model_copy(update={"objective": "untargeted"}),
            targets=None,
            start=clean,
        )
        true = [untargeted(labels)(model(images)) for images in (clean, ascent.final)]
    assert (losses[-1] < losses[0]).all()
    assert losses[0].mean() > losses[1].mean() > losses[2].mean() > losses[3].mean()
    assert (true[1] > true[0]).all()


def test_a_strong_targeted_attack_on_an_undefended_net_succeeds():
    model, clean = Linear(5), pictures(11)
    labels = torch.arange(11) % 5
    targets = (labels + 2) % 5
    before = (model(clean).argmax(1) == targets).double().mean()
    config = PGDConfig(num_attack_steps=100, radius=0.5, step_size=0.02)
    final = pgd(
        model, clean, labels, config=config, targets=targets, start=draw_start(config, 0, names(11), clean)
    ).final
    assert before < 0.5
    assert (model(final).argmax(1) == targets).all()


@pytest.mark.parametrize("num_steps", [0, 1, 2, 13])
@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_last_iterate_and_exactly_n_model_calls(num_steps, objective):
    model, clean = Linear(5), pictures(3)
    classes = torch.tensor([3, 0, 4])
    config = PGDConfig(objective=objective, num_attack_steps=num_steps, radius=0.05, step_size=0.02)
    start = draw_start(config, 0, names(3), clean)
    model.calls = 0
    attacked = pgd(model, clean, classes, config=config, targets=classes, start=start)
    assert model.calls == attacked.num_gradients == num_steps
    path = iterates(model, clean, classes, 1 if objective == "untargeted" else -1, 0.05, 0.02, num_steps, start)
    torch.testing.assert_close(attacked.final, path[-1], rtol=0, atol=1e-12)
    assert len({images.numpy().tobytes() for images in path}) >= min(num_steps, 2) + 1


def test_the_last_iterate_is_returned_even_where_an_earlier_one_was_better():
    def hill(images):  # cross-entropy of class 0 is highest at 0.5, and every large step overshoots
        height = -(images - 0.5).square().flatten(1).sum(1)
        return torch.stack([-height, height], dim=1)

    clean = torch.full((1, 2, 5, 7), 0.48, dtype=torch.float64)
    labels = torch.tensor([0])
    attacked = perturb(
        hill,
        clean,
        threat=Linf(0.3),
        objective=untargeted(labels),
        step_rule=sign_step(0.05),
        num_attack_steps=2,
        read_outs=(1,),
    )
    assert attacked.read_outs == (1, 2)
    torch.testing.assert_close(attacked.images[0], clean + 0.05)
    torch.testing.assert_close(attacked.final, clean)


def test_read_outs_of_one_run_equal_separate_runs():
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    labels = torch.tensor([3, 0, 4])
    config = PGDConfig(num_attack_steps=7, read_outs=(5, 1, 2), step_size=0.01)
    start = draw_start(config, 0, names(3), clean)
    attacked = pgd(model, clean, labels, config=config, targets=labels, start=start)
    assert attacked.read_outs == (1, 2, 5, 7)
    assert attacked.images.shape == (4, 3, 2, 12, 10)
    for num_steps, images in zip(attacked.read_outs, attacked.images, strict=True):
        single = PGDConfig(num_attack_steps=num_steps, step_size=0.01)
        assert torch.equal(pgd(model, clean, labels, config=single, targets=labels, start=start).final, images)
    assert len({images.numpy().tobytes() for images in attacked.images}) == 4


def test_radius_zero_changes_nothing():
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    config = PGDConfig(radius=0.0, num_attack_steps=5)
    labels = torch.tensor([3, 0, 4])
    start = draw_start(config, 0, names(3), clean)
    assert torch.equal(start, clean)
    assert torch.equal(pgd(model, clean, labels, config=config, targets=labels, start=start).final, clean)


def test_default_start_is_the_clean_image():
    model, clean = Linear(5), pictures(3)
    rest = {"threat": Linf(0.1), "objective": untargeted(torch.tensor([3, 0, 4])), "step_rule": sign_step(0.02)}
    nothing = perturb(model, clean, num_attack_steps=0, **rest)
    assert torch.equal(nothing.final, clean)
    assert nothing.final.data_ptr() != clean.data_ptr()
    explicit = perturb(model, clean, num_attack_steps=3, start=clean, **rest)
    assert torch.equal(perturb(model, clean, num_attack_steps=3, **rest).final, explicit.final)


def test_objectives_are_the_plain_cross_entropy_per_example():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0]], dtype=torch.float64)
    classes = torch.tensor([2, 1])
    expected = torch.stack([-(row[c].exp() / row.exp().sum()).log() for row, c in zip(logits, classes, strict=True)])
    torch.testing.assert_close(untargeted(classes)(logits), expected)
    torch.testing.assert_close(targeted(classes)(logits), -expected)
    trace = Trace(torch.stack([logits.flip(1), logits]), torch.full((2, 2, 1, 5, 7), 1 / 35))
    torch.testing.assert_close(untargeted(classes)(trace), expected)
    assert torch.equal(final_logits(trace), logits)
    assert final_logits(logits) is logits


def test_gradient_of_an_image_ignores_its_neighbours_and_their_number():
    model, images = small_s3ta(torch.float64), pictures(3, (2, 12, 10))
    labels = torch.tensor([3, 0, 4])
    together = autograd_gradient(model, untargeted(labels), images)
    alone = autograd_gradient(model, untargeted(labels[1:2]), images[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-15)
    assert alone.abs().max() > 1e-6


def test_another_gradient_source_is_used_instead():
    model, clean = Linear(5), pictures(3)
    seen = []

    def up(outputs_fn, objective, images):
        seen.append(images)
        return torch.ones_like(images)

    attacked = perturb(
        model,
        clean,
        threat=Linf(0.05),
        objective=untargeted(torch.tensor([3, 0, 4])),
        step_rule=sign_step(0.02),
        num_attack_steps=4,
        gradient=up,
    )
    assert model.calls == 0
    torch.testing.assert_close(attacked.final, (clean + 0.05).clamp(0, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[1], (clean + 0.02).clamp(0, 1), rtol=0, atol=1e-12)  # follows the iterate


def test_a_targeted_attack_without_targets_is_refused():
    with pytest.raises(AssertionError, match="needs targets"):
        pgd(Linear(), pictures(3), LABELS, config=PGDConfig(), targets=None, start=pictures(3))
