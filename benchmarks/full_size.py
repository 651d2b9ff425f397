"""The full-size S3TA-16 at 224 px: forward, input gradient, and a 10-step attack on a few images, with time and memory.

python benchmarks/full_size.py [--images 4] [--device cpu|cuda] [--folder IMAGEFOLDER]
Random weights: the cost is that of a trained model, the predictions mean nothing.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

import s3ta
from s3ta.attacks import PGDConfig, draw_start, draw_targets, evaluation_step_size, frozen_in_eval_mode, run_attack
from s3ta.data import DataConfig, fetch_batch, open_dataset
from timing import about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="class folders under val/ or test/; without it, noise")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = s3ta.create_model("s3ta_16_resnetv2_152").eval().to(device)
    ids, images, labels = _images(options.folder, options.images)
    images, labels = images.to(device), labels.to(device)
    config = PGDConfig(num_attack_steps=10, step_size=evaluation_step_size(10))
    targets, start = draw_targets(0, ids, labels, 1000), draw_start(config, 0, ids, images, "targeted-10", 0)

    def gradient() -> None:
        pixels = images.clone().requires_grad_()
        with frozen_in_eval_mode(model):
            torch.autograd.grad(model(pixels).sum(), pixels)

    @torch.no_grad()
    def forward() -> None:
        model(images)

    def attack() -> None:
        attacked = run_attack(model, images, labels, config=config, targets=targets, start=start).final
        print(f"largest distance {(attacked - images).abs().max().item() * 255:.4f}/255")

    print(about(), f"device {device}, {options.images} images")
    for name, run in {
        "forward": forward,
        "forward + input gradient": gradient,
        "10-step targeted attack": attack,
    }.items():
        _measure(name, run, device)


def _images(folder: Path | None, count: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    if folder is None:
        return [f"noise-{i}" for i in range(count)], torch.rand(count, 3, 224, 224), torch.arange(count)
    data = open_dataset(DataConfig(source=f"folder:{folder.name}", image_size=224), "test", folder.parent)
    return tuple(fetch_batch(data, range(0, len(data.ids), len(data.ids) // count)[:count])[:3])


def _measure(name: str, run: Callable[[], None], device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.cuda.synchronize(device)
    began, cpu = time.perf_counter(), time.process_time()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        memory = torch.cuda.max_memory_allocated(device)
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{name:28} {time.perf_counter() - began:8.2f} s wall, {time.process_time() - cpu:8.2f} s CPU, "
        f"peak memory {memory / 2**30:.2f} GiB"
    )


if __name__ == "__main__":
    main()
