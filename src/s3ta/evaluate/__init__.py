"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from s3ta.evaluate.plan import Settings, choose_examples, plan, suite_identity, total_gradients, total_passes
from s3ta.evaluate.runner import KEPT_FILE, evaluate, open_ledger, seconds_per_gradient
from s3ta.evaluate.suites import SUITES, NamedAttack, Suite, changed_suite, get_suite, tiny_suite

__all__ = [
    "KEPT_FILE",
    "SUITES",
    "NamedAttack",
    "Settings",
    "Suite",
    "changed_suite",
    "choose_examples",
    "evaluate",
    "get_suite",
    "open_ledger",
    "plan",
    "seconds_per_gradient",
    "suite_identity",
    "tiny_suite",
    "total_gradients",
    "total_passes",
]
