"""What a manifest says, with names and types, for those who read one. `ledger` compares and hashes its JSON as it is.

manifest = Ledger.read(folder).typed_manifest
print(manifest.model.name, [attack.radius for attack in manifest.suite.attacks])
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from s3ta.config import Config, from_json
from s3ta.errors import UserError
from s3ta.models.config import ResNetConfig, S3TAConfig


class Entry(BaseModel):
    """A part of a manifest. Keys that are unknown here are kept; what is absent, or of another type, reads as its default,
    so that files of other versions and of strangers read. Only a part without which nothing can be shown is required."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON that it was read from."""
        return self._raw

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, value: Any, handler: Callable[[Any], Any]) -> Entry:
        entry = handler(value)
        entry._raw = value if isinstance(value, dict) else entry._raw
        return entry

    @field_validator("*", mode="wrap")
    @classmethod
    def _default_if_unfit(cls, value: Any, handler: Callable[[Any], Any], info: Any) -> Any:
        field = cls.model_fields[str(info.field_name)]
        try:
            return handler(value)
        except ValidationError:
            if field.is_required():
                raise
            return field.get_default(call_default_factory=True, validated_data={})


class RegionEntry(Entry):
    """A part of an image: a box, in shares of the image, or a grid of `#` and `.`."""

    kind: str = "box"
    height: float = 1
    width: float = 1
    row: float | None = None
    column: float | None = None
    rows: list[str] = []


class GradientEntry(Entry):
    """Where an attack has its gradients from."""

    kind: str = "exact"
    num_samples: int = 1
    num_directions: int = 0


class SteeringEntry(Entry):
    """What an attack wants of attention."""

    towards: str = "away"
    region: RegionEntry | None = None
    weight: float = 0.5


class AttackSettings(Entry):
    """The settings of an attack. An absent one is what its absence meant: a plain attack on the cross-entropy."""

    kind: str = ""
    objective: str = "untargeted"
    loss: str = "cross_entropy"
    norm: str = "linf"
    radius: float | None = None
    mask: RegionEntry | None = None
    step_size: float | None = None
    num_attack_steps: int = 0
    num_restarts: int = 1
    keep: str = "last"
    gradient: GradientEntry = GradientEntry()
    num_glimpses: int | None = None
    glimpses: str = "last"
    steering: SteeringEntry | None = None
    eight_bit: bool = False
    annealing: str = "constant"
    momentum: float = 0
    part: str = ""
    """Of AutoAttack."""
    num_targets: int | None = None
    attack_name: str | None = None
    """Of a transfer: the attack's name on the other model."""
    attack: AttackSettings | None = None
    """Of a transfer: its settings there."""

    @property
    def made_with(self) -> AttackSettings:
        """The settings that the images were made with: of a transfer those of the attack on the other model."""
        return self.attack if self.kind == "transfer" and self.attack is not None else self

    @property
    def is_loop(self) -> bool:
        """Whether it is an attack of the one loop, and neither AutoAttack's nor a transfer."""
        return self.kind in ("pgd", "adam")

    @property
    def uses_gradients(self) -> bool:
        """Whether it goes by gradients of the model, and not by its answers alone."""
        return self.part != "square" and self.gradient.kind != "spsa"

    @property
    def aims_away(self) -> bool:
        """Whether it aims away from the true label. Divergence aims away from the model's own answer, right or wrong, and has
        no gradient at the clean image: it is for training, and no worst case."""
        return self.objective in ("untargeted", "multitargeted")


class AttackEntry(AttackSettings):
    """One attack of a suite."""

    name: str


class ImageSource(Entry):
    """Whose images a suite of transfers uses."""

    model: str | None = None
    sha256: str | None = None
    suite: str | None = None


class SuiteEntry(Entry):
    """The attacks."""

    name: str = ""
    description: str = ""
    cascade: bool = False
    left_out: list[str] = []
    """Attacks that the model could not be given."""
    images_from: ImageSource | None = None
    attacks: list[AttackEntry]

    @property
    def attacks_by_name(self) -> dict[str, AttackEntry]:
        return {attack.name: attack for attack in self.attacks}

    @property
    def settings_by_name(self) -> dict[str, AttackSettings]:
        """What the images of each attack were made with, by its name here."""
        return {attack.name: attack.made_with for attack in self.attacks}


class ModelConfigEntry(Entry):
    """How the model was built or opened."""

    source: str | None = None
    weights: str | None = None
    mean: list[float] = []
    std: list[float] = []
    channel_order: str = "rgb"
    vision: ModelConfigEntry | None = None


class ModelEntry(Entry):
    """The model."""

    name: str | None = None
    sha256: str | None = None
    """Of its weights."""
    num_parameters: int | None = None
    num_classes: int | None = None
    config: ModelConfigEntry = ModelConfigEntry()


class PreprocessingEntry(Entry):
    """How image files became pixels."""

    name: str = "none"
    resize: int | None = None
    interpolation: str = "none"
    image_size: int | None = None


class DataEntry(Entry):
    """The images."""

    source: str | None = None
    split: str | None = None
    fingerprint: str | None = None
    content: str | None = None
    """Identifies the images where the fingerprint also knows their files."""
    examples: str | None = None
    """Identifies the ids of the examples."""
    num_examples: int | None = None
    num_available: int | None = None
    classes: list[Any] = []
    shape: list[int] | None = None
    """(channels, height, width)."""
    preprocessing: PreprocessingEntry = PreprocessingEntry()

    @property
    def title(self) -> str:
        """Source and split; empty where neither is recorded."""
        return " ".join(text for text in (self.source, self.split) if text)


class PrecisionEntry(Entry):
    """The arithmetic of the attack."""

    precision: str = ""
    compiled: bool = False
    channels_last: bool = False


class FilesEntry(Entry):
    """Of image files: what they held."""

    sha256: str | None = None


class Informative(Entry):
    """What may differ when an evaluation is resumed."""

    versions: dict[str, str] = {}
    hardware: str | None = None
    examples: str | None = None
    """How they were chosen: `drawn` or `listed`."""
    files: FilesEntry = FilesEntry()


class Manifest(Entry):
    """What was measured. `raw` is the file's JSON."""

    num_chunks: int
    model: ModelEntry
    data: DataEntry
    suite: SuiteEntry
    seed: int | None = None
    targets: str | None = None
    precision: str | None = None
    search: PrecisionEntry = PrecisionEntry()
    budget: int | None = None
    micro_batch: int | None = None
    num_threads: int | None = None
    device: str | None = None
    informative: Informative = Informative()

    @classmethod
    def read(cls, raw: dict[str, Any], folder: Path) -> Manifest:
        """Read the JSON of a manifest. Raises UserError, naming the folder, where it is damaged."""
        try:
            return cls.model_validate(raw)
        except ValidationError:
            raise UserError(
                f"The manifest of {folder} is damaged: it does not name its model, data and attacks."
            ) from None


def model_config_as_today(config: Any) -> Any:
    """A model's config in a manifest with every setting of today; as it is where it is of a stranger's model, or today's
    configs cannot read it."""
    kinds: dict[str, type[Config]] = {"resnet": ResNetConfig, "s3ta": S3TAConfig}
    kind = kinds.get(str(config.get("kind"))) if isinstance(config, dict) else None
    if kind is None:
        return config
    known = {name: value for name, value in config.items() if name in kind.model_fields}
    try:
        return config | from_json(kind, json.dumps(known), "the manifest").model_dump(mode="json")
    except UserError:
        return config


class RecipeEntry(Entry):
    """What a run folder says of the training."""

    name: str | None = None
    source: str | None = None
    data: Any = None
    attack: Any = None
    loss: Any = None
    optimizer: Any = None
    schedule: Any = None
    batch_size: Any = None
    label_smoothing: Any = None
    seed: Any = None
    departures: Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = []
