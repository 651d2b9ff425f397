"""What a step needs, made ready in a thread ahead of it: in order, without loss, and gone when nobody wants it."""

import threading
import time
from collections import Counter
from contextlib import closing

import numpy as np
import pytest
import torch

from s3ta.data import BatchOrder
from s3ta.data.prefetch import prefetch
from s3ta.distributed import Ranks
from s3ta.train import loop
from s3ta.train.prefetch import prepared
from tests.processes import PATIENCE

from .helpers import CPU, Crash, Pictures, crash_at, recipe, run, same_run


def _feeders():
    return [thread for thread in threading.enumerate() if thread.name == "feeding"]


class Source:
    """Numbers from 0, noting how far it was asked, in which thread, and whether it was closed."""

    def __init__(self, count=10**9, error=None, at=None, pause=0.0):
        self.made, self.closed, self.threads = 0, False, set()
        self._count, self._error, self._at, self._pause = count, error, at, pause

    def __call__(self):
        try:
            for number in range(self._count):
                self.threads.add(threading.current_thread().name)
                if number == self._at:
                    raise self._error
                time.sleep(self._pause)
                self.made += 1
                yield number
        finally:
            self.closed = True


def test_all_items_come_in_order_from_a_thread_of_its_own():
    source = Source(100)
    assert list(prefetch(source)) == list(range(100))
    assert source.threads == {"feeding"}
    assert source.closed
    assert not _feeders()


def test_an_empty_source_gives_nothing():
    assert list(prefetch(Source(0))) == []


@pytest.mark.parametrize("error", [ValueError("torn"), Crash("killed")])
def test_an_error_of_the_source_is_raised_at_the_same_item(error):
    source, got = Source(error=error, at=5), []
    with pytest.raises(type(error), match=str(error)):
        got.extend(prefetch(source))
    assert got == [0, 1, 2, 3, 4]
    assert source.closed
    assert not _feeders()


def test_an_error_before_the_first_item_is_raised():
    def make():
        raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        next(prefetch(make))
    assert not _feeders()


@pytest.mark.parametrize("taken", [1, 3])
def test_closing_early_ends_the_thread_and_closes_the_source(taken):
    source = Source()
    coming = prefetch(source)
    for expected in range(taken):
        assert next(coming) == expected
    coming.close()
    assert source.closed
    assert not _feeders()


def test_a_consumer_that_fails_leaves_no_thread_behind():
    source = Source()

    def consume():
        with closing(prefetch(source)) as coming:
            for number in coming:
                if number == 2:
                    raise Crash

    with pytest.raises(Crash):
        consume()
    assert source.closed
    assert not _feeders()


def test_a_slow_consumer_is_waited_for():
    source = Source()
    with closing(prefetch(source)) as coming:
        for expected in range(3):
            assert next(coming) == expected
            time.sleep(0.15)
            assert source.made <= expected + 1 + 3  # two in the queue, one in hand
    assert source.closed


def test_work_goes_on_while_the_consumer_is_busy():
    """While the first item is at work, the next ones are made, without being asked for."""
    source = Source(10, pause=0.02)
    with closing(prefetch(source)) as coming:
        next(coming)
        end = time.monotonic() + PATIENCE
        while source.made < 3 and time.monotonic() < end:
            time.sleep(0.01)
        assert source.made >= 3


def test_training_is_the_same_without_the_thread(tmp_path, monkeypatch):
    run(recipe(), tmp_path / "thread")
    monkeypatch.setattr(loop, "prefetch", lambda make: make())
    run(recipe(), tmp_path / "plain")
    same_run(tmp_path / "thread", tmp_path / "plain")


def test_a_run_that_dies_or_ends_leaves_no_thread_behind(tmp_path):
    with pytest.raises(Crash):
        run(recipe(), tmp_path, crash_at(3))
    assert not _feeders()
    run(recipe(), tmp_path)
    assert not _feeders()


# --- what is prepared ------------------------------------------------------------------------------------------------------


def _steps(config, data, first=0):
    with closing(prepared(config, data, first, CPU, Ranks())) as coming:
        yield from coming


def test_each_step_has_the_images_of_its_place_in_the_data():
    config, data = recipe(schedule={"num_train_steps": 9, "clean_steps": 2}), Pictures()
    for step, batch in enumerate(_steps(config, data)):
        epoch, indices = BatchOrder(data, 4, 0).position(step)
        assert (batch.step, batch.epoch, batch.ids) == (step, epoch, [data.ids[i] for i in indices])
        assert batch.labels.tolist() == [int(data.labels[i]) for i in indices]
        expected = np.stack([data.image(int(i), (0, epoch)) for i in indices]) / 255
        torch.testing.assert_close(batch.clean, torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-7)
        assert (batch.attack is None) == (batch.targets is None) == (batch.start is None) == (step < 2)
    assert step == 8
    whole = list(_steps(config, data))
    for later, again in zip(whole[5:], _steps(config, data, 5), strict=True):
        assert torch.equal(later.start, again.start)
        assert torch.equal(later.targets, again.targets)
        assert torch.equal(later.clean, again.clean)


class Many(Pictures):
    """Very small pictures, many of them, of seven classes."""

    classes, shape, fingerprint = tuple("abcdefg"), (1, 2, 2), "feed"

    def __init__(self, count):
        super().__init__(count)
        self.labels = np.arange(count) % 7

    def image(self, index, draw=None):
        return np.full(self.shape, 40 + index % 170, np.uint8)


EPOCH = recipe(batch_size=50, schedule={"num_train_steps": 80})
EPOCH = EPOCH.model_copy(update={"model": EPOCH.model.model_copy(update={"num_classes": 7})})


def test_x4_targets_of_training_are_even_over_the_wrong_classes_and_fresh_each_epoch():
    """2,000 examples, two epochs: offsets from the label against a uniform distribution (chi-square, 5 degrees of freedom)."""
    drawn = {}
    for batch in _steps(EPOCH, Many(2000)):
        assert not (batch.targets == batch.labels).any()
        assert ((batch.targets >= 0) & (batch.targets < 7)).all()
        offsets = ((batch.targets - batch.labels) % 7).tolist()
        drawn |= {(batch.epoch, i): offset for i, offset in zip(batch.ids, offsets, strict=True)}
    for epoch in (0, 1):
        counts = Counter(offset for (e, _), offset in drawn.items() if e == epoch)
        assert sum(counts.values()) == 2000
        chi_square = sum((counts[offset] - 2000 / 6) ** 2 / (2000 / 6) for offset in range(1, 7))
        assert chi_square < 20.5  # one in a thousand exceeds it by chance; the draws are fixed
    same = sum(drawn[0, i] == drawn[1, i] for e, i in drawn if e == 0)
    assert abs(same / 2000 - 1 / 6) < 3 * (5 / 36 / 2000) ** 0.5


def test_x7_a_fifth_of_the_starts_is_the_clean_image_and_it_is_drawn_per_example():
    shares, mixed = [], 0
    for batch in _steps(EPOCH, Many(2000)):
        clean = (batch.start == batch.clean).flatten(1).all(1)
        shares += clean.tolist()
        mixed += 0 < int(clean.sum()) < 50
        assert ((batch.start - batch.clean).abs() <= 0.1 + 1e-6).all()
    assert len(shares) == 4000
    assert abs(np.mean(shares) - 0.2) < 3 * (0.16 / 4000) ** 0.5
    assert mixed == 80  # one coin per batch (T17) would make whole batches clean or noisy


def test_x6_the_step_size_of_training_is_the_recipes():
    """10 steps of 1/255 at 16/255 too: the exception of 1.6/255 is for evaluation."""
    attack = {"radius": 16 / 255, "step_size": 1 / 255, "num_attack_steps": 10}
    for batch in _steps(recipe(attack=attack), Pictures()):
        assert (batch.attack.step_size, batch.attack.radius) == (1 / 255, 16 / 255)
        assert batch.attack == recipe(attack=attack).attack
