"""Forward passes per second inside SPSA over bare forward passes of the same micro-batch, without gradients.

python benchmarks/spsa_rate.py [--rounds 5] [--directions 512] [--model resnetv2_mini_dense s3ta_4_resnetv2_mini]
goal: at least 0.95. Random weights, 32 px images. CPU time of one thread, SPSA and bare passes in turn.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor, nn

import s3ta
from s3ta.attacks import RandomKey, frozen_in_eval_mode, spsa, untargeted
from timing import about, interleaved, line, ratios

DELTA = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directions", type=int, default=512)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--micro-batch", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--model", nargs="+", default=["resnetv2_mini_dense", "s3ta_4_resnetv2_mini"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(about())
    for name in options.model:
        torch.manual_seed(0)
        model = s3ta.create_model(name, num_classes=10, image_size=32)
        for micro_batch in options.micro_batch:
            for count in options.images:
                _measure(name, model, count, micro_batch, options.directions, options.rounds)


def _measure(name: str, model: nn.Module, count: int, micro_batch: int, directions: int, rounds: int) -> None:
    images, labels = torch.rand(count, 3, 32, 32), torch.arange(count) % 10
    at_once = 2 * count * max(1, micro_batch // (2 * count))  # images in the model at once
    total = 2 * count * directions
    assert total % at_once == 0, "choose a number of directions that fills the micro-batches"
    source = spsa(RandomKey(0, tuple(str(i) for i in range(count))), directions, DELTA, micro_batch)
    probed = images.repeat(at_once // count, 1, 1, 1)
    with frozen_in_eval_mode(model):
        times = interleaved(
            {
                "SPSA": partial(source, model, untargeted(labels), images, 0),
                "bare": partial(_bare, model, probed, total // at_once),
            },
            rounds,
        )
    print(f"\n{name}, {count} image(s), {directions} directions each, {at_once} images in the model at once")
    for each, seconds in times.items():
        print(line(f"{each}, forwards per second", [total / value for value in seconds]))
    print(line("rate of SPSA over bare", ratios(times, "bare", "SPSA"), "x"))


@torch.no_grad()
def _bare(model: nn.Module, images: Tensor, times: int) -> None:
    for _ in range(times):
        model(images)


if __name__ == "__main__":
    main()
