"""Adversarial weight perturbation and the moving average: against formulas written out, and across interruptions."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from s3ta.errors import UserError
from s3ta.models import from_pretrained
from s3ta.train import loop, losses
from s3ta.train.awp_and_ema import move_average, perturbed
from s3ta.train.optimizer import decayed

from .helpers import PLAIN, Crash, crash_and_resume, moved, noisy, recipe, run, same, same_run, state_of, stepping

AWP = {"gamma": 0.01}


def _with_gradients(config):
    trainer, batch = stepping(config)
    trainer.learner.train()
    trainer.own_learner(None, batch.clean, batch.labels, None)[0].backward()
    return trainer.model


@pytest.mark.parametrize("kind", ["s3ta", "resnet"])
@pytest.mark.parametrize("gamma", [0.005, 0.3])
def test_each_kernel_moves_along_its_gradient_by_gamma_of_its_own_norm(kind, gamma):
    model = _with_gradients(recipe(kind))
    before, names = state_of(model), decayed(model)
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    with perturbed(model, gamma):
        for name, value in model.state_dict().items():
            if name not in names:
                assert torch.equal(value, before[name]), name  # biases, BN, initial state, averages
                continue
            w, g = before[name], gradients[name]
            length = sum(x * x for x in w.flatten().tolist()) ** 0.5
            slope = sum(x * x for x in g.flatten().tolist()) ** 0.5
            torch.testing.assert_close(value - w, gamma * length / slope * g, rtol=1e-9, atol=1e-13, msg=name)
            assert (value - w).norm().item() == pytest.approx(gamma * length, rel=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_weights_come_back_bit_for_bit_after_an_exception_too():
    model = _with_gradients(recipe())
    before = state_of(model)
    name = "vision.net.stem.conv.weight"

    def fail():
        assert not torch.equal(model.state_dict()[name], before[name])
        raise Crash

    with pytest.raises(Crash), perturbed(model, 0.5):
        fail()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_kernel_without_slope_stays_where_it_is():
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(1e3)  # its norm over the smallest float would overflow
    model.weight.grad = torch.zeros_like(model.weight)
    with perturbed(model, 1.0):
        assert torch.equal(model.weight, torch.full_like(model.weight, 1e3))


@pytest.mark.parametrize("group", [None, 2])
def test_a_step_takes_the_gradient_of_the_perturbed_weights_from_where_it_was(group):
    config = recipe("resnet", optimizer=PLAIN, weight_perturbation=AWP, batch_norm={"group": group})
    plain = recipe("resnet", optimizer=PLAIN, batch_norm={"group": group})
    trainer, batch = stepping(config)
    attacked, before, names = noisy(batch.clean), state_of(trainer.model), decayed(trainer.model)
    trainer.update(batch, attacked)

    first, _ = stepping(plain)
    first.update(batch, attacked)
    slope = moved(before, first)
    second, _ = stepping(plain)
    worse = {n: v + 0.01 * v.norm() / slope[n].norm() * slope[n] if n in names else v for n, v in before.items()}
    second.model.load_state_dict(worse)
    second.update(batch, attacked)
    same(moved(before, trainer), moved(worse, second))
    with pytest.raises(AssertionError):
        same(moved(before, trainer), slope, 1e-4)
    # The averages of BN moved in the second pass alone.
    for (name, ours), theirs in zip(trainer.model.named_buffers(), second.model.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12, msg=name)


def test_weight_perturbation_begins_at_the_step_of_the_recipe(tmp_path):
    late = recipe("resnet", weight_perturbation=AWP | {"from_step": 4})
    for name, config in (
        ("plain", recipe("resnet")),
        ("late", late),
        ("at once", recipe("resnet", weight_perturbation=AWP)),
    ):
        run(config, tmp_path / name)
    plain, late, always = (
        [
            line["loss"]
            for line in map(json.loads, (tmp_path / name / "train.jsonl").read_text().splitlines())
            if line["kind"] == "train"
        ]
        for name in ("plain", "late", "at once")
    )
    assert late[:4] == plain[:4]
    assert late[4] > plain[4]  # where the weights hurt most nearby
    assert always[0] > plain[0]


def test_a_loss_that_is_not_finite_under_perturbation_leaves_the_weights_alone(monkeypatch):
    trainer, batch = stepping(recipe(weight_perturbation=AWP))
    before, calls, real = state_of(trainer.model), [], losses.final_logits

    def poisoned(outputs):
        calls.append(1)
        return real(outputs) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(losses, "final_logits", poisoned)
    with pytest.raises(Exception, match="The loss is nan"):
        trainer.update(batch, noisy(batch.clean))
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.named_parameters())


# --- the moving average --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_the_average_is_the_recursion_written_out(decay):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()
    generator = torch.Generator().manual_seed(0)
    average = copy.deepcopy(model)
    expected = {name: value.clone() for name, value in model.named_parameters()}
    for step in range(30):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(torch.randn(value.shape, generator=generator, dtype=torch.float64))
        move_average(average, model, decay, step)
        keep = min(decay, (1 + step) / (10 + step))
        expected = {n: keep * expected[n] + (1 - keep) * p for n, p in model.named_parameters()}
        for name, value in average.named_parameters():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12)
        for mine, its in zip(average.buffers(), model.buffers(), strict=True):
            assert torch.equal(mine, its)


AVERAGED = recipe(averaging={"decay": 0.7}, schedule={"num_train_steps": 8})


class Weights:
    """Keeps the weights after each update of a run, and what was validated."""

    def __init__(self, monkeypatch):
        self.models, self.validated = [], []
        real_trainer, real_validate = loop.Trainer, loop.validate

        def trainer(*args):
            made = real_trainer(*args)
            self.first = state_of(made.model)
            made.optimizer.register_step_post_hook(lambda *_: self.models.append(state_of(made.model)))
            return made

        def validate(model, *args):
            self.validated.append(state_of(model))
            return real_validate(model, *args)

        monkeypatch.setattr(loop, "Trainer", trainer)
        monkeypatch.setattr(loop, "validate", validate)


def test_the_average_is_validated_and_saved_and_both_are_in_the_checkpoint(tmp_path, monkeypatch):
    seen = Weights(monkeypatch)
    trained = run(AVERAGED, tmp_path)
    parameters = dict(trained.named_parameters())
    average = {name: value.double() for name, value in seen.first.items() if name in parameters}
    averages = []
    for step, weights in enumerate(seen.models):
        keep = min(0.7, (1 + step) / (10 + step))
        average = {name: keep * value + (1 - keep) * weights[name] for name, value in average.items()}
        averages.append(average)
    found = from_pretrained(tmp_path).state_dict()
    for name, value in averages[-1].items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6, msg=name)
        torch.testing.assert_close(seen.validated[0][name].double(), averages[2][name], rtol=1e-5, atol=1e-6, msg=name)
    kept = load_file(tmp_path / "checkpoint.safetensors")
    for name, value in found.items():
        assert torch.equal(kept[f"average.{name}"], value)
        assert torch.equal(trained.state_dict()[name], value)
        assert torch.equal(kept[f"model.{name}"], seen.models[-1][name])
    moved_apart = max((kept[f"model.{name}"] - found[name]).abs().max().item() for name in parameters)
    assert moved_apart > 1e-4


def test_averaging_does_not_change_the_training(tmp_path):
    run(AVERAGED, tmp_path / "averaged")
    run(recipe(schedule={"num_train_steps": 8}), tmp_path / "plain")
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("averaged", "plain"))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert (tmp_path / "averaged/model/model.safetensors").read_bytes() != (
        tmp_path / "plain/model/model.safetensors"
    ).read_bytes()


TRICKS = AVERAGED.model_copy(
    update={"weight_perturbation": recipe(weight_perturbation=AWP | {"from_step": 2}).weight_perturbation}
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(TRICKS, folder)
    return folder


@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_after_any_step_changes_neither_weights_nor_average(whole, tmp_path, step):
    crash_and_resume(TRICKS, tmp_path, step)
    same_run(whole, tmp_path)


def test_a_checkpoint_without_its_average_is_refused(tmp_path):
    plain = recipe(schedule={"num_train_steps": 8})
    trainer, _ = stepping(AVERAGED, double=False)
    run(plain, tmp_path)
    from s3ta.config import config_hash
    from s3ta.train.checkpoint import load_checkpoint

    with pytest.raises(UserError, match=r"the model has"):
        load_checkpoint(tmp_path / "checkpoint.safetensors", trainer.state, f"{config_hash(plain)}/f00d")
