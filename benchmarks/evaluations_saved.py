"""Evaluations that leaving early saves on the paper's Table 1 + Table 5 protocol, counted, not timed.

    python benchmarks/evaluations_saved.py [RUN_FOLDER] [--radius 16/255] [--num-examples 64] [--restarts 10] [--data-root D]

Table 1 is random-targeted PGD with 10 and with 1,000 steps, read out at 100, 250 and 1,000; nobody can leave there, for the
last iterate counts. Table 5 is the same attack with restarts, 100 and 1,000 steps; an example leaves once it is wrong and on
target at every read-out. The paper's 100 restarts of 1,000 steps are 110,000 gradients per example; here are fewer, and the
saving grows with their number. Records are written to a temporary folder and the verdicts are those of the exhaustive run
(tests/evaluate/test_leaving.py).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from s3ta.attacks import PGDConfig, evaluation_step_size
from s3ta.config import parse_radius
from s3ta.evaluate import NamedAttack, Settings, Suite, total
from s3ta.records import Ledger, nested_scores
from s3ta.workflow import Place, evaluate_model


def protocol(radius: float, num_restarts: int, long: int) -> Suite:
    """Tables 1 and 5 at another radius and with fewer restarts."""

    def attack(steps: int, restarts: int, read_outs: tuple[int, ...] = ()) -> PGDConfig:
        size = evaluation_step_size(steps) * radius / (16 / 255)
        return PGDConfig(
            radius=radius, step_size=size, num_attack_steps=steps, num_restarts=restarts, read_outs=read_outs
        )

    attacks = (
        NamedAttack(name="table1-10", attack=attack(10, 1)),
        NamedAttack(name="table1-1000", attack=attack(1000, 1, (100, 250))),
        NamedAttack(name="table5-100", attack=attack(100, num_restarts)),
        NamedAttack(name=f"table5-{long}", attack=attack(long, num_restarts)),
    )
    return Suite(name="saved", description="Tables 1 and 5", attacks=attacks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="runs/demo/s3ta_4")
    parser.add_argument("--radius", default="16/255")
    parser.add_argument("--num-examples", type=int, default=64)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--long", type=int, default=200, help="steps of Table 5's long attack; the paper: 1,000")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    given = parser.parse_args()
    if not Path(given.model).is_dir():
        print(f"evaluations_saved: no model in {given.model}; run `make demo` or name a run folder")
        return
    suite = protocol(parse_radius(given.radius), given.restarts, given.long)
    with tempfile.TemporaryDirectory() as folder:
        out = evaluate_model(
            given.model,
            suite,
            None,
            "test",
            Path(folder) / "saved",
            Settings(micro_batch=32, num_threads=1),
            Place(given.data_root, "cpu"),
            given.num_examples,
        )
        table = Ledger.read(out).table()
    frame = table.to_pydict()
    print(f"{'attack':14}{'restarts':>9}{'gradients, all':>16}{'spent':>10}{'saved':>8}   top-1 / success")
    every = spent = 0
    for named in suite.attacks:
        config = named.attack
        rows = [
            i
            for i, (name, steps) in enumerate(zip(frame["attack"], frame["num_attack_steps"], strict=True))
            if name == named.name and steps == config.num_attack_steps
        ]
        used = sum(frame["num_gradients"][i] for i in rows)
        full = given.num_examples * config.num_attack_steps * config.num_restarts
        every, spent = every + full, spent + used
        last = [s for s in nested_scores(table) if s.attack == named.name and s.num_restarts == config.num_restarts][-1]
        success = "" if last.success is None else f"{last.success:.1%}"
        costs = f"{config.num_restarts:>9}{full:>16,}{used:>10,}{1 - used / full:>8.1%}"
        print(f"{named.name:14}{costs}   {last.top1:.1%} / {success}")
    print(f"{'together':14}{'':>9}{every:>16,}{spent:>10,}{1 - spent / every:>8.1%}")
    assert total(suite, given.num_examples).num_gradients == every


if __name__ == "__main__":
    main()
