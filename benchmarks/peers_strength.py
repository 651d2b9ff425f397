"""Strength of attacks at equal gradient evaluations, ours and those of other libraries, on one trained model of ours.

benchmarks/.venv/bin/python benchmarks/peers_strength.py RUN_FOLDER --radius 8/255 [--data-root data] [-n 256] [--out x.csv]
Without arguments: the model of `make demo`. Prints accuracy under each attack with its 95 % interval (Wilson) and, on the same
images, the difference to our attack of the same kind (Newcombe): above zero, ours is the stronger one. Untargeted, one random
start. Every final image is checked (ball and box, tolerance 1e-6) and classified by one judge: the model itself, float32,
eager, in the same micro-batches. Also runs in .venv: libraries that are absent are skipped.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from peers import Candidate, Counted, Strength, candidates, versions
from s3ta.attacks import Linf, autograd_gradient, untargeted
from s3ta.config import parse_radius
from s3ta.data import DataConfig, fetch_batch, open_dataset, resolve_source
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate import choose_examples
from s3ta.models import from_pretrained
from s3ta.records.proportion_statistics import PairedCounts, wilson
from s3ta.workflow import open_for_evaluation, recipe_data
from timing import about

DEMO = "runs/demo/s3ta_4"
TOLERANCE = 1e-6


class Result(NamedTuple):
    """What one attack did to all examples."""

    attack: str
    kind: str
    correct: np.ndarray
    num_gradients: float
    """Per example that was right at first."""
    num_forwards: float
    seconds: float
    violation: float
    """How far the worst image lies outside ball or box."""


def main() -> None:
    options = _options()
    if options.model == DEMO and not Path(DEMO).exists():
        print(f"skipped: there is no {DEMO}; run `make demo` first, or name a model folder")
        return
    torch.set_num_threads(1)
    found = candidates()
    print(f"{about()}\n{versions(found)}")
    model = from_pretrained(options.model)
    batches = _batches(options, model.config.vision.image_size, model.config.vision.in_channels)
    step_size = options.step_size or options.radius / 10
    strength = Strength(
        image_shape=tuple(batches[0][0].shape[1:]),
        num_classes=model.config.num_classes,
        radius=options.radius,
        step_size=step_size,
        num_attack_steps=options.steps,
        annealed_step_size=options.annealed_step_size or 2 * options.radius,
    )
    print(
        f"{model.config.name}, {sum(len(labels) for _, labels in batches)} {options.split} images in micro-batches of "
        f"{options.micro_batch}, seed {options.seed}, radius {options.radius:.6g}, {options.steps} steps of {step_size:.6g}, "
        f"annealed from {strength.annealed_step_size:.6g}"
    )
    with exact_arithmetic(1):
        clean = np.concatenate([_judge(model, images, labels) for images, labels in batches])
        autograd_gradient(model, untargeted(batches[0][1]), batches[0][0])  # nobody pays for the first pass
        results = [Result("clean", "", clean, 0, 0, 0, 0)]
        print(_header(), _line(results[0], results), sep="\n")
        for candidate in found:
            results.append(_attacked(candidate, model, strength, batches, clean, options.seed))
            print(_line(results[-1], results), flush=True)
    if options.out:
        settings = {"model": model.config.name, "seed": options.seed, **strength._asdict()}
        del settings["image_shape"], settings["num_classes"], settings["random_start"]
        _write(options.out, settings, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEMO, help="run folder, or model folder together with --data")
    parser.add_argument("--radius", type=parse_radius, default=0.1)
    parser.add_argument("--data", help="digits, torchvision:NAME, folder:PATH or npz:PATH; default: the recipe's")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--split", default="test")
    parser.add_argument("-n", "--num-examples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--step-size", type=parse_radius, help="default: a tenth of the radius")
    parser.add_argument("--annealed-step-size", type=parse_radius, help="default: twice the radius, as APGD begins")
    parser.add_argument("--micro-batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0, help="chooses examples and starts")
    parser.add_argument("--out", type=Path, help="write the figures to this CSV file")
    return parser.parse_args()


def _batches(options: argparse.Namespace, image_size: int, channels: int) -> list[tuple[Tensor, Tensor]]:
    """The examples that `s3ta evaluate` would take with this seed, as (images, labels)."""
    config = DataConfig(source=options.data) if options.data else recipe_data(open_for_evaluation(options.model))
    located = resolve_source(config.source, options.data_root)
    fitted = {"source": located.source, "image_size": image_size, "channels": channels}
    dataset = open_dataset(config.model_copy(update=fitted), options.split, located.root)
    positions = choose_examples(dataset, options.num_examples, options.seed)
    blocks = [positions[i : i + options.micro_batch] for i in range(0, len(positions), options.micro_batch)]
    return [(batch.images, batch.labels) for batch in (fetch_batch(dataset, block) for block in blocks)]


@torch.no_grad()
def _judge(model: torch.nn.Module, images: Tensor, labels: Tensor) -> np.ndarray:
    logits = model.eval()(images)
    assert torch.isfinite(logits).all()
    return (logits.argmax(dim=1) == labels).numpy()


def _attacked(
    candidate: Candidate,
    model: torch.nn.Module,
    strength: Strength,
    batches: list[tuple[Tensor, Tensor]],
    clean: np.ndarray,
    seed: int,
) -> Result:
    counted = Counted(model)
    attack = candidate.make(counted, strength)
    correct, violation, seconds = [], 0.0, 0.0
    for index, (images, labels) in enumerate(batches):
        began = time.process_time()
        adversarial = attack(images.clone(), labels.clone(), 1000 * seed + index).detach()
        seconds += time.process_time() - began
        violation = max(violation, Linf(strength.radius).violation(adversarial, images).max().item())
        correct.append(_judge(model, adversarial, labels))
    if not violation <= TOLERANCE:
        raise AssertionError(f"{candidate.name} left ball or box by {violation}: its images do not count")
    model.zero_grad()
    skips = candidate.package == "pyautoattack"  # what is wrong at first
    attacked = int(clean.sum()) if skips else len(clean)
    return Result(
        candidate.name,
        candidate.kind,
        np.concatenate(correct),
        counted.num_gradients / attacked,
        counted.num_forwards / len(clean),
        seconds,
        violation,
    )


def _counterpart(result: Result, results: list[Result]) -> Result | None:
    """Our attack of the same kind; for our second attack, our first."""
    ours = [each for each in results if each.attack.startswith("s3ta")]
    if not ours or result is ours[0] or not result.kind:
        return None
    return ours[0] if result in ours[:2] else next(each for each in ours if each.kind == result.kind)


def _against(result: Result, other: Result) -> PairedCounts:
    a, b = result.correct, other.correct
    return PairedCounts(*(int(x.sum()) for x in (a & b, a & ~b, ~a & b, ~a & ~b)))


def _header() -> str:
    return f"{'attack':30} {'right, % (95 %)':>22} {'difference, points (95 %)':>28}  against {'':12}" + (
        f"{'gradients':>9} {'forwards':>9} {'CPU s':>7}  outside"
    )


def _line(result: Result, results: list[Result]) -> str:
    count, total = int(result.correct.sum()), len(result.correct)
    low, high = wilson(count, total)
    right = f"{100 * count / total:5.1f} [{100 * low:4.1f}, {100 * high:4.1f}]"
    other = _counterpart(result, results)
    difference = ""
    if other:
        counts = _against(result, other)
        low, high = counts.interval
        difference = f"{100 * counts.difference:+5.1f} [{100 * low:+5.1f}, {100 * high:+5.1f}]"
    return (
        f"{result.attack:30} {right:>22} {difference:>28}  {'s3ta ' + other.kind if other else '':20}"
        f"{result.num_gradients:9.1f} {result.num_forwards:9.1f} {result.seconds:7.1f}  {result.violation:.1e}"
    )


def _write(path: Path, settings: dict[str, object], results: list[Result]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [settings | _row(result, results) for result in results]
        writer = csv.DictWriter(file, rows[-1], restval="")
        writer.writeheader()
        writer.writerows(rows)


def _row(result: Result, results: list[Result]) -> dict[str, object]:
    count, total, other = int(result.correct.sum()), len(result.correct), _counterpart(result, results)
    low, high = wilson(count, total)
    row: dict[str, object] = {"attack": result.attack, "num_examples": total}
    row |= {"right": count / total, "right_low": low, "right_high": high}
    row |= {"num_gradients": result.num_gradients, "num_forwards": result.num_forwards}
    row |= {"cpu_seconds": round(result.seconds, 2), "outside": result.violation}
    if other:
        counts = _against(result, other)
        row |= {"against": other.attack, "difference": counts.difference}
        row |= {"difference_low": counts.interval.low, "difference_high": counts.interval.high}
    return row


if __name__ == "__main__":
    main()
