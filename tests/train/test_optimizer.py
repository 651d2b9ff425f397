"""The optimizer: Nesterov as T6 writes it, L2 on the right tensors (T7, T8, X29), Adam on request."""

import pytest
import torch
from torch import nn

from s3ta.models import build_model, create_model
from s3ta.train import OptimizerConfig
from s3ta.train.optimizer import build_optimizer, decayed

from .helpers import recipe


def test_decayed_numbers_of_the_full_size_model():
    with torch.device("meta"):
        model = create_model("s3ta_16_resnetv2_152")
    names = decayed(model)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    total = sum(sizes[name] for name in names)
    assert total == 57_992_384 + 39_845_888 + 2_465_792 + 2_072_576 == 102_376_640
    assert sum(sizes.values()) - total == 102_534_056 - 102_376_640
    assert sum(sizes[n] for n in names if n.startswith("vision.")) == 57_992_384
    assert {n for n in names if not n.startswith("vision.")} == {
        "controller.lstm.weight_ih",
        "controller.lstm.weight_hh",
        "controller.query.0.weight",
        "controller.query.2.weight",
        "controller.readout.0.weight",
        "controller.readout.2.weight",
    }
    left = set(sizes) - names
    assert {
        "controller.initial_hidden",
        "controller.initial_cell",
        "controller.lstm.bias_ih",
        "vision.net.norm.weight",
    } <= left
    assert not any("norm" in name or "bias" in name or "initial" in name for name in names)
    assert all("norm" in name or "bias" in name or "initial" in name for name in left)


@pytest.mark.parametrize("kind", ["s3ta", "resnet"])
def test_every_parameter_is_in_one_group(kind):
    model = build_model(recipe(kind).model)
    for optimizer in (build_optimizer(OptimizerConfig(kind=k, weight_decay=0.3), model) for k in ("sgd", "adam")):
        groups = optimizer.param_groups
        assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
        ids = [id(p) for group in groups for p in group["params"]]
        assert sorted(ids) == sorted(id(p) for p in model.parameters())
        by_name = dict(model.named_parameters())
        assert {id(p) for p in groups[0]["params"]} == {id(by_name[name]) for name in decayed(model)}
        assert all(by_name[name].ndim > 1 for name in decayed(model))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2).double()
        self.layer.weight.data = torch.tensor([[1.0, -2, 3], [0.5, 0, -1]], dtype=torch.float64)


def _gradient(step, like):
    return torch.sin(torch.arange(like.numel(), dtype=torch.float64) + 7 * step).view_as(like)


def test_sgd_is_nesterov_written_by_hand():
    model, rates, momentum, decay = Small(), [0.3, 0.2, 0.1], 0.9, 0.01
    optimizer = build_optimizer(OptimizerConfig(learning_rate=9.0, weight_decay=decay), model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, p in model.named_parameters():
            p.grad = _gradient(step, p)
            gradient = _gradient(step, p) + (decay * expected[name] if name == "layer.weight" else 0)
            velocity[name] = momentum * velocity[name] + gradient
            expected[name] = expected[name] - rate * (gradient + momentum * velocity[name])
        optimizer.step()
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-13, atol=1e-13)


def test_adam_is_adam_written_by_hand():
    model, rate, decay = Small(), 0.1, 0.01
    optimizer = build_optimizer(OptimizerConfig(kind="adam", learning_rate=rate, weight_decay=decay), model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    first, second = ({name: torch.zeros_like(p) for name, p in model.named_parameters()} for _ in range(2))
    for step in range(1, 4):
        for name, p in model.named_parameters():
            p.grad = _gradient(step, p)
            gradient = _gradient(step, p) + (decay * expected[name] if name == "layer.weight" else 0)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            expected[name] = expected[name] - rate * (first[name] / (1 - 0.9**step)) / (
                (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
            )
        optimizer.step()
        for name, p in model.named_parameters():
            torch.testing.assert_close(p.detach(), expected[name], rtol=1e-12, atol=1e-12)


def test_defaults_are_the_papers():
    config = OptimizerConfig()
    assert (
        config.kind,
        config.learning_rate,
        config.momentum,
        config.nesterov,
        config.weight_decay,
        config.clip_norm,
    ) == ("sgd", 0.2, 0.9, True, 1e-4, None)
