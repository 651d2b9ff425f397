"""Traps that are about a whole attack on a whole model: masked gradients (X37), wrappers for many processes (X39)."""

import numpy as np
import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from s3ta.attacks import (
    PGDConfig,
    RandomKey,
    autograd_gradient,
    draw_targets,
    frozen_in_eval_mode,
    run_attack,
    untargeted,
)
from s3ta.errors import UserError

from .helpers import Linear, names, pictures, small_s3ta

IMAGES = (2, 12, 10)


def _untargeted(radius, **settings):
    return PGDConfig(objective="untargeted", radius=radius, step_size=radius / 8, num_attack_steps=40, **settings)


def test_x37_attention_masks_no_gradient_and_a_large_radius_breaks_everything():
    model, clean = small_s3ta(), pictures(32, IMAGES, dtype=torch.float32)
    with torch.no_grad():
        labels = model(clean).argmax(1)
    with frozen_in_eval_mode(model):
        gradient = autograd_gradient(model, untargeted(labels), clean).gradient
    assert (gradient.flatten(1).abs().amax(1) == 0).sum() == 0, "an image without any gradient"
    draw = RandomKey(0, tuple(names(32)), ("x37",))
    right = []
    for radius in (1 / 255, 0.1, 1.0):
        final = run_attack(model, clean, labels, config=_untargeted(radius, loss="margin"), draw=draw).final
        with torch.no_grad():
            right.append(int((model(final).argmax(1) == labels).sum()))
    assert right[0] >= right[1] >= right[2] == 0, "success rises with the radius, to all"


def test_x37_a_saturated_model_shows_as_images_without_gradient():
    model, clean = Linear(3), pictures(32)
    with torch.no_grad():
        labels = model(clean).argmax(1)
        model.weight.mul_(1e5)
    gradient = autograd_gradient(model, untargeted(labels), clean).gradient
    assert (gradient.flatten(1).abs().amax(1) == 0).sum() > 16


@pytest.fixture
def one_process(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_x39_an_attack_goes_round_the_wrapper_for_many_processes(one_process, monkeypatch):
    model, clean, labels = small_s3ta().train(), pictures(3, IMAGES, dtype=torch.float32), torch.tensor([3, 0, 4])
    wrapped = DistributedDataParallel(model)
    called = []
    monkeypatch.setattr(DistributedDataParallel, "forward", lambda *_, **__: called.append(1))
    draw = RandomKey(0, tuple(names(3)), ("x39",))
    attacked = run_attack(wrapped, clean, labels, config=_untargeted(0.1), draw=draw)
    alone = run_attack(model, clean, labels, config=_untargeted(0.1), draw=draw)
    assert not called
    assert torch.equal(attacked.final, alone.final)
    assert all(p.grad is None for p in model.parameters())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_draws_and_targets_that_are_missing_or_too_few_are_one_sentence():
    model, clean, labels = Linear(5), pictures(4), torch.tensor([3, 0, 4, 1])
    with pytest.raises(UserError, match="needs targets"):
        run_attack(model, clean, labels, config=PGDConfig(), start=clean)
    with pytest.raises(UserError, match="give `draw`"):
        run_attack(model, clean, labels, config=_untargeted(0.1))
    with pytest.raises(UserError, match="names 1 examples, but there are 4 images"):
        run_attack(model, clean, labels, config=_untargeted(0.1), draw=RandomKey(0, ("one",)))


def test_eight_bit_needs_clean_images_of_eight_bits_and_judges_what_is_saved():
    model, clean, labels = Linear(5), pictures(4), torch.tensor([3, 0, 4, 1])
    config = _untargeted(0.1, eight_bit=True, keep="best")
    draw = RandomKey(0, tuple(names(4)), ("8",))
    with pytest.raises(UserError, match="8 bits"):
        run_attack(model, clean, labels, config=config, draw=draw)
    clean = (clean * 255).round() / 255
    targets = draw_targets(0, names(4), labels, 5)
    final = run_attack(model, clean, labels, config=config, targets=targets, draw=draw).final
    saved = torch.from_numpy((final * 255).round().numpy().astype(np.uint8)).to(final) / 255
    torch.testing.assert_close(final, saved, rtol=0, atol=1e-15)
    assert 24.5 / 255 < (final - clean).abs().max() <= 25 / 255 + 1e-9, "0.1 is 25.5 of 255: 25 at most"
