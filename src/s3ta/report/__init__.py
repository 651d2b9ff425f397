"""Reports from run folders: tables, figures and one self-contained HTML page. Reads records; never runs a model.

`load_runs` (reading), `comparison` (who may be compared), `attack_text` (attacks in plain words), `tables` (rows as data),
`provenance` (what is no result), `svg` and `figures`, `gallery` (images and attention), `calibration` (what confidence is
worth), `checks` (what was checked), `reproducibility` (one model measured twice), `headline`, `page`, `summary` (terminal).
"""

from s3ta.report.calibration import calibration_table
from s3ta.report.load_runs import Run, evaluations_of, read_run, read_runs, unfinished
from s3ta.report.page import build_report
from s3ta.report.paper_tables import paper_section, write_paper_table
from s3ta.report.summary import evaluation_table, findings_of, summary, trust_of, write_findings, write_table
from s3ta.report.tables import Table, comparison_table, full_table, summary_table

__all__ = [
    "Run",
    "Table",
    "build_report",
    "calibration_table",
    "comparison_table",
    "evaluation_table",
    "evaluations_of",
    "findings_of",
    "full_table",
    "paper_section",
    "read_run",
    "read_runs",
    "summary",
    "summary_table",
    "trust_of",
    "unfinished",
    "write_findings",
    "write_paper_table",
    "write_table",
]
