"""What identifies a measurement: the manifest of its ledger."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from s3ta.attack_config import NamedAttack
from s3ta.attacks import frozen_in_eval_mode, seeded_global_generators
from s3ta.config import from_json
from s3ta.errors import UserError
from s3ta.evaluate.evaluation_task import EvaluationTask
from s3ta.evaluate.lint import model_state_restored
from s3ta.evaluate.plan import Settings, micro_batches_per_block, num_chunks
from s3ta.evaluate.suite import Suite
from s3ta.external_code_errors import guarded, without_addresses
from s3ta.files import read_json, sha256
from s3ta.malloc_tuning import allocator
from s3ta.models import ExecutionMode, device_of, model_metadata, num_parameters, weights_hash
from s3ta.process_state import process_state_kept
from s3ta.random_streams import stream
from s3ta.records import LEDGER_FORMAT
from s3ta.records.ledger import INFORMATIVE
from s3ta.records.manifest import model_config_as_today

_OTHER = 0.01
"""Of the largest logit: devices and versions stay far below it."""
_RANDOM = 1e-4
"""Of the largest logit, between two answers of one model on one machine. It is far below `_OTHER`, so that a model with a
random generator of its own, whose two answers are close by chance, is not taken for one that always answers alike."""


def build_manifest(task: EvaluationTask) -> dict[str, Any]:
    """What identifies the measurement (`s3ta.records.ledger`); `informative` may differ when it is resumed."""
    model, dataset, suite, settings = task.model, task.dataset, task.suite, task.settings
    ids, info = task.ids, task.info
    return {
        "format": LEDGER_FORMAT,
        "num_chunks": num_chunks(suite, len(ids), settings.batch_size),
        "model": {
            "name": info.name,
            "sha256": weights_hash(model),
            "structure": _structure(model),
            "num_parameters": num_parameters(model),
            "num_classes": info.num_classes,
            "config": info.config,
        },
        "data": {
            "source": dataset.source,
            "split": dataset.split,
            "fingerprint": dataset.fingerprint,
            "content": dataset.content,
            "examples": sha256("\n".join(ids).encode()),
            "num_examples": len(ids),
            "num_available": len(dataset.ids),
            "classes": list(dataset.classes),
            "shape": list(dataset.shape),
            "preprocessing": dataset.preprocessing,
        },
        "suite": suite_manifest(suite),
        "seed": settings.seed,
        "targets": _targets_hash(settings, ids),
        "precision": "float32",
        "search": dict(settings.attack_execution._asdict()),
        "exhaustive": settings.exhaustive,
        "budget": settings.max_passes,
        "micro_batch": settings.batch_size,
        "block": micro_batches_per_block(suite, settings),
        "num_threads": settings.num_threads,
        "device": task.device.type,
        "informative": {
            "versions": {name: version(name) for name in ("s3ta", "torch", "timm", "numpy")},
            "hardware": hardware(task.device),
            "batch_size": settings.prefetch or settings.batch_size,
            "answers": output_fingerprint(model),
            "examples": settings.examples,
            "memory": allocator().sentence,
            "python": platform.python_version(),
            "origins": dict(settings.origins or {}),
        },
    }


def output_fingerprint(model: nn.Module) -> list[float]:
    """The first logits, at most 8 of each, to six digits, of two fixed images of noise; none where the model does not answer,
    or answers otherwise when it is asked again.

    Weights and modules do not tell everything that `forward` does. Machines differ in last bits, so this is compared with a
    tolerance (`refuse_changed_model_code`), and is no part of the identity."""
    info = model_metadata(model)
    shape = (2, info.in_channels, info.image_size, info.image_size)
    images = torch.from_numpy(stream(0, "answers").random(shape, np.float32)).to(device_of(model))
    answers = []
    for _ in range(2):
        with (
            process_state_kept(),
            model_state_restored(model),
            frozen_in_eval_mode(model),
            seeded_global_generators(0),
            torch.no_grad(),
        ):
            try:
                answers.append(model(images.clone()).float().cpu())
            except Exception:  # noqa: BLE001 - whatever is wrong with a foreign model is the lint's to tell
                return []
    first, again = (logits[:, :8].flatten().tolist() for logits in answers)
    return [] if _are_others(first, again, _RANDOM) else [float(f"{value:.6g}") for value in first]


def _are_others(before: Sequence[float], now: Sequence[float], tolerance: float = _OTHER) -> bool:
    """Whether two answers to the same images differ by more than `tolerance` of the largest logit."""
    largest = max(1e-6, np.abs(np.asarray(now)).max())
    with np.errstate(invalid="ignore"):  # masked classes: infinity less infinity
        return bool(np.abs(np.asarray(before) - np.asarray(now)).max() > tolerance * largest)


def refuse_changed_model_code(folder: Path, manifest: dict[str, Any]) -> None:
    """UserError where the ledger was begun with a model that has the same weights and other code."""
    if not (folder / "manifest.json").is_file():
        return
    before = read_json(folder / "manifest.json").get(INFORMATIVE, {}).get("answers")
    now = manifest[INFORMATIVE]["answers"]
    if before and len(now) == len(before) and _are_others(before, now):
        raise UserError(
            f"{folder} was begun with a model that has the same weights and modules, but answers otherwise: its code, or "
            "something that it reads beside its weights, was changed. Use another folder."
        )


def _structure(model: nn.Module) -> str:
    """Identifies what the weights do not tell: the modules as torch prints them, and constants outside the state dict."""
    with guarded(f"state_dict() of {type(model).__name__}"):
        saved = model.state_dict().keys()
    # four digits: machines compute sines with other last bits
    others = ((name, buffer) for name, buffer in model.named_buffers() if name not in saved)
    lines = [f"{name} {tuple(buffer.shape)} {_total(buffer)}" for name, buffer in others]
    return sha256("\n".join([_printed(model), *lines]).encode())


def _printed(model: nn.Module) -> str:
    """As torch prints it; names and types where that fails, or is another text each time."""
    try:
        texts = {without_addresses(repr(model)) for _ in range(2)}
    except Exception:  # noqa: BLE001 - somebody else's `__repr__` may raise anything
        texts = set()
    if len(texts) == 1:
        return texts.pop()
    return "\n".join(f"{name} {type(module).__name__}" for name, module in model.named_modules())


def _total(buffer: torch.Tensor) -> str:
    """The sum of a tensor of any kind, to four digits."""
    values = buffer.detach()
    if values.layout != torch.strided or values.is_quantized:
        values = values.to_dense() if values.layout != torch.strided else values.dequantize()
    if values.is_complex():
        return f"{complex(values.sum()):.4g}"
    return f"{float(values.double().sum()):.4g}"


def _targets_hash(settings: Settings, ids: Sequence[str]) -> str:
    """`drawn`, or what identifies the given targets of these examples."""
    if settings.targets is None:
        return "drawn"
    return "given " + sha256(json.dumps([[example, settings.targets.get(example)] for example in ids]).encode())


def suite_manifest(suite: Suite) -> dict[str, Any]:
    """The suite as the manifest tells it."""
    return {
        "name": suite.name,
        "description": suite.description,
        "gallery_attack": suite.gallery_attack,
        "cascade": suite.cascade,
        "left_out": list(suite.left_out),
        "images_from": suite.images_from and suite.images_from.model_dump(mode="json"),
        "attacks": [named.as_entry() for named in suite.attacks],
    }


def manifest_with_defaults(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest read through today's configs, to be compared: settings that came later have their declared default, and what
    is unknown stays as it is."""
    parts: dict[str, Any] = {}
    if isinstance(model := manifest.get("model"), dict):
        parts["model"] = model | {"config": model_config_as_today(model.get("config"))}
    if isinstance(suite := manifest.get("suite"), dict):
        parts["suite"] = suite_with_defaults(suite)
    if isinstance(search := manifest.get("search"), dict):
        parts["search"] = ExecutionMode()._asdict() | search
    return manifest | parts


def suite_with_defaults(suite: dict[str, Any]) -> dict[str, Any]:
    """As `manifest_with_defaults`, of the suite in a manifest."""
    try:
        attacks = [NamedAttack.from_entry(entry).model_dump(mode="json") for entry in suite["attacks"]]
        return suite_manifest(from_json(Suite, json.dumps({**suite, "attacks": attacks}), "the manifest"))
    except (UserError, KeyError, TypeError, AttributeError):  # a stranger's manifest may hold anything
        return suite


def hardware(device: torch.device) -> str:
    """The processor or GPU in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
