"""The lint on a real classifier of ImageNet and twenty real photographs: each common mistake is caught, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from s3ta.data import Batch, DataConfig, Preprocessing, fetch_batch, imagenet_wnids, open_dataset
from s3ta.evaluate.lint import LintContext, lint
from s3ta.evaluate.lint.harness import ModelHarness
from s3ta.evaluate.lint.preprocessing_and_labels import preparation
from s3ta.finding import ALARMS, Finding
from s3ta.models import Classifier
from tests.evaluate.planted import Around
from tests.examples import photograph_batch, real_network

CLASSES = imagenet_wnids()
AS_TEXT = sorted(range(1000), key=str)


@pytest.fixture(scope="module")
def network() -> Classifier:
    return real_network()


@pytest.fixture(scope="module")
def photographs() -> Batch:
    return photograph_batch()


def prepared(net: nn.Module, photographs: Batch) -> list[Finding]:
    """What the lint says of preparation and labels: 16 passes of its 20."""
    probe = ModelHarness(net, photographs, LintContext(1000, CLASSES))
    return preparation(probe, probe.ask(probe.images))


def rewrapped(network: Classifier, **settings) -> Classifier:
    """The bare network in another wrapper."""
    told = {"mean": [0.5], "std": [0.5]} | settings
    return Classifier(network.net, name="net", num_classes=1000, image_size=160, **told).eval()


def test_the_right_network_raises_no_alarm(network: Classifier, photographs: Batch) -> None:
    found = lint(network, photographs, LintContext(1000, CLASSES))
    assert not [finding for finding in found if finding.severity in ALARMS]
    accuracy = next(finding for finding in found if finding.kind == "clean accuracy")
    assert (accuracy.severity, accuracy.evidence["right"]) == ("passed", 18)


PLANTED: dict[str, tuple[Callable[[Classifier], nn.Module], str, str]] = {
    "normalised twice": (
        lambda network: Around(network, lambda images: (images - 0.5) / 0.5),
        "normalisation",
        "Normalise once",
    ),
    "pixels 0..255": (lambda network: Around(network, lambda images: images * 255), "input range", "--std 255"),
    "labels from 1": (
        lambda network: Around(network, after=lambda logits: logits.roll(1, 1)),
        "label order",
        "--class-names",
    ),
    "classes as text": (
        lambda network: Around(network, after=lambda logits: logits[:, AS_TEXT]),
        "label order",
        "--class-names",
    ),
}


FAINT: dict[str, tuple[Callable[[Classifier], nn.Module], str, str]] = {
    "BGR": (lambda network: rewrapped(network, channel_order="bgr"), "channel order", "--channel-order rgb"),
    "no normalisation": (
        lambda network: rewrapped(network, mean=None, std=None),
        "normalisation",
        "--mean 0.5 --std 0.5",
    ),
}
"""What this network hardly minds: of the 20 photographs 3 and 1 at 224 px. So more of them are looked at, and smaller."""


@pytest.fixture(scope="module")
def many_small(data_folder) -> Batch:
    """250 photographs at 96 px, of as many classes."""
    how = Preprocessing(resize=110, rounding="torchvision")
    data = open_dataset(
        DataConfig(source="folder:imagenet-sample", image_size=96, preprocessing=how), "test", data_folder
    )
    assert list(data.classes) == list(CLASSES)
    return fetch_batch(data, range(0, 1000, 4))


@pytest.mark.thorough
@pytest.mark.parametrize("mistake", FAINT)
def test_a_mistake_that_the_network_hardly_minds_is_caught_on_more_images(
    mistake: str, network: Classifier, many_small: Batch
) -> None:
    plant, kind, advice = FAINT[mistake]
    (alarm,) = [finding for finding in prepared(plant(network), many_small) if finding.severity in ALARMS]
    assert alarm.kind == kind
    assert advice in (alarm.advice or "")


@pytest.mark.thorough
def test_small_images_of_the_right_network_raise_no_alarm(network: Classifier, many_small: Batch) -> None:
    assert not [finding for finding in prepared(network, many_small) if finding.severity in ALARMS]


@pytest.mark.thorough
@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_the_one_warning(mistake: str, network: Classifier, photographs: Batch) -> None:
    plant, kind, advice = PLANTED[mistake]
    (alarm,) = [finding for finding in prepared(plant(network), photographs) if finding.severity in ALARMS]
    assert alarm.kind == kind
    assert alarm.evidence["best_right"] > alarm.evidence["right"]
    assert advice in (alarm.advice or "")


def test_class_names_in_another_order_are_caught(network: Classifier, photographs: Batch) -> None:
    named = rewrapped(network, classes=CLASSES[1:] + CLASSES[:1])
    (alarm,) = [finding for finding in prepared(named, photographs) if finding.severity in ALARMS]
    assert alarm.kind == "label order"


def test_a_network_at_chance_is_not_taken_for_one_with_another_order(photographs: Batch) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        answers = torch.randn(1000, 1000, generator=generator)

        class Chance(nn.Module):
            def forward(self, images: Tensor, answers: Tensor = answers) -> Tensor:
                return answers[: len(images)] + 0 * images.mean()

        assert not [finding for finding in prepared(Chance(), photographs) if finding.severity in ALARMS]
