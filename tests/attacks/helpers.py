"""Models to attack that are small enough to know what must come out."""

import torch
from hypothesis import settings
from torch import nn

from s3ta.models import S3TAConfig, VisionConfig, build_model

SHAPE = (2, 5, 7)
"""Channels, height, width."""
few_cases = settings(max_examples=settings().max_examples // 5)
"""For properties that attack a model in every case: a fifth of what the profile draws (tests/conftest.py)."""


class Linear(nn.Module):
    """logits = W x, in float64 unless said, counting how often it is called."""

    def __init__(self, num_classes=2, shape=SHAPE, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.weight = nn.Parameter(torch.randn(num_classes, *shape, generator=generator, dtype=dtype) / size)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return torch.einsum("bchw,ychw->by", images, self.weight)


def small_s3ta(dtype=torch.float32):
    """A mini S3TA for 2 x 12 x 10 images and 5 classes, with batch-norm averages that differ from a batch's."""
    torch.manual_seed(0)
    vision = VisionConfig(backbone="resnetv2_mini", stem="conv3", in_channels=2, image_size=12)
    model = build_model(
        S3TAConfig(
            num_classes=5,
            vision=vision,
            num_glimpses=2,
            key_channels=7,
            lstm_size=13,
            query_hidden=17,
            readout_hidden=11,
        )
    ).eval()
    for name, buffer in model.vision.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
    return model.to(dtype)


def pictures(batch, shape=SHAPE, seed=1, dtype=torch.float64):
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def names(count):
    return [f"image-{i}" for i in range(count)]


class Ramp(nn.Module):
    """Five logits (-m/2, m/2, -3, -4, -5) with m = u.x: with labels and targets among the first two, the gradient of every
    loss is a positive multiple of u or -u, so the allowed image furthest along it is the optimum of all."""

    def __init__(self, shape=SHAPE, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter((values.sign() * (0.3 + values.abs()) / values.numel()).to(dtype))
        self.register_buffer("rest", torch.tensor([-3.0, -4.0, -5.0], dtype=dtype))

    def forward(self, images):
        half = torch.einsum("bchw,chw->b", images, self.weight) / 2
        return torch.cat([torch.stack([-half, half], dim=1), self.rest.expand(len(images), 3)], dim=1)

    def up(self, labels):
        """The direction of each example's attack: u where the label is 0, -u where it is 1."""
        return (1 - 2 * labels).view(-1, 1, 1, 1) * self.weight.detach()
