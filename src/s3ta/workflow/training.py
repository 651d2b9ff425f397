"""Train a recipe in its run folder, alone or as one process of a `torchrun`, with an estimate before it starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch

from s3ta.config import changed
from s3ta.data import (
    Dataset,
    check_model_fits_data,
    folder_summary,
    open_dataset,
    resolve_source,
    steps_per_epoch,
    without_unreadable,
)
from s3ta.distributed import Ranks, own_device, ranks
from s3ta.errors import UserError
from s3ta.files import check_space, sole_use, write_json
from s3ta.models import count_cost, num_parameters
from s3ta.progress import console, progress, waiting
from s3ta.train import (
    CurveWriter,
    TensorBoard,
    TrainConfig,
    TrainingRun,
    batch_norm_groups,
    check_tensorboard,
    count_flops,
    run_folder,
    seeded_model,
    train,
)
from s3ta.train.start import StartingWeights, with_start
from s3ta.train.validation import evenly_spaced
from s3ta.workflow.cost_estimate import about
from s3ta.workflow.fit_data_to_model import say
from s3ta.workflow.model import RuntimeOptions, device_at

LEFT_OUT_FILE = "left_out.json"
"""In the run folder: what lies in a data folder and is not trained on."""
_PATIENCE = timedelta(hours=1)
"""How long a process waits for the slowest at any one step, validation and saving included."""


class _Ready(NamedTuple):
    """A recipe's model and data, opened and checked against each other."""

    recipe: TrainConfig
    out: Path
    data: Dataset
    validation: Dataset
    device: torch.device
    num_parameters: int
    start: StartingWeights | None
    """Weights to begin with."""
    is_claimed: bool
    """Whether the run folder is this recipe's own already."""


def train_run(
    recipe: TrainConfig, out: Path, runtime: RuntimeOptions, *, tensorboard: bool = False, extend: bool = False
) -> bool | None:
    """Train a recipe in its run folder, from wherever it stands. Returns whether there was anything left to do; None in
    processes of `torchrun` that have nothing to say.

    `extend`: whether a run that is there may go on to more training steps than it was begun with; nothing else may differ.
    Under `torchrun` all processes share the batches; the first one writes and speaks for all.

    Raises UserError for a folder of another recipe, data or processes that do not fit, too little space, and all that
    `train` raises."""
    with ranks(_PATIENCE) as rank, _ends_of_others_named(rank):
        ready = error = None
        try:
            with waiting("opening the data"):
                ready = _ready(recipe, out, runtime, extend, rank)
        except UserError as problem:
            error = problem
        rank.together(error)
        assert ready is not None
        recipe = ready.recipe
        is_due = not (ready.is_claimed and run_folder.is_finished(out)) or run_folder.is_longer(out, recipe)
        if is_due:
            with ExitStack() as held:
                board = _begin(held, ready, rank, tensorboard, extend) if rank.is_first else None
                if not rank.agree(True):
                    raise SystemExit(2)
                num_steps = recipe.schedule.num_train_steps
                report = held.enter_context(progress(recipe.name, num_steps, shown=rank.is_first))
                run = TrainingRun(
                    recipe, out, ready.data, ready.validation, ready.device, ready.start and ready.start.state
                )
                train(run, report, rank, board)
        return is_due if rank.is_first else None


@contextmanager
def _ends_of_others_named(rank: Ranks) -> Iterator[None]:
    """UserError where torch loses another process."""
    try:
        yield
    except RuntimeError as error:
        if rank.count > 1 and any(word in str(error) for word in ("onnection", "Socket", "NCCL", "peer")):
            raise UserError(
                "Another process of this run has ended: the run goes on from its last checkpoint when torchrun starts "
                "it again (--max-restarts), or with the same command."
            ) from None
        raise


def _begin(held: ExitStack, ready: _Ready, rank: Ranks, tensorboard: bool, extend: bool) -> CurveWriter | None:
    """The folder is claimed and held, and it is said how long the run will take."""
    recipe, out, left_out = ready.recipe, ready.out, ready.data.left_out
    try:
        if tensorboard:
            check_tensorboard()
        if not (out / run_folder.NAME).exists():
            run_folder.refuse_lost_checkpoint(out)
        check_space(out, _bytes_needed(recipe, ready.num_parameters, out))
        held.enter_context(sole_use(out))
        run_folder.clear_leftovers(out)
        run_folder.init_run_folder(out, recipe, on_gpu=ready.device.type == "cuda", extend=extend)
        say("warning" if left_out.empty else "note", folder_summary(ready.data))
        if ready.start is not None and recipe.start is not None:
            console.print(ready.start.sentence(recipe.start.weights))
        if reasons := left_out.as_json():
            write_json(out / LEFT_OUT_FILE, reasons)
        board = TensorBoard(out) if tensorboard else None
    except UserError:
        rank.agree(False)
        raise
    with waiting("measuring how long a pass takes here"):
        seconds = _training_seconds(recipe, ready.data, ready.device) / rank.count
    among = f" on {rank.count} processes" if rank.count > 1 else ""
    console.print(
        f"{recipe.name}: {recipe.schedule.num_train_steps} training steps, {about(seconds)} here{among} from the first "
        "to the last"
    )
    return board


def _ready(recipe: TrainConfig, out: Path, runtime: RuntimeOptions, extend: bool, rank: Ranks) -> _Ready:
    """All that can be found wrong before anything is written. The same in all processes."""
    batch_norm_groups(recipe, rank.count)
    with torch.device("meta"):
        model = seeded_model(recipe)
    located = resolve_source(recipe.data.source, runtime.data_root)
    recipe = changed(recipe, {"data": {"source": located.source}})
    recipe, start = with_start(recipe, out)
    device = own_device(device_at(runtime))
    claimed = run_folder.is_claimed(out, recipe, on_gpu=device.type == "cuda", extend=extend)
    data, validation = (
        open_dataset(recipe.data, split, located.root, runtime.download) for split in ("train", "validation")
    )
    if recipe.data.on_unreadable == "skip":
        validation = without_unreadable(validation, evenly_spaced(len(validation.ids)))
    vision = recipe.model.vision
    check_model_fits_data(
        data, channels=vision.in_channels, num_classes=recipe.model.num_classes, image_size=vision.image_size
    )
    if recipe.model.num_classes < 2:
        raise UserError(
            f"{recipe.data.source} has one class, '{data.classes[0]}': there is nothing to tell apart. Training needs a folder "
            "for each of two or more classes, train/CLASS/*, and model.num_classes set to their number."
        )
    steps_per_epoch(data, recipe.batch_size)
    return _Ready(recipe, out, data, validation, device, num_parameters(model), start, claimed)


def _bytes_needed(recipe: TrainConfig, num_parameters: int, out: Path) -> int:
    """Disk space for what is still to be written: checkpoint (beside the one it replaces), milestones and models, float32."""
    model = 4 * num_parameters
    checkpoint = model * (1 + recipe.optimizer.num_moments + (recipe.averaging.decay > 0))
    names = set(run_folder.milestones(recipe.schedule.num_train_steps).values())
    missing = sum(not run_folder.is_whole(out / run_folder.MILESTONES / name) for name in names)
    return 2 * checkpoint + model + missing * (checkpoint + model)


def _training_seconds(recipe: TrainConfig, data: Dataset, device: torch.device) -> float:
    """Seconds for one process, from the measured time of one forward pass."""
    if recipe.num_threads:
        torch.set_num_threads(recipe.num_threads)
    model = seeded_model(recipe).to(device).eval()
    at_once = min(recipe.batch_size, recipe.batch_norm.group or 64)
    images = torch.zeros(at_once, *data.shape, device=device)
    with torch.no_grad():
        model(images).sum().item()  # warm-up
        began = time.perf_counter()
        model(images).sum().item()
        forward = (time.perf_counter() - began) / at_once
    return forward * count_flops(recipe).total / (2 * count_cost(recipe.model).multiply_accumulates)
