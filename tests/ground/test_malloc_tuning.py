"""Memory kept between passes: set where glibc takes it, left alone elsewhere, said either way."""

from __future__ import annotations

import subprocess
import sys

import pytest

from s3ta import malloc_tuning
from s3ta.malloc_tuning import Allocator


class Mallopt:
    """Stands for glibc's: takes blocks up to `largest`, and all other settings or none."""

    def __init__(self, largest: int, others: int = 1) -> None:
        self.largest, self.others, self.set = largest, others, dict[int, int]()

    def __call__(self, name: int, value: int) -> int:
        taken = (value <= self.largest) if name == -3 else self.others
        if taken:
            self.set[name] = value
        return int(taken)


@pytest.mark.parametrize(("largest", "told"), [(1 << 40, "1024 MiB"), (32 << 20, "32 MiB")])
def test_the_largest_threshold_that_is_taken_is_set(largest, told):
    """glibc refuses more than 32 MiB before 2.35, by returning 0."""
    mallopt = Mallopt(largest)
    kept = malloc_tuning._kept({}, mallopt)
    assert kept.is_kept
    assert told in kept.sentence
    assert mallopt.set == {-3: min(largest, 1 << 30), -1: -1, -2: 64 << 20}


@pytest.mark.parametrize("mallopt", [Mallopt(0), Mallopt(1 << 40, others=0)])
def test_a_refusal_of_glibc_is_told(mallopt):
    assert malloc_tuning._kept({}, mallopt) == Allocator(False, "glibc refused to keep memory")


def test_without_glibc_nothing_is_done():
    assert not malloc_tuning._kept({}, None).is_kept


@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "1"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=4096"}]
)
def test_settings_of_the_environment_stay_as_they_are(environment):
    mallopt = Mallopt(1 << 40)
    kept = malloc_tuning._kept(environment, mallopt)
    assert not kept.is_kept
    assert next(iter(environment)) in kept.sentence
    assert mallopt.set == {}
    assert malloc_tuning._kept({"GLIBC_TUNABLES": "glibc.cpu.x86_ibt=on"}, mallopt).is_kept


def test_other_systems_and_libraries_have_no_mallopt(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert malloc_tuning._glibc() is None
    monkeypatch.undo()

    def none(name: str | None) -> object:
        if name is None:
            return object()
        raise OSError("libc.so.6: cannot open shared object file")

    monkeypatch.setattr(malloc_tuning.ctypes, "CDLL", none)
    assert malloc_tuning._glibc() is None


SCRIPT = """
import resource, sys
import numpy as np
from s3ta import malloc_tuning
assert malloc_tuning.allocator().sentence.startswith("as it was")
if sys.argv[1] == "keep":
    kept = malloc_tuning.keep_memory()
    assert malloc_tuning.keep_memory() is kept and malloc_tuning.allocator() is kept
    if not kept.is_kept:
        print(-1)
        raise SystemExit
def touch():
    np.ones(20 << 20, np.uint8).sum()
    np.ones(24 << 20, np.uint8).sum()
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_a_process_that_keeps_its_memory_faults_no_more():
    """Blocks of 24 and 20 MiB, ten times: 112,640 pages if each is asked for again."""
    faults = {}
    for how in ("keep", "leave"):
        told = subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True)
        faults[how] = int(told.stdout)
    if faults["keep"] < 0:
        pytest.skip("this Python does not get its memory from glibc")
    assert faults["keep"] < 2000
    assert faults["leave"] > 20 * faults["keep"]
