"""Models whose gradients say nothing: another attack gets through, and the evaluation says so. Honest models: no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from s3ta.attacks import SPSA, AutoAttackComponentConfig, PGDConfig
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, evaluate
from s3ta.models import from_pretrained, save_pretrained
from s3ta.records import Ledger, check_records, count_scores
from tests.evaluate.small import ignore
from tests.evaluate.toys import RADIUS, SETTINGS, Templates, blobs, quantised, rippled

COUNT = 24


def plain(**changes) -> PGDConfig:
    return PGDConfig(
        **{"objective": "untargeted", "radius": RADIUS, "step_size": RADIUS / 4, "num_attack_steps": 20, **changes}
    )


ATTACKS = {
    "pgd": plain(),
    "margin": plain(loss="margin"),
    "spsa": plain(
        loss="margin",
        step_size=RADIUS / 2,
        num_attack_steps=5,
        keep="best",
        gradient=SPSA(num_directions=96, delta=0.06, micro_batch=5000),
    ),
    "square": AutoAttackComponentConfig(part="square", radius=RADIUS, num_attack_steps=300),
}


def attacked(model, folder: Path, *names: str, cascade: bool = False) -> Ledger:
    pytest.importorskip("pyautoattack")
    named = tuple(NamedAttack(name=name, attack=ATTACKS[name]) for name in names)
    suite = Suite(name="masking", description="d", attacks=named, cascade=cascade)
    torch.manual_seed(4)  # for the model that draws from it
    return evaluate(
        EvaluationTask(model, blobs(COUNT), suite, range(COUNT), SETTINGS._replace(batch_size=24)), folder, ignore
    )


def tops(ledger: Ledger) -> dict[str, int]:
    return {score.attack: score.num_correct for score in count_scores(ledger.table())}


def alarms(ledger: Ledger) -> list[str]:
    """The attacks that are said to see through masked gradients."""
    found = [f for f in check_records(ledger.table(), ledger.typed_manifest) if f.kind == "gradient masking"]
    assert all(finding.severity == "warning" for finding in found)
    return [name for name in ATTACKS for f in found if f.sentence.startswith(f"Gradients seem to be masked: '{name}'")]


def test_an_honest_model_raises_no_alarm(tmp_path: Path) -> None:
    ledger = attacked(Templates(), tmp_path, "pgd", "margin", "spsa", "square")
    assert tops(ledger)["clean"] == COUNT
    assert tops(ledger)["pgd"] <= 2, "sign PGD alone breaks it"
    assert alarms(ledger) == []


def test_a_saturated_model_is_unmasked(learned, tmp_path: Path) -> None:
    """A trained network from a folder, last layer times 10,000: the cross-entropy is zero, and so is its gradient."""
    pytest.importorskip("pyautoattack")
    save_pretrained(learned, tmp_path / "model")
    model = from_pretrained(tmp_path / "model")
    honest = attacked(model, tmp_path / "honest", "pgd", "margin")
    with torch.no_grad():
        model.classifier.weight.mul_(1e4)
        model.classifier.bias.mul_(1e4)
    save_pretrained(model, tmp_path / "saturated")
    masked = attacked(from_pretrained(tmp_path / "saturated"), tmp_path / "masked", "pgd", "margin", "square")
    assert tops(masked)["clean"] == tops(honest)["clean"] >= COUNT - 1
    assert tops(honest)["pgd"] <= 4
    assert alarms(honest) == []
    assert tops(masked)["pgd"] >= COUNT - 4, "looks robust"
    assert tops(masked)["margin"] <= 4, "and is not"
    assert "margin" in alarms(masked)


def test_a_quantised_model_is_unmasked(tmp_path: Path) -> None:
    """Rounding inside the model has no gradient at all, not even for the margin; attacks that use none get through."""
    ledger = attacked(Templates(defence=quantised), tmp_path, "pgd", "margin", "spsa", "square")
    found = tops(ledger)
    assert min(found["clean"], found["pgd"], found["margin"]) >= COUNT - 4
    assert found["square"] <= 8
    assert found["spsa"] <= 8
    assert alarms(ledger) == ["spsa", "square"]


def test_a_randomised_model_is_unmasked(tmp_path: Path) -> None:
    ledger = attacked(Templates(defence=rippled), tmp_path, "pgd", "spsa", "square")
    found = tops(ledger)
    assert found["clean"] >= COUNT - 1
    assert found["pgd"] >= 14
    assert found["spsa"] <= 4
    assert "spsa" in alarms(ledger)


def test_square_at_the_end_of_a_cascade_gives_a_masked_model_away(tmp_path: Path) -> None:
    masked = attacked(Templates(defence=quantised), tmp_path / "masked", "pgd", "margin", "square", cascade=True)
    (told,) = [one for one in check_records(masked.table(), masked.typed_manifest) if one.kind == "gradient masking"]
    assert "'square', which uses none, breaks" in told.sentence
    honest = attacked(Templates(), tmp_path / "honest", "pgd", "margin", "square", cascade=True)
    assert not [
        one for one in check_records(honest.table(), honest.typed_manifest) if one.severity in ("error", "warning")
    ]
