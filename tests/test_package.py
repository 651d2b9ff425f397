"""The package as others get it: the wheel, installed in an empty environment, away from this repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, timeout: float = 1800) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "S3TA", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command} left with code {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the working tree gets no build folder."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", copy / "dist", cwd=copy)
    return next((copy / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def installed() -> Iterator[Path]:
    """A folder outside the repository for a fresh environment; some gigabytes, so it goes when the tests end."""
    folder = Path(tempfile.mkdtemp(prefix="s3ta-wheel-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"s3ta", next(top for top in tops if top.endswith(".dist-info"))}
    files = (path.relative_to(ROOT / "src") for path in (ROOT / "src" / "s3ta").rglob("*") if path.is_file())
    wanted = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    assert {name for name in names if name.startswith("s3ta/")} == wanted
    assert "s3ta/py.typed" in names
    assert any(name.startswith("s3ta/report/") and name.endswith(".j2") for name in names)
    assert not [name for name in names if "test" in name]
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_in_an_empty_environment_runs_the_demo(wheel: Path, installed: Path) -> None:
    environment, out = installed / "environment", installed / "somewhere" / "out"
    out.parent.mkdir()
    venv.create(environment, with_pip=True, system_site_packages=False)
    python = environment / "bin" / "python"
    run(
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-cache-dir",
        "-c",
        ROOT / "constraints.txt",
        f"{wheel}[digits]",
        cwd=installed,
    )
    run(python, "-m", "pip", "check", cwd=installed)
    where = run(python, "-c", "import s3ta; print(s3ta.__file__)", cwd=out.parent)
    assert Path(where.strip()).is_relative_to(environment)
    said = run(environment / "bin" / "s3ta", "demo", "--tiny", "--out", out, cwd=out.parent)
    assert "report.html" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    for private in (str(installed), str(ROOT), str(Path.home())):
        assert not re.search(re.escape(private) + r"(?![\w.-])", page), f"the report names {private}"
