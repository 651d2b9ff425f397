"""Small files of weights that would fill the memory, take for ever or lead in circles: each is one sentence, at once."""

import io
import json
import pickle
import resource
import struct
import time
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from s3ta.errors import UserError
from s3ta.models import state_dict_selection
from s3ta.models.external_weights import fill
from s3ta.models.safe_pickle import Reader
from s3ta.models.torch_file import read_inert
from s3ta.models.weight_files import read_state

from .test_external_weights import Small

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TENSOR = (  # one of a million numbers that are all the first of its storage
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpuK\x01tQK\x00(J@B\x0f\x00t(K\x00t\x89ccollections\nOrderedDict\n)RtR"
)


def archive(path, content, storages=(b"\0\0\x80\x3f",), compression=zipfile.ZIP_STORED):
    """A file as `torch.save` writes it, with this pickle in it."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", b"\x80\x02" + content + b".")
        for number, data in enumerate(storages):
            file.writestr(f"x/data/{number}", data)
        file.writestr("x/version", "3\n")
    return path


def refused(path, sentence="is damaged, or not a file of weights", **settings):
    """The file is one sentence, within seconds and 100 MB more."""
    begin, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=sentence) as caught:
        fill(Small(), str(path), 3, **settings)
    assert time.process_time() - begin < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "in kB"
    assert "\n" not in str(caught.value)


def doubled(call, times):
    """The call of the two arguments that the one before gave."""
    return call + b"X\x01\x00\x00\x00aq\x00" + b"0" + b"".join(call + b"h\x00h\x00\x86Rq\x000" for _ in range(times))


# --- small files that hold much -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])
def test_paths_put_together_from_themselves_are_refused(tmp_path, module):
    refused(archive(tmp_path / "x.pt", doubled(b"c" + module + b"\nPosixPath\n", 40) + b"h\x00"))


@pytest.mark.parametrize("name", ["list", "tuple", "set", "frozenset", "torch.Size"])
def test_a_tensor_is_no_list_of_items(tmp_path, name):
    module, _, function = (name if "." in name else f"builtins.{name}").rpartition(".")
    path = archive(tmp_path / "x.pt", f"c{module}\n{function}\n".encode() + TENSOR + b"\x85R")
    with pytest.raises(TypeError, match="the items of a container are a Tensor"):
        read_inert(path)


MANY = TENSOR.replace(b"J@B\x0f\x00", b"\x8a\x05\x00\xe4\x0bT\x02")
"""The same number ten thousand million times: whoever counts its items does not come back."""


@pytest.mark.parametrize("name", ["set", "Counter", "OrderedDict"])
@pytest.mark.parametrize("is_archive", [True, False], ids=["archive", "stream"])
def test_a_tensor_whose_items_are_counted_by_a_call_that_torch_allows_is_refused_at_once(tmp_path, name, is_archive):
    module = b"builtins" if name == "set" else b"collections"
    content = b"c" + module + b"\n" + name.encode() + b"\n" + MANY + b"\x85R"
    if is_archive:
        refused(archive(tmp_path / "x.pt", content))
        return
    content = content.replace(b"K\x01tQK\x00", b"K\x01NtQK\x00")
    head = b"".join(pickle.dumps(part, protocol=2) for part in (MAGIC, VERSION, {"little_endian": True}))
    path = tmp_path / "x.pt"
    path.write_bytes(head + b"\x80\x02" + content + b"." + pickle.dumps(["0"], protocol=2) + struct.pack("<qf", 1, 1))
    refused(path)


def test_a_storage_within_a_plain_pickle_is_no_way_around_that(tmp_path):
    hidden = archive(tmp_path / "hidden.pt", b"cbuiltins\nset\n" + MANY + b"\x85R").read_bytes()
    call = b"ctorch.storage\n_load_from_bytes\nB" + struct.pack("<I", len(hidden)) + hidden + b"\x85R"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + call + b".")
    refused(tmp_path / "x.pkl")


@pytest.mark.parametrize("ending", [b"R", b"\x81"], ids=["call", "new"])
def test_a_tensor_is_no_row_of_arguments(tmp_path, ending):
    refused(archive(tmp_path / "x.pt", b"cbuiltins\nlist\n" + TENSOR + ending))


def test_calls_cannot_copy_what_they_get_again_and_again():
    text = b"X" + struct.pack("<I", 200_000) + b"a" * 200_000 + b"q\x000"
    copies = b"c_codecs\nencode\nq\x010" + b"]" + b"h\x01h\x00\x85Ra" * 1000
    with pytest.raises(ValueError, match="calls make too much"):
        Reader(io.BytesIO(text + copies + b"."), lambda pid: pid).read()


@pytest.mark.parametrize("times", [30, 200])
def test_keys_that_are_tuples_of_themselves_are_refused(tmp_path, times):
    """Their hash takes two to the power of their depth."""
    path = archive(tmp_path / "x.pt", b")q\x000" + b"h\x00h\x00\x86q\x000" * times + b"}h\x00K\x01s")
    with pytest.raises(TypeError, match="a key is nested too deep"):
        read_inert(path)


def test_compressed_archives_are_refused_before_they_are_unpacked(tmp_path):
    state = Small().state_dict() | {"more": torch.zeros(30_000_000)}
    torch.save(state, tmp_path / "x.pt")
    with (
        zipfile.ZipFile(tmp_path / "x.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    del state
    refused(tmp_path / "y.pt", "is a compressed archive, .*load it with torch and save its state_dict")


def test_storages_that_share_their_bytes_are_refused(tmp_path):
    path = archive(tmp_path / "x.pt", b"}", [b"a" * 100_000])
    data = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        start = file.start_dir
    end = data.rindex(b"PK\x05\x06")
    listed, count = data[start:end], 50
    closing = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3 * count, 3 * count, len(listed) * count, start, 0)
    path.write_bytes(data[:start] + listed * count + closing)
    refused(path, "unpacks to more than it has")


def test_a_storage_of_the_old_format_that_claims_more_than_the_file_has_is_refused(tmp_path):
    head = b"".join(pickle.dumps(value, 2) for value in (MAGIC, VERSION, {}))
    claimed = TENSOR.replace(b"cpuK\x01", b"cpuJ\xff\xff\xff\x7f")
    body = b"\x80\x02" + claimed + b"." + pickle.dumps(["0"], 2) + struct.pack("<qf", 0x7FFFFFFF, 1.0)
    (tmp_path / "x.pt").write_bytes(head + body)
    refused(tmp_path / "x.pt")


# --- deep, shared, circular ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "ignored"), [("list", ()), ("dict", ()), ("dict", ("a",))])
def test_values_that_lie_very_deep_in_one_another_are_refused(tmp_path, kind, ignored):
    depth = 20_000
    content = (
        b"]" * depth + b"a" * (depth - 1)
        if kind == "list"
        else b"X\x01\x00\x00\x00bq\x000" + b"}h\x00" * depth + b"N" + b"s" * depth
    )
    path = archive(tmp_path / "x.pt", content)
    refused(path, ignored=ignored)


def test_marks_without_end_are_refused_at_once(tmp_path):
    refused(archive(tmp_path / "x.pt", b"(" * 40_000 + b"t" * 39_999))


def network(children, parameters=b"}"):
    """A record of a network, by protocol 2; `children`: instructions that fill its `_modules`."""
    settings = b"}(" + b"X\x0b\x00\x00\x00_parameters" + parameters + b"X\x08\x00\x00\x00_modules}(" + children + b"uu"
    return b"cgone_module\nNet\n)\x81q\x01" + settings + b"b"


def test_a_network_whose_parts_are_shared_again_and_again_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(state_dict_selection, "MOST_FOR_NAMES", 1_000_000)
    inner = b"cgone_module\nNet\n)\x81}(X\x08\x00\x00\x00_modules}ubq\x00"
    content = inner + b"0"
    for _ in range(26):
        content += network(b"X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00") + b"q\x000"
    refused(archive(tmp_path / "x.pt", content + b"h\x00"))


def test_a_network_that_contains_itself_is_refused(tmp_path):
    refused(archive(tmp_path / "x.pt", network(b"X\x01\x00\x00\x00ah\x01")))


@pytest.mark.parametrize("parameters", [b"]K\x01a", b"K\x01", b"X\x01\x00\x00\x00a", b"}K\x01K\x02s", TENSOR])
def test_a_network_whose_parameters_are_no_mapping_is_refused(tmp_path, parameters):
    refused(archive(tmp_path / "x.pt", network(b"", parameters)))


def test_parts_that_a_network_shares_are_there_under_each_name(tmp_path):
    """As in `state_dict()`."""
    part = nn.Linear(3, 3)
    whole = nn.Sequential(nn.ModuleDict({"one": part, "two": part}), nn.Linear(3, 3))
    torch.save(whole, tmp_path / "x.pt")
    net = nn.Sequential(nn.ModuleDict({"one": nn.Linear(3, 3), "two": nn.Linear(3, 3)}), nn.Linear(3, 3))
    fill(net, str(tmp_path / "x.pt"), 3)
    for name, value in whole.state_dict().items():
        assert torch.equal(net.state_dict()[name], value)


@pytest.mark.parametrize("name", ["model.safetensors.index.json", "other.index.json"])
def test_an_index_that_lists_an_index_is_refused(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    for path in (index, tmp_path / "other.index.json"):
        path.write_text(json.dumps({"weight_map": {"a": name}}))
    refused(index, "names '.*', which is an index itself: such an index is not followed")


# --- memory -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
@pytest.mark.parametrize("where", ["torch.load", "s3ta.models.weight_files.read_inert"])
def test_a_file_that_does_not_fit_the_memory_is_not_called_damaged(tmp_path, monkeypatch, error, where):
    def fail(*_, **__):
        raise error

    torch.save({"a": torch.zeros(2), "b": SimpleNamespace()}, tmp_path / "x.pt")
    monkeypatch.setattr(where, fail)
    with pytest.raises(UserError, match=r"^There is not enough memory to read .*x\.pt \("):
        read_state(tmp_path / "x.pt")
