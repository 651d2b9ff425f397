"""PGD once more, as short as it can be written: the list of all iterates."""

import torch


def iterates(model, clean, classes, sign, radius, step, num_steps, start):
    """Every iterate, the start first; `sign` +1 ascends the cross-entropy of the classes, -1 descends it."""
    path = [start]
    for _ in range(num_steps):
        x = path[-1].clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(-model(x).log_softmax(1).gather(1, classes[:, None]).sum(), x)
        moved = torch.minimum(torch.maximum(path[-1] + sign * step * gradient.sign(), clean - radius), clean + radius)
        path.append(moved.clamp(0, 1))
    return path
