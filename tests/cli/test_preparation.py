"""Images are prepared one way: the same for an evaluation and for single answers, and it is said whose way it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision import transforms

from s3ta.data import DataConfig, fetch_batch, get_preprocessing
from s3ta.data.preprocessing import Preprocessing
from s3ta.evaluate import get_suite
from s3ta.models import EvaluationTransform, LoadOptions, model_metadata, open_model, save_pretrained, select_outputs
from s3ta.recipes import get_recipe, shrink_recipe
from s3ta.records import Ledger
from s3ta.train import TrainConfig
from s3ta.workflow import EvaluationRequest, ExampleSelection, RuntimeOptions, open_for_evaluation
from s3ta.workflow.fit_data_to_model import bring_together
from s3ta.workflow.prediction import prepared_images

from .tints import CLASSES, FEW, done, refused, rows, s3ta, write_module, write_pictures

QUICK = ("--suite", "figure7", "--no-checks", *FEW)


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of two pictures that are no squares and have detail, so that every way to cut them shows."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(4)
    for name in CLASSES:
        folder = tmp_path / "photographs" / "val" / name
        folder.mkdir(parents=True)
        for number in range(2):
            pixels = random.integers(0, 256, (61, 83, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photographs"


def trained(folder: Path, data: DataConfig, size: int, channels: int) -> Path:
    """A run folder whose recipe has these data; the weights are fresh."""
    from s3ta.models import create_model

    folder.mkdir()
    recipe = shrink_recipe(get_recipe("digits/resnetv2_mini_dense"))
    settings = recipe.model_dump(mode="json")
    settings["data"] = data.model_dump(mode="json")
    settings["model"]["num_classes"] = 3
    settings["model"]["vision"] |= {"image_size": size, "in_channels": channels}
    config = TrainConfig.model_validate_json(json.dumps(settings))
    (folder / "recipe.json").write_text(config.model_dump_json())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("resnetv2_mini", num_classes=3, image_size=size, in_channels=channels)
    save_pretrained(model, folder / "model", list(CLASSES))
    return folder


def assert_same(
    source: str, opening: LoadOptions | None, data: DataConfig | None, preprocessing: Preprocessing | None, root: Path
) -> torch.Tensor:
    """What an evaluation shows the model is what a single answer is made of: pixels and logits, to the last bit."""
    runtime = RuntimeOptions(root, "cpu")
    subject = open_for_evaluation(source, opening, data, "test", runtime)
    request = EvaluationRequest(get_suite("figure7"), ExampleSelection(data=data), runtime=runtime)
    evaluation = bring_together(subject, request, subject.model)
    evaluated = fetch_batch(evaluation.dataset, evaluation.positions).images
    files = [root / "photographs" / name for name in evaluation.ids]
    single = torch.cat(list(prepared_images(open_for_evaluation(source, opening), files, preprocessing)))
    assert torch.equal(evaluated, single)
    with torch.no_grad():
        assert torch.equal(subject.model(evaluated), subject.model(single))
    return evaluated


RECIPES = {
    "resized": {"resize": 96},
    "named": "fd",
    "aliased": {"resize": 50, "interpolation": "bicubic_aliased", "rounding": "half_up"},
    "cut": {"interpolation": "none"},
    "default": None,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", RECIPES)
def test_a_run_prepares_files_as_its_recipe_does(photographs: Path, way: str, channels: int) -> None:
    size = 224 if way == "named" else 32
    data = DataConfig.model_validate(
        {"source": "folder:photographs", "preprocessing": RECIPES[way], "image_size": size, "channels": channels}
    )
    run = trained(photographs.parent / "run", data, size, channels)
    shown = assert_same(str(run), None, None, None, photographs.parent)
    other = assert_same(str(run), None, DataConfig(source="folder:photographs"), None, photographs.parent)
    assert torch.equal(shown, other), "the recipe's, too, where the same files are named with --data"
    res = get_preprocessing("default")
    chosen = assert_same(
        str(run), None, DataConfig(source="folder:photographs", preprocessing=res), res, photographs.parent
    )
    assert torch.equal(chosen, shown) is (way == "default")


@pytest.mark.parametrize("name", [None, "default", "Res256Crop224", "BicubicRes256Crop224", "Res224", "fd"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_factory_answers_for_files_as_it_is_measured(photographs: Path, name: str | None, channels: int) -> None:
    more = "\n\ndef flat():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.LazyLinear(3))\n"
    source = write_module(photographs.parent, f"tints_prepared_{channels}", more)
    size = 224 if name not in (None, "default") else 48
    opening = LoadOptions(image_size=size, in_channels=channels)
    how = None if name is None else get_preprocessing(name)
    data = DataConfig(source="folder:photographs", preprocessing=how)
    assert_same(f"{source}:flat", opening, data, how, photographs.parent)


@pytest.mark.parametrize(
    "source", ["timm:test_resnet", "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_large.IMAGENET1K_V1"]
)
def test_a_network_of_a_library_answers_for_files_as_it_is_measured(photographs: Path, source: str) -> None:
    opening = LoadOptions(weights="random", image_size=48, num_classes=3)
    assert_same(source, opening, DataConfig(source="folder:photographs"), None, photographs.parent)
    some = select_outputs(open_model(source, opening), [2, 0])
    assert model_metadata(some).origins == model_metadata(open_model(source, opening)).origins


def test_predict_takes_the_options_of_evaluate(photographs: Path) -> None:
    """23.p, 23.q: what an error of `predict` advises can be given; the answers are those of the evaluation."""
    source = write_module(photographs.parent, "tints_options", "\n\ndef blank():\n    return Tint((0, 1, 2))\n")
    weight = 3.0 * torch.eye(3)[[2, 1, 0]][:, :, None, None]
    torch.save({"head.weight": weight, "head.bias": torch.zeros(3), "loss.pos": torch.ones(1)}, "best.pt")
    Path("names.txt").write_text("\n".join(CLASSES))
    said = ("--weights", "best.pt", "--ignore-keys", "loss", "--image-size", "24", "--mean", "0.4", "--std", "0.3")
    more = ("--class-names", "names.txt", "--channel-order", "bgr", "--preprocessing", "default", "--num-classes", "3")
    refused(s3ta("predict", f"{source}:blank", "photographs/val/red/0.png"), "give --image-size")
    done("evaluate", f"{source}:blank", *said, *more, "--data", f"folder:{photographs}", *QUICK, "--out", "out")
    measured = rows(Path("out"), attack="clean")
    files = [photographs / row["example_id"] for row in measured]
    shown = done("predict", f"{source}:blank", *files, *said, *more, "--top", "1")
    answers = [line.split() for line in shown.stdout.splitlines() if "%" in line]
    assert [name for _, name in answers] == [CLASSES[row["prediction"]] for row in measured]
    shares = [float(share.rstrip("%")) for share, _ in answers]
    np.testing.assert_allclose(shares, [100 * row["confidence"] for row in measured], atol=0.06)
    shown = done(
        "predict", "torchvision:squeezenet1_1", "photographs/val/red/0.png", "--weights", "random", "--top", "1"
    )
    assert "%" in shown.stdout


def test_in_channels_makes_a_grey_network_of_a_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    torch.save(net.state_dict(), "grey.pt")
    for name in CLASSES:
        (tmp_path / "grey" / "val" / name).mkdir(parents=True)
        Image.new("L", (40, 40), 30 * len(name)).save(tmp_path / "grey" / "val" / name / "0.png")
    start = ("timm:test_resnet", "--num-classes", "3", "--weights", "grey.pt")
    refused(s3ta("predict", *start, "grey/val/red/0.png"), "See --in-channels 1")
    said = ("--in-channels", "1", "--mean", "0.5", "--std", "0.5", "--image-size", "32")
    done("evaluate", *start, *said, "--data", f"folder:{tmp_path / 'grey'}", *QUICK, "--out", "out")
    assert Ledger.read(tmp_path / "out").manifest["data"]["shape"] == [1, 32, 32]
    assert "%" in done("predict", *start, *said, "grey/val/red/0.png").stdout


# --- whose way it is ----------------------------------------------------------------------------------------------


def line_of(result: object, start: str = "Images: ") -> str:
    return next(line for line in result.output.splitlines() if line.startswith(start))  # pyright: ignore


def test_the_line_above_the_table_says_whose_preparation_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    source = write_module(tmp_path, "tints_line")
    run = ("evaluate", f"{source}:make", "--data", f"folder:{tmp_path / 'pictures'}", "--image-size", "224", *QUICK)
    shown = done(*run, "--out", "a")
    default = "the default, for nothing says otherwise"
    assert line_of(shown) == (
        f"Images: default (shorter side to 224 px, centre of 224 px, bicubic), {default}. Normalisation: none, {default}."
    )
    assert shown.stdout.index("Images: ") < shown.stdout.index("AURRA")
    shown = done(*run, "--preprocessing", "Res256Crop224", "--mean", "0.1,0.2,0.3", "--std", "1", "--out", "b")
    assert line_of(shown) == (
        "Images: Res256Crop224 (shorter side to 256 px, centre of 224 px, bilinear), given. Normalisation: mean 0.1, 0.2, "
        "0.3, std 1, given."
    )
    told = Ledger.read(tmp_path / "b").manifest["informative"]["origins"]
    assert told == {"images": "given", "normalisation": "given"}
    timm = ("evaluate", "timm:test_resnet", "--weights", "random", "--num-classes", "3", "--image-size", "32")
    shown = done(*timm, "--data", f"folder:{tmp_path / 'pictures'}", *QUICK, "--out", "c")
    assert ", timm's. Normalisation: mean 0.5, 0.5, 0.5, std 0.5, 0.5, 0.5, timm's." in line_of(shown)
    np.savez("arrays.npz", images=np.zeros((3, 8, 8, 3), np.uint8), labels=np.arange(3))
    shown = done("evaluate", f"{source}:make", "--data", "npz:arrays.npz", "--data-root", ".", *QUICK, "--out", "d")
    assert line_of(shown).startswith("Images: not resized, as they are stored. Normalisation: none, ")


def test_an_older_evaluation_shows_its_preparation_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    source = write_module(tmp_path, "tints_old")
    run = ("evaluate", f"{source}:make", "--data", f"folder:{tmp_path / 'pictures'}", "--image-size", "8", *QUICK)
    done(*run, "--out", "a")
    path = tmp_path / "a" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["informative"]["origins"]
    path.write_text(json.dumps(manifest))
    shown = done(*run, "--out", "a")
    assert line_of(shown) == ("Images: default (shorter side to 8 px, centre of 8 px, bicubic). Normalisation: none.")


@pytest.mark.parametrize("half", [("--mean", "0.5"), ("--std", "0.5")])
@pytest.mark.parametrize("source", ["factory", "timm:test_resnet"])
def test_half_a_normalisation_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, half: tuple[str, str], source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    name = f"{write_module(tmp_path, 'tints_half')}:make" if source == "factory" else source
    more = () if source == "factory" else ("--weights", "random")
    other = "--std" if half[0] == "--mean" else "--mean"
    for command in (
        ("evaluate", name, "--data", f"folder:{tmp_path / 'pictures'}", *QUICK),
        ("predict", name, "x.png"),
    ):
        refused(s3ta(*command, "--image-size", "32", *more, *half), f"{half[0]} is given without {other}: give both")


def test_a_normalisation_stored_with_the_weights_is_told_and_may_be_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_module(tmp_path, "tints_stored")
    state = {"head.weight": torch.ones(3, 3, 1, 1), "head.bias": torch.zeros(3)}
    torch.save(state | {"mean": torch.tensor([0.1, 0.2, 0.3]), "std": torch.tensor([0.5])}, "w.pt")
    for mean in (None, (0.1, 0.2, 0.3)):
        model = open_model("tints_stored:make", LoadOptions(weights="w.pt", image_size=8, mean=mean))
        assert model_metadata(model).origins.normalisation == "stored with the weights"


# --- weights from a file, of a network that a library knows -------------------------------------------------------


def saved_torchvision(name: str, path: str, **settings: object) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        net = torchvision.models.get_model(name, num_classes=5, **settings)
    torch.save(net.state_dict(), path)
    return net.eval()


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_inputs_are_transformed_where_the_file_name_or_the_tag_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    url = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].url
    file = url.rpartition("/")[2]
    there = saved_torchvision(name, file, aux_logits=True, init_weights=False, transform_input=True)
    (tmp_path / "mine.pth").write_bytes((tmp_path / file).read_bytes())
    image = torch.rand((1, 3, 96, 96), generator=torch.Generator().manual_seed(1))
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    def answers(weights: str) -> torch.Tensor:
        subject = open_for_evaluation(f"torchvision:{name}", LoadOptions(weights=weights, num_classes=5, image_size=96))
        assert isinstance(subject.model.net, torch.nn.Module)
        assert subject.model.net.transform_input is there.transform_input
        with torch.no_grad():
            return subject.model(image)

    with torch.no_grad():
        torch.testing.assert_close(answers(file), there(normalise(image)), rtol=1e-4, atol=1e-5)
        told = capsys.readouterr().err
        assert f"note: by its name, {file} holds the weights that torchvision calls IMAGENET1K_V1" in told
        there.transform_input = False  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(answers("mine.pth"), there(normalise(image)), rtol=1e-4, atol=1e-5)
    told = capsys.readouterr().err
    assert "warning: mine.pth does not say whether its network transforms its input" in told
    assert f"name them: torchvision:{name}.IMAGENET1K_V1." in told


@pytest.mark.parametrize(
    ("source", "file", "view", "remark"),
    [
        (
            "torchvision:mobilenet_v3_large",
            "mobilenet_v3_large-8738ca79.pth",
            EvaluationTransform(256, "bilinear"),
            "calls IMAGENET1K_V1",
        ),
        (
            "torchvision:mobilenet_v3_large",
            "mobilenet_v3_large-5c1a4163.pth",
            EvaluationTransform(232, "bilinear"),
            "calls IMAGENET1K_V2",
        ),
        (
            "torchvision:mobilenet_v3_large",
            "mine.pth",
            EvaluationTransform(232, "bilinear"),
            "torchvision:mobilenet_v3_large.IMAGENET1K_V1 (",
        ),
        ("torchvision:mobilenet_v3_large.IMAGENET1K_V1", "mine.pth", EvaluationTransform(256, "bilinear"), None),
        ("torchvision:squeezenet1_1", "mine.pth", EvaluationTransform(256, "bilinear"), None),
        (
            "torchvision:squeezenet1_1",
            "squeezenet1_1-b8a52dc0.pth",
            EvaluationTransform(256, "bilinear"),
            "calls IMAGENET1K_V1",
        ),
    ],
)
def test_what_a_tag_would_decide_is_derived_or_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    file: str,
    view: EvaluationTransform,
    remark: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    saved_torchvision(source.partition(":")[2].partition(".")[0], file)
    card = model_metadata(open_model(source, LoadOptions(weights=file, num_classes=5)))
    assert card.view == view
    assert (len(card.origins.remarks) == 1) is (remark is not None)
    assert remark is None or remark in card.origins.remarks[0]
    assert not any("DEFAULT" in told for told in card.origins.remarks), "only another name of one of the tags"
    assert not any("calls" in note or "does not say" in note for note in card.config["notes"]), "identity is as before"


def test_what_a_tag_of_timm_would_decide_is_derived_or_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    monkeypatch.chdir(tmp_path)
    torch.save(timm.create_model("resnet18", num_classes=5).state_dict(), "mine.pth")
    url = timm.get_pretrained_cfg("resnet18.tv_in1k").url or ""
    named = url.rpartition("/")[2] or "none.pth"
    (tmp_path / named).write_bytes((tmp_path / "mine.pth").read_bytes())
    resize = {}
    for source, file in (("resnet18", "mine.pth"), ("resnet18.tv_in1k", "mine.pth"), ("resnet18", named)):
        card = model_metadata(open_model(f"timm:{source}", LoadOptions(weights=file, num_classes=5)))
        resize[source, file] = (card.view, card.origins.remarks)
    assert "name another instead of timm:resnet18" in resize["resnet18", "mine.pth"][1][0]
    assert "as for timm:resnet18.a1_in1k (224 px, crop 0.95, bicubic" in resize["resnet18", "mine.pth"][1][0]
    assert resize["resnet18.tv_in1k", "mine.pth"] == (EvaluationTransform(256, "bilinear"), ())
    if url:
        assert resize["resnet18", named][0] == EvaluationTransform(256, "bilinear")


@pytest.mark.parametrize("style", ["timm", "transformers"])
def test_a_folder_of_the_hub_brings_its_preparation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    import timm
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), folder / "model.safetensors")
    if style == "timm":
        known = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.5, "interpolation": "bilinear"}
        known |= {"input_size": [3, 64, 64], "num_classes": 5}
        content = {"architecture": "test_resnet", "num_classes": 5, "pretrained_cfg": known}
    else:
        content = {"architectures": ["ResNetForImageClassification"]}
        (folder / "preprocessor_config.json").write_text(
            json.dumps({"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]})
        )
    (folder / "config.json").write_text(json.dumps(content))
    card = model_metadata(open_model("timm:test_resnet", LoadOptions(weights="hub", num_classes=5, image_size=64)))
    assert card.config["mean"] == pytest.approx([0.1, 0.2, 0.3])
    assert card.config["std"] == pytest.approx([0.4, 0.5, 0.6])
    assert card.config["weights"] == "file hub/model.safetensors"
    assert (card.view == EvaluationTransform(128, "bilinear")) is (style == "timm")
    assert card.name == "test_resnet@hub"
    assert card.origins.normalisation == "stored with the weights"
    given = LoadOptions(weights="hub", num_classes=5, image_size=64, mean=(0.5,), std=(0.2,))
    assert model_metadata(open_model("timm:test_resnet", given)).config["mean"] == [0.5]
    advice = (
        "write timm:test_resnet --weights hub" if style == "timm" else "ResNetForImageClassification, of transformers"
    )
    refused(s3ta("predict", "hub", "x.png"), advice)


# --- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "advice"),
    [
        ("my_models.py:model", "not by its file: write my_models:model."),
        ("./my_models.py:model", "write my_models:model."),
        ("nets/small.py:make", "write nets.small:make."),
        ("nets/small.py:Nets.make", "write nets.small:Nets.make."),
        ("../other/small.py:make", "go to the folder ../other and write small:make."),
        ("/somewhere/small.py:make", "go to the folder /somewhere and write small:make."),
    ],
)
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_a_factory_named_by_its_file_is_answered_with_its_module_name(source: str, advice: str, verb: str) -> None:
    refused(s3ta(verb, source, *(["x.png"] if verb == "predict" else [])), advice)


@pytest.mark.parametrize(
    ("setting", "ours"),
    [
        ("attack.eps=8/255", "attack.radius"),
        ("attack.epsilon=0.1", "attack.radius"),
        ("attack.alpha=0.1", "attack.step_size"),
        ("attack.steps=10", "attack.num_attack_steps"),
        ("attack.n_iter=10", "attack.num_attack_steps"),
        ("attack.restarts=3", "attack.num_restarts"),
        ("attack.targeted=true", "attack.objective"),
    ],
)
def test_settings_under_names_of_other_libraries_are_answered_with_ours(
    tmp_path: Path, setting: str, ours: str
) -> None:
    source = write_module(tmp_path, "tints_synonyms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        result = s3ta("evaluate", f"{source}:make", "--image-size", "8", "--data", "folder:x", setting)
    refused(result, f"Unknown setting '{setting.partition('=')[0]}'. Here it is called {ours}.")


def test_a_tilde_in_quotes_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_pictures(tmp_path / "home" / "pictures")
    source = write_module(tmp_path, "tints_home")
    run = ("evaluate", f"{source}:make", "--data", "folder:~/pictures", "--image-size", "8", *QUICK)
    done(*run, "--out", "~/results/x")
    assert (tmp_path / "home" / "results" / "x" / "manifest.json").is_file()
    assert not (tmp_path / "~").exists()
    assert "%" in done("predict", f"{source}:make", "--image-size", "8", "~/pictures/val/red/0.png").stdout


def test_files_are_read_one_by_one_as_they_are_asked_for(tmp_path: Path, photographs: Path, monkeypatch) -> None:
    """However many there are, one is held at a time."""
    from s3ta.workflow import prediction

    run = trained(tmp_path / "run", DataConfig(source="folder:photographs", image_size=32), 32, 3)
    files = sorted(photographs.rglob("*.png"))[:3]
    reads: list[Path] = []
    read = prediction.load_image
    monkeypatch.setattr(prediction, "load_image", lambda path, *more: reads.append(path) or read(path, *more))
    for number, image in enumerate(prepared_images(open_for_evaluation(str(run)), files), 1):
        assert image.shape == (1, 3, 32, 32)
        assert reads == files[:number]
