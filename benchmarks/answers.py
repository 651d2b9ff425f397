"""CPU seconds of commands that need no model: user and system time of a child process each, median of some rounds.

    python benchmarks/answers.py [--rounds 5] [--source OTHER_CHECKOUT/src]

Commands take turns, so that a slow minute hits all of them; one round before is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = (
    "--help",
    "evaluate --help",
    "list recipes",
    "list models",
    "list suites",
    "list attacks",
    "show digits/s3ta_4",
    "show digits/s3ta_4 --fields",
    "show imagenet/s3ta_16-30",
    "train digits/s3ta_5",
    "train digits/s3ta_4 sed=1",
    "evaluate nothing",
    "evaluate nets:make --suite tabel1",
    "evaluate nets:make --suite quick attack.eps=0.1",
    "predict nothing picture.png",
)


def cpu_seconds(command: str, environment: dict[str, str], folder: str) -> float:
    """User and system time of one call, whatever it answers."""
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen([sys.executable, "-m", "s3ta", *command.split()], cwd=folder, env=environment, **silent)
    _, _, used = os.wait4(child.pid, 0)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print a line per command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--source", type=Path, default=Path(__file__).parents[1] / "src")
    asked = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(asked.source.resolve()), "OMP_NUM_THREADS": "1"}
    seconds: dict[str, list[float]] = {command: [] for command in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for counted in range(-1, asked.rounds):
            for command in COMMANDS:
                taken = cpu_seconds(command, environment, folder)
                if counted >= 0:
                    seconds[command].append(taken)
    for command, taken in seconds.items():
        print(f"{command:52}{statistics.median(taken):6.2f} s  (from {min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
