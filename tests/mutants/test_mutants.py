"""The tests catch what they are for: each planted fault, in a copy of the package, makes some existing test fail.

A mutant is one textual patch inside one function and the smallest test command that must notice it. The same command must
pass on an unchanged copy. `test_every_patch_fits` runs with the ordinary tests, so that a moved line is noticed at once.
"""

import ast
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "s3ta"
REWRITE = "ignore::pytest.PytestAssertRewriteWarning"  # the driver has imported some plugin already, by way of timm


class Mutant(NamedTuple):
    """One fault: in `function`, `old` becomes `new`; `tests` (files, and words for -k) must fail."""

    function: str
    """FILE:NAME, such as "train/step.py:Trainer.update"; also a class or a constant of the module."""
    old: str
    new: str
    tests: str


ATTENTION, CONTROLLER = "tests/models/test_attention.py", "tests/models/test_controller.py"
CLOSED, DRAWS = "tests/attacks/test_closed_form.py", "tests/attacks/test_draws.py"
LOOP, RESUME, METRICS = "tests/train/test_loop.py", "tests/train/test_resume.py", "tests/records/test_metrics.py"
LEAVING, BUDGETS = "tests/evaluate/test_leaving.py", "tests/evaluate/test_budget.py"
FINDINGS = "tests/records/test_checks.py"
SHARDS, FOREIGN = "tests/evaluate/test_shards.py", "tests/cli/test_any_classifier.py"
BAD, CALIBRATION = "tests/cli/test_bad_evaluations.py", "tests/records/test_calibration.py"
INTERVALS = "tests/records/test_proportion_statistics.py"
CONVERTED = "tests/models/test_tensorpack_weights.py"
SOFTMAX = "weights_BNp = logits_BNp.softmax(dim=-1)"

MUTANTS = {
    # the model
    "attention scaled by 1/sqrt": Mutant(
        "models/attention.py:attend",
        SOFTMAX,
        "weights_BNp = (logits_BNp / math.sqrt(query.shape[-1])).softmax(dim=-1)",
        ATTENTION,
    ),
    "softmax over each row": Mutant(
        "models/attention.py:attend",
        SOFTMAX,
        "weights_BNp = logits_BNp.unflatten(-1, keys.shape[-2:]).softmax(dim=-1).flatten(-2)",
        ATTENTION,
    ),
    "softmax over heads": Mutant(
        "models/attention.py:attend", SOFTMAX, "weights_BNp = logits_BNp.softmax(dim=1)", ATTENTION
    ),
    "basis missing in the values": Mutant(
        "models/attention.py:attend", "weights_BNp @ basis_Sp.mT]", "0 * (weights_BNp @ basis_Sp.mT)]", ATTENTION
    ),
    "basis missing in the keys": Mutant(
        "models/attention.py:attend", " + query[..., num_keys:] @ basis_Sp", "", ATTENTION
    ),
    "frequencies from 0": Mutant(
        "models/attention.py:_axis",
        "torch.arange(1, num_frequencies + 1,",
        "torch.arange(0, num_frequencies,",
        ATTENTION,
    ),
    "rows and columns of the basis exchanged": Mutant(
        "models/attention.py:spatial_basis", '"ai,bj->abij"', '"bi,aj->abij"', ATTENTION
    ),
    "a third stage with stride 2": Mutant(
        "models/backbones.py:ResNetBackbone.make_dense",
        "2 if index == 1 else 1",
        "2 if index in (1, 2) else 1",
        "tests/models/test_counts.py -k strides",
    ),
    "dilation besides strides": Mutant(
        "models/backbones.py:ResNetBackbone.make_dense",
        "            stride = 2 if index == 1 else 1\n",
        "            stride = 2 if index == 1 else 1\n"
        "            for layer in stage.modules():\n"
        "                if index > 1 and isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):\n"
        "                    layer.dilation, layer.padding = (2, 2), (2, 2)\n",
        "tests/models/test_counts.py -k strides",
    ),
    "the first glimpse answers": Mutant(
        "models/s3ta.py:S3TA.forward",
        "return self.unroll(images).logits[-1]",
        "return self.unroll(images).logits[0]",
        CONTROLLER,
    ),
    "logits add up over glimpses": Mutant(
        "models/s3ta.py:Controller.forward",
        "            logits = self.readout(hidden)\n",
        "            logits = logits + self.readout(hidden)\n",
        "tests/models/test_reference.py -k glimpse",
    ),
    "initial state not learned": Mutant(
        "models/s3ta.py:Controller.__init__",
        "self.initial_hidden = nn.Parameter(torch.empty(1, config.lstm_size))",
        "self.initial_hidden = nn.Parameter(torch.empty(1, config.lstm_size), requires_grad=False)",
        CONTROLLER,
    ),
    "a query that sees logits after all": Mutant(
        "models/s3ta.py:Controller._next_query",
        "return self.query(hidden).unflatten",
        "return self.query(hidden + logits.mean()).unflatten",
        "tests/models/test_reference.py -k feeds_back",
    ),
    "scaled attention scaled by the keys alone": Mutant(
        "models/s3ta.py:Controller.__init__",
        "self.query_size**-0.5 if",
        "config.key_channels**-0.5 if",
        "tests/models/test_reference.py -k scaled",
    ),
    # the attack
    "wrong sign of the step": Mutant(
        "attacks/step_rules.py:_step",
        "images + size(done) * direction(gradient)",
        "images - size(done) * direction(gradient)",
        CLOSED,
    ),
    "targeted attack ascends the target's loss": Mutant(
        "attacks/objectives.py:targeted",
        "-cross_entropy(final_logits(outputs), targets",
        "cross_entropy(final_logits(outputs), targets",
        CLOSED,
    ),
    "label smoothing in the attack": Mutant(
        "attacks/objectives.py:targeted",
        'targets, reduction="none")',
        'targets, reduction="none", label_smoothing=0.1)',
        CLOSED,
    ),
    "batch norm in training mode under attack": Mutant(
        "attacks/freeze_model.py:frozen_in_eval_mode", "mode=False", "mode=True", "tests/attacks/test_side_effects.py"
    ),
    "target may equal the label": Mutant(
        "attacks/draws.py:random_target", ".integers(1, num_classes)", ".integers(0, num_classes)", DRAWS
    ),
    "steps under a mask by the whole gradient": Mutant(
        "attacks/loop.py:gradient_ascent",
        "threat.allowed(estimate.gradient)",
        "estimate.gradient",
        "tests/attacks/test_threats.py -k as_long",
    ),
    "SPSA's cut differences over the whole span": Mutant(
        "attacks/gradients.py:spsa.estimate",
        "return GradientEstimate(slope if factor is None else slope * factor,",
        "return GradientEstimate(slope,",
        "tests/attacks/test_gradients.py -k at_the_box",
    ),
    "a verdict's noise by those in flight": Mutant(
        "evaluate/runner.py:_run_group",
        "attack_round.name, attack_round.restart, whole.ids[0])",
        "attack_round.name, attack_round.restart, ids[rows.start])",
        "tests/evaluate/test_counted.py -k in_flight",
    ),
    "start noise not projected": Mutant(
        "attacks/threat.py:Linf.start",
        "return self.project(clean + self.radius * noise, clean)",
        "return clean + self.radius * noise",
        DRAWS,
    ),
    "ball projected around the iterate": Mutant(
        "attacks/threat.py:Linf.project",
        "        return (clean + moved).clamp(0, 1)",
        "        return images.clamp(0, 1)",
        CLOSED,
    ),
    # training
    "clean images in the training loss": Mutant(
        "train/step.py:Trainer._gradients",
        "self.learner(clean, attacked[part], ",
        "self.learner(clean, prepared.clean[part], ",
        f"{LOOP} -k by_hand",
    ),
    "no label smoothing in the training loss": Mutant(
        "train/losses.py:Learner._cross_entropy",
        "cross_entropy(logits, labels, label_smoothing=self._label_smoothing)",
        "cross_entropy(logits, labels)",
        f"{LOOP} -k by_hand",
    ),
    "the same targets in every epoch": Mutant(
        "train/prefetch.py:_drawn",
        'config.model.num_classes, "train", epoch)',
        'config.model.num_classes, "train", 0)',
        f"{LOOP} -k fresh",
    ),
    "the same order in every epoch": Mutant(
        "data/epoch_order.py:_order",
        'stream(seed, "order", epoch)',
        'stream(seed, "order")',
        "tests/data/test_epoch_order.py -k differs",
    ),
    "checkpoint forgets the optimizer": Mutant(
        "train/checkpoint.py:load_checkpoint",
        '    _fill_optimizer(state.model, state.optimizer, _under(tensors, "optimizer."))\n',
        "",
        f"{RESUME} -k crash_after",
    ),
    "resume starts over at step 0": Mutant(
        "train/loop.py:_Run.to_the_end",
        "partial(prepared, self.config, self.data, self.progress.step,",
        "partial(prepared, self.config, self.data, 0,",
        f"{RESUME} -k crash_after",
    ),
    "weight decay on batch norm": Mutant(
        "train/optimizer.py:decayed", "parameter.ndim > 1 and ", "", "tests/train/test_optimizer.py"
    ),
    "learning rate drops one step late": Mutant(
        "train/schedule.py:learning_rate", "step >= boundary", "step > boundary", "tests/train/test_schedule.py"
    ),
    "curriculum ignored": Mutant(
        "train/schedule.py:glimpses_at",
        "return reached[-1] if reached else None",
        "return None",
        f"{LOOP} -k curriculum",
    ),
    "one read-out of all learned from": Mutant(
        "train/losses.py:Learner.forward",
        "for each in outputs.logits])",
        "for each in outputs.logits[:1]])",
        "tests/train/test_ablated_training.py -k mean",
    ),
    "one side of TRADES held fixed": Mutant(
        "train/losses.py:Learner.forward",
        "clean_logits.log_softmax(1), reduction",
        "clean_logits.detach().log_softmax(1), reduction",
        "tests/train/test_losses.py -k slope",
    ),
    "BN groups added up, not averaged": Mutant(
        "train/step.py:Trainer._gradients",
        "_backward(loss * (self.group / share))",
        "_backward(loss)",
        "tests/train/test_losses.py -k groups",
    ),
    "weight perturbation on every tensor": Mutant(
        "train/awp_and_ema.py:perturbed", "if name in names and", "if", "tests/train/test_awp_and_ema.py -k kernel"
    ),
    "the last weights saved instead of their average": Mutant(
        "train/step.py:Trainer.result",
        "return self.model if self.average is None else self.average",
        "return self.model",
        "tests/train/test_awp_and_ema.py -k validated",
    ),
    "recomputation moves BN a second time": Mutant(
        "models/batch_norm_statistics.py:statistics_kept",
        "norm.momentum, norm.num_batches_tracked = 0.0, None",
        "pass",
        "tests/models/test_activation_checkpointing.py",
    ),
    "a milestone lost to a kill": Mutant(
        "train/loop.py:_Run._resume",
        "            self._keep_milestone(if_missing=True)\n",
        "            pass\n",
        "tests/train/test_milestones.py -k missed_by_a_kill",
    ),
    "a BN group cut at the border of a process": Mutant(
        "train/distributed_batch_norm_groups.py:batch_norm_groups",
        "needed = 1 if group is None else -(-group // share)",
        "needed = 1",
        "tests/train/test_grouping.py",
    ),
    "compared with itself": Mutant(
        "train/precision_check.py:_plain_copy",
        "plain.vision.units_per_checkpoint = 0",
        "pass",
        "tests/train/test_compute.py -k plain_in_every",
    ),
    # what is counted
    "success among correct examples only": Mutant(
        "records/metrics.py:_reduce",
        'hit=np.asarray(by_restart["hit"].any(axis=1))',
        'hit=np.asarray(by_restart["hit"].any(axis=1) & by_restart["correct"].any(axis=1))',
        METRICS,
    ),
    "success needs every restart": Mutant(
        "records/metrics.py:_reduce", 'by_restart["hit"].any(axis=1)', 'by_restart["hit"].all(axis=1)', METRICS
    ),
    "correct after any restart": Mutant(
        "records/metrics.py:_reduce",
        '(by_restart["correct"] | ~by_restart["ran"]).all(axis=1)',
        '(by_restart["correct"] | ~by_restart["ran"]).any(axis=1)',
        METRICS,
    ),
    "evaluation draws a target per restart": Mutant(
        "evaluate/runner.py:_run_group",
        "targets = task.targets(ids, labels)",
        "targets = task.targets([f'{name} {attack_round.restart}' for name in ids], labels)",
        "tests/evaluate/test_runner.py -k recomputation",
    ),
    # who may leave, and what is made of it
    "restarts that did not run count as broken": Mutant(
        "records/metrics.py:_reduce", '(by_restart["correct"] | ~by_restart["ran"])', 'by_restart["correct"]', METRICS
    ),
    "leaves when wrong at one read-out": Mutant(
        "evaluate/early_stopping.py:EarlyStopping.see",
        "self._settled[seen] |= everywhere[seen]",
        "self._settled[indices[done]] = True",
        f"{LEAVING} -k right_at_any_read_out",
    ),
    "leaves without having hit its target": Mutant(
        "evaluate/early_stopping.py:EarlyStopping.see",
        "((hit == 1) | (target < 0))",
        "(hit >= 0)",
        f"{LEAVING} -k not_hit",
    ),
    "the next attack begins without those who left the last": Mutant(
        "evaluate/early_stopping.py:EarlyStopping.left_out",
        "            self._settled[:] = False\n",
        "",
        f"{LEAVING} -k every_example",
    ),
    "a cascade goes on with those who fell": Mutant(
        "evaluate/early_stopping.py:EarlyStopping.see",
        "self._wrong[indices[last]] |= correct[last] == 0",
        "self._wrong[indices[last]] |= False",
        "tests/evaluate/test_autoattack.py -k cascade_of_records",
    ),
    "freed places stay empty": Mutant(
        "evaluate/plan.py:_filled",
        "if len(filled[-1][0]) == micro_batch:",
        "if len(filled[-1][0]) + len(filled[-1][1]) >= micro_batch:",
        f"{LEAVING} -k lower_cost",
    ),
    "a cascade forgets the attacks before": Mutant(
        "records/metrics.py:_together",
        "correct = before.correct[rows] & (outcome.correct | ~outcome.measured)",
        "correct = outcome.correct | ~outcome.measured",
        METRICS,
    ),
    "a budget that the verdict is not counted in": Mutant(
        "evaluate/plan.py:AttackRound.cost",
        "return AttackCost(spent.num_gradients, spent.num_forwards + len(self.read_outs))",
        "return AttackCost(spent.num_gradients, spent.num_forwards)",
        f"{BUDGETS} -k exceeds_its_budget",
    ),
    "what a budget cut off is no upper bound": Mutant(
        "records/metrics.py:_count",
        "(outcome.cut & outcome.correct).sum()",
        "(outcome.cut & ~outcome.correct).sum()",
        METRICS,
    ),
    "the verdict in the attack's arithmetic": Mutant(
        "evaluate/runner.py:_run_group",
        "records(model, attacked_batch",
        "records(task.attack_model, attacked_batch",
        "tests/evaluate/test_attacked_model.py -k float32_eager",
    ),
    "autocast that casts nothing": Mutant(
        "models/execution.py:ExecutedModel.computes_lower",
        'self._mode.precision == "bfloat16"',
        'self._mode.precision == "bf16"',
        "tests/evaluate/test_attacked_model.py -k same_way",
    ),
    "transferred images of another restart": Mutant(
        "evaluate/runner.py:_run_group",
        "task.images.load(config.attack_name, attack_round.restart,",
        "task.images.load(config.attack_name, 0,",
        "tests/evaluate/test_transfer.py -k own_images",
    ),
    "masked gradients pass unnoticed": Mutant(
        "records/proportion_statistics.py:is_significantly_stronger",
        "only_a - only_b > least",
        "only_b - only_a > least",
        FINDINGS,
    ),
    "an alarm by chance": Mutant(
        "records/proportion_statistics.py:is_significantly_stronger",
        "mcnemar(only_a, only_b) < level",
        "mcnemar(only_a, only_b) <= 1",
        FINDINGS,
    ),
    "a setting that not all attacks have is skipped": Mutant(
        "evaluate/suite_overrides.py:_overridden",
        "            if has:",
        "            if has and all(having):",
        "tests/evaluate/test_suites.py -k goes_to",
    ),
    # any classifier, and the work divided
    "every shard does all": Mutant(
        "evaluate/plan.py:Shard.owns",
        "return block % self.count == self.index - 1",
        "return True",
        f"{SHARDS} -k exactly_one_shard",
    ),
    "places are filled across blocks": Mutant(
        "evaluate/plan.py:chunks_of_round",
        "size, all_chunks = block * micro_batch,",
        "size, all_chunks = len(positions),",
        f"{SHARDS} -k never_share",
    ),
    "the last micro-batch is not filled up": Mutant(
        "evaluate/runner.py:run_chunk",
        "pad_batch(batch or fetch_batch(dataset, chunk.positions), settings.batch_size)",
        "pad_batch(batch or fetch_batch(dataset, chunk.positions), len(chunk.positions))",
        f"{SHARDS} -k in_flight_really",
    ),
    "who is in flight alone loses its row": Mutant(
        "evaluate/fixed_size_batches.py:isolate_rows",
        "| (sources >= rows.stop)] = rows.stop - 1",
        "| (sources >= rows.stop)] = 0",
        f"{SHARDS} -k in_flight",
    ),
    "a chunk of another evaluation counts": Mutant(
        "records/ledger.py:Ledger.read_chunk",
        "if owner != self.identity:",
        "if not owner:",
        f"{SHARDS} -k another_evaluation",
    ),
    "given targets are not used": Mutant(
        "evaluate/plan.py:targets_of",
        "    if settings.targets is None:\n        return draw_targets(",
        "    if settings is not None:\n        return draw_targets(",
        f"{SHARDS} -k given_targets",
    ),
    "confidence of the label": Mutant(
        "evaluate/make_records.py:records",
        ".amax(dim=1).clamp(max=1)",
        ".gather(1, labels[:, None])[:, 0]",
        f"{FOREIGN} -k among_200",
    ),
    "outputs chosen after the softmax": Mutant(
        "models/classifier_wrapper.py:Classifier._chosen",
        "else logits[..., self._outputs]",
        "else logits.softmax(dim=-1)[..., self._outputs]",
        f"{FOREIGN} -k among_200",
    ),
    "outputs in another order": Mutant(
        "models/classifier_wrapper.py:Classifier.__init__",
        "torch.tensor(list(outputs), dtype=torch.long)",
        "torch.tensor(sorted(outputs), dtype=torch.long)",
        f"{FOREIGN} -k matched_by_name",
    ),
    "channels are not turned round": Mutant(
        "models/classifier_wrapper.py:Classifier._prepared",
        'images.flip(1) if self.channel_order == "bgr" else images',
        "images",
        f"{FOREIGN} -k order_of_channels",
    ),
    "mean and deviation exchanged": Mutant(
        "models/classifier_wrapper.py:Classifier.__init__",
        "Normalize(tuple(mean or (0.0,)), tuple(std or (1.0,)))",
        "Normalize(tuple(std or (1.0,)), tuple(mean or (0.0,)))",
        f"{FOREIGN} -k order_of_channels",
    ),
    "ids in the order of the data": Mutant(
        "workflow/fit_data_to_model.py:_chosen",
        "return positions[: examples.num_examples]",
        "return sorted(positions)[: examples.num_examples]",
        f"{FOREIGN} -k ids_of_a_file",
    ),
    "a shorter side is rounded as ours are": Mutant(
        "data/preprocessing.py:scaled_size",
        "int(target * side / shorter)",
        "round(target * side / shorter)",
        "tests/data/test_preprocessing.py -k torchvisions_pixels",
    ),
    "weights that are too many pass": Mutant(
        "models/external_weights.py:_explained",
        'if strange := kinds.get("strange"):',
        'if (strange := kinds.get("strange")) and not prefix:',
        f"{BAD} -k files_without_weights",
    ),
    "what cannot be read is counted": Mutant(
        "workflow/fit_data_to_model.py:_readable",
        "return [position for position in positions if position not in gone], [",
        "return [index if index not in gone else min(set(positions) - gone) for index in positions], [",
        f"{BAD} -k damaged_picture_in",
    ),
    "TensorFlow's weights under torch's padding": Mutant(
        "models/tensorpack_weights.py:_config", 'padding="same"', 'padding="symmetric"', f"{CONVERTED} -k plain_float64"
    ),
    "TensorFlow's weights with red first": Mutant(
        "models/tensorpack_weights.py:feature_denoising_model",
        "weights[first].flip(1)",
        "weights[first].clone()",
        f"{CONVERTED} -k plain_float64",
    ),
    "a pool is padded as torch does": Mutant(
        "models/padding.py:pad_as_tensorflow",
        "elif isinstance(child, nn.MaxPool2d):",
        "elif isinstance(child, nn.MaxPool2d) and child.stride == 1:",
        "tests/models/test_padding.py -k pools",
    ),
    "photographs labelled by their number": Mutant(
        "data/photographs.py:open_photographs",
        "classes[int(match[2])]",
        "classes[int(match[1])]",
        "tests/data/test_photographs.py -k labels",
    ),
    "any shape in the place of a tensor": Mutant(
        "models/example_networks.py:renamed_in_order",
        " or value.shape != place.shape",
        "",
        "tests/models/test_example_networks.py -k refused_by_name",
    ),
    "labels that count from 1 pass": Mutant(
        "evaluate/lint/preprocessing_and_labels.py:_usual_orders",
        "(labels + 1) % num_classes",
        "(labels + 2) % num_classes",
        "tests/evaluate/test_lint_real_network.py -k from",
    ),
    "strict about nothing": Mutant(
        "workflow/checks_before.py:run_lint", "(strict and alarm.kind != UNREADABLE)", "False", f"{BAD} -k strict_stops"
    ),
    "the last image in place of the worst": Mutant(
        "workflow/export_adversarial_images.py:_worst",
        'row["status"] != STATUS_RUN or name in wrong or',
        'row["status"] != STATUS_RUN or',
        "tests/cli/test_export.py -k worst",
    ),
    "class folders of numbers in the order of text": Mutant(
        "data/class_matching.py:order_classes_as_numbers",
        "order = sorted(dataset.classes, key=int)",
        "order = sorted(dataset.classes)",
        "tests/data/test_class_matching.py -k counted_as_numbers",
    ),
    "hidden folders are entered": Mutant(
        "data/folder_listing.py:shown_entries",
        'if not (system or entry.name.startswith(".")):',
        "if not system:",
        "tests/data/test_folder_listing.py -k left_out_and_counted",
    ),
    "numbers in a list of targets are places first": Mutant(
        "data/target_files.py:_Reading.number",
        "if number is not None:",
        "if number is not None and not text.isdecimal():",
        "tests/data/test_target_files.py -k names_first",
    ),
    "a repaired file passes": Mutant(
        "workflow/image_file_hashes.py:refuse_other_files",
        "if before.get(name, seen.sha256) != seen.sha256]",
        "if name not in before]",
        "tests/cli/test_odd_files.py -k repaired_file",
    ),
    # what is made of the numbers
    "the published calibration with its last bin": Mutant(
        "records/calibration.py:calibration", "np.sqrt(squares[:-1].sum())", "np.sqrt(squares.sum())", CALIBRATION
    ),
    "ties in another order": Mutant(
        "records/calibration.py:risk_coverage",
        'np.argsort(-sure, kind="stable")',
        'np.argsort(sure, kind="stable")[::-1]',
        CALIBRATION,
    ),
    "one-sided McNemar": Mutant(
        "records/proportion_statistics.py:mcnemar", "min(1.0, 2 * tail / 2**total)", "tail / 2**total", INTERVALS
    ),
    "intervals around the observed share": Mutant(
        "records/proportion_statistics.py:wilson",
        "centre = (p + z * z / (2 * total)) / (1 + z * z / total)",
        "centre = p",
        INTERVALS,
    ),
    "the lint leaves the model in eval mode": Mutant(
        "external_code_errors.py:modes_kept",
        "part.training = training",
        "part.training = False",
        "tests/evaluate/test_lint.py -k as_they_were",
    ),
    "probes at twice the radius": Mutant(
        "evaluate/sanity_checks.py:probe",
        "labels[right], kept, radius, seed)",
        "labels[right], kept, 2 * radius, seed)",
        "tests/evaluate/test_sanity_checks.py -k closed_form",
    ),
    "probes beyond the box": Mutant(
        "attacks/gradients.py:spsa.estimate",
        "probed.clamp_(0, 1)",
        "pass",
        "tests/attacks/test_gradients.py -k asserts_its_input_range",
    ),
    "experiments for a quarter of the passes": Mutant(
        "workflow/checks_after.py:_SHARE", "_SHARE = 5", "_SHARE = 4", "tests/cli/test_announcements.py -k fifth"
    ),
    "chunks in place of passes": Mutant(
        "demo.py:Passes.of",
        "attack_round.cost.total * examples",
        "1",
        "tests/cli/test_announcements.py -k what_is_slow",
    ),
}


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """(qualified name, first line, last line) of every function, class and assigned name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield prefix + node.name, first, node.end_lineno or first
            yield from definitions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                (prefix + target.id, node.lineno, node.end_lineno or node.lineno)
                for target in targets
                if isinstance(target, ast.Name)
            )


def planted(mutant: Mutant, source: Path = SOURCE) -> tuple[str, str]:
    """The file of a mutant, and its text with the fault; an AssertionError where the patch does not fit."""
    file, _, name = mutant.function.partition(":")
    assert (source / file).is_file(), f"there is no file {file}"
    text = (source / file).read_text()
    spans = [(first, last) for found, first, last in definitions(ast.parse(text)) if found == name]
    assert len(spans) == 1, f"{file} must define {name} once, not {len(spans)} times"
    first, last = spans[0]
    lines = text.splitlines(keepends=True)
    body = "".join(lines[first - 1 : last])
    assert body.count(mutant.old) == 1, f"{mutant.function} must hold this text once: {mutant.old}"
    return file, "".join([*lines[: first - 1], body.replace(mutant.old, mutant.new), *lines[last:]])


@pytest.mark.parametrize("name", MUTANTS)
def test_every_patch_fits(name):
    file, text = planted(MUTANTS[name])
    compile(text, file, "exec")
    assert text != (SOURCE / file).read_text()
    tests, _, words = MUTANTS[name].tests.partition(" -k ")
    assert all(word in (ROOT / tests.split()[0]).read_text() for word in shlex.split(words)), "no test of that name"


TWO_FUNCTIONS = "def first():\n    return 1\n\n\nclass Second:\n    def first(self):\n        return 1\n"


def test_a_patch_changes_the_named_function_alone(tmp_path):
    (tmp_path / "x.py").write_text(TWO_FUNCTIONS)
    inner = planted(Mutant("x.py:Second.first", "return 1", "return 2", ""), tmp_path)
    assert inner == ("x.py", TWO_FUNCTIONS[:-9] + "return 2\n")


@pytest.mark.parametrize(
    ("function", "old", "sentence"),
    [
        ("y.py:first", "return 1", "there is no file y.py"),
        ("x.py:third", "return 1", "x.py must define third once, not 0 times"),
        ("x.py:first", "return 2", "x.py:first must hold this text once: return 2"),
        ("x.py:first", "r", "x.py:first must hold this text once: r"),
    ],
)
def test_a_patch_that_does_not_fit_says_so(function, old, sentence, tmp_path):
    (tmp_path / "x.py").write_text(TWO_FUNCTIONS)
    with pytest.raises(AssertionError, match=f"^{sentence}"):
        planted(Mutant(function, old, "0", ""), tmp_path)


class Runner:
    """The driver process, and the answers it gave."""

    def __init__(self, folder):
        self.folder, self.healthy = folder, {}
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.mutants.driver"]
        self.driver = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, tests, file="", text=""):
        """(exit code, output) of a test command on a copy of the package, in which one file may hold another text."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copytree(SOURCE, folder / "s3ta", ignore=shutil.ignore_patterns("__pycache__"))
        if file:
            (folder / "s3ta" / file).write_text(text)
        arguments = [
            "-x",
            "-q",
            "-rf",
            "--tb=line",
            "-m",
            "not slow",
            "-p",
            "no:cacheprovider",
            "-W",
            REWRITE,
            *shlex.split(tests),
        ]
        job = {"folder": str(folder), "arguments": arguments, "output": str(folder / "output.txt")}
        self.driver.stdin.write(json.dumps(job) + "\n")
        self.driver.stdin.flush()
        code = int(self.driver.stdout.readline())
        return code, (folder / "output.txt").read_text(errors="replace")[-3000:]

    def run_healthy(self, tests):
        """The same on an unchanged copy, once per command."""
        if tests not in self.healthy:
            self.healthy[tests] = self.run(tests)
        return self.healthy[tests]


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("mutants"))
    yield runner
    runner.driver.stdin.close()
    runner.driver.wait(timeout=30)
    runner.driver.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_fault_is_caught(name, runner):
    mutant = MUTANTS[name]
    code, output = runner.run_healthy(mutant.tests)
    assert code == 0, f"`{mutant.tests}` fails without the fault:\n{output}"
    code, output = runner.run(mutant.tests, *planted(mutant))
    assert code == 1, f"not caught by `{mutant.tests}` (exit code {code}):\n{output}"
    assert "\nFAILED " in output, output
    assert "ERROR collecting" not in output
