"""AutoAttack through pyautoattack: the same images as theirs, exact counts, and a world left as it was."""

import random
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from s3ta.attacks import L2, AutoAttackComponentConfig, Linf, run_autoattack_component
from s3ta.errors import UserError

from .helpers import Linear, pictures, small_s3ta

pyautoattack = pytest.importorskip("pyautoattack")

PARTS = ["apgd-ce", "apgd-t", "fab-t", "square"]
EVERY_PART = pytest.mark.parametrize("part", PARTS)
BOTH_NORMS = pytest.mark.parametrize(("norm", "radius"), [("linf", 0.02), ("l2", 0.3)])
SHAPE, CLASSES = (3, 16, 16), 6


def _net(seed=0):
    torch.manual_seed(seed)
    body = nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
    return nn.Sequential(*body, nn.Linear(294, CLASSES)).eval()


def _batch(net, count=7):
    """Images with the model's own answers as labels, but for one in the middle."""
    clean = pictures(count, SHAPE, dtype=torch.float32)
    labels = net(clean).argmax(1)
    labels[count // 2] = (labels[count // 2] + 1) % CLASSES
    return clean, labels


def _config(part, norm="linf", radius=0.02, **settings):
    settings.setdefault("num_attack_steps", {"square": 60}.get(part, 12))
    return AutoAttackComponentConfig(part=part, norm=norm, radius=radius, **settings)


def _theirs(model, clean, labels, config, seed):
    """The part as the class `AutoAttack` runs it, at full strength unless shortened through its own attributes."""
    attack = pyautoattack.AutoAttack(model, norm=config.norm.capitalize(), eps=config.radius, seed=seed)
    attack.attacks_to_run = [config.part]
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = CLASSES - 1
    found, _ = attack.run_standard_evaluation(clean, labels, batch_size=len(clean))
    return found


def _threat(config):
    return (L2 if config.norm == "l2" else Linf)(config.radius)


@EVERY_PART
@BOTH_NORMS
def test_images_are_those_of_pyautoattack_at_full_strength(part, norm, radius):
    net = _net()
    clean, labels = _batch(net, 4 if part == "square" else 7)
    config = AutoAttackComponentConfig(part=part, norm=norm, radius=radius)
    assert config.num_attack_steps == (5000 if part == "square" else 100)
    attacked = run_autoattack_component(net, clean, labels, config=config, seed=5)
    theirs = _theirs(net, clean, labels, config, seed=5)
    assert torch.equal(attacked.final, theirs)
    assert (attacked.final != clean).flatten(1).any(1).sum() >= 2  # the attack does something
    assert attacked.read_outs == (config.num_attack_steps,)
    assert attacked.images.shape == (1, *clean.shape)


@EVERY_PART
@BOTH_NORMS
def test_counts_are_those_of_every_example_alone(part, norm, radius):
    net, config = _net(), _config(part, norm, radius / 2, num_attack_steps=30)
    clean, labels = _batch(net)
    passed = []
    attacked = run_autoattack_component(_counting(net, passed), clean, labels, config=config, seed=1)
    assert attacked.num_forwards.dtype == attacked.num_gradients.dtype == torch.int64
    assert attacked.num_forwards.shape == attacked.num_gradients.shape == (1, 7)
    assert passed.count("image") == attacked.num_forwards.sum()
    assert passed.count("gradient") == attacked.num_gradients.sum()
    assert attacked.num_forwards[0, 3] == 2  # misclassified: looked at twice and left alone
    assert attacked.num_gradients[0, 3] == 0
    assert len(set(attacked.num_forwards[0].tolist())) > 2 or part == "apgd-ce"
    for i in range(len(clean)):
        passed.clear()
        alone = run_autoattack_component(
            _counting(net, passed), clean[i : i + 1], labels[i : i + 1], config=config, seed=1
        )
        assert passed.count("image") == alone.num_forwards.item()
        assert passed.count("gradient") == alone.num_gradients.item()


def _counting(net, passed):
    """Notes every image and every image gradient; images one by one, so that a gradient of one is told from none."""

    def counted(images):
        passed.extend(["image"] * len(images))
        if images.requires_grad:
            images = images.clone()
            images.register_hook(lambda gradient: passed.extend(["gradient"] * len(gradient)))
        return net(images)

    return counted


@EVERY_PART
def test_each_count_belongs_to_its_example(part, monkeypatch):
    """The model itself says who was there: every clean image carries its number in a corner that no attack can change."""
    monkeypatch.setattr(torch, "cdist", None)  # nobody is guessed at
    net, config = _net(), _config(part, radius=0.01, num_attack_steps=40)
    count = 6
    clean = pictures(count, SHAPE, seed=3, dtype=torch.float32)
    marks = torch.arange(count) / count
    seen = torch.zeros(count, dtype=torch.int64)

    def marked(images):
        corner = images.detach()[:, 0, 0, 0]
        near = (corner[:, None] - marks).abs()
        assert (near.amin(1) < 0.08).all()
        seen.index_add_(0, near.argmin(1), torch.ones(len(images), dtype=torch.int64))
        rest = images.clone()
        rest[:, 0, 0, 0] = 0.5  # no gradient: FAB, which leaves the ball, has no reason to go there
        return net(rest)

    clean[:, 0, 0, 0] = marks
    with torch.no_grad():
        labels = marked(clean).argmax(1)
    labels[1] = (labels[1] + 1) % CLASSES
    seen.zero_()
    attacked = run_autoattack_component(marked, clean, labels, config=config, seed=0)
    assert torch.equal(attacked.num_forwards[0], seen)
    assert len(set(seen.tolist())) > 2 or part == "apgd-ce"


@EVERY_PART
def test_copies_share_images_and_counts_and_change_nothing(part):
    net, config = _net(), _config(part)
    clean, labels = _batch(net, 5)
    one = run_autoattack_component(net, clean, labels, config=config, seed=2)
    padded = run_autoattack_component(
        net, clean[[0, 1, 2, 3, 4, 4, 4]], labels[[0, 1, 2, 3, 4, 4, 4]], config=config, seed=2
    )
    for theirs, ours in zip(padded[1:], one[1:], strict=True):
        assert torch.equal(theirs[:, :5], ours)
        assert torch.equal(theirs[:, 5:], ours[:, [4, 4]])


def test_the_same_image_with_two_labels_is_two_examples():
    net = _net()
    clean, labels = _batch(net, 3)
    both = torch.stack([labels[0], (labels[0] + 1) % CLASSES])
    attacked = run_autoattack_component(net, clean[[0, 0]], both, config=_config("apgd-t"), seed=0)
    assert torch.equal(attacked.final[1], clean[0])
    assert not torch.equal(attacked.final[0], clean[0])
    assert attacked.num_forwards[0, 1] == 2 < attacked.num_forwards[0, 0]


def test_an_image_far_outside_is_put_into_the_ball(monkeypatch):
    net = _net()
    clean, labels = _batch(net)
    monkeypatch.setattr("pyautoattack.square.SquareAttack.perturb", lambda self, x, y: x - 0.5)
    for norm in ("linf", "l2"):
        config = _config("square", norm, 0.02)
        final = run_autoattack_component(net, clean, labels, config=config, seed=0).final
        assert _threat(config).violation(final, clean).max() <= 1e-6
        assert _threat(config).distance(final, clean).min() > 0.019


@EVERY_PART
@BOTH_NORMS
def test_ball_and_box_are_kept_and_failures_are_the_clean_image(part, norm, radius):
    net = _net()
    clean, labels = _batch(net)
    clean = (clean * 3 - 1).clamp(0, 1)  # many pixels at the box
    labels = net(clean).argmax(1)
    for share in (0.02, 1, 4):
        config = _config(part, norm, radius * share)
        final = run_autoattack_component(net, clean, labels, config=config, seed=0).final
        assert _threat(config).violation(final, clean).max() <= 1e-6
        unbroken = net(final).argmax(1) == labels
        assert torch.equal(final[unbroken], clean[unbroken])
        assert unbroken.any() if share < 1 else not unbroken.all()


@pytest.mark.parametrize(("part", "num_classes"), [("apgd-ce", 2), ("apgd-t", 4), ("fab-t", 2), ("fab-t", 4)])
@BOTH_NORMS
def test_a_linear_model_breaks_exactly_where_the_margin_allows(part, num_classes, norm, radius):
    """Wrong class j is reachable iff logit y - logit j < radius * dual norm of w_y - w_j; pixels stay clear of the box."""
    model = Linear(num_classes, dtype=torch.float32)
    clean = 0.35 + 0.3 * pictures(60, dtype=torch.float32)
    with torch.no_grad():
        logits = model(clean)
    labels = logits.argmax(1)
    weights = model.weight.detach().flatten(1)
    apart = (weights[labels][:, None] - weights).norm(p=1 if norm == "linf" else 2, dim=2)
    needed = torch.where(apart > 0, (logits.gather(1, labels[:, None]) - logits) / apart, torch.inf).amin(1)
    radius = needed.median().item()
    clear = (needed / radius - 1).abs() > 0.02
    config = _config(part, norm, radius, num_attack_steps=100)
    final = run_autoattack_component(model, clean, labels, config=config, seed=0).final
    broken = model(final).argmax(1) != labels
    assert torch.equal(broken[clear], (needed < radius)[clear])
    assert clear.sum() > 40
    assert broken.any()
    assert not broken.all()


@EVERY_PART
def test_same_seed_same_images_and_another_seed_others(part):
    net, config = _net(), _config(part, radius=0.01)
    clean, labels = _batch(net)
    one, again, other = (run_autoattack_component(net, clean, labels, config=config, seed=s) for s in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one[1:], again[1:], strict=True))
    if part != "fab-t":  # FAB without restarts draws nothing
        assert not torch.equal(one.final, other.final)


def _global_state():
    return torch.get_rng_state().tolist(), random.getstate(), [str(part) for part in np.random.get_state()]


def _model_state(model):
    tensors = [*model.parameters(), *model.buffers()]
    grads = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
    return (
        [t.tolist() for t in tensors],
        [m.training for m in model.modules()],
        [t.requires_grad for t in tensors],
        grads,
    )


@EVERY_PART
@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("hidden", [False, True])
def test_random_state_and_model_are_left_as_they_were(part, error, hidden):
    net = _net()
    clean, labels = _batch(net)
    if not hidden:  # frozen: behind a lambda it cannot be, but even then no weight gets a gradient
        net.train()
        net[1].eval()
        net[5].bias.requires_grad_(False)
    calls = []

    def disturb(module, *_):
        calls.append(module.training)
        random.random(), np.random.rand(), torch.rand(1)
        if error and len(calls) == 6:
            raise error("in the middle")

    handle = net.register_forward_hook(disturb)
    images, answers = clean.clone(), labels.clone()
    before = _global_state(), _model_state(net)
    called = (lambda images: net(images)) if hidden else net
    if error:
        with pytest.raises(error):
            run_autoattack_component(called, clean, labels, config=_config(part), seed=0)
    else:
        run_autoattack_component(called, clean, labels, config=_config(part), seed=0)
    assert (_global_state(), _model_state(net)) == before
    assert len(calls) == 6 if error else len(calls) > 6
    assert not any(calls)
    assert torch.equal(clean, images)
    assert torch.equal(labels, answers)
    handle.remove()


@EVERY_PART
def test_a_sequential_model_inside_no_grad(part):
    model = small_s3ta()
    clean = pictures(2, (2, 12, 10), dtype=torch.float32)
    labels = model(clean).argmax(1)
    config = _config(part, num_attack_steps=4, radius=0.1)
    with torch.no_grad():
        traced = run_autoattack_component(model.unroll, clean, labels, config=config, seed=0)
    plain = run_autoattack_component(model, clean, labels, config=config, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(traced[1:], plain[1:], strict=True))
    assert not plain.images.requires_grad


def test_float32_is_what_the_attack_sees():
    seen = []
    model = Linear(4, SHAPE, dtype=torch.float32)

    def halved(images):
        seen.append(images.dtype)
        return model(images).bfloat16()

    clean = pictures(3, SHAPE)
    attacked = run_autoattack_component(
        halved, clean, torch.zeros(3, dtype=torch.int64), config=_config("fab-t"), seed=0
    )
    assert set(seen) == {torch.float32}
    assert attacked.images.dtype == clean.dtype == torch.float64


def test_an_answer_that_the_model_keeps_is_not_written_into():
    """Square writes minus infinity into the logits it gets."""
    kept = torch.tensor([[1.0, 0.0, 0.5, 0.2]]).repeat(3, 1)
    attacked = run_autoattack_component(
        lambda images: kept[: len(images)], pictures(3, SHAPE), torch.zeros(3, dtype=torch.int64),
        config=_config("square"), seed=0,
    )  # fmt: skip
    assert torch.isfinite(kept).all()
    assert (attacked.num_forwards == 64).all()  # two looks at the clean image, the start, 60 queries, the verdict


@pytest.mark.parametrize(("part", "least"), [("apgd-t", 4), ("apgd-ce", 2), ("fab-t", 2), ("square", 2)])
def test_too_few_classes_are_refused_and_just_enough_are_not(part, least):
    clean = pictures(3, SHAPE, dtype=torch.float32)
    few, enough = Linear(least - 1, SHAPE, dtype=torch.float32), Linear(least, SHAPE, dtype=torch.float32)
    with pytest.raises(UserError, match=rf"{part} needs {least} classes; the model has {least - 1}\.$"):
        run_autoattack_component(few, clean, few(clean).argmax(1), config=_config(part), seed=0)
    attacked = run_autoattack_component(
        enough, clean, enough(clean).argmax(1), config=_config(part, radius=0.5), seed=0
    )
    assert (enough(attacked.final).argmax(1) != enough(clean).argmax(1)).all()


def test_as_many_targets_as_wrong_classes_at_most():
    net, counts = _net(), []
    clean, labels = _batch(net)
    for num_targets in (1, 2, CLASSES - 1, 9):
        config = _config("apgd-t", radius=1e-6, num_targets=num_targets)
        counts.append(
            run_autoattack_component(net, clean, labels, config=config, seed=0).num_gradients.max().item() / 13
        )
    assert counts == [1, 2, 5, 5]


@pytest.mark.parametrize("width", [7, 16, 25, 31])
def test_square_l2_says_which_images_it_cannot_tile(width):
    """Our condition is theirs: where we refuse, the package fails, and nowhere else."""
    from pyautoattack.square import SquareAttack

    config = _config("square", "l2", num_attack_steps=1)
    outcomes = set()
    for height in range(4, 28):
        model = Linear(3, (1, height, width), dtype=torch.float32)
        clean = pictures(1, (1, height, width), dtype=torch.float32)
        labels = model(clean).argmax(1)
        try:
            SquareAttack(model, "L2", 1, 0.02).perturb(clean, labels)
        except (RuntimeError, ZeroDivisionError):
            with pytest.raises(UserError, match=f"cannot tile images of {height} x {width} pixels"):
                run_autoattack_component(model, clean, labels, config=config, seed=0)
            outcomes.add("refused")
        else:
            run_autoattack_component(model, clean, labels, config=config, seed=0)
            outcomes.add("run")
    assert outcomes == {"refused", "run"}


@pytest.mark.parametrize(("broken", "sentence"), [("logits", "logits are not finite"), ("gradient", "gradient is not")])
def test_numbers_that_are_not_finite_are_an_error(broken, sentence):
    net = _net()
    clean, labels = _batch(net)

    def bad(images):
        logits = net(images)
        if images.requires_grad and broken == "gradient":
            return logits + (images - images.detach()).abs().sqrt().mean()  # value 0, gradient infinite times zero
        return logits + (torch.nan if images.requires_grad else 0)

    with pytest.raises(UserError, match=sentence):
        run_autoattack_component(bad, clean, labels, config=_config("apgd-ce"), seed=0)


def test_images_outside_the_box_and_empty_batches_are_refused():
    net = _net()
    clean, labels = _batch(net)
    with pytest.raises(UserError, match="values from"):
        run_autoattack_component(net, clean * 2, labels, config=_config("square"), seed=0)
    with pytest.raises(UserError, match="no images"):
        run_autoattack_component(net, clean[:0], labels[:0], config=_config("square"), seed=0)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    net = _net()
    monkeypatch.setitem(sys.modules, "pyautoattack.square", None)
    with pytest.raises(UserError, match=r'pip install "s3ta\[autoattack\]"'):
        run_autoattack_component(net, *_batch(net), config=_config("square"), seed=0)


def test_a_vanished_gradient_is_no_warning_and_nothing_is_printed(capfd):
    constant = Linear(5, SHAPE, dtype=torch.float32)

    def flat(images):
        return constant(images.round()) + torch.arange(5.0)

    for part in PARTS:
        run_autoattack_component(
            flat, pictures(2, SHAPE, dtype=torch.float32), torch.tensor([4, 4]), config=_config(part), seed=0
        )
    assert capfd.readouterr() == ("", "")


def test_config_stands_beside_the_others():
    config = AutoAttackComponentConfig(part="square")
    assert (config.objective, config.num_restarts, config.read_outs) == ("untargeted", 1, ())
    assert config.num_attack_steps == 5000
    assert AutoAttackComponentConfig(part="square", num_attack_steps=7).num_attack_steps == 7
    assert [AutoAttackComponentConfig(part=part).num_attack_steps for part in PARTS[:3]] == [100] * 3
    assert AutoAttackComponentConfig.model_validate_json(config.model_dump_json()) == config
    assert AutoAttackComponentConfig(norm="l2", radius=3.0).radius == 3
    for wrong in (
        {"radius": 8.0},
        {"part": "pgd"},
        {"num_targets": 0},
        {"num_attack_steps": 0},
        {"objective": "targeted"},
    ):
        with pytest.raises(ValidationError):
            AutoAttackComponentConfig(**wrong)


@EVERY_PART
@BOTH_NORMS
def test_images_in_another_memory_order_are_attacked_alike(part, norm, radius):
    """Channels-last images and models: the package takes views, which such tensors do not have."""
    net, config = _net(), _config(part, norm, radius)
    clean, labels = _batch(net)
    plain = run_autoattack_component(net, clean, labels, config=config, seed=3)
    ordered = clean.to(memory_format=torch.channels_last)
    assert torch.equal(run_autoattack_component(net, ordered, labels, config=config, seed=3).final, plain.final)
    turned = lambda images: net(images.contiguous(memory_format=torch.channels_last))  # noqa: E731
    found = run_autoattack_component(
        turned, clean.transpose(2, 3).contiguous().transpose(2, 3), labels, config=config, seed=3
    )
    assert found.final.shape == clean.shape


def test_inference_mode_is_named_as_what_it_is():
    net = _net()
    clean, labels = _batch(net)
    with torch.inference_mode(), pytest.raises(UserError, match="inference_mode"):
        run_autoattack_component(net, clean, labels, config=_config("apgd-ce"), seed=3)
