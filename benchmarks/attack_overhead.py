"""Overhead of the attack loop: 20 PGD steps over 20 bare forward-and-input-gradient passes, and over foolbox.

python benchmarks/attack_overhead.py [--rounds 5]        goal: at most 1.03x of the bare passes, with trainable parameters
"""

from __future__ import annotations

import argparse

import foolbox
import timm
import torch
from torch.nn.functional import cross_entropy

from s3ta.attacks import Linf, perturb, sign_step, untargeted
from timing import about, interleaved, line, ratios

STEPS, RADIUS, STEP_SIZE = 20, 8 / 255, 2 / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = timm.create_model("resnetv2_18", num_classes=10).eval()  # parameters stay trainable on purpose
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)

    def bare() -> None:
        for _ in range(STEPS):
            pixels = images.clone().requires_grad_()
            torch.autograd.grad(cross_entropy(model(pixels), labels, reduction="sum"), pixels)

    def ours() -> None:
        perturb(
            model,
            images,
            threat=Linf(RADIUS),
            objective=untargeted(labels),
            step_rule=sign_step(STEP_SIZE),
            num_attack_steps=STEPS,
        )

    fmodel = foolbox.PyTorchModel(model, bounds=(0, 1))
    theirs = foolbox.attacks.LinfPGD(abs_stepsize=STEP_SIZE, steps=STEPS, random_start=False)

    def peer() -> None:
        theirs.run(fmodel, images, labels, epsilon=RADIUS)

    times = interleaved({"bare": bare, "s3ta": ours, "foolbox": peer}, options.rounds)
    print(about())
    for name, values in times.items():
        print(line(name, values, " s"))
    for name in ("s3ta", "foolbox"):
        print(line(f"ratio, {name} over bare", ratios(times, name, "bare"), "x"))


if __name__ == "__main__":
    main()
