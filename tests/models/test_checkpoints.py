"""Checkpoints as they lie about: other pickle protocols, other objects, other suffixes, shards, folders; nothing is run."""

import argparse
import collections
import contextlib
import datetime
import enum
import functools
import io
import json
import os
import pathlib
import pickle
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from s3ta.errors import UserError
from s3ta.models.external_weights import fill
from s3ta.models.torch_file import read_inert, tensor_of_array
from s3ta.models.weight_files import read_state

from .test_external_weights import Small, put, same

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])
FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["archive", "stream"])


@pytest.fixture
def there():
    return Small(seed=1)


def loaded(path, **settings):
    net = Small()
    return net, fill(net, str(path), 3, **settings)


def saved(content, path, protocol=2, archive=True):
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=archive)
    return path


class AttributeDict(dict):
    def __getattr__(self, name):
        return self[name]


class Settings:
    def __init__(self):
        self.lr, self.parts = 0.1, [1, (2,)]


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = 3


class Pieces(list):
    pass


class Net(Small):
    pass


@pytest.fixture
def absent(monkeypatch):
    """A module with these classes that is taken away before a file is read, as on another machine."""
    module = types.ModuleType("gone_lightning")
    for kind in (AttributeDict, Settings, Slotted, Pieces, Net):
        monkeypatch.setattr(kind, "__module__", "gone_lightning")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "gone_lightning", module)
    return module


class Colour(enum.Enum):
    RED = 1


# --- what torch refuses and is read -------------------------------------------------------------------------------


@PROTOCOLS
@FORMATS
def test_every_pickle_protocol_is_read(there, tmp_path, protocol, archive):
    path = saved({"state_dict": put("module.", there.state_dict()), "epoch": 3}, tmp_path / "x.pt", protocol, archive)
    net, found = loaded(path)
    assert same(net, there)
    assert found.config["notes"] == []


@PROTOCOLS
@FORMATS
def test_objects_beside_the_weights_are_not_loaded_and_do_not_matter(there, tmp_path, protocol, archive, absent):
    content = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("a/b"), inner=argparse.Namespace(x={1, 2})),
        "hyper_parameters": absent.AttributeDict(lr=0.1, more=absent.AttributeDict(x=[1])),
        "settings": [absent.Settings(), absent.Slotted(), absent.Pieces([1, 2])],
        "best_acc": np.float64(0.5),
        "done": np.bool_(True),
        "curve": np.arange(3.0),
        "columns": np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
        "more": [range(3), functools.partial(max, 1), np.random.default_rng(0), torch.get_rng_state()],
        "callbacks": {absent.Settings: {"best": 1}},
        "counts": [
            collections.Counter("aab"),
            collections.defaultdict(list, {1: [2]}),
            frozenset({1}),
            2**70,
            b"\xff" * 300,
        ],
        "state_dict": there.state_dict(),
    }
    path = saved(content, tmp_path / "x.pth.tar", protocol, archive)
    del sys.modules["gone_lightning"]
    net, found = loaded(path)
    assert same(net, there)
    assert "gone_lightning" not in sys.modules
    assert found.config["container"] == "state_dict"
    (note,) = found.config["notes"]
    assert note.startswith("x.pth.tar also holds Python objects (argparse.Namespace, pathlib")
    assert note.endswith("more), of which nothing was loaded.")


@PROTOCOLS
@FORMATS
def test_the_inert_reader_agrees_with_torch_on_every_kind_of_tensor(tmp_path, protocol, archive):
    base = torch.randn(4, 6)
    content = {
        "view": base[1:, ::2],
        "transposed": base.T,
        "whole": base,
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "parameter": nn.Parameter(base[0]),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "complex": torch.complex(base, base),
        "bool": base > 0,
        "bytes": torch.arange(5, dtype=torch.uint8)[2:],
        "expanded": torch.ones(1, 3).expand(4, 3),
    }
    if archive:
        content |= {"float8": base.to(torch.float8_e4m3fn), "uint16": torch.arange(3).to(torch.uint16)}
    path = saved(content, tmp_path / "x.pt", protocol, archive)
    ours, theirs = read_inert(path).value, torch.load(path, weights_only=False)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (value.dtype, value.shape), name
        one, two = (one.detach().contiguous().reshape(-1).view(torch.uint8) for one in (ours[name], value))
        assert torch.equal(one, two), name


@PROTOCOLS
def test_numpy_arrays_are_read_as_weights(there, tmp_path, protocol):
    arrays = {key: value.numpy() for key, value in there.state_dict().items()}
    net, found = loaded(saved(arrays, tmp_path / "x.pt", protocol))
    assert same(net, there)
    assert found.config["notes"] == []
    _, found = loaded(saved({"model": arrays, "args": argparse.Namespace(a=arrays)}, tmp_path / "z.pt", protocol))
    assert found.config["notes"] == [
        "z.pt also holds Python objects (argparse.Namespace), of which nothing was loaded."
    ]
    odd = {"a": np.array([None]), "b": np.array(["x"])}
    value = read_inert(saved(odd, tmp_path / "y.pt", protocol)).value
    assert not any(isinstance(tensor_of_array(value[name]), torch.Tensor) for name in odd)


@PROTOCOLS
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_a_plain_pickle_of_tensors_arrays_or_a_network_is_read(there, tmp_path, protocol):
    state = there.state_dict()
    view = torch.arange(12.0).reshape(3, 4).t()[1:]
    contents = {
        "tensors": state,
        "parameters": dict(there.named_parameters()) | dict(there.named_buffers()),
        "arrays": {"model": {key: value.numpy() for key, value in state.items()}, "__author__": "x"},
        "network": there,
        "odd": {"views": view, "none": torch.zeros(0), "b": torch.ones(3, dtype=torch.bfloat16)},
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol))
    for name in ("tensors", "parameters", "arrays", "network"):
        assert same(loaded(tmp_path / f"{name}.pkl")[0], there), name
    for key, value in read_state(tmp_path / "odd.pkl").value.items():
        assert value.dtype == contents["odd"][key].dtype
        assert torch.equal(value, contents["odd"][key])


@PROTOCOLS
def test_a_plain_pickle_runs_nothing_and_reads_nothing_beyond_its_storages(tmp_path, protocol):
    sprung = tmp_path / "sprung"
    for call, sentence in (
        (Calls(os.system, f"touch {sprung}"), r"asks to run posix\.system"),
        (Calls(pathlib.Path.touch, sprung), "holds more than tensors|asks to run"),
        (Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(pathlib.Path.touch, sprung))), "is damaged"),
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": call}, protocol))
        with pytest.raises(UserError, match=sentence):
            loaded(tmp_path / "x.pkl")
    assert not sprung.exists()
    flat = torch.zeros(4).untyped_storage()
    far = Calls(
        torch._utils._rebuild_tensor_v2,
        torch.storage.TypedStorage(wrap_storage=flat, dtype=torch.float32, _internal=True),
        0,
        (9,),
        (1,),
        False,
        {},
    )
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": far}, protocol))
    with pytest.raises(UserError, match="is damaged"):
        loaded(tmp_path / "x.pkl")


@PROTOCOLS
@FORMATS
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_network_gives_its_weights_and_runs_none_of_its_code(tmp_path, protocol, archive, absent):
    there = absent.Net(seed=1)
    there.register_buffer("passing", torch.zeros(3), persistent=False)
    path = saved({"model": there, "ema": None}, tmp_path / "x.pt", protocol, archive)
    del sys.modules["gone_lightning"]
    net, found = loaded(path)
    assert same(net, there)
    assert found.config["notes"] == [
        "x.pt holds a whole network (gone_lightning.Net): its weights were read, and none of its code."
    ]


# --- nothing is run -----------------------------------------------------------------------------------------------


class Calls:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def nested(trap, how):
    return {
        "bare": trap,
        "namespace": argparse.Namespace(lr=0.1, deep=argparse.Namespace(trap=trap)),
        "mapping": {"a": [1, (trap,)]},
        "key": {trap: 1},
        "state": Calls(collections.OrderedDict, [(1, trap)]),
    }[how]


@PROTOCOLS
@FORMATS
@pytest.mark.parametrize("how", ["bare", "namespace", "mapping", "key", "state"])
@pytest.mark.parametrize("kind", ["system", "touch", "eval"])
def test_a_hostile_file_is_refused_and_runs_nothing(there, tmp_path, protocol, archive, how, kind):
    sprung = tmp_path / "sprung"
    call = {
        "system": (os.system, f"touch {sprung}"),
        "touch": (pathlib.Path.touch, sprung),
        "eval": (eval, f"__import__('pathlib').Path({str(sprung)!r}).touch()"),
    }[kind]
    path = saved(
        {"state_dict": there.state_dict(), "extra": nested(Calls(*call), how)}, tmp_path / "x.pt", protocol, archive
    )
    for ignored in ((), ("epoch*",)) if kind == "system" else ((),):
        with pytest.raises(
            UserError,
            match=r"asks to run (posix\.system|builtins\.eval),|"
            r"more than tensors \((builtins\.getattr|pathlib\.(_local\.)?Path\.touch)",
        ):
            loaded(path, ignored=ignored)
    assert not sprung.exists()
    torch.load(path, weights_only=False)
    assert sprung.exists(), "the same file would have done it"


@pytest.mark.parametrize("function", [eval, exec, compile, __import__, open])
def test_builtins_that_run_or_open_something_are_said_as_what_they_are(there, tmp_path, function):
    content = {"model": there.state_dict(), "extra": Calls(function, "a", "b", "exec")}
    for protocol in (2, 4):
        path = saved(content, tmp_path / "x.pt", protocol)
        with pytest.raises(UserError, match=r"asks to run (builtins|_?io)\.\w+, which no file of weights has a reason"):
            loaded(path, ignored=("extra",))


def test_what_asks_for_a_call_can_be_left_out_and_is_still_not_called(there, tmp_path):
    sprung = tmp_path / "sprung"
    content = {
        "state_dict": there.state_dict(),
        "loops": {"hook": Calls(pathlib.Path.touch, sprung)},
        "kind": Colour.RED,
    }
    path = saved(content, tmp_path / "x.pt")
    with pytest.raises(
        UserError,
        match=r"more than tensors \(builtins\.getattr in 'loops'\).*or leave that out with --ignore-keys 'loops'",
    ):
        loaded(path)
    with pytest.raises(UserError, match=r"\(tests\.models\.test_checkpoints\.Colour in 'kind'\).*--ignore-keys 'kind'"):
        loaded(path, ignored=("loops",))
    net, found = loaded(path, ignored=("loops", "kind"))
    assert same(net, there)
    assert not sprung.exists()
    assert found.config["ignored"] == ["loops", "kind"]
    assert found.config["notes"][-1] == "Left out of x.pt on request: loops, kind."


def test_a_pickle_that_leads_in_circles_or_multiplies_is_read_at_once(there, tmp_path):
    circle = {"state_dict": there.state_dict(), "when": datetime.date(2020, 1, 1)}
    circle["again"] = [circle]
    many = [1]
    for _ in range(200):
        many = [many, many]
    circle["many"] = many
    assert same(loaded(saved(circle, tmp_path / "x.pt"))[0], there)
    only = {"model": {}, "when": datetime.date(2020, 1, 1)}
    only["model"]["net"] = only["model"]["model"] = only
    with pytest.raises(UserError, match="holds no weights under a known key"):
        loaded(saved(only, tmp_path / "y.pt"))


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_cut_anywhere_is_damaged_and_nothing_else(there, tmp_path, protocol):
    for archive in (True, False):
        path = saved({"net": there.state_dict(), "args": argparse.Namespace(a=1)}, tmp_path / "x.pt", protocol, archive)
        whole = path.read_bytes()
        for length in range(1, len(whole), len(whole) // 12):
            path.write_bytes(whole[:length])
            with pytest.raises(
                UserError, match=r"is damaged, or not a file of weights|zip archive that torch\.save did not"
            ):
                loaded(path)


@PROTOCOLS
def test_any_damage_to_the_pickle_is_one_sentence(there, tmp_path, protocol):
    """Bytes of the old format changed, taken out or put in: read or refused, never another error."""
    content = {
        "net": there.state_dict(),
        "args": argparse.Namespace(a={1, 2}, b=np.arange(3)),
        "when": datetime.date.max,
    }
    whole = saved(content, tmp_path / "x.pt", protocol, archive=False).read_bytes()
    random = np.random.default_rng(protocol)
    before = set(sys.modules)
    for _ in range(25):
        damaged = bytearray(whole)
        for place in random.integers(0, 2000, 2):
            damaged[place : place + random.integers(0, 2)] = random.bytes(random.integers(0, 2))
        (tmp_path / "x.pt").write_bytes(damaged)
        with contextlib.suppress(UserError):
            loaded(tmp_path / "x.pt")
    assert not any(name.startswith(("gone", "tests.models.test_checkp")) for name in set(sys.modules) - before)


def test_tensors_cannot_reach_beyond_their_storage(tmp_path):
    path = saved({"a": torch.zeros(4), "n": argparse.Namespace()}, tmp_path / "x.pt", 4)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name, content in parts.items():
        if name.endswith("data/0"):
            parts[name] = content[:8]
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="is damaged"):
        loaded(tmp_path / "y.pt")


# --- by content, not by suffix ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["bin", "pth", "ckpt", "pt", "weights", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module._orig_mod."])
def test_files_are_read_by_content_and_not_by_suffix(there, tmp_path, ending, prefix):
    save_file(put(prefix, there.state_dict()), tmp_path / f"x.{ending}")
    net, found = loaded(tmp_path / f"x.{ending}")
    assert same(net, there)
    assert found.config["prefix"] == prefix
    saved(there.state_dict(), tmp_path / f"y.{ending}")
    assert same(loaded(tmp_path / f"y.{ending}")[0], there)


def packed(entries):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in entries:
            archive.writestr(name, b"x")
    return out.getvalue()


def tarred():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (packed(["a/b.txt"]), r"is a zip archive that torch\.save did not write \(it holds b\.txt\)"),
        (packed([]), r"zip archive .* \(it holds nothing\)"),
        (packed(["x/serialized_exported_program.json"]), r"exported program of torch\.export"),
        (packed(["x/data.pkl"]), "is damaged"),
        (tarred(), "is a tar archive: unpack it"),
        (b"\x1f\x8b\x08\x00" + b"x" * 50, "is compressed: unpack it"),
        (b"\x89HDF\r\n\x1a\n" + b"x" * 50, "is an HDF5 file"),
        (b"\x93NUMPY" + b"x" * 50, "is a NumPy array"),
        (b"GGUF" + b"x" * 50, "is a GGUF file"),
        (b"\x08\x07\x12\x07pytorch", "is an ONNX file"),
        (pickle.dumps({"a": 1}, protocol=4), "holds no weights under a known key .* but 'a'"),
        (b"\xff" * 8 + b'{"a": 1}', "is damaged, or not"),
    ],
    ids=range(12),
)
def test_files_of_other_kinds_are_named(tmp_path, content, sentence):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        loaded(tmp_path / "x.pt")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_that_are_no_ordinary_numbers_are_named(there, tmp_path):
    state = there.state_dict()
    saved(state | {"fc.weight": state["fc.weight"].to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(UserError, match=r"holds 'fc\.weight' as a sparse tensor: save ordinary weights"):
        loaded(tmp_path / "sparse.pt")
    saved(state | {"fc.weight": state["fc.weight"].to("meta")}, tmp_path / "meta.pt")
    with pytest.raises(UserError, match=r"holds 'fc\.weight' as a tensor without numbers"):
        loaded(tmp_path / "meta.pt")
    packed_state = state | {"fc._packed_params._packed_params": (torch.zeros(2, dtype=torch.int8), None)}
    saved(packed_state, tmp_path / "packed.pt")
    with pytest.raises(UserError, match=r"holds a quantised network \('fc\._packed_params\._packed_params"):
        loaded(tmp_path / "packed.pt")


# --- several files ------------------------------------------------------------------------------------------------


def sharded(folder, state, suffix="safetensors"):
    """Two files and their index, as the Hub has them."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    keys, files = list(state), [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    parts = [{key: state[key] for key in keys[:4]}, {key: state[key] for key in keys[4:]}]
    for name, part in zip(files, parts, strict=True):
        save_file(part, folder / name) if suffix == "safetensors" else saved(part, folder / name)
    listed = {key: name for name, part in zip(files, parts, strict=True) for key in part}
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": listed}))
    return index, listed


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("by", ["index", "folder"])
def test_shards_are_read_as_one(there, tmp_path, suffix, by):
    index, _ = sharded(tmp_path, put("model.", there.state_dict()), suffix)
    net, found = loaded(index if by == "index" else tmp_path)
    assert same(net, there)
    assert found.config["prefix"] == "model."
    assert found.config["weights"] == f"file {'' if by == 'index' else tmp_path.name + '/'}{index.name}"


def test_a_shard_alone_or_missing_is_named(there, tmp_path):
    index, listed = sharded(tmp_path, there.state_dict())
    with pytest.raises(UserError, match=r"it is one of several shards: give their index, or their folder"):
        loaded(tmp_path / listed["conv1.weight"])
    (tmp_path / listed["fc.weight"]).unlink()
    with pytest.raises(
        UserError, match=r"names 2 files, of which 1 are missing, first model-00002-of-00002\.safetensors"
    ):
        loaded(index)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "C:x", "a\\b"])
def test_an_index_leads_nowhere_else(there, tmp_path, name):
    (tmp_path / "inner").mkdir()
    save_file(there.state_dict(), tmp_path / "secret.safetensors")
    index = tmp_path / "inner" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"fc.weight": name}}))
    with pytest.raises(UserError, match="does not lie beside it: such an index is not followed"):
        loaded(index)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda listed: {"weight_map": listed | {"more": listed["fc.bias"]}}, "holds 'more', which is not there"),
        (lambda listed: {"weight_map": {}}, "no index of shards"),
        (lambda listed: [1], "no index of shards"),
        (lambda listed: {"weight_map": {"a": 3}}, "no index of shards"),
    ],
    ids=["lacking", "empty", "list", "number"],
)
def test_a_wrong_index_is_refused(there, tmp_path, change, sentence):
    index, listed = sharded(tmp_path, there.state_dict())
    index.write_text(json.dumps(change(listed)))
    with pytest.raises(UserError, match=sentence):
        loaded(index)


def test_a_hub_folder_is_read_and_one_without_weights_refused(there, tmp_path):
    save_file(there.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    net, found = loaded(tmp_path)
    assert same(net, there)
    assert found.config["weights"] == f"file {tmp_path.name}/model.safetensors"
    assert loaded(tmp_path / "model.safetensors")[1].config["weights"] == "file model.safetensors", "as before"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty is a folder without model\.safetensors"):
        loaded(tmp_path / "empty")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_folders_in_parts_are_named_with_what_makes_one_file(there, tmp_path):
    from torch.distributed.checkpoint import FileSystemWriter, save

    folder = tmp_path / "dcp"
    save({"model": there.state_dict()}, storage_writer=FileSystemWriter(folder), no_dist=True)
    for path in (folder, next(folder.glob("*.distcp"))):
        with pytest.raises(UserError, match=rf"format_utils dcp_to_torch {folder} model\.pt"):
            loaded(path)
    step = tmp_path / "zero" / "global_step3"
    step.mkdir(parents=True)
    saved({"module": {}}, step / "mp_rank_00_model_states.pt")
    (step.parent / "latest").write_text("global_step3")
    for path in (step, step.parent):
        with pytest.raises(UserError, match=rf"is of DeepSpeed.*zero_to_fp32\.py {step.parent} weights"):
            loaded(path)


def test_a_tilde_is_the_home_folder(there, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    saved(there.state_dict(), tmp_path / "x.pt")
    assert same(loaded("~/x.pt")[0], there)


# --- deeper, elsewhere, too much ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys", [["model"] * 4, ["run", "best", "weights", "state_dict", "net"], ["a"] * 30, ["0", "1"]]
)
def test_any_number_of_wrappers_is_taken_off(there, tmp_path, keys):
    content = there.state_dict()
    for key in reversed(keys):
        content = {key: content, "epoch": 1, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    net, found = loaded(saved(content, tmp_path / "x.pt"))
    assert same(net, there)
    assert found.config["container"] == ".".join(keys)
    assert bool(found.config["notes"]) is (set(keys) != {"model"})


def test_weights_in_lists_and_under_numbers_are_found(there, tmp_path):
    path = saved([3, there.state_dict()], tmp_path / "x.pt")
    assert same(loaded(path)[0], there)
    assert loaded(f"{path}#1")[1].config["container"] == "1"


def test_several_that_fit_are_listed(there, tmp_path):
    content = {"student": there.state_dict(), "teacher": Small(seed=2).state_dict(), "head": {"w": torch.zeros(2)}}
    path = saved(content, tmp_path / "x.pt")
    with pytest.raises(
        UserError, match=r"several weights that fit the network \(student, teacher\): name one, as x\.pt#student"
    ):
        loaded(path)
    assert same(loaded(f"{path}#student")[0], there)
    assert same(loaded(path, ignored=("teacher",))[0], there)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("net", "net_ema"),
        ("model", "model_best"),
        ("state_dict", "callbacks.EMA.weights"),
        ("params", "params_ema"),
        ("weights", "swa_weights"),
    ],
)
def test_other_weights_that_fit_are_always_named(there, tmp_path, key, other):
    second = Small(seed=2)
    content = {key: there.state_dict(), "optimizer": {"exp_avg": second.state_dict()}, "head": {"w": torch.zeros(2)}}
    outer, *inner = other.split(".")
    content = {outer: nested_in(second.state_dict(), inner), **content}
    net, found = loaded(saved(content, tmp_path / "x.pt"))
    assert same(net, there)
    assert found.config["notes"] == [f"x.pt also holds {other}; {key} was taken (another: x.pt#{other})."]
    assert same(loaded(f"{tmp_path / 'x.pt'}#{other}")[0], second)


def nested_in(value, keys):
    return {keys[0]: nested_in(value, keys[1:])} if keys else value


def test_several_networks_under_unusual_names_are_listed(there, tmp_path):
    both = put("student.", there.state_dict()) | put("teacher.", Small(seed=2).state_dict())
    path = saved({"state_dict": both}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"several networks that fit \(student, teacher\).*--ignore-keys 'teacher'"):
        loaded(path)
    net, found = loaded(path, ignored=("teacher.*",))
    assert same(net, there)
    assert "those under 'student'" in found.config["notes"][0]


@pytest.mark.parametrize("pattern", ["criterion", "criterion.*", "state_dict.criterion", "*crit*"])
def test_entries_that_do_not_belong_are_left_out_on_request(there, tmp_path, pattern):
    more = {"criterion.weight": torch.ones(5), "criterion.inner.pos": torch.ones(2)}
    path = saved({"state_dict": put("model.", there.state_dict()) | more}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"2 weights that the network does not have.*--ignore-keys 'criterion'"):
        loaded(path)
    net, found = loaded(path, ignored=(pattern,))
    assert same(net, there)
    assert found.config["ignored"] == [pattern]


def test_leaving_out_too_much_or_nothing_is_refused(there, tmp_path):
    path = saved(put("model.", there.state_dict()), tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"--ignore-keys 'criterion' fits nothing in x\.ckpt"):
        loaded(path, ignored=("criterion",))
    with pytest.raises(UserError, match=r"'fc\.weight' is missing"):
        loaded(path, ignored=("model.fc.*",))


def test_single_numbers_among_the_weights_are_left_out_and_said(there, tmp_path):
    path = saved(there.state_dict() | {"epoch": 3, "best": np.float32(0.5), "arch": "small"}, tmp_path / "x.pt")
    net, found = loaded(path)
    assert same(net, there)
    assert "'epoch', 'best', 'arch' in x.pt are no tensors, and were left out." in found.config["notes"]


def test_sizes_that_differ_name_the_option(tmp_path):
    state = Small().state_dict()
    saved(state | {"conv1.weight": torch.zeros(4, 1, 3, 3)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"See --in-channels 1\)"):
        loaded(tmp_path / "x.pt")
    saved(state | {"fc.weight": torch.zeros(7, 4), "fc.bias": torch.zeros(7)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"See --num-classes 7\)"):
        loaded(tmp_path / "x.pt")


def test_reading_changes_no_list_of_safe_names(there, tmp_path):
    before = torch.serialization.get_safe_globals()
    read_state(saved({"net": there.state_dict(), "args": argparse.Namespace()}, tmp_path / "x.pt"))
    assert torch.serialization.get_safe_globals() == before
