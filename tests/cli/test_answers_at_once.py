"""What needs no model is answered without the libraries that models need: they take seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from s3ta.recipes import RECIPES
from tests.report.synthetic import make_run

COMPUTE = {"torch", "torchvision", "timm", "jaxtyping", "safetensors", "huggingface_hub", "PIL"}
REPORT = {"matplotlib", "jinja2"}
RECORDS = {"pyarrow"}
MOST_MODULES = 700
"""Of all packages together; torch alone brings two thousand."""
COMMANDS = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from s3ta.cli import main
for command in json.loads(sys.argv[1]):
    sys.argv, text, code = ["s3ta", *command.split()], io.StringIO(), 0
    with redirect_stdout(text), redirect_stderr(text):
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
    print(json.dumps([command, code, text.getvalue(), sorted(sys.modules)]))
"""
"""One process for all commands: what one of them imports stays, so the first that imports too much fails."""
IMPORTS = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    print(json.dumps([name, sorted(sys.modules)]))
"""


def lines_of(program, names, folder):
    """What a fresh process prints, as JSON values."""
    command = [sys.executable, "-c", program, json.dumps(list(names))]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def packages(modules):
    return {name.partition(".")[0] for name in modules}


ANSWERS = {
    "--help": "Usage",
    "--version": "s3ta",
    **{
        f"{command} --help": "Usage"
        for command in ("demo", "train", "show", "evaluate", "export", "report", "predict", "list")
    },
    "list recipes": "digits/s3ta_4",
    "list models": "s3ta_16_resnetv2_152",
    "list attacks": "pgd-100",
    "show digits/s3ta_4": "603,874 parameters",
    "show imagenet/s3ta_16-10 --hardware a100 --gpus 8": "102,534,056 parameters",
    "show imagenet/s3ta_16-30 schedule.num_train_steps=1000 --fields": "attack.radius",
    "show cifar10/s3ta_4_awp --batch-size 256": "parameters",
}
MISTAKES = {
    "trian": "No such command",
    "show digits/s3ta_4 --feilds": "No such option",
    "list recipe": "Did you mean recipes",
    "show digits/s3ta_5": "Did you mean digits/s3ta_4",
    "show digits/s3ta_4 atack.radius=0.1": "Did you mean attack",
    "show digits/s3ta_4 model.vision.image_size=-1": "greater than 0",
    "train digits/s3ta_5": "Did you mean digits/s3ta_4",
    "train digits/s3ta_4 sed=1": "Did you mean seed",
    "train digits/s3ta_4 data.source=torchvision:CIFAR": "Did you mean CIFAR10",
    "train digits/s3ta_4 attack.radius=7": "is more than 1",
    "evaluate digits-s3ta_4": "does not exist",
    "evaluate ./runs/nothing": "does not exist",
    "evaluate nets/small.py:make": "nets.small:make",
    "predict nothing picture.png": "does not exist",
    "evaluate nets:make --radius a": "neither a number",
    "evaluate nets:make --search float16": "float16",
    "evaluate nets:make --match-classes both": "both",
    "evaluate nets:make --shard 5/4": "is no part",
    "evaluate nets:make --data torchvision:CIFAR": "Did you mean CIFAR10",
    "evaluate nets:make --data folder:x --split tset": "Did you mean test",
    "evaluate nets:make --data folder:x --preprocessing Res2224": "Did you mean Res224",
}
RECORDED = {
    "list suites": (0, "table1"),
    "evaluate nets:make --suite tabel1": (2, "Did you mean table1"),
    "evaluate nets:make --attack pgd-10": (2, "Did you mean pgd-100"),
    "evaluate nets:make --suite quick --radius 8/255": (2, "states its own radius"),
    "evaluate nets:make --suite quick --attack pgd-100": (2, "not both"),
    "evaluate nets:make --suite strongest attack.eps=0.1": (2, "attack.radius"),
    "evaluate nets:make --attack each-glimpse-100 attack.glimpses=some": (2, "glimpses"),
}
"""What suites are is said in the words of records, whose tables are pyarrow's."""


SETTINGS = (
    "s3ta",
    "s3ta.attack_config",
    "s3ta.attacks",
    "s3ta.attacks.cost",
    "s3ta.data",
    "s3ta.data.config",
    "s3ta.evaluate",
    "s3ta.evaluate.suites",
    "s3ta.evaluate.suite_overrides",
    "s3ta.models",
    "s3ta.models.config",
    "s3ta.models.precomputed_costs",
    "s3ta.models.load_options",
    "s3ta.recipes",
    "s3ta.records",
    "s3ta.train",
    "s3ta.train.config",
    "s3ta.train.cost",
    "s3ta.report",
    "s3ta.cli",
)
"""Modules that say what can be asked for, and do nothing of it."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Exit code, output and imported modules of each command."""
    folder = tmp_path_factory.mktemp("answers")
    return {line[0]: line[1:] for line in lines_of(COMMANDS, [*ANSWERS, *MISTAKES, *RECORDED], folder)}


@pytest.mark.parametrize("command", [*ANSWERS, *MISTAKES])
def test_answer_imports_nothing_that_computes(command, answers):
    code, text, modules = answers[command]
    assert (code, (ANSWERS | MISTAKES)[command] in text) == (2 if command in MISTAKES else 0, True), text
    assert not packages(modules) & (COMPUTE | REPORT | RECORDS)
    assert len(modules) < MOST_MODULES


@pytest.mark.parametrize("command", RECORDED)
def test_answer_about_suites_imports_records_at_most(command, answers):
    code, text, modules = answers[command]
    assert (code, RECORDED[command][1] in text) == (RECORDED[command][0], True), text
    assert not packages(modules) & (COMPUTE | REPORT)
    assert len(modules) < MOST_MODULES


def test_every_recipe_is_shown_without_torch(tmp_path):
    for command, code, text, modules in lines_of(COMMANDS, [f"show {name}" for name in RECIPES], tmp_path):
        assert (code, "parameters" in text) == (0, True), command
        assert not packages(modules) & COMPUTE, command


def test_report_imports_no_torch(tmp_path):
    runs = [make_run(tmp_path / name, name, salt=i) for i, name in enumerate(("first", "second"))]
    command = f"report {runs[0]} {runs[1]} --out page.html --findings found.json --table rows.csv"
    ((_, code, text, modules),) = lines_of(COMMANDS, [command], tmp_path)
    assert code == 0, text
    assert (tmp_path / "page.html").is_file()
    assert not packages(modules) & (COMPUTE - {"PIL"})


def test_modules_of_settings_import_no_torch(tmp_path):
    for name, modules in lines_of(IMPORTS, SETTINGS, tmp_path):
        assert not packages(modules) & (COMPUTE - {"PIL"}), name


def test_public_name_hides_the_module_of_its_name():
    """A submodule that is imported first does not take the place of the function that is called like it."""
    code = "import s3ta.attacks.local_linearity; from s3ta.attacks import local_linearity as f"
    code += "; print(callable(f), f.__module__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "s3ta.attacks.local_linearity"], done.stderr


@pytest.mark.parametrize("room", ["attacks", "data", "evaluate", "models", "train"])
def test_unknown_name_of_a_room_is_an_attribute_error(room):
    module = sys.modules.get(f"s3ta.{room}") or __import__(f"s3ta.{room}", fromlist=["_"])
    with pytest.raises(AttributeError, match=f"module 's3ta.{room}' has no attribute 'nothing'"):
        _ = module.nothing
    assert Path(str(module.__file__)).name == "__init__.py"
