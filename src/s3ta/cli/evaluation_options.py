"""The options of `s3ta evaluate` in groups, each as what the package takes: suite, examples, how it runs, what comes of it.

A group refuses at once, with a UserError and before torch is imported, text that is none of what its options take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from s3ta.cli.model_options import PreprocessingName
from s3ta.cli.shared import DataRoot, Device, Download, ReturnMemory, Tiny, err_console, one_of, radius_of
from s3ta.errors import UserError

if TYPE_CHECKING:
    from s3ta.data import DataConfig
    from s3ta.evaluate import Settings, TransferImages
    from s3ta.workflow import EvaluationOutput, ExampleSelection, SuiteChoice

_attack_option = partial(typer.Option, rich_help_panel="What is measured")
_data_option = partial(typer.Option, rich_help_panel="Examples")
_run_option = partial(typer.Option, rich_help_panel="How it runs")


@dataclass(frozen=True)
class SuiteOptions:
    """With what the model is measured."""

    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[attack.a=b]...", help="Settings to change in every attack of the suite."),
    ] = None
    suite: Annotated[
        str | None, _attack_option(help="Name from `s3ta list suites`.  \\[default: the recipe's, else quick]")
    ] = None
    attack: Annotated[
        list[str] | None,
        _attack_option(help="Instead of a suite: an attack from `s3ta list attacks`; may be given several times."),
    ] = None
    radius: Annotated[
        str | None,
        _attack_option(
            help="Such as 8/255, for suites and attacks that state none.  \\[default: the recipe's, else 8/255]"
        ),
    ] = None
    transfer: Annotated[
        Path | None,
        _attack_option(help="Instead of a suite: score the images kept in this folder of another model's evaluation."),
    ] = None
    seed: Annotated[int, _attack_option(help="Chooses examples, targets and starts.")] = 0
    max_passes: Annotated[
        int | None,
        _attack_option(
            min=1, help="Forward and backward passes that each example may cost; what does not fit is left out."
        ),
    ] = None
    budget: Annotated[int | None, typer.Option("--budget", min=1, hidden=True)] = None
    exhaustive: Annotated[
        bool, _attack_option("--exhaustive", help="Go on with examples whose verdict cannot change any more.")
    ] = False
    tiny: Tiny = False

    def refuse_for_any_model(self) -> None:
        """UserError for a suite, attacks or settings that fit no model; imports no torch.

        A suite that nobody names is the recipe's, which only the model's folder knows: its settings are judged later."""
        radius, attacks, overrides = radius_of(self.radius), self.attack or [], self.overrides or []
        if self.suite is None and not attacks:
            return
        from s3ta.evaluate import AttackContext, build_suite, norm_of_overrides

        situation = AttackContext(num_glimpses=1, is_stated=radius is not None, norm=norm_of_overrides(overrides))
        situation = situation if radius is None else situation._replace(radius=radius)
        try:
            build_suite(self.suite, attacks, situation, False, overrides)
        except UserError as error:
            try:  # a model without glimpses leaves out the attacks on them, and what is wrong with these
                build_suite(self.suite, attacks, situation._replace(num_glimpses=None), False, overrides)
            except UserError:
                raise error from None

    def choice(self) -> SuiteChoice:
        """The suite that is meant."""
        from s3ta.workflow import SuiteChoice

        attacks, overrides = tuple(self.attack or ()), tuple(self.overrides or ())
        return SuiteChoice(self.suite, attacks, radius_of(self.radius), overrides, self.tiny)

    def refuse_beside_transfer(self, examples: DataOptions) -> None:
        """UserError for what a suite of transfers takes from the other evaluation."""
        given = [self.suite, self.attack, self.overrides, self.tiny, self.radius, self.seed]
        if any([*given, examples.num_examples, examples.ids, examples.targets]):
            raise UserError(
                "--transfer scores what is there: it goes with no suite, attack, radius, size, ids, targets, seed or "
                "settings."
            )


@dataclass(frozen=True)
class DataOptions:
    """On what it is measured."""

    data: Annotated[
        str | None,
        _data_option(help="digits, photographs, torchvision:NAME, folder:PATH or npz:PATH.  \\[default: the recipe's]"),
    ] = None
    split: Annotated[str, _data_option(help="train, validation or test.")] = "test"
    num_validation: Annotated[
        int | None,
        _data_option(
            min=0, help="How many training examples are the validation split.  \\[default: 1000, or the recipe's]"
        ),
    ] = None
    num_examples: Annotated[
        int | None,
        _data_option("--num-examples", "--limit", min=1, help="How many examples.  \\[default: the suite's]"),
    ] = None
    ids: Annotated[Path | None, _data_option(help="File with the ids of the examples to use, one per line.")] = None
    targets: Annotated[
        Path | None, _data_option(help="CSV file with a target for each example; each evaluation writes its own.")
    ] = None
    preprocessing: PreprocessingName = None
    match_classes: Annotated[
        str | None,
        _data_option(
            help="Match classes by name: `data`, only those of the data compete (ImageNet-A's 200 ways); `model`, all of "
            "the model's do."
        ),
    ] = None
    on_unreadable: Annotated[str, _data_option(help="stop or skip: what to do about images that cannot be read.")] = (
        "stop"
    )
    data_root: DataRoot = Path("data")
    download: Download = False

    def __post_init__(self) -> None:
        from s3ta.data import refuse_unknown_data

        one_of("--match-classes", self.match_classes, ("data", "model"))
        one_of("--on-unreadable", self.on_unreadable, ("stop", "skip"))
        if (data := self.config()) is not None:
            refuse_unknown_data(data.source, self.split)

    def examples(self, images: TransferImages | None = None) -> ExampleSelection:
        """The examples that are meant; those of kept images where there are any."""
        from s3ta.workflow import ExampleSelection

        return ExampleSelection(
            data=self.config(),
            split=self.split,
            num_examples=self.num_examples,
            ids=self.ids if images is None else images.ids,
            targets=self.targets,
            match_classes=one_of("--match-classes", self.match_classes, ("data", "model")),
            skip_unreadable=self.on_unreadable == "skip",
        )

    def config(self) -> DataConfig | None:
        """The data that a person names; None: the recipe's."""
        from s3ta.data import DataConfig, get_preprocessing

        if self.data is None:
            ours = (("--preprocessing", self.preprocessing), ("--num-validation", self.num_validation))
            for option, value in ours:
                if value is not None:
                    raise UserError(f"{option} goes with --data: a recipe says how its own data are treated.")
            return None
        treatment = None if self.preprocessing is None else get_preprocessing(self.preprocessing)
        return DataConfig(source=self.data, preprocessing=treatment, num_validation=self.num_validation)


@dataclass(frozen=True)
class RunOptions:
    """How it is measured, and where."""

    batch_size: Annotated[
        int | None,
        _run_option(
            min=1,
            help="Examples that go through the model at once; recorded, for it can change last bits.  \\[default: 50]",
        ),
    ] = None
    micro_batch: Annotated[int | None, typer.Option("--micro-batch", min=1, hidden=True)] = None
    prefetch: Annotated[
        int | None,
        _run_option(
            min=1,
            help="Examples in flight: more than a batch are loaded ahead; changes no record.  \\[default: a batch]",
        ),
    ] = None
    threads: Annotated[
        int | None, _run_option(min=1, help="CPU threads; recorded like the batch size.  \\[default: all cores]")
    ] = None
    attack_precision: Annotated[
        str | None,
        _run_option(
            help="Arithmetic of the attack: float32 or bfloat16. The verdict is always float32.  \\[default: float32]"
        ),
    ] = None
    search: Annotated[str | None, typer.Option("--search", hidden=True)] = None
    compiled: Annotated[bool, _run_option("--compile", help="Attack a compiled copy of the model.")] = False
    channels_last: Annotated[
        bool, _run_option("--channels-last", help="Attack in the memory order that GPUs prefer.")
    ] = False
    keep_images: Annotated[
        bool, _run_option("--keep-images", help="Keep every adversarial image beside the records.")
    ] = False
    device: Device = "auto"
    return_memory: ReturnMemory = False

    def __post_init__(self) -> None:
        self._precision()
        self._batch_size()

    def _precision(self) -> Literal["float32", "bfloat16"]:
        precision = one_word("--attack-precision", self.attack_precision, "--search", self.search) or "float32"
        return one_of("--attack-precision", precision, ("float32", "bfloat16"))

    def settings(self, suite: SuiteOptions) -> Settings:
        """How the evaluation runs. Raises UserError for text that is none of what the options take."""
        from s3ta.evaluate import Settings
        from s3ta.models import ExecutionMode

        return Settings(
            seed=suite.seed,
            batch_size=self._batch_size() or Settings().batch_size,
            num_threads=self.threads or os.cpu_count() or 1,
            attack_execution=ExecutionMode(self._precision(), self.compiled, self.channels_last),
            exhaustive=suite.exhaustive,
            max_passes=one_word("--max-passes", suite.max_passes, "--budget", suite.budget),
            keep_images=self.keep_images,
            prefetch=self.prefetch,
        )

    def say_what_changed(self) -> None:
        """A line for who gives the option whose meaning is another than it was."""
        if self.batch_size is not None:
            err_console.print(
                "note: --batch-size is what goes through the model at once, which --micro-batch was; what it was before, how "
                "many examples are in flight, is --prefetch."
            )

    def _batch_size(self) -> int | None:
        if self.batch_size is not None and self.micro_batch is not None:
            raise UserError(
                "--micro-batch is called --batch-size now, and what --batch-size was is --prefetch: write --batch-size "
                f"{self.micro_batch} --prefetch {self.batch_size}."
            )
        return self.batch_size if self.micro_batch is None else self.micro_batch


@dataclass(frozen=True)
class OutputOptions:
    """What comes of it, and how far it is checked."""

    out: Annotated[
        Path | None, _run_option(help="Folder of the records.  \\[default: evaluations/SUITE in the run folder]")
    ] = None
    shard: Annotated[str | None, _run_option(help="Do only this part, such as 1/4; merge by copying chunks.")] = None
    checks: Annotated[
        bool,
        _run_option("--checks/--no-checks", help="Look the model over before, and check the evaluation afterwards."),
    ] = True
    full_checks: Annotated[
        bool,
        _run_option(
            "--full-checks",
            help="Let the checks afterwards cost what they need, 344 passes on each of up to 32 images; by default at most a "
            "fifth of the attacks' passes.",
        ),
    ] = False
    strict: Annotated[bool, _run_option("--strict", help="Stop where the model looks wrong.")] = False

    def __post_init__(self) -> None:
        if self.full_checks and not self.checks:
            raise UserError("--full-checks asks for what --no-checks leaves out: choose one of them.")
        self._part()

    def _part(self) -> tuple[int, int] | None:
        if self.shard is None:
            return None
        index, _, count = self.shard.partition("/")
        if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
            raise UserError(f"--shard {self.shard} is no part such as 1/4: the first of four.")
        return int(index), int(count)

    def output(self) -> EvaluationOutput:
        """Folder, part and checks."""
        from s3ta.evaluate import Shard
        from s3ta.workflow import EvaluationOutput

        part, checks = self._part(), "full" if self.full_checks else "some" if self.checks else "none"
        return EvaluationOutput(self.out, checks, self.strict, None if part is None else Shard(*part))


def one_word(option: str, value: Any, former: str, old: Any) -> Any:
    """What was given by an option or by its former word. Raises UserError where both were."""
    if value is not None and old is not None:
        raise UserError(f"{former} is the former word for {option}: give one of them.")
    return old if value is None else value
