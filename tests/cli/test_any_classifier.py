"""Anybody's classifier, by the commands that a person types; what comes out is compared with what was computed by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms

from s3ta.data import imagenet_wnids
from s3ta.records import Ledger
from tests.data.helpers import IMAGENET_A_WNIDS

from .tints import (
    CLASSES,
    FEW,
    SCALE,
    chunks,
    colours,
    done,
    logits_of,
    losses,
    refused,
    rows,
    s3ta,
    told_in,
    worst,
    write_module,
    write_pictures,
)

RADIUS = 8 / 255
SHORT = ("--attack", "pgd-100", "--attack", "targeted-100", "attack.num_attack_steps=10", "attack.step_size=4/255")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.5)
TRUST = ["lint", "probes", "records"]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures; the current folder is that of the test."""
    monkeypatch.chdir(tmp_path)
    return write_pictures(tmp_path / "pictures")


@pytest.fixture
def words(pictures: Path) -> tuple[str, ...]:
    """What every evaluation of the pictures says."""
    return ("--data", f"folder:{pictures}", "--image-size", "8", *FEW)


def same_verdicts(one: Path, two: Path) -> None:
    """The same records; losses and the like to a few roundings."""
    ours, theirs = rows(one), rows(two)
    assert len(ours) == len(theirs) > 12
    exact = set(ours[0]) - {"loss", "confidence", "distance"}
    assert [{key: row[key] for key in exact} for row in ours] == [{key: row[key] for key in exact} for row in theirs]
    for name in ("loss", "confidence", "distance"):
        np.testing.assert_allclose([row[name] for row in ours], [row[name] for row in theirs], rtol=1e-3, atol=1e-5)


def test_every_verdict_is_the_one_computed_by_hand(pictures: Path, words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_by_hand")
    shown = done("evaluate", f"{source}:make", "--suite", "quick", *words, "--out", "out")
    assert "50.0% [25.4, 74.6]" in shown.stdout
    out = tmp_path / "out"
    clean = rows(out, attack="clean")
    ids, labels = [row["example_id"] for row in clean], [row["label"] for row in clean]
    assert labels == [CLASSES.index(name.split("/")[1]) for name in ids]
    means = colours(pictures, ids)
    np.testing.assert_allclose([row["loss"] for row in clean], losses(logits_of(means), labels), rtol=1e-4, atol=1e-6)
    shares = np.exp(-losses(logits_of(means), logits_of(means).argmax(axis=1).tolist()))
    np.testing.assert_allclose([row["confidence"] for row in clean], shares, rtol=1e-5)
    free = rows(out, attack="untargeted-20", num_attack_steps=20)
    bent = logits_of(worst(means, labels, RADIUS))
    assert [row["correct"] for row in free] == (bent.argmax(axis=1) == labels).tolist()
    assert 0 < sum(row["correct"] for row in free) < 12
    np.testing.assert_allclose([row["loss"] for row in free], losses(bent, labels), rtol=1e-3)
    aimed = rows(out, attack="targeted-20", num_attack_steps=20)
    targets = [row["target"] for row in aimed]
    bent = logits_of(worst(means, labels, RADIUS, targets))
    assert [row["hit"] for row in aimed] == (bent.argmax(axis=1) == targets).tolist()
    assert all(row["distance"] <= RADIUS + 1e-6 for row in rows(out))
    assert all(aim != label for aim, label in zip(targets, labels, strict=True))
    with (out / "targets.csv").open() as file:
        listed = {row["example_id"]: row for row in csv.DictReader(file)}
    assert {name: int(row["target"]) for name, row in listed.items()} == dict(zip(ids, targets, strict=True))
    assert all(row["target_name"] == CLASSES[int(row["target"])] for row in listed.values())
    assert sorted((out / "examples.txt").read_text().split()) == sorted(ids)


def test_the_files_say_what_was_done_and_nothing_of_the_machine(words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_files")
    done("evaluate", f"{source}:make", "--suite", "quick", "--tiny", *words, "--keep-images", "--num-examples", "8")
    out = tmp_path / "runs" / "tints_files-make" / "evaluations" / "quick-tiny"
    manifest = Ledger.read(out).manifest
    assert manifest["format"] == 3
    assert manifest["model"]["name"] == "make"
    assert manifest["model"]["config"]["source"] == "tints_files:make"
    assert manifest["model"]["config"]["mean"] is None
    assert manifest["model"]["config"]["channel_order"] == "rgb"
    assert manifest["data"]["source"] == "folder:pictures"
    assert manifest["data"]["num_examples"] == 8
    assert manifest["data"]["num_available"] == 12
    assert manifest["data"]["preprocessing"]["name"] == "default"
    assert manifest["targets"] == "drawn"
    assert manifest["micro_batch"] == 4
    trust = json.loads((out / "trust.json").read_text())
    assert list(trust) == TRUST
    assert len(trust["lint"]) > 10
    page = done("report", "runs/tints_files-make", "--findings", "findings.json", "--out", "page.html")
    assert str(tmp_path) not in (tmp_path / "page.html").read_text()
    assert str(tmp_path) in page.stdout  # where it is, is for the eyes of who asked
    told = json.loads((tmp_path / "findings.json").read_text())["runs"][0]
    assert told["lint"] == trust["lint"]
    assert told["probes"] == trust["probes"]
    for folder in (out, tmp_path / "runs"):
        everything = told_in(folder)
        assert "folder:pictures" in everything
        assert str(tmp_path) not in everything
        assert tmp_path.name not in everything
    assert str(tmp_path) not in (tmp_path / "findings.json").read_text()


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_weights_of_a_file_are_those_that_are_measured(words: tuple[str, ...], tmp_path: Path, kind: str) -> None:
    more = """
def blank():
    return Tint((0, 1, 2))
"""
    source = write_module(tmp_path, f"tints_weights_{kind}", more)
    order = [2, 1, 0]
    weight = SCALE * (3 * torch.eye(3)[order] - 1)[:, :, None, None]
    state = {"head.weight": weight.contiguous(), "head.bias": torch.zeros(3)}
    if kind == "pt":
        wrapped = {f"module.{name}": value for name, value in state.items()}
        torch.save({"state_dict": wrapped, "epoch": 3}, tmp_path / "best.pt")
    else:
        save_file(state, tmp_path / "best.safetensors")
    done("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "honest")
    done("evaluate", f"{source}:blank", "--weights", f"best.{kind}", *SHORT, *words, "--no-checks", "--out", "filled")
    assert rows(tmp_path / "filled") == rows(tmp_path / "honest")
    model = Ledger.read(tmp_path / "filled").manifest["model"]
    assert model["name"] == "blank@best"
    assert model["config"]["weights"] == f"file best.{kind}"
    assert model["config"]["prefix"] == ("module." if kind == "pt" else "")
    assert model["sha256"] == Ledger.read(tmp_path / "honest").manifest["model"]["sha256"]
    done("evaluate", f"{source}:blank", *SHORT, *words, "--no-checks", "--out", "blank")
    assert rows(tmp_path / "blank") != rows(tmp_path / "honest"), "the file matters"


def test_normalisation_and_order_of_channels_are_put_before_the_network(words: tuple[str, ...], tmp_path: Path) -> None:
    """Networks that want other numbers than pixels, told so: the same verdicts as of the plain one."""
    more = f"""
def normalised():
    net = Tint()
    mean, std = torch.tensor({MEAN}), torch.tensor({STD})
    with torch.no_grad():
        weight = net.head.weight[:, :, 0, 0]
        net.head.bias.copy_(weight @ mean)
        net.head.weight.copy_((weight * std)[:, :, None, None])
    return net


def bgr():
    return Tint((0, 1, 2))
"""
    source = write_module(tmp_path, "tints_prepared", more)
    said = ("--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)))
    done("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "plain")
    done("evaluate", f"{source}:normalised", *said, *SHORT, *words, "--no-checks", "--out", "normalised")
    done("evaluate", f"{source}:bgr", "--channel-order", "bgr", *SHORT, *words, "--no-checks", "--out", "bgr")
    same_verdicts(tmp_path / "normalised", tmp_path / "plain")
    same_verdicts(tmp_path / "bgr", tmp_path / "plain")
    told = Ledger.read(tmp_path / "normalised").manifest["model"]["config"]
    assert (tuple(told["mean"]), tuple(told["std"])) == (MEAN, STD)
    assert Ledger.read(tmp_path / "bgr").manifest["model"]["config"]["channel_order"] == "bgr"
    done("evaluate", f"{source}:bgr", *SHORT, *words, "--no-checks", "--out", "blind")
    named = rows(tmp_path / "blind", attack="clean")
    assert [row["prediction"] for row in named] == [2 - row["label"] for row in named]


def test_classes_in_another_order_are_matched_by_name(words: tuple[str, ...], tmp_path: Path) -> None:
    names = ("red", "blue", "grey", "green")
    more = """
def permuted():
    net = Tint((0, 2, 0, 1))
    with torch.no_grad():
        net.head.bias[2] = -100.0  # grey is never answered
    return net
"""
    source = write_module(tmp_path, "tints_permuted", more)
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    done("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "plain")
    ours = ("evaluate", f"{source}:permuted", "--class-names", "names.txt", *SHORT, *words, "--no-checks")
    refused(s3ta(*ours, "--out", "never"), "The model has 4 classes, but folder:pictures has 3", "--match-classes data")
    assert not (tmp_path / "never").exists()
    done(*ours, "--match-classes", "data", "--out", "data")
    same_verdicts(tmp_path / "data", tmp_path / "plain")
    assert Ledger.read(tmp_path / "data").manifest["model"]["config"]["outputs"] == [1, 3, 0]
    done(*ours, "--match-classes", "model", "--out", "model")
    clean, plain = rows(tmp_path / "model", attack="clean"), rows(tmp_path / "plain", attack="clean")
    assert [names[row["label"]] for row in clean] == [CLASSES[row["label"]] for row in plain]
    assert [names[row["prediction"]] for row in clean] == [CLASSES[row["prediction"]] for row in plain]
    free, plain = (rows(tmp_path / name, attack="pgd-10") for name in ("model", "plain"))
    assert [row["correct"] for row in free] == [row["correct"] for row in plain]
    assert {row["target"] for row in rows(tmp_path / "model", attack="targeted-10")} <= {0, 1, 2, 3}


def test_an_order_of_labels_that_is_not_the_models_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_order", "\n\ndef other():\n    return Tint((0, 1, 2))\n")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    ours = ("evaluate", f"{source}:other", "--class-names", "names.txt", *SHORT, *words, "--no-checks")
    told = "Class 0 of the model is 'red', but folder:pictures has 'blue' there"
    refused(s3ta(*ours, "--out", "never"), told, "--match-classes data")
    done(*ours, "--match-classes", "data", "--out", "matched")
    done("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "plain")
    same_verdicts(tmp_path / "matched", tmp_path / "plain")


def test_ids_of_a_file_are_measured_in_their_order(words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_ids")
    listed = ["red/3.png", "val/blue/0.png", "green/1.png", "val/red/0.png", "val/blue/3.png"]
    (tmp_path / "ids.txt").write_text("# mine\n" + "\n".join(listed))
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--ids", "ids.txt")
    done(*run, "--out", "some")
    wanted = [name if name.startswith("val/") else f"val/{name}" for name in listed]
    assert (tmp_path / "some" / "examples.txt").read_text().splitlines() == wanted
    table = Ledger.read(tmp_path / "some").table().to_pylist()
    assert [row["example_id"] for row in table if row["attack"] == "clean"] == wanted
    done("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "all")
    all_rows = [row for row in rows(tmp_path / "all") if row["example_id"] in wanted]
    same = [{key: row[key] for key in row if key not in ("loss", "confidence")} for row in all_rows]
    assert same == [
        {key: row[key] for key in row if key not in ("loss", "confidence")} for row in rows(tmp_path / "some")
    ]
    done(*run, "--limit", "2", "--out", "two")
    assert (tmp_path / "two" / "examples.txt").read_text().splitlines() == wanted[:2]
    refused(s3ta(*run, "--limit", "6", "--out", "six"), "names 5 examples, fewer than 6")


def test_targets_of_one_evaluation_are_given_to_another(words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_targets")
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--no-checks")
    done(*run, "--out", "one")
    done(*run, "--targets", "one/targets.csv", "--out", "two")
    assert rows(tmp_path / "two") == rows(tmp_path / "one")
    manifests = [Ledger.read(tmp_path / name).manifest for name in ("one", "two")]
    assert manifests[0]["targets"] == "drawn"
    assert manifests[1]["targets"].startswith("given ")
    aims = {row["example_id"]: (row["label"] + 1) % 3 for row in rows(tmp_path / "one", attack="clean")}
    drawn = {row["example_id"]: row["target"] for row in rows(tmp_path / "one", attack="targeted-10")}
    assert aims != drawn
    lines = [f"{name},{CLASSES[aim]}" for name, aim in sorted(aims.items(), reverse=True)]
    (tmp_path / "mine.csv").write_text("example_id,target\n" + "\n".join(lines))
    done(*run, "--targets", "mine.csv", "--out", "three")
    given = rows(tmp_path / "three", attack="targeted-10")
    assert {row["example_id"]: row["target"] for row in given} == aims
    refused(s3ta(*run, "--out", "three"), 'targets is "given ', '"drawn" now')
    refused(s3ta(*run, "--targets", "mine.csv", "--out", "one"), 'targets is "drawn" there')


def test_a_named_preprocessing_is_used_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FD's: the shorter side to 256 with OpenCV's bicubic filter, the middle 224 x 224 of it."""
    cv2 = pytest.importorskip("cv2")
    monkeypatch.chdir(tmp_path)
    source = write_module(tmp_path, "tints_prepared_files")
    random = np.random.default_rng(3)
    for name in CLASSES:
        (tmp_path / "wide" / "val" / name).mkdir(parents=True)
        pixels = random.integers(0, 256, (5, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((320, 290), Image.Resampling.NEAREST).save(tmp_path / f"wide/val/{name}/0.png")
    run = ("evaluate", f"{source}:make", "--suite", "figure7", "--data", "folder:wide", *FEW, "--no-checks")
    done(*run, "--data-root", ".", "--image-size", "224", "--preprocessing", "fd", "--out", "fd")
    done(*run, "--data-root", ".", "--image-size", "224", "--out", "default")
    clean = rows(tmp_path / "fd", attack="clean")
    means = []
    for row in clean:
        picture = Image.open(tmp_path / "wide" / row["example_id"])
        width = round(320 * 256 / 290)
        scaled = cv2.resize(np.asarray(picture), (width, 256), interpolation=cv2.INTER_CUBIC)
        left, top = (width - 224) // 2, (256 - 224) // 2
        pixels = scaled[top : top + 224, left : left + 224].astype(np.float64)
        means.append(pixels.mean(axis=(0, 1)) / 255)
    expected = losses(logits_of(np.stack(means)), [row["label"] for row in clean])
    np.testing.assert_allclose([row["loss"] for row in clean], expected, rtol=1e-3)  # a byte may be one off
    assert [row["loss"] for row in rows(tmp_path / "default", attack="clean")] != [row["loss"] for row in clean]
    told = Ledger.read(tmp_path / "fd").manifest["data"]["preprocessing"]
    assert (told["name"], told["resize"], told["image_size"]) == ("fd", 256, 224)


def wordnet_folder(root: Path, names: tuple[str, ...], size: int = 40) -> Path:
    """`root/WNID/*.png` for these classes, as ImageNet-A is laid out; in a few of them there are pictures."""
    random = np.random.default_rng(5)
    for name in names:
        (root / name).mkdir(parents=True)
    for name in names[:: len(names) // 4]:
        coarse = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((size + 13, size), Image.Resampling.BICUBIC).save(root / name / "a.png")
    return root


@pytest.mark.parametrize("answers", ["data", "model"])
@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_imagenet_a_is_answered_among_200_and_among_1000_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, answers: str
) -> None:
    """Predictions by hand: the library's network under seed 0 on what torchvision's transforms make of the files."""
    import timm
    from torchvision.models import squeezenet1_1

    monkeypatch.chdir(tmp_path)
    root = wordnet_folder(tmp_path / "hard", IMAGENET_A_WNIDS)
    name, size = ("timm:test_resnet", 64) if library == "timm" else ("torchvision:squeezenet1_1", 48)
    run = ("evaluate", name, "--weights", "random", "--image-size", str(size), "--suite", "figure7", *FEW)
    shown = done(*run, "--data", f"folder:{root}", "--match-classes", answers, "--no-checks", "--out", "out")
    assert "AURRA" in shown.stdout
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = (timm.create_model("test_resnet") if library == "timm" else squeezenet1_1()).eval()
    resize, mean, std = (
        (int(size / 0.95), (0.5,) * 3, (0.5,) * 3)
        if library == "timm"
        else (size * 256 // 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    prepare = transforms.Compose(
        [transforms.Resize(resize), transforms.CenterCrop(size), transforms.ToTensor(), transforms.Normalize(mean, std)]
    )
    places = [imagenet_wnids().index(wnid) for wnid in IMAGENET_A_WNIDS]
    clean = rows(tmp_path / "out", attack="clean")
    assert len(clean) == 4
    for row in clean:
        with torch.no_grad():
            picture = torch.as_tensor(prepare(Image.open(root / row["example_id"])))
            logits = net(picture[None])[0].double()
        wnid = row["example_id"].split("/")[0]
        chosen = logits[places] if answers == "data" else logits
        order = IMAGENET_A_WNIDS if answers == "data" else imagenet_wnids()
        assert row["label"] == order.index(wnid)
        assert row["prediction"] == int(chosen.argmax())
        assert row["confidence"] == pytest.approx(float(chosen.softmax(dim=0).max()), rel=1e-3)
        expected = float(chosen.logsumexp(dim=0) - chosen[row["label"]])
        assert row["loss"] == pytest.approx(expected, rel=1e-3)
    ways = len(Ledger.read(tmp_path / "out").manifest["data"]["classes"])
    assert ways == (200 if answers == "data" else 1000)


@pytest.mark.parametrize(
    ("name", "size"), [("timm:test_resnet", 160), ("torchvision:squeezenet1_1", 64)], ids=["timm", "torchvision"]
)
def test_networks_of_the_libraries_are_measured_on_real_photographs(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int
) -> None:
    """The ImageNet sample is training data and the weights are random: only that it runs, and says so, is of interest."""
    if not (data_folder / "imagenet-sample").is_dir():
        pytest.skip("the ImageNet sample is not there")
    monkeypatch.chdir(tmp_path)
    run = ("evaluate", name, "--weights", "random", "--data", "folder:imagenet-sample", "--data-root", data_folder)
    more = ("--suite", "table1", "--tiny", "--limit", "4", "--no-checks", *FEW)
    shown = done(*run, *more, *(() if size == 160 else ("--image-size", str(size))), "--out", "out")
    assert "The clean accuracy is at chance" in shown.output
    manifest = Ledger.read(tmp_path / "out").manifest
    assert manifest["data"]["classes"] == list(imagenet_wnids())
    assert manifest["data"]["shape"] == [3, size, size]
    assert manifest["data"]["preprocessing"]["rounding"] == "torchvision"
    assert manifest["model"]["config"]["weights"] == "random, seed 0"
    assert str(data_folder) not in told_in(tmp_path / "out")


def test_somebodys_s3ta_still_gets_the_attacks_on_glimpses(words: tuple[str, ...], tmp_path: Path) -> None:
    more = """
def sequential():
    net = s3ta.create_model("s3ta_2_resnetv2_mini", num_classes=3, image_size=32)
    return s3ta.Classifier(net, name="theirs", num_classes=3, image_size=32, mean=(0.5,), std=(0.25,))
"""
    source = write_module(tmp_path, "tints_sequential", more)
    run = ("evaluate", f"{source}:sequential", "--attack", "all-glimpses-100", "--attack", "pgd-100", *words[:2])
    done(*run, *FEW, "--tiny", "--limit", "4", "--no-checks", "--out", "out")
    found = {row["attack"] for row in rows(tmp_path / "out")}
    assert found == {"clean", "all-glimpses-2", "pgd-2"}
    settings = {one["name"]: one for one in Ledger.read(tmp_path / "out").manifest["suite"]["attacks"]}
    assert settings["all-glimpses-2"]["glimpses"] == "all"
    plain = ("evaluate", f"{source}:make", "--attack", "all-glimpses-100", *words)
    refused(s3ta(*plain, "--out", "never"), "the attack looks at glimpses, and the model takes none")
    assert not (tmp_path / "never").exists()


def test_shards_of_a_foreign_model_make_up_the_evaluation(words: tuple[str, ...], tmp_path: Path) -> None:
    source = write_module(tmp_path, "tints_shards")
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--no-checks")
    done(*run, "--out", "whole")
    first = done(*run, "--shard", "1/2", "--out", "parts")
    assert "3 of 9 chunks are still missing" in first.output
    done(*run, "--shard", "2/2", "--out", "parts", "--prefetch", "1")
    assert chunks(tmp_path / "parts") == chunks(tmp_path / "whole")


def test_predict_answers_for_models_that_are_not_ours(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    net = timm.create_model("test_resnet").eval()
    honest = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **more: net if pretrained else honest(name)
    )
    path = pictures / "val" / "red" / "3.png"
    shown = done("predict", "timm:test_resnet", path, "--top", "2")
    prepare = transforms.Compose([transforms.Resize(168), transforms.CenterCrop(160), transforms.ToTensor()])
    with torch.no_grad():
        shares = net((torch.as_tensor(prepare(Image.open(path)))[None] - 0.5) / 0.5)[0].softmax(dim=0)
    lines = [line.split() for line in shown.stdout.splitlines() if "%" in line]
    assert [int(name) for _, name in lines] == shares.topk(2).indices.tolist()
    more = """
def named():
    return s3ta.Classifier(Tint(), name="tints", num_classes=3, image_size=8, classes=("blue", "green", "red"))
"""
    source = write_module(tmp_path, "tints_predict", more)
    shown = done("predict", f"{source}:named", path)
    assert next(line.split()[-1] for line in shown.stdout.splitlines() if "%" in line) == "red"


def test_pretrained_weights_that_cannot_be_fetched_are_one_sentence(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    def unreachable(name: str, pretrained: bool = False, **more: object) -> torch.nn.Module:
        raise ConnectionError("no route to huggingface.co")

    monkeypatch.setattr(timm, "create_model", unreachable)
    result = s3ta("evaluate", "timm:test_resnet", *SHORT, *words, "--out", "never")
    refused(result, "timm:test_resnet could not be fetched", "--weights FILE", "no route to huggingface.co")
    assert not (tmp_path / "never").exists()
