"""Overhead of attack loops, ours and those of other libraries: 20 steps over 20 bare forward-and-input-gradient passes.

benchmarks/.venv/bin/python benchmarks/peers_overhead.py [--rounds 15] [--batch 4 16] [--model resnetv2_mini_dense resnetv2_18]
goal for ours: at most 1.03x. Random weights, trainable on purpose, and 32 px images; everything starts at the clean image but
APGD, which cannot. CPU time of one thread, the candidates in turn. Also runs in .venv: libraries that are absent are skipped.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import s3ta
from peers import Candidate, Counted, Strength, candidates, versions
from timing import about, interleaved, line, ratios

STRENGTH = Strength(
    image_shape=(3, 32, 32),
    num_classes=10,
    radius=8 / 255,
    step_size=2 / 255,
    num_attack_steps=20,
    annealed_step_size=8 / 255,
    random_start=False,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--model", nargs="+", default=["resnetv2_mini_dense", "resnetv2_18"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = candidates()
    print(f"{about()}\n{versions(found)}")
    for name in options.model:
        for batch in options.batch:
            _measure(name, batch, options.rounds, found)


def _measure(name: str, batch: int, rounds: int, found: list[Candidate]) -> None:
    torch.manual_seed(0)
    model = s3ta.create_model(name, num_classes=STRENGTH.num_classes, image_size=STRENGTH.image_shape[1]).eval()
    images = torch.rand(batch, *STRENGTH.image_shape)
    with torch.no_grad():
        labels = model(images).argmax(dim=1)  # all right at first, or APGD would leave some out

    attacks = {each.name: each.make(model, STRENGTH) for each in found}
    runs = {each: partial(attack, images, labels, 0) for each, attack in attacks.items()}
    times = interleaved({"bare": partial(_bare, model, images, labels), **runs}, rounds)
    print(f"\n{name}, batch {batch}, {STRENGTH.num_attack_steps} steps")
    print(line("bare passes", times["bare"], " s"))
    for each in found:
        counted = Counted(model)
        each.make(counted, STRENGTH)(images, labels, 0)
        gradients, forwards = counted.num_gradients / batch, counted.num_forwards / batch
        print(
            line(each.name, ratios(times, each.name, "bare"), "x") + f"  {gradients:g} gradients, {forwards:g} forwards"
        )


def _bare(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    for _ in range(STRENGTH.num_attack_steps):
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(cross_entropy(model(pixels), labels, reduction="sum"), pixels)


if __name__ == "__main__":
    main()
