"""Progress where there is no terminal: few lines, with an estimate that a resumed run does not spoil."""

import re
import time

import pytest

from s3ta import progress as module
from s3ta.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def _lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_one_line_at_the_start_each_tenth_and_the_end(capsys, clock):
    with progress("work", 200) as report:
        report(0)
        for done in range(1, 201):
            clock[0] += 1
            report(done, "fine")
    lines = _lines(capsys)
    counts = [int(re.match(r"work: (\d+)/200", line)[1]) for line in lines]
    assert counts == list(range(0, 201, 20))
    assert lines[5] == "work: 100/200, about 100 s left fine"
    assert lines[-1] == "work: 200/200 fine"


def test_a_total_below_ten_prints_a_line_per_item(capsys, clock):
    with progress("work", 3) as report:
        for done in range(4):
            report(done)
            clock[0] += 2
    assert [line.partition(",")[0] for line in _lines(capsys)] == ["work: 0/3", "work: 1/3", "work: 2/3", "work: 3/3"]


def test_quick_work_prints_its_first_and_last_line(capsys, clock):
    with progress("reading", 20) as report:
        for done in range(21):
            clock[0] += 0.005
            report(done)
    assert _lines(capsys) == ["reading: 0/20", "reading: 20/20"]


def test_a_line_that_comes_too_soon_is_printed_later(capsys, clock):
    with progress("work", 10) as report:
        for done, seconds in enumerate((0, 1.0, 0.5, 0.6, 0.1, 2.5)):
            clock[0] += seconds
            report(done)
    assert [line.partition(",")[0] for line in _lines(capsys)] == ["work: 0/10", "work: 3/10", "work: 5/10"]


def test_long_lines_are_not_broken(capsys, clock):
    with progress("work", 10) as report:
        report(0, "x" * 300)
    assert _lines(capsys) == ["work: 0/10 " + "x" * 300]


def test_estimate_of_a_resumed_run_counts_only_its_own_steps(capsys, clock):
    with progress("work", 100) as report:
        report(50)
        clock[0] += 20
        report(60)
    assert _lines(capsys)[-1] == "work: 60/100, about 80 s left"


def test_a_terminal_gets_a_bar(monkeypatch):
    import io

    from rich.console import Console

    screen = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(module, "console", screen)
    with progress("work", 10) as report:
        report(10, "loss 0.5")
    shown = screen.file.getvalue()
    assert "work" in shown
    assert "10/10" in shown
    assert "loss 0.5" in shown


def test_a_long_wait_is_named_and_a_short_one_is_not(capsys, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    monkeypatch.setattr(module, "_AGAIN", 0.05)
    with module.waiting("hashing [bold] :fish:"):
        pass
    assert _lines(capsys) == []
    with module.waiting("hashing [bold] :fish:"):
        time.sleep(0.3)
    lines = _lines(capsys)
    assert lines[0] == "hashing [bold] :fish: ..."
    assert lines[1] == "hashing [bold] :fish: ... 0 s so far"
    assert lines[-1] == "hashing [bold] :fish:: 0 s"


def test_a_wait_is_silent_while_something_inside_it_speaks_and_in_other_processes(capsys, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    with module.waiting("all"), progress("work", 1) as report:
        report(0)
        time.sleep(0.15)
        report(1)
    assert _lines(capsys) == ["work: 0/1", "work: 1/1"]
    monkeypatch.setenv("RANK", "1")
    with module.waiting("all"):
        time.sleep(0.15)
    assert _lines(capsys) == []


def test_a_wait_that_fails_prints_nothing_more(capsys, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.05)
    with pytest.raises(ValueError, match="lost"), module.waiting("all"):
        raise ValueError("lost")
    time.sleep(0.15)
    assert _lines(capsys) == []
    assert module._speakers == []
