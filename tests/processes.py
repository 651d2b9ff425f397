"""Processes that know of each other as torchrun's do, forked from one that has imported everything heavy."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parents[1]
PATIENCE = 600.0
"""Seconds after which a process that should have ended is taken for stuck. No test of speed: on a busy core the import of torch
alone may take half a minute."""
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["s3ta.train", "s3ta.workflow", "s3ta.cli", "torch.distributed"])


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(act: Callable[..., None], *arguments: Any, count: int) -> None:
    """Calls `act(*arguments)` in so many processes, and expects all to end well. `act` is a function of a module."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "COLUMNS": "1000"}
    with TemporaryDirectory() as folder:
        logs = [Path(folder) / str(rank) for rank in range(count)]
        started = [
            WARM.Process(
                target=_run,
                args=(act, arguments, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, logs[rank]),
                daemon=True,
            )
            for rank in range(count)
        ]
        for process in started:
            process.start()
        until = time.monotonic() + PATIENCE
        try:
            for process in started:
                process.join(max(0.0, until - time.monotonic()))
            ended = [process.exitcode for process in started]
        finally:
            for process in started:
                process.kill()
                process.join()
        said = [log.read_text(errors="replace") if log.exists() else "" for log in logs]
        assert ended == [0] * count, "\n".join(said)


def _run(act: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str], log: Path) -> None:
    """In the new process, where a warning is an error as in the tests themselves."""
    os.chdir(ROOT)
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "Implausible attack settings")  # the attacks of tests are as short as they can be
    act(*arguments)
