"""Records of evaluations: one row per example x attack x restart x read-out, and the numbers made from them. No torch.

`schema` (what a record is), `ledger` (chunks in a folder), `manifest` (what was measured, with types), `metrics` (counts),
`cascade` (worst cases over attacks), `intervals` (how sure, and who differs), `calibration` (what confidence is worth),
`find_flips` (one model measured twice), `checks` (what the records tell of themselves).

    ledger = Ledger.read(folder)
    for score in scores(ledger.table()):
        low, high = wilson(score.num_correct, score.num_examples)
"""

from s3ta.finding import SEVERITIES, TRUST_FILE, Finding
from s3ta.records.calibration import (
    Calibration,
    ConfidenceBin,
    RiskCoverage,
    calibration,
    calibration_of,
    clean_confidences,
    reliability,
    risk_coverage,
)
from s3ta.records.cascade import Stage, stages
from s3ta.records.checks import check_records
from s3ta.records.checks_perturbation_size import check_attack_settings
from s3ta.records.ledger import DRAWN, FORMAT, LISTED, Choice, Ledger, is_trial, manifest_differences
from s3ta.records.metrics import Outcome, Score, count_scores, reduce_restarts, scores_by_restarts
from s3ta.records.prediction_flips import Flip, find_flips
from s3ta.records.proportion_statistics import (
    Comparison,
    Interval,
    PairedCounts,
    breaks_more,
    compare_paired,
    mcnemar,
    paired_difference,
    refuse_unlike_settings,
    wilson,
)
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
    "Calibration",
    "Choice",
    "Comparison",
    "ConfidenceBin",
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
    "check_attack_settings",
    "check_records",
    "clean_confidences",
    "compare_paired",
    "content_hash",
    "count_scores",
    "find_flips",
    "is_trial",
    "manifest_differences",
    "mcnemar",
    "paired_difference",
    "reduce_restarts",
    "refuse_unlike_settings",
    "reliability",
    "risk_coverage",
    "scores_by_restarts",
    "stages",
    "to_table",
    "wilson",
]
