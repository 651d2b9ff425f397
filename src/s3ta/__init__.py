"""Train, attack, measure and explain robust image classifiers; the reference implementation of S3TA.

The public names below load on first use, so that reading records or drawing a report never waits for torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from s3ta.lazy import LazyPackage

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


class _CallablePackage(LazyPackage):
    """`s3ta.evaluate` is a package and is called as the function of that name in `s3ta.api`."""

    @property
    def __signature__(self) -> Any:
        return import_module("inspect").signature(import_module("s3ta.api").evaluate)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return import_module("s3ta.api").evaluate(*args, **options)


class _Package(LazyPackage):
    """This package; an import of `s3ta.evaluate` sets that name here, and so makes the module callable."""

    def __getattr__(self, name: str) -> Any:
        return import_module("s3ta.evaluate") if name == "evaluate" else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "evaluate" and type(value) is LazyPackage:
            value.__class__ = _CallablePackage
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
