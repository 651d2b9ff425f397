"""One self-contained page, `report.html`, from run folders: no model is run, no address outside the page is named.

build_report([Path("runs/s3ta_4"), Path("runs/resnet")], "quick", Path("report.html"))
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import CLEAN, CascadeStage, Interval, Score, scores_by_restarts
from s3ta.report import experimental_setup, figures, gallery, result_tables
from s3ta.report.attack_text import attack_name, attack_text
from s3ta.report.calibration import calibration_section, is_natural
from s3ta.report.checks import Checks, Trust, checks
from s3ta.report.comparability import PairOfRuns, compare, refuse_unlike, unshared
from s3ta.report.load_runs import Run, attack_order, cascading, read_runs
from s3ta.report.matplotlib_svg import NUM_COLOURS, FigureSvg
from s3ta.report.numerical_reproducibility import measured_twice
from s3ta.report.paper_tables import paper_section
from s3ta.report.winner import Verdict, verdict


class RateCell(NamedTuple):
    """A rate as the page shows it."""

    share: float
    interval: Interval

    @property
    def text(self) -> str:
        return result_tables.percent(self.share)

    @property
    def interval_text(self) -> str:
        return result_tables.percent_interval(self.interval)


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
    script = _asset("page.js")
    (compared, why_not), different = _compare(runs), unshared(runs)
    trusts = [(run.label, _without_told(run.trust) if different else run.trust) for run in runs]
    page = Page(
        runs=runs,
        suite=suite,
        compared=compared,
        why_not=why_not,
        cascade=cascading(runs),
        different=different,
        verdict=verdict(runs, compared),
        checks=checks(trusts),
        subset=experimental_setup.subset(runs),
        images_from=experimental_setup.images_from(runs),
    )
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_asset("page.html.j2")).render(
        page=page,
        sections=[section for build in _order(page) if (section := build(page)) is not None],
        style=Markup(_asset("style.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


class Page(NamedTuple):
    """What stands at the top, and what several sections need."""

    runs: Sequence[Run]
    suite: str
    compared: list[PairOfRuns] | None
    """None: not compared."""
    why_not: str
    cascade: bool
    different: str
    """A sentence on attacks that only some of the models met; empty where there are none."""
    verdict: Verdict
    checks: Checks
    subset: list[str]
    images_from: str


class Section(NamedTuple):
    """A part of the page, declared in this file alone where it is text and figures. What shows more has a macro in
    `page.html.j2`, which its id names in `bodies`."""

    id: str
    title: str
    nav: str
    """Its name in the navigation; empty: it is not named there."""
    text: str = ""
    """HTML."""
    figures: Sequence[FigureSvg] = ()
    wide: bool = False
    content: Any = None
    """What the macro shows."""


def _order(page: Page) -> Sequence[Callable[[Page], Section | None]]:
    """The sections from top to bottom; calibration comes first where it is the suite's result."""
    before = [_summary, _paper, _trust, _twice, _strength, _attacks, _difference]
    after = [_training, _images, _attention, _method]
    return [_calibration, *before, *after] if is_natural(page.runs) else [*before, _calibration, *after]


def _calibration(page: Page) -> Section:
    content = calibration_section(page.runs)
    title = "Calibration: what confidence is worth"
    return Section("calibration", title, "Calibration", figures=content.figures, content=content)


def _summary(page: Page) -> Section:
    content = {"groups": _groups(page.runs), "restarts": _restarts(page.runs)}
    return Section("summary", "Summary", "Summary", content=content)


def _paper(page: Page) -> Section | None:
    content = paper_section(page.runs, page.suite)
    return content and Section("paper", content.title, "The paper's table", content=content)


def _trust(page: Page) -> Section:
    text = (
        "Errors: not a number to use. Warnings: the number may be wrong. Notes: read it with this in mind. A check that passes "
        "is no proof."
    )
    return Section("trust", "Trust: what was checked", "Trust", text, content=page.checks)


def _twice(page: Page) -> Section | None:
    text = (
        "The same weights, images, targets and starts. Whatever differs comes from the device, the precision or the order of "
        "additions, not from the model."
    )
    pairs = measured_twice(page.runs)
    return Section("twice", "The same model measured twice", "Measured twice", text, content=pairs) if pairs else None


def _strength(page: Page) -> Section | None:
    text = (
        "The further right, the longer the attacker works on each image. A model whose curve is still falling at the right end "
        "is not yet measured to the bottom. Bands and bars: 95% intervals."
    )
    drawn = figures.strength_figures(page.runs)
    return Section("strength", "Accuracy against attack strength", "Strength", text, drawn) if drawn else None


def _attacks(page: Page) -> Section | None:
    drawn = figures.attack_figures(page.runs)
    if page.cascade:
        title, nav = "Worst case, attack after attack", "Worst case"
        text = (
            "Each mark is what is left after that attack and all above it. A line that still falls at its end may fall further "
            "under one more attack. Bars: 95% intervals. A hollow mark is an upper bound: a budget left attacks out."
        )
    else:
        title, nav = "Attack by attack", "Attacks"
        text = (
            "In the order of the suite, each attack at its last read-out and on all images. Among attacks with equal means, "
            "the lowest number counts. Bars: 95% intervals. A hollow mark is an upper bound: a budget left something out."
        )
    return Section("attacks", title, nav, text, drawn, wide=True) if drawn else None


def _difference(page: Page) -> Section | None:
    forests = [(figures.forest_figure(pair), result_tables.comparison_table(pair)) for pair in page.compared or []]
    title = "Is the difference real?"
    return Section("difference", title, "Difference", content=forests) if len(page.runs) > 1 else None


def _training(page: Page) -> Section:
    runs = page.runs
    recipes = [(run.label, json.dumps(run.recipe.raw, indent=2, ensure_ascii=False)) for run in runs if run.recipe.raw]
    content = {
        "facts": experimental_setup.facts_table(runs),
        "departures": experimental_setup.departures(runs),
        "recipes": recipes,
    }
    title = "What was trained, and how"
    return Section("training", title, "Training", figures=figures.curve_figures(runs), content=content)


def _images(page: Page) -> Section | None:
    attacks = dict.fromkeys(run.gallery.attack for run in page.runs if run.gallery)
    ids, num_shared = gallery.shared_examples(page.runs)
    content = {
        "attack": ", ".join(attacks),
        "examples": gallery.examples(page.runs, ids),
        "num_shared": num_shared,
        "amplification": gallery.amplification(page.runs, ids),
    }
    title = "Images, before and after the attack"
    return Section("images", title, "Images" if ids else "", content=content) if attacks else None


def _attention(page: Page) -> Section | None:
    ids, _ = gallery.shared_examples(page.runs)
    models = [shown for run in page.runs if (shown := gallery.attention(run, ids)) is not None]
    title = "Where the model looks, glimpse by glimpse"
    return Section("attention", title, "Attention", content=models) if models and ids else None


def _method(page: Page) -> Section:
    attacks, alike = experimental_setup.attack_settings(page.runs)
    content = {"attacks": attacks, "alike": alike, "notes": experimental_setup.notes(page.runs)}
    return Section("method", "How to read this", "Method", content=content)


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
        rows, without, strength = list[ScoreRow](), list[str](), ""
        settings = next((run.attacks[attack] for run in runs if attack in run.attacks), None)
        for colour, run in enumerate(runs):
            score = next((score for score in run.final_scores if score.attack == attack), None)
            stage = by_stage[colour].get(attack)
            if (score is None and attack in run.left_out_by_budget) or (stage is not None and not stage.ran):
                without.append(run.label)
            elif score is not None:
                strength = attack_text(settings, attack, score.num_attack_steps, score.num_restarts)
                rows.append(_row(run, colour, score, stage))
        if rows or without:
            name = "clean images" if attack == CLEAN else attack_name(attack, cascade=cascade)
            groups.append(AttackGroup(name, strength, rows, without))
    return groups


def _row(run: Run, colour: int, score: Score, stage: CascadeStage | None) -> ScoreRow:
    broken = ""
    if stage is not None:
        rest = "wrong" if score.attack == CLEAN else f"of {stage.num_left:,}"
        broken = f"{stage.num_broken:,} {rest}"
    return ScoreRow(
        model=run.label,
        colour=colour % NUM_COLOURS,
        num_examples=score.num_examples,
        top1=RateCell(score.top1, result_tables.bounds(score)),
        at_most=bool(score.num_cut),
        success=None if score.success is None else RateCell(score.success, result_tables.bounds(score, success=True)),
        broken=broken,
        cost=result_tables.cost_texts(score),
    )


def _restarts(runs: Sequence[Run]) -> result_tables.Table | None:
    """Nested counts over restarts (protocol E9), where an attack has several."""
    if cascading(runs) or all(score.num_restarts == 1 for run in runs for score in run.scores):
        return None
    last = [{s.attack: s.num_attack_steps for s in run.final_scores if s.num_restarts > 1} for run in runs]
    nested = [
        (run, score)
        for run, num_steps in zip(runs, last, strict=True)
        for score in scores_by_restarts(run.table)
        if score.num_attack_steps == num_steps.get(score.attack)
    ]
    columns = {
        "Model": lambda run, score: run.label,
        "Attack": lambda run, score: score.attack,
        "Starts": lambda run, score: score.num_restarts,
        "Right after all (95% interval)": lambda run, score: result_tables.top1_text(score),
        "Hit by any (95% interval)": lambda run, score: result_tables.success_text(score),
    }
    return result_tables.table_of(columns, nested)


def _asset(name: str) -> str:
    return files("s3ta.report").joinpath(name).read_text(encoding="utf-8")
