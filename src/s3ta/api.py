"""The door from Python: measure, attack or look over a model that is in memory; handed on as `s3ta.evaluate` and so on.

Nothing is printed but progress, the process is left as it was (generators, threads, gradients on or off, the model's modes),
and what a caller did wrong is a `UserError`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from s3ta.attacks import frozen_in_eval_mode, seeded_global_generators
from s3ta.attacks.input_validation import refuse_inference_mode
from s3ta.config import parse_radius
from s3ta.data import validate_labels
from s3ta.data.sources import ArrayDataset
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, Settings, Suite, choose_examples, get_suite
from s3ta.models import ExecutionMode, LoadOptions, device_of
from s3ta.models import open_model as _open_model
from s3ta.process_state import process_state_kept
from s3ta.progress import only_progress
from s3ta.workflow import EvaluationOutput, EvaluationRequest, ExampleSelection, RuntimeOptions, evaluate_model
from s3ta.workflow.attack_images import attacked_images
from s3ta.workflow.checks_before import lint_measured
from s3ta.workflow.open_in_memory import Model, Numbers, modules_behind, numbers_of, open_in_memory
from s3ta.workflow.request import Checks, given_suite
from s3ta.workflow.result import AttackedImages, Findings, ReadOut, Result, in_python

__all__ = ["AttackedImages", "Findings", "ReadOut", "Result", "attack", "evaluate", "lint", "open_model"]


def evaluate(
    model: Model,
    images: Any,
    labels: Any = None,
    *,
    suite: str | Sequence[str] | Suite = "quick",
    radius: float | str | None = None,
    overrides: Sequence[str] = (),
    num_examples: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: Literal["rgb", "bgr"] | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    batch_size: int = 50,
    prefetch: int | None = None,
    threads: int | None = None,
    attack_precision: Literal["float32", "bfloat16"] = "float32",
    max_passes: int | None = None,
    keep_images: bool = False,
    checks: Checks = "some",
    strict: bool = False,
    progress: bool = True,
) -> Result:
    """Attack a model and record what happened to every image: what `s3ta evaluate` does, the same records.

    Args:
      model: any module or callable, images (B, C, H, W) in [0, 1] -> logits (B, Y); measured in eval mode, on its device.
      images: N x C x H x W, a tensor or NumPy array, uint8 or floating point in [0, 1]; or a torch `Dataset` or `DataLoader`,
        read once into memory.
      labels: one whole number per image; None where `images` brings them.
      suite: a name from `s3ta list suites`, one or several from `s3ta list attacks`, or a `Suite`.
      radius: such as 4/255 or "4/255"; None: the suite's own, else 8/255. A suite that states one is run at the given one, with
        steps in proportion.
      overrides: settings for all attacks, as on the command line: "attack.num_restarts=10".
      num_examples: how many images are drawn; None: as many as the suite says (quick: 500), at most all.
      seed: chooses images, targets and starts.
      out: folder of the records; the same call goes on there after an interruption. None: a temporary folder that goes when
        nobody holds the Result.
      mean, std, channel_order: of the normalisation inside the model that it does not do itself, as of `s3ta.Classifier`.
      classes: names of the model's outputs, in order; None: those that it says, else numbers.
      name: what people call it; None: the name of its class.
      batch_size: images that go through the model at once; recorded, for it can change last bits.
      prefetch: images in flight; changes no record. None: a batch.
      threads: CPU threads while it is measured; recorded likewise. None: all cores.
      attack_precision: of the attack's gradients; the verdict is always float32.
      max_passes: forward and backward passes that each image may cost; what does not fit is left out.
      keep_images: keep every adversarial image beside the records.
      checks: `none`; `some`: the model before, and the evaluation after for a fifth of the attacks' passes; `full`.
      strict: stop where the model looks wrong.
      progress: show a bar, or lines where there is no terminal.
    Raises:
      UserError: images, labels or options that do not fit, a model that cannot be measured, an unknown suite, or a folder that
        holds another evaluation."""
    with _door(model, shown=progress):
        refuse_inference_mode()
        settings = _settings(seed, batch_size, threads, attack_precision)
        settings = settings._replace(prefetch=prefetch, max_passes=max_passes, keep_images=keep_images)
        options = _options(mean, std, channel_order, classes, batch_size)
        subject, dataset = open_in_memory(model, images, labels, options, name)
        chosen = given_suite(subject, suite, _radius(radius), tuple(overrides))
        if out is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("Several processes share their records in one folder: give it with out.")
        folder = Path(tempfile.mkdtemp(prefix="s3ta-")) if out is None else Path(out).expanduser()
        runtime = RuntimeOptions(device=str(device_of(subject.model)))
        examples = ExampleSelection(dataset, num_examples=num_examples)
        output = EvaluationOutput(folder, checks, strict)
        try:
            evaluate_model(subject, EvaluationRequest(chosen, examples, settings, runtime, output))
            return Result(folder, is_temporary=out is None)
        except BaseException:
            if out is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def attack(
    model: Model,
    images: Any,
    labels: Any = None,
    name: str = "pgd-100",
    *,
    radius: float | str | None = None,
    targets: Any = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: Literal["rgb", "bgr"] | None = None,
    batch_size: int = 50,
    threads: int | None = None,
    attack_precision: Literal["float32", "bfloat16"] = "float32",
    progress: bool = True,
) -> AttackedImages:
    """Adversarial images of all the images given, with what the model says of them.

    Args:
      name: from `s3ta list attacks`.
      radius: such as 4/255 or "4/255"; None: 8/255.
      targets: classes to reach, one per image, for a targeted attack; None: drawn from the seed, as in an evaluation.
      others: as of `evaluate`.
    Raises UserError as `evaluate`, and for targets that are no other class than the label."""
    with _door(model, shown=progress):
        refuse_inference_mode()
        settings = _settings(seed, batch_size, threads, attack_precision)
        options = _options(mean, std, channel_order, None, batch_size)
        subject, dataset = open_in_memory(model, images, labels, options)
        suite = given_suite(subject, [name], _radius(radius), tuple(overrides))
        if targets is not None:
            settings = settings._replace(targets=_targets(targets, dataset))
        return attacked_images(EvaluationTask(subject.model, dataset, suite, range(len(dataset.ids)), settings))


def lint(
    model: Model,
    images: Any,
    labels: Any = None,
    *,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: Literal["rgb", "bgr"] | None = None,
    classes: Sequence[str] | None = None,
    batch_size: int = 50,
    threads: int | None = None,
    progress: bool = True,
) -> Findings:
    """What is wrong with how a model answers: some 20 passes over at most 256 of the images, and no attack.

    A model in training mode is looked at as it is. Arguments and errors as of `evaluate`."""
    with _door(model, shown=progress, is_frozen=False):
        settings = _settings(0, batch_size, threads, "float32")
        with ExitStack() as held:
            for module in modules_behind(model):
                held.enter_context(frozen_in_eval_mode(module))
            options = _options(mean, std, channel_order, classes, batch_size)
            subject, dataset = open_in_memory(model, images, labels, options)
        positions = choose_examples(dataset, None, settings.seed)
        return Findings(lint_measured(EvaluationTask(subject.model, dataset, get_suite("quick"), positions, settings)))


def open_model(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_channels: int | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    channel_order: Literal["rgb", "bgr"] | None = None,
    classes: Sequence[str] | None = None,
) -> nn.Module:
    """A classifier in eval mode, from pixels in [0, 1] to logits, with its normalisation inside.

    Args:
      source: a run folder, a model folder, a Hub id, `timm:NAME`, `torchvision:NAME`, `example:NAME` or a factory
        `package.module:name`.
      weights: `pretrained`, `random`, a file or a folder; None: pretrained, a factory's own.
      others: what the source does not say itself.
    Raises UserError for what cannot be found, fetched, imported or filled, and for what is missing or wrong."""
    with _door(None, shown=False):
        options = _options(mean, std, channel_order, classes)._replace(
            weights=None if weights is None else str(weights),
            num_classes=num_classes,
            image_size=image_size,
            in_channels=in_channels,
        )
        return _open_model(source, options)


@contextmanager
def _door(model: object, *, shown: bool, is_frozen: bool = True) -> Iterator[None]:
    """Around a call: quiet, the process and the model afterwards as they were, and errors in the words of Python."""
    with ExitStack() as held:
        held.enter_context(only_progress(shown=shown))
        held.enter_context(process_state_kept())
        held.enter_context(seeded_global_generators())
        for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ())):
            held.enter_context(torch.autocast(device, enabled=False))
        held.enter_context(torch.enable_grad())
        for module in modules_behind(model) if is_frozen else ():
            held.enter_context(frozen_in_eval_mode(module))
        try:
            yield
        except UserError as error:
            error.args = (in_python(str(error)),)
            raise


def _options(
    mean: Numbers | None,
    std: Numbers | None,
    channel_order: Literal["rgb", "bgr"] | None,
    classes: Sequence[str] | None,
    batch_size: int | None = None,
) -> LoadOptions:
    """What a caller says of a model that does not say it itself."""
    return LoadOptions(
        mean=numbers_of(mean),
        std=numbers_of(std),
        channel_order=channel_order,
        class_names=None if classes is None else tuple(classes),
        micro_batch=batch_size,
    )


def _settings(seed: int, batch_size: int, threads: int | None, attack_precision: str) -> Settings:
    for what, value in (("batch_size", batch_size), ("threads", threads)):
        if value is not None and (value < 1 or value != int(value)):
            raise UserError(f"{what} is {value}: it must be a whole number, 1 or more.")
    if attack_precision not in ("float32", "bfloat16"):
        raise UserError(f"attack_precision is '{attack_precision}': it must be float32 or bfloat16.")
    return Settings(
        seed=seed,
        batch_size=batch_size,
        num_threads=threads or os.cpu_count() or 1,
        attack_execution=ExecutionMode("bfloat16" if attack_precision == "bfloat16" else "float32"),
    )


def _radius(radius: float | str | None) -> float | None:
    if radius is None:
        return None
    try:
        value = float(parse_radius(radius))
    except (ValueError, TypeError) as error:
        raise UserError(f"radius: {error}.") from None
    if not 0 <= value < float("inf"):
        raise UserError(f"radius is {radius}: give a distance between images in [0, 1], such as 8/255.")
    return value


def _targets(targets: Any, dataset: ArrayDataset) -> Mapping[str, int]:
    """Targets by example id."""
    aims = validate_labels(targets, len(dataset.ids), "targets")
    for index, (aim, label) in enumerate(zip(aims.tolist(), dataset.labels.tolist(), strict=True)):
        if aim == label or not 0 <= aim < len(dataset.classes):
            raise UserError(
                f"The target of image {index} is {aim}: it must be a class from 0 to {len(dataset.classes) - 1} other than "
                f"the label {label}."
            )
    return dict(zip(dataset.ids, aims.tolist(), strict=True))
