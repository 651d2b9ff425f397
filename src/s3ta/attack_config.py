"""What an attack is, as data: threat model, objective, gradient source, step rule, restarts. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from s3ta.config import Config, from_json, parse_radius
from s3ta.errors import UserError

Loss: TypeAlias = Literal["cross_entropy", "margin", "dlr"]
Annealing: TypeAlias = Literal["constant", "linear", "cosine"]
Share = Annotated[float, Field(ge=0, le=1)]
Distance = Annotated[float, BeforeValidator(parse_radius), Field(ge=0, allow_inf_nan=False)]
"""As Radius, but a Euclidean distance may be larger than 1."""

_SMALLEST_DELTA = 1e-5
"""Of SPSA's probes: a hundred times what float32 rounds a pixel to, and answers are rounded too."""

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class Words:
    """How a report says a setting that is not its default; `{}` stands for the value."""

    text: str


def departures(kind: type[Config], settings: Mapping[str, Any]) -> list[str]:
    """The settings of a manifest's entry that are not as declared, in the words that their fields of `kind` have for them."""
    return [
        word.text.format(settings[name])
        for name, field in kind.model_fields.items()
        for word in field.metadata
        if isinstance(word, Words) and settings.get(name) not in (None, field.default)
    ]


class BoxRegion(Config):
    """A rectangle of the image, in shares of its height and width."""

    kind: Literal["box"] = "box"
    height: Annotated[float, Field(gt=0, le=1)] = 0.5
    width: Annotated[float, Field(gt=0, le=1)] = 0.5
    row: Share | None = None
    """The middle, from 0 (top) to 1; moved inward as far as the rectangle needs. None: drawn per example (stream `place`)."""
    column: Share | None = None


class GridRegion(Config):
    """Any region, drawn in characters: `#` belongs to it, `.` does not; stretched over the image."""

    kind: Literal["grid"] = "grid"
    rows: tuple[str, ...]
    """Such as ("..#", ".##", "###"): lines of one length, top to bottom."""

    @model_validator(mode="after")
    def _is_a_grid(self) -> GridRegion:
        if not self.rows or not self.rows[0] or any(len(row) != len(self.rows[0]) for row in self.rows):
            raise ValueError("the rows of a region must be of one length, and there must be some")
        if set("".join(self.rows)) - set("#.") or "#" not in "".join(self.rows):
            raise ValueError("a region is drawn with '#' (inside) and '.' (outside), and something must be inside")
        return self


Region = Annotated[BoxRegion | GridRegion, Field(discriminator="kind")]


class AttentionSteering(Config):
    """An objective on where a sequential model looks, mixed with the one on what it answers."""

    towards: Literal["away", "region"] = "away"
    """away: maps elsewhere than on the clean image; region: maps onto a part of the image."""
    region: Region | None = None
    weight: Share = 0.5
    """Share of steering in the objective; 1: classification plays no part."""

    @model_validator(mode="after")
    def _region_belongs_to_it(self) -> AttentionSteering:
        if (self.region is not None) != (self.towards == "region"):
            raise ValueError("steering towards a region needs `region`, and only that does")
        return self


class BackpropGradient(Config):
    """Gradients by backpropagation."""

    kind: Literal["exact"] = "exact"
    num_samples: Annotated[int, Field(ge=1)] = 1
    """Gradients averaged at each step, over the transformations below and a model's own randomness (EOT)."""
    max_shift: Annotated[int, Field(ge=0), Words("shifted up to {} pixels")] = 0
    """Pixels by which each sample is shifted at most."""
    noise: Annotated[float, Field(ge=0, allow_inf_nan=False), Words("noise {:g}")] = 0.0
    """Standard deviation of the noise added to each sample."""

    @property
    def moves_images(self) -> bool:
        """Whether the model sees other images than the iterates."""
        return bool(self.model_dump(exclude_defaults=True).keys() - {"kind", "num_samples"})

    @property
    def is_plain(self) -> bool:
        """Whether the source is the exact gradient at the iterate, asked once."""
        return self.num_samples == 1 and not self.moves_images


class SPSA(Config):
    """Gradients estimated from function values (E11)."""

    kind: Literal["spsa"] = "spsa"
    num_directions: Annotated[int, Field(ge=1)] = 4096
    """Mirrored probes per step, two forward passes each: the paper's "batch size 4096" read literally (OPEN CHOICE)."""
    delta: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01
    """How far a probe goes, 1e-5 at least (OPEN CHOICE)."""
    micro_batch: Annotated[int, Field(ge=2)] = 256
    """Images in the model at once: what bounds the memory."""

    @model_validator(mode="after")
    def _probes_move(self) -> SPSA:
        if self.delta < _SMALLEST_DELTA:
            raise ValueError(
                f"delta {self.delta:g} is lost in the rounding of float32, and probes would equal the image: give "
                f"{_SMALLEST_DELTA:g} or more, such as 0.01"
            )
        return self


class GradientAttackConfig(Config):
    """What all attacks of the one loop have in common."""

    objective: Literal["targeted", "untargeted", "multitargeted", "divergence", "local_linearity"] = "targeted"
    """targeted: towards a random wrong class, fixed per example (T15); untargeted: away from the true label (E7);
    multitargeted: restart r goes towards the wrong class that is r-th likeliest on the clean image; divergence: away from the
    model's own answer to the clean image, whatever the label (TRADES); local_linearity: to where the loss is furthest from its
    tangent plane at the clean image, above or below (LLR, C3)."""
    loss: Loss = "cross_entropy"
    """margin and dlr keep a gradient where a sure model's cross-entropy has none (E7); not for multitargeted, which has its
    own."""
    norm: Literal["linf", "l2"] = "linf"
    radius: Distance = 16 / 255
    """How far a pixel may move (linf), or the Euclidean length of the whole change (l2)."""
    mask: Region | None = None
    """The only place where pixels may move; None: everywhere."""
    num_attack_steps: Annotated[int, Field(ge=0)] = 100
    random_start_prob: Share = 1.0
    """Share of examples that start from noise, per example: 0.8 in the paper's training, 1 in evaluation (T17, E4)."""
    read_outs: tuple[int, ...] = ()
    """Step counts at which the same run is also read out; all share this step size."""
    num_restarts: Annotated[int, Field(ge=1)] = 1
    """Independent starts; the target stays (E9). The worst one counts, example by example."""
    keep: Literal["last", "best"] = "last"
    """last: the last iterate, as in the paper (X14); best: the one furthest beyond the decision boundary."""
    gradient: Annotated[BackpropGradient | SPSA, Field(discriminator="kind")] = BackpropGradient()
    num_glimpses: Annotated[int, Field(ge=1)] | None = None
    """Gradients through so many glimpses of a sequential model, whatever number the defender takes; None: the same."""
    glimpses: Literal["last", "all", "each"] = "last"
    """Which read-outs of a sequential model the loss sees: the last, all together, or in restart r that of glimpse r."""
    steering: AttentionSteering | None = None
    eight_bit: bool = False
    """Only images whose pixels are whole numbers of 255ths count: what survives being saved as a PNG file."""

    @property
    def looks_first(self) -> bool:
        """Whether the attack asks the model about the clean image before it begins; one forward pass."""
        away = self.steering is not None and self.steering.towards == "away"
        return away or self.objective in ("multitargeted", "divergence", "local_linearity")

    @property
    def first_gradients(self) -> int:
        """Gradients at the clean image before it begins, beside those of its steps: of the tangent plane."""
        return int(self.objective == "local_linearity")

    @property
    def needs_trace(self) -> bool:
        """Whether the attack looks at glimpses, and so only fits a sequential model."""
        return self.glimpses != "last" or self.steering is not None or self.num_glimpses is not None

    @model_validator(mode="after")
    def _fits_together(self) -> GradientAttackConfig:
        if any(not 0 < n <= self.num_attack_steps for n in self.read_outs):
            steps = self.num_attack_steps
            raise ValueError(f"read_outs {self.read_outs} must lie between 1 and num_attack_steps {steps}")
        if self.norm == "linf" and self.radius > 1:
            advice = "write 16/255 or norm l2"
            raise ValueError(f"radius {self.radius:g} is more than 1, the whole range of a pixel: {advice}")
        if self.objective == "local_linearity" and not (self.gradient.kind == "exact" and self.gradient.is_plain):
            raise ValueError("objective local_linearity compares exact gradients: leave `gradient` as it is")
        if self.objective in ("multitargeted", "divergence") and self.loss != "cross_entropy":
            raise ValueError(f"objective '{self.objective}' has a loss of its own: leave `loss` as it is")
        return self


class PGDConfig(GradientAttackConfig):
    """Projected gradient ascent; signed gradients in the L-infinity ball, of unit length in the L2 ball (T14-T19, E2-E6).

    The defaults are the paper's evaluation at 100 steps."""

    kind: Literal["pgd"] = "pgd"
    step_size: Distance = 1 / 255
    """How far one attack step goes. The paper: 1/255, but 1.6/255 in evaluation with 10 steps (E5, T18)."""
    annealing: Annealing = "constant"
    """How the step size falls towards the last step."""
    momentum: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """What stays of the gradients before, each at mean absolute value 1 (MI-FGSM)."""

    @model_validator(mode="after")
    def _one_run_has_one_schedule(self) -> PGDConfig:
        if not self.step_size and self.radius and self.num_attack_steps:
            raise ValueError(
                f"steps of 0 move nothing in a ball of radius {self.radius:g}: give step_size, or num_attack_steps 0 for "
                "random starts alone"
            )
        if self.annealing != "constant" and set(self.read_outs) - {self.num_attack_steps}:
            raise ValueError("an annealed attack ends where its step size does: it has no read-outs on the way")
        return self


class AdamConfig(GradientAttackConfig):
    """The paper's Adam attack: raw gradients, annealed rate (appendix C.2, E10)."""

    kind: Literal["adam"] = "adam"
    num_attack_steps: Annotated[int, Field(ge=0)] = 250
    learning_rates: tuple[tuple[int, Rate], ...] = ((0, 0.1), (100, 0.01), (200, 0.001))
    """(from this number of steps done, so much): 0.1 for steps 1 to 100, 0.01 to 200, 0.001 to 250."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-9
    """Ten times below the usual 1e-8, for input gradients can be as small as that (X11)."""

    @model_validator(mode="after")
    def _rates_begin_at_zero(self) -> AdamConfig:
        since = [step for step, _ in self.learning_rates]
        if not since or since[0] != 0 or sorted(set(since)) != since:
            raise ValueError("learning_rates must begin at step 0 and rise, such as [[0, 0.1], [100, 0.01]]")
        if self.radius and self.num_attack_steps and not any(rate for _, rate in self.learning_rates):
            raise ValueError("learning_rates of 0 move nothing: give one above 0")
        return self


class AutoAttackComponentConfig(Config):
    """One part of AutoAttack as its "standard" version sets it. AutoAttack is all four; the worst counts."""

    objective: ClassVar[Literal["untargeted"]] = "untargeted"
    num_restarts: ClassVar[int] = 1
    read_outs: ClassVar[tuple[int, ...]] = ()
    kind: Literal["autoattack"] = "autoattack"
    part: Literal["apgd-ce", "apgd-t", "fab-t", "square"] = "apgd-ce"
    """Gradient ascent on the cross-entropy; on the targeted DLR loss; the nearest boundary; random squares, no gradients."""
    norm: Literal["linf", "l2"] = "linf"
    radius: Distance = 8 / 255
    """How far a pixel may move (linf), or the Euclidean length of the whole change (l2)."""
    num_attack_steps: int = Field(default_factory=lambda data: 5000 if data.get("part") == "square" else 100, ge=1)
    """Iterations, for each target class; of `square` the queries, 5000 unless said."""
    eight_bit: bool = False
    """Only images whose pixels are whole numbers of 255ths count."""
    num_targets: Annotated[int, Field(ge=1)] = 9
    """Likeliest wrong classes that `apgd-t` and `fab-t` try; all of them where there are fewer."""

    @model_validator(mode="after")
    def _radius_fits(self) -> AutoAttackComponentConfig:
        if self.norm == "linf" and self.radius > 1:
            raise ValueError(f"radius {self.radius:g} is more than pixels in [0, 1] can move (linf)")
        return self


AttackConfig = Annotated[PGDConfig | AdamConfig | AutoAttackComponentConfig, Field(discriminator="kind")]


class TransferConfig(Config):
    """No attack of its own: the images that an attack found on another model."""

    read_outs: ClassVar[tuple[int, ...]] = ()
    kind: Literal["transfer"] = "transfer"
    attack_name: str
    """The attack's name there."""
    attack: AttackConfig
    """Its settings: what the images were allowed, and whether they have targets."""

    @property
    def objective(self) -> str:
        return self.attack.objective

    @property
    def num_restarts(self) -> int:
        return self.attack.num_restarts

    @property
    def num_attack_steps(self) -> int:
        return self.attack.num_attack_steps


class NamedAttack(Config):
    """An attack under the name that its records carry."""

    name: str
    attack: Annotated[PGDConfig | AdamConfig | AutoAttackComponentConfig | TransferConfig, Field(discriminator="kind")]

    def as_entry(self) -> dict[str, Any]:
        """As a manifest tells it: one flat JSON object, with the objective also where that is no setting."""
        return {"name": self.name, "objective": self.attack.objective, **self.attack.model_dump(mode="json")}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> NamedAttack:
        """Read what a manifest tells; settings that came later have their defaults. Raises UserError for strange ones."""
        settings = {name: value for name, value in entry.items() if name != "name"}
        if settings.get("kind") in ("autoattack", "transfer"):
            settings.pop("objective", None)
        return from_json(cls, json.dumps({"name": entry.get("name"), "attack": settings}), "the manifest")


def entry_as_today(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An attack's entry in a manifest with every setting of today; as it is where today's configs cannot read it."""
    try:
        return NamedAttack.from_entry(entry).as_entry()
    except UserError:
        return dict(entry)


def evaluation_step_size(num_attack_steps: int, radius: float = 16 / 255) -> float:
    """1/255, or more where so many steps would not cross the radius: max(1, radius/steps) in 255ths.

    The rule of Feature Denoising (E5, X6), where the paper's settings come from. At the paper's radius of 16/255 it gives the
    paper's steps (appendix B): 1.6/255 with 10, 1/255 with any number from 16 up. At 8/255 it gives 1/255 with 10 steps too."""
    return max(1.0, 255 * radius / num_attack_steps) / 255
