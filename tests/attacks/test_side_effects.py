"""An attack leaves the world as it was: model, gradients, images, random state (X1, X9), whatever happens."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from s3ta.attacks import Linf, PGDConfig, draw_start, draw_targets, frozen, perturb, pgd, sign_step, untargeted
from s3ta.errors import UserError

from .helpers import Linear, names, pictures, small_s3ta

IMAGES, LABELS = (2, 12, 10), torch.tensor([3, 0, 4])
CONFIG = PGDConfig(num_attack_steps=3, step_size=0.01)


def _attack(model, clean=None, config=CONFIG, **settings):
    clean = pictures(3, IMAGES, dtype=torch.float32) if clean is None else clean
    start = draw_start(config, 0, names(len(clean)), clean)
    return pgd(
        model, clean, LABELS[: len(clean)], config=config, targets=LABELS[: len(clean)], start=start, **settings
    ).final


def _state(model):
    tensors = [*model.named_parameters(), *model.named_buffers()]
    digest = hashlib.sha256(b"".join(name.encode() + t.detach().numpy().tobytes() for name, t in tensors)).hexdigest()
    modes = [module.training for module in model.modules()]
    return digest, modes, [p.requires_grad for p in model.parameters()]


def _mixed_model():
    """Training mode, but for one batch norm; one frozen parameter."""
    model = small_s3ta().train()
    model.vision.net.stages[1].eval()
    model.controller.query[0].weight.requires_grad_(False)
    return model


def test_model_is_left_as_it_was_and_ran_in_eval_mode():
    model = _mixed_model()
    before, seen = _state(model), []
    model.vision.net.norm.register_forward_hook(
        lambda module, *_: seen.append(
            (
                module.training,
                any(m.training for m in model.modules()),
                any(p.requires_grad for p in model.parameters()),
            )
        )
    )
    _attack(model)
    assert seen == [(False, False, False)] * 3
    assert _state(model) == before
    assert len(set(before[1])) == len(set(before[2])) == 2


def test_the_state_would_show_a_pass_in_train_mode():
    model = _mixed_model()
    before = _state(model)
    model(pictures(3, IMAGES, dtype=torch.float32))
    assert _state(model)[0] != before[0]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_model_is_restored_after_an_exception_inside(error):
    model = _mixed_model()
    before, calls = _state(model), []

    def fail(*_):
        calls.append(1)
        if len(calls) == 2:
            raise error("in the middle")

    handle = model.controller.readout.register_forward_hook(fail)
    with pytest.raises(error):
        _attack(model)
    handle.remove()
    assert len(calls) == 2
    assert _state(model) == before


def test_frozen_may_be_nested_and_leaves_functions_alone():
    model = _mixed_model()
    before = _state(model)
    with frozen(model):
        inside = _state(model)
        with frozen(model):
            assert _state(model) == inside
        assert _state(model) == inside
        assert not any(inside[1])
        assert not any(inside[2])
    assert _state(model) == before
    with frozen(torch.sin):
        pass


def test_no_parameter_gets_a_gradient():
    model = small_s3ta()
    final = _attack(model)
    assert all(p.grad is None for p in model.parameters())
    assert not final.requires_grad
    assert final.grad_fn is None
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    _attack(model)
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())


def test_clean_and_start_are_not_touched():
    model, clean = small_s3ta(), pictures(3, IMAGES, dtype=torch.float32).requires_grad_(True)
    start = draw_start(CONFIG, 0, names(3), clean.detach())
    copies = clean.detach().clone(), start.clone()
    attacked = pgd(model, clean, LABELS, config=CONFIG, targets=LABELS, start=start)
    assert torch.equal(clean, copies[0])
    assert torch.equal(start, copies[1])
    assert clean.grad is None
    assert clean.requires_grad
    assert not start.requires_grad
    assert not attacked.images.requires_grad


def test_works_inside_no_grad():
    model = small_s3ta()
    expected = _attack(model)
    with torch.no_grad():
        assert torch.equal(_attack(model), expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_training_mode_gives_the_same_images():
    assert torch.equal(_attack(small_s3ta().train()), _attack(small_s3ta()))


def test_alone_equals_in_a_batch():
    model, clean = small_s3ta(torch.float64).train(), pictures(3, IMAGES)
    together = _attack(model, clean)
    start = draw_start(CONFIG, 0, names(3), clean)
    for i in range(3):
        alone = pgd(
            model, clean[i : i + 1], LABELS[i : i + 1], config=CONFIG, targets=LABELS[i : i + 1], start=start[i : i + 1]
        ).final
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)


def test_traces_and_plain_functions_are_accepted():
    model = small_s3ta()
    expected = _attack(model)
    assert torch.equal(_attack(model.unroll), expected)
    assert torch.equal(_attack(lambda images: model(images)), expected)
    linear = Linear(5).weight.detach()
    clean = pictures(3)
    function = perturb(
        lambda images: torch.einsum("bchw,ychw->by", images, linear),
        clean,
        threat=Linf(0.1),
        objective=untargeted(LABELS),
        step_rule=sign_step(0.03),
        num_attack_steps=2,
    )
    module = perturb(
        Linear(5), clean, threat=Linf(0.1), objective=untargeted(LABELS), step_rule=sign_step(0.03), num_attack_steps=2
    )
    assert torch.equal(function.final, module.final)


def test_any_model_of_others_is_accepted():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(240, 5)
    )
    before = _state(model)
    assert torch.equal(_attack(model), _attack(model))  # dropout is off
    assert _state(model) == before


def test_global_random_state_is_neither_read_nor_moved():
    model, labels = small_s3ta(), torch.arange(3)
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        targets = draw_targets(0, names(3), labels, 5)
        results.append((_attack(model), targets))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(-0.01, "values from -0.01"), (1.01, "to 1.01"), (float("nan"), "not numbers"), (float("inf"), "inf")],
)
def test_images_outside_the_box_are_refused_before_the_model_runs(value, sentence):
    model, clean = Linear(5), pictures(3)
    clean[1, 1, 2, 3] = value
    with pytest.raises(UserError, match=sentence):
        pgd(model, clean, LABELS, config=CONFIG, targets=LABELS, start=clean)
    assert model.calls == 0
