"""Reports from run folders: tables, figures and one self-contained HTML page. Reads records; never runs a model.

`runs` (reading), `tables` (rows as data), `figures` (SVG), `gallery` (images and attention), `verdict` (the headline),
`page` (the page).
"""

from s3ta.report.page import build_report
from s3ta.report.runs import Run, evaluations_of, read_run, read_runs
from s3ta.report.summary import summary, write_table
from s3ta.report.tables import Table, comparison_table, full_table, summary_table

__all__ = [
    "Run",
    "Table",
    "build_report",
    "comparison_table",
    "evaluations_of",
    "full_table",
    "read_run",
    "read_runs",
    "summary",
    "summary_table",
    "write_table",
]
