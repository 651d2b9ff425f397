"""What goes wrong around an evaluation: one clear sentence, exit code 2, and nothing lost or overwritten. And what the checks
of the model say by the commands that a person types."""

from __future__ import annotations

import errno
import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from s3ta import files
from s3ta.files import UnwritableError, part_use, sole_use
from s3ta.records import Ledger
from s3ta.workflow import evaluation

from .tints import (
    CLASSES,
    FEW,
    chunks,
    contents,
    done,
    refused,
    rows,
    s3ta,
    write_module,
    write_pictures,
)

SHORT = ("--attack", "pgd-100", "--attack", "targeted-100", "attack.num_attack_steps=4", "attack.step_size=8/255")
MORE = """
from tests.evaluate.planted import Remembers


def rotated_labels():
    return Tint((1, 2, 0))


def probabilities():
    return Around(after=lambda logits: logits.softmax(dim=1))


def detached():
    return Around(after=torch.Tensor.detach)


def saturated():
    net = Tint()
    with torch.no_grad():
        net.head.weight.mul_(1e4)
    return net


def remembers():
    return Remembers(Tint(), 3)


def broken():
    raise ValueError("no such size")


def features():
    return nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 5, 1))


def card():
    return s3ta.Classifier(Tint(), name="card", num_classes=3, image_size=8)
"""


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Twelve pictures in the current folder; what every evaluation of them says."""
    monkeypatch.chdir(tmp_path)
    return ("--data", f"folder:{write_pictures(tmp_path / 'pictures')}", "--image-size", "8", *FEW)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_module(tmp_path, "tints_bad", MORE)


def lint_of(folder: Path) -> dict[str, str]:
    return {one["kind"]: one["severity"] for one in json.loads((folder / "trust.json").read_text())["lint"]}


# --- can the model be trusted? -------------------------------------------------------------------------------------------


def test_a_mistake_is_told_before_the_run_and_kept(source: str, words: tuple[str, ...], tmp_path: Path) -> None:
    shown = done("evaluate", f"{source}:rotated_labels", *SHORT, *words, "--out", "out/evaluations/quick")
    told = "warning: label order: The answers seem to follow the labels in another order"
    assert told in shown.stderr
    assert shown.stderr.index(told) < shown.stderr.index(", passes: 0/")
    lint = lint_of(tmp_path / "out" / "evaluations" / "quick")
    assert lint["label order"] == "warning"
    assert lint["randomness"] == "passed"
    done("report", "out", "--findings", "found.json", "--out", "page.html")
    (run,) = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert {one["kind"]: one["severity"] for one in run["lint"]} == lint
    assert "labels in another order" in (tmp_path / "page.html").read_text()
    honest = done("evaluate", f"{source}:make", *SHORT, *words, "--strict", "--out", "honest")
    assert "warning" not in honest.stderr.split(", passes: 0/")[0]
    assert set(lint_of(tmp_path / "honest").values()) <= {"passed", "note", "unchecked"}


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        ("rotated_labels", "labels in another order"),
        ("probabilities", "shares that sum to 1"),
        ("remembers", "average"),
    ],
)
def test_strict_stops_an_evaluation_before_anything_is_measured(
    source: str, words: tuple[str, ...], tmp_path: Path, mistake: str, kind: str
) -> None:
    refused(
        s3ta("evaluate", f"{source}:{mistake}", *SHORT, *words, "--strict", "--out", "out"), "was not measured", kind
    )
    assert chunks(tmp_path / "out") == {}


def test_a_mended_model_is_measured_by_the_same_command(words: tuple[str, ...], tmp_path: Path) -> None:
    """In the same folder, as if it had been right from the beginning."""
    run = ("evaluate", "tints_mended:mine", *SHORT, *words, "--strict", "--out")
    write_module(tmp_path, "tints_mended", "\n\ndef mine():\n    return Tint((1, 2, 0))\n")
    refused(s3ta(*run, "out"), "labels in another order")
    write_module(tmp_path, "tints_mended", "\n\ndef mine():\n    return Tint()\n")
    done(*run, "out")
    done(*run, "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    write_module(tmp_path, "tints_mended", "\n\ndef mine():\n    return Tint((1, 2, 0))\n")
    refused(s3ta(*run, "again"), "--class-names FILE", "--match-classes")
    (tmp_path / "names.txt").write_text("green\nblue\nred\n")
    done(*run, "again", "--class-names", "names.txt", "--match-classes", "data")  # or by the options that were named


def test_no_checks_skips_all_checks_and_changes_no_record(source: str, words: tuple[str, ...], tmp_path: Path) -> None:
    shown = done("evaluate", f"{source}:rotated_labels", *SHORT, *words, "--no-checks", "--out", "without")
    assert not (tmp_path / "without" / "trust.json").exists()
    assert "labels in another order" not in shown.output
    done("evaluate", f"{source}:rotated_labels", *SHORT, *words, "--out", "with")
    assert chunks(tmp_path / "with") == chunks(tmp_path / "without")


def test_masked_gradients_are_seen_by_the_checks_afterwards(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    """Saturated: PGD leaves everything right, where half of the pictures can be broken."""
    whole = ("--suite", "quick", *words, "--batch-size", "12", "--full-checks", "--out")
    shown = done("evaluate", f"{source}:saturated", *whole, "out")
    free = rows(tmp_path / "out", attack="untargeted-20", num_attack_steps=20)
    assert all(row["correct"] for row in free)
    probes = {one["kind"]: one for one in json.loads((tmp_path / "out" / "trust.json").read_text())["probes"]}
    assert probes["zero gradients"]["severity"] == "warning"
    assert probes["zero gradients"]["evidence"]["num_zero"] == 12
    assert probes["larger radius"]["severity"] == "warning"
    assert "The input gradient of the cross-entropy is exactly zero for 12 of 12 clean images" in shown.stderr
    done("evaluate", f"{source}:make", *whole, "honest")
    probes = json.loads((tmp_path / "honest" / "trust.json").read_text())["probes"]
    assert {one["severity"] for one in probes} <= {"passed", "note"}


def test_a_model_without_gradients_is_measured_by_attacks_that_use_none(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    refused(s3ta("evaluate", f"{source}:detached", *SHORT, *words, "--out", "no"), "no graph to the image", "square")
    assert chunks(tmp_path / "no") == {}
    plain = s3ta("evaluate", f"{source}:detached", *SHORT, *words, "--no-checks", "--out", "no")
    refused(plain, "have no gradient to the image")
    pytest.importorskip("pyautoattack")
    for attack in ("square", "spsa-20"):
        done("evaluate", f"{source}:detached", "--attack", attack, "--tiny", *words, "--out", attack)
        assert Ledger.read(tmp_path / attack).complete
        told = json.loads((tmp_path / attack / "trust.json").read_text())
        asked = [one for one in told["lint"] if one["kind"] in ("gradient", "saturated loss")] + told["probes"]
        assert {(one["severity"], one["sentence"]) for one in asked} == {
            ("unchecked", "No attack of the suite uses a gradient.")
        }


# --- pictures, ids, targets ----------------------------------------------------------------------------------------------


def damage(picture: Path) -> None:
    picture.write_bytes(picture.read_bytes()[:90])


def test_a_damaged_picture_in_the_middle_stops_the_run_or_is_left_out(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    run = ("evaluate", f"{source}:make", *SHORT, *words)
    done(*run, "--out", "whole/evaluations/quick")
    damage(tmp_path / "pictures" / "val" / "green" / "2.png")
    damage(tmp_path / "pictures" / "val" / "red" / "0.png")
    told = ("2 of 12 images cannot be used", "the first: val/", "--on-unreadable skip")
    refused(s3ta(*run, "--out", "out/evaluations/quick"), *told)
    assert not (tmp_path / "out").exists()
    shown = done(*run, "--on-unreadable", "skip", "--out", "out/evaluations/quick")
    assert "warning: 2 of 12 images cannot be read and are left out" in " ".join(shown.stderr.split())
    out = tmp_path / "out" / "evaluations" / "quick"
    left = {row["example_id"] for row in rows(out)}
    assert len(left) == 10
    assert not left & {"val/green/2.png", "val/red/0.png"}
    assert Ledger.read(out).manifest["data"]["num_examples"] == 10
    assert sorted((out / "examples.txt").read_text().split()) == sorted(left)
    (found,) = (
        one for one in json.loads((out / "trust.json").read_text())["lint"] if one["kind"] == "unreadable images"
    )
    assert found["severity"] == "warning"
    assert sorted(found["evidence"]["ids"]) == ["val/green/2.png", "val/red/0.png"]
    assert found["evidence"]["num_chosen"] == 12
    clean = next(line for line in shown.stdout.splitlines() if line.startswith("clean"))
    assert clean.split()[3:5] == ["10", "100.0%"], "of those that could be read"
    same = {(row["example_id"], row["attack"]): row["correct"] for row in rows(tmp_path / "whole/evaluations/quick")}
    assert {(row["example_id"], row["attack"]): row["correct"] for row in rows(out)}.items() <= same.items()
    done("report", "out", "--findings", "found.json", "--out", "page.html")
    assert "2 of 12 images could not be read" in (tmp_path / "page.html").read_text()
    before = contents(out)
    done(*run, "--on-unreadable", "skip", "--out", "out/evaluations/quick")
    assert contents(out) == before
    strict = done(*run, "--on-unreadable", "skip", "--strict", "--out", "strict")  # asked for is asked for
    assert "left out" in strict.stderr


def test_a_picture_that_is_damaged_while_the_run_goes_on_costs_nothing_that_was_done(
    source: str, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "out")
    done(*run)
    whole = chunks(tmp_path / "out")
    for name in list(whole)[4:]:
        (tmp_path / "out" / name).unlink()
    picture = tmp_path / "pictures" / (tmp_path / "out" / "examples.txt").read_text().split()[-1]
    kept = picture.read_bytes()
    monkeypatch.setattr(
        "s3ta.workflow.fit_data_to_model.find_unreadable", lambda *asked: []
    )  # it was sound when it was looked at
    picture.write_bytes(kept[:60] + bytes(len(kept) - 60))  # of the same size, so that nothing else gives it away
    refused(s3ta(*run), "cannot be read as an image", picture.name)
    left = chunks(tmp_path / "out")
    assert 4 <= len(left) < 9
    assert left.items() <= whole.items()
    picture.write_bytes(kept)
    done(*run)
    assert chunks(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("option", "text", "told"),
    [
        ("--ids", "val/red/0.png\nval/red/9.png\n", ("1 of 2 example ids are not in folder:pictures", "'val/red/9.png'")),
        ("--ids", "0.png\n", ("fit several examples", "'0.png'")),
        ("--ids", "red/0.png\nval/red/0.png\n", ("listed already",)),
        ("--ids", "# nobody\n", ("names no examples",)),
        ("--targets", "example_id,target\nval/red/0.png,red\n", ("line 2: the target of val/red/0.png is its true class",)),
        ("--targets", "example_id,target\nval/red/0.png,0\n", ("No target is given for example val/",)),
        ("--targets", "example_id,target\nval/red/0.png,3\n", ("3 is no class number",)),
        ("--targets", "example_id,target\nval/red/0.png,pink\n", ("has no class 'pink'",)),
        ("--targets", "example_id,label,target\nval/red/0.png,0,1\n", ("the true class of val/red/0.png is 2 ('red')",)),
        ("--targets", "id,aim\nval/red/0.png,0\n", ("has no column 'example_id'",)),
        ("--class-names", "blue\ngreen\n", ("There are 2 class names for 3 classes",)),
        ("--class-names", "blue\ngreen\nrose\n", ("Class 2 of the model is 'rose', but folder:pictures has 'red'",)),
    ],
)  # fmt: skip
def test_lists_that_do_not_fit_the_data_are_refused(
    source: str, words: tuple[str, ...], tmp_path: Path, option: str, text: str, told: tuple[str, ...]
) -> None:
    (tmp_path / "list.txt").write_text(text)
    refused(s3ta("evaluate", f"{source}:make", *SHORT, *words, option, "list.txt", "--out", "out"), *told)
    assert chunks(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--shard", "0/2"), "--shard 0/2 is no part such as 1/4"),
        (("--shard", "3/2"), "--shard 3/2 is no part such as 1/4"),
        (("--shard", "x"), "--shard x is no part such as 1/4"),
        (("--shard", "1/2/3"), "--shard 1/2/3 is no part"),
        (("--mean", "0.4,0.5", "--std", "1"), "mean has 2 numbers, but the images have 3 channels"),
        (("--mean", "0.4,x,0.5"), "--mean 0.4,x,0.5 is not a row of numbers"),
        (("--mean", "nan", "--std", "1"), "every number must be finite"),
        (("--mean", "0", "--std", "0.2,0,0.2"), "every number must be above 0"),
        (("--num-classes", "4"), "answers with 3 numbers for an image, not 4"),
        (("--channel-order", "rbg"), "Did you mean rgb or bgr"),
        (("--match-classes", "both"), "Known: data, model"),
        (("--match-classes", "data"), "--class-names FILE"),
        (("--on-unreadable", "ignore"), "Known: skip, stop"),
        (("--preprocessing", "Res256Crop22"), "Did you mean Res256Crop224"),
        (("--preprocessing", "fd"), "gives 224 px, but 8 px are asked for"),
        (("--weights", "random"), "decides itself on its weights"),
        (("--weights", "none.pt"), "none.pt does not exist"),
        (("--ids", "none.txt"), "none.txt does not exist"),
        (("--targets", "none.csv"), "none.csv does not exist"),
        (("--class-names", "none.txt"), "none.txt is missing"),
        (("--limit", "13"), "has 12"),
    ],
    ids=" ".join,
)
def test_options_with_impossible_values_are_refused(
    source: str, words: tuple[str, ...], tmp_path: Path, more: tuple[str, ...], told: str
) -> None:
    refused(s3ta("evaluate", f"{source}:make", *SHORT, *words, *more, "--out", "out"), told)
    assert not (tmp_path / "out").exists()


def test_transfer_goes_with_no_choice_of_examples(source: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("val/red/0.png\n")
    for option, value in (("--ids", "ids.txt"), ("--targets", "t.csv"), ("--limit", "3"), ("--seed", "1")):
        result = s3ta("evaluate", f"{source}:make", "--transfer", "a", option, value, *words, "--out", "out")
        refused(result, "--transfer scores what is there")
    assert not (tmp_path / "out").exists()


# --- models and weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tints_bad:mak", "Unknown name in tints_bad: 'mak'. Did you mean make"),
        ("tints_worse:make", "There is no module tints_worse to import"),
        ("tints_bad.inner:make", "There is no module tints_bad.inner"),
        ("tints_bad:broken", "tints_bad:broken() failed: ValueError: no such size (tints_bad.py, line"),
        ("tints_bad:FEW", "Unknown name in tints_bad: 'FEW'"),
        ("tints_bad:features", "of shape (2, 5, 1, 1)"),
        ("timm:test_resnett", "Unknown timm model 'test_resnett'. Did you mean test_resnet"),
        ("timm:resnet50.a1_in1", "Did you mean a1_in1k"),
        ("torchvision:squeezenet", "Did you mean squeezenet1_1"),
        ("torchvision:raft_small", "does not classify images"),
    ],
)
def test_missing_models_are_named(source: str, words: tuple[str, ...], tmp_path: Path, name: str, told: str) -> None:
    more = () if name.startswith("tints") else ("--weights", "random")
    refused(s3ta("evaluate", name, *more, *SHORT, *words, "--out", "out"), told)
    assert not (tmp_path / "out").exists()


def test_files_without_weights_or_of_another_network_are_refused(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--out", "out", "--weights")
    state = {"head.weight": torch.zeros(3, 3, 1, 1), "head.bias": torch.zeros(3)}
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Please sign in</html>")
    refused(s3ta(*run, "page.pt"), "page.pt is a web page, not weights")
    torch.save(state, tmp_path / "whole.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:-400])
    refused(s3ta(*run, "torn.pt"), "torn.pt is damaged")
    save_file(state, tmp_path / "whole.safetensors")
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "whole.safetensors").read_bytes()[:-8])
    refused(s3ta(*run, "torn.safetensors"), "torn.safetensors is damaged")
    save_file({"fc.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    refused(s3ta(*run, "other.safetensors"), "does not fit the network", "'head.weight' is missing")
    save_file({**state, "extra.weight": torch.zeros(3, 3)}, tmp_path / "more.safetensors")
    refused(s3ta(*run, "more.safetensors"), "weights that the network does not have, first 'extra.weight'")
    inside = {f"module.{name}": value for name, value in {**state, "extra.weight": torch.zeros(3, 3)}.items()}
    torch.save({"state_dict": inside}, tmp_path / "inside.pt")
    refused(s3ta(*run, "inside.pt"), "weights that the network does not have, first 'module.extra.weight'")
    save_file({**state, "head.weight": torch.zeros(4, 3, 1, 1)}, tmp_path / "wide.safetensors")
    refused(s3ta(*run, "wide.safetensors"), "(4, 3, 1, 1) in the file, (3, 3, 1, 1) in the network")
    save_file({**state, "head.bias": torch.full((3,), torch.nan)}, tmp_path / "nan.safetensors")
    refused(s3ta(*run, "nan.safetensors"), "not finite")
    torch.save({"state_dict": state, "run": Opener(tmp_path / "opened")}, tmp_path / "code.pt")
    refused(s3ta(*run, "code.pt"), "nothing of it was run")
    assert not (tmp_path / "opened").exists(), "nothing of a file is run"
    assert not (tmp_path / "out").exists()


class Opener:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_model_with_another_number_of_classes_than_the_data_is_refused(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "pictures" / "val" / "red")
    refused(
        s3ta("evaluate", f"{source}:make", *SHORT, *words, "--out", "out"), "has 3 classes", "folder:pictures has 2"
    )
    assert not (tmp_path / "out").exists()


def test_settings_that_cannot_do_what_they_say_are_told_in_the_same_words_before_and_after(
    source: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    run = ("evaluate", f"{source}:make", *SHORT, "attack.step_size=16/255", *words, "--no-checks")
    before, after = done(*run, "--out", tmp_path / "out").stderr.split(", passes: 0/")
    (told,) = [line for line in before.splitlines() if "long steps" in line and "'pgd-4'" in line]
    assert told.startswith("warning: long steps: 'pgd-4' takes steps of 16/255 in a ball of radius 8/255")
    assert " ".join(told.split()) in " ".join(after.split())


@pytest.mark.parametrize("more", [("--attack", "small-box-100"), ("--suite", "local")])
def test_a_radius_in_grey_levels_is_refused_under_masks_too(
    source: str, words: tuple[str, ...], tmp_path: Path, more: tuple[str, ...]
) -> None:
    """8 was meant as 8/255, and was taken as 1."""
    refused(s3ta("evaluate", f"{source}:make", *more, "--radius", "8", *words, "--out", "out"), "write 8/255, not 8")
    assert not (tmp_path / "out").exists()


# --- folders and disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(source: str, words: tuple[str, ...], tmp_path: Path) -> tuple[tuple[str, ...], Path]:
    """A finished evaluation: the command, and its folder."""
    run = ("evaluate", f"{source}:make", *SHORT, *words, "--no-checks", "--out", "out")
    done(*run)
    return run, tmp_path / "out"


def test_a_ledger_of_another_version_is_left_alone(finished: tuple[tuple[str, ...], Path]) -> None:
    run, out = finished
    manifest = json.loads((out / "manifest.json").read_text())
    for number, told in ((2, "in format 2 by an older s3ta"), (4, "in format 4 by a newer s3ta")):
        (out / "manifest.json").write_text(json.dumps({**manifest, "format": number}))
        before = contents(out)
        refused(s3ta(*run), told, "reads format 3")
        refused(s3ta("report", out, "--out", "page.html"), told)
        assert contents(out) == before


@pytest.mark.parametrize("is_writable", [True, False])
def test_a_ledger_with_an_older_description_resumes_by_the_same_command(
    finished: tuple[tuple[str, ...], Path], monkeypatch: pytest.MonkeyPatch, *, is_writable: bool
) -> None:
    """Another version told the suite otherwise; its manifest binds its chunks, and a lost one is done again."""
    run, out = finished
    before = chunks(out)
    with monkeypatch.context() as other_version:
        module = import_module("s3ta.evaluate.manifest")
        words = module.suite_manifest
        other_version.setattr(module, "suite_manifest", lambda suite: words(suite) | {"description": "as once told"})
        shutil.rmtree(out)
        done(*run)
    old = contents(out)
    assert chunks(out) != before, "the words are part of what binds a chunk"
    if is_writable:
        lost = sorted(out.glob("chunk-*.parquet"))[1]
        lost.unlink()
        done(*run)
    else:
        monkeypatch.setattr(evaluation, "sole_use", lambda *_: (_ for _ in ()).throw(UnwritableError("read only")))
        assert "everything is there already" in done(*run).stderr
    assert contents(out) == old


def flipped(content: bytes, place: int) -> bytes:
    """With every bit of one byte turned over."""
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_a_torn_chunk_is_made_again_and_the_others_are_not_touched(finished: tuple[tuple[str, ...], Path]) -> None:
    run, out = finished
    whole = contents(out)
    torn = out / "chunk-00004.parquet"
    others = {path: path.stat().st_mtime_ns for path in out.glob("chunk-*") if path != torn}
    for damaged in (whole[torn.name][:-200], flipped(whole[torn.name], 700), b""):
        torn.write_bytes(damaged)
        refused(s3ta("report", out, "--out", "page.html"), "chunk-00004.parquet is damaged")
        done(*run)
        assert contents(out) == whole
        assert others == {path: path.stat().st_mtime_ns for path in others}


def test_a_chunk_of_another_evaluation_is_neither_counted_nor_overwritten(
    finished: tuple[tuple[str, ...], Path], tmp_path: Path
) -> None:
    run, out = finished
    done(*run, "--seed", "1", "--out", "other")
    shutil.copy(tmp_path / "other" / "chunk-00005.parquet", out / "chunk-00005.parquet")
    before = contents(out)
    refused(s3ta(*run), "chunk-00005.parquet belongs to another evaluation")
    refused(s3ta("report", out, "--out", "page.html"), "chunk-00005.parquet belongs to another evaluation")
    assert contents(out) == before


def test_another_measurement_is_not_written_into_the_same_folder(finished: tuple[tuple[str, ...], Path]) -> None:
    run, out = finished
    before = contents(out)
    for more, told in (
        (("--seed", "1"), "seed is 0 there and 1 now"),
        (("--mean", "0.5", "--std", "1"), "model.config.mean is null there"),
        (("--channel-order", "bgr"), 'model.config.channel_order is "rgb" there and "bgr" now'),
        (("--batch-size", "3"), "micro_batch is 4 there and 3 now"),
        (("--limit", "8"), "num_examples is 12 there and 8 now"),
        (("attack.radius=4/255",), "radius"),
    ):
        refused(s3ta(*run, *more), told)
    done(*run, "--prefetch", "2")  # how many are in flight is no part of the question
    assert contents(out) == before


def test_a_second_process_on_the_same_part_is_refused(finished: tuple[tuple[str, ...], Path]) -> None:
    run, out = finished
    before = contents(out)
    with sole_use(out):
        refused(s3ta(*run), "Another process is at work on out")
        refused(s3ta(*run, "--shard", "1/2"), "Another process is at work on all of out")
    with part_use(out, "1-of-2"):
        refused(s3ta(*run, "--shard", "1/2"), "at work on part 1-of-2 of out")
        refused(s3ta(*run), "Another process is at work on out")
        done(*run, "--shard", "2/2")
    assert contents(out) == before


@pytest.mark.parametrize(
    ("number", "told"), [(errno.EROFS, "the disk is read-only"), (errno.ENOSPC, "no space is left on the disk")]
)
def test_a_full_disk_is_one_sentence(
    finished: tuple[tuple[str, ...], Path], monkeypatch: pytest.MonkeyPatch, number: int, told: str
) -> None:
    run, out = finished
    whole = contents(out)
    for index in (4, 7):
        (out / f"chunk-0000{index}.parquet").unlink()
    before = contents(out)

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", fail)
        refused(s3ta(*run), "Cannot write out/chunk-00004.parquet", told)
    assert contents(out) == before
    done(*run)
    assert contents(out) == whole


def test_a_file_in_place_of_the_output_folder_is_named(source: str, words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("here first")
    for out in ("taken", "taken/deeper"):
        refused(s3ta("evaluate", f"{source}:make", *SHORT, *words, "--out", out), "Cannot write", "file")
    assert (tmp_path / "taken").read_text() == "here first"


def test_the_names_of_the_classes_are_those_of_the_folders(finished: tuple[tuple[str, ...], Path]) -> None:
    _, out = finished
    assert tuple(Ledger.read(out).manifest["data"]["classes"]) == CLASSES
