"""Targets as CSV: there and back, in other people's spelling, and everything in it that would be a wrong number (X4)."""

import csv

import numpy as np
import pytest

from s3ta.data import read_targets, write_targets
from s3ta.errors import UserError

from .helpers import Numbered


class Pets(Numbered):
    source, split, classes = "pets", "test", ("cat", "dog", "great white, shark", "hen")

    def __init__(self):
        super().__init__(8)
        self.ids = [f"val/{self.classes[i % 4]}/{i}.png" for i in range(8)]
        self.labels = np.arange(8) % 4


PETS = Pets()


def _read(tmp_path, text):
    path = tmp_path / "targets.csv"
    path.write_bytes(text.encode())
    return read_targets(path, PETS)


def test_written_targets_are_read_back(tmp_path):
    targets = (PETS.labels + 1 + np.arange(8) // 4) % 4
    write_targets(tmp_path / "t.csv", PETS.ids, PETS.labels, targets, PETS.classes)
    assert read_targets(tmp_path / "t.csv", PETS) == dict(zip(PETS.ids, targets.tolist(), strict=True))
    rows = list(csv.reader((tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["example_id", "label", "target", "target_name"]
    assert rows[2] == ["val/dog/1.png", "1", "2", "great white, shark"]
    assert len(rows) == 9
    assert [p.name for p in tmp_path.iterdir()] == ["t.csv"]  # nothing beside it


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("example_id,target\nval/cat/0.png,3\n", {"val/cat/0.png": 3}),
        ("example_id,target\nval/cat/0.png,hen\n", {"val/cat/0.png": 3}),
        ('target,example_id\n"great white, shark",cat/4.png\n', {"val/cat/4.png": 2}),
        ("\ufeffexample_id,target\r\n0.png,1\r\n\r\n5.png,0\r\n", {"val/cat/0.png": 1, "val/dog/5.png": 0}),
        ("example_id, target, comment\n0.png, 1, x\n", {"val/cat/0.png": 1}),
        ("example_id,label,target\n0.png,cat,1\n1.png,1,0\n4.png,,2\n", {"val/cat/0.png": 1, "val/dog/1.png": 0}),
        ("example_id,target\n0.png,1\nval/cat/0.png,dog\n", {"val/cat/0.png": 1}),  # twice, but alike
        ("example_id,target\nelsewhere.png,77\n0.png,1\n", {"val/cat/0.png": 1}),  # other data's rows do not matter
    ],
)
def test_every_spelling_of_a_target_is_understood(tmp_path, text, found):
    assert _read(tmp_path, text).items() >= found.items()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no column 'example_id'"),
        ("0.png,1\n", "has no column 'example_id': its first line is '0.png,1'."),
        ("example_id,label\n0.png,1\n", "has no column 'target'"),
        ("example_id,target\n", "has 0 rows, but none for the examples of pets (test)"),
        ("example_id,target\nx,1\ny,2\n", "has 2 rows, but none for the examples of pets (test)"),
        ("example_id,target\n0.png,0\n", "line 2: the target of 0.png is its true class, 0."),
        ("example_id,target\n1.png,0\n0.png,cat\n", "line 3: the target of 0.png is its true class, 0."),
        ("example_id,target\n0.png,4\n", "line 2: 4 is no class number of pets: they go from 0 to 3."),
        ("example_id,target\n0.png,-1\n", "line 2: -1 is no class number of pets"),
        ("example_id,target\n0.png,cow\n", "line 2: pets has no class 'cow'."),
        ("example_id,target\n0.png,1.0\n", "pets has no class '1.0'."),
        ("example_id,target\n0.png,\n", "pets has no class ''."),
        ("example_id,target\n0.png,99999999999999999999\n", "pets has no class"),
        (
            "example_id,target\n0.png,1\n0.png,2\n",
            "line 3: val/cat/0.png has the target 1 in an earlier line, and 2 here.",
        ),
        ("example_id,target\n0.png\n", "line 2: it has another number of cells than the first line."),
        ("example_id,target\n0.png,1,2\n", "line 2: it has another number of cells"),
        ("example_id,label,target\n0.png,1,2\n", "the true class of 0.png is 0 ('cat') in pets, not 1"),
        ("example_id,target,target_name\n0.png,1,hen\n", "class 1 is 'dog' in pets, not 'hen': the file counts"),
        ("example_id;target\nnumber-1;2\n", "cells seem to be separated by ';': use commas"),
        ("example_id\ttarget\nnumber-1\t2\n", "cells seem to be separated by tabs: use commas"),
        ('[{"example_id": "number-1", "target": 2}]\n', "this seems to be JSON"),
        ("example_id,target\n/data/number-1,2\n", "these are absolute paths: give names relative to the data folder"),
    ],
)
def test_what_would_be_a_wrong_number_is_refused(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        _read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "targets.csv"))
    assert words in str(caught.value)


def test_an_id_that_fits_several_examples_is_refused(tmp_path):
    data = Pets()
    data.ids[4] = "val/cat/old/0.png"
    (tmp_path / "t.csv").write_text("example_id,target\n0.png,1\n")
    with pytest.raises(UserError, match=r"t\.csv, line 2: '0\.png' fits several examples of pets"):
        read_targets(tmp_path / "t.csv", data)


def test_files_that_are_no_tables_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"targets\.csv does not exist"):
        read_targets(tmp_path / "targets.csv", PETS)
    (tmp_path / "targets.csv").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(UserError, match="is not a text file"):
        read_targets(tmp_path / "targets.csv", PETS)
    (tmp_path / "targets.csv").write_text("example_id,target\n" + "x" * 200_000)
    with pytest.raises(UserError, match="is not a CSV file"):
        read_targets(tmp_path / "targets.csv", PETS)


@pytest.mark.parametrize("target", [-1, 4])
def test_what_is_no_class_is_not_exported(tmp_path, target):
    with pytest.raises(UserError, match=f"has the target {target}, which is none of the 4 classes"):
        write_targets(tmp_path / "t.csv", PETS.ids[:1], [0], [target], PETS.classes)
    assert not list(tmp_path.iterdir())


# --- names that are numbers ---------------------------------------------------------------------------------------------------


class Digits(Numbered):
    """Classes 0..11 in the order of text: class 2 is named 10."""

    source, split, classes = "digits-by-text", "test", tuple(sorted(str(number) for number in range(12)))

    def __init__(self):
        super().__init__(24)
        self.ids = [f"val/{self.classes[i % 12]}/{i}.png" for i in range(24)]
        self.labels = np.arange(24) % 12


def _read_digits(tmp_path, text, said=None):
    (tmp_path / "t.csv").write_text(text)
    data = Digits()
    targets = read_targets(tmp_path / "t.csv", data, None if said is None else said.append)
    return {name: data.classes[number] for name, number in targets.items()}


@pytest.mark.parametrize("column", ["", ",label", ",target_name"])
def test_numbers_in_a_file_of_targets_are_names_first(tmp_path, column):
    """26.n."""
    cells = {"": "", ",label": ",2", ",target_name": ",3"}[column]
    said = []
    assert _read_digits(tmp_path, f"example_id,target{column}\nval/2/4.png,3{cells}\n", said) == {"val/2/4.png": "3"}
    assert len(said) == 1
    assert "have numbers as names; those in" in said[0]
    assert "are taken as names of classes" in said[0]


def test_our_own_files_are_read_as_they_were_meant(tmp_path):
    data = Digits()
    targets = (data.labels + 1 + np.arange(24) // 12) % 12
    write_targets(tmp_path / "t.csv", data.ids, data.labels, targets, data.classes)
    said = []
    assert read_targets(tmp_path / "t.csv", data, said.append) == dict(zip(data.ids, targets.tolist(), strict=True))
    assert "are taken as class numbers, from 0, as its other columns show" in said[0]


def test_numbers_that_contradict_both_readings_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"the file counts the classes otherwise"):
        _read_digits(tmp_path, "example_id,label,target\nval/2/4.png,7,3\n")
    with pytest.raises(UserError, match=r"is its true class"):
        _read_digits(tmp_path, "example_id,target\nval/2/4.png,2\n")


def test_numbers_beyond_the_names_are_class_numbers(tmp_path):
    class Some(Pets):
        classes = ("7", "8", "9", "ten")

    (tmp_path / "t.csv").write_text("example_id,target\n0.png,1\n1.png,9\n2.png,ten\n")
    assert set(read_targets(tmp_path / "t.csv", Some()).values()) == {1, 2, 3}


def test_nothing_is_said_where_names_and_numbers_agree(tmp_path):
    class Plain(Pets):
        classes = ("0", "1", "2", "3")

    (tmp_path / "t.csv").write_text("example_id,target\n0.png,1\n")
    said = []
    assert list(read_targets(tmp_path / "t.csv", Plain(), said.append).values()) == [1]
    assert said == []


@pytest.mark.parametrize("form", ['val/a\nb\r{}\r\n,".png', " val/ {} .png ", "\u3000{}.png\t"])
def test_ids_with_line_breaks_and_blanks_come_back(tmp_path, form):
    data = Pets()
    data.ids = [form.format(i) for i in range(8)]
    targets = (data.labels + 1) % 4
    write_targets(tmp_path / "t.csv", data.ids, data.labels, targets, data.classes)
    assert read_targets(tmp_path / "t.csv", data) == dict(zip(data.ids, targets.tolist(), strict=True))
