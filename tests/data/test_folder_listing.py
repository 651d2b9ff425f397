"""One walk over a data folder accounts for every entry: used, or left out for a reason that is counted."""

import json
import os
import shutil
import tempfile
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from s3ta.data import (
    BatchOrder,
    DataConfig,
    batches,
    fetch_batch,
    folder_summary,
    open_dataset,
    positions_of_ids,
    read_ids,
    write_ids,
)
from s3ta.data.folder_listing import SUFFIXES, normalize_name, on_one_line
from s3ta.errors import UserError
from s3ta.files import sha256

from .trees import CLASSES, left_out, opened, picture, tree

PLAIN = [f"val/{name}/{number}.png" for name in CLASSES for number in range(2)]


def _sentence(root, split="test", **settings):
    with pytest.raises(UserError) as caught:
        opened(root, split, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def closed():
    """Takes all permissions from a path in a folder of its own, and becomes somebody who is bound by them."""
    folder = Path(tempfile.mkdtemp(prefix="s3ta-test-"))
    folder.chmod(0o755)
    paths, is_root = [], os.geteuid() == 0

    def close(path, mode=0):
        os.chmod(path, mode)
        paths.append(path)
        if is_root:
            os.seteuid(65534)

    yield folder, close
    if is_root:
        os.seteuid(0)
    for path in paths:
        os.chmod(path, 0o755)
    shutil.rmtree(folder)


# --- left out, and counted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("ant/.ipynb_checkpoints/0-checkpoint.png", "hidden"),
        ("ant/.Trash-1000/files/0.png", "hidden"),
        ("ant/deep/er/.cache/x.png", "hidden"),
        ("bee/.hidden.png", "hidden"),
        (".git/objects/x.png", "hidden"),
        ("ant/._0.png", "system"),
        ("__MACOSX/ant/0.png", "system"),
        ("ant/__MACOSX/ant/0.png", "system"),
        ("cat/@eaDir/0.png/SYNOFILE_THUMB_M.jpg", "system"),
        ("ant/Thumbs.db", "system"),
        (".DS_Store", "system"),
        ("lost+found/x.png", "system"),
        ("ant/notes.txt", "suffix"),
        ("ant/photo.heic", "suffix"),
        ("ant/no_suffix", "suffix"),
        ("labels.csv", "suffix"),
        ("loose.png", "beside"),
    ],
)
def test_what_is_no_example_is_left_out_and_counted(tmp_path, path, reason):
    """02.e, 02.c, 02.b, 03.g and more of the kind."""
    part = tree(tmp_path / "set")
    before = opened(tmp_path / "set")
    picture(part / path, number=9)
    data = opened(tmp_path / "set")
    assert list(data.ids) == PLAIN
    assert list(data.classes) == list(CLASSES)
    assert left_out(data) == {reason: 1}
    assert (data.content, data.fingerprint) == (before.content, before.fingerprint)
    line = folder_summary(data)
    assert line.startswith("folder:set (test): 6 images are used, left out: 1 ")
    assert "\n" not in line


def test_nothing_is_said_of_a_plain_folder(tmp_path):
    tree(tmp_path / "set")
    data = opened(tmp_path / "set")
    assert folder_summary(data) == ""
    assert left_out(data) == {}


def test_content_and_fingerprint_of_a_plain_folder_are_those_of_earlier_versions(tmp_path):
    """Written out: the ids and sizes in the order of folders and names, parts compared, and no more."""
    for name in ("a-b/2.png", "a/deep/1.png", "a/b.png", "a/B.png", "a/deep.png", "10/x.png", "9/x.png"):
        (tmp_path / "set/val" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set/val" / name).write_bytes(b"x" * len(name))
    data = opened(tmp_path / "set")
    ordered = ["10/x.png", "9/x.png", "a/B.png", "a/b.png", "a/deep/1.png", "a/deep.png", "a-b/2.png"]
    assert list(data.ids) == [f"val/{name}" for name in ordered]
    assert (data.content, data.fingerprint) == ("a5bbe2d944d2ff2b", "d6d446feaf849f68")  # computed at commit 25fcae5


def test_hidden_files_are_no_training_examples(tmp_path):
    """19.j."""
    part = tree(tmp_path / "set", "train", count=4)
    shutil.copytree(part / "bee", part / "ant" / ".ipynb_checkpoints")
    data = opened(tmp_path / "set", "train", num_validation=0)
    assert Counter(data.labels.tolist()) == {0: 4, 1: 4, 2: 4}
    assert "4 hidden files" in folder_summary(data)


def test_a_class_without_images_is_told(tmp_path):
    """19.h."""
    part = tree(tmp_path / "set", "train")
    (part / "bug").mkdir()
    (part / "cow").mkdir()
    (part / "cow" / "readme.md").write_text("soon")
    data = opened(tmp_path / "set", "train", num_validation=0)
    assert list(data.classes) == ["ant", "bee", "bug", "cat", "cow"]
    assert left_out(data) == {"empty classes": 2, "suffix": 1}
    assert "2 classes without any image ('bug', 'cow')" in folder_summary(data)


def test_every_file_is_used_or_left_out(tmp_path):
    part = tree(tmp_path / "set")
    for path in (
        ".a/1.png",
        "ant/.b/2.png",
        "ant/.b/c/3",
        "x.png",
        "y.txt",
        "bee/z.txt",
        "cat/d/e/4.jpg",
        "cat/._4.jpg",
    ):
        picture(part / path)
    data = opened(tmp_path / "set")
    assert len(data.ids) + sum(left_out(data).values()) == sum(len(files) for _, _, files in os.walk(part))


def test_reasons_can_be_kept_as_json(tmp_path):
    part = tree(tmp_path / "set")
    for number in range(5):
        picture(part / "ant" / f".{number}.png")
    kept = json.loads(json.dumps(opened(tmp_path / "set").left_out.as_json()))
    assert kept == {"hidden": {"count": 5, "first": [f"val/ant/.{number}.png" for number in range(3)]}}


def test_a_folder_or_a_pipe_with_the_suffix_of_an_image_is_no_image(tmp_path):
    part = tree(tmp_path / "set")
    picture(part / "ant" / "album.png" / "inside.png")
    os.mkfifo(part / "bee" / "pipe.png")  # to open it would wait for ever
    data = opened(tmp_path / "set")
    assert list(data.ids) == sorted([*PLAIN, "val/ant/album.png/inside.png"])
    assert left_out(data) == {"special": 1}


# --- links ----------------------------------------------------------------------------------------------------------------


def test_links_to_files_folders_and_classes_are_followed(tmp_path):
    elsewhere = tree(tmp_path / "store", "all", ("ant", "bee", "cat", "nested"))
    part = tmp_path / "set" / "val"
    part.mkdir(parents=True)
    (part / "ant").symlink_to(elsewhere / "ant")
    shutil.copytree(elsewhere / "bee", part / "bee")
    (part / "bee" / "more").symlink_to(elsewhere / "nested")
    (part / "cat").mkdir()
    (part / "cat" / "0.png").symlink_to(elsewhere / "cat" / "0.png")
    data = opened(tmp_path / "set")
    expected = [
        "val/ant/0.png",
        "val/ant/1.png",
        "val/bee/0.png",
        "val/bee/1.png",
        "val/bee/more/0.png",
        "val/bee/more/1.png",
    ]
    assert list(data.ids) == [*expected, "val/cat/0.png"]
    assert len(fetch_batch(data, range(7)).ids) == 7


def test_links_that_lead_round_in_a_circle_end(tmp_path):
    part = tree(tmp_path / "set")
    (part / "ant" / "up").symlink_to(part)
    (part / "ant" / "self").symlink_to(part / "ant" / "self")
    (part / "bee" / "here").symlink_to(".")
    (part / "loop").symlink_to(part)
    data = opened(tmp_path / "set")
    assert list(data.ids) == PLAIN
    assert list(data.classes) == list(CLASSES)
    assert left_out(data) == {"circle": 4}


def test_two_folders_that_link_to_each_other_end(tmp_path):
    part = tree(tmp_path / "set")
    (part / "ant" / "bees").symlink_to(part / "bee")
    (part / "bee" / "ants").symlink_to(part / "ant")
    data = opened(tmp_path / "set")
    assert "val/ant/bees/0.png" in data.ids
    assert "val/bee/ants/0.png" in data.ids
    assert left_out(data)["circle"] == 2


def test_an_image_whose_link_leads_nowhere_cannot_be_read(tmp_path):
    """04.c: it is one of those, by name, in evaluation and in training."""
    part = tree(tmp_path / "set")
    (part / "bee" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (part / "bee" / "gone.txt").symlink_to(tmp_path / "nowhere.txt")
    data = opened(tmp_path / "set")
    index = list(data.ids).index("val/bee/gone.png")
    assert data.problem(index) == "val/bee/gone.png does not exist."
    assert left_out(data) == {"link": 1}


@pytest.mark.parametrize("vanishes", ["a link without a target", "a file between listing and reading"])
def test_training_replaces_what_vanished(tmp_path, vanishes):
    part = tree(tmp_path / "set", "train")
    if vanishes.startswith("a link"):
        (part / "bee" / "1.png").unlink()
        (part / "bee" / "1.png").symlink_to("nowhere.png")
    data = opened(tmp_path / "set", "train", num_validation=0, on_unreadable="skip")
    (part / "bee" / "1.png").unlink()
    (batch,) = batches(BatchOrder(data, 6, 0), range(1))
    assert [name for name, _ in batch.skipped] == ["train/bee/1.png"]
    assert len(batch.ids) == 6


def test_a_class_link_that_leads_nowhere_is_named_where_classes_are_missing(tmp_path):
    part = tree(tmp_path / "set")
    (part / "dog").symlink_to(tmp_path / "nowhere")
    data = opened(tmp_path / "set")
    assert list(data.classes) == list(CLASSES)
    assert "1 link that leads nowhere ('val/dog')" in folder_summary(data)


# --- permissions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["val", "val/bee", "val/bee/deep"])
@pytest.mark.parametrize("mode", [0o000, 0o444, 0o111])
def test_a_folder_without_permission_is_an_error_that_names_it(closed, where, mode):
    """18.l, 18.k: no class is missing unnoticed."""
    root, close = closed
    tree(root / "set")
    picture(root / "set/val/bee/deep/2.png")
    close(root / "set" / where, mode)
    sentence = _sentence(root / "set")
    assert f"{root / 'set' / where} cannot be read (permission is denied)" in sentence


def test_a_hidden_folder_without_permission_does_not_matter(closed):
    root, close = closed
    part = tree(root / "set")
    picture(part / "ant/.cache/x.png")
    close(part / "ant/.cache")
    assert list(opened(root / "set").ids) == PLAIN


def test_a_file_without_permission_is_named_so(closed):
    """18.n."""
    root, close = closed
    part = tree(root / "set")
    close(part / "bee" / "0.png")
    data = opened(root / "set")
    assert data.problem(2) == "val/bee/0.png cannot be read: permission is denied."


# --- names ----------------------------------------------------------------------------------------------------------------


NFC, NFD = (unicodedata.normalize(form, "Käse-Ångström") for form in ("NFC", "NFD"))


@pytest.mark.parametrize("form", [NFC, NFD])
def test_names_are_the_same_in_either_form_of_unicode(tmp_path, form):
    for name in (form, "ant"):
        picture(tmp_path / "set/val" / name / f"{form}.png", number=3)
    data = opened(tmp_path / "set")
    assert list(data.classes) == [NFC, "ant"]
    assert f"val/{NFC}/{NFC}.png" in data.ids
    assert (data.image(0)[0] == 3).all()
    for spelled in (NFC, NFD):
        (tmp_path / "ids.txt").write_text(f"val/{spelled}/{spelled}.png\n", encoding="utf-8")
        (position,) = positions_of_ids(data, read_ids(tmp_path / "ids.txt"))
        assert data.ids[position] == f"val/{NFC}/{NFC}.png"
        assert positions_of_ids(data, [f"{spelled}/{spelled}.png"]) == [position]


def test_macos_and_linux_see_the_same_content(tmp_path):
    contents = []
    for number, form in enumerate((NFC, NFD)):
        for name in (form, "zebra"):
            picture(tmp_path / f"{number}" / "set/val" / name / f"{form}.png")
        contents.append(opened(tmp_path / f"{number}" / "set").content)
    assert contents[0] == contents[1]


def test_train_and_val_may_spell_a_class_otherwise(tmp_path):
    tree(tmp_path / "set", "train", ("ant", NFC))
    tree(tmp_path / "set", "val", ("ant", NFD))
    data = opened(tmp_path / "set")
    assert list(data.classes) == [NFC, "ant"]
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert fetch_batch(data, [3]).images.shape == (1, 3, 8, 8)


def test_files_that_differ_only_in_form_are_two_examples(tmp_path):
    for number, form in enumerate((NFC, NFD)):
        picture(tmp_path / "set/val/ant" / f"{form}.png", number=number)
    picture(tmp_path / "set/val/bee/0.png")
    if len(os.listdir(tmp_path / "set/val/ant")) < 2:
        pytest.skip("this file system does not tell the forms apart")
    data = opened(tmp_path / "set")
    assert len(set(data.ids)) == 3
    assert positions_of_ids(data, list(data.ids)) == [0, 1, 2]
    assert {int(data.image(index)[0, 0, 0]) for index in (0, 1)} == {0, 1}


def test_class_folders_that_differ_only_in_form_are_refused(tmp_path):
    part = tree(tmp_path / "set", "val", (NFC, NFD))
    if len(os.listdir(part)) < 2:
        pytest.skip("this file system does not tell the forms apart")
    assert "has two folders of the name" in _sentence(tmp_path / "set")


@pytest.mark.parametrize("raw", [b"caf\xe9.png", b"\xff\xfe\x80.png", "\u00fc".encode() + b"\xe9.png"])
def test_names_in_any_bytes_become_text(tmp_path, raw):
    tree(tmp_path / "set")
    picture(os.fsencode(tmp_path / "set/val/ant") + b"/" + raw, number=7)
    data = opened(tmp_path / "set")
    (name,) = set(data.ids) - set(PLAIN)
    name.encode("utf-8")
    assert name.isprintable()
    index = list(data.ids).index(name)
    assert (data.image(index)[0] == 7).all()
    write_ids(tmp_path / "ids.txt", data.ids)
    assert positions_of_ids(data, read_ids(tmp_path / "ids.txt")) == list(range(len(data.ids)))
    json.dumps(folder_summary(data)).encode("ascii")


def test_a_class_in_any_bytes_becomes_text(tmp_path):
    for name in (b"caf\xe9", b"the"):
        picture(os.fsencode(tmp_path / "set/val") + b"/" + name + b"/0.png", number=5)
    data = opened(tmp_path / "set")
    assert list(data.classes) == ["caf\\xe9", "the"]
    assert fetch_batch(data, [0, 1]).ids == ["val/caf\\xe9/0.png", "val/the/0.png"]


def test_a_damaged_file_of_any_name_is_one_sentence(tmp_path):
    tree(tmp_path / "set")
    for raw in (b"a\nb.png", b"caf\xe9.png"):
        with open(os.fsencode(tmp_path / "set/val/ant") + b"/" + raw, "wb") as file:
            file.write(b"no image")
    data = opened(tmp_path / "set")
    problems = {problem for index in range(len(data.ids)) if (problem := data.problem(index))}
    assert {sentence.split(" cannot")[0] for sentence in problems} == {"val/ant/a\\nb.png", "val/ant/caf\\xe9.png"}


@given(st.text())
def test_every_name_becomes_text_and_stays_so(name):
    once = normalize_name(name)
    assert normalize_name(once) == once
    once.encode("utf-8")
    assert on_one_line(name).isprintable()


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1, unique=True
    )
)
def test_ids_of_any_text_come_back(names):
    """06.e, and every other character."""
    with tempfile.TemporaryDirectory() as folder:
        names = [name for name in names if name.strip()] or ["x"]
        write_ids(Path(folder) / "ids.txt", ["first", *names])
        assert read_ids(Path(folder) / "ids.txt") == ["first", *names]


def test_lists_with_old_ends_of_lines_are_read(tmp_path):
    (tmp_path / "ids.txt").write_bytes(b'a.png\rb.png\r\n# no\n\n"c\r\nd.png",3\r\n"e,f.png"\n')
    assert read_ids(tmp_path / "ids.txt") == ["a.png", "b.png", "c\r\nd.png", "e,f.png"]


# --- torchvision ----------------------------------------------------------------------------------------------------------


def _odd_tree(root, seed):
    """Folders in folders, suffixes in any case, links to files and folders; nothing hidden, for torchvision takes that."""
    random = np.random.default_rng(seed)
    suffixes = [".png", ".PNG", ".jpg", ".JPEG", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".txt", ".xml", ""]
    names = ["b", "B", "a", "a-b", "a.b", "10", "9", "é", "日本"]
    for label in range(4):
        folder = root / f"class {label}"
        for number in range(12):
            parts = [names[i] for i in random.integers(0, len(names), random.integers(0, 4))]
            path = folder.joinpath(*parts, f"{names[random.integers(len(names))]}{number}{random.choice(suffixes)}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        (folder / "first.png").write_bytes(b"x")
    (root / "class 0" / "others").symlink_to(root / "class 1")
    (root / "class 1" / "one.png").symlink_to(root / "class 2" / "first.png")
    (root / "class 4").symlink_to(root / "class 3")


@pytest.mark.parametrize("seed", range(6))
def test_the_same_files_and_labels_as_torchvision(tmp_path, seed):
    root = tmp_path / "set" / "val"
    root.mkdir(parents=True)
    _odd_tree(root, seed)
    theirs = torchvision.datasets.ImageFolder(str(root))
    ours = opened(tmp_path / "set")
    assert list(ours.classes) == theirs.classes
    samples = {
        (str(tmp_path / "set" / name), label) for name, label in zip(ours.ids, ours.labels.tolist(), strict=True)
    }
    assert samples == set(theirs.samples)


def test_torchvisions_suffixes_are_among_ours():
    assert set(torchvision.datasets.folder.IMG_EXTENSIONS) <= SUFFIXES


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".avif", ".jp2", ".tga", ".qoi"])
def test_suffixes_beyond_torchvisions_are_read(tmp_path, suffix):
    tree(tmp_path / "set")
    (tmp_path / f"set/val/ant/x{suffix}").write_bytes(b"")
    assert f"val/ant/x{suffix}" in opened(tmp_path / "set").ids


def test_listing_a_folder_asks_for_each_file_once(tmp_path):
    """A data set does not stat its files twice."""
    tree(tmp_path / "set", count=50)
    calls, real = Counter(), os.stat

    def counted(path, *rest, **more):
        calls[str(path)] += 1
        return real(path, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", counted)
        open_dataset(DataConfig(source="folder:set", image_size=8), "test", tmp_path)
    assert not any(path.endswith(".png") for path in calls)


def test_looking_a_file_over_reads_and_decodes_it_once(tmp_path, monkeypatch):
    tree(tmp_path / "set")
    data = opened(tmp_path / "set")
    reads, opens, read, open_image = [], [], Path.read_bytes, Image.open
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(Image, "open", lambda file: opens.append(file) or open_image(file))
    assert data.problem(0) is None
    assert (len(reads), len(opens)) == (1, 1)
    content = read(tmp_path / "set" / data.ids[0])
    assert data.facts[0].sha256 == sha256(content)
    assert data.facts[0].size == len(content)
