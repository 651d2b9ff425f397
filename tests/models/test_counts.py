"""Every count of protocol tables 1.4 and 1.5, strides, dilation and map sizes, on the meta device (X20, X21, X22)."""

import re
from functools import cache

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from s3ta.models import VisionConfig, build_model, list_models, model_config, num_parameters
from s3ta.models.attention import attend
from s3ta.models.backbones import FAMILIES, PreActResNet
from s3ta.models.config import BACKBONES
from s3ta.models.cost import count
from s3ta.models.vision import VisionNet

STEM, STAGE_1, STAGE_2 = 118_013_952, 667_942_912, 1_901_068_288
CONTROLLER_STEP = 51_208_192


def _meta(name, **settings):
    with torch.device("meta"):
        return build_model(model_config(name, **settings)).eval().requires_grad_(False)


def _macs_by_part(model, image_size=224):
    with torch.no_grad(), FlopCounterMode(display=False, depth=None) as counter:
        model(torch.empty(1, 3, image_size, image_size, device="meta"))
    return {part.partition(".")[2]: sum(flops.values()) // 2 for part, flops in counter.get_flop_counts().items()}


@pytest.fixture(scope="module")
def full():
    return _meta("s3ta_16_resnetv2_152")


def test_parameters_of_the_full_model_by_component(full):
    net, head = full.vision.net, full.controller
    expected = {
        net.stem: 9_408,
        net.stages[0]: 214_912,
        net.stages[1]: 2_338_304,
        net.stages[2]: 40_610_816,
        net.stages[3]: 14_958_592,
        net.norm: 4_096,
        full.vision: 58_136_128,
        head.query: 2_467_200,
        head.query[0]: 2_073_600,
        head.query[2]: 393_600,
        head.readout: 2_074_600,
        head.readout[0]: 1_049_600,
        head.readout[2]: 1_025_000,
        head.lstm: 39_845_888 + 8_192,
        full: 102_534_056,
    }
    assert {part: num_parameters(part) for part in expected} == expected
    assert head.lstm.weight_ih.numel() + head.lstm.weight_hh.numel() == 39_845_888
    assert head.lstm.bias_ih.numel() + head.lstm.bias_hh.numel() == 8_192
    assert head.initial_hidden.numel() + head.initial_cell.numel() == 2_048
    kinds = [nn.Conv2d, nn.BatchNorm2d]
    assert [sum(num_parameters(m) for m in full.vision.modules() if isinstance(m, kind)) for kind in kinds] == [
        57_992_384,
        143_744,
    ]


def test_basis_is_constant_and_not_stored(full):
    assert full.basis.numel() == 50_176
    assert isinstance(full.basis, torch.Tensor)
    assert not isinstance(full.basis, nn.Parameter)
    assert "basis" not in full.state_dict()


def test_parameters_of_the_rivals():
    for name in ("resnetv2_152", "resnetv2_152_dense"):
        model = _meta(name)
        assert num_parameters(model) == 60_185_128
        assert num_parameters(model.classifier) == 2_049_000


@pytest.mark.parametrize("name", ["s3ta_2_resnetv2_152", "resnetv2_152_dense", "resnetv2_152"])
def test_cost_by_part(name):
    parts = _macs_by_part(_meta(name))
    stages = [parts[f"vision.net.stages.{i}"] for i in range(4)]
    late = [8_015_314_944, 809_238_528] if name == "resnetv2_152" else [31_752_978_432, 11_714_691_072]
    assert parts["vision.net.stem"] == STEM
    assert stages == [STAGE_1, STAGE_2, *late]
    total = {
        "s3ta_2_resnetv2_152": 46_154_694_656 + 2 * CONTROLLER_STEP,
        "resnetv2_152_dense": 46_156_742_656,
        "resnetv2_152": 11_513_626_624,
    }[name]
    assert parts[""] == total
    if name.startswith("s3ta"):
        assert parts["vision"] == 46_154_694_656
        assert parts["controller"] == 2 * CONTROLLER_STEP
        assert [parts[f"controller.{part}"] for part in ("lstm", "query", "readout")] == [
            2 * 39_845_888,
            2 * 2_465_792,
            2 * 2_072_576,
        ]
    else:
        assert parts["classifier"] == 2_048_000


@pytest.mark.parametrize(("num_values", "macs"), [(2016, 301_056 + 6_522_880), (1, 301_056 + 784 * 65 * 4)])
def test_cost_of_one_look(num_values, macs):
    shapes = [(1, 4, 96), (1, 32, 28, 28), (1, num_values, 28, 28), (64, 28, 28)]
    with FlopCounterMode(display=False) as counter:
        attend(*(torch.empty(shape, device="meta") for shape in shapes))
    assert counter.get_total_flops() == 2 * macs


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("s3ta_2_resnetv2_152", 46_257_111_040),
        ("s3ta_4_resnetv2_152", 46_359_527_424),
        ("s3ta_8_resnetv2_152", 46_564_360_192),
        ("s3ta_16_resnetv2_152", 46_974_025_728),
        ("resnetv2_152_dense", 46_156_742_656),
        ("resnetv2_152", 11_513_626_624),
    ],
)
def test_count_at_full_size(name, total):
    cost = count(model_config(name))
    assert cost.multiply_accumulates == total
    assert cost.parameters == (102_534_056 if name.startswith("s3ta") else 60_185_128)
    assert cost.map_size == ((7, 7) if name == "resnetv2_152" else (28, 28))


@pytest.mark.parametrize("name", ["s3ta_2_resnetv2_152", "resnetv2_18_dense", "s3ta_4_resnetv2_mini"])
@pytest.mark.parametrize(("image_size", "side"), [(224, 28), (96, 24), (60, 15), (32, 16)])
def test_map_sizes(name, image_size, side):
    config = model_config(name, image_size=image_size)
    assert count(config).map_size == (side, side)
    with torch.device("meta"):
        assert VisionNet(config.vision).backbone.map_size(image_size) == side


@pytest.mark.parametrize("stem", ["conv7_pool", "conv7", "conv3"])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("image_size", [1, 7, 29, 31, 64])
def test_map_size_is_that_of_the_map(stem, dense, image_size):
    config = VisionConfig(backbone="resnetv2_18", stem=stem, dense=dense, image_size=image_size)
    with torch.device("meta"), torch.no_grad():
        net = VisionNet(config).eval()
        side = net.backbone.map_size(image_size)
        assert net(torch.empty(1, 3, image_size, image_size)).shape == (1, 512, side, side)


@pytest.mark.parametrize(
    "name", ["resnetv2_mini", "resnetv2_mini_dense", "s3ta_2_resnetv2_mini", "s3ta_4_resnetv2_mini"]
)
def test_mini_stays_below_20_million_multiply_accumulates_on_the_digits(name):
    cost = count(model_config(name, num_classes=10, image_size=60, in_channels=1))
    assert 1_000_000 < cost.multiply_accumulates <= 20_000_000


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("dense", [True, False])
def test_parts_of_a_backbone_compute_its_features(backbone, dense):
    with torch.device("meta"), torch.no_grad():
        vision = VisionNet(VisionConfig(backbone=backbone, dense=dense)).eval()
        images, parts = torch.empty(1, 3, 64, 64), vision.backbone
        with FlopCounterMode(display=False) as whole:
            expected = vision(images)
        with FlopCounterMode(display=False) as walked:
            features = parts.last(nn.Sequential(*parts.units)(parts.stem(images)))
    side = parts.map_size(64)
    assert features.shape == expected.shape == (1, vision.num_features, side, side)
    assert walked.get_total_flops() == whole.get_total_flops()


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if FAMILIES[name] is PreActResNet])
@pytest.mark.parametrize("dense", [True, False])
def test_strides_and_no_dilation(backbone, dense):
    with torch.device("meta"):
        net = VisionNet(VisionConfig(backbone=backbone, dense=dense)).net
    for name, module in net.named_modules():
        assert getattr(module, "dilation", (1, 1)) in (1, (1, 1)), name
    wanted = ([1, 2, 1, 1] if dense else [1, 2, 2, 2])[: len(net.stages)]
    for stage, stride in zip(net.stages, wanted, strict=True):
        first, *others = stage.blocks
        basic = backbone in ("resnetv2_mini", "resnetv2_18", "resnetv2_34", "wrn_28_8", "wrn_28_10")
        assert (first.conv1 if basic else first.conv2).stride == (stride, stride)
        if first.downsample is None:
            assert stride == 1
        else:
            assert first.downsample.conv.stride == (stride, stride)
        strided = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
        assert len(strided) == (2 if stride == 2 else 0)
        assert all(block.downsample is None for block in others)
        assert all(m.padding == (1, 1) for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))


@cache
def _num_features(backbone):
    return _meta(backbone).vision.num_features


SIDES_AT_32 = dict.fromkeys(BACKBONES, (16, 4)) | dict.fromkeys(("resnetv2_mini", "wrn_28_8", "wrn_28_10"), (16, 8))
"""Of the dense map of a backbone, and of its own."""


@cache
def _at_32_pixels(name):
    return count(model_config(name, num_classes=7, image_size=32))


@pytest.mark.parametrize("name", list_models())
def test_every_model_builds_and_counts(name):
    cost = _at_32_pixels(name)
    if name.startswith("s3ta"):
        _, glimpses, backbone = name.split("_", 2)
        rival, one = _at_32_pixels(f"{backbone}_dense"), _at_32_pixels(f"s3ta_1_{backbone}")
        linear = 7 * _num_features(backbone)
        step = one.multiply_accumulates - (rival.multiply_accumulates - linear)
        assert step > 0
        assert cost.multiply_accumulates == one.multiply_accumulates + (int(glimpses) - 1) * step
        assert cost.parameters == one.parameters > rival.parameters
        assert cost.map_size == rival.map_size
    else:
        backbone = re.sub("_(dense|denoise|se)$", "", name)
        side = SIDES_AT_32[backbone][not name.endswith("_dense")]
        assert cost.map_size == (side, side), (
            f"add the sides of the maps of {backbone} to SIDES_AT_32, if that is right"
        )
        plain = _at_32_pixels(backbone).parameters
        assert cost.parameters > plain if name.endswith(("_denoise", "_se")) else cost.parameters == plain


def test_wide_resnet_28_10_has_the_parameters_of_its_paper():
    """Zagoruyko and Komodakis 2016, table 4: 36.5 million; 36,479,194 in every reimplementation with ten classes."""
    plain, dense, s3ta = (
        count(model_config(name, num_classes=10, image_size=32))
        for name in ("wrn_28_10", "wrn_28_10_dense", "s3ta_1_wrn_28_10")
    )
    assert plain.parameters == dense.parameters == 36_479_194
    assert (plain.map_size, dense.map_size) == ((8, 8), (16, 16))
    queried = 4 * (32 + 64)
    answered = 4 * (640 - 32 + 64)
    lstm = 4 * 1024 * (answered + queried + 1024) + 2 * 4096
    query, readout = 1034 * 1024 + 1024 + 1024 * queried + queried, 1024 * 1024 + 1024 + 1024 * 10 + 10
    assert s3ta.parameters == 36_479_194 - 6410 + lstm + query + readout + 2 * 1024


def test_counting_takes_no_memory_and_leaves_no_trace():
    before = torch.get_rng_state()
    count(model_config("s3ta_2_resnetv2_152"))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.empty(1).device.type == "cpu"
