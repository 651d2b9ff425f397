"""Data folders that are not what one thinks, by the commands that a person types: told, and never a wrong number."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3ta.data import resolve_source
from s3ta.records import Ledger

from .tints import contents, done, refused, rows, s3ta

QUICK = ("--attack", "pgd-100", "attack.num_attack_steps=1", "attack.step_size=8/255", "--no-checks")
RUN = ("--image-size", "8", "--threads", "1", "--device", "cpu", "--batch-size", "8", *QUICK)
GREYS = """
import torch
from torch import nn

import s3ta


class Greys(nn.Module):
    \"\"\"Picks the class whose grey level, (k + 1) / (classes + 1), is nearest: right on every picture.\"\"\"

    def __init__(self, num_classes):
        super().__init__()
        self.register_buffer("levels", (torch.arange(num_classes) + 1) / (num_classes + 1))

    def forward(self, images):
        return -100 * (images.mean(dim=(1, 2, 3))[:, None] - self.levels) ** 2


def three():
    return Greys(3)


def twelve():
    return Greys(12)


def card():
    return s3ta.Classifier(Greys(3), name="card", num_classes=3, image_size=8)
"""


def grey(path: Path, label: int, num_classes: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (round(255 * (label + 1) / (num_classes + 1)),) * 3).save(path, format="BMP")


def greys(root: Path, names: list[str], part: str = "val", count: int = 2) -> Path:
    for label, name in enumerate(names):
        for number in range(count):
            grey(root / part / name / f"{number}.bmp", label, len(names))
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the models of `greys.py`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "greys.py").write_text(GREYS)
    return tmp_path


def right(out: Path) -> tuple[int, int]:
    """How many pictures are right without an attack, and of how many."""
    clean = rows(out, attack="clean")
    return sum(row["correct"] for row in clean), len(clean)


def flat(text: str) -> str:
    return " ".join(text.split())


THREE, TWELVE = ["ant", "bee", "cat"], [str(number) for number in range(12)]


def test_class_folders_that_are_numbers_are_counted_as_numbers_and_told(here: Path) -> None:
    """01.b, 01.d, 01.f in small: 2 of 12 right before."""
    greys(here / "set", TWELVE)
    shown = done("evaluate", "greys:twelve", "--data", f"folder:{here / 'set'}", *RUN, "--out", "out")
    assert right(here / "out") == (24, 24)
    assert "The class folders of folder:set are numbers and are counted as numbers" in flat(shown.stderr)
    assert Ledger.read(here / "out").manifest["data"]["classes"] == TWELVE


def test_a_model_that_names_its_classes_in_the_order_of_text_keeps_it(here: Path) -> None:
    by_text = sorted(TWELVE)
    greys(here / "set", by_text)
    (here / "names.txt").write_text("\n".join(by_text))
    words = ("evaluate", "greys:twelve", "--data", f"folder:{here / 'set'}", *RUN)
    shown = done(*words, "--class-names", "names.txt", "--out", "out")
    assert right(here / "out") == (24, 24)
    assert "numbers" not in shown.stderr
    done(*words, "--out", "other")  # and where nobody says so, it is the reading as numbers, and told
    assert right(here / "other")[0] < 24


def test_left_out_files_are_told_once_and_recorded(here: Path) -> None:
    """02.e, 02.c, 03.g."""
    root = greys(here / "set", THREE)
    shutil.copytree(root / "val" / "bee", root / "val" / "ant" / ".Trash-1000" / "files")
    grey(root / "val" / "loose.bmp", 0, 3)
    shown = done("evaluate", "greys:three", "--data", f"folder:{root}", *RUN, "--out", "out")
    assert right(here / "out") == (6, 6)
    line = "folder:set (test): 6 images are used, left out: 2 hidden files ('val/ant/.Trash-1000'); 1 image beside the class"
    assert flat(shown.stderr).count(line) == 1
    kept = Ledger.read(here / "out").manifest["informative"]["files"]
    assert kept["left_out"] == {
        "beside": {"count": 1, "first": ["val/loose.bmp"]},
        "hidden": {"count": 2, "first": ["val/ant/.Trash-1000"]},
    }
    shutil.rmtree(root / "val" / "ant" / ".Trash-1000")  # what informs is no part of what was measured
    assert (
        "everything is there already"
        in done("evaluate", "greys:three", "--data", f"folder:{root}", *RUN, "--out", "out").stderr
    )


def test_a_link_that_leads_nowhere_stops_or_is_skipped(here: Path) -> None:
    """04.c."""
    root = greys(here / "set", THREE)
    (root / "val" / "bee" / "gone.bmp").symlink_to("nowhere.bmp")
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN, "--out", "out")
    refused(s3ta(*words), "1 of 7 images cannot be used, the first: val/bee/gone.bmp does not exist")
    assert not (here / "out").exists()
    done(*words, "--on-unreadable", "skip")
    assert right(here / "out") == (6, 6)


def test_names_in_any_bytes_and_with_line_breaks_go_through_every_file(here: Path) -> None:
    """Records, lists and the lists given back."""
    root = greys(here / "set", THREE)
    for raw in (b"caf\xe9.bmp", b"line\nbreak.bmp", "e\u0301.bmp".encode()):
        shutil.copy(os.fsencode(root / "val/bee/0.bmp"), os.fsencode(root / "val/bee") + b"/" + raw)
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN)
    done(*words, "--attack", "targeted-100", "--keep-images", "--out", "out")
    assert right(here / "out") == (9, 9)
    lists = ("--ids", "out/examples.txt", "--targets", "out/targets.csv")
    done(*words, "--attack", "targeted-100", *lists, "--out", "again")
    ids = {row["example_id"] for row in rows(here / "again")}
    assert {"val/bee/caf\\xe9.bmp", "val/bee/line\nbreak.bmp", "val/bee/\u00e9.bmp"} < ids
    done("report", "out", "--out", "page.html", "--table", "table.csv")
    assert "val/bee/caf\\xe9.bmp" in (here / "out" / "examples.txt").read_text(encoding="utf-8")


def test_a_repaired_file_of_equal_size_is_noticed(here: Path) -> None:
    """21.b: neither the finished evaluation nor a comparison passes it over."""
    root = greys(here / "set", THREE)
    path = root / "val" / "bee" / "1.bmp"
    right_one = path.read_bytes()
    grey(path, 0, 3)
    assert path.stat().st_size == len(right_one)
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN)
    done(*words, "--out", "out")
    assert right(here / "out") == (5, 6)
    before = contents(here / "out")
    path.write_bytes(right_one)
    refused(
        s3ta(*words, "--out", "out"),
        "1 of 6 image files hold something else than when out was begun",
        "('val/bee/1.bmp')",
        "--out",
    )
    assert contents(here / "out") == before
    done(*words, "--out", "new")
    assert right(here / "new") == (6, 6)
    refused(s3ta("report", "out", "new", "--out", "page.html"), "have the same names and sizes but hold other images")


def test_a_copy_of_the_data_is_the_same_data(here: Path) -> None:
    root = greys(here / "set", THREE)
    words = ("evaluate", "greys:three", *RUN, "--out", "out")
    done(*words, "--data", f"folder:{root}")
    shutil.copytree(root, here / "copy" / "set", copy_function=shutil.copyfile)
    for path in (here / "copy").rglob("*.bmp"):
        os.utime(path, (2e9, 2e9))
    shown = done(*words, "--data", f"folder:{here / 'copy' / 'set'}")
    assert "everything is there already" in shown.stderr
    assert "warning" not in shown.stderr
    with (here / "out" / "files.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 6
    assert {row["example_id"] for row in kept} == {row["example_id"] for row in rows(here / "out")}


def test_an_evaluation_that_kept_nothing_of_its_files_goes_on_with_a_warning(here: Path) -> None:
    """One of an earlier version."""
    root = greys(here / "set", THREE)
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN, "--out", "out")
    done(*words)
    (here / "out" / "files.csv").unlink()
    manifest = json.loads((here / "out" / "manifest.json").read_text())
    del manifest["informative"]["files"]
    (here / "out" / "manifest.json").write_text(json.dumps(manifest))
    assert "warning" not in done(*words).stderr
    os.utime(root / "val" / "cat" / "0.bmp", (2e9, 2e9))
    shown = flat(done(*words).stderr)
    assert "warning: 1 of 6 image files were changed or copied after out was begun ('val/cat/0.bmp')" in shown
    assert not (here / "out" / "files.csv").exists()


def test_transparent_pictures_are_told_in_evaluation_and_prediction(here: Path) -> None:
    """23.c."""
    root = greys(here / "set", THREE)
    pixels = np.full((8, 8, 4), 64, np.uint8)
    pixels[2, 2, 3] = 0
    Image.fromarray(pixels).save(root / "val" / "ant" / "ink.png")
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN, "--out", "out")
    assert "warning: 1 of 7 pictures have transparent pixels ('val/ant/ink.png')" in flat(done(*words).stderr)
    assert Ledger.read(here / "out").manifest["informative"]["files"]["num_transparent"] == 1
    shown = done("predict", "greys:card", root / "val" / "ant" / "ink.png", root / "val" / "cat" / "0.bmp")
    assert flat(shown.stderr).count("warning: 1 of 2 pictures have transparent pixels") == 1


def test_small_folders_have_a_validation_split_too(here: Path) -> None:
    """03.m."""
    root = greys(here / "set", THREE, "train", 4)
    words = ("evaluate", "greys:three", "--data", f"folder:{root}", *RUN)
    refused(
        s3ta(*words, "--split", "validation", "--out", "out"),
        "has only 12 training examples: set it lower (in an evaluation with --num-validation)",
    )
    done(*words, "--split", "validation", "--num-validation", "5", "--out", "validation")
    done(*words, "--split", "train", "--num-validation", "5", "--out", "train")
    assert (right(here / "validation"), right(here / "train")) == ((5, 5), (7, 7))
    refused(s3ta("evaluate", "greys:three", "--num-validation", "5"), "--num-validation goes with --data")


def test_training_tells_what_it_leaves_out_and_keeps_it(here: Path) -> None:
    """19.h, 19.j, 19.g."""
    root = greys(here / "set", [*THREE, "dog"], "train", 6)
    shutil.copytree(root / "train" / "bee", root / "train" / "ant" / ".ipynb_checkpoints")
    shutil.rmtree(root / "train" / "dog")
    (root / "train" / "dog").mkdir()
    (root / "train" / "cat" / "gone.bmp").symlink_to("nowhere.bmp")
    settings = (
        f"data.source=folder:{root}",
        "data.image_size=60",
        "data.num_validation=4",
        "data.on_unreadable=skip",
        "data.channels=1",
        "model.num_classes=4",
        "batch_size=5",
    )
    shown = done("train", "digits/resnetv2_mini_dense", *settings, "--tiny", "--device", "cpu", "--out", "run")
    line = "6 hidden files ('train/ant/.ipynb_checkpoints'); 1 class without any image ('dog')"
    assert flat(shown.stderr).count(line) == 1
    assert json.loads((here / "run" / "left_out.json").read_text())["empty classes"] == {"count": 1, "first": ["dog"]}


def test_a_run_trained_on_numbers_keeps_the_order_of_its_classes(here: Path) -> None:
    """Its outputs were trained in the order of text: '10' is output 2."""
    names = [str(number) for number in range(12)]
    root = greys(greys(here / "set", names, "train"), names, "test")
    settings = (f"data.source=folder:{root}", "data.image_size=60", "data.num_validation=2", "data.channels=1")
    train = ("train", "digits/resnetv2_mini_dense", *settings, "model.num_classes=12", "batch_size=5", "--tiny")
    done(*train, "--device", "cpu", "--out", "run")
    done("evaluate", "run", "--data-root", here, *QUICK, "--threads", "1", "--device", "cpu", "--out", "out")
    assert Ledger.read(here / "out").manifest["data"]["classes"] == sorted(names)
    labels = {row["example_id"].split("/")[1]: row["label"] for row in rows(here / "out", attack="clean")}
    assert labels == {name: sorted(names).index(name) for name in names}


def test_one_class_is_refused_before_anything_is_written(here: Path) -> None:
    root = greys(here / "set", ["images"], "train", 8)
    settings = (f"data.source=folder:{root}", "data.image_size=60", "data.num_validation=2", "data.channels=1")
    train = ("train", "digits/resnetv2_mini_dense", *settings, "model.num_classes=1", "batch_size=4", "--tiny")
    refused(s3ta(*train, "--device", "cpu", "--out", "run"), "folder:set has one class, 'images': there is nothing")
    assert not (here / "run").exists()


@pytest.mark.parametrize(
    ("source", "root", "named"),
    [
        ("folder:my sets/set", ".", "'my sets'"),
        ("folder:set", "data", "data"),
        ("folder:/d/tr_ok", "data", "/d"),
        ("npz:a/b.npz", "up", "up/a"),
    ],
)
def test_the_next_command_finds_the_data_that_were_trained_on(
    monkeypatch: pytest.MonkeyPatch, source: str, root: str, named: str
) -> None:
    monkeypatch.setattr("s3ta.workflow.train_run", lambda *given, **more: True)
    words = ("digits/resnetv2_mini_dense", f"data.source={source}", "data.image_size=60", "data.num_validation=2")
    shown = done("train", *words, "--data-root", root, "--out", "a run")
    assert shown.stdout.endswith(f"\nNext: s3ta evaluate 'a run' --data-root {named}\n")
    assert resolve_source(source, Path(root)).root == Path(shlex.split(named)[0])
