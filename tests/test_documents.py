"""The documents name files that exist, and their drawings are those of the import contract and of an evaluation."""

from __future__ import annotations

import re
import runpy
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SVG = "{http://www.w3.org/2000/svg}"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
SCRIPTS = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for name in ("src", "tests", "benchmarks", "docs")
    for path in (ROOT / name).rglob("*.py")
]
ELSEWHERE = {"my_models.py", "autopgd_base.py", "square.py", "src/s3ta/recipes/DATASET.py"}
"""What a reader writes, files of AutoAttack's authors, and a pattern."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_documents_name_exist(page: Path) -> None:
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8"))) - ELSEWHERE
    assert [name for name in sorted(named) if not any(script.endswith(f"/{name}") for script in SCRIPTS)] == []


def test_readme_is_short_and_shows_a_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert "](docs/attention.svg)" in text


def test_plan_is_drawn_from_the_import_contract() -> None:
    drawn = runpy.run_path(str(DOCS / "draw_plan.py"))["draw"]((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (DOCS / "plan.svg").read_text(encoding="utf-8") == drawn, "draw it again: python docs/draw_plan.py"


def test_plan_says_what_every_room_is_for() -> None:
    texts = [text.text for text in ElementTree.parse(DOCS / "plan.svg").iter(f"{SVG}text")]
    assert not [name for name, words in pairwise(texts) if name and not words]
    assert {"cli", "workflow", "train", "models", "data"} <= set(texts)


def test_drawings_are_small_and_need_no_other_address() -> None:
    for name in ("plan.svg", "attention.svg"):
        text = (DOCS / name).read_text(encoding="utf-8")
        assert len(text) < 150_000
        assert set(re.findall(r'https?://[^"\s]+', text)) == {"http://www.w3.org/2000/svg"}
        assert "prefers-color-scheme: dark" in text


def test_attention_is_drawn_with_a_tile_and_an_answer_per_glimpse() -> None:
    draws = np.random.default_rng(0)
    maps = draws.dirichlet(np.ones(9), (3, 2, 4)).reshape(3, 2, 4, 3, 3)
    sure = np.eye(5)[[[4, 1], [4, 1], [4, 1]]]
    gallery = {"labels": np.array([0, 1])}
    for kind in ("clean", "adversarial"):
        gallery |= {
            kind: draws.random((2, 1, 12, 12)),
            f"attention_{kind}": maps,
            f"glimpse_probabilities_{kind}": sure,
        }
    drawn = runpy.run_path(str(DOCS / "draw_attention.py"))["draw"](gallery, 1, list("abcde"), 0.1)
    tree = ElementTree.fromstring(drawn)
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert [text for text in texts if text and "%" in text][:6] == ["✓ b · 100%"] * 6
    kinds = [image.get("class") for image in tree.iter(f"{SVG}image")]
    assert [kinds.count(kind) for kind in ("pixels", "pixels dim", "heat")] == [2, 6, 6]
