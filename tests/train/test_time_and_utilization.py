"""Where the time goes, by a clock of our own; and what stands in the log."""

import json
from types import SimpleNamespace

import pytest
import torch

from s3ta.models import count_cost
from s3ta.train import time_and_utilization
from s3ta.train.time_and_utilization import Clock, measured_peak

from .helpers import CPU, recipe, run


class Time:
    """A clock that goes on when it is told."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(time_and_utilization, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def fail(self, length):
        self.now += length
        raise ValueError("x")

    def spend(self, clock, **seconds):
        for name, length in seconds.items():
            with clock.phase(name):
                self.now += length


def test_seconds_images_and_utilization_are_what_the_clock_says(monkeypatch):
    config = recipe("resnet", attack={"num_attack_steps": 5})
    time, clock = Time(monkeypatch), Clock(config, CPU)
    time.spend(clock, data=1, attack=4, update=2)
    clock.count(0, 4, 8)
    time.now += 1000  # validation and the like do not count
    time.spend(clock, data=0.5, attack=1, update=1.5)
    clock.count(1, 4, 8)
    told = clock.read("float32")
    assert {name: told[name] for name in time_and_utilization.PHASES} == {"data": 1.5, "attack": 5.0, "update": 3.5}
    assert told["images_per_second"] == 1.6  # 16 images of all processes in 10 s
    operations = 2 * count_cost(config.model).multiply_accumulates * (2 * 5 + 3) * 8  # of this process
    assert told["utilization"] == pytest.approx(operations / 10 / 1e10, abs=1e-4)
    assert operations / 10 / 1e10 > 0.001
    time.spend(clock, data=1)
    assert clock.read("float32") == {
        "images_per_second": 0.0,
        "data": 1.0,
        "attack": 0.0,
        "update": 0.0,
        "utilization": 0.0,
    }


def test_a_phase_counts_also_when_it_fails(monkeypatch):
    time, clock = Time(monkeypatch), Clock(recipe(), CPU)
    with pytest.raises(ValueError, match="x"), clock.phase("attack"):
        time.fail(3)
    assert clock.read("float32")["attack"] == 3


def test_clean_steps_and_glimpses_count_with_their_own_cost(monkeypatch):
    """One step each: clean with 1 glimpse, clean with 3, attacked with 3, attacked with 3 and perturbed."""
    config = recipe(
        schedule={"num_train_steps": 4, "clean_steps": 2, "glimpses": ((0, 1), (1, 3))},
        weight_perturbation={"gamma": 0.01, "from_step": 3},
    )
    expected = [(1, 3), (3, 3), (3, 2 * 2 + 3), (3, 2 * 2 + 6)]
    monkeypatch.setattr(time_and_utilization, "measured_peak", lambda *_: 1e9)
    time, clock = Time(monkeypatch), Clock(config, CPU)
    for step, (glimpses, passes) in enumerate(expected):
        time.spend(clock, update=1)
        clock.count(step, 4, 4)
        forward = 2 * count_cost(config.model.model_copy(update={"num_glimpses": glimpses})).multiply_accumulates
        assert clock.read("float32")["utilization"] == pytest.approx(forward * passes * 4 / 1e9, abs=6e-5)


def test_a_clock_without_steps_reads_zero():
    assert Clock(recipe(), CPU).read("float32")["images_per_second"] == 0


def test_the_peak_is_measured_in_large_products():
    peak = measured_peak(CPU, "float32", 0.05)
    one = torch.ones(768, 768)
    times = []
    for _ in range(5):
        began = time_and_utilization.time.perf_counter()
        _ = one @ one
        times.append(time_and_utilization.time.perf_counter() - began)
    assert 0.05 < peak / (2 * 768**3 / min(times)) < 20
    assert 1e8 < peak < 1e15


def test_every_line_of_the_log_says_where_the_time_went(tmp_path):
    run(recipe(log_every=2), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    told = [line["speed"] for line in lines if line["kind"] == "train"]
    assert len(told) == 4
    for each in told:
        assert set(each) == {"images_per_second", "data", "attack", "update", "utilization"}
        assert each["attack"] > 0
        assert each["update"] > 0
        assert each["data"] >= 0
        assert each["utilization"] > 0
        total = each["data"] + each["attack"] + each["update"]
        steps = 2 if each is not told[-1] else 1
        assert each["images_per_second"] == pytest.approx(4 * steps / total, rel=0.1)
    assert not any("speed" in line for line in lines if line["kind"] == "validation")


@pytest.mark.parametrize("peak", [1.0, 1e3, 1e6])
def test_utilization_is_never_above_the_whole(monkeypatch, peak):
    """The peak may have been timed on a busy machine, and kernels may need fewer operations than are counted."""
    monkeypatch.setattr(time_and_utilization, "measured_peak", lambda device, precision: peak)
    time, clock = Time(monkeypatch), Clock(recipe("resnet"), CPU)
    time.spend(clock, attack=1, update=1)
    clock.count(0, 4, 8)
    assert clock.read("float32")["utilization"] == 1
