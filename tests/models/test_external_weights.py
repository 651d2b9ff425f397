"""Weights of others: every wrapping that people use comes off, and nothing else is believed."""

import hashlib
import json
import pickle
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from s3ta.errors import UserError
from s3ta.models import weights_hash
from s3ta.models.external_weights import MEANS, STDS, fill
from s3ta.models.key_prefixes import PREFIXES
from s3ta.models.state_dict_selection import AVERAGED, CONTAINERS

from .helpers import pictures
from .test_pretrained import Trap


class Small(nn.Module):
    """Five classes from images of three channels; another seed gives other numbers everywhere."""

    def __init__(self, seed=0):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        generator = torch.Generator().manual_seed(seed)
        for name, value in self.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + (0.5 if name.endswith("var") else 0))
        self.eval()

    def forward(self, images):
        return self.fc(self.bn(self.conv1(images)).relu().mean((2, 3)))


@pytest.fixture
def there():
    return Small(seed=1)


def put(start, state):
    return {start + key: value for key, value in state.items()}


def same(one, two):
    images = pictures(2, 3, 8, 8)
    with torch.no_grad():
        return torch.equal(one(images), two(images))


def filled(content, path, key="", **settings):
    """A fresh net with what is stored, written by whom the ending says."""
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    net = Small()
    return net, fill(net, f"{path}{key}", 3, **settings)


# --- wrappings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", *PREFIXES, "module.model.", "model._orig_mod.", "module.1.module."])
@pytest.mark.parametrize("container", ["", *CONTAINERS, *AVERAGED])
def test_containers_and_prefixes_come_off(there, tmp_path, container, prefix):
    state = put(prefix, there.state_dict())
    content = {container: state, "epoch": 3, "optimizer": {"state": {}, "lr": 0.1}} if container else state
    net, found = filled(content, tmp_path / "run.pth")
    assert same(net, there)
    assert (found.config["container"], found.config["prefix"]) == (container or None, prefix)
    assert found.config["weights"] == "file run.pth"
    assert (found.mean, found.std) == (None, None)
    assert bool(found.config["notes"]) is (container in AVERAGED)
    assert str(tmp_path) not in json.dumps(found.config)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_safetensors_fill_a_network(there, tmp_path, prefix):
    net, found = filled(put(prefix, there.state_dict()), tmp_path / "a.safetensors")
    assert same(net, there)
    assert found.config["prefix"] == prefix


@given(words=st.lists(st.sampled_from(PREFIXES), max_size=3), inner=st.sampled_from(["", "model", "module", "net"]))
def test_any_three_wrappers_also_around_a_net_whose_parts_are_called_so(there, tmp_path, words, inner):
    def wrapped(net):
        return nn.Sequential(OrderedDict([(inner, net)])) if inner else net

    torch.save(put("".join(words), wrapped(there).state_dict()), tmp_path / "x.pt")
    net = wrapped(Small())
    fill(net, str(tmp_path / "x.pt"), 3)
    assert same(net, there)


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [(nn.DataParallel, "module."), (torch.compile, "_orig_mod."), (AveragedModel, "module.")],
)
def test_prefixes_of_torchs_own_wrappers_come_off(there, tmp_path, wrap, prefix):
    net, found = filled(wrap(there).state_dict(), tmp_path / "x.pt")
    assert same(net, there)
    assert found.config["prefix"] == prefix


def test_the_old_format_of_torch_is_read(there, tmp_path):
    torch.save({"state_dict": there.state_dict()}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    net = Small()
    fill(net, str(tmp_path / "x.pt"), 3)
    assert same(net, there)


def test_an_average_beside_the_weights_is_named_and_not_taken(there, tmp_path):
    content = {"model_ema": Small(seed=2).state_dict(), "model": there.state_dict()}
    net, found = filled(content, tmp_path / "x.pt")
    assert same(net, there)
    assert found.config["notes"] == ["x.pt also holds model_ema; model was taken (another: x.pt#model_ema)."]


def test_an_average_among_the_weights_is_named_and_not_taken(there, tmp_path):
    content = put("model.", there.state_dict()) | put("ema.module.", Small(seed=2).state_dict())
    net, found = filled(content, tmp_path / "x.pt")
    assert same(net, there)
    assert "running average ('ema.module.conv1.weight'" in found.config["notes"][0]


@pytest.mark.parametrize("key", ["model_ema", "teacher", "both.second", "a.b"])
def test_a_named_container_is_taken(there, tmp_path, key):
    other = Small(seed=2).state_dict()
    content = {
        "model": other,
        "teacher": other,
        "both": {"model": other, "second": other},
        "model_ema": other,
        "a.b": other,
    }
    outer, _, inner = key.partition(".")
    if key in content:
        content[key] = there.state_dict()
    else:
        content[outer] = content[outer] | {inner: there.state_dict()}
    net, found = filled(content, tmp_path / "x.pt", f"#{key}")
    assert same(net, there)
    assert found.config["container"] == key
    assert found.config["notes"] == []


def test_a_file_whose_name_has_a_hash_is_itself(there, tmp_path):
    net, found = filled(there.state_dict(), tmp_path / "run#3.pt")
    assert same(net, there)
    assert found.config["weights"] == "file run#3.pt"


@pytest.mark.parametrize(
    ("content", "key", "sentence"),
    [
        (
            {"teacher": {"w": torch.zeros(2)}, "epoch": 1},
            "",
            r"no weights under a known key .* but 'teacher', 'epoch': name",
        ),
        ({"model": {"w": torch.zeros(2)}}, "#ema", r"has no weights under 'ema': it holds 'model'\."),
        ({"epoch": 1}, "#epoch", r"has no weights under 'epoch'"),
        ({}, "", "but nothing: name"),
        (torch.zeros(3), "", "but one Tensor"),
        ([1, 2], "#model", "holds one list"),
        ({"model": {}}, "", "but 'model'"),
    ],
)
def test_an_entry_without_weights_is_named(tmp_path, content, key, sentence):
    with pytest.raises(UserError, match=sentence):
        filled(content, tmp_path / "x.pt", key)


# --- what belongs to the network, and what does not ---------------------------------------------------------------


def madry(there, second):
    """The robustness library stores the network, its copy in the attacker, and the normalisation of both."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), torch.tensor([0.2, 0.2, 0.3]).view(3, 1, 1)
    stored = put("module.model.", there.state_dict()) | put("module.attacker.model.", second.state_dict())
    for place in ("module.normalizer.", "module.attacker.normalize."):
        stored |= {f"{place}new_mean": mean, f"{place}new_std": std}
    return {"model": stored, "optimizer": {}, "epoch": 90}


def test_equal_weights_stored_twice_are_taken_once(there, tmp_path):
    net, found = filled(madry(there, there), tmp_path / "x.pt")
    assert same(net, there)
    assert found.config["prefix"] == "module.model."
    assert found.mean == pytest.approx((0.4, 0.5, 0.6))
    assert found.std == pytest.approx((0.2, 0.2, 0.3))


def test_weights_stored_twice_with_a_difference_are_refused(there, tmp_path):
    second = Small(seed=1)
    with torch.no_grad():
        second.fc.bias[3] += 1e-6
    with pytest.raises(
        UserError, match=r"twice, as module\.model\. and module\.attacker\.model\., and 'fc\.bias' differs"
    ):
        filled(madry(there, second), tmp_path / "x.pt")


@pytest.mark.parametrize(("mean", "std"), [*zip(MEANS, STDS, strict=True)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_stored_normalisation_is_found(there, tmp_path, mean, std, prefix):
    inner = f"{prefix}1." if mean.startswith("0.") else f"{prefix}model."
    shape = (1, 3, 1, 1) if "normalize" in mean else (3,)
    extra = {prefix + mean: torch.tensor([0.1, 0.2, 0.3]).view(shape), prefix + std: torch.tensor([0.25])}
    net, found = filled({"state_dict": put(inner, there.state_dict()) | extra}, tmp_path / "x.pt")
    assert same(net, there)
    assert found.mean == pytest.approx((0.1, 0.2, 0.3))
    assert found.std == (0.25,)


def test_a_normalisation_in_pixels_of_255_is_divided_and_said(there, tmp_path):
    extra = {"mean": torch.tensor([127.5, 51.0, 0.0]), "std": torch.tensor([51.0, 63.75, 1.0])}
    _, found = filled(there.state_dict() | extra, tmp_path / "x.pt")
    assert found.mean == pytest.approx((0.5, 0.2, 0))
    assert found.std == pytest.approx((0.2, 0.25, 1 / 255))
    assert "divided by 255" in found.config["notes"][0]


def test_buffers_of_the_network_that_are_called_so_stay_its_own(tmp_path):
    class Own(Small):
        def __init__(self, value):
            super().__init__()
            self.register_buffer("mean", torch.full((3,), value))

    torch.save(Own(0.3).state_dict(), tmp_path / "x.pt")
    net = Own(0.0)
    found = fill(net, str(tmp_path / "x.pt"), 3)
    assert found.mean is None
    assert net.mean.tolist() == pytest.approx([0.3] * 3)


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        ({"mean": torch.zeros(3)}, "of its std it has none"),
        (
            {"mean": torch.zeros(3), "mu": torch.ones(3), "std": torch.ones(3)},
            r"of its mean it has different ones \(mean, mu\)",
        ),
        ({"mean": torch.zeros(4), "std": torch.ones(4)}, "2 weights that the network does not have, first 'mean'"),
        ({"layer1.se.fc1.weight": torch.zeros(2, 2)}, r"1 weights that the network does not have, first 'layer1\.se"),
        ({"head.weight": torch.zeros(5, 4), "head.bias": torch.zeros(5)}, "2 weights that the network does not have"),
    ],
)
def test_more_than_the_network_has_is_refused(there, tmp_path, extra, sentence):
    with pytest.raises(UserError, match=sentence):
        filled(there.state_dict() | extra, tmp_path / "x.pt")


def test_training_aids_are_left_out_and_said(there, tmp_path):
    content = put("module.", there.state_dict() | {"aux1.fc.weight": torch.zeros(2)})
    with pytest.raises(UserError, match=r"does not have, first 'module\.aux1\.fc\.weight'"):
        filled(content, tmp_path / "x.pt")
    net, found = filled(content, tmp_path / "x.pt", unused=("aux1.",))
    assert same(net, there)
    assert "1 weights of training aids" in found.config["notes"][0]


def test_batch_counters_may_be_missing_and_nothing_else(there, tmp_path):
    state = there.state_dict()
    counter = state.pop("bn.num_batches_tracked")
    assert counter.ndim == 0
    net, _ = filled(state, tmp_path / "x.pt")
    assert same(net, there)
    for key in state:
        fewer = {name: value for name, value in state.items() if name != key}
        with pytest.raises(UserError, match=rf"does not fit the network: '{key}' is missing \(1 of its 9 weights"):
            filled(fewer, tmp_path / "x.pt")


def test_misfits_are_named_and_counted_with_what_was_tried(there, tmp_path):
    state = there.state_dict() | {
        "fc.weight": torch.zeros(7, 4),
        "fc.bias": torch.zeros(7),
        "bn.bias": torch.zeros(4, 1),
    }
    del state["bn.weight"], state["conv1.bias"]
    with pytest.raises(UserError) as refused:
        filled({"net": put("module.", state)}, tmp_path / "x.pt")
    assert str(refused.value) == (
        "x.pt (net) does not fit the network: 'conv1.bias' is missing; 'bn.weight' is missing; 'bn.bias' is (4, 1) in the "
        "file, (4,) in the network (5 of its 9 weights do not fit). Tried the names as they are, without module.; the "
        "file's begin with 'module.conv1.weight' (another network, or another number of classes or channels?)."
    )


def test_a_refused_file_leaves_the_network_as_it_was(there, tmp_path):
    torch.save(there.state_dict() | {"fc.bias": torch.tensor([0, 1, torch.nan, 2, 3])}, tmp_path / "x.pt")
    net = Small()
    with pytest.raises(UserError, match=r"not finite, first in 'fc\.bias'"):
        fill(net, str(tmp_path / "x.pt"), 3)
    assert same(net, Small())


def test_tied_weights_may_be_stored_once(tmp_path):
    def tied():
        net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        net[1].weight = net[0].weight
        return net

    state = tied().state_dict()
    del state["1.weight"]
    net = tied()
    save_file(state, tmp_path / "x.safetensors")
    fill(net, str(tmp_path / "x.safetensors"), 3)
    assert torch.equal(net[1].weight, state["0.weight"])
    apart = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with pytest.raises(UserError, match=r"'1\.weight' is missing"):
        fill(apart, str(tmp_path / "x.safetensors"), 3)


# --- numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_other_floats_are_cast_and_said(there, tmp_path, dtype, ending):
    state = {key: value.to(dtype) if value.is_floating_point() else value for key, value in there.state_dict().items()}
    net, found = filled(state, tmp_path / f"x.{ending}")
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in net.state_dict().items())
    assert net.fc.weight.dtype == torch.float32
    assert found.config["notes"] == [f"Weights were cast from {str(dtype)[6:]} to float32."]


def test_quantised_weights_are_refused(there, tmp_path):
    with pytest.raises(UserError, match=r"holds 'fc\.weight' as int8, the network as float32"):
        filled(there.state_dict() | {"fc.weight": torch.zeros(5, 4, dtype=torch.int8)}, tmp_path / "x.pt")


# --- files --------------------------------------------------------------------------------------------------------


def test_complex_weights_are_refused_as_complex(there, tmp_path):
    content = there.state_dict() | {"fc.weight": torch.zeros(5, 4, dtype=torch.complex64)}
    with pytest.raises(UserError, match=r"holds 'fc\.weight' as complex numbers, the network as float32"):
        filled(content, tmp_path / "x.pt")


@pytest.mark.parametrize("how", ["new", "old", "bare"])
def test_a_malicious_file_is_refused_and_runs_nothing(there, tmp_path, how):
    content = {"state_dict": there.state_dict(), "extra": Trap(tmp_path / "sprung")}
    if how == "bare":
        (tmp_path / "x.pt").write_bytes(pickle.dumps({"extra": Trap(tmp_path / "sprung")}))
    else:
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=how == "new")
    with pytest.raises(
        UserError,
        match=r"holds more than tensors \([\w.]+ in '[\w.]+'\).* not done here",
    ):
        fill(Small(), str(tmp_path / "x.pt"), 3)
    assert not (tmp_path / "sprung").exists()
    if how != "bare":  # the same file would have done it
        torch.load(tmp_path / "x.pt", weights_only=False)
        assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (
            b"\n <!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>",
            "is a web page, not weights",
        ),
        (b"<HTML>sign in", "is a web page"),
        (b"<head><base/></head><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a Git LFS pointer"),
        (b"hello", "is damaged, or not a file of weights"),
        (b"PK\x03\x04torn", "is damaged, or not"),
        (b"\x80\x02}q\x00", "is damaged, or not"),
    ],
)
@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_files_that_are_no_weights_are_refused(tmp_path, content, sentence, ending):
    (tmp_path / f"x.{ending}").write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged, or not" if "damaged" in sentence else sentence):
        fill(Small(), str(tmp_path / f"x.{ending}"), 3)


def test_a_torn_file_is_damaged(there, tmp_path):
    torch.save(there.state_dict(), tmp_path / "x.pt")
    whole = (tmp_path / "x.pt").read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        (tmp_path / "x.pt").write_bytes(whole[:length])
        with pytest.raises(UserError, match="is damaged"):
            fill(Small(), str(tmp_path / "x.pt"), 3)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_program_is_refused(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "x.pt"))
    with pytest.raises(UserError, match="TorchScript program, not weights"):
        fill(Small(), str(tmp_path / "x.pt"), 3)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no\.pt does not exist\. Weights are a file"):
        fill(Small(), str(tmp_path / "no.pt"), 3)
    with pytest.raises(UserError, match=r"no\.pt does not exist"):
        fill(Small(), f"{tmp_path / 'no.pt'}#ema", 3)
    with pytest.raises(UserError, match="is a folder"):
        fill(Small(), str(tmp_path), 3)


# --- the hash -----------------------------------------------------------------------------------------------------


class Bag(nn.Module):
    def __init__(self, **values):
        super().__init__()
        for name, value in values.items():
            self.register_buffer(name, value)


def test_hash_is_of_names_and_bytes(there):
    digest = hashlib.sha256()
    for key, value in sorted(there.state_dict().items()):
        digest.update(key.encode() + value.numpy().tobytes())
    assert weights_hash(there) == digest.hexdigest()[:16]


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.float64,
        torch.int8,
        torch.int64,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    ],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_hash_takes_every_kind_of_number(dtype, shape):
    zeros = torch.zeros(shape).to(dtype)
    ones = torch.ones(shape).to(dtype)
    assert weights_hash(Bag(a=zeros)) == weights_hash(Bag(a=zeros.clone()))
    assert weights_hash(Bag(a=zeros)) != weights_hash(Bag(a=ones))


def test_hash_of_shared_transposed_and_empty_tensors():
    base = torch.arange(6.0).view(2, 3)
    assert weights_hash(Bag(a=base, b=base)) == weights_hash(Bag(a=base, b=base.clone()))
    assert weights_hash(Bag(a=base.T)) == weights_hash(Bag(a=base.T.contiguous())) != weights_hash(Bag(a=base))
    assert weights_hash(Bag(a=torch.zeros(0))) == hashlib.sha256(b"a").hexdigest()[:16]
    z = torch.tensor([1 + 2j])
    assert weights_hash(Bag(a=z.conj())) == weights_hash(Bag(a=torch.tensor([1 - 2j])))
