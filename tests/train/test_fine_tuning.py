"""What fine-tuning needs beside given weights: AdamW, a slower backbone, a head that learns alone, mixed labels, drop path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import cross_entropy

from s3ta.attacks import PGDConfig, RandomKey, run_attack
from s3ta.config import override
from s3ta.distributed import Ranks
from s3ta.models import build_model
from s3ta.train import OptimizerConfig, TrainConfig
from s3ta.train.optimizer import build_optimizer
from s3ta.train.prefetch import Prepared
from s3ta.train.step import Trainer, seeded_model

from .helpers import recipe


def trainer(*overrides: str) -> Trainer:
    config = override(recipe(), list(overrides))
    return Trainer(config, seeded_model(config), torch.device("cpu"), Ranks())


def batch(of: Trainer, step: int = 0) -> tuple[Prepared, torch.Tensor]:
    vision = of.config.model.vision
    generator = torch.Generator().manual_seed(0)
    size = (of.config.batch_size, vision.in_channels, vision.image_size, vision.image_size)
    images = torch.rand(size, generator=generator)
    labels = torch.randint(5, (len(images),), generator=generator)
    return Prepared(step, 0, [str(i) for i in range(len(images))], images, labels, None), images


def test_adamw_decays_apart_from_the_gradient() -> None:
    model = build_model(recipe().model)
    config = OptimizerConfig(kind="adamw", learning_rate=0.5, weight_decay=0.1)
    optimizer = build_optimizer(config, model)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in model.named_parameters():
        decayed = value.ndim > 1 and "weight" in name.rpartition(".")[2]
        torch.testing.assert_close(value, before[name] * (0.95 if decayed else 1), msg=name)


def test_the_backbone_moves_by_its_factor() -> None:
    """Under SGD without momentum a parameter moves by the rate times its gradient, so by the factor."""
    plain = ("optimizer.kind=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.learning_rate=0.1")
    moves = []
    for factor in ("1", "0.25"):
        of = trainer(*plain, "optimizer.clip_norm=null", f"optimizer.backbone_factor={factor}")
        before = {name: value.detach().clone() for name, value in of.model.named_parameters()}
        of.update(*batch(of))
        moves.append({name: value.detach() - before[name] for name, value in of.model.named_parameters()})
    for name, moved in moves[0].items():
        factor = 0.25 if name.startswith("vision.") else 1
        torch.testing.assert_close(moves[1][name], factor * moved, rtol=1e-3, atol=1e-7, msg=name)
    assert any(moved.any() for name, moved in moves[0].items() if name.startswith("vision."))


def test_the_head_learns_alone_first() -> None:
    of = trainer("schedule.head_only_steps=2")
    for step in range(3):
        before = {name: value.detach().clone() for name, value in of.model.state_dict().items()}
        of.update(*batch(of, step))
        changed = {name for name, value in of.model.state_dict().items() if not torch.equal(value, before[name])}
        assert any(not name.startswith("vision.") for name in changed)
        assert any(name.startswith("vision.") for name in changed) == (step == 2), step


def test_mixed_images_are_attacked_and_learned_by_the_shares_of_their_classes() -> None:
    """Half of each class: the cross-entropy is the mean of both, for the attack and for the update."""
    torch.manual_seed(0)
    model = build_model(recipe().model).eval()
    vision = model.config.vision
    clean = torch.rand(2, vision.in_channels, vision.image_size, vision.image_size)
    first, second = torch.tensor([0, 1]), torch.tensor([2, 3])
    shares = (torch.nn.functional.one_hot(first, 5) + torch.nn.functional.one_hot(second, 5)).float() / 2
    config = PGDConfig(objective="untargeted", radius=0.1, step_size=0.05, num_attack_steps=1, random_start_prob=0.0)
    draw = RandomKey(0, ("a", "b"), ("test",))
    attacked = run_attack(model, clean, first, config=config, draw=draw, shares=shares).final
    images = clean.clone().requires_grad_()
    logits = model(images)
    (cross_entropy(logits, first) + cross_entropy(logits, second)).backward()
    assert images.grad is not None
    torch.testing.assert_close(attacked, (clean + 0.05 * images.grad.sign()).clamp(0, 1))


def test_mixing_needs_an_attack_that_fits() -> None:
    settings = recipe().model_dump()
    settings["data"]["mixing"] = {"mixup": 0.8}
    settings["attack"]["objective"] = "untargeted"
    TrainConfig.model_validate(settings)
    settings["attack"]["objective"] = "targeted"
    with pytest.raises(ValidationError, match=r"data\.mixing needs attack\.objective=untargeted"):
        TrainConfig.model_validate(settings)


def test_dropped_units_follow_from_the_step_alone(tmp_path: Path) -> None:
    """Two trainers at the same step drop the same; at another step others; torch's own generator is left as it was."""
    settings = ("model.vision.drop_path=0.5",)
    config = recipe()
    vision = config.model.vision.model_copy(
        update={"backbone": "mobilenetv3_small_050", "dense": False, "stem": "conv7_pool", "image_size": 32}
    )
    config = override(
        config.model_copy(update={"model": config.model.model_copy(update={"vision": vision})}), list(settings)
    )
    losses = []
    for step in (5, 5, 6):
        of = Trainer(config, seeded_model(config), torch.device("cpu"), Ranks())
        torch.manual_seed(step * len(losses))
        before = torch.get_rng_state()
        losses.append(of.update(*batch(of, step))[0])
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1] != losses[2]
