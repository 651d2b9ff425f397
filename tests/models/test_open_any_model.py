"""Any classifier from its name: it answers as the bare network does, and whatever is wrong is one sentence."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
import torchvision
from PIL import Image
from torch import nn

import s3ta
from s3ta.errors import UserError
from s3ta.models import (
    S3TA,
    Classifier,
    EvaluationTransform,
    LoadOptions,
    is_external,
    model_metadata,
    open_model,
    save_pretrained,
    select_outputs,
    weights_hash,
)
from s3ta.models.classifier_wrapper import _check_card

from .helpers import pictures, shaken_model


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("a test asked for the network"))


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(images, mean, std):
    channels = [(images[:, c] - mean[c]) / std[c] for c in range(len(mean))]
    return torch.stack(channels, 1)


def agree(model, net, images, mean=MEAN, std=STD):
    with torch.no_grad():
        torch.testing.assert_close(model(images), net.eval()(normalised(images, mean, std)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("timm:resnet18", True),
        ("timm:hf-hub:owner/name", True),
        ("torchvision:resnet50.IMAGENET1K_V2", True),
        ("app:make", True),
        ("my_package.nets.small:Nets.make", True),
        ("größe:netz", True),
        ("owner/name", False),
        ("resnet18", False),
        ("runs/digits", False),
        ("C:model", False),
        ("c:\\models\\mine", False),
        ("C:/models/mine", False),
        ("https://host/file", False),
        ("app:", False),
        (":make", False),
        ("app:make()", False),
        ("a b:make", False),
        ("app.py:make:x", False),
        ("", False),
        ("x" * 5000, False),
        ("a\0b", False),
    ],
)
def test_names_with_a_library_or_a_factory_are_foreign(source, answer):
    assert is_external(source) is answer


def test_a_path_that_exists_is_never_foreign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_external("app:make")
    assert is_external("timm:resnet18")
    Path("app:make").mkdir()
    Path("timm:resnet18").touch()
    assert not is_external("app:make")
    assert not is_external("timm:resnet18")


# --- timm ---------------------------------------------------------------------------------------------------------


def fresh_timm(name, **settings):
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **settings)


def test_timm_with_random_weights():
    before = torch.get_rng_state()
    model = open_model("timm:test_resnet", LoadOptions(weights="random"))
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    card = model_metadata(model)
    assert (card.name, card.num_classes, card.in_channels, card.image_size) == ("test_resnet", 1000, 3, 160)
    assert card.config == {
        "source": "timm:test_resnet",
        "weights": "random, seed 0",
        "library": {"timm": timm.__version__},
        "notes": [],
        "mean": list(card.config["mean"]),
        "std": list(card.config["std"]),
        "channel_order": "rgb",
        "outputs": None,
    }
    net = fresh_timm("test_resnet")
    agree(model, net, pictures(2, 3, 160, 160), net.pretrained_cfg["mean"], net.pretrained_cfg["std"])
    assert weights_hash(model) == weights_hash(open_model("timm:test_resnet", LoadOptions(weights="random")))


@pytest.mark.parametrize(
    ("name", "size"), [("test_resnet", None), ("resnet10t", None), ("test_vit", 96), ("resnet10t", 100)]
)
def test_timm_prepares_image_files_as_it_says(name, size):
    model = open_model(f"timm:{name}", LoadOptions(weights="random", image_size=size))
    net = timm.create_model(name)
    config = timm.data.resolve_model_data_config(net)
    config["input_size"] = (3, size or config["input_size"][1], size or config["input_size"][1])
    resize, crop = timm.data.create_transform(**config).transforms[:2]
    assert model_metadata(model).view == EvaluationTransform(resize.size, resize.interpolation.value)
    assert model_metadata(model).image_size == (crop.size if isinstance(crop.size, int) else crop.size[0])


def test_timm_with_other_sizes():
    opening = LoadOptions(weights="random", num_classes=7, image_size=96, in_channels=1, mean=(0.5,), std=(0.25,))
    model = open_model("timm:test_vit", opening)
    card = model_metadata(model)
    assert (card.num_classes, card.image_size, card.in_channels) == (7, 96, 1)
    net = fresh_timm("test_vit", num_classes=7, img_size=96, in_chans=1)
    agree(model, net, pictures(2, 1, 96, 96), (0.5,), (0.25,))


def test_timm_with_bgr_and_a_normalisation_of_ones_own():
    opening = LoadOptions(weights="random", mean=(0.1, 0.2, 0.3), std=(0.5,), channel_order="bgr")
    images = pictures(2, 3, 160, 160)
    with torch.no_grad():
        expected = fresh_timm("test_resnet").eval()(normalised(images[:, [2, 1, 0]], (0.1, 0.2, 0.3), (0.5,) * 3))
        torch.testing.assert_close(open_model("timm:test_resnet", opening)(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "opening", "sentence"),
    [
        ("resnt18", LoadOptions(), r"Unknown timm model 'resnt18'\. Did you mean resnet18"),
        (
            "resnet18.a1_in1l",
            LoadOptions(weights="random"),
            r"Unknown weights of timm's resnet18: 'a1_in1l'\. Did you mean a1_in1k",
        ),
        ("", LoadOptions(), "Unknown timm model"),
        ("local-dir:/x", LoadOptions(), "Unknown timm model"),
        ("test_resnet", LoadOptions(weights="random", num_classes=0), "num_classes is 0: it must be 1 or more"),
        ("test_resnet", LoadOptions(weights="random", image_size=-1), "image_size is -1"),
        (
            "test_resnet",
            LoadOptions(weights="random", in_channels=1),
            r"a mean for 3 channels: say --mean and --std for 1\.",
        ),
        (
            "test_resnet",
            LoadOptions(weights="random", mean=(0.1, 0.2), std=(1.0,)),
            "mean has 2 numbers, but the images have 3 channels",
        ),
        ("test_resnet", LoadOptions(weights="random", class_names=("a",)), "There are 1 class names for 1000 classes"),
        ("test_resnet", LoadOptions(weights="random", outputs=(1000,)), "numbered from 0 to 999"),
        ("test_vit", LoadOptions(weights="random", image_size=8), r"fails on images|could not be fetched or built"),
        ("vit_small_patch14_dinov2", LoadOptions(weights="random"), "answers with features: give --num-classes"),
        ("vit_small_patch14_dinov2", LoadOptions(), "answers with features: give --num-classes"),
        (
            "vit_base_patch16_sapiens2",
            LoadOptions(weights="random", num_classes=2),
            "of 1024 x 768 pixels; images here are square",
        ),
        ("test_vit_relpos", LoadOptions(weights="nowhere.pt"), r"nowhere\.pt does not exist"),
    ],
)
def test_mistakes_with_timm_are_one_sentence(name, opening, sentence):
    with pytest.raises(UserError, match=sentence):
        open_model(f"timm:{name}", opening)


def test_timm_weights_are_fetched_where_they_can_be(monkeypatch):
    torch.manual_seed(5)
    there = timm.create_model("test_resnet")
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: there.state_dict())
    for weights in (None, "pretrained"):
        model = open_model("timm:test_resnet", LoadOptions(weights=weights))
        assert model_metadata(model).config["weights"] == "pretrained: r160_in1k"
        agree(model, there, pictures(2, 3, 160, 160), there.pretrained_cfg["mean"], there.pretrained_cfg["std"])
    with pytest.raises(UserError, match="answers with 1000 numbers for an image, not 10"):
        open_model("timm:test_resnet", LoadOptions(num_classes=10))
    grey = open_model("timm:test_resnet", LoadOptions(in_channels=1, mean=(0.5,), std=(0.5,)))
    assert model_metadata(grey).config["notes"] == ["timm adapted the first convolution from 3 to 1 channels."]


@pytest.mark.parametrize("error", [OSError("no route\nto host"), RuntimeError("no route to host")])
def test_timm_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    monkeypatch.setattr("timm.models.load_model_config_from_hf", fail)
    for name in ("test_resnet", "hf-hub:owner/name"):
        with pytest.raises(
            UserError, match=rf"^timm:{name} could not be fetched or built \({type(error).__name__}: no route to host\)"
        ):
            open_model(f"timm:{name}")


def test_timm_model_of_the_hub(monkeypatch):
    torch.manual_seed(5)
    there = timm.create_model("test_vit", num_classes=6)
    known = there.pretrained_cfg | {"num_classes": 6, "mean": (0.1, 0.2, 0.3), "source": "hf-hub", "tag": None}
    answer = (known, "test_vit", {"num_classes": 6})
    for module in ("timm.models", "timm.models._factory"):
        monkeypatch.setattr(f"{module}.load_model_config_from_hf", lambda *_, **__: answer)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: there.state_dict())
    model = open_model("timm:hf-hub:owner/name")
    assert model_metadata(model).name == "name"
    assert model_metadata(model).config["weights"] == "pretrained: hf-hub:owner/name"
    agree(model, there, pictures(2, 3, 160, 160), (0.1, 0.2, 0.3), there.pretrained_cfg["std"])
    assert (
        model_metadata(open_model("timm:hf-hub:owner/name", LoadOptions(weights="random", image_size=96))).image_size
        == 96
    )


def test_timm_without_pretrained_weights():
    having = {name.partition(".")[0] for name in timm.list_pretrained()}
    name = next(name for name in timm.list_models() if name not in having)
    with pytest.raises(UserError, match=f"timm has no pretrained weights of {name}: give --weights FILE"):
        open_model(f"timm:{name}")


def test_timm_preparation_that_a_view_cannot_say_is_noted(monkeypatch):
    make = timm.create_model

    def squashing(*args, **settings):
        net = make(*args, **settings)
        net.pretrained_cfg["crop_mode"] = "squash"
        return net

    monkeypatch.setattr(timm, "create_model", squashing)
    card = model_metadata(open_model("timm:test_resnet", LoadOptions(weights="random")))
    assert card.view is None
    assert "not done here (squash, bilinear)" in card.config["notes"][0]


# --- torchvision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["squeezenet1_1", "resnet18", "mobilenet_v3_small", "mobilenet_v3_large.IMAGENET1K_V1"]
)
def test_torchvision_with_random_weights_sees_what_its_transforms_show(name):
    base, _, tag = name.partition(".")
    model = open_model(f"torchvision:{name}", LoadOptions(weights="random"))
    card = model_metadata(model)
    assert (card.name, card.num_classes, card.config["weights"]) == (name, 1000, "random, seed 0")
    assert card.config["library"] == {"torchvision": torchvision.__version__.partition("+")[0]}
    entry = torchvision.models.get_model_weights(base)[tag or "DEFAULT"]
    torch.manual_seed(0)
    net = torchvision.models.get_model(base).eval()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (300, 420, 3), dtype=np.uint8))
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[card.view.interpolation]
    resized = np.asarray(picture.resize((int(card.view.resize * 420 / 300), card.view.resize), how))
    # torchvision rounds the place of the cut
    top, left = (round((length - card.image_size) / 2) for length in resized.shape[:2])
    cut = resized[top : top + card.image_size, left : left + card.image_size]
    image = torch.from_numpy(cut / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(image), net(entry.transforms()(picture)[None]), rtol=1e-4, atol=1e-5)


def test_torchvision_with_another_number_of_classes_and_size():
    card = model_metadata(
        open_model("torchvision:squeezenet1_1", LoadOptions(weights="random", num_classes=4, image_size=112))
    )
    assert (card.num_classes, card.image_size, card.view) == (4, 112, EvaluationTransform(128, "bilinear"))


def test_torchvision_builds_its_transformers_for_the_size():
    model = open_model("torchvision:vit_b_32", LoadOptions(weights="random", image_size=64, num_classes=3))
    assert (model_metadata(model).image_size, model_metadata(model).num_classes) == (64, 3)
    assert model.net.image_size == 64


@pytest.mark.parametrize(("name", "tag"), [("googlenet", ""), ("inception_v3", ".IMAGENET1K_V1")])
def test_heads_that_only_help_in_training_are_left_out(tmp_path, name, tag):
    torch.manual_seed(4)
    there = torchvision.models.get_model(
        name, num_classes=5, aux_logits=True, init_weights=False, transform_input=bool(tag)
    )
    torch.save(there.state_dict(), tmp_path / "run.pth")
    opening = LoadOptions(weights=str(tmp_path / "run.pth"), num_classes=5, image_size=96)
    model = open_model(f"torchvision:{name}{tag}", opening)
    agree(model, there, pictures(2, 3, 96, 96))
    notes = model_metadata(model).config["notes"]
    assert any("weights of training aids" in note for note in notes)
    assert any("transforms its input" in note for note in notes) is bool(tag)
    assert model_metadata(model).name == f"{name}{tag}@run"


def test_torchvision_weights_are_fetched_where_they_can_be(monkeypatch):
    torch.manual_seed(5)
    there = torchvision.models.squeezenet1_1()
    asked = []

    def fetch(url, **_):
        asked.append(url)
        return there.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    for source in ("torchvision:squeezenet1_1", "torchvision:squeezenet1_1.IMAGENET1K_V1"):
        model = open_model(source)
        assert model_metadata(model).config["weights"] == "pretrained: IMAGENET1K_V1"
        agree(model, there, pictures(2, 3, 224, 224))
    assert set(asked) == {torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url}


def test_torchvision_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def fail(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(UserError, match=r"squeezenet1_1 could not be fetched .*Name or service.*--weights random\.$"):
        open_model("torchvision:squeezenet1_1")


@pytest.mark.parametrize(
    ("name", "opening", "sentence"),
    [
        ("resnet19", LoadOptions(), r"Unknown torchvision model 'resnet19'\. Did you mean"),
        ("resnet50.V2", LoadOptions(), r"Unknown weights of torchvision's resnet50: 'V2'"),
        ("fcn_resnet50", LoadOptions(weights="random"), "does not classify images"),
        ("fasterrcnn_resnet50_fpn", LoadOptions(weights="random"), "does not classify images"),
        ("r3d_18", LoadOptions(weights="random"), "does not classify images"),
        ("resnet18", LoadOptions(weights="random", in_channels=1), "takes images of 3 channels, not 1"),
        (
            "squeezenet1_1",
            LoadOptions(weights="random", image_size=4),
            "fails on images of 3 x 4 x 4 .*see --image-size",
        ),
    ],
)
def test_mistakes_with_torchvision_are_one_sentence(name, opening, sentence):
    with pytest.raises(UserError, match=sentence):
        open_model(f"torchvision:{name}", opening)


# --- weights from a file ------------------------------------------------------------------------------------------


def stored(tmp_path, mean=(0.1, 0.2, 0.3), std=(0.25, 0.3, 0.35)):
    torch.manual_seed(9)
    there = timm.create_model("test_resnet", num_classes=4)
    state = {f"module.model.{key}": value for key, value in there.state_dict().items()}
    if mean:
        state |= {"module.normalize.mean": torch.tensor(mean), "module.normalize.std": torch.tensor(std)}
    torch.save({"state_dict": state, "model_ema": {k: v * 2 for k, v in state.items()}}, tmp_path / "best.pth")
    return there, str(tmp_path / "best.pth")


@pytest.mark.parametrize("said", [None, (0.1, 0.2, 0.3)])
def test_weights_and_their_normalisation_from_a_file(tmp_path, said):
    there, path = stored(tmp_path)
    model = open_model("timm:test_resnet", LoadOptions(weights=path, num_classes=4, mean=said))
    agree(model, there, pictures(2, 3, 160, 160), (0.1, 0.2, 0.3), (0.25, 0.3, 0.35))
    card = model_metadata(model)
    assert card.name == "test_resnet@best"
    assert (card.config["weights"], card.config["container"], card.config["prefix"]) == (
        "file best.pth",
        "state_dict",
        "module.model.",
    )
    assert card.config["notes"] == [
        "best.pth also holds model_ema; state_dict was taken (another: best.pth#model_ema)."
    ]
    assert str(tmp_path) not in json.dumps(card.config)


def test_the_average_by_its_name(tmp_path):
    there, path = stored(tmp_path, mean=None)
    model = open_model("timm:test_resnet", LoadOptions(weights=f"{path}#model_ema", num_classes=4))
    assert model_metadata(model).name == "test_resnet@best-model_ema"
    assert torch.equal(model.net.fc.weight, there.fc.weight * 2)


def test_the_librarys_normalisation_where_the_file_has_none(tmp_path):
    there, path = stored(tmp_path, mean=None)
    model = open_model("timm:test_resnet", LoadOptions(weights=path, num_classes=4))
    agree(model, there, pictures(2, 3, 160, 160), there.pretrained_cfg["mean"], there.pretrained_cfg["std"])


@pytest.mark.parametrize("what", ["mean", "std"])
def test_a_normalisation_that_contradicts_the_file_is_refused(tmp_path, what):
    _, path = stored(tmp_path)
    numbers = {"mean": "0.1, 0.2, 0.3", "std": "0.25, 0.3, 0.35"}[what]
    with pytest.raises(UserError, match=f"stored with {what} {numbers}, but the {what} given is 0.5:"):
        open_model("timm:test_resnet", LoadOptions(weights=path, num_classes=4, **{what: (0.5,)}))


def test_a_file_of_another_number_of_classes_is_refused(tmp_path):
    _, path = stored(tmp_path)
    with pytest.raises(UserError, match=r"'fc\.weight' is \(4, \d+\) in the file, \(1000, \d+\) in the network"):
        open_model("timm:test_resnet", LoadOptions(weights=path))


# --- factories ----------------------------------------------------------------------------------------------------

APP = """
import torch
from torch import nn
import s3ta

class Net(nn.Module):
    def __init__(self, num_classes=5, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3)
        self.fc = nn.Linear(4, num_classes)
    def forward(self, images):
        return self.fc(self.conv(images).mean((2, 3)))

def make():
    return Net(7, 2).train()

class Nets:
    @staticmethod
    def small():
        return Net(3)

net = Net()
number = 3

def wrapped():
    return s3ta.Classifier(Net(), name="mine", num_classes=5, image_size=12, mean=(0.5,), std=(0.2,), config={"by": "me"})

def ours():
    from s3ta.models import create_model
    return create_model("resnetv2_mini", num_classes=4, image_size=16)

def half(): return Net().half()
def broken(): return [][3]
def leaving(): raise SystemExit(3)
def nothing(): return None
def greedy(size): return Net(size)
def unfair(): return s3ta.Classifier(Net(), name="x", num_classes=5, image_size=12, mean=(0.5, 0.5))
def drawn(): return Net()
def boasting(): return s3ta.Classifier(Net(), name="x", num_classes=6, image_size=12)

class Pair(Net):
    def forward(self, images): return super().forward(images), 1
class Flat(Net):
    def forward(self, images): return super().forward(images).flatten()
class Whole(Net):
    def forward(self, images): return super().forward(images).argmax(1, keepdim=True)
class Late(Net):
    def forward(self, images):
        from helper_of_late import double
        return double(super().forward(images))
def late():
    import helper_of_late
    return Late()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current folder that is not on the path, with a module of the test's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app_of_test.py").write_text(APP)
    (tmp_path / "helper_of_late.py").write_text("def double(x): return 2 * x\n")
    path = list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in [name for name in sys.modules if name.startswith(("app_of_", "helper_of_", "pack_of_"))]:
        del sys.modules[name]


def test_a_factory_in_the_current_folder(here):
    model = open_model("app_of_test:make", LoadOptions(image_size=10, mean=(0.5, 0.4), std=(0.2, 0.3)))
    card = model_metadata(model)
    assert (card.name, card.num_classes, card.in_channels, card.image_size) == ("make", 7, 2, 10)
    assert card.config["weights"] == "as the factory made them, seed 0"
    assert (card.config["source"], card.config["library"]) == ("app_of_test:make", {})
    assert not any(module.training for module in model.modules())
    torch.manual_seed(0)
    net = sys.modules["app_of_test"].Net(7, 2)
    agree(model, net, pictures(2, 2, 10, 10), (0.5, 0.4), (0.2, 0.3))


@pytest.mark.parametrize(("name", "classes"), [("Nets.small", 3), ("net", 5), ("Net", 5), ("late", 5)])
def test_functions_classes_and_networks_may_stand_for_a_factory(here, name, classes):
    model = open_model(f"app_of_test:{name}", LoadOptions(image_size=10))
    assert model_metadata(model).num_classes == classes
    assert model_metadata(model).config["mean"] is None
    with torch.no_grad():
        assert torch.equal(model(pictures(2, 3, 10, 10)), model.net(pictures(2, 3, 10, 10)))


def test_a_factory_in_a_package(here):
    (here / "pack_of_test" / "inner").mkdir(parents=True)
    (here / "pack_of_test" / "inner" / "nets.py").write_text("from app_of_test import make\n")
    assert model_metadata(open_model("pack_of_test.inner.nets:make", LoadOptions(image_size=10))).num_classes == 7


def test_a_factory_of_a_classifier_says_everything(here):
    model = open_model("app_of_test:wrapped")
    card = model_metadata(model)
    assert (card.name, card.num_classes, card.image_size) == ("mine", 5, 12)
    assert (card.config["by"], card.config["source"]) == ("me", "app_of_test:wrapped")
    same = LoadOptions(num_classes=5, image_size=12, mean=(0.5,), std=(0.2, 0.2, 0.2), channel_order="rgb")
    assert weights_hash(open_model("app_of_test:wrapped", same)) == weights_hash(model)
    for what, value in {"image_size": 13, "num_classes": 4, "mean": (0.4,), "channel_order": "bgr"}.items():
        with pytest.raises(
            UserError, match=rf"says itself what it is \({what}: .*leave out --{what.replace('_', '-')}\."
        ):
            open_model("app_of_test:wrapped", LoadOptions(**{what: value}))


def test_a_factory_of_one_of_our_models(here):
    model = open_model("app_of_test:ours")
    assert model_metadata(model).num_classes == 4
    with pytest.raises(UserError, match="says itself what it is: leave out --mean"):
        open_model("app_of_test:ours", LoadOptions(mean=(0.5,)))


@pytest.mark.parametrize("name", ["drawn", "wrapped"])
def test_a_factory_with_weights_from_a_file(here, name):
    net = open_model("app_of_test:drawn", LoadOptions(image_size=12)).net
    with torch.no_grad():
        net.fc.bias += 1
    torch.save({"net": net.state_dict()}, here / "w.pt")
    model = open_model(f"app_of_test:{name}", LoadOptions(weights="w.pt", image_size=12))
    assert torch.equal(model.net.fc.bias, net.fc.bias)
    assert model_metadata(model).name == ("drawn@w" if name == "drawn" else "mine@w")
    assert model_metadata(model).config["weights"] == "file w.pt"


def test_a_classifiers_normalisation_must_be_that_of_its_file(here):
    net = open_model("app_of_test:drawn", LoadOptions(image_size=12)).net
    for mean, fits in ((0.5, True), (0.6, False)):
        torch.save(net.state_dict() | {"mean": torch.tensor([mean]), "std": torch.tensor([0.2])}, here / "w.pt")
        if fits:
            open_model("app_of_test:wrapped", LoadOptions(weights="w.pt"))
        else:
            with pytest.raises(UserError, match=r"stored with mean 0\.6, but the mean given is 0\.5"):
                open_model("app_of_test:wrapped", LoadOptions(weights="w.pt"))


def test_a_factory_of_half_precision_is_cast_and_said(here):
    model = open_model("app_of_test:half", LoadOptions(image_size=10))
    assert model(pictures(1, 3, 10, 10)).dtype == torch.float32
    assert model_metadata(model).config["notes"] == ["Weights were cast from float16 to float32."]


@pytest.mark.parametrize(
    ("source", "opening", "sentence"),
    [
        ("app_of_test:make", LoadOptions(), "does not say how large its images are: give --image-size"),
        ("app_of_test:make", LoadOptions(image_size=1), r"fails on images of 2 x 1 x 1 \(RuntimeError: "),
        ("app_of_test:make", LoadOptions(image_size=9, in_channels=3), r"fails on images of 3 x 9 x 9 .*--image-size"),
        ("app_of_test:make", LoadOptions(image_size=9, num_classes=5), "answers with 7 numbers for an image, not 5"),
        (
            "app_of_test:make",
            LoadOptions(image_size=9, weights="random"),
            "decides itself on its weights: leave out --weights random",
        ),
        ("app_of_test:make", LoadOptions(image_size=9, weights="pretrained"), "decides itself on its weights"),
        ("app_of_test:wrapped", LoadOptions(weights="random"), "decides itself on its weights"),
        ("app_of_test:mak", LoadOptions(), r"Unknown name in app_of_test: 'mak'\. Did you mean make"),
        ("app_of_test:Nets.large", LoadOptions(), "Unknown name in app_of_test: 'Nets.large'"),
        ("app_of_test:number", LoadOptions(), "is a int, not a function that makes a network"),
        ("app_of_test:nothing", LoadOptions(), r"nothing\(\) gave a NoneType: it must return a torch\.nn\.Module"),
        ("app_of_test:greedy", LoadOptions(), r"greedy\(\) failed: TypeError: greedy\(\) missing 1 required"),
        (
            "app_of_test:broken",
            LoadOptions(),
            r"broken\(\) failed: IndexError: list index out of range \(app_of_test\.py, line 33\)\.",
        ),
        ("app_of_test:leaving", LoadOptions(), r"leaving\(\) failed: SystemExit: 3"),
        ("app_of_test:unfair", LoadOptions(), r"^mean has 2 numbers, but the images have 3 channels"),
        ("app_of_test:Pair", LoadOptions(image_size=9), "answers with a tuple: it must give logits"),
        ("app_of_test:Flat", LoadOptions(image_size=9), r"float32 of shape \(10,\): it must give logits"),
        ("app_of_test:Whole", LoadOptions(image_size=9), r"int64 of shape \(2, 1\)"),
        ("app_of_nobody:make", LoadOptions(), r"no module app_of_nobody to import for app_of_nobody:make"),
        ("app_of_test.inner:make", LoadOptions(), r"no module app_of_test\.inner to import"),
    ],
)
def test_mistakes_with_factories_are_one_sentence(here, source, opening, sentence):
    with pytest.raises(UserError, match=sentence):
        open_model(source, opening)


def test_a_classifier_that_is_wrong_about_itself_is_refused(here):
    with pytest.raises(UserError, match=r"says that it has 6 classes, and answers with 5 numbers for an image"):
        open_model("app_of_test:boasting")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nothing_of_this_name", "ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("x = 1 / 0", r"ZeroDivisionError: division by zero \(app_of_fault\.py, line 1\)"),
        ("def f(:", "SyntaxError: "),
        ("import sys\nsys.exit('usage')", "SystemExit: usage"),
    ],
)
def test_modules_that_cannot_be_imported_are_named(here, text, sentence):
    (here / "app_of_fault.py").write_text(text)
    with pytest.raises(UserError, match=rf"Importing app_of_fault failed: {sentence}"):
        open_model("app_of_fault:make", LoadOptions(image_size=9))


def test_nothing_is_imported_for_a_name_that_is_no_factory(here):
    for source in ("C:app_of_test", "app_of_test:make()", "app_of_test"):
        with pytest.raises(UserError, match=r"does not exist\. Give a run folder, .* or package\.module:factory\."):
            open_model(source)
    assert "app_of_test" not in sys.modules


# --- our own, and the choice of outputs ---------------------------------------------------------------------------


def test_our_own_models_open_as_before(tmp_path):
    save_pretrained(shaken_model(), tmp_path / "mine")
    model = open_model(tmp_path / "mine")
    assert isinstance(model, S3TA)
    assert not model.training
    for opening in (LoadOptions(weights="random"), LoadOptions(mean=(0.5,)), LoadOptions(num_classes=9)):
        with pytest.raises(UserError, match="says itself what it is"):
            open_model(tmp_path / "mine", opening)


def test_our_own_models_with_some_of_their_outputs(tmp_path):
    save_pretrained(shaken_model(), tmp_path)
    opening = LoadOptions(outputs=(3, 0), class_names=("a", "b", "c", "d", "e"))
    model, bare = open_model(tmp_path, opening), open_model(tmp_path)
    images = pictures(2, 2, 12, 12)
    assert (model_metadata(model).classes, model_metadata(model).num_classes, model_metadata(model).num_glimpses) == (
        ("d", "a"),
        2,
        3,
    )
    with torch.no_grad():
        assert torch.equal(model(images), bare(images)[:, [3, 0]])
        assert torch.equal(model.unroll(images, 2).logits, bare.unroll(images, 2).logits[..., [3, 0]])
    assert model_metadata(model).config["vision"] == model_metadata(bare).config["vision"]
    with pytest.raises(UserError, match="There are 3 class names for 5 classes"):
        open_model(tmp_path, LoadOptions(class_names=("a", "b", "c")))


def test_chosen_outputs_can_be_chosen_from_again():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    model = Classifier(net, name="n", num_classes=6, image_size=2, mean=(0.5,), channel_order="bgr", classes="abcdef")
    images = pictures(2, 3, 2, 2)
    some = select_outputs(select_outputs(model, [5, 3, 1, 0]), [2, 0])
    assert model_metadata(some).config["outputs"] == [1, 5]
    assert model_metadata(some).classes == ("b", "f")
    assert some.net is net
    assert weights_hash(some) == weights_hash(model)
    for one in (some, copy.deepcopy(some)):
        torch.testing.assert_close(one(images), net(images[:, [2, 1, 0]] - 0.5)[:, [1, 5]])
    for wrong in ([], [6], [-1], [1, 1]):
        with pytest.raises(UserError, match=r"numbered from 0 to 5|each named once"):
            select_outputs(model, wrong)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"image_size": 0}, "image_size is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"mean": (float("nan"),)}, "mean is nan: every number must be finite"),
        ({"std": (0.1, 0.0, 0.1)}, "every number must be above 0"),
        ({"channel_order": "bgr", "in_channels": 1}, "1 channels cannot be turned"),
        ({"outputs": (0, 0, 1, 2, 3)}, "each named once"),
    ],
)
def test_a_classifier_refuses_impossible_settings(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Classifier(nn.Identity(), **({"name": "n", "num_classes": 5, "image_size": 2} | settings))


def test_an_unknown_channel_order_is_refused():
    card = model_metadata(Classifier(nn.Identity(), name="n", num_classes=1, image_size=1))
    with pytest.raises(UserError, match="The channel order is 'brg': it must be rgb or bgr"):
        _check_card(card._replace(config=card.config | {"channel_order": "brg"}))


def test_a_model_without_a_card_is_refused():
    with pytest.raises(UserError, match=r"Identity does not say what it is: wrap it"):
        model_metadata(nn.Identity())
    net = nn.Identity()
    net.card = "mine"
    with pytest.raises(UserError, match="does not say what it is"):
        model_metadata(net)


def test_the_package_exports_its_classifier():
    assert s3ta.Classifier is Classifier
