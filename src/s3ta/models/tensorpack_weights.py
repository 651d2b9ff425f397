"""Feature Denoising's published weights (Xie et al. 2019; tensorpack's npz) as a model of ours (C2, X19).

Their networks are ResNets after V1 in TensorFlow: SAME padding (M4a), pixels 2p - 1, blue first. What differs is in the
config (`padding`) or in the weights (the first kernel is turned to red first); nothing is done to images."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from s3ta.errors import UserError
from s3ta.models.config import DenoiseConfig, ResNetConfig, VisionConfig
from s3ta.models.vision import PooledClassifier

LICENCE = "CC-BY-NC-4.0"
_MOST_BYTES = 1_000_000_000
"""ResNet-152 with its denoising blocks has 286 MB."""
_UNITS: dict[tuple[int, ...], str] = {(3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101", (3, 8, 36, 3): "resnet152"}
"""By the number of units in each stage."""
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "mean/EMA", "running_var": "variance/EMA"}
_OF_TRAINING = ("global_step", "learning_rate", "EMA/", "apply_gradients/")
"""How entries begin that no answer hangs on."""


def read_tensorpack(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, without TensorFlow's `:0`. Nothing is unpickled.

    Raises UserError where the file is missing, damaged, of another kind, too large, or holds objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > _MOST_BYTES:
            raise UserError(f"{path} unpacks to {size / 1e6:.0f} MB, more than any network that is converted here.")
        with np.load(path, allow_pickle=False) as stored:
            return {name.removesuffix(":0"): stored[name] for name in stored.files}
    except FileNotFoundError:
        raise UserError(f"{path} does not exist.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: give the npz file.") from None
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - numpy and zipfile raise many kinds for a damaged archive
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled objects, which would be run to be read; weights are arrays of numbers alone."
            ) from None
        raise UserError(f"{path} is damaged, or not an npz file ({type(error).__name__}).") from None


def feature_denoising_model(arrays: dict[str, np.ndarray], file: str) -> PooledClassifier:
    """The network that the arrays are of, filled, in eval mode: `resnet152_denoise`, `resnet152` or of 50 or 101 layers.

    Raises UserError for a network that is none of these, and for arrays that are missing, left over, of another shape or not
    finite."""
    arrays = {name: array for name, array in arrays.items() if not name.startswith(_OF_TRAINING)}
    config = _config(arrays, file)
    with torch.device("meta"):  # so that what does not fit is told before any memory is taken
        state = PooledClassifier(config).state_dict()
    theirs = {name: tensorpack_name(name) for name in state if not name.endswith("num_batches_tracked")}
    _refuse_other_names(set(arrays), set(theirs.values()), config.name, file)
    weights = {name: _converted(entry, arrays[entry], state[name].shape, file) for name, entry in theirs.items()}
    first = "vision.net.conv1.weight"
    weights[first] = weights[first].flip(1)  # it met blue first
    model = PooledClassifier(config)
    model.load_state_dict(weights, strict=False)  # names were checked above; batches are not counted there
    return model.eval()


def tensorpack_name(name: str) -> str:
    """What an entry of our state is called there: `vision.net.layer1.0.bn2.bias` is `group0/block0/conv2/bn/beta`."""
    parts = name.removeprefix("vision.net.").split(".")
    end = parts[-1]
    if parts[0] == "classifier":
        return f"linear/{'W' if end == 'weight' else 'b'}"
    if not parts[0].startswith("layer"):
        return f"conv0/{_end(parts[0], end)}"
    group, unit, part = int(parts[0].removeprefix("layer")) - 1, int(parts[1]), parts[2]
    if part in ("theta", "phi"):
        return f"group{group}_denoise/embedding_{part}/W"
    if part in ("conv", "norm"):
        return f"group{group}_denoise/conv/{_end(part, end)}"
    if part == "downsample":
        return f"group{group}/block{unit}/convshortcut/{_end('conv' if parts[3] == '0' else 'bn', end)}"
    return f"group{group}/block{unit}/conv{part[-1]}/{_end(part, end)}"


def _end(part: str, end: str) -> str:
    return "W" if part.startswith("conv") else f"bn/{_NORM[end]}"


def _config(arrays: dict[str, np.ndarray], file: str) -> ResNetConfig:
    units = tuple(
        len({name.split("/")[1] for name in arrays if name.startswith(f"group{group}/block")}) for group in range(4)
    )
    if units not in _UNITS or "linear/b" not in arrays:
        raise UserError(
            f"{file} holds no ResNet of Feature Denoising with 50, 101 or 152 layers: {units} units in its stages, and "
            f"{len(arrays)} arrays{_some(sorted(arrays))}."
        )
    if any("/non_local/" in name for name in arrays):
        raise UserError(
            f"{file} holds a network with denoising after every unit (X101-DenoiseAll), which is not built here."
        )
    is_denoised = any(name.startswith("group0_denoise/") for name in arrays)
    return ResNetConfig(
        name=_UNITS[units] + ("_denoise" if is_denoised else ""),
        num_classes=int(arrays["linear/b"].size),
        vision=VisionConfig(
            backbone=_UNITS[units],
            dense=False,
            padding="same",
            zero_init_last=True,
            denoise=DenoiseConfig() if is_denoised else None,
        ),
    )


def _converted(name: str, array: np.ndarray, shape: torch.Size, file: str) -> Tensor:
    """A kernel (height x width x inputs x outputs), a matrix (inputs x outputs) or a row as torch has it, float32.

    Raises UserError for another shape, and for what is not finite numbers."""
    axes: tuple[int, ...] = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
    expected = tuple(shape[axes.index(axis)] for axis in range(len(shape)))
    if array.shape != expected:
        raise UserError(f"{file} holds {name} of shape {array.shape}, where the network has {expected}.")
    if array.dtype.kind != "f":
        raise UserError(f"{file} holds {name} of type {array.dtype}: weights are floating-point numbers.")
    if not np.isfinite(array).all():
        raise UserError(f"{file} holds numbers in {name} that are not finite (NaN or infinity).")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(axes), np.float32))


def _refuse_other_names(stored: set[str], wanted: set[str], network: str, file: str) -> None:
    missing, left = sorted(wanted - stored), sorted(stored - wanted)
    if missing:
        raise UserError(f"{file} lacks {len(missing)} of the {len(wanted)} arrays of a {network}{_some(missing)}.")
    if left:
        raise UserError(f"{file} holds {len(left)} arrays that a {network} does not have{_some(left)}.")


def _some(names: list[str]) -> str:
    return f", the first {names[0]}" if names else ""
