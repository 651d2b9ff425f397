"""Units that are computed again on the way back: the same answers, gradients and averages, with less kept in between."""

import copy

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from s3ta.attacks import autograd_gradient, frozen_in_eval_mode, untargeted
from s3ta.models import ResNetConfig, VisionConfig, build_model
from s3ta.models.batch_norm_statistics import statistics_kept
from s3ta.models.vision import VisionNet

from .helpers import pictures, shaken_model

EVERY = [1, 2, 3, 100]
LABELS = torch.tensor([0, 1, 2, 3])


def _images(**settings):
    return pictures(4, 2, 12, 12, **settings)


def _passed(model, every, images):
    """(logits, gradients of images and weights, buffers) of one pass there and back."""
    model = copy.deepcopy(model)
    model.vision.units_per_checkpoint = every
    images = images.clone().requires_grad_(True)
    logits = model(images)
    nn.functional.cross_entropy(logits, LABELS).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()} | {"images": images.grad}
    return logits.detach(), gradients, dict(model.named_buffers())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("every", EVERY)
def test_answers_gradients_and_averages_are_the_same_to_the_last_bit(training, every):
    model = shaken_model().train(training)
    logits, gradients, buffers = _passed(model, 0, _images())
    found, slopes, moved = _passed(model, every, _images())
    assert torch.equal(found, logits)
    assert all(torch.equal(slopes[name], value) for name, value in gradients.items())
    assert all(torch.equal(moved[name], value) for name, value in buffers.items())
    counts = {int(b) for name, b in moved.items() if name.endswith("num_batches_tracked")}
    assert counts == {int(training)}
    assert gradients["vision.net.stem.conv.weight"].abs().max() > 0


@pytest.mark.parametrize("every", EVERY)
def test_the_averages_are_those_of_a_plain_recursion(every):
    """Three passes there and back: each layer's averages are those of its three inputs, taken in once each."""
    model = shaken_model().train()
    model.vision.units_per_checkpoint = every
    norm, inputs = model.vision.net.stages[1].blocks[0].norm1, []
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    norm.register_forward_pre_hook(lambda _, values: inputs.append(values[0].detach()))
    for seed in range(3):
        inputs.clear()
        nn.functional.cross_entropy(model(_images(seed=seed)), LABELS).backward()
        assert len(inputs) == 2
        assert torch.equal(inputs[0], inputs[1])  # computed again
        values = inputs[0].transpose(0, 1).flatten(1)
        mean, variance = 0.9 * mean + 0.1 * values.mean(1), 0.9 * variance + 0.1 * values.var(1)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)


def _kept_bytes(vision, every, images):
    """What autograd keeps of one forward pass, each block of memory once, without the weights."""
    vision.units_per_checkpoint = every
    own, kept = {p.untyped_storage().data_ptr() for p in [*vision.parameters(), *vision.buffers()]}, {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        out = vision(images)
    return sum(storage.nbytes() for storage in kept.values()), out


def test_less_is_kept_for_the_way_back():
    torch.manual_seed(0)
    vision = VisionNet(VisionConfig(backbone="resnetv2_50", stem="conv3", in_channels=3, image_size=16)).train()
    images = pictures(2, 3, 16, 16)
    all_of_it, *some = (_kept_bytes(vision, every, images)[0] for every in (0, 1, 2, 4, 100))
    assert some[0] < 0.4 * all_of_it
    assert some[-1] < 0.1 * all_of_it
    assert some == sorted(some, reverse=True)  # with larger groups less is kept (and more is made again at once)


def test_without_gradients_nothing_is_kept_or_computed_again():
    model, calls = shaken_model().train(), []
    model.vision.units_per_checkpoint = 1
    model.vision.net.stages[0].register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(_images())
    assert len(calls) == 1  # the whole stage, as ever


@pytest.mark.parametrize("every", [1, 2])
def test_an_attack_finds_the_same_gradient(every):
    model = shaken_model()
    plain = autograd_gradient(model, untargeted(LABELS), _images()).gradient
    model.vision.units_per_checkpoint = every
    with frozen_in_eval_mode(model):
        assert torch.equal(autograd_gradient(model, untargeted(LABELS), _images()).gradient, plain)
    assert all(p.grad is None for p in model.parameters())


def test_a_net_of_bottlenecks_gives_the_same_too():
    torch.manual_seed(0)
    vision = VisionConfig(backbone="resnetv2_50", stem="conv3", in_channels=2, image_size=12)
    model = build_model(ResNetConfig(num_classes=5, vision=vision)).train()
    expected, found = (_passed(model, every, _images()) for every in (0, 3))
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
    assert all(torch.equal(found[2][name], value) for name, value in expected[2].items())


# --- statistics left alone ---------------------------------------------------------------------------------------------------


def test_statistics_are_the_batchs_and_the_averages_stay():
    model = shaken_model().train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    with statistics_kept(model):
        found = model(_images())
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert torch.equal(model(_images()), found)  # now they move
    assert not all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_after_an_exception_the_averages_move_again_where_they_did():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)).train()
    names, before = set(model.state_dict()), model[0].running_mean
    with pytest.raises(RuntimeError, match="running_mean should contain 1"), statistics_kept(model):
        model(model(_images())[:, :1])
    assert model[0].running_mean is before
    assert torch.equal(before, torch.zeros(2))
    assert [norm.track_running_stats for norm in model] == [True, False]
    model(_images())
    torch.testing.assert_close(before, 0.1 * _images().mean((0, 2, 3)))
    assert int(model[0].num_batches_tracked) == 1
    assert set(model.state_dict()) == names
