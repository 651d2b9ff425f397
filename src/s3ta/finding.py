"""The one grammar of checks: a question with a name (`Check`), and what it answers (`Finding`): what was seen, what to do.

Three kinds of checks share it: of a model before it is measured (`evaluate/lint/`), of a model afterwards
(`evaluate/sanity_checks.py`), of attacks' settings and of records (`attack_settings_checks.py`, `records/checks.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from s3ta.external_code_errors import reason

TRUST_FILE = "trust.json"
"""In the folder of a ledger: what was found about its model before and after the attacks."""
SEVERITIES = ("error", "warning", "note", "unchecked", "passed")
"""Worst first."""
ALARMS = ("error", "warning")
"""What must stand at the top of a page."""
WORTH_TELLING = (*ALARMS, "note")
"""What a reader must be told; the rest was in order, or could not be checked."""


class Finding(NamedTuple):
    """One thing that a reader of the numbers must know, or one check that found nothing wrong."""

    kind: str
    """A stable name: `gradient masking`, `channel order`."""
    severity: str
    """`error`: not a number to use; `warning`: the number may be wrong; `note`: read it with this in mind; `passed`; or
    `unchecked`, with the reason in the sentence."""
    sentence: str
    """What was seen, with the numbers."""
    evidence: dict[str, Any] = {}  # noqa: RUF012 (a NamedTuple's default; nobody changes it)
    """The numbers by name, JSON."""
    advice: str = ""
    """What to do; empty where there is nothing to do."""

    @property
    def text(self) -> str:
        """Sentence and advice."""
        return f"{self.sentence} {self.advice}".strip()

    @property
    def line(self) -> str:
        """As a terminal shows it."""
        return f"{self.severity}: {self.kind}: {self.text}"


def parse_findings(source: str, listed: object) -> list[Finding]:
    """Findings of a source that were kept as JSON. Raises ValueError that says what is none."""
    if not isinstance(listed, list):
        raise ValueError(f"'{source}' is no list")
    findings = []
    for number, stored in enumerate(listed):
        is_sound = isinstance(stored, dict) and set(stored) <= set(Finding._fields)
        fields = {"kind": None, "severity": None, "sentence": None, "evidence": {}, "advice": ""}
        fields |= stored if is_sound else {}
        texts = all(isinstance(fields[name], str) for name in fields if name != "evidence")
        if not texts or not isinstance(fields["evidence"], dict) or fields["severity"] not in SEVERITIES:
            raise ValueError(f"entry {number} of '{source}' is no finding")
        findings.append(Finding(**fields))
    return findings


def worst_first(findings: list[Finding]) -> list[Finding]:
    """Of one severity in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


class Check(NamedTuple):
    """A question by its name. Whatever asks it answers with one of these, which are named by severity."""

    kind: str

    def error(self, sentence: str, evidence: dict[str, Any] | None = None, advice: str = "") -> Finding:
        return Finding(self.kind, "error", sentence, evidence or {}, advice)

    def warning(self, sentence: str, evidence: dict[str, Any] | None = None, advice: str = "") -> Finding:
        return Finding(self.kind, "warning", sentence, evidence or {}, advice)

    def note(self, sentence: str, evidence: dict[str, Any] | None = None, advice: str = "") -> Finding:
        return Finding(self.kind, "note", sentence, evidence or {}, advice)

    def unchecked(self, sentence: str, evidence: dict[str, Any] | None = None, advice: str = "") -> Finding:
        return Finding(self.kind, "unchecked", sentence, evidence or {}, advice)

    def passed(self, sentence: str, evidence: dict[str, Any] | None = None) -> Finding:
        return Finding(self.kind, "passed", sentence, evidence or {})

    def failed(self, why: str) -> Finding:
        """The check could not be made; the measured number stands."""
        return self.unchecked(f"The check could not be made: {why.rstrip('.')}.", {"raised": True})


def ask_all(questions: dict[str, Callable[[], Finding | list[Finding]]]) -> list[Finding]:
    """What the questions, by name, answer; where one fails, that: no check costs a result, nor another check's answer."""
    findings = list[Finding]()
    for kind, question in questions.items():
        try:
            answer = question()
        except Exception as error:  # noqa: BLE001 - whatever a foreign model raises, or a record lacks
            answer = Check(kind).failed(reason(error))
        findings += [answer] if isinstance(answer, Finding) else answer
    return findings
