"""Train, attack, measure and explain robust image classifiers; the reference implementation of S3TA.

The public names below load on first use, so that reading records or drawing a report never waits for torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3ta.api import Result, attack, evaluate, lint, open_model
    from s3ta.models import Classifier, create_model, from_pretrained, list_models, save_pretrained
    from s3ta.types import Trace

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Result",
    "Trace",
    "__version__",
    "attack",
    "create_model",
    "evaluate",
    "from_pretrained",
    "lint",
    "list_models",
    "open_model",
    "save_pretrained",
]

_HOME = {
    **dict.fromkeys(("Result", "attack", "lint", "open_model"), "s3ta.api"),
    "Classifier": "s3ta.models",
    "create_model": "s3ta.models",
    "from_pretrained": "s3ta.models",
    "list_models": "s3ta.models",
    "save_pretrained": "s3ta.models",
    "Trace": "s3ta.types",
}


class _CallableRoom(ModuleType):
    """`s3ta.evaluate` is a package and is called as the function of that name in `s3ta.api`."""

    @property
    def __signature__(self) -> Any:
        return import_module("inspect").signature(import_module("s3ta.api").evaluate)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("s3ta.api").evaluate(*args, **options)


class _Package(ModuleType):
    """This package; an import of `s3ta.evaluate` sets that name here, and so makes the module callable."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "evaluate" and type(value) is ModuleType:
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return import_module("s3ta.evaluate")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 's3ta' has no attribute {name!r}")
