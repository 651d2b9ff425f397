"""Names to models: every listed name, wrong names, sizes, and real passes forward and backward."""

import inspect

import pytest
import torch

import s3ta
from s3ta.errors import UserError
from s3ta.models import (
    S3TA,
    PooledClassifier,
    S3TAConfig,
    VisionConfig,
    build_model,
    create_model,
    default_stem,
    list_models,
    model_config,
)
from s3ta.models.config import BACKBONES

from .helpers import mini_config, pictures


def test_signature_is_what_the_documents_say():
    parameters = inspect.signature(create_model).parameters
    assert [(name, p.default) for name, p in parameters.items()] == [
        ("name", inspect.Parameter.empty),
        ("num_classes", 1000),
        ("image_size", None),
        ("in_channels", 3),
    ]
    assert s3ta.create_model is create_model
    assert s3ta.list_models is list_models


def test_all_models_are_listed():
    names = list_models()
    expected = {
        f"{head}{backbone}" for backbone in BACKBONES for head in ("", "s3ta_2_", "s3ta_4_", "s3ta_8_", "s3ta_16_")
    }
    parts = ("_dense", "_denoise", "_se")
    assert sorted(names) == sorted(expected | {f"{backbone}{part}" for backbone in BACKBONES for part in parts})


@pytest.mark.parametrize("name", list_models())
def test_every_name_gives_its_config(name):
    config = model_config(name, num_classes=7, image_size=60, in_channels=2)
    assert (config.name, config.num_classes, config.vision.in_channels, config.vision.image_size) == (name, 7, 2, 60)
    assert config.vision.backbone in name
    assert config.vision.stem == "conv7"
    assert config.vision.dense is (name.startswith("s3ta") or name.endswith("_dense"))
    if isinstance(config, S3TAConfig):
        assert name.startswith(f"s3ta_{config.num_glimpses}_")
        assert (config.num_heads, config.num_frequencies, config.first_logits) == (4, 4, "zeros")
        sizes = (config.key_channels, config.lstm_size, config.query_hidden, config.readout_hidden)
        assert sizes == ((8, 128, 128, 128) if "mini" in name else (32, 1024, 1024, 1024))


@pytest.mark.parametrize(
    ("size", "stem"),
    [
        (224, "conv7_pool"),
        (128, "conv7_pool"),
        (127, "conv7"),
        (96, "conv7"),
        (60, "conv7"),
        (48, "conv7"),
        (47, "conv3"),
        (32, "conv3"),
    ],
)
def test_stem_follows_the_image_size(size, stem):
    assert default_stem(size) == stem


def test_default_config_is_the_paper():
    assert model_config("s3ta_16_resnetv2_152") == S3TAConfig()
    assert model_config("s3ta_3_resnetv2_18").num_glimpses == 3


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("s3ta_16_resnet_152", "s3ta_16_resnetv2_152"),
        ("resnet19", "resnet18"),
        ("s3ta_4_convnext_tinny", "s3ta_4_convnext_tiny"),
        ("s3ta_4_resnetv2_mini_dense", "s3ta_4_resnetv2_mini"),
        ("s3ta_0_resnetv2_18", "s3ta_"),
        ("resnetv2_152_dens", "resnetv2_152_dense"),
        ("resnetv2_19", "resnetv2_18"),
        ("S3TA_4_resnetv2_18", "s3ta_4_resnetv2_18"),
        ("s3ta_4_resnetv2_18 ", "s3ta_4_resnetv2_18"),
    ],
)
def test_unknown_model_offers_the_nearest_names(wrong, nearest):
    with pytest.raises(UserError) as caught:
        create_model(wrong)
    assert f"'{wrong}'" in str(caught.value)
    assert nearest in str(caught.value).split("Did you mean", 1)[1]


def test_without_a_near_name_all_models_are_listed():
    with pytest.raises(UserError, match=r"Known: .*resnet101.*s3ta list models"):
        create_model("")


def test_unknown_backbone_offers_the_nearest_names():
    with pytest.raises(UserError, match=r"Unknown backbone 'resnetv2_mimi'.*resnetv2_mini"):
        build_model(mini_config().model_copy(update={"vision": VisionConfig(backbone="resnetv2_mimi")}))


REAL = [name for name in list_models() if "mini" in name] + ["resnetv2_18", "resnetv2_18_dense", "s3ta_2_resnetv2_18"]


@pytest.mark.parametrize("name", REAL)
def test_every_model_runs_forward_and_backward_on_real_images_and_in_bfloat16(name):
    torch.manual_seed(0)
    side = 32 if "mini" in name else 16  # eighteen layers at full width are slow, in bfloat16 most of all
    model = create_model(name, num_classes=7, image_size=side)
    assert isinstance(model, S3TA if name.startswith("s3ta") else PooledClassifier)
    assert model.training
    images = pictures(2, 3, side, side).requires_grad_(True)
    logits = model(images)
    assert logits.shape == (2, 7)
    torch.nn.functional.cross_entropy(logits, torch.tensor([3, 5])).backward()
    for where, gradient in [("images", images.grad), *((key, p.grad) for key, p in model.named_parameters())]:
        assert gradient is not None, where
        assert gradient.isfinite().all(), where
        assert gradient.any() or ("_denoise" in name and where.startswith("vision.net.stages")), (
            where
        )  # a fresh block adds 0
    with torch.no_grad():
        exact = model.eval()(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(images)
    assert rough.dtype == torch.bfloat16
    assert rough.isfinite().all()
    assert 0 < (rough - exact).abs().max() < 0.1 * exact.abs().max() + 0.02
