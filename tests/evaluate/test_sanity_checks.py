"""Probes of a model's gradients: masked ones are caught, honest ones raise no alarm, and the numbers are the closed form's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from s3ta.attacks import Linf
from s3ta.data import Batch
from s3ta.errors import UserError
from s3ta.evaluate.sanity_checks import num_evaluations, probe
from s3ta.evaluate.sanity_criteria import Subject, Tried, eight_bits, still_rising, tried_on
from s3ta.records import Finding
from tests.evaluate.toys import RADIUS, Templates, blobs, quantised, rippled

COUNT = 24
KINDS = [
    "larger radius", "random noise", "black box", "margin loss", "zero gradients", "loss still rising", "eight bits",
    "local linearity",
]  # fmt: skip


def pictures(seed: int = 0, count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    data = blobs(count, seed)
    return torch.from_numpy(data.pixels).float() / 255, torch.from_numpy(data.labels), data.ids


def asked(model: nn.Module, seed: int = 0, radius: float = RADIUS, **more) -> dict[str, Finding]:
    images, labels, ids = pictures(seed)
    found = probe(model, Batch(ids, images, labels), radius=radius, seed=seed, **more)
    assert [finding.kind for finding in found] == KINDS
    return {finding.kind: finding for finding in found}


def alarms(found: dict[str, Finding]) -> set[str]:
    return {kind for kind, finding in found.items() if finding.severity in ("warning", "error")}


def saturated(model: nn.Module) -> nn.Module:
    masked = copy.deepcopy(model)
    with torch.no_grad():
        masked.classifier.weight.mul_(1e4)
        masked.classifier.bias.mul_(1e4)
    return masked


class Towards(nn.Module):
    """Two classes: logits (0, scale x (w . (x - 1/2) + offset))."""

    def __init__(self, weight: torch.Tensor, offset: float = 0.0, scale: float = 20.0) -> None:
        super().__init__()
        self.weight, self.offset, self.scale = nn.Parameter(weight), offset, scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        value = self.scale * ((images.flatten(1) - 0.5) @ self.weight.flatten() + self.offset)
        return torch.stack([torch.zeros_like(value), value], dim=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [4.0, 40.0, 400.0])
def test_an_honest_linear_model_raises_no_alarm(scale, seed):
    assert alarms(asked(Templates(scale), seed)) == set()


@pytest.mark.parametrize(("radius", "seed"), [(RADIUS, 0), (RADIUS, 1), (0.02, 2)])
def test_an_honest_trained_network_raises_no_alarm(learned, radius, seed):
    found = asked(learned, seed, radius)
    assert alarms(found) == set()
    assert found["black box"].evidence["num_examples"] >= COUNT - 2


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("defence", "scale", "caught"),
    [
        (quantised, 40.0, {"larger radius", "black box", "zero gradients", "local linearity"}),
        (rippled, 40.0, {"black box"}),
        (torch.Tensor.clone, 4e5, {"larger radius", "black box", "margin loss", "zero gradients", "loss still rising"}),
    ],
    ids=["quantised", "rippled", "saturated"],
)
def test_masked_gradients_are_caught(defence, scale, caught, seed):
    model = Templates(scale, defence)
    found = asked(model, seed)
    assert caught <= alarms(found)
    assert found["black box"].evidence["broken_by_pgd"] <= 4, "it does look robust"
    assert "Robustness measured with gradients is then too high" in found["black box"].advice


@pytest.mark.parametrize("seed", range(2))
def test_a_trained_network_with_logits_times_ten_thousand_is_caught(learned, seed):
    caught = {"larger radius", "random noise", "black box", "margin loss", "zero gradients", "loss still rising"}
    found = asked(saturated(learned), seed)
    assert caught <= alarms(found)
    assert found["zero gradients"].evidence["num_zero"] == found["zero gradients"].evidence["num_examples"]
    assert found["eight bits"].severity == "unchecked", "there is no adversarial image to save"


def test_counts_are_those_of_the_closed_form():
    """Two classes and a linear margin: sign PGD ends in the corner, which breaks those whose margin is below radius |w|_1."""
    random = np.random.default_rng(7)
    weight = torch.from_numpy(random.standard_normal((1, 6, 6))).float()
    weight = weight / weight.abs().sum()
    images = torch.from_numpy(0.3 + 0.4 * random.random((30, 1, 6, 6))).float()
    model = Towards(weight)
    with torch.no_grad():
        margin = model(images)[:, 1]
    labels = (margin > 0).long()
    radius = float(margin.abs().median() / model.scale)
    ids = [f"p-{i}" for i in range(30)]
    found = {finding.kind: finding for finding in probe(model, Batch(ids, images, labels), radius=radius, seed=1)}
    broken = int((margin.abs() < radius * model.scale).sum())
    assert 10 <= broken <= 20
    assert found["margin loss"].evidence["broken_by_pgd"] == found["margin loss"].evidence["broken"] == broken
    assert found["larger radius"].evidence["num_right"] == 0
    told = found["local linearity"].evidence
    assert told["gamma"] < 1e-5, "a linear margin lies in its tangent plane"
    assert told["mean_rise"] == pytest.approx(radius * model.scale, rel=1e-4)
    assert told["mean_predicted"] == pytest.approx(radius * model.scale, rel=1e-4)
    assert not alarms(found)
    corner = Linf(radius).project(images - radius * weight.sign() * (2 * labels - 1).view(-1, 1, 1, 1), images)
    loss = nn.functional.cross_entropy(model(corner), labels).item()
    assert found["loss still rising"].evidence["mean_loss"]["40"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(("fragile", "severity"), [(0, "passed"), (4, "note"), (7, "warning")])
def test_adversarial_images_that_survive_eight_bits_are_counted(fragile, severity):
    """The threshold lies at 100.3: 100.4 is beyond it and is saved as 100, which is not."""
    model = Towards(torch.ones(1, 1, 1), offset=0.5 - 100.3 / 255, scale=1e4)
    images = torch.full((10, 1, 1, 1), 100 / 255)
    moved = torch.where(torch.arange(10) < fragile, 100.4, 100.9).view(-1, 1, 1, 1) / 255
    ids = [f"p-{i}" for i in range(10)]
    labels = torch.zeros(10, dtype=torch.int64)
    told = eight_bits(Subject(model, tried_on(model, images, labels), labels, tuple(ids), 2 / 255, 0), moved)
    assert told.severity == severity
    assert told.evidence == {"num_adversarial": 10, "num_surviving": 10 - fragile, "given": False}


def test_the_answers_depend_neither_on_the_order_nor_on_global_state(learned):
    images, labels, ids = pictures()
    learned.train()
    try:
        before = {name: value.clone() for name, value in learned.state_dict().items()}
        state = torch.random.get_rng_state()
        first = probe(learned, Batch(ids, images, labels), radius=RADIUS, seed=3)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert learned.training
        assert all(torch.equal(value, before[name]) for name, value in learned.state_dict().items())
        torch.manual_seed(99)
        other = torch.randperm(COUNT)
        again = probe(learned, Batch([ids[i] for i in other], images[other], labels[other]), radius=RADIUS, seed=3)
    finally:
        learned.eval()
    assert again == first
    torch.random.set_rng_state(state)


def test_a_model_that_draws_at_random_answers_the_same_in_every_repetition():
    first, again = (asked(Templates(defence=rippled), 2) for _ in range(2))
    assert first == again
    assert asked(Templates(), 2) != asked(Templates(), 3)


class Counting(Templates):
    """Counts the images that go forward and those that come back."""

    forwards = backwards = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.forwards += len(images)
        logits = super().forward(images)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient: torch.Tensor) -> None:
        self.backwards += len(gradient)


def test_the_experiments_cost_what_was_announced():
    model, told = Counting(), list[int]()
    asked(model, report=lambda completed, note="": told.append(completed))
    assert model.forwards + model.backwards == num_evaluations(COUNT)
    assert num_evaluations(1) <= 350
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, num_evaluations(COUNT))
    assert len(told) >= 6


def test_images_that_the_model_gets_wrong_are_left_out_and_too_few_are_not_asked():
    images, labels, ids = pictures()
    wrong = (labels + 1) % 4
    some = torch.where(torch.arange(COUNT) < 8, labels, wrong)
    found = probe(Templates(), Batch(ids, images, some), radius=RADIUS, seed=0)
    assert [finding.kind for finding in found] == KINDS
    assert found[2].evidence["num_examples"] == 8
    few = torch.where(torch.arange(COUNT) < 7, labels, wrong)
    (told,) = probe(Templates(), Batch(ids, images, few), radius=RADIUS, seed=0)
    assert (told.severity, told.evidence) == ("unchecked", {"num_right": 7, "num_examples": COUNT})
    (told,) = probe(Templates(), Batch(ids, images, labels), radius=0.0, seed=0)
    assert told.severity == "unchecked"


def test_misfitting_ids_are_refused():
    images, labels, _ = pictures()
    with pytest.raises(UserError, match="one id per image"):
        probe(Templates(), Batch(["same"] * COUNT, images, labels), radius=RADIUS, seed=0)


@pytest.mark.parametrize(
    ("losses", "severity"),
    [((0.0, 5.0, 9.6, 10.0), "note"), ((0.0, 9.0, 9.8, 10.0), "passed"), ((1.0, 1.0, 0.5, 0.5), "warning")],
)
def test_a_loss_that_still_rises_at_the_end_is_reported(losses, severity):
    """4 % of the rise in the last tenth of the steps; 2 %; no rise at all."""
    nothing = torch.zeros(5)
    tried = [Tried(nothing, nothing, torch.full((5,), loss), nothing.bool(), nothing) for loss in losses]
    told = still_rising(*tried)
    assert told.severity == severity
    if severity != "warning":
        assert told.evidence["share_of_last_tenth"] == pytest.approx((losses[3] - losses[2]) / (losses[3] - losses[0]))
