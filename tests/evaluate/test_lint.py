"""The lint catches planted mistakes, and leaves correct models alone."""

from __future__ import annotations

import copy
import inspect
import json
import random
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from s3ta.data import Batch, ClutteredDigits
from s3ta.errors import UserError
from s3ta.evaluate.lint import KINDS, LintContext, lint
from s3ta.evaluate.lint.harness import ModelHarness
from s3ta.evaluate.lint.preprocessing_and_labels import AnswerScore, Rival, _order, _order_of_some, _preparations
from s3ta.models import Classifier, create_model
from s3ta.records import Finding
from tests.evaluate import planted
from tests.evaluate.planted import Around

NAMES = ClutteredDigits.classes
COUNT = 64


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    return Batch([str(i) for i in range(len(images))], images, labels)


class Case(NamedTuple):
    """A model and its examples."""

    net: nn.Module
    images: Tensor
    labels: Tensor

    def looked_at(self, model: nn.Module, **options) -> list[Finding]:
        task = LintContext(**({"data_classes": NAMES, "num_classes": 10} | options))
        return lint(model, batch_of(self.images, self.labels), task)


@pytest.fixture(scope="module")
def digit_case() -> Case:
    """About 63% of the cluttered digits right."""
    torch.manual_seed(0)
    net = planted.taught(planted.small_net(1, (8, 16, 32, 64)), *planted.digits("train", 3000), 4, rate=1e-2)
    return Case(net, *planted.digits("test", COUNT))


@pytest.fixture(scope="module")
def colour_case(data_folder) -> Case:
    """About 45% of CIFAR-10 right; the network wants images normalised with `MEAN` and `STD`."""
    torch.manual_seed(0)
    images, labels = planted.cifar10(data_folder, "train", 6000)
    net = planted.taught(planted.small_net(3, (16, 32, 64)), (images - MEAN) / STD, labels, 3, batch=100)
    return Case(net, *planted.cifar10(data_folder, "test", COUNT))


MEAN, STD = 0.5, 0.25


class Mistake(NamedTuple):
    """What somebody did to a good network of the digits, and what the lint must say."""

    name: str
    plant: Callable[[nn.Module], nn.Module]
    kind: str
    severity: str = "warning"
    also: frozenset[str] = frozenset()
    """Other kinds that may be warnings or errors too, for they follow from the mistake."""


ORDER = torch.tensor([3, 7, 0, 9, 1, 8, 2, 5, 4, 6])


def shaken(net: nn.Module) -> nn.Module:
    """In training mode, as after `fit`."""
    return copy.deepcopy(net).train()


def fresh(net: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return planted.small_net(1, (8, 16)).eval()


def named(net: nn.Module) -> nn.Module:
    return Classifier(net, name="named", num_classes=10, image_size=60, in_channels=1, classes=NAMES[1:] + NAMES[:1])


MISTAKES = [
    Mistake("raises in forward", lambda net: Around(net, planted.raises), "answer", "error"),
    Mistake("a tuple", lambda net: Around(net, after=lambda z: (z, z)), "answer", "error"),
    Mistake("a dict", lambda net: Around(net, after=lambda z: {"logits": z}), "answer", "error"),
    Mistake("a map in place of a vector", lambda net: Around(net, after=lambda z: z[..., None]), "answer", "error"),
    Mistake("nine classes of ten", lambda net: Around(net, after=lambda z: z[:, :9]), "answer", "error"),
    Mistake("classes in place of logits", lambda net: Around(net, after=lambda z: z.argmax(1)), "answer", "error"),
    Mistake("NaN for some images", lambda net: Around(net, after=planted.sometimes_nan), "finite", "error"),
    Mistake("handed over in training mode", shaken, "train mode"),
    Mistake(
        "training mode in forward",
        planted.Trains,
        "train mode",
        also=frozenset({"own state", "batch dependence"}),
    ),
    Mistake(
        "keeps a running mean", lambda net: planted.Remembers(net, 10), "own state", also=frozenset({"randomness"})
    ),
    Mistake("writes into its input", lambda net: Around(net, planted.in_place), "input writes", "error"),
    Mistake("noise", lambda net: Around(net, lambda x: x + 0.1 * torch.randn_like(x)), "randomness"),
    Mistake("dropout always on", lambda net: Around(net, after=nn.functional.dropout), "randomness"),
    Mistake("minus the mean of the batch", lambda net: Around(net, after=lambda z: z - z.mean(0)), "batch dependence"),
    Mistake("squeeze()", lambda net: Around(net, after=planted.squeezed), "batch dependence"),
    Mistake("float16 at the end", planted.through_half, "precision"),
    Mistake("bfloat16 by autocast", planted.Autocast, "precision", also=frozenset({"batch dependence"})),
    Mistake("an LSTM of cuDNN", lambda net: planted.Recurrent(net, 10), "recurrent"),
    Mistake("softmax", lambda net: Around(net, after=lambda z: z.softmax(1)), "probabilities"),
    Mistake(
        "softmax in percent",
        lambda net: Around(net, after=lambda z: 100 * z.softmax(1)),
        "probabilities",
        also=frozenset({"saturated loss"}),
    ),
    Mistake("sigmoid", lambda net: Around(net, after=torch.sigmoid), "probabilities"),
    Mistake("log-softmax", lambda net: Around(net, after=lambda z: z.log_softmax(1)), "probabilities", "note"),
    Mistake(
        "the same logits for all",
        lambda net: Around(net, after=lambda z: 0 * z + torch.arange(10.0)),
        "constant answers",
        also=frozenset({"gradient"}),
    ),
    Mistake(
        "one class for all",
        lambda net: Around(net, after=lambda z: z + 60 * torch.eye(10)[4]),
        "constant answers",
        "note",
    ),
    Mistake("made for 0..255", lambda net: Around(net, lambda x: x / 255), "input range"),
    Mistake(
        "scaled to 0..255, made for 0..1",
        lambda net: Around(net, lambda x: 255 * x),
        "input range",
        also=frozenset({"saturated loss"}),
    ),
    Mistake("made for -1..1", lambda net: Around(net, lambda x: (x + 1) / 2), "normalisation"),
    Mistake("normalisation missing", lambda net: Around(net, lambda x: x * 0.3081 + 0.1307), "normalisation"),
    Mistake("normalised twice", lambda net: Around(net, lambda x: 2 * x - 1), "normalisation"),
    Mistake("labels in another order", lambda net: Around(net, after=lambda z: z[:, ORDER]), "label order"),
    Mistake("names in another order", named, "label order"),
    Mistake("weights not loaded", fresh, "clean accuracy", "note"),
    Mistake("no_grad", planted.no_grad, "gradient", "error"),
    Mistake("a rounded input", lambda net: Around(net, planted.ten_levels), "gradient", "error"),
    Mistake("a gradient that vanishes", lambda net: Around(net, planted.faint), "gradient"),
    Mistake("a graph beside the image", lambda net: Around(net, after=planted.off_the_path), "gradient", "error"),
    Mistake("no backward pass", lambda net: Around(net, planted.NoWayBack.apply), "gradient", "error"),
    Mistake("a gradient that is NaN", lambda net: Around(net, planted.root_of_square), "gradient", "error"),
    Mistake("bright images rounded", lambda net: Around(net, planted.brighter_ones_rounded), "gradient"),
    Mistake("a window in place of the image", lambda net: Around(net, planted.middle), "gradient", "note"),
    Mistake("logits times 1,000", lambda net: Around(net, after=lambda z: 1000 * z), "saturated loss"),
]
"""The planted mistakes; docs/evaluation.md lists them."""


def alarms(found: list[Finding]) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in found if finding.severity in ("warning", "error")}


def by_kind(found: list[Finding]) -> dict[str, Finding]:
    return {finding.kind: finding for finding in found}


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_planted_mistake_is_caught(mistake: Mistake, digit_case: Case) -> None:
    found = digit_case.looked_at(mistake.plant(digit_case.net))
    caught = by_kind(found)[mistake.kind]
    print(f"{mistake.name:35} {caught.kind:20} {caught.severity:8} {caught.text}")
    assert caught.severity == mistake.severity
    assert caught.advice or mistake.severity == "note"
    assert set(alarms(found)) - {mistake.kind} <= mistake.also
    assert [finding.kind for finding in found] == list(KINDS)
    json.dumps([finding._asdict() for finding in found], allow_nan=False)


COLOUR_MISTAKES = [
    ("blue first", {}, lambda x: x.flip(1), "channel order", "--channel-order bgr"),
    (
        "made for 0..255",
        {"mean": None, "std": None},
        lambda x: (x / 255 - MEAN) / STD,
        "input range",
        "--mean 0 --std 0.00392157",
    ),
    (
        "mean and std of 0..255",
        {"mean": (127.5,), "std": (63.75,)},
        lambda x: x,
        "input range",
        "--mean 0.5 --std 0.25",
    ),
    ("normalisation missing", {"mean": None, "std": None}, lambda x: x, "normalisation", "--mean"),
    ("normalised twice", {}, lambda x: (x - MEAN) / STD, "normalisation", "no --mean and no --std"),
]


@pytest.mark.parametrize(("name", "options", "before", "kind", "advice"), COLOUR_MISTAKES)
def test_mistake_with_colours_is_caught_and_its_advice_mends_it(
    name: str, options: dict, before: Callable, kind: str, advice: str, colour_case: Case
) -> None:
    model = classifier(Around(colour_case.net, before), **options)
    found = colour_case.looked_at(model)
    print(f"{name:35} {by_kind(found)[kind].text}")
    assert set(alarms(found)) == {kind}
    assert advice in by_kind(found)[kind].advice
    mended = colour_case.looked_at(classifier(Around(colour_case.net, before), **options_of(by_kind(found)[kind])))
    assert not alarms(mended)


def test_labels_of_a_colour_model_in_another_order_are_caught(colour_case: Case) -> None:
    model = Around(classifier(colour_case.net), after=lambda z: z[:, ORDER])
    assert set(alarms(colour_case.looked_at(model))) == {"label order"}


def classifier(net: nn.Module, mean=(MEAN,), std=(STD,), channel_order: Literal["rgb", "bgr"] = "rgb") -> Classifier:
    return Classifier(
        net, name="colour", num_classes=10, image_size=32, mean=mean, std=std, channel_order=channel_order
    )


def options_of(finding: Finding) -> dict:
    """What the advice tells a person to type, as arguments: those it does not name stay."""
    words = finding.advice.split()
    given: dict = {}
    for option, key in (("--mean", "mean"), ("--std", "std")):
        if option in words and "no --mean" not in finding.advice:
            given[key] = tuple(float(x) for x in words[words.index(option) + 1].rstrip(",").split(","))
        elif "no --mean" in finding.advice:
            given[key] = None
    if "--channel-order" in words:
        given["channel_order"] = words[words.index("--channel-order") + 1].rstrip(",")
    return given


def test_differing_class_names_are_counted_as_evidence(digit_case: Case) -> None:
    found = by_kind(digit_case.looked_at(named(digit_case.net)))["label order"]
    assert found.evidence == {"first": 0, "model": "1", "data": "0", "differing": 10, "moved": 10}


@pytest.mark.parametrize(
    ("classes", "severity"),
    [(("Zero_", *NAMES[1:]), "note"), (("1", *NAMES[1:]), "note"), (NAMES, "passed")],
)
def test_names_that_differ_in_spelling_alone_raise_no_alarm(classes: tuple, severity: str, digit_case: Case) -> None:
    model = Classifier(digit_case.net, name="m", num_classes=10, image_size=60, in_channels=1, classes=classes)
    assert by_kind(digit_case.looked_at(model))["label order"].severity == severity


def test_label_order_is_unchecked_without_examples_of_every_class(digit_case: Case) -> None:
    few = Case(digit_case.net, digit_case.images[::3], digit_case.labels[::3])
    model = Around(digit_case.net, after=lambda z: z[:, ORDER])
    assert by_kind(few.looked_at(model))["label order"].severity == "unchecked"


def test_labels_beyond_the_outputs_are_an_error(digit_case: Case) -> None:
    model = Around(digit_case.net, after=lambda z: z[:, :8])
    found = digit_case.looked_at(model, num_classes=8)
    assert set(alarms(found)) == {"answer"}
    assert "labels go from 0 to 9" in found[0].sentence


def test_a_model_that_fails_at_the_second_call_is_an_error_and_no_crash(digit_case: Case) -> None:
    for survived in range(12):
        calls = iter(range(100))

        def failing(images: Tensor, calls=calls, survived=survived) -> Tensor:
            if next(calls) >= survived:
                raise RuntimeError("out of order")
            return images

        found = digit_case.looked_at(Around(digit_case.net, failing))
        assert [finding.kind for finding in found] == list(KINDS)
        assert "error" in alarms(found).values()


def test_a_recurrent_model_without_cudnn_is_no_alarm(digit_case: Case) -> None:
    class Cell(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net, self.cell = net, nn.LSTMCell(10, 10)

        def forward(self, images: Tensor) -> Tensor:
            logits = self.net(images)
            return logits + 1e-3 * self.cell(logits)[0]

    assert not alarms(digit_case.looked_at(Cell(digit_case.net).eval()))


# --- correct models -----------------------------------------------------------------------------------------------


def test_a_trained_model_of_the_digits_raises_no_alarm(digit_case: Case) -> None:
    with torch.no_grad():
        right = (digit_case.net(digit_case.images).argmax(1) == digit_case.labels).sum().item()
    assert right > 0.5 * COUNT  # or nothing could be told from it
    found = digit_case.looked_at(digit_case.net)
    assert {f.kind: f.severity for f in found} == {kind: "passed" for kind in KINDS} | {"channel order": "unchecked"}
    assert by_kind(found)["clean accuracy"].evidence["right"] == right


def test_a_trained_colour_model_raises_no_alarm(colour_case: Case) -> None:
    found = colour_case.looked_at(classifier(colour_case.net))
    assert by_kind(found)["clean accuracy"].evidence["right"] > 0.4 * COUNT
    assert {f.severity for f in found} == {"passed"}


@pytest.fixture(scope="module")
def photographs(data_folder) -> tuple[Tensor, Tensor]:
    """Eight photographs at 224 px with their classes of ImageNet."""
    folders = sorted(folder for folder in (data_folder / "imagenet-sample" / "val").iterdir() if folder.is_dir())
    pixels = []
    for folder in folders[::125]:
        with Image.open(sorted(folder.iterdir())[0]) as picture:
            pixels.append(np.asarray(picture.convert("RGB").resize((224, 224))).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(pixels)).float() / 255, torch.arange(0, 1000, 125)


@pytest.mark.parametrize(
    "name",
    [
        "test_resnet",
        "test_vit",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_a_model_of_224_px_with_random_weights_raises_no_alarm(name: str, photographs: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    if name == "test_vit":  # the others fit themselves, or have this size
        net = timm.create_model(name, pretrained=False, img_size=224).eval()
    else:
        net = timm.create_model(name, pretrained=False).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    model = Classifier(net, name=name, num_classes=1000, image_size=224, mean=mean, std=std)
    found = lint(model, batch_of(*photographs), LintContext(1000, [f"n{i}" for i in range(1000)]))
    assert not alarms(found)
    assert by_kind(found)["clean accuracy"].severity == "note"


@pytest.mark.parametrize("name", ["resnetv2_mini", "s3ta_2_resnetv2_mini"])
@pytest.mark.parametrize(("channels", "size"), [(1, 60), (3, 32)])
def test_our_own_models_with_random_weights_raise_no_alarm(name: str, channels: int, size: int) -> None:
    torch.manual_seed(1)
    model = create_model(name, num_classes=10, image_size=size, in_channels=channels).eval()
    images = torch.rand(40, channels, size, size, generator=torch.Generator().manual_seed(2))
    found = lint(model, batch_of(images, torch.arange(40) % 10), LintContext(10, NAMES))
    assert not alarms(found)


@pytest.mark.parametrize("seed", range(4))
def test_models_at_chance_and_weak_ones_raise_no_alarm(seed: int, digit_case: Case) -> None:
    """Other weights or other labels in every case; where a third of the labels is left, the model is weak but correct."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    random_net = planted.small_net(1, (4, 8)).eval()
    shuffled = digit_case.labels[torch.randperm(COUNT, generator=generator)]
    third = torch.where(torch.arange(COUNT) % 3 == 0, digit_case.labels, shuffled)
    for net, labels in ((random_net, digit_case.labels), (digit_case.net, shuffled), (digit_case.net, third)):
        assert not alarms(Case(net, digit_case.images, labels).looked_at(net))


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("wrap", ["trace", "DataParallel"])
def test_a_model_in_a_wrapper_of_torch_raises_no_alarm(wrap: str, digit_case: Case) -> None:
    net = copy.deepcopy(digit_case.net)
    model = torch.jit.trace(net, digit_case.images[:2]) if wrap == "trace" else nn.DataParallel(net).eval()
    assert isinstance(model, nn.Module)
    assert not alarms(digit_case.looked_at(model))


# --- how it asks --------------------------------------------------------------------------------------------------


def test_model_and_random_state_are_as_they_were(digit_case: Case) -> None:
    remembers = planted.Remembers(planted.Trains(copy.deepcopy(digit_case.net)), 10)
    buffer = remembers.average

    def noisy(images: Tensor) -> Tensor:
        return images + 0.1 * (random.random() + float(np.random.rand())) * torch.rand_like(images)

    model = Around(remembers, noisy)
    model.train()
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    first.eval()
    first.weight.requires_grad_(False)

    def state() -> tuple[dict[str, Tensor], list, list]:
        tensors = {name: tensor.clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        flags = [module.training for module in model.modules()]
        flags += [(p.requires_grad, p.grad is None) for p in model.parameters()]
        drawn = [torch.get_rng_state().tolist(), random.getstate(), repr(np.random.get_state(legacy=False))]
        return tensors, flags, drawn

    images, labels = digit_case.images.clone(), digit_case.labels.clone()
    before = state()
    # unwrapped: the type checker of the tests draws numbers of its own when a function returns
    found = inspect.unwrap(lint)(model, batch_of(images, labels), LintContext(10, NAMES))
    after = state()
    assert {"train mode", "own state", "randomness"} <= set(alarms(found))
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:] == after[1:]
    assert remembers.average is buffer
    assert torch.equal(images, digit_case.images)
    assert torch.equal(labels, digit_case.labels)


def test_the_lint_asks_the_model_a_few_dozen_times_at_most(digit_case: Case) -> None:
    asked = 0

    def counting(images: Tensor) -> Tensor:
        nonlocal asked
        asked += len(images)
        return images

    digit_case.looked_at(Around(digit_case.net, counting))
    assert asked < 24 * COUNT


def test_wrong_examples_are_refused(digit_case: Case) -> None:
    with pytest.raises(UserError, match="one label per image"):
        lint(digit_case.net, batch_of(digit_case.images, digit_case.labels[1:]), LintContext(10, NAMES))
    with pytest.raises(UserError, match="one label per image"):
        lint(digit_case.net, batch_of(digit_case.images[:0], digit_case.labels[:0]), LintContext(10, NAMES))


# --- the pieces ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_every_preparation_and_its_way_back_are_in_the_list(channels: int) -> None:
    """What is missing can be added, and what is there can be taken away: each pair gives the pixels back."""
    images = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    ways = {way.name: way for way in _preparations(nn.Identity(), channels)}
    pairs = [("pixels x 255", "pixels / 255")]
    pairs += [(name, name.replace("with ", "without ")) for name in ways if name.startswith("with ")]
    assert len(pairs) == 1 + {1: 2, 2: 1, 3: 3}[channels]
    for forth, back in pairs:
        torch.testing.assert_close(ways[back](ways[forth](images)), images)
    if channels == 3:
        torch.testing.assert_close(ways["bgr"](images), images[:, [2, 1, 0]])
        caffe = images[:, [2, 1, 0]] * 255 - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
        torch.testing.assert_close(ways["caffe"](images), caffe)


def test_the_order_of_a_perfect_model_is_found() -> None:
    labels = torch.arange(40) % 10
    logits = 4 * nn.functional.one_hot(ORDER[labels], 10).float()
    assert _order(logits, labels) == dict(enumerate(ORDER.tolist()))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=8, max_size=64), st.floats(0, 2))
def test_an_alternative_must_win_by_every_rule(pairs: list[tuple[bool, bool]], loss: float) -> None:
    """Against the binomial distribution, summed term by term."""
    from math import comb

    now, then = (torch.tensor(side) for side in zip(*pairs, strict=True))
    labels = torch.arange(len(pairs)) % 10
    constant = int(labels.bincount().max()) / len(labels)
    rival = Rival("", "input range", "", "", AnswerScore(then, loss, constant))
    won, lost = int((then & ~now).sum()), int((now & ~then).sum())
    tail = sum(comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
    if rival.is_better(AnswerScore(now, 1.0, constant)):
        assert loss < 1
        assert 2 * tail < 0.01
        assert won - lost >= 0.1 * len(pairs)
    elif loss < 1 and 2 * tail < 0.005 and won - lost >= 0.5 * len(pairs):
        assert not int(then.sum()) > 0.75 * len(pairs), "so clear a win must count"


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1), num_classes=st.integers(2, 30), channels=st.integers(1, 4), count=st.integers(1, 20)
)
def test_findings_are_complete_and_json_whatever_the_model(
    seed: int, num_classes: int, channels: int, count: int
) -> None:
    random_ = np.random.default_rng(seed)
    weight = torch.from_numpy(random_.standard_normal((channels * 16, num_classes))).float()
    power = float(10 ** random_.uniform(-30, 36))
    labels = torch.from_numpy(random_.integers(0, num_classes, count))
    images = torch.from_numpy(random_.random((count, channels, 4, 4))).float()
    model = Around(nn.Flatten(), after=lambda pixels: power * (pixels @ weight))
    found = lint(model, batch_of(images, labels), LintContext(num_classes, [str(i) for i in range(num_classes)]))
    assert [finding.kind for finding in found] == list(KINDS)
    assert all(finding.sentence for finding in found)
    assert {finding.severity for finding in found} <= {"error", "warning", "note", "passed", "unchecked"}
    json.dumps([finding._asdict() for finding in found], allow_nan=False)


# --- alarms that were false, and orders of many classes -----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [1e2, 1e4, 1e5])
@pytest.mark.parametrize("centred", [False, True], ids=["plain", "centred"])
def test_logits_beside_a_large_common_offset_are_no_alarm(offset: float, centred: bool, digit_case: Case) -> None:
    """In [0, infinity), with sums that hardly differ, and with few digits left; yet no probabilities, and nothing random."""
    shift = (lambda z: z - z.mean(1, keepdim=True)) if centred else nn.Identity()
    found = by_kind(digit_case.looked_at(Around(digit_case.net, after=lambda z: shift(z) + offset)))
    assert found["probabilities"].severity == "passed"
    assert not alarms(list(found.values()))


@pytest.mark.parametrize("total", [1, 20, 100, 255])
@pytest.mark.parametrize("temperature", [0.3, 1, 5])
def test_shares_of_any_sum_are_distinguished_from_logits(total: float, temperature: float, digit_case: Case) -> None:
    model = Around(digit_case.net, after=lambda z: total * (z / temperature).softmax(1))
    assert by_kind(digit_case.looked_at(model))["probabilities"].severity == "warning"


class Keeps(nn.Module):
    """Something of every batch, in a buffer; `used`: and looks at it."""

    def __init__(self, net: nn.Module, what: Callable[[Tensor], Tensor], *, used: bool) -> None:
        super().__init__()
        self.net, self.what, self.used = net, what, used
        self.register_buffer("kept", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images) * (1 + 0.01 * self.kept if self.used else 1)
        self.kept = self.kept + self.what(images)
        return logits


@pytest.mark.parametrize("what", [lambda x: torch.ones(()), lambda x: x.mean().detach()], ids=["calls", "mean"])
@pytest.mark.parametrize(("used", "severity"), [(False, "note"), (True, "warning")])
def test_a_statistic_that_changes_no_answer_is_a_note(what, used: bool, severity: str, digit_case: Case) -> None:
    found = by_kind(digit_case.looked_at(Keeps(digit_case.net, what, used=used)))
    assert found["own state"].severity == severity
    assert found["own state"].evidence["names"] == ["kept"]


def answers_at(right: float, labels: Tensor, num_classes: int, random_: np.random.Generator) -> Tensor:
    """Logits that are right on that share of images, and elsewhere sure of a random class."""
    said = np.where(random_.random(len(labels)) < right, labels.numpy(), random_.integers(0, num_classes, len(labels)))
    logits = torch.from_numpy(random_.standard_normal((len(labels), num_classes))).float()
    logits[torch.arange(len(labels)), torch.from_numpy(said)] += 6
    return logits


@pytest.mark.parametrize(("num_classes", "looked_at", "per_class"), [(1000, 64, 4), (100, 100, 2), (1000, 10, 4)])
def test_another_order_of_many_classes_is_seen_by_a_few_examples_of_some(
    num_classes: int, looked_at: int, per_class: int
) -> None:
    """Where the model is right on 80%: 20 of 20 orders, sorted as text among them; and no false alarm at any accuracy."""
    text = torch.tensor(sorted(range(num_classes), key=str))

    def severity(right: float, order: Tensor, seed: int) -> str:
        random_ = np.random.default_rng(seed)
        labels = torch.from_numpy(random_.choice(num_classes, looked_at, replace=False).repeat(per_class))
        logits = answers_at(right, labels, num_classes, random_)[:, order]
        images = torch.arange(len(labels)).view(-1, 1, 1, 1).float()
        table = Around(nn.Flatten(), after=lambda numbers: logits[numbers[:, 0].long()])
        examples = batch_of(images, labels)
        harness = ModelHarness(table, batch_of(images[:8], labels[:8]), LintContext(num_classes, []), examples)
        return _order_of_some(harness, examples).severity

    assert severity(0.8, text, 0) == "warning"
    for seed in range(19):
        assert (
            severity(0.8, torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)), seed) == "warning"
        )
    same = torch.arange(num_classes)
    said = [severity(right, same, seed) for right in (0.0, 0.3, 0.6, 1.0) for seed in range(15)]
    assert "warning" not in said
    assert said[-1] == "passed"
