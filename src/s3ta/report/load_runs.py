"""Reading run folders: what a report needs to know about one model, checked once and free of machine paths.

```
RUN/recipe.json                      the resolved training config (optional)
RUN/train.jsonl                      the learning curve (optional)
RUN/evaluations/SUITE/               the ledger (required)
RUN/evaluations/SUITE/trust.json     what was checked about the model (optional)
RUN/evaluations/SUITE/gallery.npz    images and attention, before and after the attack (optional)
```
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from s3ta.errors import UserError, unknown_name
from s3ta.files import read_arrays, read_json, read_lines
from s3ta.records import (
    CLEAN,
    STATUS_OVER_BUDGET,
    Calibration,
    CascadeStage,
    Finding,
    Ledger,
    Score,
    calibration_of,
    cascade_stages,
    count_scores,
)
from s3ta.records.manifest import AttackEntry, Manifest, RecipeEntry
from s3ta.report.checks import Trust, read_trust


@dataclass(frozen=True, eq=False)
class Gallery:
    """Examples before and after an attack; n examples, C channels, Y classes, T glimpses, N heads, h x w places."""

    attack: str
    example_ids: list[str]
    labels: np.ndarray
    targets: np.ndarray
    """-1: none."""
    clean: np.ndarray
    """(n, C, H, W) in [0, 1]."""
    adversarial: np.ndarray
    probabilities_clean: np.ndarray
    """(n, Y)."""
    probabilities_adversarial: np.ndarray
    attention_clean: np.ndarray | None
    """(T, n, N, h, w), each map sums to one; None where the model has no attention. So are the next three."""
    attention_adversarial: np.ndarray | None
    glimpse_probabilities_clean: np.ndarray | None
    """(T, n, Y)."""
    glimpse_probabilities_adversarial: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Run:
    """One model, as evaluated with one suite."""

    label: str
    """What the report calls it; unique among the runs of a report."""
    folder_name: str
    manifest: Manifest
    table: pa.Table
    scores: list[Score]
    num_chunks_done: int
    recipe: RecipeEntry
    """Empty where the folder holds none."""
    curve: list[dict[str, Any]]
    gallery: Gallery | None
    trust: Trust

    @property
    def complete(self) -> bool:
        return self.num_chunks_done == self.manifest.num_chunks

    @cached_property
    def attacks(self) -> dict[str, AttackEntry]:
        """The settings of each attack of the suite, by name."""
        return self.manifest.suite.attacks_by_name

    @cached_property
    def stages(self) -> list[CascadeStage]:
        """Of a cascade: the worst case as attacks are added."""
        return cascade_stages(self.table)

    @property
    def last_stage(self) -> CascadeStage | None:
        """The worst case that all images have been through; None where only clean images were."""
        return self._attacked_stages[-1] if self._attacked_stages else None

    @property
    def num_attacks(self) -> int:
        """Over how many attacks the worst case of `last_stage` is."""
        return len(self._attacked_stages)

    @cached_property
    def _attacked_stages(self) -> list[CascadeStage]:
        return [stage for stage in self.stages if stage.whole and stage.ran and stage.score.attack != CLEAN]

    @cached_property
    def calibration(self) -> Calibration | None:
        """What confidence is worth on the clean images; None where none was measured yet."""
        return calibration_of(self.table)

    @property
    def clean_score(self) -> Score | None:
        return self.score(CLEAN, 0)

    def score(self, attack: str, num_attack_steps: int) -> Score | None:
        read_out = (attack, num_attack_steps)
        return next((score for score in self.scores if (score.attack, score.num_attack_steps) == read_out), None)

    @cached_property
    def final_scores(self) -> list[Score]:
        """Clean, then each attack at its last read-out."""
        return list({score.attack: score for score in self.scores}.values())

    @cached_property
    def left_out_by_budget(self) -> set[str]:
        """Attacks that a budget kept from some examples altogether, so that they have no score."""
        cut = self.table.filter(pc.field("status") == STATUS_OVER_BUDGET)["attack"].to_pylist()
        return {*cut} - {score.attack for score in self.scores}

    def class_name(self, index: int) -> str:
        """The name of a class; its number where the data names none."""
        names = self.manifest.data.classes
        return str(names[index]) if 0 <= index < len(names) else str(index)


def read_runs(folders: Sequence[Path], suite: str) -> list[Run]:
    """Read the runs of a report and give each a name of its own.

    Raises UserError without a run, where a folder or suite is not there (nearest names offered), for the same folder twice,
    and for damaged files."""
    if not folders:
        raise UserError("A report needs at least one run folder.")
    if len({folder.resolve() for folder in folders}) != len(folders):
        raise UserError("The same run folder is given twice.")
    runs = [read_run(folder, suite) for folder in folders]
    for name_of in (lambda run: run.label, lambda run: f"{run.label} ({run.folder_name})"):
        labels = [name_of(run) for run in runs]
        if len(set(labels)) == len(labels):
            return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]
    return [replace(run, label=f"{run.label} (run {number})") for number, run in enumerate(runs, 1)]


def ledgers_of_run(folder: Path) -> dict[str, Path]:
    """The ledgers of a run folder by suite; of a folder that is a ledger itself (`s3ta evaluate --out`), that one."""
    if (folder / "manifest.json").is_file():
        return {Manifest.read(read_json(folder / "manifest.json"), folder).suite.name: folder}
    return {path.name: path for path in sorted((folder / "evaluations").glob("*/"))}


def unfinished_lines(folders: Sequence[Path], suite: str) -> list[str]:
    """A line for each of the runs whose evaluation lacks chunks."""
    lines = []
    for folder in folders:
        ledger = Ledger.read(ledgers_of_run(folder)[suite])
        done = len(ledger.present())
        if done < ledger.num_chunks:
            lines.append(
                f"{folder}, unfinished: {done} of {ledger.num_chunks} chunks. Its numbers are about the finished part, and "
                "attacks may have met different examples; run the same evaluation again to finish it."
            )
    return lines


def read_run(folder: Path, suite: str) -> Run:
    """Read one run folder. Raises UserError where something needed is missing or something there is damaged."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: give the folder of a run.")
    evaluations = ledgers_of_run(folder)
    if not evaluations:
        raise UserError(f"{folder} holds no evaluation: run `s3ta evaluate {folder} --suite {suite}` first.")
    if suite not in evaluations:
        raise unknown_name(f"evaluation of {folder}", suite, evaluations)
    evaluation = evaluations[suite]
    ledger = Ledger.read(evaluation)
    manifest, table = ledger.typed_manifest, ledger.table()
    recipe = read_json(folder / "recipe.json") if (folder / "recipe.json").exists() else {}
    if not isinstance(recipe, dict):
        raise UserError(f"{folder / 'recipe.json'} is damaged: it does not hold a config.")
    gallery_path = evaluation / "gallery.npz"
    return Run(
        label=manifest.model.name or folder.name,
        folder_name=folder.resolve().name,
        manifest=Manifest.read(without_paths(ledger.manifest), evaluation),
        table=table,
        scores=count_scores(table, cascade=manifest.suite.cascade),
        num_chunks_done=len(ledger.present()),
        recipe=RecipeEntry.model_validate(without_paths(recipe)),
        curve=read_lines(folder / "train.jsonl"),
        gallery=read_gallery(gallery_path) if gallery_path.exists() else None,
        trust=Trust(*map(without_paths, read_trust(evaluation, table, manifest))),
    )


def read_gallery(path: Path) -> Gallery:
    """Read and check a gallery. Nothing in it is ever unpickled. Raises UserError where it is damaged."""
    arrays = read_arrays(path)
    problem = _gallery_problem(arrays)
    if problem:
        raise UserError(f"{path} is damaged: {problem}. Remove it and run `s3ta evaluate` again.")
    texts = {"attack": str(arrays["attack"]), "example_ids": arrays["example_ids"].tolist()}
    fields: dict[str, Any] = {name: arrays.get(name) for name in _ARRAYS} | texts
    return Gallery(**fields)


_TEXTS = {"example_ids": "n", "attack": ""}
_NUMBERS = {"labels": "n", "targets": "n", "clean": "nCHW", "adversarial": "nCHW"}
_ANSWERS = {"probabilities_clean": "nY", "probabilities_adversarial": "nY"}
_ATTENTION = {"attention_clean": "TnNhw", "attention_adversarial": "TnNhw"}
_GLIMPSES = {"glimpse_probabilities_clean": "TnY", "glimpse_probabilities_adversarial": "TnY"}
_ARRAYS = _TEXTS | _NUMBERS | _ANSWERS | _ATTENTION | _GLIMPSES


def _gallery_problem(arrays: dict[str, np.ndarray]) -> str:
    """The first thing wrong with the arrays, or nothing."""
    optional = _ATTENTION | _GLIMPSES
    has_glimpses = any(name in arrays for name in optional)
    sizes: dict[str, int] = {}
    for name, letters in _ARRAYS.items():
        if name in optional and not has_glimpses:
            continue
        if name not in arrays:
            return f"array '{name}' is missing"
        array = arrays[name]
        if array.ndim != len(letters):
            return f"array '{name}' has shape {array.shape}, not ({', '.join(letters)})"
        for letter, size in zip(letters, array.shape, strict=True):
            if size < 1 or sizes.setdefault(letter, size) != size:
                return f"array '{name}' has {size} along {letter}, the others {sizes[letter]}"
        if array.dtype.kind not in ("U" if name in _TEXTS else "iuf"):
            return f"array '{name}' holds {array.dtype}"
        if array.dtype.kind == "f" and (not np.isfinite(array).all() or array.min() < -1e-5 or array.max() > 1 + 1e-5):
            return f"array '{name}' leaves [0, 1]"
    if sizes["C"] not in (1, 3):
        return f"the images have {sizes['C']} channels"
    return ""


def without_paths(value: Any) -> Any:
    """A copy of JSON-like data, or of findings, in which every absolute path is cut to its last part, for a page that others
    will read."""
    if isinstance(value, Finding):
        return Finding(*map(without_paths, value))
    if isinstance(value, dict):
        return {without_paths(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    if not isinstance(value, str):
        return value
    whole = re.fullmatch(
        r"((?:(?!file:)\w{2,}:)?)(?:file://|~|[A-Za-z]:[\\/]|/(?!/)|\\\\)[^\n]*?([^\\/\n]*)[\\/]?", value
    )
    if whole:
        return f"{whole[1]}…/{whole[2]}"
    return re.sub(
        r"(?<![\w./])(?:file://)?(?:[A-Za-z]:[\\/]|~?/(?!/))(?:[^\s'\"]*[\\/])?([^\\/\s'\"]+)", r"…/\1", value
    )


def cascading(runs: Sequence[Run]) -> bool:
    """Whether the runs show a worst case over attacks, one after another. All runs of a report are alike in this."""
    return any(run.manifest.suite.cascade for run in runs)


def attack_order(runs: Sequence[Run]) -> list[str]:
    """Clean and all attacks, in the order of the longest suite: another one may lack some that do not fit its model."""
    longest_first = sorted(runs, key=lambda run: -len(run.attacks))
    return list(dict.fromkeys([CLEAN, *(name for run in longest_first for name in run.attacks)]))
