"""Reports from run folders: tables, figures and one self-contained HTML page. Reads records; never runs a model.

`load_runs` (reading), `comparability` (who may be compared), `attack_text` (attacks in plain words), `result_tables` (rows as
data), `experimental_setup` (what is no result), `matplotlib_svg` and `figures`, `gallery` (images and attention), `calibration`
(what confidence is worth), `checks` (what was checked), `numerical_reproducibility` (one model measured twice), `winner`,
`page`, `paper_tables`, `terminal_summary`.
"""

from s3ta.report.calibration import calibration_table
from s3ta.report.load_runs import Run, ledgers_of_run, read_run, read_runs, unfinished_lines
from s3ta.report.page import build_report
from s3ta.report.paper_tables import paper_section, write_paper_table
from s3ta.report.result_tables import Table, comparison_table, read_out_numbers_table, runs_summary_table
from s3ta.report.terminal_summary import (
    all_findings_of,
    evaluation_table,
    findings_of,
    runs_summary,
    write_findings,
    write_table,
)

__all__ = [
    "Run",
    "Table",
    "all_findings_of",
    "build_report",
    "calibration_table",
    "comparison_table",
    "evaluation_table",
    "findings_of",
    "ledgers_of_run",
    "paper_section",
    "read_out_numbers_table",
    "read_run",
    "read_runs",
    "runs_summary",
    "runs_summary_table",
    "unfinished_lines",
    "write_findings",
    "write_paper_table",
    "write_table",
]
