"""Training from given weights: what is taken, what is refused, and that a resumed run ends with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from s3ta.errors import UserError
from s3ta.models import build_model, create_model, model_config, save_pretrained
from s3ta.recipes import get_recipe, shrink_recipe
from s3ta.train import StartConfig, TrainConfig
from s3ta.train.start import starting_weights, with_start

SMALL = "mobilenetv3_small_050"


def recipe(name: str = "s3ta_2_resnetv2_mini", **start: str) -> TrainConfig:
    base = shrink_recipe(get_recipe("digits/s3ta_4"))
    model = model_config(name, 10, 60 if "mini" in name else 64, 1 if "mini" in name else 3)
    return base.model_copy(update={"model": model, "start": StartConfig(**start) if start else None})  # pyright: ignore


def saved(folder: Path, name: str, **settings: int) -> Path:
    torch.manual_seed(1)
    model = create_model(name, **({"num_classes": 10, "image_size": 60, "in_channels": 1} | settings))
    save_pretrained(model, folder)
    return folder


def test_a_whole_model_is_taken(tmp_path: Path) -> None:
    source = saved(tmp_path / "given", "s3ta_4_resnetv2_mini")
    config = recipe(weights=str(source))
    assert config.start is not None
    weights = starting_weights(config, config.start)
    assert not weights.fresh
    assert not weights.left_over
    model = build_model(config.model)
    model.load_state_dict(weights.state)


def test_the_backbone_of_a_plain_model_goes_under_a_fresh_head(tmp_path: Path) -> None:
    source = saved(tmp_path / "given", "resnetv2_mini_dense", num_classes=7)
    config = recipe(weights=str(source), part="backbone")
    assert config.start is not None
    weights = starting_weights(config, config.start)
    assert all(key.startswith("vision.net.") for key in weights.state)
    assert all(key.startswith("controller.") for key in weights.fresh)
    assert weights.left_over == ["classifier.weight", "classifier.bias"]
    sentence = weights.sentence(str(source))
    assert f"{len(weights.state)} tensors are taken from {source}" in sentence
    assert "2 are left over (classifier.weight, classifier.bias)" in sentence


@pytest.mark.parametrize("kind", ["timm", "file", "wrapped file"])
def test_the_backbone_of_a_network_of_timm(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From timm itself, pretrained; from a file of its state dict; and of one under a wrapper's name."""
    torch.manual_seed(2)
    whole = timm.create_model(SMALL)
    if kind == "timm":
        create = timm.create_model

        def given(name: str, pretrained: bool = False, **settings):
            return whole if pretrained else create(name, **settings)

        monkeypatch.setattr(timm, "create_model", given)
        source = f"timm:{SMALL}"
    else:
        prefix = "module." if "wrapped" in kind else ""
        source = str(tmp_path / "given.safetensors")
        save_file({prefix + key: value for key, value in whole.state_dict().items()}, source)
    config = recipe(f"s3ta_2_{SMALL}", weights=source, part="backbone")
    assert config.start is not None
    weights = starting_weights(config, config.start)
    for key, value in weights.state.items():
        assert torch.equal(value, whole.state_dict()[key.removeprefix("vision.net.")]), key
    assert all(key.startswith("controller.") for key in weights.fresh)
    assert kind != "timm" or any(key.startswith("classifier") for key in weights.left_over)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain", "resnetv2_mini_dense")
    with pytest.raises(UserError, match=r"names fit, but 'controller.* The backbone fits: set start\.part=backbone"):
        with_start(recipe(weights=str(plain)), tmp_path / "run")
    larger = saved(tmp_path / "larger", "resnetv2_18_dense", image_size=32)
    with pytest.raises(UserError, match=r"\d+ of \d+ names fit, but 'vision\.net\."):
        with_start(recipe(weights=str(larger), part="backbone"), tmp_path / "run")
    with pytest.raises(UserError, match="does not exist"):
        with_start(recipe(weights=str(tmp_path / "nowhere" / "at" / "all")), tmp_path / "run")
    with pytest.raises(UserError, match="lies in the run folder itself"):
        with_start(recipe(weights=str(plain), part="backbone"), tmp_path / "plain")
    other = model_config("resnetv2_mini_dense", 10, 60, 1)
    other = other.model_copy(update={"vision": other.vision.model_copy(update={"mean": (0.1,), "std": (0.2,)})})
    save_pretrained(build_model(other), tmp_path / "other")
    with pytest.raises(
        UserError, match=r"by other numbers .*: set model\.vision\.mean=\[0\.1\] model\.vision\.std=\[0\.2\]"
    ):
        with_start(recipe(weights=str(tmp_path / "other"), part="backbone"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    first, copy, second = (tmp_path / name for name in ("first", "copy", "second"))
    saved(first, "s3ta_4_resnetv2_mini")
    saved(copy, "s3ta_4_resnetv2_mini")
    torch.manual_seed(5)
    save_pretrained(create_model("s3ta_4_resnetv2_mini", 10, 60, 1), second)
    configs = [with_start(recipe(weights=str(path)), tmp_path / "run")[0] for path in (first, copy, second)]
    identities = [config.identity() for config in configs]
    assert identities[0] == identities[1] != identities[2]
    assert recipe().identity() != identities[0]
    assert configs[0].start is not None
    named = recipe(weights=str(second), sha256=str(configs[0].start.sha256))
    with pytest.raises(UserError, match="are not those that the recipe names"):
        with_start(named, tmp_path / "run")
