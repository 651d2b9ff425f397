"""The house rules: what the documents and the layout promise, checked."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement

import s3ta
from s3ta.cli import app
from s3ta.config import override
from s3ta.evaluate import get_suite
from s3ta.recipes import RECIPES, get_recipe
from s3ta.records import SCHEMA

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "s3ta"
MODULES = sorted(SOURCE.rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("models", "attacks", "data", "records", "train", "evaluate", "explain", "report")
ASSETS = {".j2", ".css", ".js"}


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- layout -------------------------------------------------------------------------------------------------------


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-2000:]}"


def test_import_contract_holds() -> None:
    run(str(Path(sys.executable).with_name("lint-imports")))


def test_import_contract_names_every_module() -> None:
    layers = next(c for c in PROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "layers")["layers"]
    named = {name for layer in layers for name in re.findall(r"\w+", layer)}
    assert named == {module.name for module in pkgutil.iter_modules([str(SOURCE)])}


def test_ruff_is_clean() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


@pytest.mark.slow
def test_types_are_clean() -> None:
    run(sys.executable, "-m", "basedpyright")


def test_every_file_can_be_read_in_one_sitting() -> None:
    core = {"models/s3ta.py", "attacks/loop.py", "train/loop.py", "evaluate/runner.py"}
    assert all((SOURCE / name).is_file() for name in core)
    for path in [*MODULES, *(p for p in sorted(SOURCE.rglob("*")) if p.suffix in ASSETS)]:
        limit = 250 if path.relative_to(SOURCE).as_posix() in core else 400
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, by_name(path)


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.jit.load"}


def is_unsafe(node: ast.AST) -> bool:
    """Whether it imports a module that unpickles, calls what evaluates text, or loads a file without refusing pickles."""
    if isinstance(node, ast.Import):
        return bool(FORBIDDEN_MODULES & {name.name.partition(".")[0] for name in node.names})
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in FORBIDDEN_MODULES
    if not isinstance(node, ast.Call):
        return False
    called, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
    if called == "torch.load":
        return words.get("weights_only") != "True"
    if called in {"np.load", "numpy.load"}:
        return words.get("allow_pickle") != "False"
    return called in FORBIDDEN_CALLS


def test_no_source_unpickles_or_evaluates() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not is_unsafe(node), f"{by_name(path)}:{getattr(node, 'lineno', 0)} {ast.unparse(node)}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import numpy, dill",
        "from joblib import load",
        "eval(x)",
        "__import__('os')",
        "torch.load(x)",
        "torch.load(x, weights_only=False)",
        "np.load(x)",
        "numpy.load(x, allow_pickle=True)",
    ],
)
def test_what_unpickles_or_evaluates_would_be_seen(line: str) -> None:
    assert any(is_unsafe(node) for node in ast.walk(ast.parse(line)))


@pytest.mark.parametrize(
    "statement", ["import s3ta", "import s3ta.report", "import s3ta.records", "from s3ta.cli import main; main()"]
)
def test_torch_is_not_imported_before_it_is_needed(statement: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.argv = ['s3ta', '--help']\ntry:\n    {statement}\nexcept SystemExit as leaving:\n"
        "    assert not leaving.code, leaving.code\nassert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["s3ta", *(f"s3ta.{room}" for room in ROOMS)])
def test_public_names_resolve_and_are_documented(module: str) -> None:
    room = importlib.import_module(module)
    assert room.__doc__
    for name in room.__all__:
        value = getattr(room, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{module}.{name} has no docstring"


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = s3ta.nothing


def test_version_is_the_same_everywhere() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert cited is not None
    assert PROJECT["project"]["version"] == s3ta.__version__ == cited[1]
    assert f"## [{s3ta.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_changelog_tells_which_numbers_changed() -> None:
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)[1:]
    assert releases
    assert all("### Numbers changed" in release for release in releases)


def test_citation_names_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert text.startswith("cff-version: 1.2.0\n")
    for needed in ("message:", "title:", "authors:", "preferred-citation:", "arXiv:1912.02184"):
        assert needed in text
    for author in ("Zoran", "Chrzanowski", "Huang", "Gowal", "Mott", "Kohli"):
        assert f'family-names: "{author}"' in text


def test_constraints_hold_every_direct_dependency_inside_its_range() -> None:
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in map(Requirement, [*PROJECT["project"]["dependencies"], *extras["digits"], *extras["test"]]):
        assert requirement.name in pins, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[requirement.name]), f"{requirement} against constraints.txt"


# --- documents ----------------------------------------------------------------------------------------------------


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def examples() -> Iterator[str]:
    """Every `s3ta ...` command line that the documents and the help texts show."""
    for path in DOCUMENTS:
        for block in blocks(path, "(?:console|sh|bash)?"):
            yield from (line for line in block.replace("\\\n", "").splitlines() if line.startswith("s3ta "))
        yield from re.findall(r"`(s3ta [a-z][^`\n]*)`", path.read_text(encoding="utf-8"))
    for command in typer.main.get_command(app).commands.values():
        yield from (part.strip() for part in re.split(r"\s{2,}", command.epilog or "") if part.startswith("s3ta "))


def parse_example(line: str) -> None:
    """Raises whatever is wrong with one command line."""
    verb, *arguments = shlex.split(line, comments=True)[1:]
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    commands = typer.main.get_command(app).commands
    for name in verb.split("|"):
        assert name in commands, f"there is no command '{name}'"
    if not arguments or "..." in arguments or "--help" in arguments:
        return
    given = commands[verb].make_context(verb, arguments).params
    former = {option.name for option in commands[verb].params if getattr(option, "hidden", False)}
    assert not {name for name in former if given[name] is not None}, "it uses a former word"
    recipe = given.get("recipe")
    if recipe and recipe != "RECIPE":
        override(get_recipe(recipe), given.get("overrides") or [])
    if verb == "evaluate" and given["suite"] not in (None, "SUITE"):
        get_suite(given["suite"])


def test_every_command_line_example_parses() -> None:
    lines = sorted({line.strip() for line in examples()})
    assert len(lines) > 20
    for line in lines:
        try:
            parse_example(line)
        except Exception as error:  # noqa: BLE001 - an assertion, a usage error or one of ours: each means a wrong example
            pytest.fail(f"`{line}`: {type(error).__name__}: {error}")


def test_python_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "readme.py"
    pages = (ROOT / "README.md", ROOT / "docs" / "python.md")
    program.write_text("\n".join(block for page in pages for block in blocks(page, "python")), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(program))
    assert names["last"].top1_low <= names["last"].top1 <= names["last"].top1_high
    assert names["adversaries"].images.shape == (40, 3, 32, 32)
    assert names["trace"].attention.shape == (6, 4, 4, 15, 15)
    assert names["attacked"].images.shape == (3, 4, 1, 60, 60)
    assert names["adversarial"].shape == names["images"].shape


def test_the_new_attacks_of_the_guide_run_and_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(ROOT / "docs" / "extending.md", "python")
    program = tmp_path / "extending.py"
    program.write_text("\n".join(found), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(program))
    clean, labels, model = names["images"], names["labels"], names["model"]
    for name in ("attacked", "huddled", "blind", "through"):
        moved = (names[name].final - clean).abs().amax()
        assert 1 / 255 < moved <= 16 / 255 + 1e-6, name
    assert "gradient_ascent(" in found[0]
    assert len([line for line in found[0].splitlines() if line.strip()]) < 30
    rivals, heads = names["two_rivals"](labels), names["agreeing_heads"]
    assert (rivals(model(names["attacked"].final)) > rivals(model(clean))).all()
    assert heads(model.unroll(names["huddled"].final)).sum() > heads(model.unroll(clean)).sum()
    assert names["blind"].num_gradients.unique().tolist() == [0]


def test_named_recipes_models_and_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for recipe in re.findall(r"\b(?:digits|cifar10|imagenet|imagenette)/(?:s3ta|resnetv2)\w*(?:-\d+)?", text):
            assert recipe in RECIPES, by_name(path)
        for model in re.findall(r"`((?:s3ta_\d+_)?resnetv2_[a-z0-9]+(?:_dense)?)`", text):
            assert model in s3ta.list_models(), by_name(path)
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, re.M):
            assert target in targets, by_name(path)


def test_links_between_documents_lead_somewhere() -> None:
    for path in [*DOCUMENTS, ROOT / "SECURITY.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{by_name(path)}: {target}"


def test_architecture_lists_exactly_the_random_streams_that_exist() -> None:
    used = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "stream":
                assert isinstance(node.args[1], ast.Constant), f"{by_name(path)}:{node.lineno} has no literal purpose"
                used.add(node.args[1].value)
    section = (ROOT / "docs" / "architecture.md").read_text().partition("## Randomness")[2].partition("\n## ")[0]
    assert used == set(re.findall(r"^\| `([a-z-]+)` \|", section, re.M))


def test_architecture_lists_every_record_column() -> None:
    files = (ROOT / "docs" / "architecture.md").read_text().partition("**Record**")[2].partition("\n\n")[0]
    assert set(SCHEMA.names) <= set(re.findall(r"`(\w+)`", files))


def test_no_text_names_a_machine() -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    invented = {"someone", "me"}  # made up by tests that check that such paths are taken out of reports
    personal = re.compile(r"(?<![\w.)])/(?:home|Users|root|work|mnt|scratch)/(\w[\w.-]*)")
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix not in {".npz", ".png", ".safetensors", ".parquet"}:
            users = set(personal.findall(path.read_text(encoding="utf-8")))
            assert users <= invented, f"{name}: {users}"
