"""Attacks where the answer is known: on linear models, and against plain references (X3, X5, X14, X30, X38)."""

import pytest
import torch

from s3ta.attacks import (
    L2,
    SPSA,
    AdamConfig,
    Attack,
    BackpropGradient,
    GradientEstimate,
    GridRegion,
    Linf,
    PGDConfig,
    RandomKey,
    autograd_gradient,
    draw_start,
    final_logits,
    gradient_ascent,
    logit_margin,
    run_attack,
    sign_step,
    targeted,
    threat_model_of,
    untargeted,
)
from s3ta.errors import UserError
from s3ta.types import Trace
from tests.reference.attacks import first_best, linear_optimum, margins
from tests.reference.pgd import iterates

from .helpers import Linear, Ramp, names, pictures, small_s3ta

LABELS = torch.tensor([0, 1, 0])
TARGETS = 1 - LABELS
RADIUS, STEP = 16 / 255, 1 / 255


def _direction(model):
    """Sign of every attack's gradient with two classes: away from the label is towards the other one, the target."""
    other = model.weight.detach()[TARGETS] - model.weight.detach()[LABELS]
    assert (other != 0).all()
    return other.sign()


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_one_step_is_one_signed_step(objective):
    model, clean = Linear(), 0.2 + 0.6 * pictures(3)
    config = PGDConfig(objective=objective, num_attack_steps=1)
    attacked = run_attack(model, clean, LABELS, config=config, targets=TARGETS, start=clean)
    expected = clean + STEP * _direction(model)
    torch.testing.assert_close(attacked.final, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_many_steps_reach_the_corner_of_ball_and_box(objective):
    model, clean = Linear(), pictures(3)
    config = PGDConfig(objective=objective, num_attack_steps=40)
    start = draw_start(config, 3, names(3), clean)
    attacked = run_attack(model, clean, LABELS, config=config, targets=TARGETS, start=start)
    corner = (clean + RADIUS * _direction(model)).clamp(0, 1)
    assert ((corner == 0) | (corner == 1)).any()
    torch.testing.assert_close(attacked.final, corner, rtol=0, atol=1e-15)


def test_radius_and_steps_are_in_pixel_space():
    model, clean = small_s3ta(), pictures(7, (2, 12, 10), dtype=torch.float32)
    labels = torch.arange(7) % 5
    targets = (labels + 1) % 5
    one = run_attack(model, clean, labels, config=PGDConfig(num_attack_steps=1), targets=targets, start=clean).final
    gradient = autograd_gradient(model, targeted(targets), clean).gradient
    inside = (gradient != 0) & (clean > STEP) & (clean < 1 - STEP)
    assert inside.float().mean() > 0.5
    torch.testing.assert_close((one - clean)[inside], (STEP * gradient.sign())[inside], rtol=0, atol=1e-7)
    assert torch.equal(one[gradient == 0], clean[gradient == 0])
    far = run_attack(model, clean, labels, config=PGDConfig(num_attack_steps=100), targets=targets, start=clean).final
    moved = (far - clean).abs()
    assert moved.max() <= RADIUS + 1e-6
    assert (moved > RADIUS - 1e-6).float().mean() > 0.01
    assert far.min() >= 0
    assert far.max() <= 1


def test_a_pixel_without_gradient_stays():
    model, clean = Linear(), 0.2 + 0.6 * pictures(3)
    with torch.no_grad():
        model.weight[:, 1, 2, 3] = 0
    final = run_attack(model, clean, LABELS, config=PGDConfig(num_attack_steps=7), targets=TARGETS, start=clean).final
    assert torch.equal(final[:, 1, 2, 3], clean[:, 1, 2, 3])
    assert (final != clean).sum() == final.numel() - 3


@pytest.mark.parametrize("trial", range(3))
def test_targeted_descends_the_cross_entropy_of_the_target(trial):
    model, clean = small_s3ta(torch.float64), pictures(7, (2, 12, 10), seed=trial)
    labels = torch.arange(7) % 5
    targets = (labels + 1 + trial) % 5
    config = PGDConfig(num_attack_steps=20, radius=0.3, step_size=0.03, read_outs=(1, 5))
    attacked = run_attack(model, clean, labels, config=config, targets=targets, start=clean)
    with torch.no_grad():
        losses = [-targeted(targets)(model(images)) for images in (clean, *attacked.images)]
        ascent = run_attack(
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
    final = run_attack(
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
    labels = classes if objective == "untargeted" else (classes + 1) % 5
    model.calls = 0
    attacked = run_attack(model, clean, labels, config=config, targets=classes, start=start)
    assert model.calls == num_steps
    assert attacked.num_gradients.tolist() == attacked.num_forwards.tolist() == [[num_steps] * 3]
    path = iterates(model, clean, classes, 1 if objective == "untargeted" else -1, 0.05, 0.02, num_steps, start)
    torch.testing.assert_close(attacked.final, path[-1], rtol=0, atol=1e-12)
    assert len({images.numpy().tobytes() for images in path}) >= min(num_steps, 2) + 1


def test_the_last_iterate_is_returned_even_where_an_earlier_one_was_better():
    def hill(images):  # cross-entropy of class 0 is highest at 0.5, and every large step overshoots
        height = -(images - 0.5).square().flatten(1).sum(1)
        return torch.stack([-height, height], dim=1)

    clean = torch.full((1, 2, 5, 7), 0.48, dtype=torch.float64)
    labels = torch.tensor([0])
    attacked = gradient_ascent(
        hill,
        clean,
        Attack(
            threat=Linf(0.3),
            objective=untargeted(labels),
            step_rule=sign_step(0.05),
            num_attack_steps=2,
            read_outs=(1,),
        ),
    )
    assert attacked.read_outs == (1, 2)
    torch.testing.assert_close(attacked.images[0], clean + 0.05)
    torch.testing.assert_close(attacked.final, clean)


def test_read_outs_of_one_run_equal_separate_runs():
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    labels, targets = torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
    config = PGDConfig(num_attack_steps=7, read_outs=(5, 1, 2), step_size=0.01)
    start = draw_start(config, 0, names(3), clean)
    attacked = run_attack(model, clean, labels, config=config, targets=targets, start=start)
    assert attacked.read_outs == (1, 2, 5, 7)
    assert attacked.images.shape == (4, 3, 2, 12, 10)
    for r, num_steps in enumerate(attacked.read_outs):
        config = PGDConfig(num_attack_steps=num_steps, step_size=0.01)
        single = run_attack(model, clean, labels, config=config, targets=targets, start=start)
        assert torch.equal(single.final, attacked.images[r])
        assert torch.equal(single.num_gradients[0], attacked.num_gradients[r])
        assert torch.equal(single.num_forwards[0], attacked.num_forwards[r])
    assert len({images.numpy().tobytes() for images in attacked.images}) == 4


def test_radius_zero_changes_nothing():
    model, clean = small_s3ta(), pictures(3, (2, 12, 10), dtype=torch.float32)
    config = PGDConfig(radius=0.0, num_attack_steps=5)
    labels, targets = torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
    start = draw_start(config, 0, names(3), clean)
    assert torch.equal(start, clean)
    assert torch.equal(run_attack(model, clean, labels, config=config, targets=targets, start=start).final, clean)


def test_default_start_is_the_clean_image():
    model, clean = Linear(5), pictures(3)
    rest = {"threat": Linf(0.1), "objective": untargeted(torch.tensor([3, 0, 4])), "step_rule": sign_step(0.02)}
    nothing = gradient_ascent(model, clean, Attack(num_attack_steps=0, **rest))
    assert torch.equal(nothing.final, clean)
    assert nothing.final.data_ptr() != clean.data_ptr()
    explicit = gradient_ascent(model, clean, Attack(num_attack_steps=3, **rest), start=clean)
    assert torch.equal(gradient_ascent(model, clean, Attack(num_attack_steps=3, **rest)).final, explicit.final)


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
    together = autograd_gradient(model, untargeted(labels), images).gradient
    alone = autograd_gradient(model, untargeted(labels[1:2]), images[1:2]).gradient
    torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-15)
    assert alone.abs().max() > 1e-6


def test_another_gradient_source_is_used_instead():
    model, clean = Linear(5), pictures(3)
    seen = []

    def up(outputs_fn, objective, images, step):
        seen.append(images)
        assert step == len(seen) - 1
        return GradientEstimate(torch.ones_like(images), None, num_gradients=2, num_forwards=5)

    attacked = gradient_ascent(
        model,
        clean,
        Attack(
            threat=Linf(0.05),
            objective=untargeted(torch.tensor([3, 0, 4])),
            step_rule=sign_step(0.02),
            num_attack_steps=4,
            gradient=up,
        ),
    )
    assert model.calls == 0
    assert attacked.num_gradients.tolist() == [[8] * 3]
    assert attacked.num_forwards.tolist() == [[20] * 3]
    torch.testing.assert_close(attacked.final, (clean + 0.05).clamp(0, 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[1], (clean + 0.02).clamp(0, 1), rtol=0, atol=1e-12)  # follows the iterate


def test_a_targeted_attack_without_targets_is_refused():
    with pytest.raises(UserError, match="needs targets"):
        run_attack(Linear(), pictures(3), LABELS, config=PGDConfig(), targets=None, start=pictures(3))


def test_the_attack_follows_the_plain_cross_entropy_of_hand_made_logits():
    """X30: the gradient at the logits is the softmax minus one at the class; label smoothing would turn it."""
    model, clean, labels = Linear(5), 0.2 + 0.6 * pictures(3), torch.tensor([3, 0, 4])
    config = PGDConfig(objective="untargeted", norm="l2", radius=3.0, step_size=0.1, num_attack_steps=1)
    moved = run_attack(model, clean, labels, config=config, start=clean).final - clean
    exponentials = model(clean).detach().exp()
    chosen = torch.eye(5, dtype=torch.float64)[labels]

    def direction(aim):
        gradient = torch.einsum("by,ychw->bchw", exponentials / exponentials.sum(1, keepdim=True) - aim, model.weight)
        return gradient.detach() / gradient.detach().flatten(1).norm(dim=1).view(-1, 1, 1, 1)

    torch.testing.assert_close(moved, 0.1 * direction(chosen), rtol=0, atol=1e-12)
    assert (moved - 0.1 * direction(0.9 * chosen + 0.1 / 5)).abs().max() > 1e-4  # what smoothing would do
    aimed = config.model_copy(update={"objective": "targeted"})
    targets = (labels + 1) % 5
    towards = run_attack(model, clean, labels, config=aimed, targets=targets, start=clean).final - clean
    torch.testing.assert_close(
        towards, -0.1 * direction(torch.eye(5, dtype=torch.float64)[targets]), rtol=0, atol=1e-12
    )


# --- the optimum of a linear model, for every attack in every threat model --------------------------------------------

REGION = GridRegion(rows=("#..", ".##"))
MASK = torch.zeros(5, 7)
MASK[:3, :3] = MASK[3:, 3:] = 1
THREATS = {
    "linf": {"norm": "linf", "radius": 0.2},
    "l2": {"norm": "l2", "radius": 1.0},
    "masked linf": {"norm": "linf", "radius": 0.2, "mask": REGION},
    "masked l2": {"norm": "l2", "radius": 0.8, "mask": REGION},
}
STEPS = {"linf": 0.05, "l2": 2.0}
"""A long step in the L2 ball turns fast: each brings the direction nearer by the factor radius / (radius + step)."""
KINDS = {
    "plain": {},
    "linear": {"annealing": "linear"},
    "cosine": {"annealing": "cosine"},
    "momentum": {"momentum": 0.9},
    "best": {"keep": "best"},
    "noise": {"gradient": BackpropGradient(num_samples=2, noise=0.3)},
}


def _optimum(up, clean, threat):
    mask = MASK if "mask" in threat else None
    return torch.stack(
        [linear_optimum(u, c, threat["norm"], threat["radius"], mask) for u, c in zip(up, clean, strict=True)]
    )


def _reached(found, optimum, up, clean, threat, tolerance=1e-7):
    """At the optimum; with some pixels at the box, some not, and the ball used in full."""
    torch.testing.assert_close(found, optimum, rtol=0, atol=tolerance)
    moved = optimum != clean
    assert (moved & (optimum % 1 == 0)).any()
    assert (moved & (optimum % 1 != 0)).any()
    assert (((optimum - clean) * up).flatten(1).sum(dim=1) > 0).all()
    if threat["norm"] == "l2":
        lengths = (optimum - clean).flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full_like(lengths, threat["radius"]))
        uncut = clean + threat["radius"] * (up * (MASK if "mask" in threat else 1)) / up.flatten(1).norm(dim=1).view(
            -1, 1, 1, 1
        )
        assert (uncut.clamp(0, 1) - optimum).abs().max() > 1e-3  # ball, then box would be another point


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_every_attack_reaches_the_optimum_of_a_linear_model(threat, kind, loss, objective):
    model, clean = Ramp(), pictures(3)
    config = PGDConfig(
        objective=objective, loss=loss, num_attack_steps=40, step_size=STEPS[threat["norm"]], **threat, **kind
    )
    found = run_attack(
        model, clean, LABELS, config=config, targets=TARGETS, draw=RandomKey(0, tuple(names(3)), ("closed", 0))
    ).final
    up = model.up(LABELS)
    _reached(found, _optimum(up, clean, threat), up, clean, threat)


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_with_two_classes_every_gradient_is_the_difference_of_the_weights(threat, objective):
    model, clean = Linear(), pictures(3)
    config = PGDConfig(objective=objective, num_attack_steps=40, step_size=STEPS[threat["norm"]], **threat)
    found = run_attack(model, clean, LABELS, config=config, targets=TARGETS, draw=RandomKey(0, tuple(names(3)))).final
    up = (model.weight[TARGETS] - model.weight[LABELS]).detach()
    _reached(found, _optimum(up, clean, threat), up, clean, threat)


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize("restart", [0, 2, 4])
def test_multitargeted_reaches_the_optimum_towards_each_class_in_turn(threat, restart):
    """With five classes a logit minus another is still linear; restart 4 is again the likeliest class, that of restart 0."""
    model, clean, labels = Linear(5), pictures(3), torch.tensor([3, 0, 4])
    config = PGDConfig(
        objective="multitargeted",
        num_attack_steps=40,
        step_size=STEPS[threat["norm"]],
        num_restarts=5,
        **threat,
    )
    draw = RandomKey(0, tuple(names(3)), ("multi", restart), restart)
    attacked = run_attack(model, clean, labels, config=config, draw=draw)
    targets = []
    for row, label in zip(model(clean).tolist(), labels.tolist(), strict=True):
        wrong = sorted((c for c in range(5) if c != label), key=lambda c: -row[c])
        targets.append(wrong[restart % 4])
    up = (model.weight[torch.tensor(targets)] - model.weight[labels]).detach()
    _reached(attacked.final, _optimum(up, clean, threat), up, clean, threat)
    assert attacked.num_forwards.tolist() == [[41] * 3]  # one of the clean images, to rank the classes
    assert attacked.num_gradients.tolist() == [[40] * 3]


@pytest.mark.parametrize("threat", [THREATS["linf"], THREATS["masked linf"]], ids=["linf", "masked linf"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin", "dlr"])
@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
def test_adam_reaches_the_corner(threat, loss, objective):
    model, clean = Ramp(), pictures(3)
    config = AdamConfig(objective=objective, loss=loss, num_attack_steps=30, **threat)
    found = run_attack(model, clean, LABELS, config=config, targets=TARGETS, draw=RandomKey(0, tuple(names(3)))).final
    up = model.up(LABELS)
    _reached(found, _optimum(up, clean, threat), up, clean, threat)


@pytest.mark.parametrize("threat", [THREATS["l2"], THREATS["masked l2"]], ids=["l2", "masked l2"])
def test_adam_in_the_l2_ball_ends_along_the_signs(threat):
    """Under a constant gradient Adam moves by rate x sign whatever the norm, so in the L2 ball it ends at the optimum of the
    gradient's signs, short of that of the gradient. A property of Adam to know, not an optimum."""
    model, clean = Ramp(), pictures(3)
    config = AdamConfig(objective="untargeted", num_attack_steps=200, learning_rates=((0, 1.0),), **threat)
    found = run_attack(model, clean, LABELS, config=config, draw=RandomKey(0, tuple(names(3)))).final
    up = model.up(LABELS)
    torch.testing.assert_close(found, _optimum(up.sign(), clean, threat), rtol=0, atol=1e-4)
    gain = lambda images: ((images - clean) * up).flatten(1).sum(dim=1)  # noqa: E731
    assert (gain(found) < 0.99 * gain(_optimum(up, clean, threat))).all()


@pytest.mark.parametrize("threat", THREATS.values(), ids=THREATS)
@pytest.mark.parametrize(("objective", "loss"), [("untargeted", "margin"), ("targeted", "cross_entropy")])
def test_spsa_reaches_the_optimum_where_directions_outnumber_pixels(threat, loss, objective):
    """12 pixels, 300 directions: the noise at a pixel is sqrt(11/300) = 0.19 of a gradient, and so the angle to it."""
    model, clean, mask = Ramp((2, 2, 3)), pictures(3, (2, 2, 3)), None
    with torch.no_grad():
        model.weight.copy_(model.weight.sign() * torch.linspace(1, 1.3, 12).view(2, 2, 3) / 12)
    if "mask" in threat:
        mask = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    radius = 0.2 if threat["norm"] == "linf" else 0.5
    config = PGDConfig(
        **threat | {"radius": radius},
        objective=objective,
        loss=loss,
        num_attack_steps=10,
        step_size=radius / 2,
        gradient=SPSA(num_directions=300, micro_batch=1800),
    )
    found = run_attack(model, clean, LABELS, config=config, targets=TARGETS, draw=RandomKey(0, tuple(names(3)))).final
    up = model.up(LABELS)
    optimum = torch.stack([linear_optimum(u, c, threat["norm"], radius, mask) for u, c in zip(up, clean, strict=True)])
    if threat["norm"] == "linf":
        torch.testing.assert_close(found, optimum, rtol=0, atol=1e-9)
    gain = lambda images: ((images - clean) * up).flatten(1).sum(dim=1)  # noqa: E731
    assert (gain(found) > 0.97 * gain(optimum)).all()
    assert (gain(found) <= gain(optimum) + 1e-12).all()
    assert (threat_model_of(config, clean, None).violation(found, clean) <= 1e-9).all()


def test_expectation_over_shifts_reaches_the_optimum_of_the_mean_over_shifts():
    """On a 3 x 3 image shifts by -1, 0, 1 that wrap are all there are, so the mean gradient is one number per channel."""
    model, clean = Ramp((4, 3, 3)), 0.1 + 0.8 * pictures(3, (4, 3, 3))
    spread = 3 * pictures(1, (4, 3, 3), seed=2)[0] - 1.5
    with torch.no_grad():
        model.weight.copy_((torch.tensor([1.0, -1.0, -1.0, 1.0]).view(4, 1, 1) + spread) / 36)
    means = model.weight.detach().mean(dim=(1, 2), keepdim=True).expand(4, 3, 3)
    draw, settings = RandomKey(0, tuple(names(3))), {"objective": "untargeted", "loss": "margin", "num_attack_steps": 8}
    config = PGDConfig(radius=0.2, step_size=0.1, gradient=BackpropGradient(num_samples=24, max_shift=1), **settings)
    found = run_attack(model, clean, LABELS, config=config, draw=draw).final
    corner = (clean + 0.2 * ((1 - 2 * LABELS).view(-1, 1, 1, 1) * means).sign()).clamp(0, 1)
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-12)
    plain = PGDConfig(radius=0.2, step_size=0.1, **settings)
    assert (run_attack(model, clean, LABELS, config=plain, draw=draw).final - corner).abs().max() > 0.1


# --- last and best iterate ------------------------------------------------------------------------------------------


def _zigzag(objective="untargeted", keep="best", **settings):
    """Steps so long that the attack goes up and down."""
    return PGDConfig(
        objective=objective, num_attack_steps=12, radius=0.3, step_size=0.25, momentum=0.9, keep=keep, **settings
    )


@pytest.mark.parametrize("objective", ["untargeted", "targeted"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_best_iterate_is_the_first_furthest_beyond_the_boundary(objective, loss):
    model, clean = small_s3ta(torch.float64), pictures(9, (2, 12, 10))
    labels = torch.arange(9) % 5
    targets, draw = (labels + 2) % 5, RandomKey(0, tuple(names(9)), ("best", 0))
    steps = tuple(range(1, 12))
    whole = run_attack(
        model,
        clean,
        labels,
        config=_zigzag(objective, "last", loss=loss, read_outs=steps),
        targets=targets,
        draw=draw,
    )
    start = draw_start(_zigzag(), 0, names(9), clean, "best", 0)
    path = [start, *whole.images]
    sign, classes = (1, labels) if objective == "untargeted" else (-1, targets)
    values = [[sign * m for m in margins(model, images, classes.tolist())] for images in path]
    best = run_attack(
        model, clean, labels, config=_zigzag(objective, loss=loss, read_outs=steps), targets=targets, draw=draw
    )
    for n in range(1, 13):
        assert torch.equal(best.images[n - 1], first_best(path[: n + 1], values))
    assert 0 < (best.final != whole.final).flatten(1).any(dim=1).sum() <= 9
    assert len({max(range(13), key=lambda k: values[k][i]) for i in range(9)}) > 2


def test_the_start_may_be_the_best_and_the_first_of_equals_is_kept():
    clean = 0.3 + 0.4 * pictures(2)

    def flat_then_lower(images):  # nothing is better than the clean image, and many are as good
        height = -(images - clean[: len(images)]).abs().flatten(1).amax(1).clamp(min=0.1)
        return torch.stack([-height, height + 0 * images.flatten(1).sum(1)], dim=1)

    rest = {
        "threat": Linf(0.3),
        "objective": lambda outputs: outputs[:, 0],
        "step_rule": sign_step(0.04),
        "num_attack_steps": 5,
        "gradient": lambda fn, objective, images, step: GradientEstimate(torch.ones_like(images), fn(images), 1, 1),
    }
    kept = gradient_ascent(flat_then_lower, clean, Attack(keep_best=lambda outputs: outputs[:, 1], **rest))
    assert torch.equal(kept.final, clean)
    assert (gradient_ascent(flat_then_lower, clean, Attack(**rest)).final - clean).min() > 0.19


@pytest.mark.parametrize("keep", ["last", "best"])
@pytest.mark.parametrize(
    "gradient",
    [BackpropGradient(), BackpropGradient(num_samples=2, noise=0.05), SPSA(num_directions=3, micro_batch=18)],
    ids=["exact", "expectation", "spsa"],
)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_read_outs_of_any_attack_equal_separate_runs_and_cost_the_same(keep, gradient, momentum):
    """X14: the last iterate unless the best is asked for, which costs one forward pass more."""
    model, clean, labels = Linear(5), pictures(3), torch.tensor([3, 0, 4])
    draw = RandomKey(0, tuple(names(3)), ("reads", 0))
    settings = {"objective": "untargeted", "radius": 0.1, "step_size": 0.07, "keep": keep, "momentum": momentum}
    config = PGDConfig(num_attack_steps=6, read_outs=(4, 1), gradient=gradient, **settings)
    whole = run_attack(model, clean, labels, config=config, draw=draw)
    assert whole.read_outs == (1, 4, 6)
    per_step = {"exact": (1, 1), "spsa": (0, 6)}.get(gradient.kind)
    if isinstance(gradient, BackpropGradient):
        per_step = (gradient.num_samples, gradient.num_samples)
    for r, n in enumerate(whole.read_outs):
        model.calls = 0
        single = PGDConfig(num_attack_steps=n, gradient=gradient, **settings)
        alone = run_attack(model, clean, labels, config=single, draw=draw)
        assert torch.equal(alone.final, whole.images[r])
        assert torch.equal(alone.num_gradients[-1], whole.num_gradients[r])
        assert torch.equal(alone.num_forwards[-1], whole.num_forwards[r])
        seen_at_iterates = 0 if keep == "last" else 1 if gradient == BackpropGradient() else n + 1
        assert alone.num_gradients.tolist() == [[n * per_step[0]] * 3]
        assert alone.num_forwards.tolist() == [[n * per_step[1] + seen_at_iterates] * 3]
        calls = n * (1 if isinstance(gradient, SPSA) else per_step[1]) + seen_at_iterates
        assert model.calls == calls


def test_the_best_of_no_steps_is_the_start():
    model, clean, labels = Linear(5), pictures(3), torch.tensor([3, 0, 4])
    config = PGDConfig(objective="untargeted", num_attack_steps=0, keep="best")
    start = draw_start(config, 0, names(3), clean)
    attacked = run_attack(model, clean, labels, config=config, start=start)
    assert torch.equal(attacked.final, start)
    assert attacked.num_gradients.tolist() == [[0] * 3]
    assert attacked.num_forwards.tolist() == [[1] * 3]
    assert model.calls == 1


# --- a fresh answer at every step (X38) -----------------------------------------------------------------------------


def test_every_step_sees_the_features_of_its_own_image():
    """X38: nothing of the backbone is kept from one step, or one attack, to the next."""
    model, labels = small_s3ta(torch.float64), torch.tensor([3, 0, 4])
    one, other = pictures(3, (2, 12, 10)), pictures(3, (2, 12, 10), seed=8)
    seen = []

    def spy(outputs_fn, objective, images, step):
        ascent = autograd_gradient(outputs_fn, objective, images, step)
        seen.append((images, ascent.outputs))
        return ascent

    for clean in (one, other, one):
        gradient_ascent(
            model,
            clean,
            Attack(
                threat=Linf(0.1),
                objective=untargeted(labels),
                step_rule=sign_step(0.05),
                num_attack_steps=3,
                gradient=spy,
            ),
        )
    assert not torch.equal(seen[1][0], seen[0][0])
    for images, logits in seen:
        fresh = small_s3ta(torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(fresh(images), logits, rtol=0, atol=1e-12)
    for (first, _), (again, _) in zip(seen[:3], seen[6:], strict=True):
        assert torch.equal(first, again)
    assert len({logits.numpy().tobytes() for _, logits in seen[:6]}) == 6


def test_margins_tell_which_answer_is_given():
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, 1.0], [1.0, 1.0, 0.0]])
    assert logit_margin(logits, torch.tensor([0, 2, 1])).tolist() == [-1.5, 2.0, 0.0]
    assert untargeted(torch.tensor([0, 2, 1]), "margin")(logits).tolist() == [-1.5, 2.0, 0.0]
    assert targeted(torch.tensor([0, 2, 1]), "margin")(logits).tolist() == [1.5, -2.0, 0.0]
    dlr = untargeted(torch.tensor([0, 2, 1]), "dlr")(logits)
    torch.testing.assert_close(dlr, torch.tensor([-1.5 / 3, 2.0 / 3, 0.0]))
    four = torch.tensor([[4.0, 1.0, 2.0, -1.0]])
    aimed = targeted(torch.tensor([2]), "dlr", torch.tensor([0]))(four)
    torch.testing.assert_close(aimed, torch.tensor([-2.0 / (4 - (1 - 1) / 2)]))
    torch.testing.assert_close(targeted(torch.tensor([2]), "dlr", torch.tensor([0]))(7 * four), aimed)


def test_threats_are_those_of_the_config():
    clean = pictures(2)
    assert isinstance(threat_model_of(PGDConfig(), clean, None), Linf)
    assert threat_model_of(PGDConfig(norm="l2", radius=2.5), clean, None) == L2(2.5)
