"""Saving and loading: the round trip, and a clear sentence for every file that is not what it should be."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import s3ta
from s3ta.errors import UserError
from s3ta.models import (
    ResNetConfig,
    VisionConfig,
    build_model,
    find_weights,
    from_pretrained,
    read_config,
    save_pretrained,
    weights_hash,
)

from .helpers import pictures, shaken_model

CLASSES = ["ape", "bee", "cat", "dog", "éléphant"]


@pytest.fixture
def saved(tmp_path):
    save_pretrained(shaken_model(), tmp_path / "mine", classes=CLASSES)
    return tmp_path / "mine"


def test_the_package_exports_loading_and_saving():
    assert s3ta.from_pretrained is from_pretrained
    assert s3ta.save_pretrained is save_pretrained


@pytest.mark.parametrize("kind", ["s3ta", "resnet"])
def test_a_saved_model_is_loaded_unchanged(tmp_path, kind):
    vision = VisionConfig(
        backbone="resnetv2_mini", stem="conv3", in_channels=2, mean=(0.25, 0.5), std=(0.5, 0.25), dense=False
    )
    model = (
        shaken_model(first_logits="readout")
        if kind == "s3ta"
        else build_model(ResNetConfig(num_classes=5, vision=vision))
    )
    model.train()
    model(pictures(3, 2, 12, 12))  # moves the averages of batch norm
    model.eval()
    save_pretrained(model, tmp_path / "a" / "b", classes=CLASSES)
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == ["config.json", "model.safetensors"]
    other = from_pretrained(tmp_path / "a" / "b")
    assert type(other) is type(model)
    assert other.config == model.config
    assert not other.training
    assert all(p.requires_grad for p in other.parameters())
    assert read_config(tmp_path / "a" / "b") == (model.config, CLASSES)
    assert weights_hash(other) == weights_hash(model)
    images = pictures(2, 2, 12, 12)
    with torch.no_grad():
        assert torch.equal(other(images), model(images))


def test_classes_may_be_left_out(tmp_path):
    save_pretrained(shaken_model(), str(tmp_path))
    assert read_config(tmp_path)[1] is None
    assert from_pretrained(str(tmp_path)).config.num_classes == 5


def test_a_run_folder_is_accepted(saved):
    saved.rename(saved.parent / "model")
    assert find_weights(saved.parent) == saved.parent / "model"
    assert from_pretrained(saved.parent).config.name == "tiny"


def test_a_run_folder_without_weights_says_that_training_has_not_finished(tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UserError, match="training has not finished"):
        from_pretrained(tmp_path)


def test_hash_follows_content():
    model = shaken_model()
    before = weights_hash(model)
    assert weights_hash(shaken_model()) == before
    with torch.no_grad():
        model.controller.readout[2].bias[3] += 1e-3
    assert weights_hash(model) != before
    buffer = shaken_model()
    buffer.vision.net.norm.running_mean[5] += 1e-3
    assert weights_hash(buffer) not in (before, weights_hash(model))


def _truncate(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def _damage_header(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[8:60] = b"\xff" * 52
    (folder / "model.safetensors").write_bytes(bytes(content))


class Trap:
    """Unpickling it creates a file."""

    path = Path()

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def _pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Trap(folder / "sprung")))


def _torch_save(folder):
    torch.save({"weights": torch.zeros(3)}, folder / "model.safetensors")


def _text(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


@pytest.mark.parametrize("spoil", [_truncate, _empty, _damage_header, _pickle, _torch_save, _text])
def test_a_file_that_is_no_safetensors_file_is_refused(saved, spoil):
    spoil(saved)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged, or not a safetensors file\.$"):
        from_pretrained(saved)
    assert not (saved / "sprung").exists()


def test_unpickling_the_trap_would_run_it(tmp_path):
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
    assert (tmp_path / "sprung").exists()


FOREIGN = {
    "not JSON": ("weights: 3", "damaged: it does not hold JSON"),
    "cut off": ('{"format": "s3ta-mod', "damaged: it does not hold JSON"),
    "not text": (b"\xff\xfe\x00", "damaged: it does not hold JSON"),
    "a list": ("[1, 2]", "not a config of this program"),
    "another program's": ('{"model_type": "vit", "hidden_size": 768}', "not a config of this program"),
    "a later format": ('{"format": "s3ta-model-2", "model": {}}', "not a config of this program"),
    "no model": ('{"format": "s3ta-model-1"}', "does not describe a model: model: missing"),
    "empty model": ('{"format": "s3ta-model-1", "model": {}}', "does not describe a model"),
    "another kind": ('{"format": "s3ta-model-1", "model": {"kind": "vit"}}', "does not describe a model"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_config_of_another_program_is_refused(saved, case):
    content, sentence = FOREIGN[case]
    (saved / "config.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"config\.json .*{sentence}"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_heads": 0}, "num_heads"),
        ({"num_heads": "3"}, "num_heads"),
        ({"import": "os.system"}, "import"),
        ({"vision": {"backbone": "resnetv2_mimi"}}, "resnetv2_mini"),
        ({"vision": {"in_channels": 3, "mean": [0.5, 0.5]}}, "vision.mean"),
        ({"vision": {"stem": "conv9"}}, "vision.stem"),
        ({"key_channels": 64, "vision": {"backbone": "resnetv2_mini"}}, "key_channels"),
    ],
)
def test_a_config_with_a_bad_value_names_it(saved, change, sentence):
    stored = json.loads((saved / "config.json").read_text())
    stored["model"] |= change
    (saved / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=sentence):
        from_pretrained(saved)


def test_other_shapes_and_names_are_told_by_name(saved):
    tensors = load_file(saved / "model.safetensors")
    bias, weight = "controller.readout.2.bias", "vision.net.stem.conv.weight"
    for changed, sentence in [
        (tensors | {bias: torch.zeros(7)}, rf"'{bias}' is \(7,\) in the file, \(5,\) in the model"),
        ({k: v for k, v in tensors.items() if k != weight}, rf"the model has '{weight}', the file lacks it"),
        (tensors | {"zebra": torch.zeros(1)}, "the file has 'zebra', the model lacks it"),
    ]:
        save_file(changed, saved / "model.safetensors")
        with pytest.raises(UserError, match=sentence):
            from_pretrained(saved)


def test_missing_folders_and_files_are_named(saved, tmp_path):
    with pytest.raises(UserError, match=r"nothing does not exist\. Give a run folder, a model folder, or a Hub id"):
        from_pretrained(tmp_path / "nothing")
    with pytest.raises(UserError, match="does not exist"):
        from_pretrained("nosuchname")
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"is not a model: a model folder holds config\.json and model\.safetensors"):
        from_pretrained(saved)


def test_an_interrupted_save_leaves_the_old_model(saved, monkeypatch):
    before = weights_hash(from_pretrained(saved))

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", stop)
    other = shaken_model(num_classes=7)
    with pytest.raises(KeyboardInterrupt):
        save_pretrained(other, saved)
    monkeypatch.undo()
    assert weights_hash(from_pretrained(saved)) == before
    assert sorted(path.name for path in saved.iterdir()) == ["config.json", "model.safetensors"]


class Holding(nn.Module):
    """A network whose state dict holds this."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def get_extra_state(self) -> object:
        return self.value


def quantised(scale: float) -> torch.Tensor:
    return torch.quantize_per_tensor(torch.arange(4.0), scale, 0, torch.qint8)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: torch.eye(3).to_sparse(), lambda: (2 * torch.eye(3)).to_sparse()),
        (lambda: torch.eye(3).to_sparse(), lambda: torch.eye(3).flip(0).to_sparse()),
        (lambda: quantised(0.5), lambda: quantised(0.25)),
        (lambda: torch.tensor([1 + 2j]), lambda: torch.tensor([1 - 2j])),
        (lambda: (torch.qint8, (quantised(1.0), None)), lambda: (torch.qint8, (quantised(1.0), torch.ones(1)))),
        (lambda: {"epoch": 3, "b": torch.ones(2)}, lambda: {"epoch": 4, "b": torch.ones(2)}),
    ],
    ids=["sparse values", "sparse places", "quantised", "complex", "packed", "extra state"],
)
def test_weights_of_any_kind_have_a_hash_of_their_content(one, other) -> None:
    assert weights_hash(Holding(one())) == weights_hash(Holding(one()))
    assert weights_hash(Holding(one())) != weights_hash(Holding(other()))


def test_a_state_dict_that_raises_is_one_sentence() -> None:
    class Elsewhere(nn.Linear):
        def state_dict(self, *args, **kwargs):
            raise OSError("the weights are elsewhere")

    with pytest.raises(UserError, match=r"state_dict\(\) of Elsewhere failed: OSError: the weights are elsewhere \("):
        weights_hash(Elsewhere(2, 2))
