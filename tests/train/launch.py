"""Two processes that train together, as torchrun starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from s3ta.files import in_use, read_lines
from tests import processes

ROOT = Path(__file__).parents[2]
DIGITS = "digits/resnetv2_mini_dense"
CHANGES = ["schedule.num_train_steps=30", "checkpoint_every=3", "schedule.clean_steps=2", "batch_size=16"]
CHANGES += ["validate_every=1000", "log_every=1"]
WORDS = ["train", DIGITS, *CHANGES, "--tiny", "--device", "cpu"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "1000"}


class Torchrun:
    """A run of two processes that torchrun started, in a session of its own."""

    def __init__(self, out: Path, *options: str, words: Sequence[str] = ()) -> None:
        self.out = out
        run = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
        run += ["--master-port", str(processes.free_port()), *options]
        self.log = (out.parent / f"{out.name}.log").open("a+")
        self.child = subprocess.Popen(
            [sys.executable, "-m", *run, "-m", "s3ta", *WORDS, *words, "--out", str(out)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def finished(self) -> int:
        """Training steps in the learning curve."""
        return max((line["step"] for line in read_lines(self.out / "train.jsonl")), default=0)

    def until(self, finished: int) -> None:
        """Waits until so many steps are done, or torchrun has ended."""
        patience = time.monotonic() + processes.PATIENCE
        while self.finished() < finished and self.child.poll() is None and time.monotonic() < patience:
            time.sleep(0.002)

    def processes(self) -> dict[int, int]:
        """The id of each rank's process; fewer while torchrun starts them."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                environment = (folder / "environ").read_bytes().split(b"\0") if parent == self.child.pid else []
            except OSError:
                continue
            found |= {int(word[5:]): int(folder.name) for word in environment if word.startswith(b"RANK=")}
        return found

    def kill(self) -> None:
        """`kill -9` to all of it at once: torchrun gives its processes sessions of their own."""
        self.child.send_signal(signal.SIGSTOP)  # so that it starts no others
        for process in (*self.processes().values(), self.child.pid):
            os.kill(process, signal.SIGKILL)
        self.child.wait()
        while in_use(self.out):  # until the last of them is gone
            time.sleep(0.01)

    def ended(self) -> tuple[int, str]:
        """Exit code, and all that was said."""
        code = self.child.wait(timeout=processes.PATIENCE)
        self.log.seek(0)
        return code, self.log.read()
