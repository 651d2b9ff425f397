"""What other people's code may change for the whole process, by accident or for itself: all of it is put back."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch

from s3ta.terminal_output import standard_streams_kept


@contextmanager
def process_state_kept(program: str | None = None) -> Iterator[list[str]]:
    """The current folder, the arguments, the standard streams, torch's default type and device, whether gradients are on, and
    the number of CPU threads, as they were afterwards.

    Other code finds `program` as the only argument meanwhile; None: the arguments as they are. Yields a list; afterwards it
    holds a sentence if the number of threads was another one: that may change last bits."""
    changes: list[str] = []
    folder, arguments = _current_folder(), sys.argv
    dtype, device, num_threads = torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()
    with standard_streams_kept(), torch.set_grad_enabled(torch.is_grad_enabled()):
        try:
            if program is not None:
                sys.argv = [program]
            yield changes
        finally:
            sys.argv = arguments
            if folder is not None and _current_folder() != folder:
                with suppress(OSError):
                    os.chdir(folder)
            torch.set_default_dtype(dtype)
            if torch.get_default_device() != device:
                torch.set_default_device(device)
            changes += _restore_threads(num_threads)


@contextmanager
def seeded_global_generators(seed: int | None = None) -> Iterator[None]:
    """Torch's, NumPy's and Python's global generators as they were afterwards, whatever a model draws from them or seeds; begun
    from `seed` where there is one. CUDA that is not yet in use holds the last seed back until it is: that is put back too."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    is_pending = not devices and torch.cuda.is_available()
    try:
        with torch.random.fork_rng(devices), plain_generators(seed):
            if seed is not None:
                torch.default_generator.manual_seed(seed)
                if devices or is_pending:
                    torch.cuda.manual_seed_all(seed)
            yield
    finally:
        if is_pending:
            torch.cuda.manual_seed_all(torch.initial_seed())


@contextmanager
def plain_generators(seed: int | None = None) -> Iterator[None]:
    """As `seeded_global_generators`, of Python's and NumPy's alone."""
    python, legacy = random.getstate(), np.random.get_state()
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _current_folder() -> str | None:
    """None where it is gone."""
    with suppress(OSError):
        return os.getcwd()
    return None


def _restore_threads(num_threads: int) -> list[str]:
    if (changed := torch.get_num_threads()) == num_threads:
        return []
    torch.set_num_threads(num_threads)
    return [
        f"The model computes with {changed} CPU threads, a number that it sets itself, instead of {num_threads}: last bits may "
        "not repeat. Take torch.set_num_threads out of its forward pass."
    ]
