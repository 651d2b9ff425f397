"""Can the number be trusted? A lint of the model before it is measured; what was found is kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from s3ta.attacks import frozen, random_state
from s3ta.data import Dataset, fetch
from s3ta.determinism import exact_arithmetic
from s3ta.errors import UserError
from s3ta.evaluate import Evaluation, Suite, choose_examples, total
from s3ta.evaluate.lint import as_found, lint
from s3ta.files import read_json, write_json
from s3ta.models import device_of, model_info
from s3ta.process_state import process_state_kept
from s3ta.progress import console, waiting
from s3ta.records import TRUST_FILE, Finding

UNREADABLE = "unreadable images"
LINT_PASSES, LINT_GRADIENTS = 17, 2
"""Of the lint, on each of its images: passes forward, and two of them with their way back."""
_LINT_OPERATIONS = 1e11
"""Of one pass over all its images: some 20 passes of them take a CPU core half a minute."""
_PER_CLASS, _ORDER_SHARE, _FEWEST_FOR_ORDER = 4, 50, 32
"""By how many examples of a class the order of labels is judged where there are many classes; at most a fiftieth of the suite's
passes goes into it, but 32 images always."""
_FEWEST_LINTED, _MOST_LINTED = 8, 256


def run_lint(measured: Evaluation, suite: Suite, folder: Path, *, strict: bool) -> None:
    """Look the model over before it is measured; say what is suspicious.

    Once there are records, what was found before the first of them stands: it is told again, not asked again.

    Args:
      measured: model and examples; as many as time allows are looked at, 256 at most.
      suite: what will be run; a model without gradients is no obstacle to attacks that use none.
      strict: whether a warning ends the run.
    Raises UserError where the model cannot be measured as it is, and for warnings if strict."""
    told = read_found(folder)
    if is_lint_due(folder):
        with waiting("looking the model over before it is measured"):
            told["lint"] = [one._asdict() for one in [*lint_measured(measured, suite), *_left_out(measured)]]
    serious = [Finding(**one) for one in told["lint"] if one["severity"] in ("error", "warning")]
    fatal = [one.told for one in serious if one.severity == "error" or (strict and one.kind != UNREADABLE)]
    if fatal:
        raise UserError(f"{model_info(measured.model).name} was not measured: {' '.join(fatal)}")
    write_found(folder, told)
    for one in serious:
        if one.kind != UNREADABLE:  # told when they were read
            console.print(f"{one.severity}: {one.kind}: {one.told}", markup=False, soft_wrap=True)


def is_lint_due(folder: Path) -> bool:
    """Whether the lint is still to be run; its findings stand once there are records."""
    return "lint" not in read_found(folder) or next(folder.glob("chunk-*.parquet"), None) is None


def lint_measured(measured: Evaluation, suite: Suite) -> list[Finding]:
    """The lint by images that are measured and, where these are few, by others of the data; only the first can stop a run."""
    dataset, positions, settings = measured.dataset, measured.positions, measured.settings
    with exact_arithmetic(settings.num_threads):
        count = num_linted(measured)
        known = set(positions)
        others = [place for place in choose_examples(dataset, None, settings.seed) if place not in known]
        for_order = _for_order(dataset, [*positions, *others], count, suite, len(positions))
        try:
            found = _lint_on(measured, [*positions, *others][:count], for_order)
        except UserError:  # one that is not measured, and cannot be read
            others = []
            found = _lint_on(measured, positions[:count], [])
        num_others = max(0, count - len(positions)) if others else 0
        if num_others and any(one.severity == "error" for one in found):
            theirs = {one.kind: one for one in found}
            found = [
                _of_others(theirs[one.kind], num_others)
                if theirs[one.kind].severity == "error" != one.severity
                else one
                for one in _lint_on(measured, positions, for_order)
            ]
    if total(suite, 1).num_gradients:
        return found
    unasked = {"gradient", "saturated loss"}
    return [not_asked(one.kind) if one.kind in unasked else one for one in found]


def _lint_on(measured: Evaluation, positions: Sequence[int], for_order: Sequence[int]) -> list[Finding]:
    """The lint by these examples. Raises UserError for an image that cannot be read."""
    model, dataset = measured.model, measured.dataset
    batch = fetch(dataset, positions)
    more = fetch(dataset, for_order) if for_order else None
    return lint(
        model,
        batch.images,
        batch.labels,
        data_classes=dataset.classes,
        num_classes=model_info(model).num_classes,
        ids=batch.ids,
        for_order=None if more is None else (more.images, more.labels),
        micro_batch=measured.settings.micro_batch,
    )


def _of_others(finding: Finding, num_others: int) -> Finding:
    """A finding that only images which are not measured have shown, as a note."""
    sentence = (
        f"Not of what is measured, but of {num_others} other images of the data looked at beside: {finding.sentence}"
    )
    return finding._replace(severity="note", sentence=sentence)


def _for_order(
    dataset: Dataset, candidates: Sequence[int], num_linted: int, suite: Suite, num_measured: int
) -> list[int]:
    """Examples by which the order of many classes can be judged: four of a class, or two or three where there are no more; of
    as many classes as a fiftieth of the suite's passes allows. None where the examples that are looked at anyway suffice."""
    seen = dataset.labels[list(candidates[:num_linted])]
    if len(seen) >= _PER_CLASS * len(set(seen.tolist())):
        return []
    count = total(suite, num_measured).num_evaluations // _ORDER_SHARE
    count = min(_MOST_LINTED, max(_FEWEST_FOR_ORDER, count))
    of_class: dict[int, list[int]] = {}
    for place in candidates:
        chosen = of_class.setdefault(int(dataset.labels[place]), [])
        if len(chosen) < _PER_CLASS:
            chosen.append(place)
    places = [place for chosen in of_class.values() if len(chosen) > 1 for place in chosen]
    return places[:count]


def not_asked(kind: str) -> Finding:
    """For a suite without gradients."""
    return Finding(kind, "unchecked", "No attack of the suite uses a gradient.")


def _left_out(measured: Evaluation) -> list[Finding]:
    """Images that could not be read, by name and number."""
    lost = measured.unreadable
    if not lost:
        return []
    whole = len(lost) + len(measured.positions)
    sentence = f"{len(lost)} of {whole} images could not be read and were left out, the first of them {lost[0]}."
    advice = "Replace them and evaluate again: a result on other images is another result."
    return [Finding(UNREADABLE, "warning", sentence, {"ids": lost, "num_chosen": whole}, advice)]


def num_linted(measured: Evaluation) -> int:
    """Images for which the lint takes half a minute or so: 256 of a small model, 8 of the largest; counted in operations,
    not by the clock, so that the same model is always looked at alike."""
    model, dataset, positions = measured.model, measured.dataset, measured.positions
    image = fetch(dataset, positions[:1]).images.to(device_of(model))
    with process_state_kept(), as_found(model), frozen(model), random_state(0), torch.no_grad():
        try:
            with FlopCounterMode(display=False) as counter:
                model(image)
        except Exception:  # noqa: BLE001 - whatever a foreign model raises is the lint's to tell
            return min(_FEWEST_LINTED, len(dataset.ids))
    budget = _LINT_OPERATIONS * (1 if image.device.type == "cpu" else 100)
    count = int(min(_MOST_LINTED, max(_FEWEST_LINTED, budget / max(1, counter.get_total_flops()))))
    return min(count, len(dataset.ids))


def read_found(folder: Path) -> dict[str, Any]:
    """What was found so far, by source: `lint`, `probes`, `records`. A file that is damaged says nothing, and is replaced."""
    try:
        stored = read_json(folder / TRUST_FILE)
    except (UserError, OSError):  # absent, damaged, not to be read
        return {}
    return (
        {source: listed for source, listed in stored.items() if _is_sound(listed)} if isinstance(stored, dict) else {}
    )


def _is_sound(listed: Any) -> bool:
    needed, known = {"kind", "severity", "sentence"}, set(Finding._fields)
    return isinstance(listed, list) and all(isinstance(one, dict) and needed <= set(one) <= known for one in listed)


def write_found(folder: Path, found: dict[str, Any]) -> None:
    """Keeps what was found. Raises UserError where the folder cannot be written."""
    if read_found(folder) != found:
        write_json(folder / TRUST_FILE, found)
