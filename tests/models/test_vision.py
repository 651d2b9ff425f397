"""The vision net: non-negative features (X22), where pixels are normalised (T3), batch norm (X2), and odd sizes."""

import pytest
import torch
from torch import nn

from s3ta.errors import UserError
from s3ta.models import ResNetConfig, S3TAConfig, VisionConfig, build_model
from s3ta.models.vision import Normalize, VisionNet

from .helpers import mini_config, pictures, shaken_model


@pytest.mark.parametrize("backbone", ["resnetv2_mini", "resnetv2_18"])
def test_final_norm_and_relu_are_kept(backbone):
    torch.manual_seed(0)
    net = VisionNet(VisionConfig(backbone=backbone, stem="conv3")).eval()
    with torch.no_grad():
        features = net(pictures(2, 3, 12, 20))
        last = net.net.stages(net.net.stem(net.normalize(pictures(2, 3, 12, 20))))
    assert features.shape == (2, net.num_features, 6, 10)
    assert features.min() == 0 < features.max()
    assert last.min() < 0  # without the final ReLU the map would have negative entries
    assert isinstance(net.net.norm, nn.BatchNorm2d)
    assert sum(p.numel() for p in net.net.norm.parameters()) == 2 * net.num_features


def test_the_first_layer_sees_2p_minus_1():
    net = VisionNet(VisionConfig(backbone="resnetv2_mini", stem="conv3")).eval()
    seen = []
    net.net.stem.conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = pictures(2, 3, 5, 7)
    net(images)
    torch.testing.assert_close(seen[0], 2 * images - 1, rtol=0, atol=1e-6)


def test_mean_and_std_per_channel_are_config_not_weights():
    normalize = Normalize((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))
    images = torch.full((2, 3, 5, 7), 0.5)
    assert normalize(images)[0, :, 0, 0].tolist() == [0.5, 0.0, -2.0]
    assert list(normalize.state_dict()) == []
    assert list(normalize.parameters()) == []


@pytest.mark.parametrize("field", ["mean", "std"])
@pytest.mark.parametrize("numbers", [(), (0.5, 0.5), (0.5,) * 4])
@pytest.mark.parametrize("kind", [ResNetConfig, S3TAConfig])
def test_wrong_number_of_means_is_a_clear_error(field, numbers, kind):
    vision = VisionConfig(backbone="resnetv2_mini", in_channels=3, **{field: numbers})
    with pytest.raises(UserError, match=rf"vision\.{field} has {len(numbers)} numbers.* 3 channels"):
        build_model(kind(vision=vision))


@pytest.mark.parametrize("in_channels", [1, 2, 5])
@pytest.mark.parametrize("stem", ["conv7_pool", "conv7", "conv3"])
def test_any_number_of_channels_is_taken(in_channels, stem):
    model = shaken_model(in_channels=in_channels, stem=stem)
    images = pictures(2, in_channels, 24, 16)
    logits = model(images)
    assert logits.shape == (2, 5)
    for channel in range(in_channels):  # every channel is read
        other = images.clone()
        other[:, channel] = 1 - other[:, channel]
        assert (model(other) - logits).abs().max() > 1e-4


@pytest.mark.parametrize("size", [(1, 1), (3, 29), (31, 5), (17, 17), (12, 12)])
def test_any_image_size_is_taken(size):
    model = shaken_model(image_size=12)
    trace = model.unroll(pictures(2, 2, *size))
    assert trace.logits.shape == (3, 2, 5)
    assert trace.attention.shape == (3, 2, 3, -(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(trace.attention.sum((-1, -2)), torch.ones(3, 2, 3))


def _rival():
    torch.manual_seed(1)
    return build_model(ResNetConfig(num_classes=5, vision=VisionConfig(backbone="resnetv2_mini", stem="conv3")))


def _s3ta():
    return shaken_model(in_channels=3)


def _fresh_s3ta():
    torch.manual_seed(2)
    return build_model(mini_config(in_channels=3))


@pytest.mark.parametrize(
    ("build", "dtype", "tolerance"),
    [(_rival, torch.float32, 1e-6), (_fresh_s3ta, torch.float32, 1e-6), (_s3ta, torch.float64, 1e-13)],
)
def test_in_eval_mode_an_image_does_not_depend_on_its_batch(build, dtype, tolerance):
    model = build().eval().to(dtype)
    images = pictures(5, 3, 10, 14, dtype=dtype)
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)
    assert together.std(0).min() > 1e-4


@pytest.mark.parametrize("build", [_rival, _s3ta])
def test_in_train_mode_an_image_depends_on_its_batch(build):
    model = build().train()
    images = pictures(3, 3, 10, 14)
    with torch.no_grad():
        one, other = model(images)[0], model(torch.cat([images[:1], images[1:].square()]))[0]
    assert (one - other).abs().max() > 1e-4


def test_rival_averages_the_map_and_applies_one_linear_layer():
    model = _rival().eval()
    images = pictures(2, 3, 10, 14)
    with torch.no_grad():
        pooled = torch.stack([feature.flatten(1).mean(1) for feature in model.vision(images)])
        expected = pooled @ model.classifier.weight.T + model.classifier.bias
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-6)
    assert model.classifier.bias.count_nonzero() == 0
