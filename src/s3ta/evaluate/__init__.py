"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.evaluate.attack_timing import chunk_seconds
    from s3ta.evaluate.catalogue import ATTACKS, Situation, get_attack
    from s3ta.evaluate.evaluation import Evaluation
    from s3ta.evaluate.image_store import KEPT_FILE, ImageStore, KeptImages
    from s3ta.evaluate.manifest import as_today, manifest, refuse_other_answers, suite_as_today, suite_identity
    from s3ta.evaluate.plan import (
        Settings,
        Shard,
        choose_examples,
        own_chunks,
        pieces,
        stages,
        targets_of,
        total,
    )
    from s3ta.evaluate.runner import evaluate, evaluate_into
    from s3ta.evaluate.suite_overrides import asked_norm, asked_suite, changed_suite, tiny_suite
    from s3ta.evaluate.suites import (
        SUITES,
        SUITES_AT,
        NamedAttack,
        Suite,
        TransferConfig,
        describe_suites,
        get_suite,
        incompatibility,
        leaderboard_radius,
        suite_of,
        transfer_suite,
    )
    from s3ta.evaluate.timing import Pace, pace

__all__ = [
    "ATTACKS",
    "KEPT_FILE",
    "SUITES",
    "SUITES_AT",
    "Evaluation",
    "ImageStore",
    "KeptImages",
    "NamedAttack",
    "Pace",
    "Settings",
    "Shard",
    "Situation",
    "Suite",
    "TransferConfig",
    "as_today",
    "asked_norm",
    "asked_suite",
    "changed_suite",
    "choose_examples",
    "chunk_seconds",
    "describe_suites",
    "evaluate",
    "evaluate_into",
    "get_attack",
    "get_suite",
    "incompatibility",
    "leaderboard_radius",
    "manifest",
    "own_chunks",
    "pace",
    "pieces",
    "refuse_other_answers",
    "stages",
    "suite_as_today",
    "suite_identity",
    "suite_of",
    "targets_of",
    "tiny_suite",
    "total",
    "transfer_suite",
]

load_names_on_first_use(__name__)
