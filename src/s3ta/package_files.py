"""Networks and pictures that other packages bring as plain files: found without importing anything of them.

Imports no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from s3ta.errors import UserError

INSTALL = "pip install 's3ta[examples]'"


def file_of_package(module: str, package: str, path: str) -> Path:
    """A file or folder inside an installed package, whose code is not run.

    Args:
      module: the folder of the package, such as `foolbox`.
      package: its name on PyPI.
      path: from that folder, with `/` between.
    Raises:
      UserError: the package is not installed (how to install it), or lacks the file."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module of this name was put together by hand
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The package {package} is not installed: {INSTALL}.")
    file = Path(next(iter(spec.submodule_search_locations))) / path
    if not file.exists():
        raise UserError(f"The package {package} here lacks {path}: install it again, with {INSTALL}.")
    return file
