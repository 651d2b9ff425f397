"""The whole forward pass against the float64 reference: logits and attention of every glimpse, and the vision net."""

import numpy as np
import pytest
import torch

from s3ta.models import ResNetConfig, S3TAConfig, VisionConfig, build_model
from tests.reference import s3ta_float64

from .helpers import TINY_HEAD, pictures, shaken_model

SETTINGS = [
    {},
    {"first_logits": "readout"},
    {"num_heads": 2, "key_channels": 11, "num_frequencies": 3},
    {"num_heads": 1, "key_channels": 63, "num_frequencies": 1, "in_channels": 1},
    {"stem": "conv7", "in_channels": 3},
    {"stem": "conv7_pool"},
    {"basis_origin": 0.5},
    {"basis_origin": 1.0, "first_logits": "readout", "num_frequencies": 1},
    {"feeds_back_logits": False},
    {"scaled_attention": True},
    {"num_frequencies": 0},
    {"cell": "gru"},
    {"cell": "gru", "feeds_back_logits": False, "num_frequencies": 0, "scaled_attention": True, "num_heads": 8},
]


def _both(model, images, num_glimpses):
    config = model.config
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    expected = s3ta_float64.forward(
        weights,
        images.double().numpy(),
        num_glimpses=num_glimpses,
        num_heads=config.num_heads,
        key_channels=config.key_channels,
        num_frequencies=config.num_frequencies,
        origin=config.basis_origin,
        first_logits=config.first_logits,
        pool=config.vision.stem == "conv7_pool",
        scaled_attention=config.scaled_attention,
    )
    with torch.no_grad():
        return model.unroll(images, num_glimpses), expected


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_float64_agrees_to_1e_10_at_every_glimpse(settings):
    model = shaken_model(**settings).double()
    images = pictures(2, model.config.vision.in_channels, 24, 20, dtype=torch.float64)
    trace, (logits, attention) = _both(model, images, num_glimpses=5)
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-10)
    # the comparison would be empty if all images, heads, places and glimpses were alike
    assert np.abs(attention - attention.mean(axis=(3, 4), keepdims=True)).max() > 0.2 / attention[0, 0, 0].size
    for axis in range(2):
        assert np.ptp(logits, axis=axis).max() > 1e-3


@pytest.mark.parametrize(
    "settings", [{}, {"cell": "gru", "num_heads": 1, "num_frequencies": 0}, {"num_heads": 1}], ids=str
)
def test_without_queries_the_mean_of_the_map_is_read_at_every_glimpse(settings):
    model = shaken_model(queries="none", **settings).double()
    images = pictures(2, 2, 11, 14, dtype=torch.float64)
    trace, (logits, attention) = _both(model, images, num_glimpses=5)
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(trace.attention.numpy(), trace.attention.numpy().flat[0])
    for axis in range(2):
        assert np.ptp(logits, axis=axis).max() > 1e-3


def test_a_hidden_layer_after_the_average_agrees_with_the_reference():
    torch.manual_seed(3)
    vision = VisionConfig(backbone="resnetv2_mini", stem="conv3", in_channels=2, image_size=12)
    model = build_model(ResNetConfig(num_classes=5, vision=vision, mlp_hidden=17)).double().eval()
    images = pictures(2, 2, 12, 10, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    means = [s3ta_float64.vision(weights, image).mean(axis=(1, 2)) for image in images.numpy()]
    expected = np.stack([s3ta_float64.mlp(weights, "classifier", mean) for mean in means])
    with torch.no_grad():
        np.testing.assert_allclose(model(images).numpy(), expected, rtol=0, atol=1e-10)
    assert np.ptp(expected, axis=0).max() > 1e-3


@pytest.mark.parametrize("num_glimpses", [1, 2, 3, 7])
def test_other_glimpse_counts_than_in_training_agree_with_the_reference(num_glimpses):
    model = shaken_model().double()
    trace, (logits, attention) = _both(model, pictures(1, 2, 11, 14, dtype=torch.float64), num_glimpses)
    assert trace.logits.shape[0] == trace.attention.shape[0] == num_glimpses
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("origin", "first_logits"), [(0.0, "readout"), (0.5, "zeros"), (1.0, "readout")])
def test_an_odd_map_and_another_basis_origin_agree_with_the_reference(origin, first_logits):
    """Both sides are odd and of no common factor, so that no half and no swapped axis is hidden."""
    model = shaken_model(basis_origin=origin, first_logits=first_logits).double()
    trace, (logits, attention) = _both(model, pictures(1, 2, 45, 53, dtype=torch.float64), num_glimpses=3)
    assert trace.attention.shape[-2:] == (23, 27)
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-12)


def test_sixteen_glimpses_with_saturated_attention_agree_with_the_reference():
    """Queries forty times as long put nearly all of a map on one place; sixteen glimpses pass roundings on."""
    model = shaken_model().double()
    with torch.no_grad():
        model.controller.query[2].weight.mul_(40)
    trace, (logits, attention) = _both(model, pictures(2, 2, 11, 14, dtype=torch.float64), num_glimpses=16)
    assert np.median(attention.max(axis=(3, 4))) > 0.99
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-9)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-9)


def test_a_resnet_18_agrees_too():
    """Four stages of two units, the last two at the stride of the one before them (M2, M3)."""
    torch.manual_seed(5)
    vision = VisionConfig(backbone="resnetv2_18", stem="conv3", in_channels=3, image_size=12)
    model = build_model(S3TAConfig(name="eighteen", vision=vision, num_glimpses=3, **TINY_HEAD)).double().eval()
    trace, (logits, attention) = _both(model, pictures(1, 3, 6, 8, dtype=torch.float64), num_glimpses=3)
    assert trace.attention.shape[-2:] == (3, 4)
    assert np.abs(logits).max() > 1e-3
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-12)


def test_float32_agrees_to_1e_5():
    model = shaken_model()
    trace, (logits, attention) = _both(model, pictures(2, 2, 24, 20), num_glimpses=5)
    assert trace.logits.dtype == trace.attention.dtype == torch.float32
    np.testing.assert_allclose(trace.logits.numpy(), logits, rtol=0, atol=1e-5)
    np.testing.assert_allclose(trace.attention.numpy(), attention, rtol=0, atol=1e-5)


def test_the_vision_net_agrees_with_the_reference():
    model = shaken_model(stem="conv7", in_channels=3).double()
    images = pictures(2, 3, 24, 20, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = np.stack([s3ta_float64.vision(weights, image) for image in images.numpy()])
    with torch.no_grad():
        features = model.vision(images).numpy()
    assert features.shape == (2, 64, 6, 5)
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-10)
