"""Training from given weights: what is taken of them, what stays fresh, what is left over, and their hash in the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from s3ta.config import from_json
from s3ta.errors import UserError
from s3ta.files import sha256
from s3ta.models import Classifier, LoadOptions, NativeClassifier, build_model, open_model
from s3ta.models.classifier_wrapper import model_metadata
from s3ta.models.external_normalisation import same_numbers
from s3ta.models.external_weights import fill
from s3ta.models.pretrained import CONFIG, tensor_as_bytes
from s3ta.process_state import seeded_global_generators
from s3ta.train.checkpoint import NAME
from s3ta.train.config import StartConfig, TrainConfig

_BACKBONE = "vision.net."
_MOST_NAMED = 4


class StartingWeights(NamedTuple):
    """Weights that a training begins with."""

    state: dict[str, Tensor]
    """What was taken, by its name in the model; the rest of the model is fresh."""
    fresh: list[str]
    """Names in the model that the given weights do not fill."""
    left_over: list[str]
    """Names of the given weights that nothing was made of."""

    @property
    def sha256(self) -> str:
        """Identifies what was taken by its content."""
        return sha256(
            *(part for key in sorted(self.state) for part in (key.encode(), tensor_as_bytes(self.state[key])))
        )

    def sentence(self, source: str) -> str:
        """For people."""
        parts = [f"{len(self.state)} tensors are taken from {source}"]
        parts += [f"{len(self.fresh)} stay fresh ({_some(self.fresh)})"] if self.fresh else []
        parts += [f"{len(self.left_over)} are left over ({_some(self.left_over)})"] if self.left_over else []
        return f"Start: {'; '.join(parts)}."


def with_start(config: TrainConfig, folder: Path) -> tuple[TrainConfig, StartingWeights | None]:
    """The recipe with the hash of the weights that it starts from, and these weights; None where it starts fresh, and where its
    run folder has a checkpoint to go on from.

    Raises UserError for weights that are missing, of another network, normalised otherwise, or not those of the hash."""
    start = config.start
    if start is None:
        return config, None
    _refuse_own_folder(start.weights, folder)
    begun = _start_of_run(folder)
    if begun is not None and begun.weights == _recorded(start.weights) and start.sha256 in (None, begun.sha256):
        known = start.model_copy(update={"weights": begun.weights, "sha256": begun.sha256})
        return config.model_copy(update={"start": known}), None
    weights = starting_weights(config, start)
    if start.sha256 not in (None, weights.sha256):
        raise UserError(
            f"The weights of {start.weights} are not those that the recipe names: their hash is {weights.sha256}, "
            f"start.sha256 is {start.sha256}."
        )
    known = start.model_copy(update={"weights": _recorded(start.weights), "sha256": weights.sha256})
    return config.model_copy(update={"start": known}), weights


def starting_weights(config: TrainConfig, start: StartConfig) -> StartingWeights:
    """What `start` gives to the recipe's model. Raises UserError as `with_start`."""
    with seeded_global_generators(0):
        model = build_model(config.model)
    if _is_file(start.weights):
        return _from_file(model, start)
    given = open_model(start.weights, LoadOptions())
    _refuse_other_normalisation(model, given, start.weights)
    state = given.net.state_dict() if isinstance(given, Classifier) else given.state_dict()
    if start.part == "backbone":
        of_ours = not isinstance(given, Classifier)
        state = {key if of_ours else _BACKBONE + key: value for key, value in state.items()}
    return _taken(model, {key: value for key, value in state.items() if isinstance(value, Tensor)}, start)


def _taken(model: NativeClassifier, given: dict[str, Tensor], start: StartConfig) -> StartingWeights:
    """The part of the given weights that the recipe asks for, whole."""
    ours = model.state_dict()
    expected = [key for key in ours if start.part == "all" or key.startswith(_BACKBONE)]
    missing = [key for key in expected if key not in given]
    shaped = [key for key in expected if key in given and given[key].shape != ours[key].shape]
    if missing or shaped:
        fitting = len(expected) - len(missing) - len(shaped)
        odd = (missing or shaped)[0]
        how = (
            "is not among them" if missing else f"has the shape {tuple(given[odd].shape)}, not {tuple(ours[odd].shape)}"
        )
        advice = ""
        if start.part == "all" and not any(key.startswith(_BACKBONE) for key in missing + shaped):
            advice = " The backbone fits: set start.part=backbone for a fresh head."
        raise UserError(
            f"{start.weights} does not fit {model.config.name}: {fitting} of {len(expected)} names fit, but '{odd}' "
            f"{how}.{advice}"
        )
    state = {key: given[key].to(ours[key].dtype).cpu().clone() for key in expected}
    left = [key.removeprefix(_BACKBONE) for key in given if key not in state]
    return StartingWeights(state, [key for key in ours if key not in state], left)


def _from_file(model: NativeClassifier, start: StartConfig) -> StartingWeights:
    """A state dict in a file: of the whole model, or of its backbone under its own names or those of the library."""
    target = model if start.part == "all" else model.vision.net
    unused = () if start.part == "all" else ("controller.", "classifier.", *model.vision.backbone.not_built)
    stored = fill(target, start.weights, model.config.vision.in_channels, unused)
    if stored.mean is not None and stored.std is not None:
        vision = model.config.vision
        if not (same_numbers(vision.mean, stored.mean) and same_numbers(vision.std, stored.std)):
            raise _other_normalisation(model, stored.mean, stored.std, start.weights)
    prefix = "" if start.part == "all" else _BACKBONE
    state = {prefix + key: value.clone() for key, value in target.state_dict().items()}
    return StartingWeights(state, [key for key in model.state_dict() if key not in state], [])


def _refuse_other_normalisation(model: NativeClassifier, given: NativeClassifier | Classifier, source: str) -> None:
    if isinstance(given, Classifier):
        settings = model_metadata(given).config
        mean, std = (tuple(settings.get(name) or default) for name, default in (("mean", (0.0,)), ("std", (1.0,))))
    else:
        mean, std = given.config.vision.mean, given.config.vision.std
    if not (same_numbers(model.config.vision.mean, mean) and same_numbers(model.config.vision.std, std)):
        raise _other_normalisation(model, mean, std, source)


def _other_normalisation(
    model: NativeClassifier, mean: tuple[float, ...], std: tuple[float, ...], source: str
) -> UserError:
    settings = " ".join(
        f"model.vision.{name}=[{','.join(f'{value:g}' for value in values)}]"
        for name, values in (("mean", mean), ("std", std))
    )
    return UserError(
        f"{source} was trained on images normalised by other numbers than {model.config.name}: set {settings}."
    )


def _refuse_own_folder(source: str, folder: Path) -> None:
    if Path(source).exists() and Path(source).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"start.weights {source} lies in the run folder itself: choose another folder with --out.")


def _start_of_run(folder: Path) -> StartConfig | None:
    """What the run of the folder began with, where it has a checkpoint."""
    file = folder / "recipe.json"
    if not (file.is_file() and (folder / NAME).is_file()):
        return None
    return from_json(TrainConfig, file.read_bytes(), str(file)).start


def _recorded(source: str) -> str:
    """As the recipe in the run folder says it: no path of a machine."""
    path = Path(source).expanduser()
    return path.name if path.is_absolute() else source


def _is_file(source: str) -> bool:
    """Whether it is a file of weights, or a folder of the Hub's kind, and no folder of a model or a run of ours."""
    path = Path(source.partition("#")[0])
    return path.is_file() or (path.is_dir() and not any((path / part / CONFIG).is_file() for part in ("", "model")))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
