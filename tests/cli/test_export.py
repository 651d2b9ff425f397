"""`s3ta export`: what a leaderboard wants, and nothing that the records do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import Result

from s3ta.records import Ledger

from .tints import CLASSES, FEW, contents, done, logits_of, refused, rows, s3ta, write_module, write_pictures

RADIUS = 8 / 255
SHORT = ("attack.num_attack_steps=8", "attack.step_size=4/255")
FIELDS = {
    "link", "name", "authors", "additional_data", "number_forward_passes", "dataset", "venue", "architecture", "eps",
    "clean_acc", "reported", "autoattack_acc", "unreliable",
}  # fmt: skip
"""What every card of RobustBench's model_info has (github.com/RobustBench/robustbench, model_info/)."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The command that evaluates; the current folder is that of the test. A third of the pictures is wrong from the start."""
    monkeypatch.chdir(tmp_path)
    pictures = write_pictures(tmp_path / "pictures")
    for name in CLASSES:
        (pictures / "val" / name / "1.png").write_bytes((pictures / "val" / CLASSES[0] / "0.png").read_bytes())
    source = write_module(tmp_path, "tints_export")
    return ("evaluate", f"{source}:make", "--data", f"folder:{pictures}", "--image-size", "8", *FEW, "--no-checks")


def export(*words: str | Path) -> Result:
    return s3ta("export", *words, "--data-root", ".")


def exported(*words: str | Path) -> Result:
    result = export(*words)
    assert result.exit_code == 0, result.output
    return result


def read(folder: Path) -> tuple[torch.Tensor, dict[str, Any]]:
    return (
        torch.load(folder / "adversarial.pt", weights_only=True),
        json.loads((folder / "card.json").read_text()),
    )


def order_of_the_data(root: Path, kept: set[str]) -> list[str]:
    """The ids in the order of the data set: by class, then by name."""
    ids = [f"val/{path.parent.name}/{path.name}" for path in sorted((root / "val").rglob("*.png"))]
    return [name for name in ids if name in kept]


def right(images: torch.Tensor, ids: list[str]) -> list[bool]:
    """Whether the classifier is right about them, by its formula."""
    labels = [CLASSES.index(name.split("/")[1]) for name in ids]
    return (logits_of(images.double().mean(dim=(2, 3)).numpy()).argmax(axis=1) == labels).tolist()


def by_example(folder: Path) -> dict[str, bool]:
    """Whether an example is right in everything that was run on it, from the rows themselves."""
    table = Ledger.read(folder).table().to_pylist()
    last = {attack["name"]: attack["num_attack_steps"] for attack in Ledger.read(folder).manifest["suite"]["attacks"]}
    ends = [row for row in table if row["status"] == "run" and row["num_attack_steps"] == last.get(row["attack"], 0)]
    names = {row["example_id"] for row in ends}
    return {name: all(row["correct"] for row in ends if row["example_id"] == name) for name in names}


@pytest.mark.parametrize(
    "suite",
    [
        ("--attack", "targeted-100", "--attack", "pgd-100", *SHORT, "attack.num_restarts=2"),
        ("--attack", "targeted-100", "--attack", "pgd-100", *SHORT, "attack.num_restarts=2", "--exhaustive"),
        ("--suite", "autoattack", "attack.num_attack_steps=20"),
    ],
    ids=["early", "exhaustive", "cascade"],
)
def test_the_exported_images_are_the_worst_of_the_records(
    run: tuple[str, ...], tmp_path: Path, suite: tuple[str, ...]
) -> None:
    if "autoattack" in suite:
        pytest.importorskip("pyautoattack")
    limit = ("--limit", "10")
    shown = done(*run, *suite, *limit, "--keep-images", "--out", "out")
    expected = by_example(tmp_path / "out")
    assert 0 < sum(expected.values()) < len(expected), "some fall, some stand"
    told = exported("out", "--out", "files", "name=Mine2026", "authors=A. B.", "venue=None yet", "reported=12.30")
    assert told.stdout.count("Written: ") == 2
    images, card = read(tmp_path / "files")
    ids = order_of_the_data(tmp_path / "pictures", set(expected))
    assert images.dtype == torch.float32
    assert images.shape == (10, 3, 8, 8)
    clean = torch.from_numpy(
        np.stack([np.asarray(Image.open(tmp_path / "pictures" / name)).transpose(2, 0, 1) for name in ids])
    ).float()
    assert (images - clean / 255).abs().max() <= RADIUS + 1e-6
    assert images.min() >= 0
    assert images.max() <= 1
    assert right(images, ids) == [expected[name] for name in ids], "classified again, they are the worst case"
    wrong_at_once = {row["example_id"] for row in rows(tmp_path / "out", attack="clean") if not row["correct"]}
    untouched = {name for name, image, before in zip(ids, images, clean, strict=True) if image.equal(before / 255)}
    assert wrong_at_once
    assert wrong_at_once <= untouched, "the clean image where that is wrong already"
    if "autoattack" not in suite:  # which gives back the clean image where it finds nothing
        assert not {name for name in untouched if expected[name]}, "what stands was attacked"
    share = 100 * sum(expected.values()) / len(expected)
    assert set(card) - {"external", "s3ta"} == FIELDS
    assert card["clean_acc"] == f"{100 * (10 - len(wrong_at_once)) / 10:.2f}"
    assert (card["external"], card["autoattack_acc"]) == (f"{share:.2f}", "")
    assert card["eps"] == "8/255"
    assert (card["name"], card["authors"], card["venue"], card["reported"]) == (
        "Mine2026",
        "A. B.",
        "None yet",
        "12.30",
    )
    assert card["s3ta"]["num_examples"] == 10
    assert card["s3ta"]["weights"] == Ledger.read(tmp_path / "out").manifest["model"]["sha256"]
    assert str(tmp_path) not in json.dumps(card)
    if "autoattack" in suite:
        assert f"{share:.1f}%" in shown.stdout


def test_a_trial_run_is_not_exported(run: tuple[str, ...], tmp_path: Path) -> None:
    """Two steps in place of a hundred: no number of it may stand beside a leaderboard's."""
    done(*run, "--attack", "pgd-100", "--tiny", "--limit", "4", "--keep-images", "--out", "out")
    refused(export("out", "--out", "files"), "out was a trial run (--tiny)")
    assert not (tmp_path / "files").exists()


def test_export_overwrites_no_file(run: tuple[str, ...], tmp_path: Path) -> None:
    done(*run, "--attack", "pgd-100", *SHORT, "--limit", "4", "--keep-images", "--out", "out")
    for name in ("adversarial.pt", "card.json"):
        folder = tmp_path / name.split(".")[0]
        folder.mkdir()
        (folder / name).write_text("here first")
        refused(export("out", "--out", folder), f"{name} is there already", "--out")
        assert contents(folder) == {name: b"here first"}
    exported("out", "--out", "files")
    before = contents(tmp_path / "files")
    refused(export("out", "--out", "files"), "is there already")
    assert contents(tmp_path / "files") == before


def test_what_cannot_be_exported_is_refused(run: tuple[str, ...], tmp_path: Path) -> None:
    attack = ("--attack", "pgd-100", *SHORT)
    done(*run, *attack, "--out", "imageless")
    refused(export("imageless", "--out", "files"), "imageless holds no images", "--keep-images")
    done(*run, *attack, "--keep-images", "--shard", "1/2", "--out", "half")
    refused(export("half", "--out", "files"), "half is not finished")
    refused(export("nowhere", "--out", "files"), "nowhere does not exist")
    refused(export("pictures", "--out", "files"), "pictures has no manifest.json")
    done(*run, *attack, "--keep-images", "--shard", "2/2", "--out", "half")
    refused(export("half", "--out", "files", "colour=red"), "The card has no field 'colour'")
    refused(export("half", "--out", "files", "name"), "name is no field of the card such as name=...")
    (tmp_path / "half" / "images-00004.npz").unlink()
    refused(export("half", "--out", "files"), "holds no image of example")
    assert not (tmp_path / "files").exists()


def test_data_that_moved_are_found_where_they_are_now(run: tuple[str, ...], tmp_path: Path) -> None:
    done(*run, "--attack", "pgd-100", *SHORT, "--keep-images", "--out", "out")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pictures").rename(tmp_path / "elsewhere" / "pictures")
    refused(s3ta("export", "out", "--out", "files"), "does not exist", "--data-root")
    done("export", "out", "--out", "files", "--data-root", "elsewhere")
    assert len(read(tmp_path / "files")[0]) == 12
