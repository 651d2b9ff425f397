"""S3TA and its plain rival on networks of timm of many families, at small cost where that suffices."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from s3ta.attacks import PGDConfig, RandomKey, run_attack
from s3ta.errors import UserError
from s3ta.models import build_model, create_model, model_config
from s3ta.models.config import ModelConfig, VisionConfig
from s3ta.models.cost import count
from s3ta.models.timm_backbone import TimmBackbone
from s3ta.train import AdversarialLoss, LocalLinearityLoss
from s3ta.train.losses import Learner
from s3ta.train.step import _backward

SIZES = {
    "convnext_tiny": (7, 768),
    "resnext50_32x4d": (7, 2048),
    "regnety_008": (7, 768),
    "efficientnet_lite0": (7, 320),
    "mobilenetv3_large_100": (7, 960),
    "densenet121": (7, 1024),
    "swin_tiny_patch4_window7_224": (7, 768),
    "vit_small_patch16_224": (14, 384),
    "maxvit_tiny_tf_224": (7, 512),
    "pvt_v2_b0": (7, 256),
    "coatnet_0_rw_224": (7, 768),
    "efficientformer_l1": (7, 448),
}
"""Side and channels of the last map, at the network's own image size."""
SMALL = ("mobilenetv3_small_050", "pvt_v2_b0", "vit_tiny_patch16_224", "convnext_atto")


@pytest.mark.thorough
@pytest.mark.parametrize("name", SIZES)
def test_maps_and_counts_of_twelve_families(name: str) -> None:
    """The head of S3TA costs what it costs on a ResNet with as many channels, whatever the network."""
    side, channels = SIZES[name]
    plain, s3ta, other = (model_config(prefix + name, 10) for prefix in ("", "s3ta_4_", "s3ta_8_"))
    costs = [count(config) for config in (plain, s3ta, other)]
    assert all(cost.map_size == (side, side) for cost in costs)
    with torch.device("meta"):
        net = build_model(s3ta)
        whole = timm.create_model(name)
    assert net.vision.num_features == channels
    assert costs[0].parameters == sum(p.numel() for p in net.vision.parameters()) + 10 * channels + 10
    assert costs[2].parameters == costs[1].parameters
    queried, keys, basis = 4 * (32 + 64), 32, 64
    places = side * side
    read = 4 * places * (keys + basis) + 4 * places * (channels - keys + basis)
    lstm = 4 * 1024 * (4 * (channels - keys + basis) + queried + 1024)
    query, readout = (1024 + 10) * 1024 + 1024 * queried, 1024 * 1024 + 1024 * 10
    assert costs[2].multiply_accumulates - costs[1].multiply_accumulates == 4 * (read + lstm + query + readout)
    assert set(net.vision.net.state_dict()) <= set(whole.state_dict())
    assert set(net.vision.backbone.not_built) == set(whole.state_dict()) - set(net.vision.net.state_dict())


@pytest.mark.thorough
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("head", ["", "s3ta_2_"])
def test_an_attack_and_a_training_step(name: str, head: str) -> None:
    torch.manual_seed(0)
    model = create_model(head + name, 5)
    size = model.config.vision.image_size
    images, labels = torch.rand(2, 3, size, size), torch.tensor([1, 4])
    if head:
        trace = model.unroll(images, 3)  # pyright: ignore
        assert trace.logits.shape == (3, 2, 5)
        assert trace.attention.shape[-1] == model.vision.backbone.map_size(size)
        torch.testing.assert_close(trace.attention.sum(dim=(-2, -1)), torch.ones(3, 2, 4))
    config = PGDConfig(objective="untargeted", num_attack_steps=2, step_size=8 / 255)
    attacked = run_attack(model, images, labels, config=config, draw=RandomKey(0, ("a", "b"), ("test",))).final
    assert 0 < (attacked - images).abs().max() <= 16 / 255 + 1e-6
    before = copy.deepcopy(model.state_dict())
    kind = AdversarialLoss() if name.startswith("mobilenetv3") else LocalLinearityLoss()  # hardsigmoid: see below
    loss, _ = Learner(model, kind, 0.0)(images, attacked, labels, None)
    _backward(loss)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert any(
        not torch.equal(value, before[key]) for key, value in model.state_dict().items() if key.startswith("vision.")
    )


def test_it_answers_as_timm_does_up_to_the_head() -> None:
    """Pixels are normalised by the numbers of the network's own card, then timm's own features are averaged."""
    torch.manual_seed(0)
    model = create_model("mobilenetv3_small_050", 5).eval()
    whole = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    missing, unexpected = whole.load_state_dict(model.vision.net.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith(("conv_head", "norm_head")) for name in missing)
    images = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(whole.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        features = whole.forward_features((images - mean) / std)
        torch.testing.assert_close(model.vision(images), features)
        torch.testing.assert_close(model(images), model.classifier(features.mean(dim=(2, 3))))  # pyright: ignore


def test_a_layer_that_cannot_be_differentiated_twice_is_named() -> None:
    model, labels = create_model("mobilenetv3_small_050", 5), torch.tensor([1, 4])
    images = torch.rand(2, 3, 224, 224)
    loss, _ = Learner(model, LocalLinearityLoss(), 0.0)(images, 0.9 * images, labels, None)
    with pytest.raises(UserError, match="torch cannot for the network's hardsigmoid"):
        _backward(loss)


def with_vision(**settings) -> ModelConfig:
    config = model_config("mobilenetv3_small_050", 5)
    return config.model_copy(update={"vision": config.vision.model_copy(update=settings)})


def test_an_earlier_stage_has_a_finer_map_and_nothing_after_it() -> None:
    last, earlier = (build_model(with_vision(stage=stage)) for stage in (None, -2))
    assert (last.vision.backbone.map_size(224), earlier.vision.backbone.map_size(224)) == (7, 14)
    assert sum(p.numel() for p in earlier.vision.parameters()) < sum(p.numel() for p in last.vision.parameters())
    assert earlier(torch.rand(2, 3, 224, 224)).shape == (2, 5)
    assert build_model(with_vision(stage=4)).vision.backbone.map_size(224) == 7
    with pytest.raises(UserError, match=r"vision\.stage is 9, but mobilenetv3_small_050 has 5 stages"):
        build_model(with_vision(stage=9))


def test_the_network_is_built_for_the_image_size_where_it_must_be() -> None:
    model = create_model("s3ta_1_vit_tiny_patch16_224", 5, image_size=64, in_channels=1)
    assert model.config.vision.mean == (0.5,)
    assert model(torch.rand(2, 1, 64, 64)).shape == (2, 5)


def test_units_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    config = model_config("convnext_atto", 5, 64)
    model = build_model(config.model_copy(update={"vision": config.vision.model_copy(update={"drop_path": 0.5})}))
    images = torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model.train()(images), model(images))
        assert torch.equal(model.eval()(images), model(images))


def test_what_is_said_of_networks_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"Unknown backbone 'convnext_tinny'.*convnext_tiny"):
        build_model(with_vision(backbone="convnext_tinny"))
    with pytest.raises(UserError, match=r"vision\.dense is for ResNets, and mobilenetv3_small_050 is none"):
        build_model(with_vision(dense=True))
    with pytest.raises(UserError, match=r"refuses images of 3 px"):
        TimmBackbone(VisionConfig(backbone="vit_tiny_patch16_224", dense=False, image_size=3))

    class Flat(nn.Module):
        feature_info = ()

    monkeypatch.setattr(timm, "create_model", lambda *args, **kwargs: Flat())
    with pytest.raises(UserError, match="gives no map of features"):
        build_model(with_vision())
