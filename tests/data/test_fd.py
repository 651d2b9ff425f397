"""ImageNet's augmentation (T1) against the protocol written out, OpenCV's grey, and the laws that its numbers are drawn by."""

import itertools
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as peer

from s3ta.data.augment import apply_whole, augmented_picture, draw_full_augment
from s3ta.data.colour_augment import (
    BRIGHTNESS,
    CONTRAST,
    EIGENVECTORS,
    LIGHTING,
    SATURATION,
    Colours,
    draw_colours,
    grey,
    recolour,
)
from s3ta.data.geometric_augment import Crop, draw_fd_crop, draw_simple_crop
from s3ta.data.opencv_bicubic import AxisResize, bicubic
from s3ta.random_streams import stream

from . import plain_t1
from .helpers import pixels


def _smooth(height, width, seed=0):
    """A picture with all its channels apart, some of it near black and white."""
    rough = pixels(1, 9, 9, 3, seed=seed)[0]
    return cv2.resize(rough, (width, height), interpolation=cv2.INTER_LINEAR)


def _tensor(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def _array(tensor):
    return tensor[0].permute(1, 2, 0).numpy()


def _cv_grey(image):
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def test_grey_is_opencvs_for_every_colour():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 3, dtype=np.uint8)] * 3), -1).reshape(86, -1, 3)
    assert np.array_equal(_array(grey(_tensor(every)))[..., 0], _cv_grey(every))


def _by_hand(image, colours, three):
    for change in colours.order:
        if change == BRIGHTNESS:
            image = plain_t1.brightness(image, colours.factors[0])
        elif change == CONTRAST:
            image = plain_t1.contrast(image, colours.factors[1])
        elif change == SATURATION:
            image = plain_t1.saturation(image, colours.factors[2], _cv_grey)
        else:
            assert change == LIGHTING
            image = plain_t1.lighting(image, three)
    return image


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_colours_are_those_of_the_protocol_pixel_for_pixel(order):
    dice = np.random.default_rng(list(order))
    image, three = _smooth(31, 37, order[0]), dice.normal(0, 0.3, 3)
    shift = plain_t1.EIGENVALUES * three @ np.array(list(plain_t1.ROWS.values())).T
    colours = Colours(order, tuple(dice.uniform(0.6, 1.4, 3).tolist()), tuple(shift.tolist()))
    ours = _array(recolour(_tensor(image), [colours], "channel"))
    assert np.array_equal(ours, _by_hand(image, colours, three))
    assert not np.array_equal(ours, image)


def test_drawn_images_are_those_of_the_protocol_pixel_for_pixel():
    """Crop, colours and mirror as drawn; the resize is ours, which test_resize compares with OpenCV."""
    for trial, (height, width) in enumerate([(300, 411), (60, 50), (224, 224), (700, 300), (40, 400), (400, 30)]):
        image = _smooth(height, width, trial)
        (rows, columns), colours, mirrored = draw_full_augment(stream(trial, "test"), "fd", height, width, 64)
        three = np.linalg.solve(np.array(list(plain_t1.ROWS.values())), colours.shift) / plain_t1.EIGENVALUES
        cut = image[rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
        whole = [AxisResize(0, rows.length, rows.scaled)], [AxisResize(0, columns.length, columns.scaled)]
        large = _array(bicubic(_tensor(cut), *whole, (rows.scaled, columns.scaled)))
        small = large[rows.first : rows.first + 64, columns.first : columns.first + 64]
        expected = _by_hand(small, colours, three)
        expected = expected[:, ::-1] if mirrored else expected
        found = augmented_picture(Image.fromarray(image), 64, "fd", "x", (trial, 0))
        drawn = draw_full_augment(stream(trial, "augment", 0, "x"), "fd", height, width, 64)
        assert found.shape == (3, 64, 64)
        assert found.flags.c_contiguous
        assert torch.equal(apply_whole(_tensor(image), [drawn], "fd", (64, 64))[0], torch.from_numpy(found))
        ours = _array(apply_whole(_tensor(image), [(Crop(rows, columns), colours, mirrored)], "fd", (64, 64)))
        assert np.array_equal(ours, expected)


def test_a_batch_with_orders_of_its_own_is_each_alone():
    images = torch.from_numpy(pixels(40, 3, 12, 12))
    for mean_of in ("channel", "grey"):
        drawn = [draw_colours(stream(i, "test"), 0.4, "among") for i in range(40)]
        together = recolour(images, drawn, mean_of)
        for i in range(40):
            assert torch.equal(together[i], recolour(images[i : i + 1], drawn[i : i + 1], mean_of)[0])


# --- simple, after torchvision ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "theirs"),
    [
        (BRIGHTNESS, peer.adjust_brightness),
        (CONTRAST, peer.adjust_contrast),
        (SATURATION, peer.adjust_saturation),
    ],
)
@pytest.mark.parametrize("factor", [0.6, 0.93, 1.0, 1.4])
def test_simple_colours_are_torchvisions_to_one_of_255(change, theirs, factor):
    image = _tensor(_smooth(41, 33))
    factors = [1.0, 1.0, 1.0]
    factors[change] = factor
    ours = recolour(image, [Colours((change,), tuple(factors))], "grey")
    assert (ours.int() - theirs(image, factor).int()).abs().max() <= 1


def test_simple_ends_with_lighting_and_fd_has_it_anywhere():
    last = {draw_colours(stream(i, "test"), 0.4, "last").order for i in range(200)}
    assert last == {(*order, LIGHTING) for order in itertools.permutations(range(3))}
    among = [draw_colours(stream(i, "test"), 0.4, "among").order.index(LIGHTING) for i in range(200)]
    assert set(among) == {0, 1, 2, 3}


def test_simple_crops_that_do_not_fit_are_the_largest_allowed_in_the_middle():
    crop = draw_simple_crop(stream(0, "test"), 30, 3000, 16)
    assert crop == Crop(AxisResize(0, 30, 16), AxisResize((3000 - 40) // 2, 40, 16))


# --- the laws of T1 --------------------------------------------------------------------------------------------------------


def _ks(values, law):
    """Kolmogorov's distance times the root of the count; 1.95 is exceeded once in a thousand."""
    expected, count = law(np.sort(values)), len(values)
    ranks = np.arange(count)
    return max(np.abs(expected - ranks / count).max(), np.abs(expected - (ranks + 1) / count).max()) * math.sqrt(count)


def _uniform(low, high):
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def _swapped(ratio):
    """Share of T1's rectangles with a ratio below: r uniform in [0.75, 1.333], or 1/r."""
    uniform = _uniform(0.75, 1.333)
    return (uniform(ratio) + 1 - uniform(1 / ratio)) / 2


def _logarithmic(ratio):
    return _uniform(math.log(3 / 4), math.log(4 / 3))(np.log(ratio))


@pytest.fixture(scope="module")
def fd_crops():
    generator = stream(0, "test")
    return [draw_fd_crop(generator, 4000, 5000, 224) for _ in range(5000)]


def test_areas_and_ratios_of_crops_follow_their_laws(fd_crops):
    area = np.array([c.rows.length * c.columns.length / 2e7 for c in fd_crops])
    ratio = np.array([c.columns.length / c.rows.length for c in fd_crops])
    assert area.min() < 0.085
    always_fit = area < 0.55  # so large a part fits whatever its ratio
    assert _ks(area[always_fit], _uniform(0.08, 0.55)) < 1.95
    assert _ks(ratio[always_fit], _swapped) < 1.95
    assert abs((ratio[always_fit] > 1).mean() - 0.5) < 4 * 0.5 / math.sqrt(always_fit.sum())  # 0.57 without the swap
    assert all(c.rows.scaled == c.columns.scaled == 224 for c in fd_crops)


@pytest.mark.parametrize("value", ["area", "ratio", "top", "left"])
def test_crops_are_those_of_the_protocol_in_distribution(value, fd_crops):
    generator = np.random.default_rng(9)
    theirs = [plain_t1.crop(generator, 4000, 5000) for _ in range(5000)]
    ours = [(c.rows.start, c.columns.start, c.rows.length, c.columns.length) for c in fd_crops]
    get = {"area": lambda c: c[2] * c[3], "ratio": lambda c: c[3] / c[2], "top": lambda c: c[0], "left": lambda c: c[1]}
    one, other = (np.sort([get[value](c) for c in crops]) for crops in (ours, theirs))
    places = np.concatenate([one, other])
    gap = np.abs(np.searchsorted(one, places, "right") - np.searchsorted(other, places, "right")).max() / 5000
    assert gap * math.sqrt(2500) < 1.95


@pytest.mark.parametrize("draw", [draw_fd_crop, draw_simple_crop])
def test_crops_lie_anywhere_with_both_ends(draw):
    generator = stream(1, "test")
    crops = [draw(generator, 12, 12, 8) for _ in range(4000)]
    for axis in (0, 1):
        cuts = [crop[axis] for crop in crops]
        assert all(0 <= cut.start <= 12 - cut.length for cut in cuts)
        chance = np.array([1 / (13 - cut.length) for cut in cuts])
        spread = math.sqrt((chance * (1 - chance)).sum())
        for end in ([cut.start == 0 for cut in cuts], [cut.start == 12 - cut.length for cut in cuts]):
            assert abs(sum(end) - chance.sum()) < 4 * spread


def test_simple_crops_have_logarithmic_ratios():
    generator = stream(2, "test")
    crops = [draw_simple_crop(generator, 4000, 5000, 224) for _ in range(4000)]
    area = np.array([c.rows.length * c.columns.length / 2e7 for c in crops])
    ratio = np.array([c.columns.length / c.rows.length for c in crops])
    assert _ks(ratio[area < 0.55], _logarithmic) < 1.95
    assert _ks(area[area < 0.55], _uniform(0.08, 0.55)) < 1.95


def test_what_never_fits_is_resized_by_its_shortest_edge_and_cut_in_the_middle():
    assert draw_fd_crop(stream(0, "test"), 10, 4001, 8) == Crop(
        AxisResize(0, 10, 8, 0), AxisResize(0, 4001, 3201, 1596)
    )
    generator = np.random.default_rng(0)
    assert plain_t1.crop(generator, 10, 4001) is None


def test_orders_factors_and_mirrors_follow_their_laws():
    drawn = [draw_full_augment(stream(i, "test"), "fd", 64, 64, 32) for i in range(4800)]
    colours = [c for _, c, _ in drawn]
    counts = [sum(c.order == order for c in colours) for order in itertools.permutations(range(4))]
    assert sum(counts) == 4800
    assert sum((count - 200) ** 2 / 200 for count in counts) < 49.7  # chi-square, 23 degrees: once in a thousand
    for factor in range(3):
        assert _ks(np.array([c.factors[factor] for c in colours]), _uniform(0.6, 1.4)) < 1.95
    assert abs(np.corrcoef(np.array([c.factors for c in colours]).T)[np.triu_indices(3, 1)]).max() < 4 / math.sqrt(4800)
    assert abs(np.mean([mirrored for _, _, mirrored in drawn]) - 0.5) < 4 * 0.5 / math.sqrt(4800)


def test_lighting_is_normal_along_the_axes():
    shifts = np.array([draw_colours(stream(i, "test"), 0.4, "among").shift for i in range(4800)])
    along = np.linalg.solve(EIGENVECTORS, shifts.T) / np.array(plain_t1.EIGENVALUES)[:, None]
    assert np.abs(along.std(axis=1) - 0.1).max() < 4 * 0.1 / math.sqrt(2 * 4800)
    assert np.abs(along.mean(axis=1)).max() < 4 * 0.1 / math.sqrt(4800)
    normal = np.vectorize(lambda x: 0.5 * (1 + math.erf(x / 0.1 / math.sqrt(2))))
    assert max(_ks(row, normal) for row in along) < 1.95
    assert np.abs(np.corrcoef(along)[np.triu_indices(3, 1)]).max() < 4 / math.sqrt(4800)
