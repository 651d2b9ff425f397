"""Evaluate a model: lint, attacks, gallery, checks; alone, as one shard, or as one of torchrun's processes."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from s3ta.data import Dataset, write_ids, write_targets
from s3ta.errors import UserError
from s3ta.evaluate import (
    KEPT_FILE,
    KeptImages,
    Settings,
    Shard,
    Suite,
    fill,
    manifest,
    own_chunks,
    pace,
    refuse_other_answers,
    stages,
    suite_identity,
    targets_of,
    total,
)
from s3ta.exact import exact_arithmetic
from s3ta.explain import KEPT, gallery
from s3ta.files import part_use, read_arrays, read_json, sha256, sole_use, write_arrays
from s3ta.models import card_of, device_of
from s3ta.progress import Reporter, console, progress
from s3ta.ranks import Ranks, own_device, ranks
from s3ta.records import Ledger, implausible_settings
from s3ta.workflow.choosing import refuse_misfits
from s3ta.workflow.examples import Examples, Measured, bring_together
from s3ta.workflow.place import Place, device_at, minutes
from s3ta.workflow.subject import Subject
from s3ta.workflow.trust import check_afterwards, look_over

GALLERY_FILE, IDS_FILE, TARGETS_FILE = "gallery.npz", "examples.txt", "targets.csv"
SAID_BY_THE_LINT = "The model (seems to answer with probabilities|answers in)"
"""Warnings of the attacks, as a pattern."""


def evaluate_model(
    subject: Subject,
    suite: Suite,
    wanted: Examples,
    out: Path | None,
    settings: Settings,
    place: Place,
    images: KeptImages | None = None,
    shard: Shard | None = None,
    *,
    checks: bool = True,
    strict: bool = False,
) -> Path | None:
    """Run what is missing of a suite on a model; once all is there, draw the gallery and check the evaluation.

    Args:
      subject: the model.
      suite: what to measure.
      wanted: the examples.
      out: the ledger's folder; None: `evaluations/SUITE` in the model's.
      settings: how.
      place: where.
      images: for a suite of transfers, whose.
      shard: the part to do here; others are done elsewhere, in the same folder or in one whose chunks are copied into it.
      checks: whether the model is looked over before and the evaluation checked afterwards.
      strict: whether a warning about the model ends the run.
    Returns:
      The ledger's folder; None in those processes of `torchrun` that have nothing to say."""
    with ranks() as rank:
        if rank.count > 1 and shard is not None:
            raise UserError("Under torchrun each process is a shard already: leave --shard out.")
        shard = shard or Shard(rank.rank + 1, rank.count)
        if wanted.ids is not None and images is None:
            settings = settings._replace(examples="listed")
        model = subject.model.to(own_device(device_at(place)))
        measured = bring_together(subject, suite, wanted, settings, place, model)
        folder = out or default_ledger(subject, suite, wanted)
        if images is not None:
            _refuse_other_data(images, measured.dataset, measured.positions)
        with _held(folder, shard):
            ledger = _run(measured, suite, folder, images, shard, rank, checks=checks, strict=strict)
            rank.wait()
            if rank.is_first:
                _finish(measured, suite, ledger, checks=checks)
        return folder if rank.is_first else None


def _held(folder: Path, shard: Shard) -> AbstractContextManager[None]:
    return sole_use(folder) if shard.is_all else part_use(folder, shard.name)


def _run(
    measured: Measured,
    suite: Suite,
    folder: Path,
    images: KeptImages | None,
    shard: Shard,
    rank: Ranks,
    *,
    checks: bool,
    strict: bool,
) -> Ledger:
    """What is missing of the shard's part."""
    model, dataset, positions, settings, _ = measured
    refuse_misfits(suite, card_of(model))
    told = manifest(model, dataset, suite, positions, settings, device_of(model))
    Ledger.check(folder, told)
    _warn_of_settings(told, strict=strict, aloud=rank.is_first)
    refuse_other_answers(folder, told)
    problem = _problem(measured, suite, folder, strict=strict) if checks and rank.is_first else None
    if not rank.agree(problem is None):  # before anything is written, so that a mended model is no other evaluation
        raise problem or UserError("The first process says why the model was not measured.")
    ledger = Ledger.open(folder, told)
    own = own_chunks(suite, len(positions), settings, shard)
    missing = set(ledger.missing(own))
    report: AbstractContextManager[Reporter] = nullcontext(_silent)
    if rank.is_first:
        _write_questions(measured, suite, folder)
        console.print(_announcement(measured, suite, shard, missing), soft_wrap=True, markup=False)
        report = progress(
            f"{card_of(model).name} {suite.name}, passes", total(suite, _num_own(measured, own)).num_evaluations
        )
    with report as tell, warnings.catch_warnings():
        if checks:  # the lint has said it
            warnings.filterwarnings("ignore", SAID_BY_THE_LINT, UserWarning)
        fill(model, dataset, suite, ledger, positions, settings, tell, images, shard)
    return ledger


def _warn_of_settings(facts: dict[str, Any], *, strict: bool, aloud: bool) -> None:
    """Attacks that cannot do what their radius says, before they are run. Raises UserError for them if strict."""
    warned = [one for one in implausible_settings(facts) if one.severity == "warning"]
    if strict and warned:
        raise UserError(f"Not evaluated: {' '.join(one.told for one in warned)}")
    for one in warned if aloud else ():
        console.print(f"warning: {one.kind}: {one.told}", markup=False, soft_wrap=True)


def _problem(measured: Measured, suite: Suite, folder: Path, *, strict: bool) -> UserError | None:
    """Why the model cannot be measured as it is; None where it can."""
    try:
        look_over(measured, suite, folder, strict=strict)
    except UserError as error:
        return error
    return None


def _silent(completed: int, note: str = "") -> None:
    """The progress of a process that does not speak."""


def _num_own(measured: Measured, own: list[int]) -> int:
    """How many examples these chunks hold, each counted once."""
    size, count = measured.settings.micro_batch, len(measured.positions)
    all_chunks = -(-count // size)
    return sum(min(size, count - chunk * size) for chunk in own if chunk < all_chunks)


def _write_questions(measured: Measured, suite: Suite, folder: Path) -> None:
    """The ids of the examples, in order, and their targets: what another evaluation must be asked to be comparable."""
    model, dataset, positions, settings, _ = measured
    ids = [dataset.ids[place] for place in positions]
    if not (folder / IDS_FILE).is_file():
        write_ids(folder / IDS_FILE, ids)
    targeted = any(named.attack.objective == "targeted" for named in suite.attacks)
    if targeted and not (folder / TARGETS_FILE).is_file():
        labels = dataset.labels[positions]
        aims = targets_of(settings, ids, torch.from_numpy(labels), card_of(model).num_classes)
        write_targets(folder / TARGETS_FILE, ids, labels, aims.numpy(), dataset.classes)


def _finish(measured: Measured, suite: Suite, ledger: Ledger, *, checks: bool) -> None:
    """The gallery and the checks, once nothing is missing any more."""
    model, dataset, _, settings, _ = measured
    folder = ledger.folder
    if missing := len(ledger.missing()):
        console.print(f"{missing} of {ledger.num_chunks} chunks are still missing: the rest is done elsewhere.")
        return
    if (folder / KEPT_FILE).is_file():
        kept = read_arrays(folder / KEPT_FILE, KEPT)
        with exact_arithmetic(settings.num_threads):
            write_arrays(folder / GALLERY_FILE, gallery(model, dataset, kept, settings.micro_batch))
    if checks:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", SAID_BY_THE_LINT, UserWarning)
            check_afterwards(measured, suite, ledger)


def _announcement(measured: Measured, suite: Suite, shard: Shard, missing: set[int]) -> str:
    """What will be done, and how long what is missing takes here at most."""
    model, dataset, positions, settings, _ = measured
    count, all_chunks = len(positions), -(-len(positions) // settings.micro_batch)
    own = own_chunks(suite, count, settings, shard)
    work = total(suite, _num_own(measured, own))
    if not own:
        return f"Part {shard.index} of {shard.count} is empty: there are fewer blocks of examples than parts."
    part = "" if shard.is_all else f", part {shard.index} of {shard.count}"
    told = f"{card_of(model).name}, suite {suite.name}: {_num_own(measured, own)} examples{part}"
    if not missing:
        return f"{told}; everything is there already."
    gradient, forward = pace(model, dataset, positions[0], settings, gradients=work.num_gradients > 0)
    seconds = 0.0
    for stage in stages(suite):
        chunks = len(missing & set(range(stage.number * all_chunks, (stage.number + 1) * all_chunks)))
        others = stage.cost.num_forwards - stage.cost.num_gradients
        seconds += chunks * (gradient * stage.cost.num_gradients + forward * others)
    lines = [
        f"{told}, at most {work.num_gradients:,} gradient and {work.num_forwards - work.num_gradients:,} other forward "
        f"evaluations, about {minutes(seconds)} here for what is not there yet, if none can be saved"
    ]
    if settings.budget is not None:
        lines.append(f"Budget: {settings.budget:,} passes per example, so at most {count * settings.budget:,} in all.")
        dear = [s.name for s in stages(suite) if s.restart == 0 and s.cost.total > settings.budget]
        lines += [f"Beyond the budget, whatever the others cost: {', '.join(dear)}."] if dear else []
    if suite.left_out:
        lines.append(f"Left out, for they do not fit the model or a changed setting: {', '.join(suite.left_out)}.")
    return "\n".join(lines)


def _refuse_other_data(images: KeptImages, dataset: Dataset, positions: list[int]) -> None:
    theirs = images.manifest["data"]
    examples = sha256("\n".join(dataset.ids[i] for i in positions).encode())
    if (theirs["fingerprint"], theirs["examples"]) != (dataset.fingerprint, examples):
        raise UserError(
            f"The images were made of other examples ({theirs['source']}, {theirs['split']}): evaluate on the same data."
        )


def default_ledger(subject: Subject, suite: Suite, wanted: Examples) -> Path:
    """`evaluations/SUITE` in the folder of the model; where all its classes compete for other data, the name says so."""
    name = f"{suite.name}-all-classes" if wanted.match_classes == "model" else suite.name
    return subject.folder / "evaluations" / name


def is_evaluated(folder: Path, suite: Suite) -> bool:
    """Whether this suite's ledger is complete there, with its gallery."""
    path = folder / "manifest.json"
    if not path.is_file() or next(folder.glob("chunk-*.parquet"), None) is None:
        return False
    if read_json(path).get("suite") != suite_identity(suite):
        raise UserError(f"{folder} holds an evaluation with other attacks: choose another folder with --out.")
    drawn = suite.gallery_attack is None or (folder / GALLERY_FILE).is_file()
    return drawn and Ledger.read(folder).complete
