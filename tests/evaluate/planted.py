"""Mistakes that people make around a good classifier, one small module each; and the good classifiers.

Every wrapper takes a network that answers images in [0, 1] with logits, and is wrong in exactly one way."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from s3ta.data import ClutteredDigits, fetch_batch


class Around(nn.Module):
    """net behind one function of the images and before one of the logits."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda images: images,
        after: Callable[[Tensor], object] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, images: Tensor) -> object:
        return self.after(self.net(self.before(images)))


class Trains(nn.Module):
    """Goes back to training mode whenever it is asked, as code does that means to switch dropout on."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return self.net.train()(images)


class Remembers(nn.Module):
    """Keeps a running mean of the logits, in eval mode too, and takes it off."""

    average: Tensor

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("average", torch.zeros(num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        self.average = 0.9 * self.average + 0.1 * logits.detach().mean(dim=0)
        return logits - self.average


class Recurrent(nn.Module):
    """Reads the logits of the network through an LSTM of cuDNN, which hardly changes them."""

    def __init__(self, net: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.net, self.lstm = net, nn.LSTM(num_classes, num_classes, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net(images)
        return logits + 1e-3 * self.lstm(logits[:, None])[0][:, -1]


def in_place(images: Tensor) -> Tensor:
    return images.mul_(0.9)


def squeezed(logits: Tensor) -> Tensor:
    return logits.squeeze()


def no_grad(net: nn.Module) -> nn.Module:
    return Around(net, after=Tensor.detach)


def ten_levels(images: Tensor) -> Tensor:
    return (images * 10).round() / 10


def faint(images: Tensor) -> Tensor:
    """The same pixels, through which hardly any gradient comes."""
    return images.detach() + 1e-9 * (images - images.detach())


def brighter_ones_rounded(images: Tensor) -> Tensor:
    """Like `ten_levels`, but only where the picture is bright."""
    return torch.where(images.mean(dim=(1, 2, 3), keepdim=True) > 0.06, ten_levels(images), images)


def root_of_square(images: Tensor) -> Tensor:
    """The same pixels; the backward pass divides by zero where they are black."""
    return (images * images).sqrt()


def middle(images: Tensor) -> Tensor:
    """All but a small window is black."""
    seen = torch.zeros_like(images)
    seen[..., 20:40, 20:40] = 1
    return images * seen


def off_the_path(logits: Tensor) -> Tensor:
    """Has a graph, but not to the image."""
    return logits.detach() + torch.zeros(1, requires_grad=True)


class NoWayBack(torch.autograd.Function):
    """The identity, as an extension in C++ might give it."""

    @staticmethod
    def forward(ctx, images: Tensor) -> Tensor:
        return images.clone()

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        raise NotImplementedError("no backward pass")


def raises(images: Tensor) -> Tensor:
    raise ZeroDivisionError("the gate is open")


def sometimes_nan(logits: Tensor) -> Tensor:
    return torch.where(torch.arange(len(logits))[:, None] % 5 == 0, torch.nan, logits)


def through_half(net: nn.Module) -> nn.Module:
    return Around(net, after=lambda logits: logits.half().float())


class Autocast(nn.Module):
    """bfloat16 inside, float32 outside."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.net(images).float() / 3


# --- networks that are right -----------------------------------------------------------------------------------------


def small_net(channels: int, widths: tuple[int, ...], num_classes: int = 10) -> nn.Sequential:
    """Convolutions that halve the image each, the largest answer at any place, one linear layer."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise((channels, *widths)):
        layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))


def taught(
    net: nn.Module, images: Tensor, labels: Tensor, num_epochs: int, batch: int = 50, rate: float = 4e-3
) -> nn.Module:
    """The network after some epochs of Adam, in eval mode; always the same."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(net.parameters(), rate)
    num_steps = num_epochs * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=num_steps)
    net.train()
    for _ in range(num_epochs):
        for rows in torch.randperm(len(images), generator=generator).split(batch)[: len(images) // batch]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def digits(split: str, count: int) -> tuple[Tensor, Tensor]:
    data = ClutteredDigits(split)
    places = np.linspace(0, len(data.ids) - 1, count).astype(int)
    _, images, labels, _ = fetch_batch(data, places.tolist())
    return images, labels


def cifar10(folder: Path, split: str, count: int) -> tuple[Tensor, Tensor]:
    """The first images of the split, in [0, 1]."""
    with np.load(folder / "cifar10" / f"{split}.npz", allow_pickle=False) as arrays:
        names = {array: arrays[array] for array in arrays.files}
    pixels = next(array for array in names.values() if array.ndim == 4)[:count]
    labels = next(array for array in names.values() if array.ndim == 1)[:count]
    if pixels.shape[-1] == 3:
        pixels = pixels.transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels.copy()).float() / 255, torch.from_numpy(labels.astype(np.int64))
