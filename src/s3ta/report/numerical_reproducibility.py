"""The same model measured twice, on another device or in another precision: how many verdicts depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from s3ta.records import CLEAN, PredictionFlips, compare_predictions, manifest_differences
from s3ta.records.ledger import measured_differences
from s3ta.records.manifest import ModelEntry, model_config_as_today
from s3ta.report.comparability import shared_attacks
from s3ta.report.load_runs import Run
from s3ta.report.result_tables import Table, rate, table_of

_SAME_MEASUREMENT = {"model", "data", "suite", "num_chunks"}

_QUOTE = '"'


class Twice(NamedTuple):
    """Two runs with the same weights."""

    title: str
    sentences: list[str]
    warning: str
    """What makes the comparison void; empty where nothing does."""
    table: Table


def measured_twice(runs: Sequence[Run]) -> list[Twice]:
    """Every two runs of one model: the same weights and the same settings of the model around them."""
    return [_twice(a, b) for a, b in combinations(runs, 2) if _is_one_model(a.manifest.model, b.manifest.model)]


def _is_one_model(a: ModelEntry, b: ModelEntry) -> bool:
    configs = ({"model": {"config": model_config_as_today(model.config.raw)}} for model in (a, b))
    return bool(a.sha256) and a.sha256 == b.sha256 and not measured_differences(*configs)


def _twice(a: Run, b: Run) -> Twice:
    met = {CLEAN, *shared_attacks(a, b)}
    differences = [flip for flip in compare_predictions(a.table, b.table) if flip.attack in met]
    num_flipped = sum(len(flip.flipped) for flip in differences)
    num_common = sum(flip.num_common for flip in differences)
    num_predictions = sum(flip.num_predictions for flip in differences)
    largest = max((flip.largest_loss_difference for flip in differences), default=0)
    images = set(a.table["example_id"].to_pylist()) & set(b.table["example_id"].to_pylist())
    unsteady = {example_id for flip in differences for example_id in flip.flipped}
    unlike = {example_id for flip in differences for example_id in flip.unlike}
    sentences = [
        f"What differs between the two measurements: {_settings(a, b) or 'nothing that is recorded'}.",
        f"{num_flipped:,} of {num_common:,} verdicts differ, and {num_predictions:,} predictions; the largest difference of a "
        f"loss is {largest:.2g} nats.",
    ]
    if images:
        share = rate(len(unsteady), len(images))
        sentences.append(f"{len(unsteady):,} of {len(images):,} images have a verdict that differs: {share}.")
    alone = sum(flip.num_only_a + flip.num_only_b for flip in differences)
    if alone:
        sentences.append(
            f"{alone:,} records are in only one of them: an attack that one had no need of after an earlier verdict, or an "
            "unfinished evaluation."
        )
    warning = ""
    if unlike:
        warning = (
            f"Labels or targets differ on {len(unlike):,} images, such as {min(unlike)}: these are two measurements."
        )
    return Twice(f"{a.label} and {b.label}", sentences, warning, _table(differences))


def _settings(a: Run, b: Run) -> str:
    settings = [manifest.raw | manifest.informative.raw for manifest in (a.manifest, b.manifest)]
    first, second = ({key: value for key, value in each.items() if key not in _SAME_MEASUREMENT} for each in settings)
    return ", ".join(
        f"{name} {before.strip(_QUOTE)} and {after.strip(_QUOTE)}"
        for name, before, after in manifest_differences(first, second)
    )


def _table(differences: Sequence[PredictionFlips]) -> Table:
    columns = {
        "Attack": lambda flip: flip.attack,
        "Steps": lambda flip: f"{flip.num_attack_steps:,}",
        "Start": lambda flip: f"{flip.restart + 1:,}",
        "In both": lambda flip: f"{flip.num_common:,}",
        "Verdicts that differ (95% interval)": lambda flip: (
            f"{len(flip.flipped):,}: {rate(len(flip.flipped), flip.num_common)}" if flip.num_common else "–"
        ),
        "Hits that differ": lambda flip: f"{flip.num_hits:,}",
        "Predictions that differ": lambda flip: f"{flip.num_predictions:,}",
        "Largest difference of a loss": lambda flip: f"{flip.largest_loss_difference:.2g}",
        "In only one": lambda flip: f"{flip.num_only_a + flip.num_only_b:,}",
    }
    return table_of(columns, zip(differences))
