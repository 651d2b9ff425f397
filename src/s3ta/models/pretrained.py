"""Weights as safetensors with their config beside them: a folder or a Hub id. Nothing is pickled or unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.external_code_errors import guarded, without_addresses
from s3ta.files import read_json, readable_errors, sha256, write_atomic, write_json
from s3ta.models.config import ModelConfig
from s3ta.models.factory import build_model
from s3ta.models.load_options import is_hub_id
from s3ta.models.vision import NativeClassifier

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_pretrained(model: NativeClassifier, folder: str | Path, classes: list[str] | None = None) -> None:
    """Write `config.json` and `model.safetensors`; `classes` are the names of the outputs, in order."""
    folder = Path(folder)
    write_json(
        folder / CONFIG, {"format": "s3ta-model-1", "model": model.config.model_dump(mode="json"), "classes": classes}
    )
    # The weights come last: where they are, the model is whole.
    write_atomic(folder / WEIGHTS, save({key: value.contiguous().cpu() for key, value in model.state_dict().items()}))


def from_pretrained(source: str | Path) -> NativeClassifier:
    """Load a model, in eval mode, from a folder written by `save_pretrained`, from a run folder, or from a Hub id.

    Raises UserError: nothing there, or a damaged, foreign or mismatching file; the sentence says which."""
    folder = find_weights(source)
    config, _ = read_config(folder)
    model = build_model(config)
    load_weights(model, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    return model.eval()


def find_weights(source: str | Path) -> Path:
    """The folder that holds the weights: the given one, its `model/` (a run folder), or a download from the Hub."""
    for folder in (Path(source), Path(source) / "model"):
        if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
            return folder
    if Path(source).exists():
        advice = f"a model folder holds {CONFIG} and {WEIGHTS}"
        if (Path(source) / "recipe.json").is_file():
            advice = "its training has not finished; run the same `s3ta train` command again"
        raise UserError(f"{source} is not a model: {advice}.")
    if not is_hub_id(str(source)):
        raise UserError(f"{source} does not exist. Give a run folder, a model folder, or a Hub id such as owner/name.")
    return _from_hub(str(source))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[CONFIG, WEIGHTS]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"There is no folder {name} here, and the Hub did not give a model of that name ({type(error).__name__})."
        ) from None


def read_config(folder: Path) -> tuple[ModelConfig, list[str] | None]:
    """The model's config and the names of its classes (None where they were not saved)."""
    stored = read_json(folder / CONFIG)
    if not isinstance(stored, dict) or stored.get("format") != "s3ta-model-1":
        raise UserError(f"{folder / CONFIG} is not a config of this program (no format 's3ta-model-1').")
    try:
        config = TypeAdapter(ModelConfig).validate_json(json.dumps(stored["model"]))
    except (KeyError, ValidationError) as error:
        detail = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ("model",), "msg": "missing"}
        path = ".".join(str(part) for part in detail["loc"])
        raise UserError(f"{folder / CONFIG} does not describe a model: {path}: {detail['msg']}.") from None
    classes = stored.get("classes")
    if classes is not None and not (isinstance(classes, list) and len(classes) == config.num_classes):
        raise UserError(
            f"{folder / CONFIG} must name one class for each of the model's {config.num_classes} outputs, or none."
        )
    return config, None if classes is None else [str(name) for name in classes]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file. Raises UserError where it is missing or damaged."""
    try:
        with readable_errors(path):
            return load(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except (SafetensorError, ValueError, KeyError):
        raise UserError(f"{path} is damaged, or not a safetensors file.") from None


def load_weights(model: nn.Module, tensors: dict[str, Tensor], where: Path) -> None:
    """Fill the model, strictly: every name and shape must fit. Raises UserError that names the first misfit."""
    net = model.state_dict()
    for key in sorted(net.keys() | tensors.keys()):
        if key not in tensors or key not in net:
            lacking, having = ("the file lacks", "the model has") if key in net else ("the model lacks", "the file has")
            raise UserError(f"{where} does not fit the model: {having} '{key}', {lacking} it.")
        if net[key].shape != tensors[key].shape:
            raise UserError(
                f"{where} does not fit the model: '{key}' is {tuple(tensors[key].shape)} in the file, "
                f"{tuple(net[key].shape)} in the model (another number of classes or channels?)."
            )
    model.load_state_dict(tensors)


def weights_hash(model: nn.Module) -> str:
    """Identifies the weights by content, whatever the file they came from: numbers of any kind, whole, shared, sparse, packed.

    Raises ForeignError where the model does not give them."""
    with guarded(f"state_dict() of {type(getattr(model, 'net', model)).__name__}"):
        state = sorted(model.state_dict().items())
        return sha256(*(part for key, value in state for part in (key.encode(), tensor_as_bytes(value))))


def tensor_as_bytes(value: object) -> bytes:
    """What a tensor, or anything else that a state dict may hold, is made of, as bytes."""
    if isinstance(value, Tensor):
        parts = _parts(value.detach())
        return parts if isinstance(parts, bytes) else tensor_as_bytes(parts)
    if isinstance(value, Mapping):
        return b"".join(tensor_as_bytes(part) for key in sorted(value, key=str) for part in (str(key), value[key]))
    if isinstance(value, (list, tuple)):
        return b"".join(tensor_as_bytes(part) for part in value)
    return without_addresses(repr(value)).encode()


def _parts(value: Tensor) -> tuple[Any, ...] | bytes:
    """What a tensor is made of: its numbers as they lie in memory, or where it is no plain block, what describes it."""
    if value.is_quantized:
        if value.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            return value.int_repr(), value.q_scale(), value.q_zero_point()
        return value.int_repr(), value.q_per_channel_scales(), value.q_per_channel_zero_points()
    if value.layout == torch.sparse_coo:
        whole = value.coalesce()
        return tuple(value.shape), whole.indices(), whole.values()
    if value.layout != torch.strided:
        return (value.to_dense(),)
    flat = value.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()  # numpy does not know every kind of number
