"""`vision.padding=same` is TensorFlow's SAME padding (M4a), beside plain loops in float64."""

from __future__ import annotations

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from s3ta.errors import UserError
from s3ta.models import VisionConfig, build_model, model_config
from s3ta.models.backbones import build_backbone
from s3ta.models.padding import pad_as_tensorflow
from tests.reference import same_padding

SIZES = (5, 8, 9, 14, 15)


def padded(layer: nn.Module) -> nn.Module:
    """The layer with SAME padding."""
    net = nn.Sequential(layer)
    pad_as_tensorflow(net)
    return net[0].double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (3, 1), (1, 2), (5, 3)])
def test_convolutions_agree_with_plain_loops(size: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = padded(nn.Conv2d(3, 4, kernel, stride, padding=kernel // 2, bias=False))
    features = torch.randn(3, size, size + 2, dtype=torch.float64)
    expected = same_padding.convolution(features.numpy(), layer.weight.permute(2, 3, 1, 0).detach().numpy(), stride)
    assert abs(layer(features[None])[0].detach().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("size", SIZES)
def test_pools_agree_with_plain_loops_where_all_is_negative(size: int) -> None:
    features = -1 - torch.rand(2, size, size + 1, dtype=torch.float64)
    answer = padded(nn.MaxPool2d(3, 2, padding=1))(features[None])[0]
    assert (answer.numpy() == same_padding.max_pool(features.numpy(), 3, 2)).all()


def test_windows_of_the_stem_at_224_px_are_those_of_the_protocol() -> None:
    assert same_padding.windows(224, 7, 2)[0] == -2
    assert same_padding.windows(112, 3, 2)[0] == 0
    assert len(same_padding.windows(224, 7, 2)) == 112


@pytest.mark.parametrize("backbone", ["resnetv2_18", "resnet18", "resnet50"])
@pytest.mark.parametrize("dense", [False, True])
def test_padding_changes_strided_layers_alone_and_no_name_or_size(backbone: str, dense: bool) -> None:
    symmetric = VisionConfig(backbone=backbone, dense=dense, image_size=64)
    one = build_backbone(symmetric)
    other = build_backbone(symmetric.model_copy(update={"padding": "same"}))
    assert {name: value.shape for name, value in one.net.state_dict().items()} == {
        name: value.shape for name, value in other.net.state_dict().items()
    }
    images = torch.rand(1, 3, 65, 65)
    assert one.features(images).shape == other.features(images).shape
    assert other.map_size(65) == other.features(images).shape[-1]
    strided = [
        part
        for part in other.net.modules()
        if isinstance(part, nn.Conv2d) and part.stride != (1, 1) and part.kernel_size != (1, 1)
    ]
    assert strided
    assert all(isinstance(part, Conv2dSame) for part in strided)
    assert sum(isinstance(part, MaxPool2dSame) for part in other.net.modules()) == 1
    assert not any(isinstance(part, Conv2dSame | MaxPool2dSame) for part in one.net.modules())


def test_the_answer_depends_on_the_padding() -> None:
    config = model_config("resnet18", 10, 224)
    same = config.model_copy(update={"vision": config.vision.model_copy(update={"padding": "same"})})
    one, other = build_model(config).eval(), build_model(same).eval()
    other.load_state_dict(one.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert (one(images) - other(images)).abs().max() > 1e-4


def test_a_network_of_timm_refuses_another_padding() -> None:
    with pytest.raises(UserError, match=r"vision\.padding is for ResNets"):
        build_backbone(VisionConfig(backbone="convnext_atto", dense=False, padding="same"))
