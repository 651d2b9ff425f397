"""Models that are built in an odd way but are correct raise no alarm; some odd ones that are not correct are caught."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from s3ta.data import Batch, fetch_batch
from s3ta.evaluate.lint import LintContext, lint
from s3ta.evaluate.lint.preprocessing_and_labels import AnswerScore, Rival, _best_first
from s3ta.records import Finding
from tests.evaluate.planted import Around
from tests.evaluate.toys import blobs

COUNT = 64


def with_lazy_layer(net: nn.Module) -> nn.Module:
    model = nn.Sequential(net, nn.LazyLinear(4))
    model(torch.zeros(1, 1, 8, 8))
    nn.init.eye_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    return model


def with_hooks(net: nn.Module) -> nn.Module:
    for module in net.modules():
        module.register_forward_hook(lambda module, args, output: output.clone())
    return net


def with_parametrised_classifier(norm: Callable) -> Callable[[nn.Module], nn.Module]:
    def changed(net: nn.Module) -> nn.Module:
        norm(net.classifier)
        return net

    return changed


class InFloat64(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images.double()).float()


class WithDropout(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.dropout = net, nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(self.dropout(images))


class Ensemble(nn.Module):
    def __init__(self, *nets: nn.Module) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([net(images) for net in self.nets]).logsumexp(dim=0)


def standardised(images: Tensor) -> Tensor:
    """Each image by its own mean and deviation, then to those that the network knows."""
    mean, std = images.mean(dim=(1, 2, 3), keepdim=True), images.std(dim=(1, 2, 3), keepdim=True)
    return 0.5 + 0.054 * (images - mean) / std


def straight_through(images: Tensor) -> Tensor:
    return images + ((images * 255).round() / 255 - images).detach()


def fourier(images: Tensor) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(images), s=images.shape[-2:])


def shifted_by_image(logits: Tensor) -> Tensor:
    return logits + 100 * logits.detach()[:, :1].sin()


CORRECT: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda net: net,
    "handed over with dropout, in eval mode": lambda net: WithDropout(net).eval(),
    "logits of 1e-3": lambda net: Around(net, after=lambda logits: 1e-3 * logits),
    "logits of 1e-5": lambda net: Around(net, after=lambda logits: 1e-5 * logits),
    "another constant added for each image": lambda net: Around(net, after=shifted_by_image),
    "log-softmax": lambda net: Around(net, after=lambda logits: logits.log_softmax(dim=1)),
    "float64 inside": InFloat64,
    "an image as its own mean and deviation": lambda net: Around(net, standardised),
    "straight through a rounding": lambda net: Around(net, straight_through),
    "by way of frequencies": lambda net: Around(net, fourier),
    "minus distances to four points": lambda net: Around(net, after=lambda z: -torch.cdist(z, 10 * torch.eye(4))),
    "a layer that was lazy": with_lazy_layer,
    "hooks that copy": with_hooks,
    "weight norm": with_parametrised_classifier(parametrizations.weight_norm),
    "spectral norm": with_parametrised_classifier(parametrizations.spectral_norm),
    "activations computed again": lambda net: Around(lambda images: checkpoint(net, images, use_reentrant=False)),
    "two networks": lambda net: Ensemble(net, copy.deepcopy(net)),
    "channels last": lambda net: net.to(memory_format=torch.channels_last),
    "two classes": lambda net: Around(net, after=lambda logits: logits[:, :2]),
}


class Answer(NamedTuple):
    logits: Tensor


def without_gradients(net: nn.Module) -> nn.Module:
    return Around(torch.inference_mode()(net.forward))


def impossible(logits: Tensor) -> Tensor:
    return logits.masked_fill(torch.arange(4) == 3, -torch.inf)


FAULTY: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "in inference mode": (without_gradients, "gradient"),
    "a named tuple": (lambda net: Around(net, after=Answer), "answer"),
    "one output": (lambda net: Around(net, after=lambda logits: logits[:, :1]), "answer"),
    "a class that cannot be": (lambda net: Around(net, after=impossible), "finite"),
}


def alarms_of(model: nn.Module) -> dict[str, Finding]:
    """On images of `blobs`; of the first two classes where the model knows only two."""
    images, labels = fetch_batch(blobs(2 * COUNT), range(2 * COUNT))[1:3]
    num_classes = 4
    with torch.no_grad():
        if torch.is_tensor(answer := model(images[:2])) and answer.shape[1] == 2:
            images, labels, num_classes = images[labels < 2], labels[labels < 2], 2
    names = [f"blob {number}" for number in range(num_classes)]
    found = lint(
        model, Batch([str(i) for i in range(COUNT)], images[:COUNT], labels[:COUNT]), LintContext(num_classes, names)
    )
    return {one.kind: one for one in found if one.severity in ("warning", "error")}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_model_raises_no_alarm(name: str, learned: nn.Module) -> None:
    assert alarms_of(CORRECT[name](copy.deepcopy(learned)).eval()) == {}


@pytest.mark.parametrize("name", FAULTY)
def test_a_faulty_model_is_caught_in_a_sentence(name: str, learned: nn.Module) -> None:
    make, kind = FAULTY[name]
    found = alarms_of(make(copy.deepcopy(learned)).eval())
    assert set(found) == {kind}
    assert found[kind].severity == "error"
    assert found[kind].sentence.endswith(".")


@pytest.mark.parametrize("rounding", [-1e-7, 0.0, 1e-7])
def test_two_explanations_of_the_same_answers_stand_in_the_order_they_are_tried(rounding: float) -> None:
    """Colours turned round are classes turned round where classes are colours; last bits must not choose between them."""
    right, fewer = torch.tensor([True] * 9 + [False]), torch.tensor([True] * 8 + [False] * 2)
    flipped = Rival("bgr", "channel order", "", "", AnswerScore(right, 0.5, 0.1))
    permuted = Rival("permuted", "label order", "", "", AnswerScore(right, 0.5 + rounding, 0.1))
    scaled = Rival("pixels x 255", "input range", "", "", AnswerScore(right, 0.1, 0.1))
    lower = Rival("with ImageNet", "normalisation", "", "", AnswerScore(fewer, 0.1, 0.1))
    names = [rival.name for rival in _best_first([scaled, lower, flipped, permuted])]
    assert names == ["bgr", "permuted", "pixels x 255", "with ImageNet"]
    assert _best_first([flipped, permuted._replace(score=AnswerScore(right, 0.49, 0.1))])[0].name == "permuted"
    assert _best_first([]) == []


class Picky(nn.Module):
    """Raises where its images are not as it wants them."""

    def __init__(self, net: nn.Module, is_fine: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.net, self.is_fine = net, is_fine

    def forward(self, images: Tensor) -> Tensor:
        if not self.is_fine(images):
            raise ValueError(f"saturated, or not that many: {len(images)}")
        return self.net(images)


def found_of(model: nn.Module, micro_batch: int | None = None) -> dict[str, Finding]:
    names = [f"blob {number}" for number in range(4)]
    found = lint(model, fetch_batch(blobs(2 * COUNT), range(COUNT)), LintContext(4, names, micro_batch))
    return {one.kind: one for one in found}


def is_never_black(images: Tensor) -> bool:
    return bool((images.flatten(1).amax(dim=1) > 0).all())


def is_hardly_saturated(images: Tensor) -> bool:
    return float(((images == 0) | (images == 1)).float().mean()) < 0.4


@pytest.mark.parametrize("is_fine", [is_never_black, is_hardly_saturated])
def test_a_model_that_refuses_made_up_black_images_is_measured(is_fine: Callable, learned: nn.Module) -> None:
    found = found_of(Picky(copy.deepcopy(learned), is_fine).eval())
    assert {one.severity for one in found.values()} <= {"passed", "note", "unchecked"}
    assert found["batch dependence"].severity == "note"
    assert "made-up black" in found["batch dependence"].sentence


def test_a_model_with_a_counter_that_refuses_black_images_is_not_called_forgetful(learned: nn.Module) -> None:
    class Counting(Picky):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(images)

    finding = found_of(Counting(copy.deepcopy(learned), is_never_black).eval())["own state"]
    assert finding.severity == "note"
    assert "black images, made up" in finding.sentence


@pytest.mark.parametrize(
    ("is_fine", "micro_batch", "only"),
    [
        (lambda images: len(images) <= 10, 10, None),
        (lambda images: len(images) <= 4, 4, None),
        (lambda images: len(images) == 10, 10, 10),
        (lambda images: len(images) == 50, 50, 50),
        (lambda images: len(images) == 3, 3, 3),
        (lambda images: len(images) % 8 == 0, 24, 24),
    ],
)
def test_a_model_that_takes_a_micro_batch_is_measured(
    is_fine: Callable, micro_batch: int, only: int | None, learned: nn.Module
) -> None:
    found = found_of(Picky(copy.deepcopy(learned), is_fine).eval(), micro_batch)
    assert {one.severity for one in found.values()} <= {"passed", "note", "unchecked"}
    told = f"answers only to batches of {only} images" in found["batch dependence"].sentence
    assert told == (only is not None)
    assert found["gradient"].severity == "passed"


def test_a_fixed_batch_hides_no_write_into_the_input(learned: nn.Module) -> None:
    model = Picky(copy.deepcopy(learned), lambda images: len(images.mul_(0.9)) == 10).eval()
    assert found_of(model, 10)["input writes"].severity == "error"


def test_a_model_that_takes_no_micro_batch_is_refused_with_its_reason(learned: nn.Module) -> None:
    finding = found_of(Picky(copy.deepcopy(learned), lambda images: len(images) <= 10).eval(), 50)["answer"]
    assert finding.severity == "error"
    assert "raises ValueError: saturated, or not that many: 32" in finding.sentence


def test_masked_classes_are_called_by_their_name(learned: nn.Module) -> None:
    finding = found_of(Around(copy.deepcopy(learned), after=impossible).eval())["finite"]
    assert finding.sentence == f"1 output is -inf on all {COUNT} images, as a masked class is: 3."
    assert "--match-classes data" in str(finding.advice)


@pytest.mark.parametrize("error", [StopIteration, RecursionError])
def test_an_error_that_is_not_about_shapes_gets_no_advice_on_sizes(error: type[Exception]) -> None:
    class Raises(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise error

    assert found_of(Raises())["answer"].advice == "Mend the forward pass."
