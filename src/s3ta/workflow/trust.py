"""Can the number be trusted? A lint of the model before it is measured, small experiments afterwards; both kept as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from s3ta.attacks import LoopConfig, frozen, random_state
from s3ta.data import Batch, Dataset, fetch
from s3ta.errors import UserError
from s3ta.evaluate import Settings, Suite, TransferConfig, choose_examples, total
from s3ta.evaluate.lint import as_found, lint
from s3ta.evaluate.probes import num_evaluations, probe
from s3ta.exact import exact_arithmetic
from s3ta.files import read_json, write_json
from s3ta.models import card_of, device_of
from s3ta.progress import Reporter, console, progress
from s3ta.records import CLEAN, TRUST_FILE, Finding, Ledger, findings, is_trial
from s3ta.trace import Images, Logits
from s3ta.workflow.examples import Measured

UNREADABLE = "unreadable images"
_LINT_OPERATIONS = 1e11
"""Of one pass over all its images: some 20 passes of them take a CPU core half a minute."""
_PER_CLASS, _ORDER_SHARE, _FEWEST_FOR_ORDER = 4, 50, 32
"""By how many examples of a class the order of labels is judged where there are many classes; at most a fiftieth of the suite's
passes goes into it, but 32 images always."""
_FEWEST_LINTED, _MOST_LINTED, _FEWEST_PROBED, _MOST_PROBED = 8, 256, 16, 32


def look_over(measured: Measured, suite: Suite, folder: Path, *, strict: bool) -> None:
    """Look the model over before it is measured; say what is suspicious.

    Once there are records, what was found before the first of them stands: it is told again, not asked again.

    Args:
      measured: model and examples; as many as time allows are looked at, 256 at most.
      suite: what will be run; a model without gradients is no obstacle to attacks that use none.
      strict: whether a warning ends the run.
    Raises UserError where the model cannot be measured as it is, and for warnings if strict."""
    told = _read(folder)
    if "lint" not in told or next(folder.glob("chunk-*.parquet"), None) is None:
        told["lint"] = [one._asdict() for one in [*_linted(measured, suite), *_left_out(measured)]]
    serious = [Finding(**one) for one in told["lint"] if one["severity"] in ("error", "warning")]
    fatal = [one.told for one in serious if one.severity == "error" or (strict and one.kind != UNREADABLE)]
    if fatal:
        raise UserError(f"{card_of(measured.model).name} was not measured: {' '.join(fatal)}")
    _write(folder, told)
    for one in serious:
        if one.kind != UNREADABLE:  # told when they were read
            console.print(f"{one.severity}: {one.kind}: {one.told}", markup=False, soft_wrap=True)


def _linted(measured: Measured, suite: Suite) -> list[Finding]:
    """The lint by images that are measured and, where these are few, by others of the data; only the first can stop a run."""
    model, dataset, positions, settings, _ = measured
    with exact_arithmetic(settings.num_threads):
        count = min(_num_linted(model, dataset, positions), len(dataset.ids))
        known = set(positions)
        others = [place for place in choose_examples(dataset, None, settings.seed) if place not in known]
        for_order = _for_order(dataset, [*positions, *others], count, suite, len(positions))
        try:
            found = _asked(measured, [*positions, *others][:count], for_order)
        except UserError:  # one that is not measured, and cannot be read
            others = []
            found = _asked(measured, positions[:count], [])
        num_others = max(0, count - len(positions)) if others else 0
        if num_others and any(one.severity == "error" for one in found):
            theirs = {one.kind: one for one in found}
            found = [
                _of_others(theirs[one.kind], num_others)
                if one.severity != "error" == theirs[one.kind].severity
                else one
                for one in _asked(measured, positions, for_order)
            ]
    if total(suite, 1).num_gradients:
        return found
    unasked = {"gradient", "saturated loss"}
    return [_not_asked(one.kind) if one.kind in unasked else one for one in found]


def _asked(measured: Measured, positions: Sequence[int], for_order: Sequence[int]) -> list[Finding]:
    """The lint by these examples. Raises UserError for an image that cannot be read."""
    model, dataset = measured.model, measured.dataset
    batch = fetch(dataset, positions)
    more = fetch(dataset, for_order) if for_order else None
    return lint(
        model,
        batch.images,
        batch.labels,
        data_classes=dataset.classes,
        num_classes=card_of(model).num_classes,
        ids=batch.ids,
        for_order=None if more is None else (more.images, more.labels),
    )


def _of_others(finding: Finding, num_others: int) -> Finding:
    """What only images that are not measured have shown."""
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


def _not_asked(kind: str) -> Finding:
    return Finding(kind, "unchecked", "No attack of the suite uses a gradient.")


def _left_out(measured: Measured) -> list[Finding]:
    """Images that could not be read, by name and number."""
    lost = measured.unreadable
    if not lost:
        return []
    whole = len(lost) + len(measured.positions)
    sentence = f"{len(lost)} of {whole} images could not be read and were left out, the first of them {lost[0]}."
    advice = "Replace them and evaluate again: a result on other images is another result."
    return [Finding(UNREADABLE, "warning", sentence, {"ids": lost, "num_chosen": whole}, advice)]


def _num_linted(model: nn.Module, dataset: Dataset, positions: Sequence[int]) -> int:
    """So many images that the lint takes about half a minute: 256 of a small model, 8 of the largest; counted in operations,
    not by the clock, so that the same model is always looked at alike."""
    image = fetch(dataset, positions[:1]).images.to(device_of(model))
    with as_found(model), frozen(model), random_state(0), torch.no_grad():
        try:
            with FlopCounterMode(display=False) as counter:
                model(image)
        except Exception:  # noqa: BLE001 - whatever a foreign model raises is the lint's to tell
            return _FEWEST_LINTED
    budget = _LINT_OPERATIONS * (1 if image.device.type == "cpu" else 100)
    return int(min(_MOST_LINTED, max(_FEWEST_LINTED, budget / max(1, counter.get_total_flops()))))


def check_afterwards(measured: Measured, suite: Suite, ledger: Ledger) -> None:
    """Experiments on a few examples, and what the records say; kept beside the ledger. Nothing is done twice."""
    model, dataset, positions, settings, _ = measured
    told, table = _read(ledger.folder), ledger.table()
    radius = _radius(suite)
    if "probes" not in told and not total(suite, 1).num_gradients:
        told["probes"] = [_not_asked("probes")._asdict()]
    if "probes" not in told and is_trial(suite.name):
        told["probes"] = [Finding("probes", "unchecked", "A trial run is not probed.")._asdict()]
    if "probes" not in told and radius:
        batch = _probed(dataset, table, positions, settings)
        with exact_arithmetic(settings.num_threads), _progress(len(batch.ids)) as report:
            found = probe(
                _in_parts(model, settings.micro_batch),
                batch.images,
                batch.labels,
                batch.ids,
                radius=radius,
                seed=settings.seed,
                report=report,
            )
        told["probes"] = [one._asdict() for one in found]
    probed = [Finding(**one) for one in told.get("probes") or []]
    told["records"] = [one._asdict() for one in findings(table, ledger.manifest, probed)]
    _write(ledger.folder, told)


def _progress(count: int) -> AbstractContextManager[Reporter]:
    return progress(f"checks of the evaluation on {count} examples", num_evaluations(count))


def _probed(dataset: Dataset, table: pa.Table, positions: Sequence[int], settings: Settings) -> Batch:
    """The first examples that the model gets right, no more than it has met together; then others, if it gets few."""
    right = {
        row["example_id"]
        for row in table.select(["example_id", "attack", "correct"]).to_pylist()
        if row["attack"] == CLEAN and row["correct"]
    }
    ordered = sorted(positions, key=lambda place: dataset.ids[place] not in right)  # stable
    return fetch(dataset, ordered[: max(_FEWEST_PROBED, min(_MOST_PROBED, settings.micro_batch))])


class _InParts(nn.Module):
    """The model, given no more images at once than it has met, also on the way back."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self._size = model, size

    def forward(self, images: Images) -> Logits:
        parts = images.split(self._size)
        if not torch.is_grad_enabled():
            return torch.cat([self.model(part) for part in parts])
        with set_checkpoint_early_stop(False):  # TorchScript does not let itself be left early
            return torch.cat([checkpoint(self.model, part, use_reentrant=False) for part in parts])


def _in_parts(model: nn.Module, size: int) -> nn.Module:
    return model if size >= _MOST_PROBED else _InParts(model, size)


def _radius(suite: Suite) -> float | None:
    """That of the first attack in the L-infinity ball; None where there is none."""
    for named in suite.attacks:
        attack: Any = named.attack.attack if isinstance(named.attack, TransferConfig) else named.attack
        if attack.norm == "linf" and attack.radius and (not isinstance(attack, LoopConfig) or attack.mask is None):
            return attack.radius
    return None


def _read(folder: Path) -> dict[str, Any]:
    return read_json(folder / TRUST_FILE) if (folder / TRUST_FILE).is_file() else {}


def _write(folder: Path, told: dict[str, Any]) -> None:
    if _read(folder) != told:
        write_json(folder / TRUST_FILE, told)
