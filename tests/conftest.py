"""Fixtures that several rooms share: the development images, and a disk that is nearly full."""

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from s3ta import progress
from s3ta.train import validation

MOST_PROCESSES = 8
"""Each holds up to 2 GB, and beyond eight the longest file decides how long the tests take."""

progress._PATIENCE = 3600.0  # a busy machine's lines about long waits would stand between those that a test expects
torch.set_num_threads(1)  # two threads on two busy cores are many times slower than one
os.environ["OMP_NUM_THREADS"] = "1"  # for the programs that tests start

# `make test` draws few cases for each property, `make check` many; the same ones in every run.
EVERYWHERE = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("quick", EVERYWHERE, max_examples=40)
settings.register_profile("thorough", EVERYWHERE, max_examples=200)
settings.load_profile("quick")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """For `-n auto`: a process for every core that this one may use, which containers and `taskset` may have cut."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or min(usable, MOST_PROCESSES))


@pytest.fixture(autouse=True, scope="session")
def _brief_validation() -> Iterator[None]:
    """Accuracy while training over 16 examples, not 200, which take nine tenths of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "evenly_spaced", partial(validation.evenly_spaced, limit=16))
        yield


@pytest.fixture(scope="session")
def data_folder():
    """The unpacked development images; `S3TA_DATA` says where. Without it the test is skipped."""
    folder = os.environ.get("S3TA_DATA")
    if not folder:
        pytest.skip("S3TA_DATA does not name the unpacked development images")
    return Path(folder)


@pytest.fixture
def small_disk(tmp_path):
    """Makes real disks of a few kilobytes (needs root): `small_disk(kilobytes)` gives an empty folder on one."""
    mounted = []

    def make(kilobytes):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        try:
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small disk cannot be mounted here ({type(error).__name__}): needs root")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
