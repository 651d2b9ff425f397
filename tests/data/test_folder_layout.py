"""The usual layouts of data folders: read where they tell the labels, named in one sentence where they do not."""

import os
import shutil
from pathlib import Path

import pytest

from s3ta.data import DataConfig, check_model_fits_data, fetch_batch, folder_summary, open_dataset, resolve_source
from s3ta.errors import UserError

from .trees import CLASSES, left_out, opened, picture, tree


def _sentence(root, split="test", **settings):
    with pytest.raises(UserError) as caught:
        opened(root, split, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _flat(part, count=3):
    for number in range(count):
        picture(part / f"{number}.png")


def _tiny(root, with_train=True):
    """Tiny-ImageNet as it is unpacked, in small."""
    names = ("n01", "n02", "n10")
    if with_train:
        for label, name in enumerate(names):
            picture(root / "train" / name / "images" / f"{name}_0.JPEG", label)
            (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
    _flat(root / "test" / "images")
    rows = []
    for number in range(6):
        picture(root / "val" / "images" / f"val_{number}.JPEG", (5 - number) % 3, number)
        rows.append(f"val_{number}.JPEG\t{names[(5 - number) % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    return names


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_the_part_by_class_is_taken_under_each_name(tmp_path, name):
    tree(tmp_path / "set", name)
    data = opened(tmp_path / "set")
    assert data.ids[0] == f"{name}/ant/0.png"
    assert folder_summary(data) == ""


@pytest.mark.parametrize("flat", ["test", "test/images", "test/test"])
def test_val_is_used_and_told_where_test_has_no_labels(tmp_path, flat):
    """03.b."""
    tree(tmp_path / "set", "train")
    tree(tmp_path / "set", "val")
    _flat(tmp_path / "set" / flat)
    data = opened(tmp_path / "set")
    assert data.ids[0] == "val/ant/0.png"
    assert len(data.ids) == 6
    line = folder_summary(data)
    assert line.startswith("folder:set (test): test/ ")
    assert line.endswith("so val/ is used.")


def test_test_is_used_where_it_has_labels(tmp_path):
    for part in ("train", "val", "test"):
        tree(tmp_path / "set", part)
    assert opened(tmp_path / "set").ids[0].startswith("test/")


def test_parts_without_labels_are_told_with_what_to_do(tmp_path):
    """03.a."""
    tree(tmp_path / "set", "train")
    _flat(tmp_path / "set/test")
    _flat(tmp_path / "set/val", 4)
    sentence = _sentence(tmp_path / "set")
    for words in (
        "does not say which class its test images have",
        "test/ holds 3 images without class folders; val/ holds 4 images without class folders",
        "into a folder for each class, as in test/CLASS/*.jpg",
        "--split validation",
    ):
        assert words in sentence


def test_a_folder_in_a_folder_of_the_same_name_is_no_class(tmp_path):
    """03.c."""
    tree(tmp_path / "set", "train")
    _flat(tmp_path / "set/test/test")
    assert "test/ has the folder 'test', which is no class of train/" in _sentence(tmp_path / "set")


def test_training_needs_class_folders_too(tmp_path):
    _flat(tmp_path / "set/train")
    assert "train/ holds 3 images without class folders" in _sentence(tmp_path / "set", "train")


@pytest.mark.parametrize("with_train", [True, False])
def test_tiny_imagenet_is_read_by_its_annotations(tmp_path, with_train):
    """03.e, 03.f."""
    names = _tiny(tmp_path / "tiny", with_train)
    if not with_train:
        shutil.rmtree(tmp_path / "tiny/test")
    data = opened(tmp_path / "tiny")
    assert list(data.classes) == list(names)
    assert [data.ids[i] for i in range(2)] == ["val/images/val_2.JPEG", "val/images/val_5.JPEG"]
    for index, name in enumerate(data.ids):
        number = int(name.removesuffix(".JPEG").rpartition("_")[2])
        assert data.labels[index] == (5 - number) % 3
        assert (data.image(index)[0] == 50 * data.labels[index] + number).all()
    if with_train:
        assert Counted(opened(tmp_path / "tiny", "train", num_validation=0)) == {"n01": 1, "n02": 1, "n10": 1}


class Counted(dict):
    """Examples by class."""

    def __init__(self, data):
        super().__init__({name: int((data.labels == label).sum()) for label, name in enumerate(data.classes)})


def test_the_val_folder_of_tiny_imagenet_alone_is_read_too(tmp_path):
    _tiny(tmp_path / "tiny")
    data = open_dataset(DataConfig(source="folder:val", image_size=8), "test", tmp_path / "tiny")
    assert sorted(data.ids) == [f"images/val_{number}.JPEG" for number in range(6)]


def test_annotations_and_images_that_do_not_meet_are_counted(tmp_path):
    _tiny(tmp_path / "tiny")
    picture(tmp_path / "tiny/val/images/unknown.JPEG")
    os.unlink(tmp_path / "tiny/val/images/val_3.JPEG")
    data = opened(tmp_path / "tiny")
    assert left_out(data) == {"unlabelled": 1}
    gone = list(data.ids).index("val/images/val_3.JPEG")
    assert data.problem(gone) == "val/images/val_3.JPEG does not exist."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("val_0.JPEG n01\n", "val_annotations.txt, line 1: expected the name of a file, a tab, and its class"),
        ("val_0.JPEG\tn99\n", "val_annotations.txt has the class 'n99', which"),
    ],
)
def test_odd_annotations_are_refused(tmp_path, text, words):
    _tiny(tmp_path / "tiny")
    (tmp_path / "tiny/val/val_annotations.txt").write_text(text)
    assert words in _sentence(tmp_path / "tiny")


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".ZIP"])
def test_an_archive_is_named_as_one(tmp_path, suffix):
    """01.z."""
    path = tmp_path / f"val{suffix}"
    path.write_bytes(b"PK")
    assert _sentence(path) == f"{path} is an archive: unpack it, and name the folder that comes out of it."
    if suffix.islower():
        assert _sentence(tmp_path / "val") == (
            f"The data folder {tmp_path / 'val'} does not exist, but val{suffix} lies there: unpack it first."
        )


def test_an_archive_in_the_folder_is_named(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/val.tar").write_bytes(b"")
    assert "but the archive val.tar: unpack it first." in _sentence(tmp_path / "set")


@pytest.mark.parametrize(("name", "words"), [("x.npz", "name it as npz:"), ("x.png", "name the folder that holds")])
def test_a_file_is_no_folder(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"")
    assert "is a file, not a folder: " + words in _sentence(tmp_path / name)


@pytest.mark.parametrize("inner", ["val", "train"])
def test_a_folder_one_level_up_names_the_one_below(tmp_path, inner):
    tree(tmp_path / "up" / "set", inner)
    assert f"one level down, in folder:{tmp_path / 'up' / 'set'}." in _sentence(tmp_path / "up")


@pytest.mark.parametrize("name", ["valid", "Test", "Val", "dev", "testing"])
def test_parts_of_other_names_are_suggested(tmp_path, name):
    tree(tmp_path / "set", "train")
    tree(tmp_path / "set", name)
    assert f"in folder:{tmp_path / 'set' / name}." in _sentence(tmp_path / "set")


def test_a_folder_with_nothing_but_training_says_how_to_measure_it(tmp_path):
    tree(tmp_path / "set", "train")
    assert "only train/: measure a part of it with --split validation, or all" in _sentence(tmp_path / "set")


def test_a_folder_one_level_down_names_the_one_above(tmp_path):
    part = tree(tmp_path / "set")
    sentence = _sentence(part / "ant")
    assert "2 images without class folders" in sentence
    assert f"name the folder above, folder:{part}." in sentence
    assert list(opened(part).classes) == list(CLASSES)


def test_sources_may_be_named_by_path(tmp_path):
    part = tree(tmp_path / "set")
    located = resolve_source(f"folder:{part}", tmp_path / "elsewhere")
    assert located.source == "folder:val"
    assert fetch_batch(
        open_dataset(DataConfig(source=located.source, image_size=8), "test", located.root), [0]
    ).ids == ["ant/0.png"]


# --- another number of classes ---------------------------------------------------------------------------------------------


def _misfit(root, num_classes, names=None):
    with pytest.raises(UserError) as caught:
        check_model_fits_data(opened(root), channels=3, num_classes=num_classes, classes=names)
    sentence = str(caught.value)
    assert f"The model has {num_classes} classes, but folder:set has" in sentence
    before, _, _ = sentence.partition("set model.num_classes")
    return before


def test_a_wrong_number_of_classes_names_the_folders_that_are_too_many(tmp_path):
    """02.b, 03.l."""
    tree(tmp_path / "set", "val", ("class00", "class01", "class02", "zz_backup"))
    assert "'zz_backup' is named otherwise than all others" in _misfit(tmp_path / "set", 3)
    assert "'zz_backup' is none of the model's" in _misfit(tmp_path / "set", 3, ["class00", "class01", "class02"])


def test_a_wrong_number_of_classes_names_empty_folders(tmp_path):
    part = tree(tmp_path / "set", "val", ("n01", "n02", "n03"))
    (part / "n04").mkdir()
    assert "'n04' holds no images" in _misfit(tmp_path / "set", 3)


def test_a_wrong_number_of_classes_names_those_that_are_missing(tmp_path):
    """04.d."""
    part = tree(tmp_path / "set", "val", ("ant", "bee", "eel"))
    (part / "cat").symlink_to("nowhere")
    sentence = _misfit(tmp_path / "set", 4, ["ant", "bee", "cat", "dog"])
    assert "'eel' is none of the model's" in sentence
    assert "'cat', 'dog' are missing" in sentence
    assert "'val/cat' is a link that leads nowhere" in _misfit(tmp_path / "set", 4)


def test_a_single_class_folder_is_told_as_what_it_may_be(tmp_path):
    """03.f without its annotations."""
    _flat(tmp_path / "set/val/images")
    assert "its only class folder is 'images', so its images seem not to be sorted" in _misfit(tmp_path / "set", 10)


# --- an empty part, and what lies beside the parts -----------------------------------------------------------------


@pytest.mark.parametrize("inside", ["", "ant", "ant/images"])
def test_val_is_used_and_told_where_test_holds_no_images(tmp_path, inside):
    tree(tmp_path / "set", "train")
    tree(tmp_path / "set", "val")
    (tmp_path / "set" / "test" / inside).mkdir(parents=True)
    data = opened(tmp_path / "set")
    assert data.ids[0] == "val/ant/0.png"
    assert folder_summary(data) == "folder:set (test): test/ holds no images, so val/ is used."


def test_parts_that_are_all_empty_are_told(tmp_path):
    tree(tmp_path / "set", "train")
    for part in ("test", "val"):
        (tmp_path / "set" / part).mkdir()
    assert "test holds no images: expected CLASS/*.jpg" in _sentence(tmp_path / "set")


@pytest.mark.parametrize("part", ["train", "val"])
def test_what_lies_beside_the_parts_is_counted_and_changes_nothing(tmp_path, part):
    for name in ("train", "val"):
        tree(tmp_path / "set", name)
    split = "train" if part == "train" else "test"
    before = opened(tmp_path / "set", split, num_validation=0)
    assert left_out(before) == {}
    (tmp_path / "set" / "notes.txt").write_text("x")
    picture(tmp_path / "set" / "extra" / "0.png")
    (tmp_path / "set" / ".git").mkdir()
    after = opened(tmp_path / "set", split, num_validation=0)
    assert left_out(after) == {"beside the splits": 2, "hidden": 1}
    assert "2 entries beside the splits ('extra')" in folder_summary(after)
    assert list(after.ids) == list(before.ids)
    assert after.fingerprint == before.fingerprint
    assert after.content == before.content


def test_folders_that_are_the_same_one_are_told(tmp_path):
    """A class that is a link to another, a folder linked twice in a class, and val that is train."""
    part = tree(tmp_path / "set", "train", ("ant", "bee"), 3)
    picture(part / "bee" / "deep" / "9.png")
    assert folder_summary(opened(tmp_path / "set", "train", num_validation=0)) == ""
    (part / "cow").symlink_to("ant")
    (part / "bee" / "more").symlink_to("deep")
    data = opened(tmp_path / "set", "train", num_validation=0)
    assert len(data.ids) == 3 + 4 + 1 + 3
    said = folder_summary(data)
    assert "4 files are used twice, 3 of them under two classes: " in said
    assert "is the same folder as" in said
    (tmp_path / "set" / "val").symlink_to("train")
    said = folder_summary(opened(tmp_path / "set"))
    assert "the test part is the same folder as the training part" in said


def test_a_folder_that_lies_in_the_current_one_is_named(tmp_path, monkeypatch):
    tree(tmp_path / "d" / "ok")
    monkeypatch.chdir(tmp_path)
    config = DataConfig(source="folder:ok", image_size=8)
    with pytest.raises(
        UserError, match=r"data/d/ok does not exist, but d/ok lies here: .* folder:d/ok with --data-root \."
    ):
        open_dataset(config, "test", Path("data/d"))
    with pytest.raises(UserError, match="name the folder that holds it with --data-root"):
        open_dataset(config, "test", Path("data/e/f"))


@pytest.mark.parametrize("name", ["data/test-00000-of-00001.parquet", "train.parquet"])
def test_a_parquet_data_set_is_named_as_one(tmp_path, name):
    path = tmp_path / "set" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    assert f"but a Parquet data set ({name}), which is not read: save its images" in _sentence(tmp_path / "set")


def test_an_archive_beside_the_class_folders_may_be_the_missing_class(tmp_path):
    tree(tmp_path / "set", classes=("class0", "class1"))
    (tmp_path / "set" / "val" / "class2.zip").write_bytes(b"PK")
    assert "'val/class2.zip' is packed and may be what is missing" in _misfit(tmp_path / "set", 3)
    assert "packed" not in _misfit(tmp_path / "set", 1)
