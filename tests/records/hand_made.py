"""Hand-made records and manifests: sizes are small primes, so that swapped axes fail."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from s3ta.records.manifest import Manifest

MANIFEST: dict[str, Any] = {
    "format": 3,
    "num_chunks": 3,
    "model": {"name": "resnet", "sha256": "aa", "num_parameters": 17, "num_classes": 11, "config": {"width": 5}},
    "data": {"source": "digits", "split": "test", "fingerprint": "f00d", "num_examples": 7, "num_available": 13,
             "classes": [str(i) for i in range(11)]},
    "suite": {"name": "quick", "attacks": [
        {"name": "untargeted-5", "objective": "untargeted", "radius": 0.1, "step_size": 0.01, "num_attack_steps": 5,
         "read_outs": [2, 5], "num_restarts": 1, "random_start_prob": 1.0},
        {"name": "targeted-5", "objective": "targeted", "radius": 0.1, "step_size": 0.01, "num_attack_steps": 5,
         "read_outs": [2, 5], "num_restarts": 2, "random_start_prob": 1.0}]},
    "seed": 0, "precision": "float32", "micro_batch": 64, "num_threads": 1, "device": "cpu",
    "informative": {"versions": {"torch": "2.13"}, "hardware": "two cores"},
}  # fmt: skip


def manifest(**changes: Any) -> dict[str, Any]:
    """A copy of the manifest; a change is written `data__seed=3`, the parts of the path joined by two underscores."""
    tree = copy.deepcopy(MANIFEST)
    for path, value in changes.items():
        *parents, last = path.split("__")
        node: Any = tree
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node[name]
        node[last] = value
    return tree


def typed(**changes: Any) -> Manifest:
    """The same as the checks read it."""
    return Manifest.model_validate(manifest(**changes))


def rows(
    attack: str,
    predictions: Any,
    labels: Any,
    targets: Any = None,
    *,
    restart: int = 0,
    num_steps: int = 5,
    first: int = 0,
) -> dict[str, Any]:
    """Columns for one attack, restart and read-out, over examples `ex-<first>`, `ex-<first + 1>`, ..."""
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    targets = np.full(len(labels), -1) if targets is None else np.asarray(targets)
    n, clean = len(labels), attack == "clean"
    return {
        "example_id": [f"ex-{first + i}" for i in range(n)], "label": labels, "target": targets, "attack": [attack] * n,
        "restart": [restart] * n, "num_attack_steps": [0 if clean else num_steps] * n, "prediction": predictions,
        "confidence": np.linspace(0.3, 0.9, n, dtype=np.float32), "loss": np.linspace(0, 1, n, dtype=np.float32),
        "correct": predictions == labels, "hit": (predictions == targets) & (targets >= 0),
        "distance": np.full(n, 0 if clean else 0.1, np.float32),
        "num_gradients": [0 if clean else num_steps] * n, "num_forwards": [1 if clean else num_steps + 1] * n,
        "status": ["run"] * n,
    }  # fmt: skip


def not_run(
    attack: str,
    labels: Any,
    targets: Any = None,
    *,
    status: str = "settled",
    restart: int = 0,
    num_steps: int = 5,
    first: int = 0,
) -> dict[str, Any]:
    """Columns for examples that an attack left out: nothing measured, nothing spent."""
    labels = np.asarray(labels)
    n, nothing = len(labels), [None] * len(labels)
    targets = np.full(n, -1) if targets is None else np.asarray(targets)
    return {
        "example_id": [f"ex-{first + i}" for i in range(n)], "label": labels, "target": targets, "attack": [attack] * n,
        "restart": [restart] * n, "num_attack_steps": [num_steps] * n, "prediction": nothing, "confidence": nothing,
        "loss": nothing, "correct": nothing, "hit": nothing, "distance": nothing,
        "num_gradients": [0] * n, "num_forwards": [0] * n, "status": [status] * n,
    }  # fmt: skip


def join(*columns: dict[str, Any]) -> dict[str, Any]:
    return {name: [value for part in columns for value in part[name]] for name in columns[0]}
