"""S3TA's forward pass once more, in numpy float64 and plain loops, from protocol M1-M14 and the weights alone.

No torch operation and no code of the package: places, heads and gates are loops, the basis is written from its formula.
"""

import math

import numpy as np


def forward(
    weights,
    images,
    *,
    num_glimpses,
    num_heads,
    key_channels,
    num_frequencies,
    origin=0,
    first_logits="zeros",
    pool=False,
    scaled_attention=False,
):
    """Logits (T, B, Y), attention (T, B, N, h, w) for images (B, C, H, W) in [0, 1]; weights: name -> float64 array.

    Whether there is a query network, whether it sees logits, and which recurrent cell there is, the weights say."""
    head = (num_glimpses, num_heads, key_channels, num_frequencies, origin, first_logits, pool, scaled_attention)
    runs = [_one_image(weights, image, *head) for image in np.asarray(images, np.float64)]
    return np.stack([logits for logits, _ in runs], 1), np.stack([attention for _, attention in runs], 1)


def _one_image(
    weights, image, num_glimpses, num_heads, key_channels, num_frequencies, origin, first_logits, pool, scaled_attention
):
    features = vision(weights, image, pool)
    basis = spatial_code(*features.shape[1:], num_frequencies, origin)
    keys = np.concatenate([features[:key_channels], basis])
    values = np.concatenate([features[key_channels:], basis])
    c = {name.removeprefix("controller."): value for name, value in weights.items() if name.startswith("controller.")}
    hidden, cell = c["initial_hidden"][0], c.get("initial_cell", [None])[0]
    length = math.sqrt(len(keys)) if scaled_attention else 1
    logits = mlp(c, "readout", hidden) if first_logits == "readout" else np.zeros(len(c["readout.2.bias"]))
    all_logits, all_attention = [], []
    for _ in range(num_glimpses):
        if "query.0.weight" not in c:  # the mean of the map, as often as there are heads
            mean = values.mean(axis=(1, 2))
            looks = [(mean, np.full(values.shape[1:], 1 / values[0].size))] * num_heads
            sent = np.zeros(0)
        else:
            sees_logits = c["query.0.weight"].shape[1] > len(hidden)
            sent = mlp(c, "query", np.concatenate([hidden, logits]) if sees_logits else hidden)
            looks = [look(query / length, keys, values) for query in sent.reshape(num_heads, -1)]
        read = np.concatenate([*(answer for answer, _ in looks), sent])
        hidden, cell = lstm(c, read, hidden, cell) if cell is not None else (gru(c, read, hidden), None)
        logits = mlp(c, "readout", hidden)
        all_logits.append(logits)
        all_attention.append(np.stack([attention for _, attention in looks]))
    return np.stack(all_logits), np.stack(all_attention)


def spatial_code(height, width, num_frequencies, origin=0):
    """M6, M7: even (cos) and odd (sin) functions of row and column, frequencies 1..U, all products; places count from
    `origin`."""
    functions = [(f, u) for f in (math.cos, math.sin) for u in range(1, num_frequencies + 1)]
    code = np.empty((len(functions) ** 2, height, width))
    for a, (row, u) in enumerate(functions):
        for b, (column, v) in enumerate(functions):
            for i in range(height):
                for j in range(width):
                    y, x = (i + origin) / height, (j + origin) / width
                    code[a * len(functions) + b, i, j] = row(math.pi * u * y) * column(math.pi * v * x)
    return code


def look(query, keys, values):
    """M8: one softmax over all places of the unscaled inner products; one map for every value and basis channel."""
    _, height, width = keys.shape
    attention = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            attention[i, j] = sum(query[k] * keys[k, i, j] for k in range(len(query)))
    attention = np.exp(attention - attention.max())
    attention /= attention.sum()
    answer = np.zeros(len(values))
    for i in range(height):
        for j in range(width):
            answer += attention[i, j] * values[:, i, j]
    return answer, attention


def lstm(c, inputs, hidden, cell):
    """The four gate equations, torch's order of rows: input, forget, candidate, output."""
    size = len(hidden)
    new_hidden, new_cell = np.empty(size), np.empty(size)
    for unit in range(size):
        i, f, g, o = (
            c["lstm.weight_ih"][row] @ inputs
            + c["lstm.bias_ih"][row]
            + c["lstm.weight_hh"][row] @ hidden
            + c["lstm.bias_hh"][row]
            for row in (unit, size + unit, 2 * size + unit, 3 * size + unit)
        )
        new_cell[unit] = sigmoid(f) * cell[unit] + sigmoid(i) * math.tanh(g)
        new_hidden[unit] = sigmoid(o) * math.tanh(new_cell[unit])
    return new_hidden, new_cell


def gru(c, inputs, hidden):
    """Cho et al. 2014 as torch has it: rows of reset gate, update gate, candidate; the reset comes after the product."""
    size = len(hidden)
    new_hidden = np.empty(size)
    for unit in range(size):
        (r, from_r), (z, from_z), (n, from_n) = (
            (
                c["gru.weight_ih"][row] @ inputs + c["gru.bias_ih"][row],
                c["gru.weight_hh"][row] @ hidden + c["gru.bias_hh"][row],
            )
            for row in (unit, size + unit, 2 * size + unit)
        )
        candidate = math.tanh(n + sigmoid(r + from_r) * from_n)
        update = sigmoid(z + from_z)
        new_hidden[unit] = (1 - update) * candidate + update * hidden[unit]
    return new_hidden


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def mlp(c, name, x):
    middle = np.maximum(c[f"{name}.0.weight"] @ x + c[f"{name}.0.bias"], 0)
    return c[f"{name}.2.weight"] @ middle + c[f"{name}.2.bias"]


def vision(weights, image, pool=False):
    """Pre-activation ResNets with basic units, stage strides 1, 2, 1 and again 1, on 2p - 1 (T3, M1-M4)."""
    w = {name.removeprefix("vision.net."): value for name, value in weights.items()}
    stem = w["stem.conv.weight"]
    x = convolve(2 * image - 1, stem, 2 if stem.shape[-1] == 7 else 1)
    x = max_pool(x) if pool else x
    units = {tuple(map(int, name.split(".")[1:4:2])) for name in w if name.startswith("stages.")}
    for stage, block in sorted(units):
        unit, stride = f"stages.{stage}.blocks.{block}", 2 if (stage, block) == (1, 0) else 1
        before = norm_relu(w, f"{unit}.norm1", x)
        projection = w.get(f"{unit}.downsample.conv.weight")
        shortcut = x if projection is None else convolve(before, projection, stride)
        middle = convolve(before, w[f"{unit}.conv1.weight"], stride)
        x = shortcut + convolve(norm_relu(w, f"{unit}.norm2", middle), w[f"{unit}.conv2.weight"], 1)
    return norm_relu(w, "norm", x)


def convolve(x, kernel, stride):
    """Zero padding of half the kernel on both sides."""
    size = kernel.shape[-1]
    x = np.pad(x, [(0, 0)] + [(size // 2, size // 2)] * 2)
    height, width = ((n - size) // stride + 1 for n in x.shape[1:])
    out = np.empty((len(kernel), height, width))
    for i in range(height):
        for j in range(width):
            patch = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            out[:, i, j] = (kernel * patch).sum(axis=(1, 2, 3))
    return out


def max_pool(x):
    """3x3, stride 2, one ring of padding."""
    x = np.pad(x, [(0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    height, width = ((n - 3) // 2 + 1 for n in x.shape[1:])
    out = np.empty((len(x), height, width))
    for i in range(height):
        for j in range(width):
            out[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
    return out


def norm_relu(w, name, x):
    """BN with its moving averages (eps 1e-5), then ReLU."""
    out = np.empty_like(x)
    for channel in range(len(x)):
        spread = math.sqrt(w[f"{name}.running_var"][channel] + 1e-5)
        centred = (x[channel] - w[f"{name}.running_mean"][channel]) / spread
        out[channel] = np.maximum(centred * w[f"{name}.weight"][channel] + w[f"{name}.bias"][channel], 0)
    return out
