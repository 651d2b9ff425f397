"""The losses and the BN groups: against sums written out one image at a time, and finite differences, in float64."""

import copy
import json
import math

import pytest
import torch

from s3ta.models import build_model
from s3ta.train import AdversarialLoss, TradesLoss, seeded_model
from s3ta.train.losses import Learner

from .helpers import (
    PLAIN,
    Pictures,
    curve,
    logged_losses,
    moved,
    noisy,
    recipe,
    run,
    same,
    same_run,
    state_of,
    stepping,
)

GROUPS = {"batch_size": 16, "batch_norm": {"group": 4}, "optimizer": PLAIN, "label_smoothing": 0.1}


def _logs(logits):
    """Logarithms of the softmax of one row, in plain Python."""
    top = max(logits)
    total = math.log(sum(math.exp(value - top) for value in logits))
    return [value - top - total for value in logits]


def cross_entropy_by_hand(logits, labels, smoothing):
    """The mean over images; the label's share is 1 - s + s / Y, everybody else's s / Y (T12)."""
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        logs = _logs(row)
        losses.append(-sum(((y == label) * (1 - smoothing) + smoothing / len(row)) * log for y, log in enumerate(logs)))
    return sum(losses) / len(losses)


def divergence_by_hand(one, other):
    """The mean over images of sum p log(p / q)."""
    found = []
    for row, column in zip(one.tolist(), other.tolist(), strict=True):
        p, q = _logs(row), _logs(column)
        found.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True)))
    return sum(found) / len(found)


def by_hand(model, clean, attacked, labels, beta, smoothing):
    """The loss of one BN group with the model in training mode; beta None: attacked images alone."""
    model.train()
    with torch.no_grad():
        if beta is None:
            return cross_entropy_by_hand(model(attacked), labels, smoothing)
        answer, other = model(clean), model(attacked)
    return cross_entropy_by_hand(answer, labels, smoothing) + beta * divergence_by_hand(answer, other)


def _learned(model="s3ta"):
    torch.manual_seed(5)
    model = build_model(recipe(model).model).double()
    generator = torch.Generator().manual_seed(2)
    clean = torch.rand(6, 2, 12, 12, generator=generator, dtype=torch.float64)
    return model, clean, noisy(clean, 0.3).double(), torch.tensor([0, 1, 2, 3, 4, 1])


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
@pytest.mark.parametrize("beta", [None, 0.0, 1.0, 6.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_sum_written_out(model, beta, smoothing):
    model, clean, attacked, labels = _learned(model)
    learner = Learner(model, AdversarialLoss() if beta is None else TradesLoss(beta=beta), smoothing).train()
    loss, right = learner(clean, attacked, labels, None)
    assert loss.item() == pytest.approx(by_hand(model, clean, attacked, labels, beta, smoothing), rel=1e-12)
    with torch.no_grad():
        assert int(right) == int((model(attacked).argmax(1) == labels).sum())


@pytest.mark.parametrize("beta", [None, 6.0])
def test_the_gradient_is_the_slope_of_that_sum(beta):
    """Along random directions in the space of weights, by central differences so short that few ReLUs switch: a side held
    fixed would show."""
    model, clean, attacked, labels = _learned()
    learner = Learner(model, AdversarialLoss() if beta is None else TradesLoss(beta=beta), 0.1).train()
    learner(clean, attacked, labels, None)[0].backward()
    start, generator, h = state_of(model), torch.Generator().manual_seed(0), 1e-8
    for _ in range(3):
        way = {n: torch.randn(p.shape, generator=generator, dtype=torch.float64) for n, p in model.named_parameters()}
        slope = sum((p.grad * way[n]).sum().item() for n, p in model.named_parameters())
        values = []
        for sign in (1, -1):
            model.load_state_dict({n: v + sign * h * way[n] if n in way else v for n, v in start.items()})
            values.append(by_hand(model, clean, attacked, labels, beta, 0.1))
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(slope, rel=1e-4)


def test_trades_looks_at_both_in_training_mode_and_at_clean_images_alone_in_the_clean_phase():
    config = recipe(
        loss={"kind": "trades", "beta": 3.0},
        attack={"objective": "divergence", "random_start_prob": 1.0},
        schedule={"clean_steps": 1},
        optimizer=PLAIN,
    )
    seen = []
    for step, expected in ((0, 1), (1, 2)):
        trainer, batch = stepping(config, step=step)
        trainer.model.vision.register_forward_hook(lambda module, inputs, _: seen.append((module.training, inputs[0])))
        attacked = trainer.attack(batch)
        seen.clear()
        before = copy.deepcopy(trainer.model)
        loss_sum, _ = trainer.update(batch, attacked)
        assert [training for training, _ in seen] == [True] * expected
        assert torch.equal(seen[0][1], batch.clean)
        assert torch.equal(seen[-1][1], attacked)
        beta = 3.0 if step else None
        loss = by_hand(before, batch.clean, attacked, batch.labels, beta, 0.1)
        assert loss_sum / 4 == pytest.approx(loss, rel=1e-12)


def test_trades_trains_end_to_end_and_its_attack_has_no_targets(tmp_path):
    config = recipe(loss={"kind": "trades"}, attack={"objective": "divergence", "random_start_prob": 1.0})
    trained = run(config, tmp_path)
    counted = {int(b) for name, b in trained.named_buffers() if name.endswith("num_batches_tracked")}
    assert counted == {14}  # clean and attacked images in each of 7 steps
    assert len(logged_losses(tmp_path)) == 7
    run(recipe(attack={"objective": "divergence", "random_start_prob": 1.0}), tmp_path / "other")
    assert logged_losses(tmp_path / "other") != logged_losses(tmp_path)


# --- BN groups -----------------------------------------------------------------------------------------------------------


def _groups(batch, attacked, size):
    for first in range(0, len(batch.ids), size):
        part = slice(first, first + size)
        yield batch.clean[part], attacked[part], batch.labels[part]


def _gradient_by_groups(model, groups, beta=None):
    """Mean loss and mean gradient over groups, each with its own BN statistics; plain autograd, nothing of the package."""
    model.train()
    parts = []
    for clean, attacked, labels in groups:

        def entropy(logits, labels=labels):
            logs = logits.log_softmax(1)
            return -(0.9 * logs.gather(1, labels[:, None])[:, 0] + 0.1 * logs.mean(1)).mean()

        if beta is None:
            loss = entropy(model(attacked))
        else:
            answer, other = model(clean).log_softmax(1), model(attacked).log_softmax(1)
            loss = entropy(answer) + beta * (answer.exp() * (answer - other)).sum(1).mean()
        parts.append((loss.item(), torch.autograd.grad(loss, list(model.parameters()))))
    gradients = [sum(g) / len(parts) for g in zip(*(gradient for _, gradient in parts), strict=True)]
    names = [name for name, _ in model.named_parameters()]
    return sum(loss for loss, _ in parts) / len(parts), dict(zip(names, gradients, strict=True))


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
@pytest.mark.parametrize("beta", [None, 6.0])
def test_the_gradient_of_groups_is_the_mean_of_their_own_gradients(model, beta):
    own_attack = {"objective": "divergence", "random_start_prob": 1.0}
    trades = {"loss": {"kind": "trades", "beta": beta}, "attack": own_attack} if beta else {}
    trainer, batch = stepping(recipe(model, **GROUPS, **trades))
    attacked, hand, before = noisy(batch.clean), copy.deepcopy(trainer.model), state_of(trainer.model)
    loss_sum, _ = trainer.update(batch, attacked)
    loss, gradients = _gradient_by_groups(hand, _groups(batch, attacked, 4), beta)
    assert loss_sum / 16 == pytest.approx(loss, rel=1e-12)
    same(moved(before, trainer), gradients)
    # running averages moved group by group, as in the loop by hand
    for (name, ours), theirs in zip(trainer.model.named_buffers(), hand.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=name)
    whole = copy.deepcopy(hand)
    whole.load_state_dict(before)
    _, together = _gradient_by_groups(whole, _groups(batch, attacked, 16), beta)
    with pytest.raises(AssertionError):
        same(moved(before, trainer), together, 1e-3)


def test_the_first_layers_averages_follow_from_each_groups_mean_and_variance():
    trainer, batch = stepping(recipe("resnet", **GROUPS))
    attacked, vision = noisy(batch.clean), trainer.model.vision
    with torch.no_grad():
        inputs = vision.net.stem(vision.normalize(attacked))
    trainer.update(batch, attacked)
    mean, variance = torch.zeros(inputs.shape[1]).double(), torch.ones(inputs.shape[1]).double()
    for first in range(0, 16, 4):
        values = inputs[first : first + 4].transpose(0, 1).flatten(1)
        mean = 0.9 * mean + 0.1 * values.mean(1)
        variance = 0.9 * variance + 0.1 * values.var(1)
    norm = vision.net.stages[0].blocks[0].norm1
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(norm.running_var, variance, rtol=1e-12, atol=1e-14)
    assert int(norm.num_batches_tracked) == 4


def test_x2_in_training_an_image_depends_on_its_group_alone():
    config, seen = recipe("resnet", **GROUPS), []
    for changed in (False, True):
        trainer, batch = stepping(config)
        trainer.model.register_forward_hook(lambda _, __, logits: seen.append(logits.detach()))
        attacked = noisy(batch.clean)
        if changed:
            attacked[9] = 1 - attacked[9]
        trainer.update(batch, attacked)
    before, after = torch.cat(seen[:4]), torch.cat(seen[4:])
    mates = [8, 10, 11]
    others = [i for i in range(16) if not 8 <= i < 12]
    assert torch.equal(before[others], after[others])
    assert ((before[mates] - after[mates]).abs().amax(1) > 1e-6).all()


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
def test_one_group_as_large_as_the_batch_changes_nothing(tmp_path, model):
    run(recipe(model), tmp_path / "none")
    run(recipe(model, batch_norm={"group": 4}), tmp_path / "one")
    same_run(tmp_path / "none", tmp_path / "one")


def test_logged_numbers_are_means_over_the_groups_of_a_batch(tmp_path):
    config = recipe(batch_size=8, batch_norm={"group": 2})
    trained = run(config, tmp_path, data=Pictures(33))
    counted = {int(b) for name, b in trained.named_buffers() if name.endswith("num_batches_tracked")}
    assert counted == {28}  # four groups in each of 7 steps
    lines = [line for line in map(json.loads, curve(tmp_path)) if line["kind"] == "train"]
    assert all(1 < line["loss"] < 2.5 for line in lines)  # a mean over the batch: about log 5
    assert all(line["accuracy"] * 8 == int(line["accuracy"] * 8) for line in lines)


def test_a_batch_that_does_not_divide_into_groups_is_one_sentence():
    with pytest.raises(ValueError, match="batch_size 4 does not divide into BN groups of 3 images"):
        recipe(batch_norm={"group": 3})


def test_the_first_weights_do_not_depend_on_the_loss():
    trades = recipe(loss={"kind": "trades"}, attack={"objective": "divergence", "random_start_prob": 1.0})
    one, other = (seeded_model(config).state_dict() for config in (recipe(), trades))
    assert all(torch.equal(one[name], other[name]) for name in one)
