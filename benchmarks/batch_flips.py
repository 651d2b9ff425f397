"""The same model attacked with 1, 8 and 64 examples in flight: how many verdicts change? AutoAttack's own, and ours.

    python benchmarks/batch_flips.py [RUN_FOLDER] [--num-examples 64] [--radius 8/255] [--data-root D]

AutoAttack: `pyautoattack` as it is used everywhere, `AutoAttack(model, norm="Linf", eps, seed=0)` with its first two parts,
`run_standard_evaluation(images, labels, batch_size=...)`. Ours: the attacks named below with `--prefetch`, the batch size
fixed at 8 (one in flight: each beside seven copies of itself). Counted are images whose verdict (right or wrong) differs
from that of batch size 64, and images whose adversarial version is not bit for bit the same.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from pyautoattack import AutoAttack

from evaluating import records_of, request_of
from s3ta.config import parse_radius
from s3ta.data import fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate import AttackContext, Settings, suite_of_attacks
from s3ta.records import Ledger, compare_predictions
from s3ta.workflow import open_for_evaluation
from s3ta.workflow.fit_data_to_model import bring_together
from timing import about

SIZES = (64, 8, 1)
OURS = ("pgd-100", "targeted-100", "annealed-margin-100")


def theirs(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float) -> None:
    """AutoAttack at every batch size."""
    answers = {}
    for size in SIZES:
        attack = AutoAttack(model, norm="Linf", eps=radius, version="custom", seed=0, attacks=["apgd-ce", "apgd-t"])
        adversarial, _ = attack.run_standard_evaluation(images, labels, batch_size=size)
        with torch.no_grad():
            answers[size] = (adversarial, model(adversarial).argmax(dim=1) == labels)
    for size in SIZES:
        changed = int((answers[size][1] != answers[SIZES[0]][1]).sum())
        other = int((answers[size][0] != answers[SIZES[0]][0]).flatten(1).any(dim=1).sum())
        print(
            f"AutoAttack, batch {size:>3}: robust {answers[size][1].float().mean():.1%}, verdicts that differ {changed}, "
            f"images that differ {other} of {len(images)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="runs/demo/s3ta_4")
    parser.add_argument("--num-examples", type=int, default=64)
    parser.add_argument("--radius", default="8/255")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    if not Path(options.model).is_dir():
        print(f"batch_flips: no model in {options.model}; run `make demo` or name a run folder")
        return
    print(about())
    opened, radius = open_for_evaluation(options.model), parse_radius(options.radius)
    suite = suite_of_attacks(OURS, AttackContext(radius, opened.card.num_glimpses, opened.card.num_classes))
    settings = Settings(batch_size=8, num_threads=1)
    tables = {}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            in_flight = settings._replace(prefetch=size)
            request = request_of(suite, options.num_examples, in_flight, options.data_root, Path(folder) / "x")
            tables[size] = Ledger.read(records_of(opened, request)).table()
    for size in SIZES:
        for flip in compare_predictions(tables[SIZES[0]], tables[size]):
            counts = (
                f"predictions that differ {flip.num_predictions}, verdicts {len(flip.flipped)} of {flip.num_common}"
            )
            print(f"ours, in flight {size:>3}, {flip.attack}: {counts}")
        print(f"ours, in flight {size:>3}: records that differ at all: {_differing(tables[SIZES[0]], tables[size])}")
    request = request_of(suite, options.num_examples, settings, options.data_root)
    evaluation = bring_together(opened, request, opened.model)
    batch = fetch_batch(evaluation.dataset, evaluation.positions)
    with exact_arithmetic(1):
        theirs(opened.model, batch.images, batch.labels, radius)


def _differing(a: object, b: object) -> int:
    rows = zip(a.to_pylist(), b.to_pylist(), strict=True)  # pyright: ignore[reportAttributeAccessIssue]
    return sum(x != y for x, y in rows)


if __name__ == "__main__":
    main()
