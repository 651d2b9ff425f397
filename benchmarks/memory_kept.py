"""What it saves when a process keeps the CPU memory that it frees, and whether any record changes.

    python benchmarks/memory_kept.py [--rounds 2] [--steps 5] [--batch 16] [--networks resnet50 ...]

An evaluation (untargeted PGD on one micro-batch of noise) of each of six networks with random weights, in child processes with
and without kept memory by turns, one thread each. User and system CPU seconds and page faults are those of the evaluation;
the peak is the child's. Records are compared byte for byte. Only Linux with glibc has anything to save (`s3ta.malloc_tuning`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from timing import about

NETWORKS = {
    "tf_efficientnet_lite0": ("timm:tf_efficientnet_lite0", 224),
    "resnet50": ("torchvision:resnet50", 224),
    "mobilenet_v3_large": ("torchvision:mobilenet_v3_large", 224),
    "vit_small_patch16": ("timm:vit_small_patch16_224", 224),
    "s3ta_4_resnetv2_mini": ("s3ta_4_resnetv2_mini", 32),
    "resnetv2_mini": ("resnetv2_mini", 32),
}
"""By short name: source, and size of the images. The last is a small network for CIFAR-10."""


def child(name: str, steps: int, batch: int, *, keep: bool) -> dict[str, Any]:
    """One evaluation, and what it took."""
    from s3ta.malloc_tuning import keep_memory

    if keep and not keep_memory().is_kept:
        raise SystemExit("memory_kept: this process does not get its memory from glibc")
    import torch

    from s3ta.attacks import PGDConfig
    from s3ta.data import DataConfig, open_dataset
    from s3ta.evaluate import EvaluationTask, NamedAttack, Settings, Suite, evaluate
    from s3ta.models import LoadOptions, create_model, open_model

    source, size = NETWORKS[name]
    if ":" in source:
        model = open_model(source, LoadOptions(weights="random", num_classes=10, image_size=size))
    else:
        torch.manual_seed(0)
        model = create_model(source, num_classes=10, image_size=size)
    attack = PGDConfig(objective="untargeted", radius=8 / 255, step_size=2 / 255, num_attack_steps=steps)
    suite = Suite(name="memory", description="", attacks=(NamedAttack(name="untargeted", attack=attack),))
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        pixels = random.integers(0, 256, (batch, size, size, 3), np.uint8)
        arrays = {"images": pixels, "labels": np.arange(batch) % 10, "classes": np.array([str(i) for i in range(10)])}
        np.savez(Path(folder) / "test.npz", allow_pickle=False, **arrays)
        dataset = open_dataset(DataConfig(source="npz:."), "test", Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF)
        settings, out = Settings(batch_size=batch, num_threads=1, num_kept=0), Path(folder) / "out"
        evaluate(EvaluationTask(model, dataset, suite, range(batch), settings), out, lambda completed, note="": None)
        after = resource.getrusage(resource.RUSAGE_SELF)
        records = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(out.glob("chunk-*")))).hexdigest()
    return {
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
        "peak": after.ru_maxrss / 1024,
        "records": records,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--child", choices=("keep", "leave"), help="one evaluation; prints what it took")
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(given.networks[0], given.steps, given.batch, keep=given.child == "keep")))
        return
    if not sys.platform.startswith("linux"):
        print("memory_kept: only Linux with glibc has anything to save")
        return
    print(f"{about()}; {given.steps} steps on {given.batch} images, CPU seconds (median of {given.rounds})")
    print(
        f"{'network':22} {'left: user':>10} {'system':>7} {'MiB':>6} {'kept: user':>11} {'system':>7} {'MiB':>6} faster  peak"
    )
    for name in given.networks:
        took: dict[str, list[dict[str, Any]]] = {"leave": [], "keep": []}
        for _ in range(given.rounds):
            for how, times in took.items():
                words = [sys.executable, __file__, "--child", how, "--networks", name]
                words += ["--steps", str(given.steps), "--batch", str(given.batch)]
                times.append(json.loads(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout))
        records = {one["records"] for times in took.values() for one in times}
        left, kept = (
            {key: statistics.median(one[key] for one in took[how]) for key in ("user", "system", "peak")}
            for how in took
        )
        faster = (left["user"] + left["system"]) / (kept["user"] + kept["system"])
        print(
            f"{name:22} {left['user']:10.1f} {left['system']:7.1f} {left['peak']:6.0f} {kept['user']:11.1f} "
            f"{kept['system']:7.1f} {kept['peak']:6.0f} {faster:5.2f}x {kept['peak'] / left['peak'] - 1:+5.0%}, records "
            + ("the same bytes" if len(records) == 1 else "DIFFER"),
            flush=True,
        )


if __name__ == "__main__":
    main()
