"""An attack leaves the world as it was: model, gradients, images, random state (X1, X9, X13), whatever happens."""

import hashlib
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from s3ta.attacks import (
    Attack,
    Linf,
    PGDConfig,
    RandomKey,
    draw_start,
    draw_targets,
    frozen_in_eval_mode,
    gradient_ascent,
    run_attack,
    sign_step,
    untargeted,
)
from s3ta.errors import UserError

from .helpers import Linear, few_cases, names, pictures, small_s3ta
from .table import IN_THE_LOOP as ATTACKS

IMAGES, LABELS, TARGETS = (2, 12, 10), torch.tensor([3, 0, 4]), torch.tensor([1, 2, 0])
CONFIG = PGDConfig(num_attack_steps=3, step_size=0.01)


def _attack(model, clean=None, config=CONFIG, **settings):
    clean = pictures(3, IMAGES, dtype=torch.float32) if clean is None else clean
    start = draw_start(config, 0, names(len(clean)), clean)
    return run_attack(
        model, clean, LABELS[: len(clean)], config=config, targets=TARGETS[: len(clean)], start=start, **settings
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


def test_a_pass_in_train_mode_changes_the_compared_state():
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
    with frozen_in_eval_mode(model):
        inside = _state(model)
        with frozen_in_eval_mode(model):
            assert _state(model) == inside
        assert _state(model) == inside
        assert not any(inside[1])
        assert not any(inside[2])
    assert _state(model) == before
    with frozen_in_eval_mode(torch.sin):
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
    attacked = run_attack(model, clean, LABELS, config=CONFIG, targets=TARGETS, start=start)
    assert torch.equal(clean, copies[0])
    assert torch.equal(start, copies[1])
    assert clean.grad is None
    assert clean.requires_grad
    assert not start.requires_grad
    assert not attacked.images.requires_grad


def test_an_attack_works_inside_no_grad():
    model = small_s3ta()
    expected = _attack(model)
    with torch.no_grad():
        assert torch.equal(_attack(model), expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_model_in_training_mode_gets_the_same_images():
    assert torch.equal(_attack(small_s3ta().train()), _attack(small_s3ta()))


def test_an_image_alone_is_attacked_as_in_a_batch():
    model, clean = small_s3ta(torch.float64).train(), pictures(3, IMAGES)
    together = _attack(model, clean)
    start = draw_start(CONFIG, 0, names(3), clean)
    for i in range(3):
        alone = run_attack(
            model,
            clean[i : i + 1],
            LABELS[i : i + 1],
            config=CONFIG,
            targets=TARGETS[i : i + 1],
            start=start[i : i + 1],
        ).final
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)


def test_traces_and_plain_functions_are_accepted():
    model = small_s3ta()
    expected = _attack(model)
    assert torch.equal(_attack(model.unroll), expected)
    assert torch.equal(_attack(lambda images: model(images)), expected)
    linear = Linear(5).weight.detach()
    clean = pictures(3)
    function = gradient_ascent(
        lambda images: torch.einsum("bchw,ychw->by", images, linear),
        clean,
        Attack(threat=Linf(0.1), objective=untargeted(LABELS), step_rule=sign_step(0.03), num_attack_steps=2),
    )
    module = gradient_ascent(
        Linear(5),
        clean,
        Attack(threat=Linf(0.1), objective=untargeted(LABELS), step_rule=sign_step(0.03), num_attack_steps=2),
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
        run_attack(model, clean, LABELS, config=CONFIG, targets=TARGETS, start=clean)
    assert model.calls == 0


# --- every kind of attack, as a property ------------------------------------------------------------------------------


def _run(model, name, clean=None, restart=0):
    config = ATTACKS[name]
    clean = pictures(3, IMAGES, dtype=torch.float32) if clean is None else clean
    clean = (clean * 255).round() / 255 if config.eight_bit else clean
    draw = RandomKey(0, tuple(names(3)), (name, restart), restart)
    outputs_fn = model.unroll if config.needs_trace else model
    return run_attack(outputs_fn, clean, LABELS, config=config, targets=TARGETS, draw=draw)


def _random_states():
    """Of torch and numpy. Python's own cannot be compared here: beartype, which watches the types, draws from it."""
    kind, keys, *rest = np.random.get_state()
    return hashlib.sha256(torch.get_rng_state().numpy().tobytes() + keys.tobytes()).hexdigest(), kind, *rest


def _modes_drawn(model, seed):
    """Every module in a mode of its own, some parameters frozen, some with gradients."""
    generator = np.random.default_rng(seed)
    for module in model.modules():
        module.training = bool(generator.random() < 0.5)
    for parameter in model.parameters():
        parameter.requires_grad_(bool(generator.random() < 0.7))
        if generator.random() < 0.5:
            parameter.grad = torch.full_like(parameter, generator.random())
    return model


def _everything(model):
    grads = [(id(p.grad), None if p.grad is None else p.grad.sum().item()) for p in model.parameters()]
    return _state(model), grads, _random_states(), torch.is_grad_enabled(), torch.get_default_dtype()


def _raise_at(model, call, error):
    """Counts the read-outs' calls; raises in that one."""
    calls = []

    def hook(*_):
        calls.append(1)
        if len(calls) == call:
            raise error("in the middle")

    return calls, model.controller.readout.register_forward_hook(hook)


@few_cases
@given(
    st.sampled_from(sorted(ATTACKS)),
    st.integers(0, 2**32 - 1),
    st.sampled_from([None, RuntimeError, KeyboardInterrupt, SystemExit]),
    st.floats(0, 1, exclude_max=True),
)
def test_an_interrupted_attack_leaves_the_model_as_it_was(name, seed, error, share):
    """X1, X9: modes, requires_grad, weights, buffers, gradients, the global random states, the grad mode."""
    counting = small_s3ta()
    calls, _ = _raise_at(counting, -1, RuntimeError)
    expected = _run(counting, name)
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    model, clean = _modes_drawn(small_s3ta(), seed), pictures(3, IMAGES, dtype=torch.float32)
    before, copy = _everything(model), clean.clone()
    if error is None:
        attacked = _run(model, name, clean)
        assert torch.equal(attacked.images, expected.images)  # whatever modes and seeds there were
    else:
        made, handle = _raise_at(model, 1 + int(share * len(calls)), error)
        with pytest.raises(error, match="in the middle"):
            _run(model, name, clean)
        assert 0 < len(made) <= len(calls)
        handle.remove()
    assert _everything(model) == before
    assert torch.equal(clean, copy)


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_returns_plain_allowed_images_that_moved(name):
    """X9, and X13: S3TA's LSTMCell runs backward in eval mode."""
    model, clean = small_s3ta().train(), pictures(3, IMAGES, dtype=torch.float32)
    assert any(isinstance(module, nn.LSTMCell) for module in model.modules())
    assert not any(isinstance(module, nn.RNNBase) for module in model.modules())
    if ATTACKS[name].eight_bit:
        clean = (clean * 255).round() / 255
    attacked, config = _run(model, name, clean), ATTACKS[name]
    assert not attacked.images.requires_grad
    assert attacked.images.grad_fn is None
    assert attacked.final.dtype == clean.dtype
    assert (attacked.final != clean).flatten(1).any(dim=1).all()
    distance = (attacked.final - clean).flatten(1).norm(dim=1, p=2 if config.norm == "l2" else torch.inf)
    assert (distance <= config.radius + 1e-6).all()
    assert attacked.final.min() >= 0
    assert attacked.final.max() <= 1


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"steered onto"}))
def test_every_attack_treats_an_image_as_if_it_were_alone(name):
    """X1, X34: same noise, so the same image, but for rounding (float64)."""
    model, clean, config = small_s3ta(torch.float64).train(), pictures(3, IMAGES), ATTACKS[name]
    if ATTACKS[name].eight_bit:
        clean = (clean * 255).round() / 255
    together = _run(model, name, clean).final
    outputs_fn = model.unroll if config.needs_trace else model
    for i in range(3):
        alone = run_attack(
            outputs_fn,
            clean[i : i + 1],
            LABELS[i : i + 1],
            config=config,
            targets=TARGETS[i : i + 1],
            draw=RandomKey(0, (names(3)[i],), (name, 0)),
        ).final
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)


def test_restarts_go_through_glimpses_and_classes_in_turn():
    model = small_s3ta(torch.float64)
    for name in ("one glimpse", "multitargeted"):
        clean, config = pictures(3, IMAGES), ATTACKS[name].model_copy(update={"random_start_prob": 0.0})
        found = []
        for restart in range(5):
            draw = RandomKey(0, tuple(names(3)), ("same", 0), restart)  # the same draws: only what is tried differs
            outputs_fn = model.unroll if config.needs_trace else model
            found.append(run_attack(outputs_fn, clean, LABELS, config=config, draw=draw).final)
        period = 2 if name == "one glimpse" else 4
        assert torch.equal(found[0], found[period])
        assert not torch.equal(found[0], found[1])


def test_an_attack_does_not_depend_on_the_attack_before_it():
    """X38: what one left behind, a cache or a memory, would show in the next."""
    alone = {name: _run(small_s3ta(), name).images for name in ATTACKS}
    model = small_s3ta()
    for name in [*ATTACKS, *reversed(ATTACKS)]:
        assert torch.equal(_run(model, name).images, alone[name]), name
