"""Protocol T1 once more, written from its text alone: one image at a time, numpy and float64, no stream of ours."""

import math

import numpy as np

EIGENVALUES = (255 * 0.2175, 255 * 0.0188, 255 * 0.0045)
ROWS = {"R": (-0.5675, 0.7192, 0.4009), "G": (-0.5808, -0.0045, -0.8140), "B": (-0.5836, -0.6948, 0.4203)}


def truncated(image):
    return np.clip(image, 0, 255).astype(np.uint8)


def brightness(image, factor):
    return truncated(image.astype(np.float64) * factor)


def contrast(image, factor):
    changed = np.empty(image.shape)
    for channel in range(3):
        x = image[..., channel].astype(np.float64)
        changed[..., channel] = (x - x.mean()) * factor + x.mean()
    return truncated(changed)


def saturation(image, factor, grey):
    """`grey` makes the grey image, H x W uint8."""
    return truncated(image.astype(np.float64) * factor + grey(image)[..., None] * (1 - factor))


def lighting(image, three):
    shift = [sum(e * a * size for e, a, size in zip(ROWS[c], three, EIGENVALUES, strict=True)) for c in "RGB"]
    return truncated(image.astype(np.float64) + np.array(shift))


def cubic(distance, a=-0.75):
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def resized(image, height, width):
    """Cubic convolution of 4 x 4 pixels, edges repeated, not averaged where it shrinks; float64, not rounded."""
    for axis, count in ((0, height), (1, width)):
        length, lines = image.shape[axis], []
        for i in range(count):
            place = (i + 0.5) * length / count - 0.5
            near = range(math.floor(place) - 1, math.floor(place) + 3)
            lines.append(
                sum(cubic(place - j) * image.take(min(max(j, 0), length - 1), axis).astype(np.float64) for j in near)
            )
        image = np.stack(lines, axis)
    return image


def crop(generator, height, width):
    """(top, left, height, width) of T1's rectangle, or None where ten tries failed."""
    for _ in range(10):
        area, ratio = height * width * generator.uniform(0.08, 1.0), generator.uniform(0.75, 1.333)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if generator.random() < 0.5:
            w, h = h, w
        if w <= width and h <= height:
            return (
                generator.integers(0, height - h, endpoint=True),
                generator.integers(0, width - w, endpoint=True),
                h,
                w,
            )
    return None
