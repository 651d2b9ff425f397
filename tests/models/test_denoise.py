"""Denoising blocks against plain loops in float64, and against the naive form for gradients and memory (C2)."""

from __future__ import annotations

import math
from functools import partial
from statistics import median

import pytest
import torch
from torch import Tensor

from s3ta.models import create_model, model_config
from s3ta.models.config import DenoiseConfig
from s3ta.models.cost import _saved, count
from s3ta.models.denoise import (
    DenoisingBlock,
    bilateral_filter,
    dot_product_mean,
    median_filter,
    non_local_mean,
)

OPERATIONS = ("softmax", "dot_product", "bilateral", "mean", "median")


def block(operation: str, channels: int = 6, *, embedding: bool = True) -> DenoisingBlock:
    """With weights that are no zeros, in float64."""
    torch.manual_seed(0)
    made = DenoisingBlock(channels, DenoiseConfig(operation=operation, embedding=embedding)).double()  # pyright: ignore
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


def by_loops(made: DenoisingBlock, features: Tensor) -> list[float]:
    """What the block's operation gives, place by place and number by number."""
    _, channels, height, width = features.shape
    places = [(i, j) for i in range(height) for j in range(width)]
    x = {place: features[0, :, *place].tolist() for place in places}

    def embedded(name: str) -> dict[tuple[int, int], list[float]]:
        layer = getattr(made, name)
        if not isinstance(layer, torch.nn.Conv2d):
            return x
        rows = layer.weight[:, :, 0, 0].tolist()
        return {place: [sum(w * v for w, v in zip(row, x[place], strict=True)) for row in rows] for place in places}

    theta, phi, answer = embedded("theta"), embedded("phi"), []
    for i, j in places:
        near = [place for place in places if abs(place[0] - i) <= 1 and abs(place[1] - j) <= 1]
        among = near if made.operation in ("bilateral", "mean") else places
        dots = [sum(a * b for a, b in zip(theta[i, j], phi[place], strict=True)) for place in among]
        if made.operation == "median":
            window = [
                (min(max(i + a, 0), height - 1), min(max(j + b, 0), width - 1)) for a in (-1, 0, 1) for b in (-1, 0, 1)
            ]
            answer.append([median(x[place][c] for place in window) for c in range(channels)])
            continue
        if made.operation == "mean":
            weights = [1 / len(among)] * len(among)
        elif made.operation == "dot_product":
            weights = [dot / len(places) for dot in dots]
        else:
            raised = [math.exp(dot / math.sqrt(len(theta[i, j]))) for dot in dots]
            weights = [value / sum(raised) for value in raised]
        answer.append([sum(w * x[place][c] for w, place in zip(weights, among, strict=True)) for c in range(channels)])
    return [answer[p][c] for c in range(channels) for p in range(len(places))]


@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_that_of_plain_loops(operation: str, embedding: bool) -> None:
    made = block(operation, embedding=embedding)
    features = torch.randn(1, 6, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.tensor(by_loops(made, features), dtype=torch.float64)
    torch.testing.assert_close(made.denoised(features).flatten(), expected, rtol=1e-10, atol=1e-10)


def test_the_dot_product_is_the_same_in_both_orders() -> None:
    """Few places and many channels take the other order."""
    made = block("dot_product", channels=32)
    features = torch.randn(1, 32, 3, 2, dtype=torch.float64)
    expected = torch.tensor(by_loops(made, features), dtype=torch.float64)
    torch.testing.assert_close(made.denoised(features).flatten(), expected, rtol=1e-10, atol=1e-10)


def naive(theta: Tensor, phi: Tensor, values: Tensor) -> Tensor:
    weights = (theta.mT @ phi / math.sqrt(theta.shape[1])).softmax(dim=-1)
    return values @ weights.mT


def test_made_in_parts_it_has_the_gradients_of_the_naive_form() -> None:
    """1,000 places are two parts; and gradients of gradients, which local linearity takes."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, size, 1000, dtype=torch.float64, generator=generator) for size in (3, 3, 5)]
    weights = torch.randn(2, 5, 1000, dtype=torch.float64, generator=generator)
    results = []
    for form in (non_local_mean, naive):
        given = [part.clone().requires_grad_() for part in inputs]
        answer = form(*given)
        first = torch.autograd.grad((answer * weights).sum(), given, create_graph=True)
        second = torch.autograd.grad(sum(part.square().sum() for part in first), given)
        results.append((answer, *first, *second))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("filtered", [bilateral_filter, dot_product_mean, median_filter])
def test_gradients_of_the_other_operations(filtered) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (1, 3, 8) if filtered is dot_product_mean else (1, 3, 3, 3)
    number = 1 if filtered is median_filter else 3
    inputs = [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(number)]
    assert torch.autograd.gradcheck(filtered, inputs)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("training", [True, False])
def test_a_fresh_block_is_the_identity_to_the_bit(operation: str, training: bool) -> None:
    made = DenoisingBlock(8, DenoiseConfig(operation=operation)).train(training)  # pyright: ignore
    features = torch.randn(4, 8, 5, 5)
    assert torch.equal(made(features), features)


@pytest.mark.parametrize("name", ["resnetv2_18", "resnet18"])
def test_a_fresh_denoising_network_answers_as_the_one_without(name: str) -> None:
    plain, denoise = (create_model(name + part, 10, 32).eval() for part in ("", "_denoise"))
    assert len(denoise.vision.backbone.units) == len(plain.vision.backbone.units) + 4  # pyright: ignore
    missing, unexpected = denoise.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in missing} == {"theta", "phi", "conv", "norm"}
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(images), denoise(images))


def test_weights_of_a_56x56_map_are_not_kept() -> None:
    """Beside its input, the published block's operation keeps less than a tenth of what the naive one keeps."""
    with torch.device("meta"):
        made = DenoisingBlock(256, DenoiseConfig())
        features = torch.empty(1, 256, 56, 56, requires_grad=True)
        theta, phi = made.theta(features).flatten(2), made.phi(features).flatten(2)
    values = features.flatten(2)
    without = {values.untyped_storage()._cdata}
    kept = sum(_saved(partial(non_local_mean, theta, phi, values), without).values())
    of_naive = sum(_saved(partial(naive, theta, phi, values), without).values())
    assert of_naive > 4 * 3136**2
    assert 0 < kept <= of_naive / 10


@pytest.mark.parametrize("name", ["resnetv2_152", "resnet152"])
def test_counts_of_the_published_rivals(name: str) -> None:
    """C2: 11,148,800 parameters and 5.96 G multiply-accumulates; C4: what timm's `seresnet152` has, V2 without its BN."""
    plain, denoise, excited = (count(model_config(name + part)) for part in ("", "_denoise", "_se"))
    assert denoise.parameters - plain.parameters == 11_148_800
    convolutions = sum(
        2 * places * channels**2 for places, channels in ((3136, 256), (784, 512), (196, 1024), (49, 2048))
    )
    attention = sum(
        places**2 * 3 * channels // 2 for places, channels in ((3136, 256), (784, 512), (196, 1024), (49, 2048))
    )
    assert denoise.multiply_accumulates - plain.multiply_accumulates == convolutions + attention == 5_959_052_288
    assert excited.parameters == {"resnetv2_152": 66_814_168, "resnet152": 66_821_848}[name]
