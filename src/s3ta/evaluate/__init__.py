"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from s3ta.evaluate.catalogue import ATTACKS, Situation, get_attack
from s3ta.evaluate.kept import KEPT_FILE, KeptImages
from s3ta.evaluate.plan import Settings, choose_examples, pieces, stages, suite_identity, total
from s3ta.evaluate.runner import evaluate, open_ledger, pace
from s3ta.evaluate.search import Search
from s3ta.evaluate.suites import (
    SUITES,
    SUITES_AT,
    NamedAttack,
    Suite,
    TransferConfig,
    get_suite,
    misfit,
    suite_of,
    transfer_suite,
)
from s3ta.evaluate.variants import changed_suite, tiny_suite

__all__ = [
    "ATTACKS",
    "KEPT_FILE",
    "SUITES",
    "SUITES_AT",
    "KeptImages",
    "NamedAttack",
    "Search",
    "Settings",
    "Situation",
    "Suite",
    "TransferConfig",
    "changed_suite",
    "choose_examples",
    "evaluate",
    "get_attack",
    "get_suite",
    "misfit",
    "open_ledger",
    "pace",
    "pieces",
    "stages",
    "suite_identity",
    "suite_of",
    "tiny_suite",
    "total",
    "transfer_suite",
]
