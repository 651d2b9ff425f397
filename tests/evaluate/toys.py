"""Data and models so small that what must come out can be known, or computed in a blink."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from s3ta.attacks import AttackTrajectory
from s3ta.data import Dataset
from s3ta.evaluate import Settings
from s3ta.models import S3TA, PooledClassifier, ResNetConfig, S3TAConfig, VisionConfig, build_model
from s3ta.records import Ledger, reduce_restarts

SETTINGS = Settings(seed=3, batch_size=3, num_threads=1)


class Pictures(Dataset):
    """A data set in memory; examples are called p-000, p-001, ..."""

    split = "test"

    def __init__(self, pixels: np.ndarray, labels: Sequence[int], num_classes: int, source: str = "npz:toy") -> None:
        self.source, self.fingerprint = source, f"{source} {pixels.sum()} {np.asarray(labels).tolist()}"
        self.pixels, self.labels = pixels.astype(np.uint8), np.asarray(labels, np.int64)
        self.ids = [f"p-{i:03d}" for i in range(len(pixels))]
        self.classes = [str(i) for i in range(num_classes)]
        self.shape = tuple(pixels.shape[1:])

    def image(self, index: int, draw: tuple[int, int] | None = None) -> np.ndarray:
        return self.pixels[index]


def vision(size: int, channels: int = 1) -> VisionConfig:
    return VisionConfig(backbone="resnetv2_mini", stem="conv3", in_channels=channels, image_size=size, dense=False)


def random_resnet(num_classes: int = 5, size: int = 12, seed: int = 0) -> PooledClassifier:
    """A real network with random weights."""
    torch.manual_seed(seed)
    return build_model(ResNetConfig(name=f"random-{seed}", num_classes=num_classes, vision=vision(size))).eval()


def random_s3ta(num_classes: int = 5, size: int = 12, seed: int = 0) -> S3TA:
    torch.manual_seed(seed)
    config = S3TAConfig(
        name=f"random-s3ta-{seed}",
        num_classes=num_classes,
        vision=vision(size),
        num_glimpses=2,
        key_channels=7,
        lstm_size=13,
        query_hidden=17,
        readout_hidden=11,
    )
    return build_model(config).eval()


def answered_as_by(model: nn.Module, count: int, size: int = 12, num_classes: int = 5, seed: int = 1) -> Pictures:
    """Random pictures with the model's own answers as labels, but for every seventh: so nearly all are right at first."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 1, size, size))
    with torch.no_grad():
        labels = model(torch.from_numpy(pixels).float() / 255).argmax(dim=1).numpy()
    labels = np.where(np.arange(count) % 7 == 6, (labels + 1) % num_classes, labels)
    return Pictures(pixels, labels, num_classes)


class Flat(PooledClassifier):
    """Any function of the pixels, dressed as a model that can be evaluated."""

    def __init__(self, name: str, size: int, num_classes: int) -> None:
        super().__init__(ResNetConfig(name=name, num_classes=num_classes, vision=vision(size)))
        del self.vision, self.classifier
        self.weight = nn.Parameter(torch.zeros(num_classes, size * size))


class ByPixel(Flat):
    """Answers class c where the first pixel is 10 c / 255: what is predicted can be dictated."""

    def __init__(self, num_classes: int) -> None:
        super().__init__("by-pixel", 4, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        classes = 10 * torch.arange(self.config.num_classes)
        return -((images[:, 0, 0, :1] * 255 - classes) ** 2) / 50


def by_pixel(predictions: Sequence[int], labels: Sequence[int], num_classes: int) -> Pictures:
    """Clean images for `ByPixel`, which answers them with these predictions."""
    pixels = np.zeros((len(labels), 1, 4, 4), np.uint8)
    pixels[:, 0, 0, 0] = 10 * np.asarray(predictions)
    return Pictures(pixels, labels, num_classes)


Script = Mapping[tuple[str, str, int, int], int]
"""(example, attack, restart, steps) -> the class that the attack makes `ByPixel` answer with."""


def scripted(
    script: Script, batches: list[tuple[str, int, tuple[str, ...]]] | None = None
) -> Callable[..., AttackTrajectory]:
    """Stands in for `run_attack`: images that `ByPixel` answers as written. Notes whose batches it was given."""

    def attack(outputs_fn, clean, labels, *, config, targets=None, draw=None) -> AttackTrajectory:
        name, restart = draw.names
        if batches is not None:
            batches.append((name, restart, draw.ids))
        read_outs = tuple(sorted({*config.read_outs, config.num_attack_steps}))
        images = clean.expand(len(read_outs), *clean.shape).clone()
        for place, steps in enumerate(read_outs):
            wanted = [script[example, name, restart, steps] for example in draw.ids]
            images[place, :, 0, 0, 0] = torch.tensor(wanted) * 10 / 255
        steps = torch.tensor(read_outs)[:, None].expand(-1, len(clean))
        return AttackTrajectory(read_outs, images, steps, steps)

    return attack


def verdicts(ledger: Ledger, **options) -> list[tuple]:
    """What must not depend on who left early: everything but costs, distances and what was not measured."""
    return [
        (
            found.attack,
            found.num_attack_steps,
            found.num_restarts,
            found.example_ids.tolist(),
            found.labels.tolist(),
            found.targets.tolist(),
            found.correct.tolist(),
            found.hit.tolist(),
        )
        for found in reduce_restarts(ledger.table(), **options)
    ]


RADIUS = 0.1
_TEMPLATES = np.sign(np.random.default_rng(11).standard_normal((4, 1, 8, 8))).astype(np.float32)


def blobs(count: int, seed: int = 0) -> Pictures:
    """Four classes that a linear model tells apart: a faint pattern of +-1 on grey, with noise. An attacker who sees it needs
    less than `RADIUS`; one who moves pixels at random gets nowhere."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    noise = 0.02 * random.standard_normal((count, 1, 8, 8))
    pixels = ((0.5 + 0.05 * _TEMPLATES[labels] + noise).clip(0, 1) * 255).round()
    return Pictures(pixels, labels.tolist(), 4, "npz:blobs")


class Templates(Flat):
    """logits = scale x (patterns . pixels): the plain linear model of `blobs`, perhaps behind a defence."""

    def __init__(
        self, scale: float = 40.0, defence: Callable[[torch.Tensor], torch.Tensor] = torch.Tensor.clone
    ) -> None:
        super().__init__("templates", 8, 4)
        self.weight = nn.Parameter(scale / 64 * torch.from_numpy(_TEMPLATES).flatten(1))
        self.defence = defence

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.defence(images) - 0.5).flatten(1) @ self.weight.T


def quantised(images: torch.Tensor) -> torch.Tensor:
    """Eleven levels: no gradient anywhere."""
    return (images * 10).round() / 10


def rippled(images: torch.Tensor) -> torch.Tensor:
    """Random ripples, hardly visible, whose slope is twenty times that of the image: each gradient points anywhere."""
    return images + 0.01 * torch.sin(2000 * images + 6.28 * torch.rand_like(images))


def trained_resnet(num_train_steps: int = 40) -> PooledClassifier:
    """A real network that has learned `blobs`."""
    torch.manual_seed(2)
    model = build_model(ResNetConfig(name="learned", num_classes=4, vision=vision(8)))
    data = blobs(320, seed=5)
    images, labels = torch.from_numpy(data.pixels).float() / 255, torch.from_numpy(data.labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(num_train_steps):
        rows = slice(64 * (step % 5), 64 * (step % 5 + 1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval()
