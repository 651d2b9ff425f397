"""Python processes that know of each other as torchrun's do, started bare."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0
"""Seconds after which a process that should have ended is taken for stuck. No test of speed: on a busy core the import of torch
alone may take half a minute."""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(*words: str, count: int) -> None:
    """Runs `python WORDS` in so many processes, and expects all to end well."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    alike = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "1000"} | shared
    started = [
        subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=alike | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        said = [process.communicate(timeout=PATIENCE)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)
