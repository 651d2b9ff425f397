"""`photographs`: twenty labelled photographs of ImageNet out of the package foolbox."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3ta.data import DataConfig, Preprocessing, file_facts, imagenet_wnids, open_dataset
from s3ta.data import config as data_config
from s3ta.data.config import photographs_folder
from s3ta.errors import UserError
from tests.examples import photograph_data

NOWHERE = Path("nowhere")


def test_labels_are_the_classes_of_imagenet_in_the_file_names():
    data = photograph_data()
    assert len(data.ids) == 20
    assert list(data.classes) == list(imagenet_wnids())
    assert [int(re.split(r"[_.]", name)[2]) for name in data.ids] == data.labels.tolist()
    assert len(set(data.labels.tolist())) == 19  # two are of class 609


def test_pixels_are_those_of_pillow():
    data = photograph_data(224, Preprocessing(resize=256, rounding="torchvision"))
    index = 3
    picture = Image.open(photographs_folder() / data.ids[index]).convert("RGB")
    short = min(picture.size)
    size = tuple(int(256 * side / short) for side in picture.size)
    left, top = (round((side - 224) / 2) for side in size)
    cut = picture.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    assert np.array_equal(data.image(index), np.asarray(cut).transpose(2, 0, 1))


def test_photographs_are_files_whose_content_is_kept():
    data = photograph_data()
    assert [data.problem(index) for index in range(20)] == [None] * 20
    assert len(file_facts(data, range(20))) == 20


def test_what_identifies_the_photographs_follows_from_their_preparation():
    one, same = photograph_data(), photograph_data()
    other = photograph_data(128, Preprocessing(resize=146, rounding="torchvision"))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.content == other.content


@pytest.mark.parametrize("split", ["train", "validation"])
def test_photographs_have_a_test_split_alone(split):
    photograph_data()
    with pytest.raises(UserError, match=f"without a {split} split: use test"):
        open_dataset(DataConfig(source="photographs", image_size=224), split, NOWHERE)


def test_photographs_need_an_image_size():
    photograph_data()
    with pytest.raises(UserError, match="photographs needs a size for its images"):
        open_dataset(DataConfig(source="photographs"), "test", NOWHERE)


def test_a_missing_package_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = "The package foolbox is not installed: pip install 's3ta[examples]'."
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        open_dataset(DataConfig(source="photographs", image_size=224), "test", NOWHERE)


def test_other_photographs_than_the_twenty_are_refused(monkeypatch, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "imagenet_00_243.jpg")
    monkeypatch.setattr("s3ta.data.photographs.photographs_folder", lambda: tmp_path)
    monkeypatch.setattr(data_config, "photographs_folder", lambda: tmp_path)
    with pytest.raises(UserError, match="holds 1 photographs of ImageNet, not 20"):
        open_dataset(DataConfig(source="photographs", image_size=224), "test", NOWHERE)


def test_nothing_of_foolbox_is_imported():
    photograph_data()
    program = (
        "import sys; from pathlib import Path; from s3ta.data import DataConfig, open_dataset; "
        "open_dataset(DataConfig(source='photographs', image_size=64), 'test', Path('x')).image(0); "
        "assert 'foolbox' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
