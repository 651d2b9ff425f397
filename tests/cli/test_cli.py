"""The program as a newcomer meets it: every verb on real input, every mistake answered in one sentence with exit code 2."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from s3ta.cli import app
from s3ta.data import ClutteredDigits
from s3ta.files import sole_use
from s3ta.models import create_model, save_pretrained
from s3ta.records import Ledger


def s3ta(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny S3TA, trained and evaluated by the ordinary commands."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert s3ta("train", "digits/s3ta_4", "--tiny", "--out", folder).exit_code == 0
    done = s3ta("evaluate", folder, "--tiny", "--threads", "1")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The same run, free to be damaged."""
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    path = tmp_path / "digit.png"
    Image.fromarray(ClutteredDigits("test").image(3)[0]).save(path)
    return path


def refused(result: Result, *words: str) -> None:
    """One sentence on stderr, nothing on stdout, exit code 2, no traceback."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("note: --batch-size is what goes")]
    assert line.startswith("s3ta: ")
    assert "Traceback" not in result.output
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def test_every_verb_has_help_with_examples() -> None:
    for verb in ("demo", "train", "show", "evaluate", "export", "report", "predict", "list"):
        shown = s3ta(verb, "--help")
        assert shown.exit_code == 0
        assert "Examples:" in shown.stdout
        assert "[default: " in shown.stdout or verb == "list"
    assert s3ta("--version").stdout.startswith("s3ta ")


def test_the_verbs_and_options_are_those_that_people_have_learned() -> None:
    """A change here breaks somebody's script: it belongs into the CHANGELOG."""
    from typer.main import get_command

    found = {name: sorted(p.name for p in command.params) for name, command in get_command(app).commands.items()}
    assert found == {
        "demo": ["out", "tiny"],
        "train": [
            "batch_size",
            "data_root",
            "device",
            "download",
            "extend",
            "out",
            "overrides",
            "recipe",
            "return_memory",
            "tensorboard",
            "tiny",
        ],
        "show": ["batch_size", "fields", "gpus", "hardware", "overrides", "recipe", "utilization"],
        "evaluate": [
            "attack",
            "attack_precision",
            "batch_size",
            "budget",
            "channel_order",
            "channels_last",
            "checks",
            "class_names",
            "compiled",
            "data",
            "data_root",
            "device",
            "download",
            "exhaustive",
            "full_checks",
            "ids",
            "ignore_keys",
            "image_size",
            "in_channels",
            "keep_images",
            "match_classes",
            "max_passes",
            "mean",
            "micro_batch",
            "model",
            "num_classes",
            "num_examples",
            "num_validation",
            "on_unreadable",
            "out",
            "overrides",
            "prefetch",
            "preprocessing",
            "radius",
            "return_memory",
            "search",
            "seed",
            "shard",
            "split",
            "std",
            "strict",
            "suite",
            "targets",
            "threads",
            "tiny",
            "transfer",
            "weights",
        ],
        "convert": ["file", "out"],
        "export": ["data_root", "fields", "folder", "out"],
        "report": ["findings", "out", "paper", "runs", "suite", "table"],
        "predict": [
            "channel_order",
            "class_names",
            "device",
            "ignore_keys",
            "image_size",
            "images",
            "in_channels",
            "mean",
            "model",
            "num_classes",
            "preprocessing",
            "return_memory",
            "std",
            "top",
            "weights",
        ],
        "list": ["kind"],
    }


def test_lists_name_what_can_be_used() -> None:
    assert "s3ta_16_resnetv2_152" in s3ta("list", "models").stdout.split()
    assert "digits/s3ta_4" in s3ta("list", "recipes").stdout
    suites, attacks = s3ta("list", "suites").stdout, s3ta("list", "attacks").stdout
    for name in (
        "digits",
        "quick",
        "table1",
        "table6",
        "figure7",
        "robustbench",
        "autoattack",
        "sequential",
        "local",
        "unmask",
        "strongest",
    ):
        assert any(line.split()[0] == name and len(line.split()) > 3 for line in suites.splitlines()), name
    assert "The paper's Table 1: random-targeted PGD, 16/255, 10 to 1,000 steps" in suites
    assert {"pgd-100", "adam-250", "spsa-100", "apgd-t", "square"} <= {line.split()[0] for line in attacks.splitlines()}
    assert "The paper's Adam attack: random target, 250 steps" in attacks
    assert all(len(line.split()) > 3 for line in attacks.splitlines()), "each says what it is"


def test_show_prints_a_recipe_that_can_be_used_again(tmp_path: Path) -> None:
    shown = s3ta("show", "digits/s3ta_4", "attack.radius=16/255", "seed=7")
    assert shown.exit_code == 0
    assert "603,874 parameters" in shown.stderr
    saved = tmp_path / "mine.json"
    saved.write_text(shown.stdout)
    again = s3ta("show", saved)
    assert json.loads(again.stdout) == json.loads(shown.stdout)
    assert json.loads(again.stdout)["attack"]["radius"] == 16 / 255
    assert (
        "attack.radius = 0.1\n    How far a pixel may move (linf)" in s3ta("show", "digits/s3ta_4", "--fields").stdout
    )


def test_show_tells_the_cost_on_given_hardware() -> None:
    words = ("show", "imagenet/s3ta_16-10", "--hardware", "h100", "--gpus", "16", "--utilization", "0.5")
    told = s3ta(*words).stderr
    for text in (
        "102,534,056 parameters",
        "2.16 TFLOP",
        "150,120 training steps of 1,024 images",
        "242 MB",
        "of 80 GB per process",
        "185 hours of GPU time on 16 x h100",  # 3.30e20 FLOP / (989e12 x 0.5)
        "Assumed: 50% of the data sheet's peak (989 TFLOP/s in bfloat16)",
    ):
        assert text in told, text
    told = s3ta("show", "imagenet/s3ta_16-10", "--hardware", "v100").stderr
    assert "v100 has no bfloat16 units" in told
    assert "more than the 32 GB of v100: lower compute.attack_batch" in told


def test_show_brings_a_recipe_to_another_batch_size() -> None:
    shown = s3ta("show", "imagenet/s3ta_2-10", "--batch-size", "256", "schedule.num_train_steps=7")
    tree = json.loads(shown.stdout)
    assert (tree["batch_size"], tree["optimizer"]["learning_rate"]) == (256, 0.05)
    assert tree["schedule"]["num_train_steps"] == 7  # what is typed wins
    refused(s3ta("show", "digits/s3ta_4", "--batch-size", "32"), "set batch_size=N")
    refused(s3ta("show", "digits/s3ta_4", "--hardware", "h20"), "Did you mean h200")
    refused(s3ta("show", "imagenet/s3ta_2-10", "--gpus", "3"), "does not divide among 3")


def test_the_evaluation_prints_intervals_and_leaves_records(run: Path) -> None:
    done = s3ta("evaluate", run, "--tiny", "--threads", "1")
    assert done.exit_code == 0
    assert "12.5% [2.2, 47.1]" in done.stdout or "0.0% [0.0, 32.4]" in done.stdout or "%" in done.stdout
    assert Ledger.read(run / "evaluations" / "digits-tiny").complete
    headers = done.stdout.split("\nclean")[0]  # broken over two lines where the terminal is narrow
    for word in ("top-1 (95%", "success (95%", "interval)", "gradients"):
        assert word in headers


def test_a_finished_training_is_not_repeated(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != ".lock"}
    done = s3ta("train", "digits/s3ta_4", "--tiny", "--out", run)
    assert done.exit_code == 0
    assert "Already trained" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_report_writes_one_page(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = s3ta("report", run, "--out", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert str(page) in done.stdout
    assert str(run) not in text
    assert "digits/s3ta_4" in text


def test_predict_prints_classes_with_probabilities(run: Path, digit: Path) -> None:
    done = s3ta("predict", run, digit, digit, "--top", "10")
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in done.stdout.splitlines() if "%" in line]
    assert len(rows) == 20
    assert {name for _, name in rows} == set("0123456789")
    shares = [float(share.rstrip("%")) for share, _ in rows[:10]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.6)


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    refused(s3ta("train", "digits/s3ta_5"), "Unknown recipe 'digits/s3ta_5'", "Did you mean digits/s3ta_4")
    refused(s3ta("show", "digit/s3ta_4"), "Did you mean digits/s3ta_4")
    refused(s3ta("list", "model"), "Did you mean models")
    refused(
        s3ta("train", "digits/s3ta_4", "model.vision.backbone=resnetv2_minni", "--out", tmp_path / "r"), "resnetv2_mini"
    )
    refused(s3ta("train", "digits/s3ta_4", "data.source=digit", "--out", tmp_path / "r"), "Did you mean digits")
    refused(s3ta("train", "missing.json"), "does not exist")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("atack.radius=0.1", "Did you mean attack"),
        ("attack.radiu=0.1", "attack.radius"),
        ("attack.radius", "name=value"),
        ("attack.radius=big", "big"),
        ("attack.radius=NaN", "radius"),
        ("batch_size=1.5", "batch_size"),
        ("batch_size=true", "batch_size"),
        ("seed=one", "seed"),
        ("attack.radius=8/0", "zero"),
        ("data=digits", "data"),
    ],
)
def test_mistyped_overrides_are_refused(override: str, word: str, tmp_path: Path) -> None:
    refused(s3ta("train", "digits/s3ta_4", override, "--out", tmp_path / "r"), word)
    assert not (tmp_path / "r").exists()


def test_missing_or_unfit_data_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "r"
    for source, word in (
        ("folder:flowers", "does not exist"),
        ("npz:none.npz", "does not exist"),
        ("torchvision:CIFAR10", "CIFAR10 is not in"),
        ("torchvision:CIFAR", "Did you mean CIFAR10"),
    ):
        refused(
            s3ta(
                "train", "cifar10/s3ta_4_mini", f"data.source={source}", "--data-root", tmp_path / "data", "--out", out
            ),
            word,
        )
    for name in ("small", "nan"):
        (tmp_path / name).mkdir()
    np.savez(tmp_path / "small" / "train.npz", images=np.zeros((30, 32, 32, 3), np.uint8), labels=np.arange(30) % 7)
    refused(
        s3ta(
            "train",
            "cifar10/s3ta_4_mini",
            f"data.source=npz:{tmp_path}/small",
            "data.num_validation=5",
            "--out",
            out,
        ),
        "The model has 10 classes, but npz:small has 7",
        "model.num_classes=7",
    )
    np.savez(
        tmp_path / "nan" / "train.npz", images=np.full((30, 32, 32, 3), np.nan, np.float32), labels=np.arange(30) % 10
    )
    refused(s3ta("train", "cifar10/s3ta_4_mini", f"data.source=npz:{tmp_path}/nan", "--out", out), "not finite numbers")
    assert not out.exists()


def test_files_that_are_no_images_are_named(run: Path, tmp_path: Path, digit: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    torn = tmp_path / "torn.png"
    torn.write_bytes(digit.read_bytes()[:200])
    refused(s3ta("predict", run, text), "text.png", "cannot be read as an image")
    refused(s3ta("predict", run, torn), "torn.png")
    refused(s3ta("predict", run, tmp_path / "none.png"), "does not exist")
    refused(s3ta("predict", run, tmp_path), "is a folder")
    floats = tmp_path / "nan.tiff"
    Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(floats)
    refused(s3ta("predict", run, floats), "floating-point")


def test_damaged_or_foreign_models_are_named(copy: Path, tmp_path: Path, digit: Path) -> None:
    refused(s3ta("predict", tmp_path / "nowhere", digit), "does not exist")
    refused(s3ta("predict", tmp_path, digit), "is not a model")
    weights = copy / "model" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(s3ta("predict", copy, digit), "model.safetensors is damaged")
    weights.write_bytes(b"\x80\x04pickled")
    refused(s3ta("evaluate", copy, "--tiny"), "damaged, or not a safetensors file")
    weights.write_bytes(whole)
    config = copy / "model" / "config.json"
    described = json.loads(config.read_text())
    described["model"]["num_classes"], described["classes"] = 7, None
    config.write_text(json.dumps(described))
    refused(s3ta("predict", copy, digit), "another number of classes")
    config.write_text('{"format": "something else"}')
    refused(s3ta("predict", copy, digit), "not a config of this program")
    weights.unlink()
    refused(s3ta("predict", copy, digit), "training has not finished")


def test_evaluations_that_do_not_fit_are_refused(copy: Path, tmp_path: Path) -> None:
    refused(s3ta("evaluate", copy, "--suite", "tabel1"), "Did you mean table1")
    refused(s3ta("evaluate", copy, "--tiny", "--num-examples", "5000"), "has 1000")
    refused(s3ta("evaluate", copy, "--tiny", "--threads", "1", "--seed", "1"), "seed is 0 there and 1 now")
    refused(s3ta("evaluate", copy, "--split", "tset"), "Did you mean test")
    refused(s3ta("evaluate", copy, "--data", "folder:none", "--data-root", tmp_path), "does not exist")
    refused(s3ta("evaluate", copy, "--tiny", "--device", "gpu"), "no device 'gpu'")
    refused(s3ta("evaluate", copy / "model", "--suite", "quick"), "--data")


def test_reports_of_nothing_are_refused(copy: Path, tmp_path: Path) -> None:
    refused(s3ta("report", tmp_path / "none"), "s3ta evaluate")
    refused(s3ta("report", copy, "--suite", "quick"), "quick")


def test_a_folder_belongs_to_one_process_at_a_time(copy: Path) -> None:
    with sole_use(copy / "evaluations" / "digits-tiny"):
        refused(s3ta("evaluate", copy, "--tiny", "--threads", "1"), "Another process is at work")


def test_a_run_of_another_recipe_is_never_touched(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file() and path.name != ".lock"}
    refused(s3ta("train", "digits/s3ta_4", "seed=5", "--tiny", "--out", copy), "seed is 0 there and 5 now")
    assert before == {path: path.read_bytes() for path in before}


def test_usage_errors_leave_with_2() -> None:
    for words in (
        (),
        ("train",),
        ("predict", "x"),
        ("demo", "--fast"),
        ("evaluate", "x", "--batch-size", "0"),
        ("nonsense",),
    ):
        assert s3ta(*words).exit_code == (2 if words else s3ta("--help").exit_code or 2)


def test_restarts_and_other_strengths_need_no_suite_of_their_own(run: Path) -> None:
    done = s3ta(
        "evaluate", run, "attack.num_restarts=2", "attack.radius=16/255", "--tiny", "--threads", "1", "--no-checks"
    )
    assert done.exit_code == 0, done.output
    ledger = Ledger.read(run / "evaluations" / "digits-tiny+num_restarts=2+radius=16_255")
    assert set(ledger.table()["restart"].to_pylist()) == {0, 1}
    assert {attack["radius"] for attack in ledger.manifest["suite"]["attacks"]} == {16 / 255}
    refused(s3ta("evaluate", run, "attack.num_restarts=0", "--tiny"), "num_restarts")


def test_report_writes_a_table_of_all_numbers(run: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "page.html", tmp_path / "numbers.csv"
    assert s3ta("report", run, "--suite", "digits-tiny", "--out", page, "--table", table).exit_code == 0
    assert len(table.read_text().splitlines()) == 1 + 5
    refused(
        s3ta("report", run, "--suite", "digits-tiny", "--out", page, "--table", tmp_path / "numbers.xls"),
        ".md, .csv, .tex",
    )


def test_a_changed_recipe_is_marked_as_changed(tmp_path: Path) -> None:
    shown = json.loads(s3ta("show", "digits/s3ta_4", "model.num_glimpses=8", "attack.num_attack_steps=2").stdout)
    assert shown["model"]["name"] == "s3ta_4_resnetv2_mini*"
    assert "attack.num_attack_steps=2, model.num_glimpses=8" in shown["departures"][0]
    shown = json.loads(s3ta("show", "cifar10/s3ta_4_mini", f"data.source=folder:{tmp_path}/flowers").stdout)
    assert not any(str(tmp_path) in note for note in shown["departures"])


def test_a_file_in_the_way_is_named(tmp_path: Path, run: Path) -> None:
    (tmp_path / "file").write_text("here first")
    for words in (
        ("train", "digits/s3ta_4", "--tiny", "--out", tmp_path / "file"),
        ("demo", "--tiny", "--out", tmp_path / "file" / "sub"),
        ("evaluate", run, "--tiny", "--out", tmp_path / "file"),
        ("report", run, "--suite", "digits-tiny", "--out", tmp_path / "file" / "page.html"),
    ):
        result = s3ta(*words)
        assert (result.exit_code, "file" in result.stderr) == (2, True), result.output
        assert (tmp_path / "file").read_text() == "here first"


def test_a_model_with_other_class_names_is_not_scored(copy: Path) -> None:
    config = copy / "model" / "config.json"
    described = json.loads(config.read_text())
    described["classes"] = list("9876543210")
    config.write_text(json.dumps(described))
    refused(s3ta("evaluate", copy, "--tiny", "--threads", "1"), "Class 0 of the model is '9', but digits has '0' there")


def test_records_written_elsewhere_can_be_reported(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "records"
    assert s3ta("evaluate", run, "--tiny", "--threads", "1", "--no-checks", "--out", out).exit_code == 0
    done = s3ta("report", out, "--out", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "page.html").is_file()


FEW = ("--num-examples", "4", "--batch-size", "4", "--threads", "1", "--no-checks")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a plain ResNet with random weights."""
    torch.manual_seed(0)
    model = create_model("resnetv2_mini", num_classes=10, image_size=60, in_channels=1)
    save_pretrained(model, tmp_path_factory.mktemp("plain"), [str(i) for i in range(10)])
    return tmp_path_factory.getbasetemp() / "plain0"


def settings_of(folder: Path) -> dict[str, dict]:
    return {attack["name"]: attack for attack in Ledger.read(folder).manifest["suite"]["attacks"]}


def test_single_attacks_run_at_any_radius(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--attack", "square", "--tiny", *FEW)
    done = s3ta(*words, "--radius", "8/255", "attack.num_restarts=2", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    found = settings_of(tmp_path / "a")
    assert {name: settings["radius"] for name, settings in found.items()} == {"pgd-2": 8 / 255, "square": 8 / 255}
    assert found["pgd-2"]["num_restarts"] == 2
    assert "num_restarts" not in found["square"], "a setting goes to the attacks that have it"
    done = s3ta("evaluate", run, "--attack", "pgd-100", "--tiny", *FEW)
    assert done.exit_code == 0, done.output
    folder = run / "evaluations" / "pgd-100-tiny"
    assert settings_of(folder)["pgd-2"]["radius"] == 0.1, "the recipe's"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--attack", "pgd-10"), "Did you mean pgd-100"),
        (("--attack", "pgd-100", "--attack", "pgd-100"), "named twice"),
        (("--attack", "pgd-100", "--suite", "quick"), "not both"),
        (("--attack", "pgd-100", "--radius", "8"), "write 8/255, not 8"),
        (("--attack", "pgd-100", "--radius", "-0.1"), "not between 0 and 1"),
        (("--attack", "pgd-100", "--radius", "big"), "neither a number nor a fraction"),
        (("--attack", "pgd-100", "--radius", "8/0"), "divides by zero"),
        (("--attack", "pgd-100", "--radius", "8/2/3"), "neither a number nor a fraction"),
        (("--attack", "pgd-100", "--radius", "1e"), "radius"),
        (("--attack", "pgd-100", "--radius", "1/."), "radius"),
        (("--radius", "0.2"), "Suite 'digits' states its own radius"),
        (("--suite", "table1", "--radius", "0.2"), "change it with attack.radius="),
        (("--attack", "pgd-100", "--attack-precision", "float16"), "Did you mean bfloat16"),
        (("--attack", "pgd-100", "attack.step=3"), "attack.step_size"),
        (("--attack", "pgd-100", "--attack", "square", "attack.nonsense=3"), "Unknown setting 'attack.nonsense'"),
        (("--attack", "pgd-100", "--attack", "square", "attack.radius=2"), "radius"),
        (("--attack", "targeted-1000", "--attack", "pgd-100", "attack.num_attack_steps=10"), "read_outs"),
        (("--transfer", "nowhere", "--suite", "quick"), "--transfer scores what is there"),
        (("--transfer", "nowhere"), "nowhere does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_attacks_are_answered_in_one_sentence(run: Path, words: tuple[str, ...], told: str) -> None:
    before = set((run / "evaluations").iterdir())
    refused(s3ta("evaluate", run, *words, *(() if "--transfer" in words else FEW)), told)
    assert set((run / "evaluations").iterdir()) == before


def test_a_budget_is_told_before_and_what_it_left_out_after(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--attack", "annealed-100", "--tiny", *FEW)
    done = s3ta(*words, "--max-passes", "6", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "Budget: 6 passes per example, so at most 24 in all." in " ".join(done.stderr.split())
    assert "warning: incomplete: The budget left out 4 records of 'annealed-2'" in done.stderr
    assert "annealed-2" not in done.stdout
    assert Ledger.read(tmp_path / "a").manifest["budget"] == 6


def test_the_cost_is_announced_before_the_run(run: Path, tmp_path: Path) -> None:
    """4 examples; 2 steps with 2 restarts: 2 x 2 gradients, 2 verdicts and a clean one."""
    done = s3ta(
        "evaluate", run, "--attack", "pgd-100", "attack.num_restarts=2", "--tiny", *FEW, "--out", tmp_path / "a"
    )
    assert "at most 16 gradient and 12 other forward evaluations" in " ".join(done.stderr.split())


def test_options_of_the_attack_are_recorded(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--tiny", *FEW, "--out", tmp_path / "a")
    done = s3ta(*words, "--exhaustive", "--attack-precision", "bfloat16", "--channels-last")
    assert done.exit_code == 0, done.output
    manifest = Ledger.read(tmp_path / "a").manifest
    assert manifest["exhaustive"] is True
    assert manifest["search"] == {"precision": "bfloat16", "compiled": False, "channels_last": True}
    refused(s3ta(*words), "exhaustive is true there and false now")


def test_former_words_still_work_and_the_one_with_another_meaning_says_so(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--tiny", "--num-examples", 4, "--threads", 1, "--no-checks")
    now = s3ta(
        *words, "--batch-size", 2, "--attack-precision", "bfloat16", "--max-passes", 9, "--out", tmp_path / "now"
    )
    then = s3ta(*words, "--micro-batch", 2, "--search", "bfloat16", "--budget", 9, "--out", tmp_path / "then")
    assert now.exit_code == then.exit_code == 0, now.output + then.output
    new, old = (Ledger.read(tmp_path / name) for name in ("now", "then"))
    assert {**new.manifest, "informative": 0} == {**old.manifest, "informative": 0}
    assert new.table().equals(old.table())
    assert (new.manifest["micro_batch"], new.manifest["search"]["precision"], new.manifest["budget"]) == (
        2,
        "bfloat16",
        9,
    )
    assert [
        result.stderr.count("note: --batch-size is what goes through the model at once") for result in (now, then)
    ] == [1, 0]
    refused(s3ta(*words, "--micro-batch", 4, "--batch-size", 2), "write --batch-size 4 --prefetch 2")
    refused(
        s3ta(*words, "--search", "float32", "--attack-precision", "float32"), "the former word for --attack-precision"
    )
    helped = s3ta("evaluate", "--help").stdout
    assert not [word for word in ("--micro-batch", "--search", "--budget") if word in helped]


def test_images_are_kept_and_transferred(run: Path, plain: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "targeted-100", "--tiny", *FEW, "--out", tmp_path / "a")
    assert s3ta(*words).exit_code == 0
    onto = ("evaluate", plain, "--data", "digits", *FEW[2:], "--out", tmp_path / "b")
    refused(s3ta(*onto, "--transfer", tmp_path / "a"), "--keep-images")
    assert s3ta(*words, "--keep-images").exit_code == 0
    done = s3ta(*onto, "--transfer", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "transfer:targeted-2" in done.stdout
    manifest = Ledger.read(tmp_path / "b").manifest
    assert manifest["suite"]["images_from"]["sha256"] == Ledger.read(tmp_path / "a").manifest["model"]["sha256"]
    assert manifest["data"]["num_examples"] == 4
    elsewhere = (*onto[:-1], tmp_path / "c")
    refused(s3ta(*elsewhere, "--transfer", tmp_path / "a", "--split", "validation"), "are not in digits (validation)")
    refused(s3ta(*elsewhere, "--transfer", tmp_path / "b"), "images")


def test_attacks_on_glimpses_are_left_out_of_a_plain_models_suite_with_a_note(plain: Path, tmp_path: Path) -> None:
    words = ("evaluate", plain, "--data", "digits", "--tiny", *FEW, "--out", tmp_path / "a")
    refused(s3ta(*words, "--attack", "all-glimpses-100"), "the attack looks at glimpses, and the model takes none")
    assert not (tmp_path / "a").exists()
    done = s3ta(*words, "--suite", "sequential")
    assert done.exit_code == 0, done.output
    assert "Left out, for they do not fit the model or a changed setting: all-glimpses-100" in " ".join(
        done.stderr.split()
    )
    assert "note: fewer attacks: Left out, for they do not fit the model" in done.stderr
    assert list(settings_of(tmp_path / "a")) == ["pgd-2", "annealed-2"]


def test_a_changed_threat_model_holds_for_the_whole_suite(run: Path, tmp_path: Path) -> None:
    """AutoAttack knows no mask: in a worst case under one, its parts would attack the whole image."""
    mask = json.dumps({"kind": "grid", "rows": ["##" + "." * 28] * 30})
    words = ("evaluate", run, "--suite", "autoattack", "--tiny", *FEW, "--out", tmp_path / "a")
    refused(s3ta(*words, f"attack.mask={mask}"), "attack.mask")
    words = ("evaluate", run, "--attack", "pgd-100", "--attack", "square", "--tiny", *FEW)
    done = s3ta(*words, f"attack.mask={mask}", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert list(settings_of(tmp_path / "b")) == ["pgd-2"]
    assert "changed setting: square" in " ".join(done.stderr.split())
    done = s3ta(*words, "attack.eight_bit=true", "--out", tmp_path / "c")
    assert [attack["eight_bit"] for attack in settings_of(tmp_path / "c").values()] == [True, True]
    assert s3ta(*words, f"attack.mask={mask}").exit_code == 0, "a long value does not make a long folder name"


def test_an_attack_that_became_another_says_so(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--tiny", *FEW)
    done = s3ta(*words, "attack.gradient.kind=spsa", "attack.gradient.num_directions=3", "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    (name,) = settings_of(tmp_path / "a")
    assert name == "pgd-2+spsa"
    assert "warning: trial: This was a trial run" in done.stderr


def test_what_cannot_run_is_refused_before_anything_runs(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("s3ta.workflow.request"), "find_spec", lambda name: None)
    words = ("evaluate", run, "--attack", "pgd-100", "--attack", "square", "--tiny", *FEW, "--out", tmp_path / "a")
    refused(s3ta(*words), 'pip install "s3ta[autoattack]"')
    assert not (tmp_path / "a").exists()


def test_steps_that_cannot_cross_the_ball_are_told(run: Path, tmp_path: Path) -> None:
    words = ("evaluate", run, "--attack", "pgd-100", "--tiny", *FEW)
    changes = ("attack.norm=l2", "attack.radius=10", "attack.step_size=0.1")
    done = s3ta(*words, *changes, "--out", tmp_path / "a")
    before, after = done.stderr.split("at most 8 gradient")
    for told in (before, after):
        assert "'pgd-2' is too short for its ball" in " ".join(told.split())
    refused(s3ta(*words, *changes, "--strict", "--out", tmp_path / "c"), "is too short for its ball")
    assert not list((tmp_path / "c").glob("*.json"))
    refused(s3ta(*words, "attack.step_size=0", "--out", tmp_path / "c"), "steps of 0 move nothing")
    assert "too short" not in s3ta(*words, "--out", tmp_path / "b").stderr


def test_every_suite_runs_on_a_sequential_model(run: Path, tmp_path: Path) -> None:
    """`strongest` is the longest: PGD with ten restarts, the attacks on glimpses, AutoAttack."""
    pytest.importorskip("pyautoattack")
    done = s3ta("evaluate", run, "--suite", "strongest", "--tiny", *FEW, "--out", tmp_path / "a")
    assert done.exit_code == 0, done.output
    assert "right after all" in done.stdout
    assert "then square" in done.stdout
    found = settings_of(tmp_path / "a")
    assert found["pgd-2"]["num_restarts"] == 2
    assert {"steer-away-2", "each-glimpse-2", "apgd-t"} <= set(found)
    assert Ledger.read(tmp_path / "a").complete
