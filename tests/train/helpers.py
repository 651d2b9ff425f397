"""A training run of milliseconds: small pictures, a small S3TA, and what its run folder says."""

import json
from contextlib import closing

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from s3ta.attacks import PGDConfig
from s3ta.data import Dataset
from s3ta.distributed import Ranks
from s3ta.models import ResNetConfig, S3TAConfig, VisionConfig
from s3ta.random_streams import stream
from s3ta.train import OptimizerConfig, ScheduleConfig, TrainConfig, TrainingRun, seeded_model, train
from s3ta.train.prefetch import prepared
from s3ta.train.step import Trainer

CPU = torch.device("cpu")


class Pictures(Dataset):
    """n pictures of 2 x 12 x 10 pixels; class y is bright in another corner; drawn anew in training."""

    source, classes, shape, fingerprint = "pictures", tuple("abcde"), (2, 12, 10), "f00d"

    def __init__(self, count=17, split="train"):
        self.split = split
        self.ids = [f"{split}-{i}" for i in range(count)]
        self.labels = np.arange(count) % 5

    def image(self, index, draw=None):
        generator = (
            stream(1, "picture", self.ids[index])
            if draw is None
            else stream(draw[0], "picture", draw[1], self.ids[index])
        )
        picture = generator.integers(0, 120, self.shape)
        label = self.labels[index]
        picture[
            label % 2, 6 * (label // 2 % 2) : 6 * (label // 2 % 2) + 6, 5 * (label // 4) : 5 * (label // 4) + 5
        ] += 130
        return picture.astype(np.uint8)


def recipe(model=None, attack=None, optimizer=None, schedule=None, **changes):
    """7 steps of SGD (4 batches an epoch) against a targeted attack of 2 steps; every part can be changed."""
    vision = VisionConfig(backbone="resnetv2_mini", stem="conv3", in_channels=2, image_size=12)
    head = {"num_glimpses": 2, "key_channels": 7, "lstm_size": 13, "query_hidden": 17, "readout_hidden": 11}
    kinds = {
        "s3ta": lambda: S3TAConfig(name="tiny", num_classes=5, vision=vision, **head),
        "resnet": lambda: ResNetConfig(name="tiny", num_classes=5, vision=vision),
    }
    return TrainConfig(
        name="test/tiny",
        model=kinds[model or "s3ta"](),
        attack=PGDConfig(
            **{"radius": 0.1, "step_size": 0.03, "num_attack_steps": 2, "random_start_prob": 0.8} | (attack or {})
        ),
        optimizer=OptimizerConfig(**{"learning_rate": 0.05} | (optimizer or {})),
        schedule=ScheduleConfig(**{"num_train_steps": 7} | (schedule or {})),
        **{"batch_size": 4, "log_every": 1, "validate_every": 3, "checkpoint_every": 2, "num_threads": 1} | changes,
    )


def silent(completed, note=""):
    """A reporter that says nothing."""


def run(config, folder, report=silent, data=None, validation=None):
    folder.mkdir(parents=True, exist_ok=True)
    whole = TrainingRun(config, folder, data or Pictures(), validation or Pictures(6, "validation"), CPU)
    return train(whole, report)


def curve(folder):
    """The learning curve, one JSON text per line, without the only fields that may differ: the times."""
    lines = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [
        json.dumps({key: value for key, value in line.items() if key not in ("seconds", "speed")}) for line in lines
    ]


def logged_losses(folder):
    return [line["loss"] for line in map(json.loads, curve(folder)) if line["kind"] == "train"]


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def same_run(one, other):
    """Final weights and learning curve are the same, byte for byte."""
    assert weights(one) == weights(other)
    assert curve(one) == curve(other)
    state = [load_file(folder / "checkpoint.safetensors") for folder in (one, other)]
    assert state[0].keys() == state[1].keys()
    assert all(torch.equal(state[0][key], state[1][key]) for key in state[0])


def snapshot(folder):
    """Every file below the folder, but for the lock, with its content and time."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def stepping(config, *, double=True, step=0, data=None):
    """The trainer of a recipe with its first weights (in float64 unless said), and what step `step` needs."""
    model = seeded_model(config)
    trainer = Trainer(config, model.double() if double else model, CPU, Ranks())
    with closing(prepared(config, data or Pictures(33), step, CPU, Ranks())) as coming:
        return trainer, next(coming)


def noisy(images, radius=0.1, seed=0):
    """Other images near these: what stands for attacked ones where any will do."""
    return (images + radius * (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(seed)) - 1)).clamp(
        0, 1
    )


def state_of(model):
    """A copy of weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


PLAIN = {"learning_rate": 1.0, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
"""An optimizer whose step is minus the gradient."""


def moved(before, trainer):
    """By name, what an update with `PLAIN` took off each weight: the gradient."""
    return {name: before[name] - value.detach() for name, value in trainer.model.named_parameters()}


def same(ours, theirs, tolerance=1e-12):
    """Tensors by name agree to `tolerance` of the largest number among them."""
    scale = max(value.abs().max().item() for value in theirs.values())
    assert scale > 0
    for name, value in theirs.items():
        assert (ours[name] - value).abs().max().item() <= tolerance * scale, name


class Crash(BaseException):
    """Stands for a kill inside the process."""


def crash_at(step):
    """A reporter that kills the run after that step."""

    def report(completed, note=""):
        if completed == step and note:
            raise Crash

    return report


def crash_and_resume(config, folder, *steps):
    """The run to its end, killed after each of these steps and begun again."""
    for step in steps:
        with pytest.raises(Crash):
            run(config, folder, crash_at(step))
    run(config, folder)
