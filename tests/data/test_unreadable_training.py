"""Training on image files some of which cannot be read: named and fatal, or replaced by others that the seed decides."""

import numpy as np
import pytest
import torch
from PIL import Image

from s3ta.config import config_hash
from s3ta.data import BatchOrder, DataConfig, batches, fetch_batch, open_dataset
from s3ta.data.dataset import MOST_SUBSTITUTES
from s3ta.errors import UserError

from .helpers import pixels

DAMAGED = "train/a/04.png"


@pytest.fixture
def root(tmp_path):
    for i in range(12):
        path = tmp_path / "set" / "train" / "ab"[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(1, 20, 24, 3, seed=i)[0]).save(path)
    (tmp_path / "set" / DAMAGED).write_bytes(b"no image")
    return tmp_path


def _open(root, on_unreadable, augment="none"):
    config = DataConfig(
        source="folder:set", image_size=16, num_validation=0, augment=augment, on_unreadable=on_unreadable
    )
    return open_dataset(config, "train", root)


@pytest.mark.parametrize("augment", ["none", "crop_flip", "fd"])
@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_file_stops_training_with_its_id_and_what_to_do(root, augment, num_workers):
    data = _open(root, "fail", augment)
    with pytest.raises(UserError) as caught:
        list(batches(BatchOrder(data, 12, 0), range(1), num_workers))
    assert str(caught.value) == (
        f"{DAMAGED} cannot be read as an image (UnidentifiedImageError): it is damaged or of another kind. Repair this file "
        "or take it away, or let training take another example in its place with data.on_unreadable=skip."
    )


@pytest.mark.parametrize("augment", ["none", "crop_flip", "fd"])
def test_a_damaged_file_is_replaced_by_an_example_of_the_same_draw(root, augment):
    data = _open(root, "skip", augment)
    place, stand_ins = list(data.ids).index(DAMAGED), set()
    for epoch in range(12):
        found = fetch_batch(data, range(12), (0, epoch))
        assert [(name, reason.split(" (")[0]) for name, reason in found.skipped] == [
            (DAMAGED, f"{DAMAGED} cannot be read as an image")
        ]
        assert [found.ids[i] == data.ids[i] for i in range(12)] == [i != place for i in range(12)]
        stand_in = list(data.ids).index(found.ids[place])
        stand_ins.add(stand_in)
        assert found.labels[place] == data.labels[stand_in]
        assert torch.equal(found.images[place], fetch_batch(data, [stand_in], (0, epoch)).images[0])
        again = fetch_batch(data, [place], (0, epoch))
        assert again.ids == [found.ids[place]]
        assert torch.equal(again.images[0], found.images[place])
    assert len(stand_ins) > 3
    assert fetch_batch(data, [0, 1], (0, 0)).skipped == ()


def test_what_is_measured_is_never_replaced(root):
    with pytest.raises(UserError, match=f"^{DAMAGED} cannot be read as an image") as caught:
        fetch_batch(_open(root, "skip"), range(12))
    assert "on_unreadable" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_worker_processes_skip_the_same_in_the_same_form(root):
    data = _open(root, "skip", "crop_flip")
    alone, together = (
        list(batches(BatchOrder(data, 6, 3), range(4))),
        list(batches(BatchOrder(data, 6, 3), range(4), num_workers=1)),
    )
    assert sum(len(batch.skipped) for batch in alone) == 2
    for one, other in zip(alone, together, strict=True):
        assert one.ids == other.ids
        assert torch.equal(one.images, other.images)
        assert one.skipped == other.skipped
        assert type(other.skipped) is tuple
        assert all(type(pair) is tuple for pair in other.skipped)


def test_data_that_is_damaged_throughout_ends_in_a_sentence(root):
    data = _open(root, "skip")
    for name in data.ids:
        (root / "set" / name).write_bytes(b"")
    with pytest.raises(UserError) as caught:
        fetch_batch(data, [3], (0, 0))
    assert str(caught.value) == (
        f"{data.ids[3]} cannot be read, nor can {MOST_SUBSTITUTES} examples of folder:set that were drawn to take its "
        "place: repair the files."
    )


def test_the_setting_is_no_part_of_what_a_run_is():
    assert "on_unreadable" not in DataConfig(on_unreadable="skip").identity()
    assert config_hash(DataConfig()) == config_hash(DataConfig(on_unreadable="skip"))


@pytest.mark.parametrize("augment", ["simple", "fd"])
def test_training_cuts_from_the_whole_file(root, augment):
    """A strip that is black in the middle, which is all that evaluation sees of it, and grey at its ends."""
    strip = np.full((20, 60, 3), 100, np.uint8)
    strip[:, 18:42] = 0
    Image.fromarray(strip).save(root / "set" / "train" / "a" / "00.png")
    data = _open(root, "fail", augment)
    index = list(data.ids).index("train/a/00.png")
    assert data.image(index).max() == 0
    assert max(data.image(index, (0, epoch)).mean() for epoch in range(10)) > 20


def test_whatever_a_plug_in_raises_is_skipped_like_other_damage(root, monkeypatch):
    """Damaged AVIF files raise RuntimeError."""
    convert = Image.Image.convert

    def fail(picture, *args, **settings):
        if getattr(picture, "filename", "").endswith(DAMAGED):
            raise RuntimeError("Failed to decode image")
        return convert(picture, *args, **settings)

    Image.fromarray(pixels(1, 20, 24, 3)[0]).save(root / "set" / DAMAGED)
    monkeypatch.setattr(Image.Image, "convert", fail)
    (skipped,) = fetch_batch(_open(root, "skip"), range(12), (0, 0)).skipped
    assert skipped[0] == DAMAGED
    assert skipped[1].startswith(f"{DAMAGED} cannot be read as an image (RuntimeError)")
