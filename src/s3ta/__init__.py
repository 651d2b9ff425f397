"""Train, attack, measure and explain robust image classifiers; the reference implementation of S3TA.

The public names below load on first use, so that reading records or drawing a report never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3ta.models import Classifier, create_model, from_pretrained, list_models, save_pretrained
    from s3ta.types import Trace

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Trace",
    "__version__",
    "create_model",
    "from_pretrained",
    "list_models",
    "save_pretrained",
]

_HOME = {
    "Classifier": "s3ta.models",
    "create_model": "s3ta.models",
    "from_pretrained": "s3ta.models",
    "list_models": "s3ta.models",
    "save_pretrained": "s3ta.models",
    "Trace": "s3ta.types",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 's3ta' has no attribute {name!r}")
