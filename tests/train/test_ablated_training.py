"""The loss of all read-outs against the sum written out, and training of each ablation: gradients reach what it has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError

from s3ta.models import ResNetConfig, build_model
from s3ta.train import AdversarialLoss, TrainConfig
from s3ta.train.losses import Learner

from .helpers import crash_and_resume, logged_losses, recipe, run, same_run
from .test_losses import cross_entropy_by_hand

ALL = {"kind": "adversarial", "glimpses": "all"}
CLASSES = torch.tensor([0, 1, 2, 3, 4, 1])
ABLATIONS: dict[str, dict[str, Any]] = {
    "no logits": {"feeds_back_logits": False},
    "scaled": {"scaled_attention": True},
    "no basis": {"num_frequencies": 0},
    "gru": {"cell": "gru"},
    "no queries": {"queries": "none", "num_heads": 1},
    "one glimpse": {"num_glimpses": 1},
}


def ablated(fields: dict[str, Any], **changes: Any) -> TrainConfig:
    whole = recipe(**changes)
    return whole.model_copy(update={"model": whole.model.model_copy(update=fields)})


def pictures() -> torch.Tensor:
    return torch.rand(6, 2, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("num_glimpses", [None, 1, 3])
def test_the_loss_of_all_read_outs_is_their_mean(num_glimpses: int | None) -> None:
    torch.manual_seed(5)
    model = build_model(recipe().model).double()
    loss, right = Learner(model, AdversarialLoss(glimpses="all"), 0.1).train()(None, pictures(), CLASSES, num_glimpses)
    with torch.no_grad():
        logits = model.unroll(pictures(), num_glimpses).logits
    losses = [cross_entropy_by_hand(each, CLASSES, 0.1) for each in logits]
    assert len(losses) == (num_glimpses or 2)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert int(right) == int((logits[-1].argmax(1) == CLASSES).sum())
    last, _ = Learner(model, AdversarialLoss(), 0.1).train()(None, pictures(), CLASSES, num_glimpses)
    assert last.item() == pytest.approx(losses[-1], rel=1e-12)


def test_all_read_outs_need_an_s3ta() -> None:
    with pytest.raises(ValidationError, match=r"loss\.glimpses=all needs an S3TA model"):
        recipe("resnet", loss=ALL)


@pytest.mark.parametrize("changes", [{}, {"batch_norm": {"group": 2}}], ids=str)
def test_it_is_another_training_that_resumes_to_the_same_bits(tmp_path, changes) -> None:
    config = recipe(loss=ALL, schedule={"glimpses": ((0, 1), (3, 2))}, **changes)
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "killed", 4)
    same_run(tmp_path / "whole", tmp_path / "killed")
    run(recipe(schedule={"glimpses": ((0, 1), (3, 2))}, **changes), tmp_path / "last")
    ours, plain = logged_losses(tmp_path / "whole"), logged_losses(tmp_path / "last")
    assert ours[:3] == plain[:3]  # as long as the curriculum has one glimpse
    assert ours[3:] != plain[3:]


@pytest.mark.parametrize("name", ABLATIONS)
def test_gradients_reach_every_weight_that_an_ablated_model_has(name: str) -> None:
    model = build_model(ablated(ABLATIONS[name]).model).double()
    Learner(model, AdversarialLoss(), 0.0).train()(None, pictures(), CLASSES, None)[0].backward()
    dead = {key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert dead == set()


@pytest.mark.parametrize("name", ["gru", "no queries"])
def test_ablated_models_resume_to_the_same_bits(tmp_path, name) -> None:
    config = ablated(ABLATIONS[name])
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "killed", 4)
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_hidden_layer_trains(tmp_path) -> None:
    whole = recipe("resnet")
    assert isinstance(whole.model, ResNetConfig)
    model = run(whole.model_copy(update={"model": whole.model.model_copy(update={"mlp_hidden": 9})}), tmp_path)
    assert model.classifier[0].weight.shape == (9, 64)
    assert logged_losses(tmp_path)[-1] < 2.5
