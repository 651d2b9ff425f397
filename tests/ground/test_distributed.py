"""Processes of one torchrun: what they tell each other arrives with every bit, and who is alone needs nobody."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from s3ta.distributed import Ranks, own_device, ranks
from s3ta.errors import UserError
from tests.processes import together

TORCHRUN = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
NAN_BITS = 0x7FC0BEEF
"""A NaN with a payload: whatever computes with it, even adds zero, may lose the payload."""
NUM_RANKS = 3


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


def own(rank: int) -> dict[str, torch.Tensor]:
    """What one process has to tell: every dtype of a state, odd shapes, an odd number of bytes first."""
    return {
        "flags": torch.tensor([True, False, rank == 1]),
        "none": torch.empty(0, 4),
        "position": torch.tensor(2**53 + 1 + rank),
        "weights": torch.tensor([[1.0, 0.1, -0.0], [1e-45, float("inf"), rank]]).T,
        "apart": torch.arange(6.0)[::2],
        "payload": torch.tensor([NAN_BITS + rank], dtype=torch.int32).view(torch.float32),
        "half": torch.tensor([1.0 + rank, 3e-5], dtype=torch.bfloat16).requires_grad_(),
        "double": torch.tensor([[0.1 + rank]], dtype=torch.float64),
    }


def bits(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[object, ...]]:
    return {
        name: (tensor.dtype, tuple(tensor.shape), bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8)))
        for name, tensor in tensors.items()
    }


def speak(folder: Path) -> None:
    """One process: says everything there is to say, and writes down what it heard."""
    with ranks(timedelta(seconds=20)) as rank:
        me, first = rank.rank, rank.is_first
        heard = {
            "who": (me, rank.count, first),
            "well": (rank.agree(first), rank.agree(not first)),
            "total": rank.total(0.1 * (me + 1), float(2**52), 1e300),
            "nothing": rank.total(),
            "any": (rank.any(me == 2), rank.any(False), rank.any(True)),
            "gathered": rank.gather(own(me)),
            "empty": rank.gather({}),
        }
        if heard["gathered"] is not None:
            heard["gathered"] = [bits(each) for each in heard["gathered"]]
        (folder / f"came-{me}").touch()
        rank.wait()
        heard["came"] = len(list(folder.glob("came-*")))
        rank.wait()
    (folder / f"heard-{me}").write_bytes(pickle.dumps(heard))


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What each of three processes heard."""
    folder = tmp_path_factory.mktemp("ranks")
    together(speak, folder, count=NUM_RANKS)
    return [pickle.loads((folder / f"heard-{rank}").read_bytes()) for rank in range(NUM_RANKS)]


def test_each_process_knows_who_it_is(heard: list[dict[str, object]]) -> None:
    assert [each["who"] for each in heard] == [(0, 3, True), (1, 3, False), (2, 3, False)]


def test_the_first_process_speaks_for_all(heard: list[dict[str, object]]) -> None:
    assert [each["well"] for each in heard] == [(True, False)] * 3


def test_totals_are_float64_sums_with_the_same_bits_everywhere(heard: list[dict[str, object]]) -> None:
    tenths, large, huge = heard[0]["total"]
    assert tenths == pytest.approx(0.6, rel=1e-15)
    assert (large, huge) == (3.0 * 2**52, pytest.approx(3e300, rel=1e-15))  # float32 has neither
    assert [each["total"] for each in heard] == [heard[0]["total"]] * 3
    assert [each["nothing"] for each in heard] == [()] * 3


def test_any_is_true_where_one_process_says_so(heard: list[dict[str, object]]) -> None:
    assert [each["any"] for each in heard] == [(True, False, True)] * 3


def test_only_the_first_process_gathers_and_every_bit_arrives(heard: list[dict[str, object]]) -> None:
    assert heard[0]["gathered"] == [bits(own(rank)) for rank in range(3)]
    assert [each["gathered"] for each in heard[1:]] == [None, None]


def test_gathering_empty_mappings_gives_empty_mappings(heard: list[dict[str, object]]) -> None:
    assert [each["empty"] for each in heard] == [[{}, {}, {}], None, None]


def test_processes_wait_until_all_have_arrived(heard: list[dict[str, object]]) -> None:
    assert [each["came"] for each in heard] == [3, 3, 3]


def test_a_single_process_gets_its_own_answers() -> None:
    with ranks() as rank:
        assert rank == Ranks(0, 1)
        assert rank.is_first
        assert not torch.distributed.is_initialized()
        assert rank.agree(True)
        assert not rank.agree(False)
        assert rank.any(True)
        assert not rank.any(False)
        assert rank.total(0.1, 2.0) == (0.1, 2.0)
        rank.wait()


def test_a_single_process_gathers_copies_of_its_own_tensors() -> None:
    tensors = own(0)
    gathered = Ranks().gather(tensors)
    assert gathered is not None
    assert [bits(each) for each in gathered] == [bits(tensors)]
    tensors["double"] += 1
    assert gathered[0]["double"].item() == 0.1
    assert not gathered[0]["half"].requires_grad


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_incomplete_variables_are_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name in given.keys() - {missing}:
        monkeypatch.setenv(name, given[name])
    with (
        pytest.raises(UserError, match=rf"WORLD_SIZE is 2, but {missing} is not set.* torchrun -m s3ta COMMAND"),
        ranks(),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "said"), [("WORLD_SIZE", "two"), ("WORLD_SIZE", "-2"), ("RANK", "1.5"), ("RANK", "2")]
)
def test_variables_that_are_no_numbers_in_range_are_refused(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", name: said}
    for variable, value in given.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"{name} is '?{said}'?.* start with torchrun"), ranks():
        pass


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert own_device(torch.device("cuda")) == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert own_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert own_device(torch.device("cpu")) == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UserError, match=r"Process 5 of this machine .* --nproc-per-node 4"):
        own_device(torch.device("cuda"))


@pytest.mark.parametrize(("has_gpu", "backend"), [(False, "gloo"), (True, "cpu:gloo,cuda:nccl")])
def test_gpus_add_nccl_and_become_current_before_the_processes_join(
    has_gpu: bool, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    given = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    store = torch.distributed.HashStore()
    monkeypatch.setattr("s3ta.distributed.rendezvous", lambda where, timeout: iter([(store, 1, 2)]))
    monkeypatch.setattr("s3ta.distributed._attempt", lambda *_: "this start")

    def join(name: str, *, store: object, rank: int, world_size: int, timeout: timedelta) -> None:
        assert (rank, world_size) == (1, 2)
        told.append((name, timeout))

    monkeypatch.setattr("s3ta.distributed.distributed.init_process_group", join)
    monkeypatch.setattr("s3ta.distributed.distributed.get_rank", lambda: 1)
    monkeypatch.setattr("s3ta.distributed.distributed.destroy_process_group", lambda: told.append("left"))
    joined = ranks(timedelta(minutes=3))
    assert joined.__enter__() == Ranks(1, 2)
    assert not joined.__exit__(KeyError, KeyError(), None)
    current = [torch.device("cuda", 1)] if has_gpu else []
    assert told == [*current, (backend, timedelta(minutes=3)), "left"]
