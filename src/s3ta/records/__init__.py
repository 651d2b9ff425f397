"""Records of evaluations: one row per example x attack x restart x read-out, and the numbers made from them. No torch.

`schema` (what a record is), `ledger` (chunks in a folder), `manifest` (what was measured, with types), `metrics` (counts),
`cascade` (worst cases over attacks), `intervals` (how sure, and who differs), `calibration` (what confidence is worth),
`compare_predictions` (one model measured twice), `checks` (what the records tell of themselves).

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
    reliability_bins,
    risk_coverage,
)
from s3ta.records.cascade import CascadeStage, cascade_stages
from s3ta.records.checks import check_records
from s3ta.records.checks_perturbation_size import check_attack_settings
from s3ta.records.ledger import DRAWN, LEDGER_FORMAT, LISTED, Choice, Ledger, is_tiny_suite, manifest_differences
from s3ta.records.metrics import Outcome, Score, count_scores, reduce_restarts, scores_by_restarts
from s3ta.records.prediction_flips import PredictionFlips, compare_predictions
from s3ta.records.proportion_statistics import (
    Comparison,
    Interval,
    PairedCounts,
    compare_paired,
    is_significantly_stronger,
    mcnemar,
    paired_difference,
    refuse_different_settings,
    wilson,
)
from s3ta.records.schema import (
    CLEAN,
    NO_TARGET,
    SCHEMA,
    STATUS_OVER_BUDGET,
    STATUS_RUN,
    STATUS_SETTLED,
    content_hash,
    to_table,
)

__all__ = [
    "CLEAN",
    "DRAWN",
    "LEDGER_FORMAT",
    "LISTED",
    "NO_TARGET",
    "SCHEMA",
    "SEVERITIES",
    "STATUS_OVER_BUDGET",
    "STATUS_RUN",
    "STATUS_SETTLED",
    "TRUST_FILE",
    "Calibration",
    "CascadeStage",
    "Choice",
    "Comparison",
    "ConfidenceBin",
    "Finding",
    "Interval",
    "Ledger",
    "Outcome",
    "PairedCounts",
    "PredictionFlips",
    "RiskCoverage",
    "Score",
    "calibration",
    "calibration_of",
    "cascade_stages",
    "check_attack_settings",
    "check_records",
    "clean_confidences",
    "compare_paired",
    "compare_predictions",
    "content_hash",
    "count_scores",
    "is_significantly_stronger",
    "is_tiny_suite",
    "manifest_differences",
    "mcnemar",
    "paired_difference",
    "reduce_restarts",
    "refuse_different_settings",
    "reliability_bins",
    "risk_coverage",
    "scores_by_restarts",
    "to_table",
    "wilson",
]
