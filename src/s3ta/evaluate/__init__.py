"""Measure a model so that the number can be defended. Read `s3ta.evaluate.runner` first."""

from typing import TYPE_CHECKING

from s3ta.lazy import load_names_on_first_use

if TYPE_CHECKING:
    from s3ta.attack_config import NamedAttack as NamedAttack
    from s3ta.attack_config import TransferConfig as TransferConfig
    from s3ta.evaluate.attack_catalogue import ATTACKS as ATTACKS
    from s3ta.evaluate.attack_catalogue import AttackContext as AttackContext
    from s3ta.evaluate.attack_catalogue import get_attack as get_attack
    from s3ta.evaluate.evaluation_task import EvaluationTask as EvaluationTask
    from s3ta.evaluate.image_store import KEPT_FILE as KEPT_FILE
    from s3ta.evaluate.image_store import ImageReader as ImageReader
    from s3ta.evaluate.image_store import TransferImages as TransferImages
    from s3ta.evaluate.manifest import build_manifest as build_manifest
    from s3ta.evaluate.manifest import manifest_with_defaults as manifest_with_defaults
    from s3ta.evaluate.manifest import refuse_changed_model_code as refuse_changed_model_code
    from s3ta.evaluate.manifest import suite_manifest as suite_manifest
    from s3ta.evaluate.manifest import suite_with_defaults as suite_with_defaults
    from s3ta.evaluate.pass_timing import PassTimes as PassTimes
    from s3ta.evaluate.pass_timing import measure_attack_times as measure_attack_times
    from s3ta.evaluate.pass_timing import measure_pass_times as measure_pass_times
    from s3ta.evaluate.plan import Settings as Settings
    from s3ta.evaluate.plan import Shard as Shard
    from s3ta.evaluate.plan import attack_rounds as attack_rounds
    from s3ta.evaluate.plan import choose_examples as choose_examples
    from s3ta.evaluate.plan import chunks_of_round as chunks_of_round
    from s3ta.evaluate.plan import chunks_of_shard as chunks_of_shard
    from s3ta.evaluate.plan import max_cost as max_cost
    from s3ta.evaluate.plan import targets_of as targets_of
    from s3ta.evaluate.runner import evaluate as evaluate
    from s3ta.evaluate.runner import evaluate_into as evaluate_into
    from s3ta.evaluate.suite import Suite as Suite
    from s3ta.evaluate.suite_overrides import build_suite as build_suite
    from s3ta.evaluate.suite_overrides import norm_of_overrides as norm_of_overrides
    from s3ta.evaluate.suite_overrides import override_suite as override_suite
    from s3ta.evaluate.suite_overrides import shrink_suite as shrink_suite
    from s3ta.evaluate.suites import SUITES as SUITES
    from s3ta.evaluate.suites import SUITES_AT_ANY_RADIUS as SUITES_AT_ANY_RADIUS
    from s3ta.evaluate.suites import describe_suites as describe_suites
    from s3ta.evaluate.suites import get_suite as get_suite
    from s3ta.evaluate.suites import leaderboard_radius as leaderboard_radius
    from s3ta.evaluate.suites import suite_of_attacks as suite_of_attacks
    from s3ta.evaluate.suites import transfer_suite as transfer_suite
    from s3ta.evaluate.suites import why_unsupported as why_unsupported

load_names_on_first_use(__name__)
