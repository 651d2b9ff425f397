"""What an evaluation costs beside its attacks, and whether its memory grows with the number of examples.

    python benchmarks/evaluation_overhead.py [RUN_FOLDER] [--num-examples 64] [--steps 100] [--data-root D]

Time: CPU seconds of the whole evaluation (targeted PGD read out once), divided into the attack itself and everything else:
targets, padding, checks of ball and box, classification of the final images, records, Parquet files with fsync. Measured by
process time around `run_attack` inside one run, so that a noisy minute hits both parts. Lint and probes are counted apart:
they are a fixed number of passes, stated beside what Table 1 on 500 examples costs.
Memory: peak resident size of child processes that evaluate 64, 256 and 1,000 examples with two steps.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from evaluating import records_of, request_of
from s3ta.attacks import PGDConfig
from s3ta.evaluate import NamedAttack, Settings, Suite, get_suite, max_cost, runner
from s3ta.evaluate.sanity_checks import num_evaluations
from s3ta.workflow import open_for_evaluation
from timing import about


def suite_of(steps: int) -> Suite:
    attack = PGDConfig(objective="targeted", radius=8 / 255, step_size=1 / 255, num_attack_steps=steps)
    return Suite(name="overhead", description="", attacks=(NamedAttack(name="targeted", attack=attack),))


def run(options: argparse.Namespace, count: int, steps: int) -> None:
    settings = Settings(batch_size=32, num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        request = request_of(suite_of(steps), count, settings, options.data_root, Path(folder) / "x")
        records_of(open_for_evaluation(options.model), request)


def shares(options: argparse.Namespace) -> tuple[float, float]:
    """CPU seconds of the attacks, and of the evaluation around them."""
    inside, honest, whole = 0.0, runner.run_attack, 0.0

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal inside
        began = time.process_time()
        try:
            return honest(*args, **kwargs)
        finally:
            inside += time.process_time() - began

    fill = runner.evaluate_into

    def around(*args: Any, **kwargs: Any) -> Any:
        nonlocal whole
        began = time.process_time()
        try:
            return fill(*args, **kwargs)
        finally:
            whole += time.process_time() - began

    from s3ta.workflow import evaluation

    runner.run_attack, evaluation.evaluate_into = timed, around
    try:
        run(options, options.num_examples, options.steps)
    finally:
        runner.run_attack, evaluation.evaluate_into = honest, fill
    return inside, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="runs/demo/s3ta_4")
    parser.add_argument("--num-examples", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--child", action="store_true", help="one evaluation; prints its peak memory")
    options = parser.parse_args()
    if not Path(options.model).is_dir():
        print(f"evaluation_overhead: no model in {options.model}; run `make demo` or name a run folder")
        return
    if options.child:
        run(options, options.num_examples, options.steps)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    print(about())
    for number in range(options.rounds):
        inside, whole = shares(options)
        print(
            f"round {number + 1}: attack {inside:.2f} s, all {whole:.2f} s, beside the attack {whole / inside - 1:.2%}"
        )
    probes = num_evaluations(32)
    table1 = max_cost(get_suite("table1"), 500).total
    print(f"probes on 32 examples: {probes:,} passes, {probes / table1:.2%} of Table 1 on 500 examples ({table1:,})")
    for count in (64, 256, 1000):
        words = [sys.executable, __file__, options.model, "--child", "--num-examples", str(count), "--steps", "2"]
        words += ["--data-root", str(options.data_root)]
        peak = int(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])
        print(f"{count:>6} examples: peak memory {peak / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
