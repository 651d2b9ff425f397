"""Data sets that live on the device give what `fetch_batch` gives, bit for bit; batches take them where that is possible."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from s3ta.data import (
    BatchOrder,
    ClutteredDigits,
    DataConfig,
    DeviceDataset,
    batches,
    fetch_batch,
    load_on_device,
    open_dataset,
)
from s3ta.data.dataset import as_images
from s3ta.errors import UserError
from tests.processes import PATIENCE

from .helpers import Numbered, pixels
from .test_augment import AUGMENTS

CPU = torch.device("cpu")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "set" / "train.npz", images=pixels(40, 16, 16, 3), labels=np.arange(40) % 3)
    return tmp_path


def _open(root, split="train", **settings):
    return open_dataset(DataConfig(source="npz:set", num_validation=7, **settings), split, root)


def _same(one, other):
    assert one.ids == other.ids
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)
    assert one.labels.dtype == other.labels.dtype == torch.int64
    assert one.skipped == other.skipped == ()


@pytest.mark.parametrize("augment", AUGMENTS)
def test_batches_are_those_of_fetch(root, augment):
    data = _open(root, augment=augment)
    kept = load_on_device(data, CPU)
    assert isinstance(kept, DeviceDataset)
    for draw in (None, (0, 0), (5, 3)):
        for indices in ([0, 1, 2, 32], [32, 5, 5], [9]):
            _same(kept.batch(indices, draw), fetch_batch(data, indices, draw))


def test_bytes_become_the_same_numbers_as_by_division():
    every = torch.arange(256, dtype=torch.uint8)[None, None, None]
    assert np.array_equal(as_images(every).numpy().ravel(), np.arange(256, dtype=np.float32) / np.float32(255))


def test_files_digits_and_large_data_do_not_live_on_the_device(root):
    for name in ("a", "b"):
        path = root / "files" / "test" / name / "x.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(path)
    assert load_on_device(open_dataset(DataConfig(source="folder:files", image_size=8), "test", root), CPU) is None
    assert load_on_device(ClutteredDigits("validation"), CPU) is None
    data = _open(root)
    assert load_on_device(data, CPU, most_bytes=33 * 16 * 16 * 3) is not None
    assert load_on_device(data, CPU, most_bytes=33 * 16 * 16 * 3 - 1) is None


@pytest.mark.parametrize("augment", ["crop_flip", "strong"])
def test_batches_are_the_same_with_and_without_a_device(root, augment):
    data = _open(root, augment=augment)
    here, plain = (
        list(batches(BatchOrder(data, 8, 1), range(2, 9), device=CPU)),
        list(batches(BatchOrder(data, 8, 1), range(2, 9))),
    )
    assert len(here) == len(plain) == 7
    for one, other in zip(here, plain, strict=True):
        _same(one, other)


def test_data_that_cannot_live_on_the_device_is_loaded_in_batches():
    data = Numbered(11)
    for one, other in zip(
        batches(BatchOrder(data, 4, 1), range(5), device=CPU), batches(BatchOrder(data, 4, 1), range(5)), strict=True
    ):
        _same(one, other)


@pytest.mark.parametrize("device", [None, CPU])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_parts_of_a_batch_are_the_batch_in_order(root, count, device):
    data = _open(root, augment="crop_flip")
    whole = list(batches(BatchOrder(data, 8, 1), range(5)))
    parts = [list(batches(BatchOrder(data, 8, 1, (rank, count)), range(5), device=device)) for rank in range(count)]
    for step, batch in enumerate(whole):
        shares = [part[step] for part in parts]
        assert [name for share in shares for name in share.ids] == batch.ids
        assert torch.equal(torch.cat([share.images for share in shares]), batch.images)
        assert torch.equal(torch.cat([share.labels for share in shares]), batch.labels)
        sizes = [len(share.ids) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert batch.ids == [data.ids[i] for i in BatchOrder(data, 8, 1).position(step).indices]


def test_a_batch_larger_than_the_data_is_refused_on_the_device_too(root):
    with pytest.raises(UserError, match="batch size 34 is larger than the train split"):
        next(batches(BatchOrder(_open(root), 34, 0), range(1), device=CPU))


def _children():
    """Worker processes of this one that torch's loader began."""
    import multiprocessing

    return multiprocessing.active_children()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("begun_in_a_thread", [False, True])
def test_closing_early_ends_the_workers(begun_in_a_thread):
    coming, taken = batches(BatchOrder(Numbered(50), 4, 0), range(1000), num_workers=1), []
    before = len(_children())
    if begun_in_a_thread:
        thread = threading.Thread(target=lambda: taken.append(next(coming)))
        thread.start()
        thread.join()
    else:
        taken.append(next(coming))
    assert len(taken[0].ids) == 4
    assert len(_children()) == before + 1
    keeper = coming.gi_frame.f_locals["loaded"]  # a reference from elsewhere does not keep them alive
    coming.close()
    end = time.monotonic() + PATIENCE
    while len(_children()) > before and time.monotonic() < end:
        time.sleep(0.05)
    assert len(_children()) == before
    assert keeper is not None
    with pytest.raises(StopIteration):
        next(coming)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_gpu_gives_the_same_bits(root, augment):
    data = _open(root, augment=augment)
    kept, indices = load_on_device(data, torch.device("cuda")), list(range(33))
    assert kept is not None
    for epoch in range(20):
        found = kept.batch(indices, (0, epoch))
        assert found.images.is_cuda
        assert torch.equal(found.images.cpu(), fetch_batch(data, indices, (0, epoch)).images)
