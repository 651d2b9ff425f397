"""Why a number may be trusted, or not: what was checked before, during and after an evaluation.

`trust.json` in the ledger's folder holds what was found about the model before the attacks (`lint`) and by small experiments
on it (`probes`); what the records say of themselves is computed afresh.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from s3ta.errors import UserError
from s3ta.files import read_json
from s3ta.finding import ALARMS, SEVERITIES, TRUST_FILE, WORTH_TELLING, Finding, parse_findings, worst_first
from s3ta.records import check_records
from s3ta.records.manifest import Manifest
from s3ta.report.attack_text import number

SOURCES = {
    "lint": "the model, before the attacks",
    "probes": "the model, by small experiments",
    "records": "the records",
}
_MOST = 6
"""So many entries of a list are shown as evidence."""


class Trust(NamedTuple):
    """The findings of one evaluation, by where they come from; None: not checked."""

    lint: list[Finding] | None
    probes: list[Finding] | None
    records: list[Finding]

    @property
    def findings(self) -> list[Finding]:
        """All, worst first."""
        return worst_first([*(self.lint or []), *(self.probes or []), *self.records])

    def each_once(self) -> Trust:
        """Each question once: what the records answer, on all examples, replaces what the model answered under the same name
        on a few, but for an alarm of the experiments."""
        answered = {finding.kind for finding in self.records if finding.severity != "unchecked"}
        lint = self.lint and [finding for finding in self.lint if finding.kind not in answered]
        probes = self.probes and [
            probe for probe in self.probes if probe.kind not in answered or probe.severity in ALARMS
        ]
        return Trust(lint, probes, self.records)

    def as_json(self) -> dict[str, Any]:
        """The findings as `trust.json` holds them; null: not checked."""
        return {
            source: None if findings is None else [finding._asdict() for finding in findings]
            for source, findings in self._asdict().items()
        }


class Item(NamedTuple):
    """One finding as the page shows it: texts."""

    kind: str
    severity: str
    sentence: str
    advice: str
    evidence: str
    source: str
    about: str = ""
    """The runs that it is about; empty where it is about all."""


class Checks(NamedTuple):
    """What the page says of all evaluations together: each finding once, with the runs that it is about."""

    counts: list[tuple[str, str, str]]
    """Per run its name, how many findings of each severity it has, and what was not checked at all."""
    worth_telling: list[Item]
    """Errors, warnings and notes, worst first."""
    unchecked: list[Item]
    passed: list[Item]

    @property
    def alarms(self) -> list[Item]:
        """Errors and warnings."""
        return [item for item in self.worth_telling if item.severity in ALARMS]


def read_trust(folder: Path, table: pa.Table, manifest: Manifest) -> Trust:
    """The findings about a ledger. Without a `trust.json`, only what the records show.

    Raises UserError where that file is damaged, and as `records.check_records`."""
    path = folder / TRUST_FILE
    stored = read_json(path) if path.exists() else {}
    try:
        if not isinstance(stored, dict):
            raise ValueError("it does not hold findings by their source")
        lint, probes = (
            None if stored.get(source) is None else parse_findings(source, stored[source])
            for source in ("lint", "probes")
        )
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}. Remove it and run `s3ta evaluate` again.") from error
    return Trust(lint, probes, check_records(table, manifest, probes or ()))


def checks(trusts: Sequence[tuple[str, Trust]]) -> Checks:
    """What the page says of the evaluations, given by the names of the runs."""
    about: dict[Item, dict[str, None]] = {}
    counts = []
    for label, every_answer in trusts:
        trust = every_answer.each_once()
        parts: dict[str, list[Finding] | None] = trust._asdict()
        missing = [SOURCES[source] for source, findings in parts.items() if findings is None]
        counts.append((label, counts_text(trust.findings), "; ".join(missing)))
        for source, findings in parts.items():
            for kind, severity, sentence, evidence, advice in findings or []:
                item = Item(kind, severity, sentence, advice, evidence_text(evidence), SOURCES[source])
                about.setdefault(item, {})[label] = None
    every = {label for label, _ in trusts}
    items = [item._replace(about="" if labels.keys() == every else ", ".join(labels)) for item, labels in about.items()]
    items.sort(key=lambda item: SEVERITIES.index(item.severity))
    worth_telling, unchecked, passed = (
        [item for item in items if item.severity in group] for group in (WORTH_TELLING, ("unchecked",), ("passed",))
    )
    return Checks(counts, worth_telling, unchecked, passed)


def counts_text(findings: Iterable[Finding]) -> str:
    """`1 error, 2 warnings, 9 checks passed`; `nothing found` where there is nothing."""
    names = {"unchecked": ("check not possible", "checks not possible"), "passed": ("check passed", "checks passed")}
    counts = Counter(finding.severity for finding in findings)
    parts = [number(counts[each], *names.get(each, (each,))) for each in SEVERITIES if counts[each]]
    return ", ".join(parts) or "nothing found"


def evidence_text(evidence: dict[str, Any]) -> str:
    """`num_examples 500 · largest 0.031`: long lists are cut."""
    return " · ".join(f"{name} {_value_text(value)}" for name, value in evidence.items())


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        more = f", … ({len(value):,} in all)" if len(value) > _MOST else ""
        return ", ".join(map(_value_text, value[:_MOST])) + more
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_value_text(inner)}" for name, inner in value.items()) + ")"
    return value if isinstance(value, str) else json.dumps(value)
