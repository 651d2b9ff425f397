"""After an evaluation: experiments on a few examples, and what the records say. They never cost a result."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from s3ta.attacks import AttackCost, GradientAttackConfig
from s3ta.data import Batch, fetch_batch
from s3ta.determinism import exact_arithmetic
from s3ta.evaluate import EvaluationTask, Suite, TransferConfig, max_cost
from s3ta.evaluate.sanity_checks import FEWEST, cost, num_evaluations, probe
from s3ta.external_code_errors import reason
from s3ta.files import UnwritableError
from s3ta.finding import WORTH_TELLING, Check, Finding
from s3ta.progress import console, progress
from s3ta.records import CLEAN, Ledger, check_records, is_tiny_suite
from s3ta.types import Images, Logits
from s3ta.workflow.checks_before import FoundBySource, not_asked, read_found, write_found

_FEWEST_PROBED, _MOST_PROBED = 16, 32
_SHARE = 5
"""Of the attacks' passes, the experiments may spend one in so many."""
_ASK_FOR_ALL = "--full-checks gives them what they want."


class Probing(NamedTuple):
    """On how many images the experiments are made."""

    num_images: int
    num_wanted: int
    """As many as show most; fewer where a fifth of the attacks' passes does not pay for them."""

    @property
    def is_enough(self) -> bool:
        """Fewer than 8 images show nothing."""
        return self.num_images >= min(FEWEST, self.num_wanted)

    @property
    def cost(self) -> AttackCost:
        return cost(self.num_images if self.is_enough else 0)


def probing(num_passes: int, num_examples: int, micro_batch: int, *, full: bool) -> Probing:
    """How many images the experiments are made on, for at most a fifth, unless `full`, of the forward and backward passes that
    the attacks on so many examples take."""
    num_wanted = min(num_examples, max(_FEWEST_PROBED, min(_MOST_PROBED, micro_batch)))
    return Probing(num_wanted if full else min(num_wanted, num_passes // _SHARE // num_evaluations(1)), num_wanted)


def planned_probing(measured: EvaluationTask, findings: FoundBySource, *, full: bool) -> Probing | None:
    """The largest experiments that may be made, planned before the attacks; None where none are due by what `trust.json`
    holds."""
    suite, count = measured.suite, len(measured.positions)
    if not is_due(findings, full=full) or _why_not(suite) or radius_of(suite) is None:
        return None
    return probing(max_cost(suite, count).total, count, measured.settings.batch_size, full=full)


def check_afterwards(measured: EvaluationTask, ledger: Ledger, *, full: bool) -> None:
    """Experiments on a few examples, and what the records say; kept beside the ledger. Nothing is done twice, but if `full`
    what was left out for taking more than a fifth of the attacks' passes, or could not be answered.

    A check that fails is `unchecked` with the reason, and findings that cannot be written are told."""
    table, findings = ledger.table(), read_found(ledger.folder)
    if is_due(findings, full=full) and (probes := _probes(measured, table, full=full)):
        findings["probes"] = probes
    probed = findings.get("probes", [])
    findings["records"] = check_records(table, ledger.typed_manifest, probed)
    try:
        write_found(ledger.folder, findings)
    except UnwritableError as error:
        console.print(f"warning: What was checked is not kept: {error}")
        for finding in probed:
            if finding.severity in WORTH_TELLING:
                console.print(finding.line)


def is_due(findings: FoundBySource, *, full: bool) -> bool:
    """Whether the experiments are still to be made, as far as `trust.json` says."""
    if "probes" not in findings:
        return True
    return full and any({"num_wanted", "raised"} & set(finding.evidence) for finding in findings["probes"])


def _why_not(suite: Suite) -> Finding | None:
    if not max_cost(suite, 1).num_gradients:
        return not_asked("probes")
    return Check("probes").unchecked("A trial run is not probed.") if is_tiny_suite(suite.name) else None


def _probes(measured: EvaluationTask, table: pa.Table, *, full: bool) -> list[Finding]:
    """The answers of the experiments; none where no attack has a ball to try them in."""
    check, radius = Check("probes"), radius_of(measured.suite)
    if why_not := _why_not(measured.suite):
        return [why_not]
    if radius is None:
        return []
    plan = probing(num_passes(table), len(measured.positions), measured.settings.batch_size, full=full)
    if not plan.is_enough:
        fewest = min(FEWEST, plan.num_wanted)
        sentence = (
            f"The gradients were not probed: on {fewest} images, the fewest that show anything, that takes "
            f"{num_evaluations(fewest):,} passes, more than a fifth of the {num_passes(table):,} of the attacks."
        )
        return [check.note(sentence, plan._asdict(), _ASK_FOR_ALL)]
    try:
        answers = _run_experiments(measured, table, plan, radius)
    except Exception as error:  # noqa: BLE001 - no check costs a result
        answers = [check.failed(reason(error))]
    if plan.num_images < plan.num_wanted:
        sentence = (
            f"The gradients were probed on {plan.num_images} images, not on {plan.num_wanted}, for at most a fifth of the "
            "attacks' passes."
        )
        answers.append(check.note(sentence, plan._asdict(), _ASK_FOR_ALL))
    return answers


def _run_experiments(measured: EvaluationTask, table: pa.Table, plan: Probing, radius: float) -> list[Finding]:
    model, settings, count = measured.model, measured.settings, plan.num_images
    if settings.batch_size < _MOST_PROBED:
        model = _InParts(model, settings.batch_size)
    batch = _probed(measured, table, count)
    few = f" instead of {plan.num_wanted}, for a fifth of the attacks' passes" if count < plan.num_wanted else ""
    with (
        exact_arithmetic(settings.num_threads),
        progress(f"checks of the evaluation on {count} examples{few}, passes", num_evaluations(count)) as report,
    ):
        return probe(model, batch, radius, settings.seed, report)


def num_passes(table: pa.Table) -> int:
    """Forward and backward, as the records say: of each example, attack and restart its last read-out."""
    runs = table.group_by(["example_id", "attack", "restart"], use_threads=False)
    spent = runs.aggregate([("num_gradients", "max"), ("num_forwards", "max")])
    return sum(int(spent[name].fill_null(0).to_numpy().sum()) for name in ("num_gradients_max", "num_forwards_max"))


def _probed(measured: EvaluationTask, table: pa.Table, count: int) -> Batch:
    """The first examples that the model gets right; then others, if it gets few."""
    right = set(table.filter((pc.field("attack") == CLEAN) & pc.field("correct"))["example_id"].to_pylist())
    ids = measured.dataset.ids
    ordered = sorted(measured.positions, key=lambda position: ids[position] not in right)  # stable
    return fetch_batch(measured.dataset, ordered[:count])


class _InParts(nn.Module):
    """The model, given no more images at once than it has met, also on the way back."""

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        self.model, self._size = model, size

    def forward(self, images: Images) -> Logits:
        parts = images.split(self._size)
        if not torch.is_grad_enabled():
            return torch.cat([self.model(part) for part in parts])
        with set_checkpoint_early_stop(False):  # TorchScript does not let itself be left early
            return torch.cat([checkpoint(self.model, part, use_reentrant=False) for part in parts])


def radius_of(suite: Suite) -> float | None:
    """The radius of the suite's first L-infinity attack; None where there is none."""
    for entry in suite.attacks:
        attack: Any = entry.attack.attack if isinstance(entry.attack, TransferConfig) else entry.attack
        if (
            attack.norm == "linf"
            and attack.radius
            and (not isinstance(attack, GradientAttackConfig) or attack.mask is None)
        ):
            return attack.radius
    return None
