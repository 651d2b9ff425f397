"""Can the number be trusted? A lint of the model before it is measured; what was found is kept as JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from s3ta.attacks import AttackCost, frozen_in_eval_mode, seeded_global_generators
from s3ta.data import fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, choose_examples, max_cost
from s3ta.evaluate.lint import LintContext, lint, model_state_restored
from s3ta.files import read_json, write_json
from s3ta.finding import ALARMS, TRUST_FILE, Check, Finding, parse_findings
from s3ta.process_state import process_state_kept
from s3ta.progress import console, waiting

UNREADABLE = "unreadable images"
LINT_COST = AttackCost(num_gradients=2, num_forwards=17)
"""Of the lint, on each of its images."""
_LINT_OPERATIONS = 1e11
"""Of one pass over all its images: some 20 passes of them take a CPU core half a minute."""
_PER_CLASS, _ORDER_SHARE, _FEWEST_FOR_ORDER = 4, 50, 32
"""By how many examples of a class the order of labels is judged where there are many classes; at most a fiftieth of the suite's
passes goes into it, but 32 images always."""
_FEWEST_LINTED, _MOST_LINTED = 8, 256

FoundBySource: TypeAlias = dict[str, list[Finding]]
"""By source: `lint`, `probes`, `records`."""


def run_lint(measured: EvaluationTask, folder: Path, *, strict: bool) -> None:
    """Look the model over before it is measured, on as many examples as time allows; say what is suspicious. A model without
    gradients is no obstacle to attacks that use none.

    Once there are records, what was found before the first of them stands: it is told again, not asked again.
    Raises UserError where the model cannot be measured as it is, and for warnings if strict."""
    by_source = read_found(folder)
    if is_lint_due(folder):
        with waiting("looking the model over before it is measured"):
            by_source["lint"] = [*lint_measured(measured), *_left_out(measured)]
    alarms = [finding for finding in by_source["lint"] if finding.severity in ALARMS]
    fatal = [alarm.text for alarm in alarms if alarm.severity == "error" or (strict and alarm.kind != UNREADABLE)]
    if fatal:
        raise UserError(f"{measured.info.name} was not measured: {' '.join(fatal)}")
    write_found(folder, by_source)
    for alarm in alarms:
        if alarm.kind != UNREADABLE:  # told when they were read
            console.print(alarm.line)


def is_lint_due(folder: Path) -> bool:
    """Whether the lint is still to be run; its findings stand once there are records."""
    return "lint" not in read_found(folder) or not any(folder.glob("chunk-*.parquet"))


def lint_measured(measured: EvaluationTask) -> list[Finding]:
    """The lint by images that are measured and, where these are few, by others of the data; only the first can stop a run."""
    dataset, positions, settings = measured.dataset, measured.positions, measured.settings
    with exact_arithmetic(settings.num_threads):
        count = num_linted(measured)
        candidates = list(dict.fromkeys([*positions, *choose_examples(dataset, None, settings.seed)]))
        num_others, for_order = max(0, count - len(positions)), _for_order(measured, candidates, count)
        try:
            findings = _lint_on(measured, candidates[:count], for_order)
        except UserError:  # one that is not measured, and cannot be read
            findings, num_others = _lint_on(measured, positions[:count], []), 0
        if num_others and any(finding.severity == "error" for finding in findings):
            theirs = {finding.kind: finding for finding in findings}
            findings = [
                _of_others(theirs[finding.kind], num_others)
                if theirs[finding.kind].severity == "error" != finding.severity
                else finding
                for finding in _lint_on(measured, positions, for_order)
            ]
    if max_cost(measured.suite, 1).num_gradients:
        return findings
    unasked = {"gradient", "saturated loss"}
    return [not_asked(finding.kind) if finding.kind in unasked else finding for finding in findings]


def _lint_on(measured: EvaluationTask, positions: Sequence[int], for_order: Sequence[int]) -> list[Finding]:
    """The lint by these examples. Raises UserError for an image that cannot be read."""
    model, dataset = measured.model, measured.dataset
    task = LintContext(measured.info.num_classes, dataset.classes, measured.settings.batch_size)
    return lint(model, fetch_batch(dataset, positions), task, fetch_batch(dataset, for_order) if for_order else None)


def _of_others(finding: Finding, num_others: int) -> Finding:
    """A finding that only images which are not measured have shown, as a note."""
    sentence = (
        f"Not of what is measured, but of {num_others} other images of the data looked at beside: {finding.sentence}"
    )
    return finding._replace(severity="note", sentence=sentence)


def _for_order(measured: EvaluationTask, candidates: Sequence[int], num_linted: int) -> list[int]:
    """Examples by which the order of many classes can be judged: four of a class, or two or three where there are no more; of
    as many classes as a fiftieth of the suite's passes allows. None where the examples that are looked at anyway suffice."""
    labels: list[int] = measured.dataset.labels[list(candidates)].tolist()
    seen = labels[:num_linted]
    if len(seen) >= _PER_CLASS * len(set(seen)):
        return []
    affordable = max_cost(measured.suite, len(measured.positions)).total // _ORDER_SHARE
    by_class: defaultdict[int, list[int]] = defaultdict(list)
    for position, label in zip(candidates, labels, strict=True):
        by_class[label].append(position)
    positions = [position for chosen in by_class.values() if len(chosen) > 1 for position in chosen[:_PER_CLASS]]
    return positions[: min(_MOST_LINTED, max(_FEWEST_FOR_ORDER, affordable))]


def not_asked(kind: str) -> Finding:
    """For a suite without gradients."""
    return Check(kind).unchecked("No attack of the suite uses a gradient.")


def _left_out(measured: EvaluationTask) -> list[Finding]:
    """Images that could not be read, by name and number."""
    lost = measured.unreadable
    if not lost:
        return []
    whole = len(lost) + len(measured.positions)
    sentence = f"{len(lost)} of {whole} images could not be read and were left out, the first of them {lost[0]}."
    advice = "Replace them and evaluate again: a result on other images is another result."
    return [Check(UNREADABLE).warning(sentence, {"ids": lost, "num_chosen": whole}, advice)]


def num_linted(measured: EvaluationTask) -> int:
    """Images for which the lint takes half a minute or so: 256 of a small model, 8 of the largest; counted in operations,
    not by the clock, so that the same model is always looked at alike."""
    model, dataset, positions = measured.model, measured.dataset, measured.positions
    image = fetch_batch(dataset, positions[:1]).images.to(measured.device)
    with (
        process_state_kept(),
        model_state_restored(model),
        frozen_in_eval_mode(model),
        seeded_global_generators(0),
        torch.no_grad(),
    ):
        try:
            with FlopCounterMode(display=False) as counter:
                model(image)
        except Exception:  # noqa: BLE001 - whatever a foreign model raises is the lint's to tell
            return min(_FEWEST_LINTED, len(dataset.ids))
    budget = _LINT_OPERATIONS * (1 if image.device.type == "cpu" else 100)
    count = int(min(_MOST_LINTED, max(_FEWEST_LINTED, budget / max(1, counter.get_total_flops()))))
    return min(count, len(dataset.ids))


def read_found(folder: Path) -> FoundBySource:
    """What was found so far. A file, or a source in it, that is damaged says nothing, and is replaced."""
    try:
        stored = read_json(folder / TRUST_FILE)
    except (UserError, OSError):  # absent, damaged, not to be read
        return {}
    by_source: FoundBySource = {}
    for source, listed in stored.items() if isinstance(stored, dict) else ():
        with suppress(ValueError):
            by_source[source] = parse_findings(source, listed)
    return by_source


def write_found(folder: Path, by_source: FoundBySource) -> None:
    """Keeps what was found. Raises UserError where the folder cannot be written."""
    if read_found(folder) != by_source:
        listed = {source: [finding._asdict() for finding in findings] for source, findings in by_source.items()}
        write_json(folder / TRUST_FILE, listed)
