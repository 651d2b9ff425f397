"""The paper's tables, as printed (protocol 4.1), and our runs laid out beside them.

    print(paper_table(read_runs([folder], "table1"), "table1").markdown())

Which suite measures which table: `evaluate/paper_suites.py`.
A variant of a suite (`table1+radius=8_255`, `table1-tiny`) goes beside
the same table, and the notes say what differs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from s3ta.errors import UserError
from s3ta.files import write_atomic
from s3ta.records import CLEAN, Score, is_tiny_suite, scores_by_restarts
from s3ta.records.manifest import AttackEntry
from s3ta.report.attack_text import threat_text
from s3ta.report.comparability import refuse_unlike
from s3ta.report.load_runs import Run, read_runs
from s3ta.report.paper_rows import repeated_row
from s3ta.report.result_tables import Table, latex_text, success_text, table_text, top1_text

NOTHING = "–"


class Column(NamedTuple):
    """One measurement: an attack at one read-out."""

    header: str
    attacks: tuple[str, ...]
    """Names that the attack has in our suites; of the clean images `clean`."""
    num_attack_steps: int
    num_restarts: int | None = None
    """The worst of so many starts; None: of all there are."""
    reach: str | None = None
    """The radius as `_reach` tells it; None: any."""


class PrintedRow(NamedTuple):
    """What a source prints of one model."""

    model: str
    cells: tuple[str, ...]
    """One for each column: `top-1`, or `top-1 / success`, in percent, digits as printed; a dash where there is nothing."""
    source: str = "paper"


class PrintedTable(NamedTuple):
    """A table of the paper."""

    title: str
    radius: str
    num_images: int | None
    """None: the paper does not say."""
    columns: tuple[Column, ...]
    rows: tuple[PrintedRow, ...]
    notes: tuple[str, ...]


def _steps(attack: str, *counts: int) -> tuple[Column, ...]:
    return tuple(Column(f"{count:,} steps: top-1 / success", (attack,), count) for count in counts)


_CLEAN = Column("clean: top-1", (CLEAN,), 0)
_UNTARGETED = ("untargeted-200", "small-untargeted-200")
_MARGIN = ("margin-200", "small-margin-200")

PAPER: dict[str, PrintedTable] = {
    "table1": PrintedTable(
        "The paper's Table 1: random-targeted PGD",
        "16/255",
        50_000,
        (_CLEAN, *_steps("targeted-10", 10), *_steps("targeted-1000", 100, 250, 1000)),
        (
            PrintedRow("ResNet-152", ("70.66", "53.48 / 7.63", "36.91 / 43.48", "32.50 / 50.93", "29.5 / 55.84")),
            PrintedRow("S3TA-2", ("72.30", "55.08 / 9.06", "40.13 / 40.31", "36.56 / 46.56", "33.97 / 50.40")),
            PrintedRow("S3TA-4", ("72.48", "56.78 / 9.10", "42.54 / 39.37", "40.00 / 44.33", "37.99 / 47.50")),
            PrintedRow("S3TA-8", ("72.14", "56.02 / 9.50", "42.63 / 39.06", "40.17 / 44.01", "38.48 / 47.09")),
            PrintedRow("S3TA-16", ("72.54", "57.45 / 9.33", "44.19 / 38.83", "40.71 / 44.82", "38.70 / 48.16")),
            PrintedRow("ResNet-152-30", ("63.62", "53.30 / 6.56", "39.56 / 34.62", "37.56 / 38.68", "36.18 / 41.37")),
            PrintedRow("DENOISE", ("66.02", "56.33 / 5.00", "45.84 / 27.36", "44.19 / 30.66", "43.39 / 32.54")),
            PrintedRow("S3TA-16-30", ("64.55", "55.08 / 3.79", "47.18 / 21.87", "46.65 / 23.52", "46.11 / 24.91")),
            PrintedRow("ResNet-152", ("62.3", "52.5 / 5.5", "41.7 / 31.0", NOTHING, "39.0 / 36.1"), "FD README"),
            PrintedRow("DENOISE", ("65.3", "55.7 / 4.9", "45.5 / 26.6", NOTHING, "42.8 / 32.7"), "FD README"),
        ),
        (
            "ResNet-152-30, DENOISE, S3TA-16-30 and both rows of FD README were trained with 30 attack steps, the others with "
            "10.",
            "FD README is what the authors of Feature Denoising (DENOISE) publish: DENOISE 0.3 to 0.7 points below what this "
            "paper measured of it, and a ResNet-152 stronger than this paper's with 30 steps (39.0% against 36.18% at 1,000 "
            "steps). It draws new targets in every run, worth about 0.3 points. With 2,000 steps DENOISE keeps 42.6%.",
            "S3TA-4, S3TA-8 and S3TA-16 lie 0.2 to 0.7 points apart at 1,000 steps, each from one training run and with a "
            "standard error of 0.22: too close to rank them.",
        ),
    ),
    "table2": PrintedTable(
        "The paper's Table 2: untargeted PGD, 200 steps",
        "4/255 and 16/255",
        50_000,
        (
            Column("4/255: top-1", _UNTARGETED, 200, reach="4/255"),
            Column("16/255: top-1", _UNTARGETED, 200, reach="16/255"),
        ),
        (
            PrintedRow("ResNet-152", ("39.7", "6.3")),
            PrintedRow("DENOISE", ("38.9", "7.5")),
            PrintedRow("LLR", ("47.0", "6.1")),
            PrintedRow("S3TA-16", ("46.75", "9.8")),
        ),
        (
            "Not like for like: the rows of ResNet-152, DENOISE and LLR are presumably those of the LLR paper, whose models "
            "were trained at the radius they are tested at; S3TA-16 is presumably one model, trained at 16/255 with targets.",
            "The table says S3TA-16, the text S3TA-16-30; neither loss nor step size is given. Ours is the cross-entropy with "
            "steps of 1/255, and the margin as a check of that choice.",
        ),
    ),
    "table3": PrintedTable(
        "The paper's Table 3: random-targeted SPSA, 100 steps",
        "16/255",
        1000,
        (Column("SPSA: top-1 / success", ("spsa-100",), 100),),
        (
            PrintedRow("ResNet-152", ("61.90 / 2.20",)),
            PrintedRow("DENOISE", ("63.70 / 1.90",)),
            PrintedRow("S3TA-16", ("59.60 / 1.90",)),
        ),
        (
            "SPSA is weak here: at 224 x 224 pixels 4,096 directions give about 55% of all signs right. Little success proves "
            "little; it must only not be more than that of the attacks with gradients.",
            "Step, loss and probe distance of the paper are not known, nor whether 4,096 counts directions or images (ours: "
            "directions), nor which S3TA-16 it was.",
        ),
    ),
    "table4": PrintedTable(
        "The paper's Table 4: random-targeted PGD, many steps",
        "16/255",
        2200,
        _steps("targeted-10000", 5000, 10_000),
        (
            PrintedRow("ResNet-152", ("28.12 / 58.03", "27.64 / 58.79")),
            PrintedRow("S3TA-2", ("32.85 / 52.50", "32.63 / 52.94")),
            PrintedRow("S3TA-4", ("35.67 / 50.57", "35.43 / 50.96")),
            PrintedRow("S3TA-8", ("36.20 / 50.75", "35.44 / 51.91")),
            PrintedRow("S3TA-16", ("37.36 / 49.50", "36.96 / 50.23")),
            PrintedRow("ResNet-152-30", ("36.69 / 41.33", "36.78 / 41.25")),
            PrintedRow("DENOISE", ("42.76 / 33.83", "42.99 / 33.88")),
            PrintedRow("S3TA-16-30", ("46.11 / 24.91 †", "46.20 / 24.68")),
        ),
        (
            "† is digit for digit the pair of S3TA-16-30 at 1,000 steps in Table 1, though the images are others: likely a "
            "slip in copying, and no number to reproduce.",
        ),
    ),
    "table5": PrintedTable(
        "The paper's Table 5: random-targeted PGD with restarts",
        "16/255",
        None,
        tuple(
            Column(f"{steps:,} steps, worst of {starts}: top-1 / success", ("targeted-1000",), steps, starts)
            for steps in (100, 1000)
            for starts in (1, 10, 100)
        ),
        (
            PrintedRow("ResNet-152-30", ("39.77", "39.37", "39.15", "37.41", "36.51", "35.75")),
            PrintedRow("DENOISE", ("46.16", "44.68", "44.68", "43.57", "41.91", "41.37")),
            PrintedRow("S3TA-16-30", ("47.76", "47.27", "47.09", "46.74", "46.09", "45.78")),
        ),
        (
            "The paper prints top-1 alone here. Its numbers of one start differ from Table 1, so the images or the targets "
            "were others.",
            "An independent run on the models of Feature Denoising (100 starts, 100 steps of 2/255, 4,000 images) found 34.38% "
            "for ResNet-152 and 37.25% for DENOISE, far below; new targets at each start would explain that. Ours stay.",
        ),
    ),
    "table6": PrintedTable(
        "The paper's Table 6: random-targeted Adam, 250 steps",
        "16/255",
        None,
        _steps("adam-250", 250),
        (
            PrintedRow("ResNet-152-30", ("26.38 / 42.94",)),
            PrintedRow("DENOISE", ("32.99 / 35.04",)),
            PrintedRow("S3TA-16-30", ("36.83 / 27.00",)),
        ),
        (),
    ),
}
"""The paper's tables by the name of the suite that measures them. Sources: the paper; FD README: the README of
github.com/facebookresearch/ImageNet-Adversarial-Training at 1ad68f0."""


class PaperSection(NamedTuple):
    """What a page shows of one of the paper's tables."""

    title: str
    table: Table
    notes: list[str]
    """Sentences that belong below the table."""


def paper_section(runs: Sequence[Run], suite: str) -> PaperSection | None:
    """Title, table and notes; None for a suite that measures none of the paper's tables."""
    base = base_name(suite)
    if base is None:
        return None
    return PaperSection(PAPER[base].title, paper_table(runs, suite), paper_notes(runs, suite))


def write_paper_table(runs: list[Path], suite: str, out: Path) -> None:
    """Write our runs beside the paper's rows, notes below: `.md`, `.tex` (needs the package booktabs) or `.csv` (no notes).

    Raises UserError for another ending or a suite that measures none of the paper's tables, and as `read_runs`."""
    _known(suite)
    measured = read_runs(runs, suite)
    text, notes = table_text(paper_table(measured, suite), out.suffix), paper_notes(measured, suite)
    if out.suffix == ".md":
        text += "\n" + "".join(f"- {note}\n" for note in notes)
    if out.suffix == ".tex":
        items = "".join(f"\\item {latex_text(note)}\n" for note in notes)
        text += f"\\begin{{itemize}}\n{items}\\end{{itemize}}\n"
    write_atomic(out, text.encode())


def base_name(suite: str) -> str | None:
    """`table1` of `table1`, `table1-tiny` and `table1+radius=8_255`; None for what measures none of the paper's tables."""
    name = suite.partition("+")[0].removesuffix("-tiny")
    return name if name in PAPER else None


def paper_table(runs: Sequence[Run], suite: str) -> Table:
    """Our runs, each with its 95% intervals, and the paper's rows as printed; a dash for what was not measured. A run of a
    recipe that trains a row's model stands right above that row, the others come first.

    Raises UserError for a suite that measures none of the paper's tables."""
    base = _known(suite)
    printed, columns = PAPER[base], _columns(base, runs)
    models = {row.model for row in printed.rows if row.source == "paper"}
    repeats = {run.label: repeated_row(run, models) for run in runs}
    ours = {model: [run for run in runs if repeats[run.label] == model] for model in (None, *models)}
    rows = [_our_row(run, base, columns) for run in ours[None]]
    size = printed.num_images
    # one standard error of a share near 50%, in points
    size_text = "not said" if size is None else f"{size:,} (± {50 / math.sqrt(size):.2f})"
    for row in printed.rows:
        if row.source == "paper":
            again = [_our_row(run, base, columns) for run in ours[row.model]]
            rows += [[f"{row.model}: {label}", *others] for label, *others in again]
        cells = dict(zip(printed.columns, row.cells, strict=True))
        shown = [re.sub(r"[\d.]+", r"\g<0>%", cells.get(column, NOTHING)) for column in columns]
        rows.append([row.model, row.source, size_text, printed.radius, *shown])
    return Table(["Model", "Source", "n", "Radius", *(column.header for column in columns)], rows)


def paper_notes(runs: Sequence[Run], suite: str) -> list[str]:
    """What a reader must know before comparing: of the paper's rows, then of ours. Raises UserError as `paper_table`."""
    base = _known(suite)
    printed = PAPER[base]
    size = printed.num_images
    images = f"{size:,} images" if size else "images (the paper does not say how many)"
    source = (
        f"Rows of the paper are as printed (Zoran et al. 2020, Table {base[-1]}): {images} of ImageNet's validation set, "
        f"radius {printed.radius}{'; ± is one standard error of a share near 50%, in points' if size else ''}."
    )
    return [source, *printed.notes, *dict.fromkeys(_our_notes(runs, suite, printed))]


def _our_notes(runs: Sequence[Run], suite: str, printed: PrintedTable) -> Iterator[str]:
    for run in runs:
        data, num_classes = run.manifest.data, run.manifest.model.num_classes
        used, available = data.num_examples, data.num_available
        part = f" of {available:,}" if available is not None and available != used else ""
        images = f"{used:,}{part} images" if used is not None else "some images"
        classes = f" of {num_classes:,} classes" if num_classes is not None else ""
        yield (
            f"Our rows: {data.title or 'data without a name'}, {images}{classes}, 95% intervals over the choice of "
            "images. On other images than the paper's only what holds within our rows or within the paper's compares."
        )
    for run in runs:
        if not run.complete:
            done = f"{run.num_chunks_done:,} of {run.manifest.num_chunks:,} chunks"
            yield f"{run.label} is not finished ({done}): its numbers are of the images done so far."
        other = [reach for reach in _reaches(run.attacks.values()) if reach not in printed.radius.split(" and ")]
        if other:
            yield f"{run.label} was attacked at {' and '.join(other)}, the paper's models at {printed.radius}."
        changed = re.search(r"; changed: (.*)", run.manifest.suite.description)
        if changed or "+" in suite:
            yield f"Settings of our attacks were changed: {changed[1] if changed else suite.partition('+')[2]}."
    if is_tiny_suite(suite):
        yield "Our rows are a trial run of shrunken attacks: their numbers mean nothing."
    try:
        refuse_unlike(runs)
    except UserError as error:
        yield f"Our rows do not compare with each other. {error}"


def _known(suite: str) -> str:
    base = base_name(suite)
    if base is None:
        raise UserError(
            f"Suite '{suite}' measures none of the paper's tables: evaluate with one of {', '.join(PAPER)}."
        )
    return base


def _columns(base: str, runs: Sequence[Run]) -> list[Column]:
    """The paper's columns; of Table 2 also those for other radii and for the margin that our runs have."""
    columns = [*PAPER[base].columns]
    for names, suffix in ((_UNTARGETED, ""), (_MARGIN, ", margin")) if base == "table2" else ():
        reaches = _reaches(run.attacks[name] for run in runs for name in _named(run, names))
        columns += [Column(f"{reach}{suffix}: top-1", names, 200, reach=reach) for reach in reaches]
    return [*dict.fromkeys(columns)]


def _our_row(run: Run, base: str, columns: Sequence[Column]) -> list[str]:
    scores = scores_by_restarts(run.table) if base == "table5" else run.scores
    clean = run.clean_score
    size = clean.num_examples if clean else run.manifest.data.num_examples
    cells = [_cell(_find(run, scores, column), size) for column in columns]
    radius = " and ".join(_reaches(run.attacks.values()))
    return [run.label, "this run", NOTHING if size is None else f"{size:,}", radius, *cells]


def _find(run: Run, scores: Sequence[Score], column: Column) -> Score | None:
    names = [CLEAN] if CLEAN in column.attacks else _named(run, column.attacks)
    asked = (
        score
        for score in scores
        if score.attack in names
        and score.num_attack_steps == column.num_attack_steps
        and column.num_restarts in (None, score.num_restarts)
        and (column.reach is None or column.reach == _reach(run.attacks[score.attack]))
    )
    return next(asked, None)


def _cell(score: Score | None, num_examples: int | None) -> str:
    if score is None:
        return NOTHING
    text = top1_text(score)
    if score.num_hits is not None:
        text += f" / {success_text(score)}"
    return text if score.num_examples == num_examples else f"{text} (n = {score.num_examples:,})"


def _named(run: Run, names: Sequence[str]) -> list[str]:
    """The attacks of a run that have one of these names, or became one of another kind (`targeted-10+adam`)."""
    return [name for name in run.attacks if name.partition("+")[0] in names]


def _reaches(attacks: Iterable[AttackEntry]) -> list[str]:
    """The radii of attacks, smallest first, each once."""
    return list(dict.fromkeys(map(_reach, sorted(attacks, key=lambda settings: settings.radius or 0))))


def _reach(settings: AttackEntry) -> str:
    """`16/255`; `L2 radius 1`; `16/255, only in a box ...`; a dash where the manifest does not say."""
    return threat_text(settings).removeprefix("radius ") or NOTHING
