"""Tables as data: what a report, a terminal and a spreadsheet all show. A rate never comes without its 95% interval,
and top-1 never without success (protocol X36).

    print(runs_summary_table(read_runs([folder], "quick")).markdown())
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from s3ta.errors import UserError
from s3ta.records import Comparison, Interval, PairedCounts, Score, wilson
from s3ta.report.attack_text import attack_name, attack_text
from s3ta.report.comparability import PairOfRuns
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


def table_of(columns: Mapping[str, Callable[..., Any]], items: Iterable[tuple[Any, ...]]) -> Table:
    """A row per item; a column is a header and what is told there of an item's parts, where None is nothing."""
    rows = [[cell(*item) for cell in columns.values()] for item in items]
    return Table([*columns], [["" if value is None else str(value) for value in row] for row in rows])


def table_text(table: Table, suffix: str) -> str:
    """The table as a file with that ending holds it: .md, .csv or .tex. Raises UserError for another."""
    texts = {".md": table.markdown, ".csv": table.csv, ".tex": table.latex}
    if suffix not in texts:
        raise UserError(f"Cannot write a table as '{suffix}': let the file's name end in {', '.join(texts)}.")
    return texts[suffix]()


def latex_text(text: str) -> str:
    """Text as LaTeX source that prints exactly it: special characters escaped, ligatures kept apart, on one line.

    `[` and `*` go into braces, for behind the end of a row LaTeX would take them as its argument."""
    return re.sub(r"([-,'])(?=\1)", r"\1{}", " ".join(text.split()).translate(_LATEX))


def _is_numbers(column: Sequence[str]) -> bool:
    return all(re.match(r"([+−-]?[\d.]|–$|at most |at least |< )", cell) for cell in column)


_LATEX = str.maketrans(
    {
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
)


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


def runs_summary_table(runs: Sequence[Run]) -> Table:
    """Clean and each attack's last read-out, per model, and what an image cost. Of a cascade the worst case so far."""
    cascade = cascading(runs)
    columns = {
        "Model": lambda run, score: run.label,
        "Attack": lambda run, score: attack_name(score.attack, cascade=cascade),
        "Strength": lambda run, score: attack_text(
            run.attacks.get(score.attack), score.attack, score.num_attack_steps, score.num_restarts
        ),
        "n": lambda run, score: f"{score.num_examples:,}",
        f"Top-1{' after all so far' if cascade else ''} (95% interval)": lambda run, score: top1_text(score),
        "Attack success (95% interval)": lambda run, score: success_text(score),
        "Gradients": lambda run, score: cost_texts(score)[0],
        "Other forwards": lambda run, score: cost_texts(score)[1],
    }
    return table_of(columns, [(run, score) for run in runs for score in run.final_scores])


def read_out_table(runs: Sequence[Run]) -> Table:
    """Every read-out for people. Of a cascade the worst case over all attacks so far."""
    columns = {
        "Model": lambda run, score: run.label,
        "Attack": lambda run, score: attack_name(score.attack, cascade=cascading([run])),
        "Steps": lambda run, score: f"{score.num_attack_steps:,}",
        "Starts": lambda run, score: f"{score.num_restarts:,}",
        "n": lambda run, score: f"{score.num_examples:,}",
        "Top-1 (95% interval)": lambda run, score: top1_text(score),
        "Success (95% interval)": lambda run, score: success_text(score),
    }
    return table_of(columns, [(run, score) for run in runs for score in run.scores])


def read_out_numbers_table(runs: Sequence[Run]) -> Table:
    """Every read-out as plain numbers (shares from 0 to 1, evaluations per image), for a spreadsheet.

    Of a cascade (`cascade` is 1) each is the worst case over all attacks up to this one."""
    columns = {
        "model": lambda run, score: run.label,
        "attack": lambda run, score: score.attack,
        "num_attack_steps": lambda run, score: score.num_attack_steps,
        "num_restarts": lambda run, score: score.num_restarts,
        "n": lambda run, score: score.num_examples,
        "num_correct": lambda run, score: score.num_correct,
        "top1": lambda run, score: f"{score.top1:.6f}",
        "top1_low": lambda run, score: f"{bounds(score).low:.6f}",
        "top1_high": lambda run, score: f"{bounds(score).high:.6f}",
        "num_hits": lambda run, score: score.num_hits,
        "success": lambda run, score: _of_hits(score, score.success),
        "success_low": lambda run, score: _of_hits(score, bounds(score, success=True).low),
        "success_high": lambda run, score: _of_hits(score, bounds(score, success=True).high),
        "num_clean_is_target": lambda run, score: score.num_clean_is_target,
        "max_distance": lambda run, score: f"{score.max_distance:.6g}",
        "mean_gradients": lambda run, score: f"{score.mean_gradients:.6g}",
        "mean_other_forwards": lambda run, score: f"{score.mean_forwards - score.mean_gradients:.6g}",
        "num_cut": lambda run, score: score.num_cut,
        "cascade": lambda run, score: int(cascading([run])),
    }
    return table_of(columns, [(run, score) for run in runs for score in run.scores])


def _of_hits(score: Score, share: float | None) -> str | None:
    """A share of hits as a number; nothing where the attack has no target."""
    return None if score.num_hits is None else f"{share:.6f}"


def comparison_table(compared: PairOfRuns) -> Table:
    """The paired differences a - b per attack and read-out, in percentage points, with 95% intervals and exact p."""
    columns = {
        "Attack": lambda comparison, measure, counts: comparison.attack,
        "Steps": lambda comparison, measure, counts: f"{comparison.num_attack_steps:,}",
        "Measure": lambda comparison, measure, counts: measure,
        "Difference (points)": lambda comparison, measure, counts: points(counts.difference),
        "95% interval": lambda comparison, measure, counts: points_interval(counts.interval),
        "Only first": lambda comparison, measure, counts: f"{counts.only_a:,}",
        "Only second": lambda comparison, measure, counts: f"{counts.only_b:,}",
        "McNemar p": lambda comparison, measure, counts: p_text(counts.p_value),
    }
    return table_of(columns, measures(compared))


def measures(compared: PairOfRuns) -> list[tuple[Comparison, str, PairedCounts]]:
    """Of every comparison top-1, and success where the attack has a target."""
    return [
        (comparison, measure, counts)
        for comparison in compared.comparisons
        for measure, counts in (("top-1", comparison.top1), ("success", comparison.success))
        if counts is not None
    ]
