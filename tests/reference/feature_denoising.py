"""Feature Denoising's ResNets in plain NumPy and float64, and made-up weights in the layout of their published files.

The layout (names and shapes of arrays) is that of tensorpack for the networks in the authors' repository; the forward pass is
written down from the architecture: V1 units with the stride on the 3x3 convolution, SAME padding, pixels in [-1, 1], blue
first, a softmax non-local block with embedding after each stage."""

from __future__ import annotations

import numpy as np

from tests.reference.same_padding import Map, convolution, max_pool

UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
_EPSILON = 1e-5
Arrays = dict[str, np.ndarray]


def layout(depth: int, num_classes: int, *, is_denoised: bool) -> dict[str, tuple[int, ...]]:
    """Shape of every array, by name."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, size: int, inputs: int, outputs: int, *, has_norm: bool = True) -> None:
        shapes[f"{name}/W"] = (size, size, inputs, outputs)
        for part in ("gamma", "beta", "mean/EMA", "variance/EMA") if has_norm else ():
            shapes[f"{name}/bn/{part}"] = (outputs,)

    add("conv0", 7, 3, 64)
    inputs = 64
    for group, count in enumerate(UNITS[depth]):
        inner = 64 * 2**group
        for unit in range(count):
            name = f"group{group}/block{unit}"
            add(f"{name}/conv1", 1, inputs, inner)
            add(f"{name}/conv2", 3, inner, inner)
            add(f"{name}/conv3", 1, inner, 4 * inner)
            if unit == 0:
                add(f"{name}/convshortcut", 1, inputs, 4 * inner)
            inputs = 4 * inner
        if is_denoised:
            add(f"group{group}_denoise/embedding_theta", 1, inputs, inputs // 2, has_norm=False)
            add(f"group{group}_denoise/embedding_phi", 1, inputs, inputs // 2, has_norm=False)
            add(f"group{group}_denoise/conv", 1, inputs, inputs)
    return shapes | {"linear/W": (inputs, num_classes), "linear/b": (num_classes,)}


def made_up(depth: int, num_classes: int, *, is_denoised: bool) -> Arrays:
    """Weights under which every part counts in the answer, float32 as published."""
    generator = np.random.default_rng(depth)
    arrays = {}
    for name, shape in layout(depth, num_classes, is_denoised=is_denoised).items():
        if name.endswith("/W"):
            values = generator.standard_normal(shape) * np.sqrt(1 / np.prod(shape[:-1]))
        elif name.endswith(("gamma", "variance/EMA")):
            values = generator.uniform(0.5, 1.5, shape)
        else:
            values = 0.2 * generator.standard_normal(shape)
        arrays[name] = values.astype(np.float32)
    return arrays


def logits(arrays: Arrays, image: Map) -> np.ndarray:
    """Of one RGB image in [0, 1]: turned to blue first and to [-1, 1], as the authors feed it."""
    weights = {name: array.astype(np.float64) for name, array in arrays.items()}
    features = _activated(weights, "conv0", image[::-1] * 2 - 1, 2)
    features = max_pool(features, 3, 2)
    for group in range(4):
        unit = 0
        while f"group{group}/block{unit}/conv1/W" in weights:
            stride = 2 if group > 0 and unit == 0 else 1
            features = _unit(weights, f"group{group}/block{unit}", features, stride)
            unit += 1
        if f"group{group}_denoise/conv/W" in weights:
            features = _denoised(weights, f"group{group}_denoise", features)
    return features.mean(axis=(1, 2)) @ weights["linear/W"] + weights["linear/b"]


def _unit(weights: Arrays, name: str, features: Map, stride: int) -> Map:
    inner = _activated(weights, f"{name}/conv1", features, 1)
    inner = _activated(weights, f"{name}/conv2", inner, stride)
    inner = _normalised(weights, f"{name}/conv3", inner, 1)
    if f"{name}/convshortcut/W" in weights:
        features = _normalised(weights, f"{name}/convshortcut", features, stride)
    return np.maximum(features + inner, 0)


def _denoised(weights: Arrays, name: str, features: Map) -> Map:
    channels, height, width = features.shape
    theta, phi = (
        convolution(features, weights[f"{name}/embedding_{part}/W"], 1).reshape(channels // 2, -1)
        for part in ("theta", "phi")
    )
    values, mean = features.reshape(channels, -1), np.zeros((channels, height * width))
    for place in range(height * width):
        logit = theta[:, place] @ phi / np.sqrt(channels // 2)
        share = np.exp(logit - logit.max())
        mean[:, place] = values @ (share / share.sum())
    return features + _normalised(weights, f"{name}/conv", mean.reshape(features.shape), 1)


def _activated(weights: Arrays, name: str, features: Map, stride: int) -> Map:
    return np.maximum(_normalised(weights, name, features, stride), 0)


def _normalised(weights: Arrays, name: str, features: Map, stride: int) -> Map:
    features = convolution(features, weights[f"{name}/W"], stride)
    gamma, beta, mean, variance = (
        weights[f"{name}/bn/{part}"][:, None, None] for part in ("gamma", "beta", "mean/EMA", "variance/EMA")
    )
    return (features - mean) / np.sqrt(variance + _EPSILON) * gamma + beta
