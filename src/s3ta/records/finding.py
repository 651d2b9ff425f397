"""One finding about a measurement: what was seen, the numbers, what to do."""

from __future__ import annotations

from typing import Any, NamedTuple

TRUST_FILE = "trust.json"
"""In the folder of a ledger: what was found about its model before and after the attacks."""
SEVERITIES = ("error", "warning", "note", "unchecked", "passed")
"""Worst first."""


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
    def told(self) -> str:
        """Sentence and advice."""
        return f"{self.sentence} {self.advice}".strip()
