"""Tables as data: what a report, a terminal and a spreadsheet all show. A rate never comes without its 95% interval,
and top-1 never without success (protocol X36).

    print(summary_table(read_runs([folder], "quick")).markdown())
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from s3ta.errors import UserError
from s3ta.records import CLEAN, Comparison, Interval, PairedCounts, Score, wilson
from s3ta.report.attack_text import attack_text
from s3ta.report.comparison import PairOfRuns
from s3ta.report.load_runs import Run, cascading


class Table(NamedTuple):
    """Texts in rows; the first column names the row."""

    headers: list[str]
    rows: list[list[str]]

    def pick(self, *columns: str) -> Table:
        """For each word the first column whose header begins with it."""
        places = [next(i for i, header in enumerate(self.headers) if header.startswith(word)) for word in columns]
        return Table([self.headers[i] for i in places], [[row[i] for i in places] for row in self.rows])

    def markdown(self) -> str:
        def line(cells: Sequence[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

        return "\n".join([line(self.headers), line(["---"] * len(self.headers)), *map(line, self.rows)]) + "\n"

    def csv(self) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.headers, *self.rows])
        return text.getvalue()

    def latex(self) -> str:
        """A `tabular` for the package booktabs; every cell is text, whatever characters it holds. Numbers to the right."""

        def line(cells: Sequence[str]) -> str:
            return " & ".join(latex_text(cell) for cell in cells) + r" \\"

        columns = "".join("r" if _is_numbers(column) else "l" for column in zip(*self.rows, strict=True))
        body = ["\\toprule", line(self.headers), "\\midrule", *map(line, self.rows), "\\bottomrule"]
        tabular = f"\\begin{{tabular}}{{{columns or 'l' * len(self.headers)}}}"
        return "\n".join([tabular, *body, "\\end{tabular}"]) + "\n"


def table_text(table: Table, suffix: str) -> str:
    """The table as a file with that ending holds it: .md, .csv or .tex. Raises UserError for another."""
    texts = {".md": table.markdown, ".csv": table.csv, ".tex": table.latex}
    if suffix not in texts:
        raise UserError(f"Cannot write a table as '{suffix}': let the file's name end in {', '.join(texts)}.")
    return texts[suffix]()


def latex_text(text: str) -> str:
    """Text as LaTeX source that prints exactly it: special characters escaped, ligatures kept apart, on one line.

    `[` and `*` go into braces, for behind the end of a row LaTeX would take them as its argument."""
    parts, last = [], ""
    for character in " ".join(text.split()):
        parts.append("{}" if character == last and character in "-,'" else "")
        parts.append(_LATEX.get(character, character))
        last = character
    return "".join(parts)


def _is_numbers(column: Sequence[str]) -> bool:
    return all(re.match(r"([+−-]?[\d.]|–$|at most |at least |< )", cell) for cell in column)


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[*"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",
    "`": r"\textasciigrave{}",
    "–": r"\textendash{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"\textperiodcentered{}",
    "…": r"\ldots{}",
    "†": r"\textdagger{}",
}


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def percent_interval(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def rate(count: int | None, total: int) -> str:
    """`61.2% [56.9, 65.4]`: the share and its 95% Wilson interval; a dash where there is nothing to count."""
    return "–" if count is None else f"{percent(count / total)} {percent_interval(wilson(count, total))}"


def points(share: float) -> str:
    """A difference of percentages, in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "−")


def points_interval(interval: Interval) -> str:
    return f"[{points(interval.low)}, {points(interval.high)}]"


def p_text(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def bounds(score: Score, *, success: bool = False) -> Interval:
    """The 95% interval of top-1, or of success. Where a budget left something out, it covers all that this might have done:
    from that of nobody left right to that of what was seen, and likewise for the target."""
    seen, might = (score.num_hits or 0, score.num_cut_misses) if success else (score.num_correct, -score.num_cut)
    one, other = (wilson(seen + more, score.num_examples) for more in (0, might))
    return Interval(min(one.low, other.low), max(one.high, other.high))


def top1_text(score: Score) -> str:
    """Top-1 with its interval; `at most` where a budget kept attacks from images that are still right."""
    return f"{'at most ' if score.num_cut else ''}{percent(score.top1)} {percent_interval(bounds(score))}"


def success_text(score: Score) -> str:
    """Success with its interval, `at least` where a budget kept attacks from images; a dash where there is no target."""
    if score.success is None:
        return "–"
    at_least = "at least " if score.num_cut_misses else ""
    return f"{at_least}{percent(score.success)} {percent_interval(bounds(score, success=True))}"


def cost_texts(score: Score) -> tuple[str, str]:
    """What one image cost on average, up to this read-out: gradients, and forward evaluations beside theirs."""
    return f"{score.mean_gradients:,.0f}", f"{score.mean_forwards - score.mean_gradients:,.0f}"


def summary_table(runs: Sequence[Run]) -> Table:
    """Clean and each attack's last read-out, per model: top-1 and success, each with its 95% interval, and what an image
    cost. Of a cascade the worst case over all attacks so far."""
    cascade = cascading(runs)
    top1 = "Top-1 after all so far (95% interval)" if cascade else "Top-1 (95% interval)"
    headers = ["Model", "Attack", "Strength", "n", top1, "Attack success (95% interval)", "Gradients", "Other forwards"]
    rows = [
        [
            run.label,
            f"then {score.attack}" if cascade and score.attack != CLEAN else score.attack,
            attack_text(run.attacks.get(score.attack), score.attack, score.num_attack_steps, score.num_restarts),
            f"{score.num_examples:,}",
            top1_text(score),
            success_text(score),
            *cost_texts(score),
        ]
        for run in runs
        for score in run.final_scores
    ]
    return Table(headers, rows)


def read_out_table(runs: Sequence[Run]) -> Table:
    """Every read-out for people: percentages with 95% intervals. Of a cascade the worst case over all attacks so far."""
    headers = ["Model", "Attack", "Steps", "Starts", "n", "Top-1 (95% interval)", "Success (95% interval)"]
    rows = [
        [
            run.label,
            f"then {score.attack}" if cascading([run]) and score.attack != CLEAN else score.attack,
            f"{score.num_attack_steps:,}",
            f"{score.num_restarts:,}",
            f"{score.num_examples:,}",
            top1_text(score),
            success_text(score),
        ]
        for run in runs
        for score in run.scores
    ]
    return Table(headers, rows)


def full_table(runs: Sequence[Run]) -> Table:
    """Every read-out as plain numbers (shares from 0 to 1, evaluations per image), for a spreadsheet.

    Of a cascade (`cascade` is 1) each is the worst case over all attacks up to this one."""
    headers = [
        "model",
        "attack",
        "num_attack_steps",
        "num_restarts",
        "n",
        "num_correct",
        "top1",
        "top1_low",
        "top1_high",
        "num_hits",
        "success",
        "success_low",
        "success_high",
        "num_clean_is_target",
        "max_distance",
        "mean_gradients",
        "mean_other_forwards",
        "num_cut",
        "cascade",
    ]
    rows = []
    for run in runs:
        for score in run.scores:
            counts = [score.attack, score.num_attack_steps, score.num_restarts, score.num_examples]
            cells: list[Any] = [run.label, *counts, *_numbers(score), *_numbers(score, success=True)]
            cells += [
                "" if score.num_clean_is_target is None else score.num_clean_is_target,
                f"{score.max_distance:.6g}",
                f"{score.mean_gradients:.6g}",
                f"{score.mean_forwards - score.mean_gradients:.6g}",
                score.num_cut,
                int(cascading([run])),
            ]
            rows.append([str(cell) for cell in cells])
    return Table(headers, rows)


def comparison_table(compared: PairOfRuns) -> Table:
    """The paired differences a - b per attack and read-out, in percentage points, with 95% intervals and exact p."""
    headers = [
        "Attack",
        "Steps",
        "Measure",
        "Difference (points)",
        "95% interval",
        "Only first",
        "Only second",
        "McNemar p",
    ]
    rows = []
    for comparison in compared.comparisons:
        for measure, counts in measures(comparison):
            rows.append(
                [
                    comparison.attack,
                    f"{comparison.num_attack_steps:,}",
                    measure,
                    points(counts.difference),
                    points_interval(counts.interval),
                    f"{counts.only_a:,}",
                    f"{counts.only_b:,}",
                    p_text(counts.p_value),
                ]
            )
    return Table(headers, rows)


def measures(comparison: Comparison) -> list[tuple[str, PairedCounts]]:
    """Top-1, and success where the attack has a target."""
    both = [("top-1", comparison.top1)]
    return both if comparison.success is None else [*both, ("success", comparison.success)]


def _numbers(score: Score, *, success: bool = False) -> list[Any]:
    count = score.num_hits if success else score.num_correct
    if count is None:
        return ["", "", "", ""]
    return [count, *(f"{x:.6f}" for x in (count / score.num_examples, *bounds(score, success=success)))]
