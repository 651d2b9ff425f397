"""What holds for every attack, tried on configs drawn at random: ball and box, names not places, the same again."""

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3ta.attacks import (
    SPSA,
    AdamConfig,
    AttentionSteering,
    BackpropGradient,
    BoxRegion,
    GridRegion,
    PGDConfig,
    RandomKey,
    draw_start,
    draw_targets,
    run_attack,
    threat_model_of,
)

from .helpers import few_cases, names, pictures, small_s3ta

IMAGES, COUNT = (2, 12, 10), 4
seeds = st.integers(0, 2**32 - 1)
regions = st.sampled_from(
    [
        BoxRegion(height=0.5, width=0.5),
        BoxRegion(height=0.3, width=1.0, row=0.2, column=0.5),
        GridRegion(rows=("#..", ".##")),
    ]
)
gradients = st.sampled_from(
    [
        BackpropGradient(),
        BackpropGradient(),
        BackpropGradient(num_samples=2, max_shift=2),
        BackpropGradient(num_samples=2, noise=0.02),
        SPSA(num_directions=5, micro_batch=6),
    ]
)
steerings = st.one_of(
    st.none(),
    st.builds(AttentionSteering, weight=st.sampled_from([0.3, 1.0])),
    st.builds(AttentionSteering, towards=st.just("region"), region=regions, weight=st.sampled_from([0.3, 1.0])),
)


@st.composite
def attacks(draw, radii=(0.004, 0.01, 16 / 255, 0.3, 1.0), steady=False):
    """A config of either kind, any part of it in any combination.

    steady: not the DLR loss of an example that is already lost to two others, whose gradient is rounding alone (it is 1)."""
    objective = draw(st.sampled_from(["targeted", "untargeted", "multitargeted"]))
    losses = ["cross_entropy"] if objective == "multitargeted" else ["cross_entropy", "margin", "dlr"]
    losses = losses[:2] if steady and objective == "untargeted" else losses
    steering = draw(steerings)
    stands_still = (
        steering is not None and steering.towards == "away"
    )  # on the clean image: nothing but rounding to follow
    num_steps = draw(st.integers(1, 3))
    common = {
        "objective": objective,
        "loss": draw(st.sampled_from(losses)),
        "norm": draw(st.sampled_from(["linf", "l2"])),
        "radius": draw(st.sampled_from(radii)),
        "mask": draw(st.none() | regions),
        "num_attack_steps": num_steps,
        "random_start_prob": 1.0 if stands_still else draw(st.sampled_from([0.0, 0.5, 1.0])),
        "keep": draw(st.sampled_from(["last", "best"])),
        "gradient": draw(gradients),
        "glimpses": draw(st.sampled_from(["last", "last", "all", "each"])),
        "steering": steering,
        "num_restarts": 3,
        "eight_bit": draw(st.booleans()),
    }
    if draw(st.booleans()):
        return AdamConfig(**common, learning_rates=((0, draw(st.sampled_from([0.1, 0.013]))), (2, 0.01)))
    annealing = draw(st.sampled_from(["constant", "linear", "cosine"]))
    return PGDConfig(
        **common,
        annealing=annealing,
        read_outs=(1,) if annealing == "constant" else (),
        step_size=draw(st.sampled_from([0.0071, 0.03, 0.9])),
        momentum=draw(st.sampled_from([0.0, 0.9])),
    )


@cache
def _model(dtype):
    """One whose answers hang by a thread: to every image alike, but for what the image itself adds."""
    model = small_s3ta(torch.float64)
    with torch.no_grad():
        for _ in range(3):  # answers are fed back
            model.controller.readout[-1].bias -= model(_clean(torch.float64)).mean(0)
    return model.to(dtype)


@cache
def _clean(dtype):
    """Whole numbers of 255ths, many of them on the edge of the box."""
    return (pictures(COUNT, IMAGES, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1).mul(255).round().div(255).to(dtype)


LABELS = _model(torch.float64)(_clean(torch.float64)).argmax(1)
LABELS[1] = (LABELS[1] + 3) % 5  # one of four is misclassified before the attack begins


def _run(config, seed, dtype=torch.float64, order=tuple(range(COUNT)), restart=0):
    """The attack on these examples, in this order, each under its own name."""
    model, clean, labels = _model(dtype), _clean(dtype)[list(order)], LABELS[list(order)]
    draw = _draw(seed, order, restart)
    targets = draw_targets(seed, draw.ids, labels, 5)
    outputs_fn = model.unroll if config.needs_trace else model
    return run_attack(outputs_fn, clean, labels, config=config, targets=targets, draw=draw)


def _draw(seed, order, restart=0):
    return RandomKey(seed, tuple(names(COUNT)[i] for i in order), ("any", restart), restart)


@few_cases
@given(attacks(), seeds)
def test_ball_box_and_mask_are_kept_at_every_read_out(config, seed):
    attacked, clean = _run(config, seed, torch.float32), _clean(torch.float32)
    threat = threat_model_of(config, clean, _draw(seed, range(COUNT)))
    assert attacked.read_outs[-1] == config.num_attack_steps
    assert len(attacked.images) == len(attacked.read_outs)
    for images in attacked.images:
        change = (images - clean).double().flatten(1)
        distance = change.abs().amax(1) if config.norm == "linf" else change.norm(dim=1)
        assert images.dtype == torch.float32
        assert (distance <= config.radius + 1e-6).all()
        assert images.min() >= 0
        assert images.max() <= 1
        assert (threat.violation(images, clean) <= 1e-6).all()
        if config.eight_bit:
            assert (images * 255 - (images * 255).round()).abs().max() < 1e-4
    assert (attacked.num_forwards >= attacked.num_gradients).all()


@few_cases
@given(attacks(radii=(0.0,)), seeds)
def test_an_attack_of_radius_zero_changes_no_image(config, seed):
    attacked = _run(config, seed, torch.float32)
    for images in attacked.images:
        torch.testing.assert_close(images, _clean(torch.float32), rtol=0, atol=1e-7)


@few_cases
@given(attacks(steady=True), seeds, st.permutations(range(COUNT)), st.integers(0, 2))
def test_an_example_does_not_notice_its_neighbours_their_number_or_their_order(config, seed, order, restart):
    together = _run(config, seed, order=order, restart=restart)
    cut = seed % (COUNT - 1) + 1
    for part in (order[:cut], order[cut:]):
        apart = _run(config, seed, order=part, restart=restart)
        at = [order.index(i) for i in part]
        torch.testing.assert_close(apart.images, together.images[:, at], rtol=0, atol=1e-9)
        assert torch.equal(apart.num_gradients, together.num_gradients[:, at])
        assert torch.equal(apart.num_forwards, together.num_forwards[:, at])


@given(attacks(), seeds, st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=6))
def test_target_start_and_place_go_by_name_even_where_one_name_comes_twice(config, seed, order):
    clean = _clean(torch.float64)
    whole, part = _draw(seed, range(COUNT), 1), _draw(seed, order, 1)
    targets = draw_targets(seed, whole.ids, LABELS, 5)
    assert torch.equal(draw_targets(seed, part.ids, LABELS[order], 5), targets[order])
    starts = draw_start(config, seed, whole.ids, clean, *whole.names)
    assert torch.equal(draw_start(config, seed, part.ids, clean[order], *part.names), starts[order])
    if isinstance(config.mask, BoxRegion) and config.mask.row is None:
        masks = [threat_model_of(config, clean[: len(drawn.ids)], drawn).mask for drawn in (whole, part)]
        assert torch.equal(masks[1], masks[0][order])


@few_cases
@given(attacks(), seeds, st.integers(0, 2))
def test_running_twice_gives_the_same_bits(config, seed, restart):
    torch.manual_seed(seed % 1000)
    once = _run(config, seed, torch.float32, restart=restart)
    _run(config, seed + 1, torch.float32)
    torch.manual_seed(seed % 1000 + 1)
    again = _run(config, seed, torch.float32, restart=restart)
    assert torch.equal(once.images, again.images)
    assert torch.equal(once.num_forwards, again.num_forwards)


@settings(max_examples=8)
@given(attacks(steady=True), seeds)
def test_a_restart_equals_the_same_restart_run_alone(config, seed):
    """Whoever survives all restarts survives each single run, in whatever order and company they are run."""
    model, single = _model(torch.float64), config.model_copy(update={"num_restarts": 1})
    together = [model(_run(config, seed, restart=r).final).argmax(1) == LABELS for r in range(3)]
    alone = torch.ones(COUNT, dtype=torch.bool)
    for restart in (2, 0, 1):
        for part in ((2, 0), (3, 1)):
            images = _run(single, seed, order=part, restart=restart).final
            alone[list(part)] &= model(images).argmax(1) == LABELS[list(part)]
    assert torch.equal(torch.stack(together).all(0), alone)


def test_multitargeted_restarts_break_different_images():
    """Else the worst of three would be any of them."""
    model = _model(torch.float64)
    config = PGDConfig(objective="multitargeted", radius=0.01, step_size=0.004, num_attack_steps=3)
    right = torch.stack([model(_run(config, 0, restart=r).final).argmax(1) == LABELS for r in range(3)])
    assert (model(_clean(torch.float64)).argmax(1) == LABELS).tolist() == [True, False, True, True]
    assert not torch.equal(right.all(0), right.any(0))


@few_cases
@given(attacks(radii=(0.2,)), seeds)
def test_another_seed_and_another_restart_are_another_run(config, seed):
    config = config.model_copy(
        update={"random_start_prob": 1.0, "num_attack_steps": 0, "read_outs": (), "keep": "last"}
    )
    first = _run(config, seed).final
    for other in (_run(config, seed + 1), _run(config, seed, restart=1)):
        assert (other.final != first).flatten(1).any(1).all()
