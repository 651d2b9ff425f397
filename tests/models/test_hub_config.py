"""Normalisation and preparation that a folder states beside the weights: used, refused as what it is, or named as unused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from s3ta.data import DataConfig
from s3ta.errors import UserError
from s3ta.models import DEFAULT_PROVENANCE, LoadOptions, model_metadata, open_model
from s3ta.workflow.model import OpenedModel
from s3ta.workflow.preprocessing import prepared

from .helpers import pictures
from .test_external_weights import Small

SOURCE = "tests.models.test_hub_config:Small"
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
BYTES = {"image_mean": [127.5] * 3, "image_std": [63.75] * 3}


def hub(folder, settings, config=None):
    save_file(Small(seed=1).state_dict(), folder / "model.safetensors")
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps(config or {}))
    return str(folder)


def opened(folder, **opening):
    return open_model(SOURCE, LoadOptions(weights=folder, image_size=8, **opening))


def takes(model, mean, std):
    images = pictures(2, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(images), Small(seed=1)((images - mean) / std), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "mean", "std", "note"),
    [
        (HALF, 0.5, 0.25, ""),
        ({"image_mean": 0.5, "image_std": 0.25}, 0.5, 0.25, ""),
        ({"image_mean": [0.5], "image_std": 1}, 0.5, 1, ""),
        (BYTES, 0.5, 0.25, "preprocessor_config.json is for pixels of 0 to 255; it was divided by 255"),
        (BYTES | {"do_rescale": False}, 0.5, 0.25, "were divided by 255"),
        (BYTES | {"rescale_factor": 1.0}, 0.5, 0.25, "were divided by 255"),
        (HALF | {"rescale_factor": 1 / 255}, 0.5, 0.25, ""),
        ({"image_mean": 1.0, "image_std": 0.5, "rescale_factor": 1 / 127.5}, 0.5, 0.25, "were divided by 2"),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True}, 0.5, 0.5, "were divided by 2"),
        (HALF | {"do_normalize": False}, 0, 1, ""),
        (HALF | {"do_normalize": None}, 0.5, 0.25, ""),
    ],
)
def test_the_normalisation_that_a_folder_states_is_used(tmp_path, settings, mean, std, note):
    model = opened(hub(tmp_path, settings))
    takes(model, mean, std)
    assert model_metadata(model).origins.normalisation == "stored with the weights"
    notes = model_metadata(model).config["notes"]
    assert note in notes[0] if note else notes == [], notes


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"image_mean": 0.5}, "has image_mean and no image_std: give --mean and --std"),
        ({"image_std": [0.5] * 3}, "has image_std and no image_mean"),
        ({"image_mean": "0.5", "image_std": 0.5}, "image_mean '0.5', which is no number"),
        ({"image_mean": [[0.5]], "image_std": [True]}, "which is no number"),
        (HALF | {"do_rescale": False}, "may be for pixels of 0 to 1 or of 0 to 255: give --mean and --std"),
        ({"do_rescale": False, "do_normalize": False}, "may be for pixels of 0 to 1 or"),
        (HALF | {"rescale_factor": "a"}, "rescale_factor 'a', which is no number above 0"),
        (BYTES | {"image_std": 0.25}, "one is for pixels of 0 to 1 and the other"),
        (BYTES | {"rescale_factor": 1 / 127.5}, "far outside of what its rescale_factor makes"),
    ],
)
def test_what_is_half_or_may_mean_two_things_is_refused_and_options_decide(tmp_path, settings, sentence):
    folder = hub(tmp_path, settings)
    with pytest.raises(UserError, match=sentence):
        opened(folder)
    takes(opened(folder, mean=(0.5,), std=(0.25,)), 0.5, 0.25)


def test_half_in_timms_settings_is_refused(tmp_path):
    folder = hub(tmp_path, {}, {"pretrained_cfg": {"mean": [0.5] * 3}})
    with pytest.raises(UserError, match=r"/config\.json has mean and no std"):
        opened(folder)


def test_options_for_pixels_of_bytes_are_divided_and_said(tmp_path):
    model = opened(hub(tmp_path, {}), mean=(127.5,), std=(63.75,))
    takes(model, 0.5, 0.25)
    assert "given is for pixels of 0 to 255" in model_metadata(model).config["notes"][0]
    takes(opened(str(tmp_path), mean=(0.0,), std=(255.0,)), 0, 1)
    for mean, std in ((123.7, 0.25), (0.5, 63.75)):
        with pytest.raises(UserError, match="one is for pixels of 0 to 1"):
            opened(str(tmp_path), mean=(mean,), std=(std,))


@pytest.mark.parametrize(
    ("settings", "config", "images", "normalisation"),
    [
        ({}, {}, DEFAULT_PROVENANCE, DEFAULT_PROVENANCE),
        (HALF | {"size": {"height": 8, "width": 8}, "resample": 2}, {}, "size, resample", ""),
        ({"crop_size": 8, "do_normalize": True}, {}, "crop_size", "do_normalize"),
        ({}, {"pretrained_cfg": {"crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3}}, "crop_pct", ""),
    ],
)
def test_what_is_stated_and_not_used_is_named(tmp_path, settings, config, images, normalisation):
    model = opened(hub(tmp_path, settings, config))
    subject = OpenedModel("", model, None, None, tmp_path)
    lines = prepared(subject, DataConfig(source="folder:images"), model_metadata(model)).origins
    named = f"the default (what {tmp_path.name} says of %s is not used)"
    expected = {
        "images": images if images == DEFAULT_PROVENANCE else named % images,
        "normalisation": DEFAULT_PROVENANCE,
    }
    if normalisation != DEFAULT_PROVENANCE:
        expected["normalisation"] = named % normalisation if normalisation else "stored with the weights"
    assert lines == expected
