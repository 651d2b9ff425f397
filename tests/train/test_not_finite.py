"""A number that is not finite, wherever it comes up, stops the run with one sentence; what was good is kept."""

import pytest
import torch
from safetensors.torch import load_file

from s3ta.errors import UserError
from s3ta.train import loop, losses, seeded_model
from s3ta.train.step import DivergedError

from .helpers import logged_losses, noisy, recipe, run, same_run, state_of, stepping

STEP = 4


def _loss(monkeypatch):
    """NaN logits in the update of that step."""
    real, calls = losses.final_logits, []

    def poisoned(outputs):
        calls.append(1)
        return real(outputs) * (float("nan") if len(calls) == STEP + 1 else 1)

    monkeypatch.setattr(losses, "final_logits", poisoned)
    return f"The loss is nan at training step {STEP}"


def _gradient(monkeypatch):
    """The loss is right, its gradient NaN."""
    real, calls = losses.final_logits, []

    def poisoned(outputs):
        calls.append(1)
        logits = real(outputs)
        return logits + (logits * 0).sqrt() if len(calls) == STEP + 1 else logits  # value 0, gradient 0 * inf

    monkeypatch.setattr(losses, "final_logits", poisoned)
    return f"The gradient's norm is nan at training step {STEP}"


def _attack(monkeypatch):
    """The model's answers while it is attacked."""
    seen = []

    def build(config):
        model = seeded_model(config)
        model.register_forward_pre_hook(lambda module, _: seen.append(1) if module.training else None)
        model.register_forward_hook(
            lambda module, _, logits: logits * float("nan") if not module.training and len(seen) == STEP else logits
        )
        return model

    monkeypatch.setattr(loop, "seeded_model", build)
    return f"The attack's gradient is not finite at training step {STEP}"


@pytest.mark.parametrize("poison", [_loss, _gradient, _attack])
@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_the_run_stops_with_one_sentence_and_goes_on_from_the_last_good_state(tmp_path, monkeypatch, poison, averaging):
    config = recipe(checkpoint_every=3, validate_every=99, averaging={"decay": averaging})
    run(config, tmp_path / "whole")
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        words = poison(patch)
        with pytest.raises(UserError) as caught:
            run(config, folder)
    said = str(caught.value)
    assert said.startswith(words)
    assert "lower optimizer.learning_rate or with optimizer.clip_norm" in said
    assert str(folder / "checkpoint.safetensors") in said
    assert "\n" not in said
    assert len(logged_losses(folder)) == STEP
    assert not (folder / "model").exists()
    kept = load_file(folder / "checkpoint.safetensors")
    assert all(value.isfinite().all() for value in kept.values() if value.is_floating_point())
    run(config, folder)
    same_run(tmp_path / "whole", folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_average_and_momentum_are_those_before_the_step(bad):
    trainer, batch = stepping(recipe(averaging={"decay": 0.5}), double=False)
    trainer.update(batch, noisy(batch.clean))
    before, average = state_of(trainer.model), state_of(trainer.average)
    momentum = [state["momentum_buffer"].clone() for state in trainer.optimizer.state.values()]
    with pytest.raises(DivergedError):
        trainer.update(batch, batch.clean * bad)
    names = dict(trainer.model.named_parameters())
    assert all(torch.equal(value, before[name]) for name, value in names.items())
    assert all(torch.equal(value, average[name]) for name, value in trainer.average.state_dict().items())
    after = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(momentum, after, strict=True))
