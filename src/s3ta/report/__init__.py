"""Reports from run folders: tables, figures and one self-contained HTML page. Reads records; never runs a model.

`runs` (reading), `stages` (worst cases over attacks), `pairs` (who may be compared), `words` (attacks in plain words),
`tables` (rows as data), `facts` (what is no result), `drawing` and `figures` (SVG), `gallery` (images and attention),
`calibration` (what confidence is worth), `trust` (what was checked), `twice` (one model measured twice), `verdict` (the
headline), `page` (the page), `summary` (for a terminal).
"""

from s3ta.report.calibration import calibration_table
from s3ta.report.load_runs import Run, evaluations_of, read_run, read_runs, unfinished
from s3ta.report.page import build_report
from s3ta.report.paper_tables import paper_section, write_paper_table
from s3ta.report.summary import findings_of, summary, trust_of, write_findings, write_table
from s3ta.report.tables import Table, comparison_table, full_table, summary_table

__all__ = [
    "Run",
    "Table",
    "build_report",
    "calibration_table",
    "comparison_table",
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
