"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import NamedAttack, TransferConfig
    from s3ta.evaluate.attack_catalogue import ATTACKS, AttackContext, get_attack
    from s3ta.evaluate.image_store import KEPT_FILE, ImageStore, KeptImages
    from s3ta.evaluate.manifest import (
        manifest,
        manifest_with_defaults,
        refuse_changed_model_code,
        suite_identity,
        suite_with_defaults,
    )
    from s3ta.evaluate.pass_timing import PassTimes, measure_chunk_seconds, measure_pass_times
    from s3ta.evaluate.plan import (
        Settings,
        Shard,
        attack_rounds,
        choose_examples,
        chunks_of_round,
        chunks_of_shard,
        targets_of,
        total,
    )
    from s3ta.evaluate.runner import evaluate, evaluate_into
    from s3ta.evaluate.suite import Suite
    from s3ta.evaluate.suite_overrides import build_suite, norm_of_overrides, override_suite, tiny_suite
    from s3ta.evaluate.suites import (
        SUITES,
        SUITES_AT_ANY_RADIUS,
        describe_suites,
        get_suite,
        incompatibility,
        leaderboard_radius,
        suite_of_attacks,
        transfer_suite,
    )
    from s3ta.evaluate.task import EvaluationTask

__all__ = [
    "ATTACKS",
    "KEPT_FILE",
    "SUITES",
    "SUITES_AT_ANY_RADIUS",
    "AttackContext",
    "EvaluationTask",
    "ImageStore",
    "KeptImages",
    "NamedAttack",
    "PassTimes",
    "Settings",
    "Shard",
    "Suite",
    "TransferConfig",
    "attack_rounds",
    "build_suite",
    "choose_examples",
    "chunks_of_round",
    "chunks_of_shard",
    "describe_suites",
    "evaluate",
    "evaluate_into",
    "get_attack",
    "get_suite",
    "incompatibility",
    "leaderboard_radius",
    "manifest",
    "manifest_with_defaults",
    "measure_chunk_seconds",
    "measure_pass_times",
    "norm_of_overrides",
    "override_suite",
    "refuse_changed_model_code",
    "suite_identity",
    "suite_of_attacks",
    "suite_with_defaults",
    "targets_of",
    "tiny_suite",
    "total",
    "transfer_suite",
]

load_names_on_first_use(__name__)
