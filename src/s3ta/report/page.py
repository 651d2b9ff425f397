"""One self-contained page, `report.html`, from run folders: no model is run, no address outside the page is named.

build_report([Path("runs/s3ta_4"), Path("runs/resnet")], "quick", Path("report.html"))
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from s3ta.config import format_radius
from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import CLEAN, Interval, Score, nested_scores, refuse_other_settings, wilson
from s3ta.report import figures, gallery, tables
from s3ta.report.runs import Run, read_runs
from s3ta.report.verdict import verdict


class RateCell(NamedTuple):
    """A rate as the page shows it."""

    share: float
    interval: Interval

    @property
    def text(self) -> str:
        return tables.percent(self.share)

    @property
    def interval_text(self) -> str:
        return tables.percent_interval(self.interval)


class ScoreRow(NamedTuple):
    """One model under one attack."""

    model: str
    colour: int
    num_examples: int
    top1: RateCell | None
    success: RateCell | None


class AttackGroup(NamedTuple):
    """All models under one attack at its last read-out."""

    attack: str
    strength: str
    rows: list[ScoreRow]


def build_report(runs: list[Path], suite: str, out: Path) -> Path:
    """Write the report of one, two or more runs as one HTML file.

    Args:
      runs: run folders; the order is the order on the page.
      suite: the name of the evaluation in each of them.
      out: the file to write, or an existing folder that gets `report.html`.

    Returns:
      The file written.

    Raises:
      UserError: a run or suite is missing or damaged, or finished runs were not measured alike (protocol X35), so that
        showing them side by side would mislead."""
    path = out / "report.html" if out.is_dir() else out
    write_atomic(path, render(read_runs(runs, suite), suite).encode())
    return path


def render(runs: Sequence[Run], suite: str) -> str:
    """The page as text. Errors as in `build_report`."""
    for a, b in combinations(runs, 2):
        refuse_other_settings(a.manifest, b.manifest)
    compared, why_not = _compare(runs)
    ids, num_shared = gallery.shared_examples(runs)
    script = _asset("page.js")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.j2")).render(
        suite=suite,
        runs=runs,
        verdict=verdict(runs, compared),
        unfinished=[run for run in runs if not run.complete],
        subset=_subset(runs),
        groups=_groups(runs),
        restarts=_restarts(runs),
        strength=[_inline(figure) for figure in figures.strength_figures(runs)],
        forests=[(_inline(figures.forest_figure(pair)), tables.comparison_table(pair)) for pair in compared or []],
        why_not=why_not,
        facts=tables.facts_table(runs),
        departures=_departures(runs),
        curves=[_inline(figure) for figure in figures.curve_figures(runs)],
        recipes=[(run.label, json.dumps(run.recipe, indent=2, ensure_ascii=False)) for run in runs if run.recipe],
        examples=gallery.examples(runs, ids),
        num_shared=num_shared,
        amplification=gallery.amplification(runs, ids),
        gallery_attack=_gallery_attack(runs),
        attention=[found for run in runs if (found := gallery.attention(run, ids)) is not None],
        notes=_notes(runs),
        attacks=_attack_rows(runs),
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _compare(runs: Sequence[Run]) -> tuple[list[tables.PairOfRuns] | None, str]:
    """The comparisons, or why there are none: examples that an unfinished evaluation lacks are no error yet."""
    try:
        return tables.compare(runs), ""
    except UserError as error:
        if all(run.complete for run in runs):
            raise
        return None, str(error)


def _groups(runs: Sequence[Run]) -> list[AttackGroup]:
    order = dict.fromkeys((score.attack, score.num_attack_steps) for run in runs for score in run.final_scores)
    groups = []
    for key in order:
        found = [(colour, run, run.score(*key)) for colour, run in enumerate(runs)]
        rows = [
            ScoreRow(
                run.label,
                colour % figures.NUM_COLOURS,
                score.num_examples,
                _cell(score.num_correct, score),
                _cell(score.num_hits, score),
            )
            for colour, run, score in found
            if score is not None
        ]
        num_restarts = max(score.num_restarts for _, _, score in found if score is not None)
        strength = tables.attack_text(_settings_of(runs, key[0]), *key, num_restarts)
        groups.append(AttackGroup("clean images" if key[0] == CLEAN else key[0], strength, rows))
    return groups


def _cell(count: int | None, score: Score) -> RateCell | None:
    if count is None:
        return None
    return RateCell(count / score.num_examples, wilson(count, score.num_examples))


def _settings_of(runs: Sequence[Run], attack: str) -> dict[str, Any] | None:
    return next((run.attacks[attack] for run in runs if attack in run.attacks), None)


def _restarts(runs: Sequence[Run]) -> tables.Table | None:
    """Nested counts over restarts (protocol E9), where an attack has several."""
    if all(score.num_restarts == 1 for run in runs for score in run.scores):
        return None
    rows = []
    for run in runs:
        repeated = {score.attack for score in run.scores if score.num_restarts > 1}
        for score in nested_scores(run.table):
            if score.attack in repeated and score.num_attack_steps == run_last(run, score.attack):
                total = score.num_examples
                rates = [tables.rate(score.num_correct, total), tables.rate(score.num_hits, total)]
                rows.append([run.label, score.attack, str(score.num_restarts), *rates])
    return tables.Table(
        ["Model", "Attack", "Starts", "Right after all (95% interval)", "Hit by any (95% interval)"], rows
    )


def run_last(run: Run, attack: str) -> int:
    """The last read-out of an attack."""
    return max(score.num_attack_steps for score in run.scores if score.attack == attack)


def _subset(runs: Sequence[Run]) -> list[str]:
    """A warning for each run that saw only a part of its test set."""
    warnings = []
    for run in runs:
        data = run.manifest["data"]
        used, available = data.get("num_examples"), data.get("num_available")
        if isinstance(used, int) and isinstance(available, int) and used < available:
            warnings.append((run.label, f"{used:,} of {available:,} images"))
    if len(warnings) == len(runs) and len({text for _, text in warnings}) == 1:
        return [f"Measured on {warnings[0][1]}"]
    return [f"{label}: {text}" for label, text in warnings]


def _departures(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Where each recipe departs from the paper; told once where all runs depart alike."""
    found = []
    for run in runs:
        listed = (run.recipe or {}).get("departures") or []
        found.append((run.label, [listed] if isinstance(listed, str) else [str(departure) for departure in listed]))
    if len(runs) > 1 and all(departures == found[0][1] for _, departures in found):
        found = [("All models", found[0][1])]
    return [(label, departures) for label, departures in found if departures]


def _gallery_attack(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.gallery.attack for run in runs if run.gallery is not None))


def _attack_rows(runs: Sequence[Run]) -> tables.Table:
    """Every setting of every attack of the suite."""
    attacks = list({name: settings for run in runs for name, settings in run.attacks.items()}.values())
    names = list(dict.fromkeys(key for settings in attacks for key in settings))
    rows = [[_setting(key, settings.get(key)) for key in names] for settings in attacks]
    return tables.Table([name.replace("_", " ") for name in names], rows)


def _setting(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name in ("radius", "step_size") and isinstance(value, int | float):
        return format_radius(value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _notes(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What identifies the measurement; one entry per fact, told once where all runs agree."""
    manifests = [(run.label, run.manifest) for run in runs]
    facts: list[tuple[str, list[Any]]] = [
        ("Images (n)", [manifest["data"].get("num_examples") for _, manifest in manifests]),
        ("Data fingerprint", [manifest["data"].get("fingerprint") for _, manifest in manifests]),
        ("Seed of targets and starts", [manifest.get("seed") for _, manifest in manifests]),
        ("Precision", [manifest.get("precision") for _, manifest in manifests]),
        ("Device", [manifest.get("device") for _, manifest in manifests]),
        ("Micro-batch", [manifest.get("micro_batch") for _, manifest in manifests]),
        ("Threads", [manifest.get("num_threads") for _, manifest in manifests]),
        ("Hardware", [manifest.get("informative", {}).get("hardware") for _, manifest in manifests]),
        ("Versions", [_versions(manifest) for _, manifest in manifests]),
        ("Largest distance to the clean image", [_largest_distance(run) for run in runs]),
        ("Clean prediction already is the target", [_clean_is_target(run) for run in runs]),
    ]
    notes = []
    for name, values in facts:
        texts = [
            "–" if value in (None, "") else f"{value:,}" if isinstance(value, int) else str(value) for value in values
        ]
        if set(texts) == {"–"}:
            continue
        same = len(set(texts)) == 1
        notes.append(
            (
                name,
                texts[0] if same else "; ".join(f"{run.label}: {text}" for run, text in zip(runs, texts, strict=True)),
            )
        )
    return notes


def _versions(manifest: dict[str, Any]) -> str:
    versions = manifest.get("informative", {}).get("versions") or {}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _largest_distance(run: Run) -> str:
    largest = max(score.max_distance for score in run.scores)
    return f"{largest:.5f}" if largest else ""


def _clean_is_target(run: Run) -> str:
    counted = [score for score in run.final_scores if score.num_clean_is_target is not None]
    return ", ".join(
        f"{tables.rate(score.num_clean_is_target, score.num_examples)} ({score.attack})" for score in counted
    )


def _inline(figure: figures.FigureSvg) -> tuple[str, str, Markup]:
    return figure.title, figure.alt, Markup(figure.svg)


def _asset(name: str) -> str:
    return files("s3ta.report").joinpath(name).read_text(encoding="utf-8")
