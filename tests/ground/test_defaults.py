"""Declared defaults are part of what old runs and ledgers are: one that changes makes other numbers of the same command."""

import importlib
import json
import pkgutil
from pathlib import Path

from pydantic_core import to_jsonable_python

import s3ta
from s3ta.config import Config
from s3ta.models import ExecutionMode

GOLDEN = Path(__file__).parent / "defaults.json"
RENEW = "If that is meant: .venv/bin/python -m tests.ground.test_defaults, and a line under `Numbers changed` in CHANGELOG.md"


def _config_classes() -> list[type[Config]]:
    for module in pkgutil.walk_packages(s3ta.__path__, "s3ta."):
        if module.name != "s3ta.__main__":
            importlib.import_module(module.name)
    classes, waiting = [], [Config]
    while waiting:
        subclasses = [each for each in waiting.pop().__subclasses__() if each.__module__.startswith("s3ta.")]
        classes += subclasses
        waiting += subclasses
    return sorted(classes, key=lambda each: each.__name__)


def declared() -> dict[str, dict[str, object]]:
    """By class, every setting with its default as a JSON value, and which settings make no other experiment."""
    defaults: dict[str, dict[str, object]] = {"ExecutionMode": dict(ExecutionMode._field_defaults)}
    for each in _config_classes():
        assert each.__name__ not in defaults, f"there are two configs called {each.__name__}"
        defaults[each.__name__] = {
            name: "required"
            if field.is_required()
            else to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}))
            for name, field in each.model_fields.items()
        }
        if each.OUTSIDE_IDENTITY:
            defaults[each.__name__]["(outside identity)"] = sorted(each.OUTSIDE_IDENTITY)
    return defaults


def test_every_declared_default_is_the_frozen_one():
    now, frozen = declared(), json.loads(GOLDEN.read_text())
    changed = {
        f"{name}.{field}": f"{frozen.get(name, {}).get(field, 'absent')} -> {now.get(name, {}).get(field, 'absent')}"
        for name in now | frozen
        for field in now.get(name, {}) | frozen.get(name, {})
        if now.get(name, {}).get(field, "absent") != frozen.get(name, {}).get(field, "absent")
    }
    assert not changed, f"{changed}. {RENEW}"


def test_what_is_outside_of_the_identity_exists():
    for each in _config_classes():
        assert each.model_fields.keys() >= each.OUTSIDE_IDENTITY, each.__name__


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(declared(), indent=1) + "\n")
