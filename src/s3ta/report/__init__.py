"""Reports from run folders: tables, figures and one self-contained HTML page. Reads records; never runs a model.

`load_runs` (reading), `comparison` (who may be compared), `attack_text` (attacks in plain words), `tables` (rows as data),
`provenance` (what is no result), `svg` and `figures`, `gallery` (images and attention), `calibration` (what confidence is
worth), `checks` (what was checked), `repeat_agreement` (one model measured twice), `headline`, `page`, `paper_tables`,
`terminal_summary`.
"""

from s3ta.report.calibration import calibration_table
from s3ta.report.load_runs import Run, ledgers_of_run, read_run, read_runs, unfinished_lines
from s3ta.report.page import build_report
from s3ta.report.paper_tables import paper_section, write_paper_table
from s3ta.report.result_tables import Table, comparison_table, full_table, summary_table
from s3ta.report.terminal_summary import (
    all_findings_of,
    evaluation_table,
    findings_of,
    summary,
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
    "full_table",
    "ledgers_of_run",
    "paper_section",
    "read_run",
    "read_runs",
    "summary",
    "summary_table",
    "unfinished_lines",
    "write_findings",
    "write_paper_table",
    "write_table",
]
