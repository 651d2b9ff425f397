"""Lower precision, compilation and memory order: the same weights, answers near those of plain float32 (X10, X40)."""

import copy
from functools import cache

import pytest
import torch

from s3ta.attacks import autograd_gradient, untargeted
from s3ta.errors import UserError
from s3ta.models import ExecutedModel, ExecutionMode, ResNetConfig, VisionConfig, build_model
from tests.reference.bfloat16 import check_input_gradients

from .helpers import mini_config, pictures, shaken_model

LABELS = torch.arange(32) % 5
SLOW = (
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::Warning"),
)  # what the compiler says of type checks in tests
COMPILED = pytest.param(ExecutionMode(compiled=True), marks=SLOW, id="compiled")
BOTH = pytest.param(ExecutionMode(precision="bfloat16", compiled=True, channels_last=True), marks=SLOW, id="everything")


def _images(count=32):
    return pictures(count, 2, 12, 12)


def _corners():
    """32 images of five classes, each bright in another corner."""
    images = _images() / 2
    for image, label in zip(images, LABELS.tolist(), strict=True):
        image[label % 2, 6 * (label // 2 % 2) :, 5 * (label // 4) :][:6, :5] += 0.5
    return images


@cache
def _learned(kind):
    """Thirty steps on those images, for a net that never learned anything has hardly a gradient; not to be changed."""
    torch.manual_seed(1)
    model = (_resnet() if kind == "resnet" else build_model(mini_config())).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2 if kind == "resnet" else 3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(_corners()), LABELS).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def _resnet():
    torch.manual_seed(1)
    vision = VisionConfig(backbone="resnetv2_mini", stem="conv3", in_channels=2, image_size=12)
    return build_model(ResNetConfig(num_classes=5, vision=vision)).eval()


@pytest.mark.parametrize("build", [shaken_model, _resnet])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("manner", [pytest.param(ExecutionMode(channels_last=True), id="channels_last"), COMPILED])
def test_x40_answers_agree_to_a_thousandth(build, training, manner):
    model = build().train(training)
    expected = copy.deepcopy(model)(_images()).detach()
    found = ExecutedModel(copy.deepcopy(model), manner)(_images()).detach()
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.995


MANNERS = [
    pytest.param(ExecutionMode(precision="bfloat16"), id="bfloat16"),
    pytest.param(ExecutionMode(channels_last=True), id="channels_last"),
    COMPILED,
    BOTH,
]


@pytest.mark.parametrize("kind", ["s3ta", "resnet"])
@pytest.mark.parametrize("manner", MANNERS)
def test_x10_input_gradients_point_the_same_way(kind, manner):
    """In bfloat16, over four sets of instructions (torch's default, AVX2, AVX-512; oneDNN's SSE4.1 to AVX-512) 96.2% to 96.6%
    of the signs were the same for S3TA, 97.8% to 97.9% for the ResNet, and 0 to 8 of 9,216 gradients became zero."""
    model = copy.deepcopy(_learned(kind)).eval()
    expected = autograd_gradient(model, untargeted(LABELS), _corners()).gradient
    found = autograd_gradient(ExecutedModel(copy.deepcopy(model), manner), untargeted(LABELS), _corners()).gradient
    check_input_gradients(found, expected)
    if manner.precision == "bfloat16":
        assert not torch.equal(found, expected)  # otherwise it is not in use


@pytest.mark.parametrize("kind", ["s3ta", "resnet"])
@pytest.mark.parametrize("manner", MANNERS)
def test_gradients_of_weights_point_the_same_way(kind, manner):
    model = copy.deepcopy(_learned(kind)).train()
    other = copy.deepcopy(model)
    for each, run in ((model, model), (other, ExecutedModel(other, manner))):
        torch.nn.functional.cross_entropy(run(_corners()), LABELS).backward()
        assert {p.grad.dtype for p in each.parameters()} == {torch.float32}
    one, two = (torch.cat([p.grad.flatten() for p in each.parameters()]).double() for each in (model, other))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > (0.95 if manner.precision == "bfloat16" else 0.9999)
    for (name, ours), theirs in zip(other.named_buffers(), model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.01, msg=name)


def test_bfloat16_is_used_inside_and_float32_comes_out():
    model, seen = shaken_model(), []
    model.vision.net.stages[0].blocks[0].conv1.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    inside = ExecutedModel(model, ExecutionMode(precision="bfloat16"))
    trace = inside.unroll(_images(3), 2)
    assert seen == [torch.bfloat16]
    assert trace.logits.dtype == trace.attention.dtype == torch.float32
    assert inside(_images(3)).dtype == torch.float32
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_gradients_of_weights_are_float32_and_their_own():
    model = shaken_model().train()
    inside = ExecutedModel(model, ExecutionMode(precision="bfloat16", channels_last=True))
    inside(_images(4)).square().sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}
    assert {id(p) for p in inside.parameters()} == {id(p) for p in model.parameters()}


def test_memory_order_changes_no_name_shape_or_number():
    model = shaken_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inside = ExecutedModel(model, ExecutionMode(channels_last=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    kernel = model.vision.net.stages[0].blocks[0].conv1.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    seen = []
    model.vision.net.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inside(_images(4))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("glimpses", [1, 2, 5])
def test_a_trace_is_the_models_own(glimpses):
    model = shaken_model()
    expected, found = (
        model.unroll(_images(3), glimpses),
        ExecutedModel(model, ExecutionMode()).unroll(_images(3), glimpses),
    )
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.attention, expected.attention)


def test_mode_and_weights_are_shared():
    model = build_model(mini_config())
    inside = ExecutedModel(model, ExecutionMode(channels_last=True))
    inside.eval()
    assert not model.training
    with torch.no_grad():
        model.vision.net.stem.conv.weight.mul_(2)
    assert torch.equal(inside(_images(2)), model(_images(2)))


def test_glimpses_of_a_model_without_any_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="the model is not a sequential one"):
        ExecutedModel(_resnet(), ExecutionMode()).unroll(_images(2))
