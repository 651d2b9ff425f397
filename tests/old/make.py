"""Makes one tiny run of each kind with the s3ta that is on the path: `tests/old/COMMIT` was made so at that commit.

    git worktree add /tmp/s3ta-old COMMIT
    PYTHONPATH=/tmp/s3ta-old/src OMP_NUM_THREADS=1 python tests/old/make.py tests/old/COMMIT

`stopped` is a training that was killed after its sixth step of eight; `finished` a whole one, with a whole evaluation in
`evaluations/quick+num_restarts=2` and one in `evaluations/killed` that was killed after five of its ten chunks.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from s3ta.cli import main
from s3ta.records import Ledger
from s3ta.train import loop

try:
    from s3ta.models import backbones
except ImportError:  # before backbones had a module of their own
    from s3ta.models import vision as backbones

RECIPE = """{"name": "test/old", "suite": "quick", "batch_size": 8, "num_threads": 1, "seed": 3,
  "log_every": 1, "validate_every": 4, "checkpoint_every": 2,
  "data": {"source": "digits", "image_size": 60},
  "model": {"kind": "s3ta", "name": "old", "num_classes": 10, "num_glimpses": 2, "key_channels": 4, "num_heads": 2,
    "num_frequencies": 1, "lstm_size": 8, "query_hidden": 8, "readout_hidden": 8,
    "vision": {"backbone": "resnetv2_mini", "stem": "conv7_pool", "in_channels": 1, "image_size": 60}},
  "attack": {"kind": "pgd", "radius": 0.1, "step_size": 0.05, "num_attack_steps": 2, "random_start_prob": 0.8},
  "optimizer": {"kind": "adam", "learning_rate": 0.01},
  "schedule": {"num_train_steps": 8, "warmup_steps": 2, "warmup_from": 0.0, "decay": "steps", "decay_at": [6]}}"""
EVALUATE = "--suite quick --num-examples 6 --micro-batch 3 --threads 1 --no-checks attack.num_restarts=2"

_basic = backbones._basic


def narrow(config: Any, **widths: Any) -> Any:
    """The backbone `resnetv2_mini` with few channels, so that the files stay small."""
    return _basic(config, **{**widths, "channels": (4, 4, 8), "stem_channels": 4})


class Killed(BaseException):
    """Stands for a kill of the process."""


def kill_after(owner: type, method: str, count: int) -> None:
    """Patch a method so that its call after so many others kills the program."""
    original = getattr(owner, method)
    calls = iter(range(count))

    def counted(self: Any, *args: Any) -> Any:
        if next(calls, None) is None:
            raise Killed
        return original(self, *args)

    setattr(owner, method, counted)


def run(*args: str) -> None:
    sys.argv = ["s3ta", *args]
    try:
        main()
    except (SystemExit, Killed) as end:
        print(args[0], "ended with", repr(end))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    backbones._basic = narrow
    out.mkdir(parents=True)
    recipe = out / "recipe.json"
    recipe.write_text(RECIPE)
    finished, stopped = str(out / "finished"), str(out / "stopped")
    run("train", str(recipe), "--out", finished, "--device", "cpu")
    run("evaluate", finished, *EVALUATE.split(), "--device", "cpu")
    kill_after(Ledger, "write_chunk", 5)
    run("evaluate", finished, *EVALUATE.split(), "--device", "cpu", "--out", str(out / "finished/evaluations/killed"))
    kill_after(loop._Run, "_step", 7)
    run("train", str(recipe), "--out", stopped, "--device", "cpu")
    for path in out.rglob("*"):
        if path.suffix == ".npz" or path.name.startswith("."):
            path.unlink()
    for path in (*out.rglob("milestones"), out / "finished" / "checkpoint.safetensors", recipe):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
