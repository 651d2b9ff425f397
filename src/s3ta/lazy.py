"""Public names of a package that load on first use (PEP 562), so that reading a config never waits for torch."""

from __future__ import annotations

import ast
import sys
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class LazyPackage(ModuleType):
    """A package whose public names are imported when they are first asked for."""

    @cached_property
    def _homes(self) -> dict[str, str]:
        """The module that defines each public name, as the imports under `if TYPE_CHECKING:` say."""
        tree = ast.parse(Path(str(self.__file__)).read_text(encoding="utf-8"))
        blocks = [node for node in tree.body if isinstance(node, ast.If)]
        imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
        return {alias.name: str(node.module) for node in imports for alias in node.names}

    @property
    def __all__(self) -> list[str]:
        """The public names, for `from package import *` and for those who list them."""
        return sorted(self._homes)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._homes:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = self.__dict__[name] = getattr(import_module(self._homes[name]), name)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in self._homes):  # a public name hides a module of that name
            super().__setattr__(name, value)


def load_names_on_first_use(package: str) -> None:
    """Called by a package's `__init__.py`, whose imports of public names stand under `if TYPE_CHECKING:` alone.

    Type checkers and the import contract read these as they are; at run time each name is imported when it is asked for."""
    sys.modules[package].__class__ = LazyPackage
