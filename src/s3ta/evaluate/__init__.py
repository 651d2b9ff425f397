"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from s3ta.evaluate.exact import exact_arithmetic
from s3ta.evaluate.plan import Settings, choose_examples, plan, total_gradients
from s3ta.evaluate.runner import KEPT, evaluate, open_ledger, seconds_per_gradient
from s3ta.evaluate.suites import SUITES, NamedAttack, Suite, get_suite, tiny_suite

__all__ = [
    "KEPT",
    "SUITES",
    "NamedAttack",
    "Settings",
    "Suite",
    "choose_examples",
    "evaluate",
    "exact_arithmetic",
    "get_suite",
    "open_ledger",
    "plan",
    "seconds_per_gradient",
    "tiny_suite",
    "total_gradients",
]
