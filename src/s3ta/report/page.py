"""One self-contained page, `report.html`, from run folders: no model is run, no address outside the page is named.

build_report([Path("runs/s3ta_4"), Path("runs/resnet")], "quick", Path("report.html"))
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import CLEAN, Interval, Score, Stage, nested_scores
from s3ta.report import figures, gallery, provenance, tables
from s3ta.report.calibration import calibration_section
from s3ta.report.checks import Trust, checks
from s3ta.report.comparison import PairOfRuns, compare, refuse_unlike, unshared
from s3ta.report.headline import verdict
from s3ta.report.load_runs import Run, attack_order, cascading, read_runs
from s3ta.report.paper_tables import paper_section
from s3ta.report.reproducibility import measured_twice
from s3ta.report.svg import NUM_COLOURS, FigureSvg


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
    top1: RateCell
    at_most: bool
    """Whether a budget kept attacks from images that are still right."""
    success: RateCell | None
    broken: str
    """Of a cascade: what this attack did; else empty."""
    cost: tuple[str, str]
    """Gradients and other forward evaluations per image."""


class AttackGroup(NamedTuple):
    """All models under one attack at its last read-out."""

    attack: str
    strength: str
    rows: list[ScoreRow]
    without: list[str]
    """Models on which a budget left the attack out wholly."""


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
    refuse_unlike(runs)
    compared, why_not = _compare(runs)
    different = unshared(runs)
    ids, num_shared = gallery.shared_examples(runs)
    script = _asset("page.js")
    attacks, attacks_alike = provenance.attack_settings(runs)
    trusts = [(run.label, _without_told(run.trust) if different else run.trust) for run in runs]
    calibration = calibration_section(runs)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.j2")).render(
        suite=suite,
        runs=runs,
        cascade=cascading(runs),
        verdict=verdict(runs, compared),
        checks=checks(trusts),
        paper=paper_section(runs, suite),
        twice=measured_twice(runs),
        calibration=calibration,
        confidence=[_inline(figure) for figure in calibration.figures],
        unfinished=[run for run in runs if not run.complete],
        subset=provenance.subset(runs),
        images_from=provenance.images_from(runs),
        groups=_groups(runs),
        restarts=_restarts(runs),
        strength=[_inline(figure) for figure in figures.strength_figures(runs)],
        by_attack=[_inline(figure) for figure in figures.attack_figures(runs)],
        forests=[(_inline(figures.forest_figure(pair)), tables.comparison_table(pair)) for pair in compared or []],
        why_not=why_not,
        different=different,
        facts=provenance.facts_table(runs),
        departures=provenance.departures(runs),
        curves=[_inline(figure) for figure in figures.curve_figures(runs)],
        recipes=[
            (run.label, json.dumps(run.recipe.raw, indent=2, ensure_ascii=False)) for run in runs if run.recipe.raw
        ],
        examples=gallery.examples(runs, ids),
        num_shared=num_shared,
        amplification=gallery.amplification(runs, ids),
        gallery_attack=_gallery_attack(runs),
        attention=[found for run in runs if (found := gallery.attention(run, ids)) is not None],
        notes=provenance.notes(runs),
        attacks=attacks,
        attacks_alike=attacks_alike,
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _compare(runs: Sequence[Run]) -> tuple[list[PairOfRuns] | None, str]:
    """The comparisons, or why there are none: examples that an unfinished evaluation lacks are no error yet."""
    try:
        return compare(runs), ""
    except UserError as error:
        if all(run.complete for run in runs):
            raise
        return None, str(error)


def _without_told(trust: Trust) -> Trust:
    """Without what the page says anyway, of all runs at once."""
    return trust._replace(records=[finding for finding in trust.records if finding.kind != "fewer attacks"])


def _groups(runs: Sequence[Run]) -> list[AttackGroup]:
    cascade = cascading(runs)
    by_stage = [{stage.score.attack: stage for stage in run.stages} if cascade else {} for run in runs]
    groups = []
    for attack in attack_order(runs):
        rows, without = [], []
        found: Score | None = None
        for colour, run in enumerate(runs):
            score = next((score for score in run.final_scores if score.attack == attack), None)
            stage = by_stage[colour].get(attack)
            if (score is None and attack in run.left_out_by_budget) or (stage is not None and not stage.ran):
                without.append(run.label)
            elif score is not None:
                found = score
                rows.append(_row(run, colour, score, stage))
        if rows or without:
            settings = next((run.attacks[attack] for run in runs if attack in run.attacks), None)
            strength = tables.attack_text(settings, attack, found.num_attack_steps, found.num_restarts) if found else ""
            name = "clean images" if attack == CLEAN else f"then {attack}" if cascade else attack
            groups.append(AttackGroup(name, strength, rows, without))
    return groups


def _row(run: Run, colour: int, score: Score, stage: Stage | None) -> ScoreRow:
    top1, success = _cell(score.num_correct, score), _cell(score.num_hits, score, success=True)
    assert top1 is not None
    broken = ""
    if stage is not None:
        broken = (
            f"{stage.num_broken:,} of {stage.num_left:,}" if score.attack != CLEAN else f"{stage.num_broken:,} wrong"
        )
    tint = colour % NUM_COLOURS
    cost = tables.cost_texts(score)
    return ScoreRow(run.label, tint, score.num_examples, top1, bool(score.num_cut), success, broken, cost)


def _cell(count: int | None, score: Score, *, success: bool = False) -> RateCell | None:
    if count is None:
        return None
    return RateCell(count / score.num_examples, tables.bounds(score, success=success))


def _restarts(runs: Sequence[Run]) -> tables.Table | None:
    """Nested counts over restarts (protocol E9), where an attack has several."""
    if cascading(runs) or all(score.num_restarts == 1 for run in runs for score in run.scores):
        return None
    rows = []
    for run in runs:
        repeated = {score.attack for score in run.scores if score.num_restarts > 1}
        for score in nested_scores(run.table):
            if score.attack in repeated and score.num_attack_steps == run_last(run, score.attack):
                rates = [tables.top1_text(score), tables.success_text(score)]
                rows.append([run.label, score.attack, str(score.num_restarts), *rates])
    return tables.Table(
        ["Model", "Attack", "Starts", "Right after all (95% interval)", "Hit by any (95% interval)"], rows
    )


def run_last(run: Run, attack: str) -> int:
    """The last read-out of an attack."""
    return max(score.num_attack_steps for score in run.scores if score.attack == attack)


def _gallery_attack(runs: Sequence[Run]) -> str:
    return ", ".join(dict.fromkeys(run.gallery.attack for run in runs if run.gallery is not None))


def _inline(figure: FigureSvg) -> tuple[str, str, Markup]:
    return figure.title, figure.alt, Markup(figure.svg)


def _asset(name: str) -> str:
    return files("s3ta.report").joinpath(name).read_text(encoding="utf-8")
