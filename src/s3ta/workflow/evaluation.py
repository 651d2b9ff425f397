"""Evaluate a model: lint, attacks, gallery, checks; alone, as one shard, or as one of torchrun's processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from s3ta.attack_settings_checks import ImplausibleSettingsWarning
from s3ta.attacks import AttackCost
from s3ta.data import write_ids, write_targets
from s3ta.determinism import exact_arithmetic
from s3ta.distributed import Ranks, own_device, ranks
from s3ta.errors import UserError
from s3ta.evaluate import (
    KEPT_FILE,
    EvaluationTask,
    Shard,
    Suite,
    build_manifest,
    chunks_of_shard,
    evaluate_into,
    manifest_with_defaults,
    max_cost,
    refuse_changed_model_code,
    suite_manifest,
    suite_with_defaults,
)
from s3ta.explain import KEPT, build_gallery
from s3ta.external_code_errors import guarded, reason
from s3ta.files import UnwritableError, part_use, read_arrays, read_json, sha256, sole_use, write_arrays
from s3ta.finding import WORTH_TELLING
from s3ta.progress import console, progress, waiting
from s3ta.records import LISTED, Ledger, check_attack_settings
from s3ta.records.manifest import Manifest
from s3ta.workflow.checks_after import check_afterwards, planned_probing, radius_of
from s3ta.workflow.checks_before import is_lint_due, num_linted, read_found, run_lint
from s3ta.workflow.cost_estimate import Upcoming, announcement, num_own
from s3ta.workflow.fit_data_to_model import bring_together
from s3ta.workflow.image_file_hashes import files_in_manifest, keep_files, refuse_other_files
from s3ta.workflow.model import OpenedModel, device_at
from s3ta.workflow.request import Checks, EvaluationOutput, EvaluationRequest, ExampleSelection, refuse_misfits

GALLERY_FILE, IDS_FILE, TARGETS_FILE = "gallery.npz", "examples.txt", "targets.csv"
SAID_BY_THE_LINT = "The model (seems to answer with probabilities|answers in)"
"""Warnings of the attacks, as a pattern."""


def evaluate_model(
    subject: OpenedModel, request: EvaluationRequest, show: Callable[[Path], None] = lambda _: None
) -> Path | None:
    """Run what is missing of a suite on a model; once all is there, draw the gallery and check the evaluation.

    `show` is called with the ledger's folder as soon as the attacks are done: what comes after costs no result. A finished
    evaluation in a folder that cannot be written is shown as it is.

    Returns the folder; None in those processes of `torchrun` that have nothing to say."""
    with ranks() as rank:
        if rank.count > 1 and request.output.shard is not None:
            raise UserError("Under torchrun each process is a shard already: leave --shard out.")
        shard = request.output.shard or Shard(rank.rank + 1, rank.count)
        if request.examples.ids is not None and request.images is None:
            request = replace(request, settings=request.settings._replace(examples=LISTED))
        device = own_device(device_at(request.runtime))
        with guarded(f"Moving {subject.card.name} to {device}"):
            model = subject.model.to(device)
        with waiting("reading which images there are"):
            task = bring_together(subject, request, model)
        folder = request.output.folder or default_evaluation_folder(subject, request.suite, request.examples)
        _refuse_other_data(task)
        with ExitStack() as held:
            try:
                held.enter_context(sole_use(folder) if shard.is_all else part_use(folder, shard.name))
            except UnwritableError:
                ledger = Ledger.at(folder, _identified(task, folder), manifest_with_defaults)
                if not (folder / "manifest.json").is_file() or not ledger.complete:
                    raise
                if rank.is_first:
                    console.print(
                        f"note: {folder} cannot be written: everything is there already, and nothing is added."
                    )
                    show(folder)
            else:
                ledger = _run(task, request.output, folder, shard, rank)
                rank.wait()
                if rank.is_first:
                    show(folder)
                    _finish(task, ledger, request.output.checks)
        return folder if rank.is_first else None


def _run(task: EvaluationTask, output: EvaluationOutput, folder: Path, shard: Shard, rank: Ranks) -> Ledger:
    """What is missing of the shard's part."""
    suite, checks, strict = task.suite, output.checks, output.strict
    identified = _identified(task, folder)
    _warn_of_settings(Manifest.read(identified, folder), strict=strict, aloud=rank.is_first)
    shard_chunks = chunks_of_shard(suite, len(task.positions), task.settings, shard)
    missing = set(Ledger.at(folder, identified, manifest_with_defaults).missing(shard_chunks))
    problem = None
    if rank.is_first:
        upcoming = _upcoming(task, folder, missing, checks=checks, is_last=shard.is_all or rank.count > 1)
        try:
            with suppress(UserError) if checks != "none" else nullcontext():  # the lint says why it cannot be timed
                console.print(announcement(task, shard, upcoming))
            if checks != "none":
                run_lint(task, folder, strict=strict)
        except UserError as error:
            problem = error
    if not rank.agree(problem is None):  # before anything is written, so that a mended model is no other evaluation
        raise problem or UserError("The first process says why the model was not measured.")
    ledger = Ledger.open(folder, identified, manifest_with_defaults)
    if rank.is_first:
        _write_questions(task, folder)
        keep_files(folder, task)
    num_passes, what = (
        max_cost(suite, num_own(task, shard_chunks)).total,
        f"{task.info.name} {suite.name}, passes",
    )
    with progress(what, num_passes, shown=rank.is_first) as report, _said_already(checks):
        evaluate_into(task, ledger, report, shard)
    return ledger


@contextmanager
def _said_already(checks: Checks) -> Iterator[None]:
    """Inside, attacks do not warn of what was said before them: of settings, and, where there was one, by the lint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplausibleSettingsWarning)
        if checks != "none":
            warnings.filterwarnings("ignore", SAID_BY_THE_LINT, UserWarning)
        yield


def _warn_of_settings(manifest: Manifest, *, strict: bool, aloud: bool) -> None:
    """Attacks that cannot do what their radius says, before they are run. Raises UserError for them if strict, and always for
    those that would be refused when they run."""
    remarks = [remark for remark in check_attack_settings(manifest) if remark.severity in WORTH_TELLING]
    refused = [remark for remark in remarks if remark.severity == "error" or (strict and remark.severity == "warning")]
    if refused:
        raise UserError(f"Not evaluated: {' '.join(remark.text for remark in refused)}")
    for remark in remarks if aloud else ():
        if remark.severity == "warning" or remark.evidence.get("nothing_moves"):
            console.print(remark.line)


def _identified(task: EvaluationTask, folder: Path) -> dict[str, Any]:
    """The manifest. Raises UserError where the folder holds another measurement, or the suite does not fit the model."""
    refuse_misfits(task.suite, task.info)
    with waiting("identifying the model by its weights"):
        identified = build_manifest(task)
    Ledger.check(folder, identified, manifest_with_defaults)
    refuse_changed_model_code(folder, identified)
    refuse_other_files(folder, task)
    identified["informative"] |= {"files": files_in_manifest(task)}
    return identified


def _upcoming(task: EvaluationTask, folder: Path, missing: set[int], *, checks: Checks, is_last: bool) -> Upcoming:
    """What is still to be done; `is_last`: nothing is left to others, so that checks follow."""
    if checks == "none":
        return Upcoming(missing, 0, AttackCost(0, 0))
    probes = planned_probing(task, read_found(folder), full=checks == "full") if is_last else None
    with waiting("looking at how large the model is"):
        linted = num_linted(task) if is_lint_due(folder) else 0
    return Upcoming(missing, linted, AttackCost(0, 0) if probes is None else probes.cost)


def _write_questions(task: EvaluationTask, folder: Path) -> None:
    """The ids of the examples, in order, and their targets: what another evaluation must be asked to be comparable."""
    dataset, ids = task.dataset, task.ids
    if not (folder / IDS_FILE).is_file():
        write_ids(folder / IDS_FILE, ids)
    targeted = any(named.attack.objective == "targeted" for named in task.suite.attacks)
    if targeted and not (folder / TARGETS_FILE).is_file():
        labels = dataset.labels[task.positions]
        aims = task.targets(ids, torch.from_numpy(labels))
        write_targets(folder / TARGETS_FILE, ids, labels, aims.numpy(), dataset.classes)


def _finish(task: EvaluationTask, ledger: Ledger, checks: Checks) -> None:
    """The gallery and the checks, once nothing is missing any more. Whatever fails here costs no result."""
    if missing := len(ledger.missing()):
        console.print(f"{missing} of {ledger.num_chunks} chunks are still missing: the rest is done elsewhere.")
        return
    try:
        _draw_gallery(task, ledger.folder)
    except Exception as error:  # noqa: BLE001 - pictures cost no result, whatever a foreign model raises
        console.print(f"warning: the pictures for the report could not be drawn: {reason(error)}")
    if checks != "none":
        with _said_already(checks):  # and the experiments attack briefly on purpose
            check_afterwards(task, ledger, full=checks == "full")


def _draw_gallery(task: EvaluationTask, folder: Path) -> None:
    """Draws the first examples before and after an attack, where that is not done."""
    if not (folder / KEPT_FILE).is_file():
        return
    kept = read_arrays(folder / KEPT_FILE, KEPT)
    with suppress(UserError):  # absent, or damaged
        drawn = read_arrays(folder / GALLERY_FILE, (*KEPT, "clean", "probabilities_clean", "probabilities_adversarial"))
        if all(np.array_equal(drawn[name], values) for name, values in kept.items()):
            return
    with waiting("drawing the pictures for the report"), exact_arithmetic(task.settings.num_threads):
        drawn = build_gallery(task.model, task.dataset, kept, task.settings.batch_size)
        write_arrays(folder / GALLERY_FILE, drawn)


def _refuse_other_data(task: EvaluationTask) -> None:
    """UserError where images of another model's evaluation are of other examples than these."""
    if task.images is None:
        return
    theirs = task.images.manifest["data"]
    examples = sha256("\n".join(task.ids).encode())
    if (theirs["fingerprint"], theirs["examples"]) != (task.dataset.fingerprint, examples):
        raise UserError(
            f"The images were made of other examples ({theirs['source']}, {theirs['split']}): evaluate on the same data."
        )


def default_evaluation_folder(subject: OpenedModel, suite: Suite, examples: ExampleSelection) -> Path:
    """`evaluations/SUITE` in the folder of the model; where all its classes compete for other data, the name says so."""
    name = f"{suite.name}-all-classes" if examples.match_classes == "model" else suite.name
    return subject.folder / "evaluations" / name


def is_evaluation_complete(folder: Path, suite: Suite) -> bool:
    """Whether this suite's ledger is complete there, with its gallery and its checks."""
    path = folder / "manifest.json"
    if not path.is_file() or not any(folder.glob("chunk-*.parquet")):
        return False
    suites = (suite_with_defaults(read_json(path).get("suite") or {}), suite_with_defaults(suite_manifest(suite)))
    there, now = ({**suite, "description": ""} for suite in suites)
    if there != now:  # in other words it is the same
        raise UserError(f"{folder} holds an evaluation with other attacks: choose another folder with --out.")
    drawn = suite.gallery_attack is None or (folder / GALLERY_FILE).is_file()
    checked = radius_of(suite) is None or "probes" in read_found(folder)
    return drawn and checked and Ledger.read(folder).complete
