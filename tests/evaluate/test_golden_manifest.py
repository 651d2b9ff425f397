"""The manifest of one small evaluation, key by key: what identifies a ledger does not change unnoticed.

Write it anew with `.venv/bin/python -m tests.evaluate.test_golden_manifest`, and say so in the change log."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from s3ta.attacks import SPSA, AdamConfig, BoxRegion, PGDConfig
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, evaluate
from tests.evaluate.small import ignore
from tests.evaluate.toys import SETTINGS, ByPixel, by_pixel

GOLDEN = Path(__file__).parent / "golden" / "manifest.json"
SUITE = Suite(
    name="golden",
    description="one attack of each kind",
    attacks=(
        NamedAttack(name="pgd", attack=PGDConfig(num_attack_steps=2, read_outs=(1,), mask=BoxRegion(row=0.25))),
        NamedAttack(name="adam", attack=AdamConfig(num_attack_steps=1, norm="l2")),
        NamedAttack(name="spsa", attack=PGDConfig(num_attack_steps=1, gradient=SPSA(num_directions=2, micro_batch=4))),
    ),
)


def manifest(folder: Path) -> dict[str, Any]:
    """Without what differs from machine to machine."""
    ledger = evaluate(
        EvaluationTask(ByPixel(3), by_pixel([0, 1, 2, 0], [0, 1, 2, 1], 3), SUITE, range(4), SETTINGS), folder, ignore
    )
    written = json.loads((ledger.folder / "manifest.json").read_text())
    for name in ("versions", "hardware", "memory", "python"):
        assert written["informative"].pop(name)
    return written


def test_the_manifest_is_the_golden_one(tmp_path: Path) -> None:
    written, golden = manifest(tmp_path), json.loads(GOLDEN.read_text())
    answers, expected = (each["informative"].pop("answers") for each in (written, golden))
    assert answers == pytest.approx(expected, rel=1e-5)  # processors differ in last bits
    assert written == golden


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        GOLDEN.write_text(json.dumps(manifest(Path(made)), indent=1, sort_keys=True) + "\n")
