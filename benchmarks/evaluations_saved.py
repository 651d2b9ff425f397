"""Gradient evaluations of the paper's Tables 1 and 5 for one model, against separate exhaustive runs; counted, not timed.

    python benchmarks/evaluations_saved.py [RUN_FOLDER] [--radius 8/255] [--num-examples 64] [--restarts 10] [--data-root D]

Separate exhaustive runs: one for each number of steps (10, 100, 250, 1,000), and for Table 5 one for each number of steps
and of restarts (1, 10, ... starts of 100 and of 1,000 steps), as a tool does that keeps only totals. Here: read-outs at 100
and 250 come from the 1,000-step run, nested counts of restarts from one run, and an example leaves once it is wrong and on
target at every read-out. Two factors are printed: what reading out and nesting save, and what leaving saves on top. The
paper's 100 restarts are 100,000 gradients per example; here are fewer (`--restarts`). Verdicts are those of the exhaustive
run (tests/evaluate/test_leaving.py).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from evaluating import records_of, request_of
from s3ta.evaluate import Settings, Suite, get_suite, max_cost, override_suite
from s3ta.records import Ledger, scores_by_restarts
from s3ta.workflow import open_for_evaluation


def suites(radius: str, restarts: int, long: int) -> list[Suite]:
    """Table 1, and Table 5 with fewer restarts and, perhaps, fewer steps."""
    changes = [f"attack.radius={radius}"]
    five = [f"attack.num_restarts={restarts}", f"attack.num_attack_steps={long}", f"attack.read_outs=[100,{long}]"]
    return [override_suite(get_suite("table1"), changes), override_suite(get_suite("table5"), changes + five)]


def separately(restarts: int, long: int) -> tuple[int, int]:
    """Gradients per example of separate exhaustive runs: of Table 1, and of Table 5 with 1, 10, ... restarts."""
    counts = sorted({count for count in (1, 10, 100) if count < restarts} | {restarts})
    return 10 + 100 + 250 + 1000, sum(count * (100 + long) for count in counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="runs/demo/s3ta_4")
    parser.add_argument("--radius", default="8/255")
    parser.add_argument("--num-examples", type=int, default=64)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--long", type=int, default=1000, help="steps of Table 5's long attack")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    options = parser.parse_args()
    if not Path(options.model).is_dir():
        print(f"evaluations_saved: no model in {options.model}; run `make demo` or name a run folder")
        return
    settings = Settings(batch_size=32, num_threads=1)
    alone = separately(options.restarts, options.long)
    sums = [0, 0, 0]
    print(
        f"{'':10}{'separate runs':>16}{'one run, all stay':>20}{'spent':>14}   gradients, {options.num_examples} examples"
    )
    for suite, apart in zip(suites(options.radius, options.restarts, options.long), alone, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            request = request_of(suite, options.num_examples, settings, options.data_root, Path(folder) / "x")
            table = Ledger.read(records_of(open_for_evaluation(options.model), request)).table()
        last = {attack.name: attack.attack.num_attack_steps for attack in suite.attacks}
        frame = table.select(["attack", "num_attack_steps", "num_gradients"]).to_pylist()
        spent = sum(row["num_gradients"] for row in frame if last.get(row["attack"]) == row["num_attack_steps"])
        numbers = [apart * options.num_examples, max_cost(suite, options.num_examples).num_gradients, spent]
        sums = [a + b for a, b in zip(sums, numbers, strict=True)]
        print(f"{suite.name[:9]:10}{numbers[0]:>16,}{numbers[1]:>20,}{numbers[2]:>14,}")
        for score in scores_by_restarts(table):
            success = "" if score.success is None else f" / {score.success:.1%}"
            print(f"    {score.attack} {score.num_attack_steps} x {score.num_restarts}: {score.top1:.1%}{success}")
    print(f"{'together':10}{sums[0]:>16,}{sums[1]:>20,}{sums[2]:>14,}")
    print(
        f"factor {sums[0] / sums[2]:.2f}: reading out and nesting {sums[0] / sums[1]:.2f}, leaving {sums[1] / sums[2]:.2f}"
    )


if __name__ == "__main__":
    main()
