"""Manifests with types: whole ones, those of strangers and of other versions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from s3ta.errors import UserError
from s3ta.evaluate import SUITES, Suite, suite_manifest
from s3ta.files import read_json
from s3ta.records.manifest import AttackSettings, Manifest, RecipeEntry

OLD = sorted(Path(__file__).parents[1].glob("old/*/finished/evaluations/*/manifest.json"))


def read(**changes: Any) -> Manifest:
    return Manifest.read(read_json(OLD[0]) | changes, Path("folder"))


@pytest.mark.parametrize("path", OLD, ids=lambda path: f"{path.parts[-5]}-{path.parts[-2]}")
def test_manifests_of_older_versions_read(path):
    raw = read_json(path)
    manifest = Manifest.read(raw, path.parent)
    assert manifest.raw == raw
    assert (manifest.model.sha256, manifest.num_chunks) == (raw["model"]["sha256"], raw["num_chunks"])
    assert [attack.raw for attack in manifest.suite.attacks] == raw["suite"]["attacks"]
    assert manifest.informative.versions == raw["informative"]["versions"]


@pytest.mark.parametrize("suite", [make() for make in SUITES.values()], ids=lambda suite: suite.name)
def test_every_setting_of_a_suite_is_read_as_it_is(suite: Suite):
    manifest = read(suite=suite_manifest(suite))
    for attack, entry in zip(suite.attacks, manifest.suite.attacks, strict=True):
        config, fields = attack.attack.model_dump(mode="json"), AttackSettings.model_fields
        known = {name for name in config if name in fields and name not in ("mask", "gradient", "steering", "attack")}
        assert {name: getattr(entry, name) for name in known} == {name: config[name] for name in known}
        assert entry.objective == attack.attack.objective


def test_unknown_keys_are_kept():
    manifest = read(weather={"sun": True})
    assert manifest.raw["weather"] == {"sun": True}
    assert manifest.model_extra is not None
    assert manifest.model_extra["weather"] == {"sun": True}


def test_what_does_not_fit_its_type_reads_as_not_said():
    suite = {"attacks": [{"name": "a", "radius": "8/255", "mask": 3, "num_restarts": None}], "cascade": "yes"}
    manifest = read(seed="seven", budget=True, suite=suite, informative=[])
    (attack,) = manifest.suite.attacks
    assert (attack.radius, attack.mask, attack.num_restarts) == (None, None, 1)
    assert (manifest.seed, manifest.budget, manifest.suite.cascade, manifest.informative.versions) == (
        None,
        None,
        False,
        {},
    )


@pytest.mark.parametrize(
    "changes",
    [{"model": "net"}, {"data": None}, {"suite": {}}, {"suite": {"attacks": [{}]}}, {"suite": {"attacks": [3]}}],
)
def test_a_manifest_that_does_not_name_what_was_measured_is_damaged(changes):
    with pytest.raises(UserError, match="manifest of folder is damaged: it does not name its model, data and attacks"):
        read(**changes)


def test_a_transfer_was_made_with_the_settings_on_the_other_model():
    inner = {"kind": "pgd", "radius": 0.5, "norm": "l2"}
    assert AttackSettings.model_validate({"kind": "transfer", "attack": inner}).made_with.norm == "l2"
    plain = AttackSettings.model_validate(inner)
    assert plain.made_with is plain


def test_reading_changes_nothing_of_what_is_read():
    raw = read_json(OLD[0])
    before = copy.deepcopy(raw)
    assert Manifest.read(raw, Path("folder")).raw is raw
    assert raw == before


def test_one_departure_is_a_list_of_one():
    assert RecipeEntry.model_validate({"departures": "the optimizer"}).departures == ["the optimizer"]
