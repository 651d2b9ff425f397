"""docs/protocol.md defines every protocol number (M7, T13, E5, C1, X10, ...) that code, tests and documents cite."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "protocol.md"
NUMBER = r"[MTECX]\d{1,2}[ab]?"
ROWS = re.findall(rf"^\| ({NUMBER}) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
FOLDERS = ("src", "tests", "docs", "benchmarks")
READ = [
    *(path for folder in FOLDERS for end in ("py", "md") for path in (ROOT / folder).rglob(f"*.{end}") if path != PAGE),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
]
CITED = {number for path in READ for number in re.findall(rf"\b{NUMBER}\b", path.read_text(encoding="utf-8"))}


def test_every_cited_number_is_defined() -> None:
    assert CITED - {number for number, _ in ROWS} == set()


def test_no_number_is_defined_twice() -> None:
    assert [number for number, count in Counter(number for number, _ in ROWS).items() if count > 1] == []


def test_numbers_that_nobody_cites_are_marked_as_background() -> None:
    assert {number for number, text in ROWS if "background" in text} == {number for number, _ in ROWS} - CITED


@pytest.mark.parametrize(("number", "text"), ROWS, ids=[number for number, _ in ROWS])
def test_number_has_a_meaning_and_a_source(number: str, text: str) -> None:
    meaning, source, *rest = (cell.strip() for cell in text.split(" |"))
    sources = r"paper|FD|Mott|IBP|LLR|SPSA|NAE|Sonnet|timm|ART|inference|observation"
    assert meaning, number
    assert re.search(rf"\b(?:{sources})\b", source), f"{number}: {source!r}"
    assert len(rest) == (1 if number.startswith("X") else 2), number
    assert rest[0] or not number.startswith("X"), f"{number} does not say what shows the mistake"
