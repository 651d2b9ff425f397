"""Ids that people list, in the forms that they have them in; and image files that cannot be read."""

import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from s3ta.data import (
    DataConfig,
    Dataset,
    RelabelledDataset,
    find_unreadable,
    open_dataset,
    positions_of_ids,
    read_ids,
    unreadable_error,
)
from s3ta.data.sources import Subset
from s3ta.errors import UserError

from .helpers import Numbered


class Listed(Dataset):
    """Ids without pictures."""

    source, split, classes, shape, fingerprint = "listed", "test", ("a", "b"), (1, 1, 1), "f00d"

    def __init__(self, *ids):
        self.ids, self.labels = list(ids), np.zeros(len(ids), np.int64)

    def image(self, index, draw=None):
        return np.zeros(self.shape, np.uint8)


BIRDS = Listed("val/hen/1.png", "val/hen/2.png", "val/hen/deep/3.png", "val/cock/1.png", "val/cock/4.png")


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["val/cock/4.png", "val/hen/1.png"], [4, 0]),
        (["cock/1.png", "hen/1.png"], [3, 0]),
        (["4.png", "2.png", "3.png"], [4, 1, 2]),
        (["deep/3.png"], [2]),
        (["./val/hen/2.png", "./hen/1.png"], [1, 0]),
        (["test/hen/2.png", "validation/cock/1.png"], [1, 3]),
        (["hen\\2.png", "val\\hen\\deep\\3.png"], [1, 2]),
    ],
)
def test_examples_are_named_by_full_ids_or_ends_of_paths(names, positions):
    assert positions_of_ids(BIRDS, names) == positions


def test_a_leading_val_may_be_too_much():
    assert positions_of_ids(Listed("test/hen/1.png", "test/hen/2.png"), ["val/hen/2.png", "val/hen/1.png"]) == [1, 0]
    assert positions_of_ids(Listed("hen/1.png"), ["val/hen/1.png"]) == [0]


def test_a_full_id_counts_before_the_end_of_another():
    assert positions_of_ids(Listed("val/1.png", "1.png", "2.png"), ["1.png"]) == [1]


def test_ids_without_paths_are_taken_whole():
    data = Numbered(20)
    assert positions_of_ids(data, ["number-7", "number-17", "number-0"]) == [7, 17, 0]
    with pytest.raises(UserError, match="1 of 1 example ids are not in numbered"):
        positions_of_ids(data, ["7"])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "No example ids are given."),
        (
            ["hen/9.png"],
            "1 of 1 example ids are not in listed (test), whose ids look like 'val/hen/1.png': 'hen/9.png'.",
        ),
        (["4.png", "a", "b", "c", "d"], "4 of 5 example ids are not in listed (test)"),
        (["a", "b", "c", "d"], "'a', 'b', 'c' and 1 more."),
        (["1.png"], "1 of 1 example ids fit several examples of listed (test): write more of the path: '1.png'."),
        (["2.png", "val/hen/2.png"], "1 of 2 example ids mean an example that is listed already: 'val/hen/2.png'."),
        (["4.png", "4.png", "4.png"], "2 of 3 example ids mean an example that is listed already"),
        (["train/hen/1.png"], "are not in"),
        (["/hen/1.png"], "are not in"),
        (["en/1.png"], "are not in"),
        ([""], "are not in"),
        (["x" * 500], "xxx...'"),
        (["\x1b[31m"], r"'\x1b[31m'"),
    ],
    ids=lambda value: None if isinstance(value, list) else value[:30],
)
def test_ids_that_mean_no_single_example_are_counted_and_named(names, words):
    with pytest.raises(UserError) as caught:
        positions_of_ids(BIRDS, names)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 300


def test_fifty_thousand_ids_are_matched_quickly():
    data = Listed(*(f"val/n{i // 50:08d}/ILSVRC2012_val_{i:08d}.JPEG" for i in range(50_000)))
    order = np.random.default_rng(0).permutation(50_000)
    for short in (data.ids, [name[4:] for name in data.ids], [name.rsplit("/", 1)[1] for name in data.ids]):
        began = time.process_time()
        assert positions_of_ids(data, [short[i] for i in order]) == order.tolist()
        assert time.process_time() - began < 5  # a quadratic search takes minutes


# --- lists in files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a\nb\n", ["a", "b"]),
        ("a\n\n  \n# hen\n  # hen\n b \n", ["a", "b"]),
        ("a\r\nb\r\n", ["a", "b"]),
        ("a\rb", ["a", "b"]),
        ("\ufeffa\nb", ["a", "b"]),
        (
            "n01440764/x_1.JPEG\nn01443537/x_2.JPEG\n",
            ["n01440764/x_1.JPEG", "n01443537/x_2.JPEG"],
        ),  # RobustBench's form
        ("n01440764/x_1.JPEG 0\nx_2.JPEG\t17\n", ["n01440764/x_1.JPEG", "x_2.JPEG"]),
        ("hen/my photo 3.png\nhen/my photo 3.png 1\n", ["hen/my photo 3.png", "hen/my photo 3.png"]),
        ("img 3\nimg 4", ["img 3", "img 4"]),
        ("example_id,label\na.png,3\nb.png,4", ["a.png", "b.png"]),
        ("example_id\na\nid\n", ["a", "id"]),
        ("id\na\n", ["id", "a"]),
        ("cifar10-test-00012,3\n", ["cifar10-test-00012"]),
        ('"a,b",3\n"c ""d""",4\n', ["a,b", 'c "d"']),
        ("hen/red,white.png\n", ["hen/red,white.png"]),
        ("a.png,b.png\n", ["a.png"]),
        ("b\nimage,label\n", ["b", "image"]),
        ("\u00e4\u2028x\n", ["\u00e4\u2028x"]),
    ],
    ids=repr,
)
def test_lists_of_ids_are_read_in_every_format(tmp_path, text, names):
    (tmp_path / "ids.txt").write_bytes(text.encode())
    assert read_ids(tmp_path / "ids.txt") == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "names no examples: it must hold one id per line."),
        (b"\n# only a comment\n\r\n", "names no examples"),
        (b"example_id,label\n", "names no examples"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "is not a text file in UTF-8."),
        (bytes(range(1, 256)), "is not a text file in UTF-8."),
        ("a\nb".encode("utf-16"), "is not a text file in UTF-8."),
        (b"a\n" * 4000 + b"\0", "is not a text file in UTF-8."),
        (b'"' + b"x" * 200_000, "is not a list of example ids"),
    ],
    ids=["empty", "comments", "header", "picture", "latin", "utf-16", "late", "quote"],
)
def test_files_that_are_no_lists_are_refused(tmp_path, content, words):
    (tmp_path / "ids.txt").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_ids(tmp_path / "ids.txt")
    assert str(caught.value).startswith(str(tmp_path / "ids.txt"))
    assert words in str(caught.value)


def test_missing_lists_are_named(tmp_path):
    with pytest.raises(UserError, match=r"ids\.txt does not exist"):
        read_ids(tmp_path / "ids.txt")
    with pytest.raises(UserError, match="is a folder, not a text file"):
        read_ids(tmp_path)
    (tmp_path / "x").write_text("a")
    with pytest.raises(UserError, match="cannot be read"):
        read_ids(tmp_path / "x" / "y")


def test_the_list_of_a_real_folder_selects_its_examples(data_folder):
    data = open_dataset(DataConfig(source="folder:imagenet-sample", image_size=32), "test", data_folder)
    wanted = [5, 999, 0, 421]
    assert positions_of_ids(data, [data.ids[i].removeprefix("val/") for i in wanted]) == wanted
    assert positions_of_ids(data, [data.ids[i].rsplit("/", 1)[1] for i in wanted]) == wanted


# --- files that cannot be read --------------------------------------------------------------------------------------------


class Said:
    def __init__(self):
        self.reports = []

    def __call__(self, completed, note=""):
        self.reports.append((completed, note))


@pytest.fixture
def flowers(tmp_path):
    for name in ("daisy", "rose"):
        for i in range(4):
            path = tmp_path / "flowers" / "val" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return tmp_path


def _open(root, source="folder:flowers", size=16):
    return open_dataset(DataConfig(source=source, image_size=size), "test", root)


def test_unreadable_files_are_found_and_named_by_their_ids(flowers):
    inside = flowers / "flowers" / "val"
    data = _open(flowers)
    (inside / "daisy" / "2.png").write_bytes((inside / "daisy" / "2.png").read_bytes()[:700])  # torn in its pixels
    (inside / "rose" / "0.png").write_text("no picture")
    (inside / "rose" / "3.png").unlink()
    said = Said()
    found = find_unreadable(data, [7, 1, 2, 0, 4], said)
    assert [position for position, _ in found] == [7, 2, 4]
    assert found[0][1] == "val/rose/3.png does not exist."
    assert found[1][1].startswith("val/daisy/2.png cannot be read as an image (")
    assert not any(str(flowers) in reason for _, reason in found)
    notes = ["1 unreadable", "1 unreadable", "2 unreadable", "2 unreadable", "3 unreadable"]
    assert said.reports == list(enumerate(notes, 1))
    for position in range(8):  # the same verdict as reading it
        try:
            data.image(position)
            reads = True
        except UserError:
            reads = False
        assert reads == (position not in (2, 4, 7)) == (data.problem(position) is None)
    sentence = str(unreadable_error(found, 5))
    assert sentence.startswith("3 of 5 images cannot be used, the first: val/rose/3.png does not exist. ")
    assert "go on without them" in sentence


def test_views_of_a_folder_report_the_same_unreadable_files(flowers):
    (flowers / "flowers" / "val" / "rose" / "1.png").write_bytes(b"")
    data = _open(flowers)
    some = Subset(data, "validation", [6, 5, 0])
    assert [position for position, _ in find_unreadable(some, [0, 1, 2], Said())] == [1]
    other = RelabelledDataset(data, ["rose", "tulip", "daisy"], [2, 0])
    assert [position for position, _ in find_unreadable(other, range(8), Said())] == [5]


class Costly(Numbered):
    def image(self, index, draw=None):
        raise AssertionError("an array was asked for")


def test_arrays_need_no_reading():
    said = Said()
    assert find_unreadable(Costly(9), range(9), said) == []
    assert said.reports == [(9, "")]


def test_memory_does_not_grow_with_the_number_of_files(flowers):
    big = np.zeros((600, 700, 3), np.uint8)
    for i in range(12):
        Image.fromarray(big).save(flowers / "flowers" / "val" / "rose" / f"big{i}.png")
    data, peaks = _open(flowers), []
    chosen = [i for i, name in enumerate(data.ids) if "big" in name]
    for count in (2, 12):
        tracemalloc.start()
        assert find_unreadable(data, chosen[:count], Said()) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + big.nbytes / 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/data/set/val/hen/1.png\n/data/set/val/hen/2.png\n", "these are absolute paths: give names relative to"),
        ("C:\\set\\val\\hen\\9.png\n", "these are absolute paths"),
        ("id;label\nhen/1.png;0\n", "cells seem to be separated by ';': use commas"),
        ("example_id\tlabel\nhen/1.png\t0\n", "cells seem to be separated by tabs: use commas"),
        ('["hen/1.png", "hen/2.png"]\n', "this seems to be JSON"),
        ('[\n  "hen/1.png",\n  "hen/2.png"\n]\n', "this seems to be JSON"),
    ],
)
def test_lists_in_another_form_are_told_by_it(tmp_path, text, words):
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(UserError, match="are not in listed") as caught:
        positions_of_ids(BIRDS, read_ids(tmp_path / "ids.txt"))
    assert words in str(caught.value)
