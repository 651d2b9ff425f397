"""One thread: tensors here are tiny, and two runs must give the same last bits."""

import pytest
import torch

from s3ta.train import time_and_utilization


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_benchmark(request, monkeypatch):
    """What the processor can do at most is measured for a fifth of a second at the start of each run: not in tests."""
    if "measured" not in request.node.name:
        monkeypatch.setattr(time_and_utilization, "measured_peak", lambda *_: 1e10)
