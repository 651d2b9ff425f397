"""What attacks must come to, written once more: one example at a time, plain float64 loops, bisection for every equation."""

import math

import torch


def _rise(length, radius):
    """The factor s >= 0 at which the rising function `length` reaches `radius`, or None if it never does."""
    high = 1.0
    while length(high) < radius:
        high *= 2
        if high > 1e18:
            return None
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if length(middle) < radius else (low, middle)
    return (low + high) / 2


def linear_optimum(direction, clean, norm, radius, mask=None):
    """The allowed image furthest along `direction`, for one image: a corner (linf), a cut multiple of the direction (l2)."""
    direction = direction if mask is None else direction * mask
    if norm == "linf":
        return (clean + radius * direction.sign()).clamp(0, 1)
    cut = lambda factor: torch.minimum(torch.maximum(factor * direction, -clean), 1 - clean)  # noqa: E731
    factor = _rise(lambda s: cut(s).square().sum().sqrt().item(), radius)
    return clean + cut(1e18 if factor is None else factor)


def nearest_in_ball_and_box(image, clean, radius, mask=None):
    """The nearest point of L2 ball, box and mask to one image: cut((image - clean) / (1 + multiplier)), by bisection."""
    moved = image - clean if mask is None else (image - clean) * mask
    cut = lambda divisor: torch.minimum(torch.maximum(moved / divisor, -clean), 1 - clean)  # noqa: E731
    if cut(1).norm() <= radius:
        return clean + cut(1)
    if radius == 0:
        return clean.clone()
    low, high = 0.0, 1.0
    while cut(1 + high).norm() > radius:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if cut(1 + middle).norm() > radius else (low, middle)
    return clean + cut(1 + (low + high) / 2)


def path(start, gradient, step, project, num_steps):
    """All iterates: x, then project(step(x, gradient(x), k)) for k = 0, 1, ..."""
    iterates = [start]
    for k in range(num_steps):
        iterates.append(project(step(iterates[-1], gradient(iterates[-1]), k)))
    return iterates


def gradient_of(model, loss):
    """images -> gradient of the sum of `loss(logits)`, by backpropagation."""

    def gradient(images):
        images = images.clone().requires_grad_(True)
        loss(model(images)).sum().backward(inputs=[images])
        return images.grad

    return gradient


def momentum_path(start, gradient, size, decay, project, num_steps):
    """MI-FGSM (Dong et al. 2018, equations 6 and 7) with L1 lengths as there, one example at a time."""
    iterates, velocity = [start], [torch.zeros_like(image) for image in start]
    for _ in range(num_steps):
        ascent, moved = gradient(iterates[-1]), []
        for i, image in enumerate(iterates[-1]):
            velocity[i] = decay * velocity[i] + ascent[i] / ascent[i].abs().sum()
            moved.append(image + size * velocity[i].sign())
        iterates.append(project(torch.stack(moved)))
    return iterates


def optimizer_path(start, gradient, rates, project, epsilon):
    """torch.optim.Adam on the images, one rate per step, each step projected."""
    images = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([images], lr=rates[0], betas=(0.9, 0.999), eps=epsilon, maximize=True)
    iterates = [start]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        images.grad = gradient(images.detach())
        optimizer.step()
        with torch.no_grad():
            images.copy_(project(images.detach()))
        iterates.append(images.detach().clone())
    return iterates


def first_best(iterates, values):
    """Of all iterates, example by example, the first with the largest value; `values` is one row of numbers per iterate."""
    chosen = []
    for i in range(len(iterates[0])):
        best = 0
        for k in range(len(iterates)):
            if values[k][i] > values[best][i]:
                best = k
        chosen.append(iterates[best][i])
    return torch.stack(chosen)


def margins(model, images, classes):
    """The largest other logit minus that of the class, for each image."""
    with torch.no_grad():
        logits = model(images)
    return [
        max(z for j, z in enumerate(row) if j != c) - row[c] for row, c in zip(logits.tolist(), classes, strict=True)
    ]


def normal_cdf(value):
    return (1 + math.erf(value / math.sqrt(2))) / 2
