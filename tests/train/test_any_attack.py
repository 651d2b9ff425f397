"""Any attack per recipe, the ramp of its strength, and who it may call: the model, never what processes share (X39)."""

import copy
import json
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from s3ta.attack_config import AdamConfig
from s3ta.distributed import Ranks
from s3ta.train import step as step_module
from s3ta.train.config import ScheduleConfig, TrainConfig
from s3ta.train.schedule import attack_at
from s3ta.train.step import Trainer
from tests.attacks.table import IN_THE_LOOP

from .helpers import CPU, Pictures, crash_and_resume, curve, logged_losses, recipe, run, same_run, stepping

ADAM = AdamConfig(radius=0.1, num_attack_steps=3, learning_rates=((0, 0.05), (2, 0.01)), random_start_prob=0.8)
TRAINED = ["l2", "margin", "all glimpses", "more glimpses", "eot", "divergence", "drawn", "steered onto"]
TRAINED += ["masked l2 with momentum"]
ATTACKS = {"adam": ADAM} | {name: IN_THE_LOOP[name] for name in TRAINED}


def _with(attack, **changes):
    return recipe(**changes).model_copy(update={"attack": attack})


@pytest.mark.parametrize("name", ATTACKS)
def test_any_attack_trains_validates_and_resumes(tmp_path, name):
    config = _with(ATTACKS[name], schedule={"num_train_steps": 5, "radius_ramp_steps": 2})
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "crashed", 3)
    same_run(tmp_path / "whole", tmp_path / "crashed")
    radii = [line["radius"] for line in map(json.loads, curve(tmp_path / "whole")) if line["kind"] == "train"]
    assert radii == pytest.approx([config.attack.radius * share for share in (0.5, 1, 1, 1, 1)])
    assert len({*logged_losses(tmp_path / "whole")}) == 5


@pytest.mark.parametrize("name", ATTACKS)
def test_training_images_of_every_attack_stay_in_its_ball(name):
    trainer, batch = stepping(_with(ATTACKS[name]))
    change = trainer.attack(batch) - batch.clean
    length = change.flatten(1).norm(dim=1) if ATTACKS[name].norm == "l2" else change.abs().amax((1, 2, 3))
    assert (length <= ATTACKS[name].radius + 1e-5).all()
    assert (length > 0.3 * ATTACKS[name].radius).all()


def test_the_ramp_scales_all_rates_of_adam_with_its_radius():
    schedule = ScheduleConfig(clean_steps=1, radius_ramp_steps=4)
    attacks = [attack_at(schedule, ADAM, step) for step in range(6)]
    assert attacks[0] is None
    for attack, share in zip(attacks[1:], (0.25, 0.5, 0.75, 1, 1), strict=True):
        assert attack.radius == pytest.approx(0.1 * share)
        assert [since for since, _ in attack.learning_rates] == [0, 2]
        assert [rate for _, rate in attack.learning_rates] == pytest.approx([0.05 * share, 0.01 * share])
        rest = {"radius": 0.1, "learning_rates": ADAM.learning_rates}
        assert attack.model_copy(update=rest) == ADAM
    assert attacks[5] == ADAM


def test_the_divergence_needs_a_random_start():
    with pytest.raises(
        ValueError, match=r"objective divergence is flat at the clean image: set attack\.random_start_prob=1"
    ):
        recipe(attack={"objective": "divergence", "random_start_prob": 0.8})


def test_a_recipe_with_another_attack_comes_back_from_its_json():
    config = _with(ADAM)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


# --- who is called ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Two(Ranks):
    """The first of two processes, whose other one does just the same."""

    count: int = 2

    def total(self, *values: float) -> tuple[float, ...]:
        return tuple(2 * value for value in values)


class Wrapper(nn.Module):
    """Stands for DistributedDataParallel: notes each forward pass, and whether gradients are exchanged after it."""

    def __init__(self, module, **_):
        super().__init__()
        self.module, self.calls, self._exchanging = module, [], True

    def forward(self, *args):
        self.calls.append(self._exchanging)
        return self.module(*args)

    @contextmanager
    def no_sync(self):
        self._exchanging = False
        yield
        self._exchanging = True


@pytest.fixture
def wrapped(monkeypatch):
    monkeypatch.setattr(step_module, "DistributedDataParallel", Wrapper)

    def make(config):
        alone, batch = stepping(config.model_copy(update={"batch_size": config.batch_size // 2}))
        trainer = Trainer(config, copy.deepcopy(alone.model), CPU, Two())
        trainer.learner.calls.clear()
        return trainer, batch

    return make


def test_x39_the_attack_never_calls_what_processes_share(wrapped):
    config = recipe(batch_size=16, batch_norm={"group": 2})
    trainer, batch = wrapped(config)
    attacked = trainer.attack(batch)
    assert trainer.learner.calls == []
    assert (attacked - batch.clean).abs().max() > 0.01
    trainer.update(batch, attacked)
    assert trainer.learner.calls == [False, False, False, True]  # gradients travel once, with the last group


def test_x39_validation_never_calls_what_processes_share(wrapped, tmp_path):
    trainer, _ = wrapped(recipe(batch_size=8))
    from s3ta.train.validation import validate

    validate(trainer.result, Pictures(6, "validation"), trainer.config, 3)
    assert trainer.learner.calls == []


def test_sums_of_a_step_are_over_all_processes(wrapped):
    config = recipe(batch_size=16)
    trainer, batch = wrapped(config)
    alone, _ = stepping(recipe(batch_size=8))
    loss_sum, right = trainer.update(batch, batch.clean)
    own_sum, own_right = alone.update(batch, batch.clean)
    assert loss_sum == pytest.approx(2 * own_sum)
    assert right == 2 * own_right
    with torch.no_grad():
        for mine, its in zip(trainer.model.parameters(), alone.model.parameters(), strict=True):
            torch.testing.assert_close(mine, its)
