"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import NamedAttack, TransferConfig
    from s3ta.evaluate.attack_catalogue import ATTACKS, AttackContext, get_attack
    from s3ta.evaluate.image_store import KEPT_FILE, ImageStore, KeptImages
    from s3ta.evaluate.manifest import (
        build_manifest,
        manifest_with_defaults,
        refuse_changed_model_code,
        suite_manifest,
        suite_with_defaults,
    )
    from s3ta.evaluate.pass_timing import PassTimes, measure_attack_times, measure_pass_times
    from s3ta.evaluate.plan import (
        Settings,
        Shard,
        attack_rounds,
        choose_examples,
        chunks_of_round,
        chunks_of_shard,
        max_cost,
        targets_of,
    )
    from s3ta.evaluate.runner import evaluate, evaluate_into
    from s3ta.evaluate.suite import Suite
    from s3ta.evaluate.suite_overrides import build_suite, norm_of_overrides, override_suite, shrink_suite
    from s3ta.evaluate.suites import (
        SUITES,
        SUITES_AT_ANY_RADIUS,
        describe_suites,
        get_suite,
        leaderboard_radius,
        suite_of_attacks,
        transfer_suite,
        why_unsupported,
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
    "build_manifest",
    "build_suite",
    "choose_examples",
    "chunks_of_round",
    "chunks_of_shard",
    "describe_suites",
    "evaluate",
    "evaluate_into",
    "get_attack",
    "get_suite",
    "leaderboard_radius",
    "manifest_with_defaults",
    "max_cost",
    "measure_attack_times",
    "measure_pass_times",
    "norm_of_overrides",
    "override_suite",
    "refuse_changed_model_code",
    "shrink_suite",
    "suite_manifest",
    "suite_of_attacks",
    "suite_with_defaults",
    "targets_of",
    "transfer_suite",
    "why_unsupported",
]

load_names_on_first_use(__name__)
