"""Augmentations by name: what each does to a batch, written out for one image in plain numpy, and how often."""

import itertools

import numpy as np
import pytest
import torch

from s3ta.config import override
from s3ta.data import DataConfig, open_dataset
from s3ta.data.augment import augmented
from s3ta.data.colour_augment import draw_colours, recolour
from s3ta.data.geometric_augment import GeometricTransform, draw_crop_flip, draw_crop_shift, moved, moved_together
from s3ta.errors import UserError
from s3ta.random_streams import stream

from .helpers import pixels

AUGMENTS = ["none", "crop_flip", "strong", "simple", "fd"]


def _crop_flip(image, generator):
    """Padded with black, a window cut out, mirrored: in this order of draws, else no old run can be resumed."""
    pad = max(1, image.shape[1] // 8)
    top, left = generator.integers(0, 2 * pad + 1, 2)
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)))
    window = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return window[:, :, ::-1] if generator.random() < 0.5 else window


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (2, 9, 14), (3, 5, 3), (1, 40, 3), (1, 1, 1)])
def test_crop_flip_equals_its_first_implementation(shape):
    images = pixels(60, *shape)
    ids = [f"x-{i}" for i in range(60)]
    found = augmented(torch.from_numpy(images), "crop_flip", ids, (3, 7)).numpy()
    for i in range(60):
        assert np.array_equal(found[i], _crop_flip(images[i], stream(3, "augment", 7, ids[i])))
    moves = [draw_crop_flip(stream(3, "augment", 7, name), *shape[1:]) for name in ids]
    assert np.array_equal(moved_together(torch.from_numpy(images), moves).numpy(), found)


def test_crop_flip_reaches_every_shift_mirrored_and_not():
    drawn = {draw_crop_flip(stream(i, "test"), 16, 16) for i in range(600)}
    assert {(m.down, m.along, m.mirrored) for m in drawn} == set(
        itertools.product(range(-2, 3), range(-2, 3), (False, True))
    )
    assert all(m.hole == (0, 0, 0, 0) for m in drawn)


def _move(image, move):
    """Pixel by pixel."""
    shown = np.zeros_like(image)
    for y in range(move.top, move.bottom):
        for x in range(move.left, move.right):
            shown[:, y, x] = image[:, y + move.down, x + move.along]
    shown = shown[:, :, ::-1].copy() if move.mirrored else shown
    shown[:, move.hole[0] : move.hole[1], move.hole[2] : move.hole[3]] = 0
    return shown


def test_moves_equal_crops_and_mirrors_written_out():
    images = pixels(30, 3, 16, 20) | 1
    moves = [draw_crop_shift(stream(i, "test"), 16, 20) for i in range(30)]
    assert any(move.hole[1] for move in moves)
    assert any(move.mirrored for move in moves)
    for way in (moved, moved_together):  # on the CPU, and on other devices
        found = way(torch.from_numpy(images), moves).numpy()
        for i in range(30):
            assert np.array_equal(found[i], _move(images[i], moves[i]))
    assert (
        moved(torch.from_numpy(images[:1]), [GeometricTransform(0, 0, 0, 16, 0, 20, False)]).numpy().tolist()
        == images[:1].tolist()
    )


def test_strong_changes_colours_and_then_moves():
    images = torch.from_numpy(pixels(25, 3, 12, 12))
    ids = [f"x-{i}" for i in range(25)]
    found = augmented(images, "strong", ids, (1, 2))
    for i in range(25):
        generator = stream(1, "augment", 2, ids[i])
        colours = draw_colours(generator, 0.25, "none")
        assert all(0.75 <= factor <= 1.25 for factor in colours.factors)
        coloured = recolour(images[i : i + 1], [colours], "channel")[0].numpy()
        assert np.array_equal(found[i].numpy(), _move(coloured, draw_crop_shift(generator, 12, 12)))


def test_crop_shift_keeps_three_quarters_and_puts_them_anywhere():
    moves = [draw_crop_shift(stream(i, "test"), 32, 32) for i in range(4000)]
    kept = np.array([move.bottom - move.top for move in moves])
    assert set(kept) == set(range(24, 33))
    counts = np.bincount(kept - 24)
    assert ((counts - 4000 / 9) ** 2 / (4000 / 9)).sum() < 26.1  # chi-square, 8 degrees: once in a thousand
    for move in moves:
        assert 0 <= move.top + move.down <= move.bottom + move.down <= 32
        assert 0 <= move.left + move.along <= move.right + move.along <= 32
    assert {move.down for move in moves} == set(range(-8, 9))
    assert abs(np.mean([move.mirrored for move in moves]) - 0.5) < 4 * 0.5 / 4000**0.5


def test_half_of_the_images_lose_a_box_of_two_to_thirty_three_percent():
    holes = np.array([draw_crop_shift(stream(i, "test"), 32, 32).hole for i in range(4000)])
    down, across = holes[:, 1] - holes[:, 0], holes[:, 3] - holes[:, 2]
    erased = down * across > 0
    assert abs(erased.mean() - 0.5) < 4 * 0.5 / 4000**0.5
    share = (down * across)[erased] / 1024
    assert share.min() >= 0.013  # both sides rounded
    assert share.max() <= 0.36
    assert abs(share.mean() - 0.175) < 0.01
    ratio = np.log(down[erased] / across[erased])
    assert np.abs(ratio).max() < 1.45
    assert abs((ratio > 0).mean() - 0.5) < 0.08
    assert holes.min() >= 0
    assert holes.max() == 32


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_batch_is_each_image_alone_and_depends_on_nothing_else(augment):
    images = torch.from_numpy(pixels(12, 3, 16, 16))
    ids = [f"x-{i}" for i in range(12)]
    found = augmented(images, augment, ids, (0, 1))
    assert found.shape == images.shape
    assert found.dtype == torch.uint8
    assert found.is_contiguous()
    for i in range(12):
        assert torch.equal(augmented(images[i : i + 1], augment, ids[i : i + 1], (0, 1))[0], found[i])
    for other in ((0, 2), (1, 1)):
        assert torch.equal(augmented(images, augment, ids, other), found) == (augment == "none")


@pytest.mark.parametrize("augment", AUGMENTS)
def test_stored_images_are_never_changed(augment, tmp_path):
    (tmp_path / "set").mkdir()
    images = pixels(9, 8, 8, 3)
    np.savez(tmp_path / "set" / "train.npz", images=images, labels=np.arange(9) % 3)
    data = open_dataset(DataConfig(source="npz:set", augment=augment, num_validation=0), "train", tmp_path)
    for epoch in range(3):
        for i in range(9):
            assert data.image(i, (0, epoch)).flags.c_contiguous
    for i in range(9):
        assert np.array_equal(data.image(i), images[int(data.ids[i][-6:])].transpose(2, 0, 1))


@pytest.mark.parametrize("augment", ["strong", "simple", "fd"])
def test_colours_need_three_channels_and_say_so(augment, tmp_path):
    np.savez(tmp_path / "grey.npz", images=pixels(4, 8, 8), labels=np.arange(4))
    config = override(DataConfig(source="npz:grey.npz"), [f"augment={augment}"])
    with pytest.raises(UserError) as caught:
        open_dataset(config, "test", tmp_path)
    assert str(caught.value) == (
        f"data.augment={augment} changes colours, but the images of npz:grey.npz have 1 channel, not 3: "
        "set data.augment=crop_flip."
    )


def test_squares_are_not_cut_from_arrays_that_are_none(tmp_path):
    np.savez(tmp_path / "wide.npz", images=pixels(4, 8, 9, 3), labels=np.arange(4))
    with pytest.raises(
        UserError, match=r"makes squares, but the images of npz:wide\.npz are 8x9: set data\.image_size"
    ):
        open_dataset(DataConfig(source="npz:wide.npz", augment="fd"), "test", tmp_path)
    assert open_dataset(DataConfig(source="npz:wide.npz", augment="fd", image_size=8), "test", tmp_path).shape == (
        3,
        8,
        8,
    )


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="'none', 'crop_flip', 'strong', 'simple' or 'fd'"):
        override(DataConfig(), ["augment=autoaugment"])
