"""Records of evaluations: one row per example x attack x restart x read-out, and the numbers made from them. No torch.

`schema` (what a record is), `ledger` (chunks in a folder), `manifest` (what was measured, with types), `metrics` (counts),
`cascade` (worst cases over attacks), `intervals` (how sure, and who differs), `calibration` (what confidence is worth),
`flips` (one model measured twice), `checks` (what the records tell of themselves).

    ledger = Ledger.read(folder)
    for score in scores(ledger.table()):
        low, high = wilson(score.num_correct, score.num_examples)
"""

from s3ta.finding import SEVERITIES, TRUST_FILE, Finding
from s3ta.records.calibration import (
    Bin,
    Calibration,
    RiskCoverage,
    calibration,
    calibration_of,
    clean_answers,
    reliability,
    risk_coverage,
)
from s3ta.records.cascade import Stage, stages
from s3ta.records.checks import check_records
from s3ta.records.checks_radius import implausible_settings
from s3ta.records.flips import Flip, flips
from s3ta.records.intervals import (
    Comparison,
    Interval,
    PairedCounts,
    breaks_more,
    mcnemar,
    pair,
    paired_difference,
    refuse_other_settings,
    wilson,
)
from s3ta.records.ledger import DRAWN, FORMAT, LISTED, Choice, Ledger, is_cascade, is_trial, manifest_differences
from s3ta.records.metrics import Outcome, Score, nested_scores, outcomes, scores
from s3ta.records.schema import BUDGET, CLEAN, NO_TARGET, RUN, SCHEMA, SETTLED, content_hash, to_table

__all__ = [
    "BUDGET",
    "CLEAN",
    "DRAWN",
    "FORMAT",
    "LISTED",
    "NO_TARGET",
    "RUN",
    "SCHEMA",
    "SETTLED",
    "SEVERITIES",
    "TRUST_FILE",
    "Bin",
    "Calibration",
    "Choice",
    "Comparison",
    "Finding",
    "Flip",
    "Interval",
    "Ledger",
    "Outcome",
    "PairedCounts",
    "RiskCoverage",
    "Score",
    "Stage",
    "breaks_more",
    "calibration",
    "calibration_of",
    "check_records",
    "clean_answers",
    "content_hash",
    "flips",
    "implausible_settings",
    "is_cascade",
    "is_trial",
    "manifest_differences",
    "mcnemar",
    "nested_scores",
    "outcomes",
    "pair",
    "paired_difference",
    "refuse_other_settings",
    "reliability",
    "risk_coverage",
    "scores",
    "stages",
    "to_table",
    "wilson",
]
