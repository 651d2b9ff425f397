"""Cost of S3TA-16 over its vision net alone, full size at 224 px: forward, and forward plus input gradient.

python benchmarks/head_cost.py [--rounds 5] [--batch 1]        goal: at most 1.04x (multiply-accumulates: 1.018x)
"""

from __future__ import annotations

import argparse
import resource

import torch

import s3ta
from timing import about, interleaved, line, ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = s3ta.create_model("s3ta_16_resnetv2_152").eval().requires_grad_(False)
    images = torch.rand(options.batch, 3, 224, 224)

    def gradient(network: torch.nn.Module) -> None:
        pixels = images.clone().requires_grad_()
        torch.autograd.grad(network(pixels).sum(), pixels)

    @torch.no_grad()
    def forward(network: torch.nn.Module) -> None:
        network(images)

    times = interleaved(
        {
            "vision net, forward": lambda: forward(model.vision),
            "S3TA-16, forward": lambda: forward(model),
            "vision net, forward + input gradient": lambda: gradient(model.vision),
            "S3TA-16, forward + input gradient": lambda: gradient(model),
        },
        options.rounds,
    )
    print(about())
    for name, values in times.items():
        print(line(name, values, " s"))
    for kind in ("forward", "forward + input gradient"):
        print(line(f"ratio, {kind}", ratios(times, f"S3TA-16, {kind}", f"vision net, {kind}"), "x"))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
