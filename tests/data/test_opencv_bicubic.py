"""The resize of FD: OpenCV's bicubic to one of 255, the same bytes for one image, a batch, and a part of a picture."""

import cv2
import numpy as np
import pytest
import torch

from s3ta.data.opencv_bicubic import AxisResize, bicubic, taps

from . import plain_t1
from .helpers import pixels

SIZES = [
    ((300, 250), (224, 224)),
    ((375, 500), (256, 341)),
    ((90, 81), (224, 224)),
    ((17, 23), (32, 31)),
    ((7, 640), (61, 60)),
    ((1, 3), (5, 7)),
    ((2, 2), (224, 3)),
    ((500, 333), (21, 17)),
    ((32, 32), (32, 32)),
    ((64, 64), (32, 32)),
    ((33, 32), (32, 32)),
]


def _resized(image, height, width, **settings):
    """H W C array in and out."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None]
    rows, columns = [AxisResize(0, image.shape[0], height)], [AxisResize(0, image.shape[1], width)]
    return bicubic(tensor, rows, columns, (height, width), **settings)[0].permute(1, 2, 0).numpy()


def _difference(one, other):
    return np.abs(one.astype(int) - np.asarray(other).astype(int))


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("optimised", [True, False])
def test_opencv_differs_by_at_most_one_of_255(before, after, optimised):
    """On noise: at most 1, in up to 8% of the bytes with OpenCV's vector code and in 0.1% with its plain code."""
    image = pixels(1, *before, 3, seed=before[0])[0]
    cv2.setUseOptimized(optimised)
    try:
        peer = cv2.resize(image, after[::-1], interpolation=cv2.INTER_CUBIC)
    finally:
        cv2.setUseOptimized(True)
    difference = _difference(_resized(image, *after), peer)
    assert difference.max() <= 1
    assert difference.mean() <= (0.08 if optimised else 0.001)


def test_random_sizes_up_and_down_differ_from_opencv_by_at_most_one():
    dice = np.random.default_rng(1)
    for _ in range(60):
        height, width, down, across = dice.integers(1, 150, 4).tolist()
        image = pixels(1, height, width, 3, seed=height)[0]
        peer = cv2.resize(image, (across, down), interpolation=cv2.INTER_CUBIC)
        assert _difference(_resized(image, down, across), peer).max() <= 1, (height, width, down, across)


@pytest.mark.parametrize(("before", "after"), [s for s in SIZES if max(s[1]) < 100])
def test_the_kernel_written_out_differs_by_at_most_one(before, after):
    image = pixels(1, *before, 3, seed=3)[0]
    expected = np.rint(plain_t1.resized(image, *after)).clip(0, 255)
    assert _difference(_resized(image, *after), expected).max() <= 1


def test_weights_sum_to_one_and_are_those_of_the_definition():
    index, weight = taps([AxisResize(3, 10, 7), AxisResize(0, 5, 20, 4)], 6)
    assert weight.dtype == torch.int32
    assert (weight.sum(-1) - 2048).abs().max() <= 1
    assert index[0].min() >= 3
    assert index[0].max() <= 12
    place = (np.arange(6) + 0.5) * 10 / 7 - 0.5
    expected = [[plain_t1.cubic(p - j) for j in np.floor(p) + np.arange(-1, 3)] for p in place]
    assert np.abs(weight[0].numpy() / 2048 - expected).max() < 1 / 2048


def test_an_image_of_the_wanted_size_is_copied():
    image = pixels(1, 13, 11, 3)[0]
    assert np.array_equal(_resized(image, 13, 11), image)


def test_a_batch_of_cuts_is_each_alone_and_looks_at_nothing_outside():
    images = torch.from_numpy(pixels(5, 3, 29, 31))
    rows = [
        AxisResize(0, 29, 13),
        AxisResize(5, 7, 13),
        AxisResize(28, 1, 13),
        AxisResize(2, 20, 26, 5),
        AxisResize(0, 29, 40, 17),
    ]
    columns = [
        AxisResize(0, 31, 11),
        AxisResize(30, 1, 11),
        AxisResize(4, 19, 11),
        AxisResize(3, 9, 11),
        AxisResize(0, 31, 43, 0),
    ]
    mirrored = [False, True, False, True, True]
    together = bicubic(images, rows, columns, (13, 11), mirrored)
    for i in range(5):
        alone = bicubic(images[i : i + 1], [rows[i]], [columns[i]], (13, 11), [mirrored[i]])
        assert torch.equal(together[i], alone[0])
        cut = images[
            i,
            :,
            rows[i].start : rows[i].start + rows[i].length,
            columns[i].start : columns[i].start + columns[i].length,
        ]
        whole = _resized(cut.permute(1, 2, 0).numpy(), rows[i].scaled, columns[i].scaled)
        part = whole[rows[i].first :, columns[i].first :][:13, :11]
        part = part[:, ::-1] if mirrored[i] else part
        assert np.array_equal(together[i].permute(1, 2, 0).numpy(), part)
