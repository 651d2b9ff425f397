"""Data sources: npz files, image folders, torchvision; held-out examples; what results may say of a path."""

import gc
import io
import pickle
import shutil
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from s3ta.data import TORCHVISION_DATASETS, DataConfig, fetch_batch, open_dataset, resolve_source
from s3ta.errors import UserError

from .helpers import pixels

COLOUR = pixels(11, 6, 7, 3)
LABELS = np.arange(11) % 3


def _npz(path, **arrays):
    path.parent.mkdir(exist_ok=True, parents=True)
    np.savez(path, **({"images": COLOUR, "labels": LABELS} | arrays))
    return path


def _open(root, source, split="test", **settings):
    return open_dataset(DataConfig(source=source, **settings), split, root)


def _sentence(root, source, split="test", **settings):
    with pytest.raises(UserError) as caught:
        _open(root, source, split, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- npz -----------------------------------------------------------------------------------------------------------------


def test_an_npz_file_is_a_test_set(tmp_path):
    _npz(tmp_path / "x.npz", classes=np.array(["a", "b", "c"]), ids=np.array([f"id-{i}" for i in range(11)]))
    data = _open(tmp_path, "npz:x.npz")
    assert data.shape == (3, 6, 7)
    assert list(data.classes) == ["a", "b", "c"]
    assert list(data.ids) == [f"id-{i}" for i in range(11)]
    assert data.labels.tolist() == LABELS.tolist()
    for i in range(11):
        assert np.array_equal(data.image(i), COLOUR[i].transpose(2, 0, 1))
        assert np.array_equal(data.image(i, (0, i)), data.image(i))  # no augmentation unless asked for
    assert fetch_batch(data, [2, 1]).labels.tolist() == [2, 1]
    assert data.fingerprint == _open(tmp_path, "npz:x.npz").fingerprint
    _npz(tmp_path / "y.npz", labels=(LABELS + 1) % 3)
    assert _open(tmp_path, "npz:y.npz").fingerprint != data.fingerprint


def test_an_npz_folder_has_training_and_test_images(tmp_path):
    _npz(tmp_path / "set" / "train.npz")
    _npz(tmp_path / "set" / "test.npz", images=COLOUR[:5], labels=LABELS[:5])
    parts = {split: _open(tmp_path, "npz:set", split, num_validation=4) for split in ("train", "validation", "test")}
    assert [len(part.ids) for part in parts.values()] == [7, 4, 5]
    assert [part.split for part in parts.values()] == ["train", "validation", "test"]
    assert len({i for part in parts.values() for i in part.ids}) == 16
    (tmp_path / "set" / "test.npz").unlink()
    assert "test.npz does not exist: npz:PATH names a file, or a folder" in _sentence(tmp_path, "npz:set")


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (COLOUR, (3, 6, 7)),
        (COLOUR.transpose(0, 3, 1, 2), (3, 6, 7)),
        (COLOUR[..., 0], (1, 6, 7)),
        (COLOUR[..., :1], (1, 6, 7)),
        (COLOUR[..., 0][:, None], (1, 6, 7)),
        (pixels(11, 6, 7, 5), (5, 6, 7)),
    ],
    ids=["HWC", "CHW", "grey", "HW1", "1HW", "five"],
)
def test_npz_images_of_every_layout_are_read(tmp_path, images, shape):
    _npz(tmp_path / "x.npz", images=images)
    data = _open(tmp_path, "npz:x.npz")
    assert data.shape == shape
    assert data.image(3).flags.c_contiguous
    expected = images[3].reshape(shape) if 1 in shape or images.shape[1] == 3 else images[3].transpose(2, 0, 1)
    assert np.array_equal(data.image(3), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_npz_images_are_resized_as_configured(tmp_path, channels):
    flat = np.broadcast_to(np.arange(11, dtype=np.uint8)[:, None, None, None] * 20, (11, 6, 8, channels))
    _npz(tmp_path / "x.npz", images=flat)
    data = _open(tmp_path, "npz:x.npz", image_size=4)
    assert data.shape == (channels, 4, 4)
    assert all((data.image(i)[0] == 20 * i).all() for i in range(11))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": COLOUR.astype(np.float32)}, "images of type float32"),
        ({"images": COLOUR.astype(np.int64)}, "they must be uint8"),
        ({"images": np.where(COLOUR[3, 3, 3, 1] == COLOUR, np.nan, COLOUR)}, "not finite numbers (NaN"),
        ({"images": COLOUR[0, 0]}, "shape (7, 3)"),
        ({"images": np.full(COLOUR.shape, np.inf, np.float16)}, "not finite"),
        ({"images": COLOUR[:, None]}, "shape (11, 1, 6, 7, 3)"),
        ({"images": COLOUR[:0], "labels": LABELS[:0]}, "0 images"),
        ({"labels": LABELS[:10]}, "11 images and labels of type int64 and shape (10,)"),
        ({"labels": LABELS[:, None]}, "shape (11, 1)"),
        ({"labels": LABELS.astype(float)}, "type float64"),
        ({"labels": LABELS - 1}, "labels from -1 to 1"),
        ({"labels": LABELS.astype(str)}, "one whole number per image"),
        ({"classes": np.array(["a", "b"])}, "labels from 0 to 2, but 2 classes"),
        ({"ids": np.array(["x"] * 11)}, "one different id for each of its 11 images"),
        ({"ids": np.array(["x", "y"])}, "one different id"),
    ],
    ids=str,
)
def test_wrong_arrays_are_named(tmp_path, arrays, words):
    path = _npz(tmp_path / "x.npz", **arrays)
    sentence = _sentence(tmp_path, "npz:x.npz")
    assert sentence.startswith(str(path))
    assert words in sentence


@pytest.mark.parametrize("kept", ["images", "labels", "nothing"])
def test_missing_arrays_are_named(tmp_path, kept):
    np.savez(tmp_path / "x.npz", **{kept: COLOUR if kept == "images" else LABELS})
    assert "must hold the arrays 'images' and 'labels'" in _sentence(tmp_path, "npz:x.npz")


class Trap:
    """Unpickling it is what must not happen."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle from a data file was loaded",))


def _damaged(kind):
    buffer = io.BytesIO()
    if kind == "pickle":
        return pickle.dumps(Trap())
    if kind == "npy":
        np.save(buffer, COLOUR)
    else:
        objects = np.array([Trap()] * 11, dtype=object)
        labels = objects if kind == "object labels" else LABELS
        np.savez(buffer, images=objects if kind == "object images" else COLOUR, labels=labels)
    whole = buffer.getvalue()
    return {
        "truncated": whole[:-200],
        "text": b"images, labels\n" * 40,
        "empty": b"",
        "flipped": whole[:300] + b"?????" + whole[305:],
    }.get(kind, whole)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy leaves damaged archives open
@pytest.mark.parametrize(
    "kind", ["truncated", "text", "empty", "flipped", "npy", "pickle", "object images", "object labels"]
)
def test_damaged_files_and_pickles_are_refused(tmp_path, kind):
    (tmp_path / "x.npz").write_bytes(_damaged(kind))
    assert "x.npz is damaged, or not an npz file" in _sentence(tmp_path, "npz:x.npz")
    gc.collect()


@pytest.mark.parametrize(
    ("arrays", "settings"),
    [
        pytest.param(
            arrays,
            settings,
            id=what,
        )
        for what, arrays, settings in [
            ("classes is one text: TypeError", {"classes": np.array("abc")}, {}),
            ("ids is one text: TypeError", {"ids": np.array("abc")}, {}),
            ("images without rows: accepted", {"images": COLOUR[:, :0]}, {}),
            ("one class name twice: accepted", {"classes": np.array(["a", "a", "b"])}, {}),
        ]
    ],
)
def test_odd_arrays_are_refused(tmp_path, arrays, settings):
    _npz(tmp_path / "x.npz", **arrays)
    assert "x.npz" in _sentence(tmp_path, "npz:x.npz", **settings)


def test_a_single_file_is_never_both_training_and_test(tmp_path):
    _npz(tmp_path / "x.npz")
    with pytest.raises(UserError):
        assert not [_open(tmp_path, "npz:x.npz", split, num_validation=2) for split in ("train", "test")]


# --- folders -------------------------------------------------------------------------------------------------------------


def _picture(path, value=0, size=(9, 7), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 100, 200)).convert(mode).save(path)


@pytest.fixture
def flowers(tmp_path):
    for split, count in (("train", 4), ("val", 2)):
        for label, name in enumerate(("daisy", "rose", "tulip")):
            for i in range(count):
                _picture(tmp_path / "flowers" / split / name / f"{i}.png", value=50 * label + i)
    return tmp_path


def test_a_folder_of_classes_is_read(flowers):
    parts = {
        split: _open(flowers, "folder:flowers", split, image_size=5, num_validation=3)
        for split in ("train", "validation", "test")
    }
    assert [len(part.ids) for part in parts.values()] == [9, 3, 6]
    for part in parts.values():
        assert list(part.classes) == ["daisy", "rose", "tulip"]
        assert part.shape == (3, 5, 5)
        for i, name in enumerate(part.ids):
            _, folder, file = name.split("/")
            assert part.classes[part.labels[i]] == folder
            assert (part.image(i)[0] == 50 * part.labels[i] + int(file[0])).all()
    assert set(parts["train"].ids).isdisjoint(parts["validation"].ids)


def test_a_folder_is_read_at_any_depth_with_every_suffix(flowers):
    inside = flowers / "flowers" / "val" / "daisy"
    _picture(inside / "deep" / "er" / "x.JPG")
    _picture(inside / "grey.png", mode="L")
    _picture(inside / "alpha.png", mode="RGBA")
    _picture(inside / "palette.gif", mode="P")
    _picture(inside / "one.png", size=(1, 1))
    _picture(inside / "long.png", size=(40, 2))
    (inside / "notes.txt").write_text("no image")
    data = _open(flowers, "folder:flowers", image_size=5)
    assert len(data.ids) == 12
    assert "val/daisy/deep/er/x.JPG" in data.ids
    assert all(data.image(i).shape == (3, 5, 5) for i in range(12))
    grey = _open(flowers, "folder:flowers", image_size=5, channels=1)
    assert grey.image(0).shape == grey.shape == (1, 5, 5)


def test_folder_fingerprint_follows_names_and_sizes(flowers):
    def fingerprint():
        return _open(flowers, "folder:flowers", image_size=5).fingerprint

    before = fingerprint()
    assert fingerprint() == before
    (flowers / "flowers/val/rose/0.png").rename(flowers / "flowers/val/rose/5.png")
    renamed = fingerprint()
    _picture(flowers / "flowers/val/rose/1.png", size=(30, 30))
    assert len({before, renamed, fingerprint()}) == 3


def test_a_damaged_image_is_named_when_it_is_read(flowers):
    path = flowers / "flowers/val/rose/0.png"
    path.write_bytes(path.read_bytes()[:50])
    (flowers / "flowers/val/tulip/9.jpg").write_text("a text file renamed")
    data = _open(flowers, "folder:flowers", image_size=5)
    for name in ("val/rose/0.png", "val/tulip/9.jpg"):
        with pytest.raises(UserError, match=rf"{name} cannot be read as an image"):
            fetch_batch(data, [data.ids.index(name)])
    path.unlink()
    with pytest.raises(UserError, match=r"rose/0\.png does not exist"):
        data.image(data.ids.index("val/rose/0.png"))


def test_missing_folders_are_named(flowers):
    assert "data folder" in _sentence(flowers, "folder:flower", image_size=5)
    assert "does not exist" in _sentence(flowers, "folder:flower", image_size=5)
    assert "set data.image_size" in _sentence(flowers, "folder:flowers")
    (flowers / "flowers/train").rename(flowers / "flowers/training")
    assert "has no folder train in it" in _sentence(flowers, "folder:flowers", "train", image_size=5)
    assert "has no folder train in it" in _sentence(flowers, "folder:flowers", "validation", image_size=5)
    (flowers / "empty/test").mkdir(parents=True)
    assert "holds no images: expected CLASS/" in _sentence(flowers, "folder:empty", image_size=5)
    (flowers / "empty/test/class").mkdir()
    assert "holds no images" in _sentence(flowers, "folder:empty", image_size=5)
    (flowers / "empty/test").rename(flowers / "empty/tests")
    assert "has no folder test or val" in _sentence(flowers, "folder:empty", image_size=5)


def test_classes_of_the_test_folder_are_those_of_training(flowers):
    (flowers / "flowers/val/daisy").rename(flowers / "flowers/val/aster")
    (flowers / "flowers/val/rose").rename(flowers / "flowers/val/daisy")
    assert "has the class 'aster', which" in _sentence(flowers, "folder:flowers", image_size=5)
    shutil.rmtree(flowers / "flowers/val/aster")
    test = _open(flowers, "folder:flowers", image_size=5)
    assert list(test.classes) == ["daisy", "rose", "tulip"]
    assert set(test.labels.tolist()) == {0, 2}


def test_an_id_names_one_picture_over_all_splits(flowers):
    parts = [
        _open(flowers, "folder:flowers", split, image_size=5, num_validation=3)
        for split in ("train", "validation", "test")
    ]
    assert max(Counter(i for part in parts for i in part.ids).values()) == 1


def test_hidden_folders_are_no_classes(flowers):
    (flowers / "flowers/val/.ipynb_checkpoints").mkdir()
    assert list(_open(flowers, "folder:flowers", image_size=5).classes) == ["daisy", "rose", "tulip"]


# --- held-out examples, augmentation ---------------------------------------------------------------------------------------


def test_validation_is_disjoint_complete_and_fixed(tmp_path):
    images = pixels(50, 4, 4, 3)
    (tmp_path / "set").mkdir()
    _npz(tmp_path / "set" / "train.npz", images=images, labels=np.arange(50) % 3)
    for count in (0, 1, 20, 49):
        train, validation = (
            _open(tmp_path, "npz:set", split, num_validation=count) for split in ("train", "validation")
        )
        assert (len(train.ids), len(validation.ids)) == (50 - count, count)
        assert set(train.ids) | set(validation.ids) == {f"train-{i:06d}" for i in range(50)}
        assert set(train.ids).isdisjoint(validation.ids)
        for part in (train, validation):
            for i, name in enumerate(part.ids):
                assert part.labels[i] == int(name[-6:]) % 3
                assert np.array_equal(part.image(i), images[int(name[-6:])].transpose(2, 0, 1))
    assert _open(
        tmp_path, "npz:set", "validation", num_validation=5
    ).ids == [  # pinned: else old runs were tuned on their test
        f"train-{i:06d}" for i in [5, 9, 11, 15, 44]
    ]
    larger = _open(tmp_path, "npz:set", "validation", num_validation=6)
    assert set(_open(tmp_path, "npz:set", "validation", num_validation=5).ids) < set(larger.ids)
    assert larger.fingerprint != _open(tmp_path, "npz:set", "validation", num_validation=5).fingerprint
    for count in (50, 51):
        assert "set it lower" in _sentence(tmp_path, "npz:set", "train", num_validation=count)


def test_training_images_are_augmented_by_name(tmp_path):
    (tmp_path / "set").mkdir()
    _npz(tmp_path / "set" / "train.npz", images=pixels(11, 16, 16, 3))
    data = _open(tmp_path, "npz:set", "train", num_validation=1, augment="crop_flip")
    plain = _open(tmp_path, "npz:set", "train", num_validation=1)
    drawn = {(seed, epoch): data.image(3, (seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len({image.tobytes() for image in drawn.values()}) > 8
    assert all(np.array_equal(data.image(3, name), image) for name, image in drawn.items())
    assert np.array_equal(data.image(3), plain.image(3))
    assert np.array_equal(plain.image(3, (0, 1)), plain.image(3))
    assert np.array_equal(
        _open(tmp_path, "npz:set", "train", num_validation=5, augment="crop_flip").image(0, (0, 0)),
        data.image(data.ids.index(_open(tmp_path, "npz:set", "train", num_validation=5).ids[0]), (0, 0)),
    )


# --- torchvision -----------------------------------------------------------------------------------------------------------


class StandIn:
    """What torchvision's CIFAR10 looks like from outside, without its files."""

    calls: ClassVar[list] = []
    missing = False

    def __init__(self, root, train, download):
        type(self).calls.append((root, train, download))
        if self.missing and not download:
            raise RuntimeError("Dataset not found or corrupted. You can use download=True to download it")
        count = 30 if train else 12
        self.data = pixels(count, 32, 32, 3, seed=train)
        self.targets = [i % 10 for i in range(count)]
        self.classes = [f"class {i}" for i in range(10)]


@pytest.fixture
def stand_in(monkeypatch):
    import torchvision

    class Fresh(StandIn):
        calls: ClassVar[list] = []

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fresh)
    return Fresh


def test_torchvision_data_are_read(tmp_path, stand_in):
    parts = {
        split: _open(tmp_path, "torchvision:CIFAR10", split, num_validation=4)
        for split in ("train", "validation", "test")
    }
    assert [len(part.ids) for part in parts.values()] == [26, 4, 12]
    assert stand_in.calls == [(str(tmp_path), True, False), (str(tmp_path), True, False), (str(tmp_path), False, False)]
    test = parts["test"]
    assert test.shape == (3, 32, 32)
    assert list(test.ids)[:2] == ["cifar10-test-00000", "cifar10-test-00001"]
    assert parts["train"].ids[0].startswith("cifar10-train-")
    assert list(test.classes) == [f"class {i}" for i in range(10)]
    assert np.array_equal(test.image(5), pixels(12, 32, 32, 3, seed=False)[5].transpose(2, 0, 1))
    assert test.labels.dtype == np.int64


def test_download_is_asked_for_and_passed_on(tmp_path, stand_in):
    stand_in.missing = True
    sentence = _sentence(tmp_path, "torchvision:CIFAR10")
    assert f"CIFAR10 is not in {tmp_path}" in sentence
    assert "--download" in sentence
    data = open_dataset(DataConfig(source="torchvision:CIFAR10"), "test", tmp_path, download=True)
    assert len(data.ids) == 12
    assert stand_in.calls[-1] == (str(tmp_path), False, True)


@pytest.mark.parametrize("error", [ConnectionResetError("reset"), TimeoutError("late"), OSError("unreachable")])
def test_a_failed_download_is_one_sentence(tmp_path, monkeypatch, error):
    import torchvision

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(UserError, match=rf"CIFAR10 could not be fetched into .* \({type(error).__name__}\)"):
        open_dataset(DataConfig(source="torchvision:CIFAR10"), "test", tmp_path, download=True)


def test_grey_torchvision_tensors(tmp_path, monkeypatch):
    import torch
    import torchvision

    class Grey(StandIn):
        def __init__(self, root, train, download):
            self.data, self.targets = torch.arange(6 * 28 * 28).reshape(6, 28, 28).to(torch.uint8), torch.arange(6)
            self.classes = list("abcdef")

    monkeypatch.setattr(torchvision.datasets, "MNIST", Grey)
    data = _open(tmp_path, "torchvision:MNIST", image_size=32)
    assert data.shape == (1, 32, 32)
    assert data.labels.tolist() == list(range(6))
    assert _open(tmp_path, "torchvision:MNIST").image(2).shape == (1, 28, 28)


@pytest.mark.parametrize("name", TORCHVISION_DATASETS)
@pytest.mark.parametrize("root", [".", "not/there"])
def test_missing_torchvision_data_say_where_and_how(tmp_path, name, root):
    sentence = _sentence(tmp_path / root, f"torchvision:{name}")
    assert name in sentence
    assert "--data-root" in sentence
    assert "--download" in sentence
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("content", [b"", b"garbage here 12345"])
def test_damaged_torchvision_files_are_one_sentence(tmp_path, content):
    (tmp_path / "MNIST/raw").mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"MNIST/raw/{name}-ubyte").write_bytes(content)
    with pytest.raises(UserError, match="MNIST"):
        _open(tmp_path, "torchvision:MNIST")


def test_damaged_cifar_is_one_sentence(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py/test_batch").write_bytes(pickle.dumps(Trap()))
    assert "or is damaged there" in _sentence(tmp_path, "torchvision:CIFAR10")


# --- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("digit", "Did you mean digits"),
        ("torchvision:CIFAR11", "Did you mean CIFAR10"),
        ("torchvison:CIFAR10", "Did you mean torchvision:CIFAR10"),
        ("folder:", "Unknown data source 'folder:'"),
        ("npz", "Unknown data source"),
        ("", "Known: digits, folder:PATH"),
        ("digits:x", "Unknown data source"),
        ("torchvision:", "Unknown data source"),
        ("torchvision:__doc__", "Unknown torchvision data set"),
    ],
)
def test_unknown_sources_offer_the_nearest(tmp_path, source, words):
    assert words in _sentence(tmp_path, source)


def test_unknown_split_offers_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"Unknown split 'valid'\. Did you mean validation"):
        open_dataset(DataConfig(), "valid", tmp_path)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("folder:{root}/secret/flowers", "folder:flowers"),
        ("folder:{root}/secret/flowers/", "folder:flowers"),
        ("npz:{root}/secret/x.npz", "npz:x.npz"),
        ("folder:secret/flowers", "folder:flowers"),
        ("npz:secret/x.npz", "npz:x.npz"),
        ("digits", "digits"),
        ("torchvision:CIFAR10", "torchvision:CIFAR10"),
    ],
)
def test_the_machines_folders_never_reach_the_name(tmp_path, text, source):
    located = resolve_source(text.format(root=tmp_path), tmp_path)
    assert located.source == source
    assert "secret" not in located.source
    if ":" in source and "CIFAR" not in source:
        assert located.root == tmp_path / "secret"
    else:
        assert located.root == tmp_path


def test_located_data_open_and_do_not_name_their_root(flowers):
    _npz(flowers / "secret" / "x.npz")
    for text, settings in ((f"npz:{flowers}/secret/x.npz", {}), (f"folder:{flowers}/flowers", {"image_size": 5})):
        source, root = resolve_source(text, flowers / "elsewhere")
        data = _open(root, source, **settings)
        assert str(flowers) not in f"{data.source} {data.ids} {data.classes} {data.fingerprint}"
        assert resolve_source(source, root) == (source, root)


def test_the_home_folder_is_understood(flowers, monkeypatch):
    monkeypatch.setenv("HOME", str(flowers))
    assert resolve_source("folder:~/flowers", flowers / "data") == ("folder:flowers", flowers)


# --- the development images --------------------------------------------------------------------------------------------------


def test_official_cifar10_files_are_read(data_folder):
    parts = {
        split: open_dataset(DataConfig(source="torchvision:CIFAR10"), split, data_folder)
        for split in ("train", "validation", "test")
    }
    assert [len(part.ids) for part in parts.values()] == [49_000, 1_000, 10_000]
    assert set(parts["train"].ids).isdisjoint(parts["validation"].ids)
    test = parts["test"]
    assert test.classes[3] == "cat"
    assert np.bincount(test.labels).tolist() == [1000] * 10
    npz = open_dataset(DataConfig(source="npz:cifar10"), "test", data_folder)
    assert np.array_equal(npz.labels, test.labels)
    for i in (0, 1234, 9999):
        assert np.array_equal(npz.image(i), test.image(i))
    _, images, labels, _ = fetch_batch(test, [0])
    assert labels.tolist() == [3]
    assert 0.2 < images.mean() < 0.7


def test_imagenette_is_read_at_96_pixels(data_folder):
    data = open_dataset(DataConfig(source="folder:imagenette2-96", image_size=96), "test", data_folder)
    assert len(data.ids) == 3925
    assert len(data.classes) == 10
    assert data.shape == (3, 96, 96)
    chosen = range(0, 3925, 400)
    ids, images, labels, _ = fetch_batch(data, chosen)
    assert images.shape == (10, 3, 96, 96)
    assert [data.classes[label] for label in labels] == [i.split("/")[1] for i in ids]
    assert images.std() > 0.15
    train, validation = (
        open_dataset(DataConfig(source="folder:imagenette2-96", image_size=96), split, data_folder)
        for split in ("train", "validation")
    )
    assert (len(train.ids), len(validation.ids)) == (8469, 1000)
