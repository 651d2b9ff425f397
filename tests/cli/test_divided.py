"""Evaluations as people run them, in processes of their own: killed at random moments, divided among shards and ranks."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import s3ta
from s3ta.cli import app
from tests.processes import PATIENCE

COUNT = 28
COMMON = ["--data", "digits", "--num-examples", str(COUNT), "--batch-size", "4", "--threads", "1", "--device", "cpu"]
SUITE = ["--attack", "pgd-100", "--attack", "targeted-100", "attack.num_attack_steps=4", "attack.num_restarts=2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights whose answers differ from digit to digit."""
    folder = tmp_path_factory.mktemp("model") / "model"
    torch.manual_seed(5)
    net = s3ta.create_model("s3ta_2_resnetv2_mini", num_classes=10, image_size=60, in_channels=1)
    s3ta.save_pretrained(net, folder)
    return folder


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The chunks of an evaluation that nothing disturbed, made in this process."""
    folder = tmp_path_factory.mktemp("whole") / "x"
    finish_here(command(model, folder))
    return chunks(folder)


def command(model: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "s3ta",
        "evaluate",
        str(model),
        *SUITE,
        *COMMON,
        "--out",
        str(out),
        *(more or ["--no-checks"]),
    ]


def finish(words: list[str]) -> str:
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def finish_here(words: list[str]) -> None:
    """As `finish`, in this process: without the seconds that a start takes."""
    done = CliRunner().invoke(app, words[3:])
    assert done.exit_code == 0, done.output


def chunks(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("chunk-*.parquet"))}


def kill_and_resume(model: Path, out: Path, num_kills: int, seed: int, total: int) -> None:
    """`kill -9` at random moments of the work (and sometimes before it begins), each time the same command again."""
    draw = random.Random(seed)
    print(f"seed of the kills: {seed}")
    killed = 0
    while killed < num_kills:
        child = subprocess.Popen(
            command(model, out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        there = len(list(out.glob("chunk-*")))
        room = max(1, (total - there) // (num_kills - killed + 1))
        wanted, patience = there + draw.randrange(0, room + 1), time.monotonic() + PATIENCE
        while len(list(out.glob("chunk-*"))) < wanted and child.poll() is None and time.monotonic() < patience:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.06))
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            killed += 1
        child.wait()
        if len(list(out.glob("chunk-*"))) >= total:
            break
    assert killed >= min(3, num_kills)


@pytest.mark.thorough
def test_an_evaluation_killed_in_the_middle_resumes_to_the_same_bytes(
    model: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out, until = tmp_path / "x", time.monotonic() + PATIENCE
    child = subprocess.Popen(command(model, out), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(chunks(out)) < 3 and child.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert 3 <= len(chunks(out)) < len(whole)
    finish_here(command(model, out))
    assert chunks(out) == whole


@pytest.mark.slow
def test_an_evaluation_killed_twenty_times_resumes_to_the_same_bytes(
    model: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    seed = int(time.time())
    kill_and_resume(model, tmp_path / "x", 20, seed=seed, total=len(whole))
    finish(command(model, tmp_path / "x"))
    assert chunks(tmp_path / "x") == whole, f"seed {seed}"


@pytest.mark.slow
def test_two_shards_at_the_same_time_write_the_same_bytes(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "x"
    both = [
        subprocess.Popen(
            command(model, out, "--no-checks", "--shard", f"{i}/2"),
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in (1, 2)
    ]
    told = [process.communicate(timeout=PATIENCE)[0].decode() for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert chunks(out) == whole
    assert sum("the rest is done elsewhere" in text for text in told) <= 1  # whoever ends last finds all of it


@pytest.mark.slow
def test_two_ranks_of_torchrun_write_the_same_bytes(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "x"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = command(model, out, "--checks")
    run = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(port)]
    told = finish([sys.executable, "-m", *run, "-m", *words[2:]])
    assert chunks(out) == whole
    assert told.count("Records:") == 1  # one process speaks for both
    assert (out / "gallery.npz").is_file()
    assert (out / "trust.json").is_file()
