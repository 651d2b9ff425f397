"""One training step of one process: attack its share of the batch, then move the weights, which all processes share."""

from __future__ import annotations

import copy
import math
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from s3ta.attacks import NotFiniteError, RandomKey, run_attack
from s3ta.distributed import Ranks
from s3ta.errors import UserError
from s3ta.models import ExecutedModel, ExecutionMode, NativeClassifier, build_model
from s3ta.models.batch_norm_statistics import statistics_kept, synchronize
from s3ta.process_state import seeded_global_generators
from s3ta.random_streams import stream
from s3ta.train.awp_and_ema import move_average, perturbed
from s3ta.train.checkpoint import Differences, Progress, TrainState, load_checkpoint
from s3ta.train.config import TrainConfig
from s3ta.train.distributed_batch_norm_groups import batch_norm_groups
from s3ta.train.losses import Learner, make_outputs_fn
from s3ta.train.optimizer import build_optimizer
from s3ta.train.prefetch import Prepared
from s3ta.train.schedule import glimpses_at, learning_rate
from s3ta.types import Images


class DivergedError(Exception):
    """A number of this step is not finite; the weights are those before it. Raised in all processes at once."""

    def message(self, step: int, checkpoint: Path) -> UserError:
        """The same for a person, with what can be done."""
        kept = f"The weights before that step are kept as they were saved last, in {checkpoint}."
        return UserError(
            f"{self} at training step {step}: start again in another folder with a lower optimizer.learning_rate or with "
            f"optimizer.clip_norm. {kept if checkpoint.exists() else 'Nothing had been saved yet.'}"
        )


def seeded_model(config: TrainConfig) -> NativeClassifier:
    """The recipe's model with the first weights that belong to its seed."""
    with seeded_global_generators(config.seed):
        return build_model(config.model)


class Trainer:
    """The model under training with all that moves it."""

    def __init__(self, config: TrainConfig, model: NativeClassifier, device: torch.device, ranks: Ranks) -> None:
        """Raises UserError where the batch cannot be divided among the processes."""
        self.config, self.model, self.ranks = config, model, ranks
        self.group, self.span = batch_norm_groups(config, ranks.count)
        if self.span > 1:
            synchronize(model, self.span)
        compute = config.compute
        model.vision.units_per_checkpoint = compute.units_per_checkpoint
        attacked, updated = (
            ExecutionMode(precision, compute.compiled, compute.channels_last)
            for precision in (compute.attack_precision, compute.update_precision)
        )
        self.attacked = model if attacked == ExecutionMode() else ExecutedModel(model, attacked)
        running = self.attacked if attacked == updated else ExecutedModel(model, updated)
        self._executed = [module for module in (self.attacked, running) if isinstance(module, ExecutedModel)]
        self.own_learner = Learner(running, config.loss, config.label_smoothing)
        self.learner: nn.Module = self.own_learner
        if ranks.count > 1:
            devices = [device] if device.type == "cuda" else None
            self.learner = DistributedDataParallel(self.own_learner, device_ids=devices)
            # Each process keeps its own moving averages of BN (T13). (As an argument it warns, from torch 2.15 on.)
            self.learner.broadcast_buffers = False
            self._lay_out(device)
        self.optimizer = build_optimizer(config.optimizer, model, fused=compute.fused_optimizer)
        self.average = copy.deepcopy(model) if config.averaging.decay > 0 and ranks.is_first else None

    def _lay_out(self, device: torch.device) -> None:
        """Let DistributedDataParallel see one backward pass, of empty images.

        After its first one it lays gradients out anew, and how more than two processes round their sum depends on where in
        the layout a number lies: a resumed run would leave the one that was never stopped at its first step."""
        vision = self.config.model.vision
        images = torch.zeros(self.group, vision.in_channels, vision.image_size, vision.image_size, device=device)
        self.learner.train()
        with statistics_kept(self.model):
            loss, _ = self.learner(None, images, torch.zeros(self.group, dtype=torch.int64, device=device), None)
            loss.backward()
        self.model.zero_grad(set_to_none=True)

    def load(self, path: Path, identity_hash: str, differences_from: Differences | None = None) -> Progress:
        """Go on from a checkpoint, where there is one. In all processes together.

        Raises UserError as `load_checkpoint`, and where not all processes find the same file."""
        progress, error = Progress(), None
        try:
            if path.exists():
                progress = load_checkpoint(path, self.state, identity_hash, differences_from, self.ranks.rank)
        except UserError as caught:
            error = caught
        self.ranks.together(error)
        if self.ranks.any(self.ranks.total(float(progress.step))[0] != progress.step * self.ranks.count):
            count = self.ranks.count
            message = f"{path} is not the same file for all {count} processes: give them one run folder that all share."
            self.ranks.together(UserError(message))
        return progress

    def use_lower(self, is_lower: bool) -> None:
        """From now on compute in the recipe's lower precision, or in float32 whatever it says."""
        for module in self._executed:
            module.is_lower = is_lower

    @property
    def precision(self) -> str:
        """bfloat16 where any part of a step is computed in it now."""
        return "bfloat16" if any(module.computes_lower for module in self._executed) else "float32"

    @property
    def attacks_lower(self) -> bool:
        """Whether attacks are computed in bfloat16 now."""
        return isinstance(self.attacked, ExecutedModel) and self.attacked.computes_lower

    @property
    def state(self) -> TrainState:
        return TrainState(self.model, self.optimizer, self.average)

    @property
    def result(self) -> NativeClassifier:
        """The model that is validated and saved: the average of the weights where there is one."""
        return self.model if self.average is None else self.average

    @property
    def at_once(self) -> int:
        """Images that are attacked at once."""
        share = self.config.batch_size // self.ranks.count
        return min(share, self.config.compute.attack_batch or share)

    def attack(self, prepared: Prepared) -> Images:
        """The images under the step's attack, BN on its moving averages (T19); in the clean phase as they are."""
        attack = prepared.attack
        if attack is None:
            return prepared.clean
        glimpses = attack.num_glimpses or glimpses_at(self.config.schedule, prepared.step)
        outputs_fn = make_outputs_fn(self.attacked, glimpses, trace=attack.needs_trace)
        attacked = []
        try:
            for first in range(0, len(prepared.ids), self.at_once):
                part = slice(first, first + self.at_once)
                draw = RandomKey(self.config.seed, tuple(prepared.ids[part]), ("train", prepared.epoch))
                result = run_attack(
                    outputs_fn,
                    prepared.clean[part],
                    prepared.labels[part],
                    config=attack,
                    targets=None if prepared.targets is None else prepared.targets[part],
                    start=None if prepared.start is None else prepared.start[part],
                    draw=draw,
                    shares=None if prepared.shares is None else prepared.shares[part],
                )
                attacked.append(result.final)
        except NotFiniteError:
            attacked = []
        if self.ranks.any(not attacked):
            raise DivergedError("The attack's gradient is not finite")
        return torch.cat(attacked)

    def update(self, prepared: Prepared, attacked: Images) -> tuple[float, float]:
        """Move the weights. Returns, over all processes, the sum of the losses and the number of right answers.

        Raises DivergedError for a loss or gradient that is not finite; the weights are then as before."""
        step, config = prepared.step, self.config
        for group in self.optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(config.schedule, config.optimizer.learning_rate, step)
        self.learner.train()
        head_only = step < config.schedule.head_only_steps
        if head_only:
            self.model.vision.eval()
        perturbation = config.weight_perturbation
        with self._dropping(step):
            if perturbation.gamma and step >= perturbation.from_step:
                with statistics_kept(self.model):
                    self._gradients(prepared, attacked)
                with perturbed(self.model, perturbation.gamma):
                    loss_sum, num_correct = self._gradients(prepared, attacked)
            else:
                loss_sum, num_correct = self._gradients(prepared, attacked)
        if head_only:
            self.model.vision.zero_grad(set_to_none=True)
        if not math.isfinite(loss_sum):
            raise DivergedError(f"The loss is {loss_sum}")
        clip_norm = math.inf if config.optimizer.clip_norm is None else config.optimizer.clip_norm
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm).item()
        if not math.isfinite(norm):
            raise DivergedError(f"The gradient's norm is {norm}")
        self.optimizer.step()
        if self.average is not None:
            move_average(self.average, self.model, config.averaging.decay, step)
        return loss_sum, num_correct

    def _dropping(self, step: int) -> AbstractContextManager[None]:
        """The generators that units are dropped by (`vision.drop_path`) begin anew at each step, otherwise in each process."""
        if not self.config.model.vision.drop_path:
            return nullcontext()
        return seeded_global_generators(
            int(stream(self.config.seed, "drop-path", step, self.ranks.rank).integers(2**63))
        )

    def _gradients(self, prepared: Prepared, attacked: Images) -> tuple[float, float]:
        """Fills the gradients of the mean loss over the whole batch, BN group by BN group (T13)."""
        self.optimizer.zero_grad(set_to_none=True)
        glimpses, share = glimpses_at(self.config.schedule, prepared.step), len(prepared.ids)
        needs_clean = self.config.loss.kind in ("trades", "local_linearity") and prepared.attack is not None
        losses, counts = [], []
        labels = prepared.labels if prepared.shares is None else prepared.shares
        for first in range(0, share, self.group):
            part, is_last = slice(first, first + self.group), first + self.group == share
            clean = prepared.clean[part] if needs_clean else None
            with nullcontext() if is_last else self._apart():
                loss, num_correct = self.learner(clean, attacked[part], labels[part], glimpses)
                _backward(loss * (self.group / share))
            losses.append(loss.detach())
            counts.append(num_correct)
        loss_sum, num_correct = float(torch.stack(losses).sum()) * self.group, float(torch.stack(counts).sum())
        summed = self.ranks.total(loss_sum, num_correct)
        return summed[0], summed[1]

    def _apart(self) -> AbstractContextManager[None]:
        """While gradients only add up in this process."""
        return self.learner.no_sync() if isinstance(self.learner, DistributedDataParallel) else nullcontext()


def _backward(loss: Tensor) -> None:
    """UserError where the loss differentiates a gradient (LLR), and a layer of the network has none of second order."""
    try:
        loss.backward()
    except RuntimeError as error:
        missing = re.search(r"derivative for (?:aten::)?(\w+?)(?:_backward)? is not implemented", str(error))
        if missing is None:
            raise
        raise UserError(
            f"loss.kind local_linearity differentiates a gradient, which torch cannot for the network's {missing[1]}: choose "
            "another loss or another network."
        ) from None
