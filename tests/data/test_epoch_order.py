"""The order of training data follows from the seed and the step alone; batches are the same for any number of workers."""

import numpy as np
import pytest
import torch

from s3ta.data import (
    BatchOrder,
    ClutteredDigits,
    batches,
    check_model_fits_data,
    fetch_batch,
    steps_per_epoch,
)
from s3ta.errors import UserError

from .helpers import Numbered


def _indices(data, batch_size, seed, steps):
    return [BatchOrder(data, batch_size, seed).position(step).indices.tolist() for step in steps]


@pytest.mark.parametrize(("count", "batch_size"), [(23, 5), (20, 5), (7, 7), (7, 1), (7, 6)])
def test_each_epoch_visits_every_example_at_most_once_and_leaves_out_less_than_a_batch(count, batch_size):
    data = Numbered(count)
    per_epoch = steps_per_epoch(data, batch_size)
    assert per_epoch == count // batch_size
    seen = []
    for epoch in range(4):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        assert {BatchOrder(data, batch_size, 3).position(step).epoch for step in steps} == {epoch}
        visited = [i for batch in _indices(data, batch_size, 3, steps) for i in batch]
        assert len(visited) == per_epoch * batch_size == len(set(visited))
        assert set(visited) <= set(range(count))
        seen.append(tuple(visited))
    assert len(set(seen)) == 4 or count < 3
    left_out = [set(range(count)) - set(visited) for visited in seen]
    assert count % batch_size == 0 or len({tuple(sorted(s)) for s in left_out}) > 1


def test_any_step_is_reached_without_those_before_it():
    data = Numbered(23)
    forwards = _indices(data, 5, 0, range(40))
    assert [_indices(data, 5, 0, [step])[0] for step in (39, 7, 0, 22, 21, 3)] == [
        forwards[s] for s in (39, 7, 0, 22, 21, 3)
    ]
    far = BatchOrder(data, 5, 0).position(10**9)
    assert far.epoch == 10**9 // 4
    assert len(far.indices) == 5


def test_order_differs_between_epochs_and_seeds():
    data = Numbered(50)
    orders = [
        tuple(np.concatenate([BatchOrder(data, 10, seed).position(5 * epoch + step).indices for step in range(5)]))
        for seed in (0, 1, 2)
        for epoch in (0, 1, 2)
    ]
    assert len(set(orders)) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_order_equals_stored_values():
    data = ClutteredDigits("train")
    assert BatchOrder(data, 64, 0).position(0).indices[:5].tolist() == [
        2197,
        1244,
        3163,
        511,
        1052,
    ]  # pinned: else no run can be resumed
    assert BatchOrder(data, 64, 0).position(58).epoch == 0
    assert BatchOrder(data, 64, 0).position(100).epoch == 1
    assert BatchOrder(data, 64, 0).position(100).indices[:4].tolist() == [2065, 3101, 1438, 604]


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(UserError, match="batch size 9 is larger than the train split of numbered, which has 8"):
        BatchOrder(Numbered(8), 9, 0).position(0)
    with pytest.raises(UserError, match="batch size 9"):
        next(batches(BatchOrder(Numbered(8), 9, 0), range(1)))


def _same(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.ids == b.ids
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)


def test_batches_are_drawn_for_their_epoch():
    data = Numbered(7)
    found = list(batches(BatchOrder(data, 3, 5), range(6)))
    assert len(found) == 6
    for step, batch in enumerate(found):
        epoch, indices = BatchOrder(data, 3, 5).position(step)
        assert batch.ids == [data.ids[i] for i in indices]
        assert batch.labels.tolist() == [int(data.labels[i]) for i in indices]
        expected = np.stack([data.image(int(i), (5, epoch)) for i in indices])
        assert np.array_equal((batch.images * 255).round().numpy(), expected)
    same_example = [b.images[b.ids.index("number-3")] for b in found if "number-3" in b.ids]
    assert len({image.numpy().tobytes() for image in same_example}) == len(same_example) > 1


def test_resume_from_any_step_gives_the_same_batches():
    data = Numbered(11)
    whole = list(batches(BatchOrder(data, 4, 1), range(9)))
    for first in (0, 1, 2, 5, 8, 9):
        _same(list(batches(BatchOrder(data, 4, 1), range(first, 9))), whole[first:])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_worker_processes_change_nothing():
    data = ClutteredDigits("validation")
    _same(
        list(batches(BatchOrder(data, 64, 0), range(1, 6), num_workers=2)),
        list(batches(BatchOrder(data, 64, 0), range(1, 6))),
    )


def test_global_random_state_is_neither_read_nor_moved():
    data = Numbered(11)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = list(batches(BatchOrder(data, 4, 1), range(5)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(5)
    _same(list(batches(BatchOrder(data, 4, 1), range(5))), one)


def test_fetch_keeps_order_and_repeats():
    ids, images, labels, skipped = fetch_batch(Numbered(9), [8, 0, 8])
    assert skipped == ()
    assert ids == ["number-8", "number-0", "number-8"]
    assert (images[:, 0, 0, 0] * 255).round().tolist() == [8, 0, 8]
    assert labels.tolist() == [0, 0, 0]
    assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channels": 3}, "takes images with 3 channels, but those of numbered have 1: set model.vision.in_channels=1"),
        ({"num_classes": 10}, "The model has 10 classes, but numbered has 2: set model.num_classes=2"),
        ({"image_size": 5}, "meant for 5 px, but the images of numbered are 4x5: set data.image_size=5"),
        ({"image_size": 4}, "meant for 4 px"),
    ],
)
def test_a_model_that_does_not_fit_is_told_what_to_set(wrong, words):
    fitting = {"channels": 1, "num_classes": 2}
    check_model_fits_data(Numbered(3), **fitting)
    with pytest.raises(UserError) as caught:
        check_model_fits_data(Numbered(3), **(fitting | wrong))
    assert words in str(caught.value)


def test_a_square_image_of_the_right_size_fits():
    check_model_fits_data(ClutteredDigits("test"), channels=1, num_classes=10, image_size=60)
