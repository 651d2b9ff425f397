"""Options of arithmetic: refused where they do not agree with plain float32, and each resumes to the same last bit."""

import copy
import json

import pytest
import torch

from s3ta.errors import UserError
from s3ta.models import ExecutedModel
from s3ta.models.batch_norm_statistics import statistics_kept
from s3ta.train import ComputeConfig, loop, precision_check
from s3ta.train.precision_check import Agreement, compared, is_plain

from .helpers import (
    Pictures,
    crash_and_resume,
    curve,
    logged_losses,
    noisy,
    recipe,
    run,
    same_run,
    snapshot,
    state_of,
    stepping,
    weights,
)

LAST = {"channels_last": True}
LOWER = {"attack_precision": "bfloat16", "update_precision": "bfloat16"}
FINE = Agreement(logits=0.0, predictions=1.0, signs=1.0, zeros=0.0, update=1.0)


def _computed(compute, **changes):
    return recipe(**{"batch_size": 8, "compute": compute} | changes)


def _lines(folder):
    return [line for line in map(json.loads, curve(folder)) if line["kind"] == "agreement"]


def test_a_healthy_option_is_logged_before_the_first_step_and_changes_no_weight(tmp_path, monkeypatch):
    run(_computed(LAST), tmp_path / "checked")
    (line,) = _lines(tmp_path / "checked")
    assert (line["step"], line["agrees"]) == (0, True)
    assert line["logits"] < 1e-5
    assert line["predictions"] == 1
    assert line["update"] > 0.999
    monkeypatch.setattr(precision_check, "compared", lambda *_: FINE)
    run(_computed(LAST), tmp_path / "unchecked")
    assert weights(tmp_path / "checked") == weights(tmp_path / "unchecked")
    assert logged_losses(tmp_path / "checked") == logged_losses(tmp_path / "unchecked")


@pytest.mark.parametrize("trained", [False, True])
def test_the_comparison_leaves_weights_averages_gradients_and_mode_alone(trained):
    config = _computed({"units_per_checkpoint": 1, "channels_last": True, "update_precision": "bfloat16"})
    trainer, batch = stepping(config, double=False)
    if trained:
        trainer.update(batch, noisy(batch.clean))
    trainer.model.zero_grad()
    before, momenta = state_of(trainer.model), {m.momentum for m in trainer.model.modules() if hasattr(m, "momentum")}
    compared(trainer, batch.clean, batch.labels, None)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in trainer.model.parameters())
    assert {m.momentum for m in trainer.model.modules() if hasattr(m, "momentum")} == momenta
    assert trainer.model.vision.units_per_checkpoint == 1
    assert trainer.model.vision.net.stages[0].blocks[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_comparison_is_with_a_copy_that_is_plain_in_every_respect(monkeypatch):
    config = _computed({"units_per_checkpoint": 1, "channels_last": True})
    (trainer, batch), seen = stepping(config, double=False), []
    real = precision_check._plain_copy

    def copied(model):
        plain = real(model)
        kernel = plain.vision.net.stages[0].blocks[0].conv1.weight
        seen.append((kernel.is_contiguous(), plain.vision.units_per_checkpoint))
        plain.vision.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].is_contiguous()))
        return plain

    monkeypatch.setattr(precision_check, "_plain_copy", copied)
    compared(trainer, batch.clean, batch.labels, None)
    assert seen[0] == (True, 0)
    assert seen[1:] == [True] * 3  # answers, input gradient, weight gradient


def test_figures_of_the_comparison_equal_those_written_out():
    """A manner that answers logits + 0.01 x (0, 1, 2, 3, 4): each figure against its definition."""
    trainer, batch = stepping(_computed(LAST, model="resnet"), double=False)
    trainer.update(batch, batch.clean)
    plain = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format)
    shift = 0.01 * torch.arange(5)
    trainer.attacked.register_forward_hook(lambda _, __, logits: logits + shift)
    found = compared(trainer, batch.clean, batch.labels, None)

    def slopes(add):
        images = batch.clean.clone().requires_grad_(True)
        logits = plain.eval()(images) + add
        (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum"), images)
        plain.train()
        with statistics_kept(plain):
            loss = torch.nn.functional.cross_entropy(plain(batch.clean) + add, batch.labels, label_smoothing=0.1)
        weight = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(plain.parameters()))])
        return logits.detach(), slope, weight

    (logits, slope, weight), (others, turned, moved) = slopes(0), slopes(shift)
    assert found.logits == pytest.approx(float(0.04 / logits.abs().max()), rel=1e-3)
    assert found.predictions == float((logits.argmax(1) == others.argmax(1)).float().mean())
    assert found.signs == pytest.approx(float((slope.sign() == turned.sign()).float().mean()), abs=2e-3)
    assert found.update == pytest.approx(float(torch.cosine_similarity(weight, moved, dim=0)), abs=1e-4)
    assert found.zeros == 0


def test_plain_float32_is_not_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(precision_check, "compared", None)
    run(recipe(compute={"fused_optimizer": True, "attack_batch": 2}), tmp_path)
    assert not _lines(tmp_path)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ({}, True),
        ({"fused_optimizer": True, "attack_batch": 3, "must_agree": False, "deterministic": False}, True),
        (LAST, False),
        ({"compiled": True}, False),
        ({"units_per_checkpoint": 2}, False),
    ],
)
def test_only_options_that_change_no_number_count_as_plain(compute, expected):
    assert is_plain(ComputeConfig(**compute)) is expected


@pytest.fixture
def broken(monkeypatch):
    """`broken(kind)` spoils every model that is run in a manner, in its logits or only in their gradients."""
    ways = {
        "noise": lambda logits: logits + 0.1 * torch.arange(5),
        "no gradient": lambda logits: logits.detach() + 0 * logits,
        "nan": lambda logits: logits * float("nan"),
        "turned": lambda logits: 2 * logits.detach() - logits,
    }
    ways["turned in bfloat16"] = ways["turned"]

    def spoil(kind):
        real = ExecutedModel.__init__

        def init(self, *args):
            real(self, *args)
            only_lower = kind.endswith("in bfloat16")
            self.register_forward_hook(
                lambda _, __, logits: ways[kind](logits) if self.is_lower or not only_lower else logits
            )

        monkeypatch.setattr(ExecutedModel, "__init__", init)

    return spoil


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("noise", "logits differ by"),
        ("turned", "the weights' gradient points elsewhere (cosine -1.000, bound 0.95)"),
        ("no gradient", "the weights' gradient points elsewhere (cosine nan, bound 0.95)"),
        ("nan", "logits differ by nan of the largest (bound 0.001)"),
    ],
)
def test_a_broken_option_is_refused_before_anything_is_learned(tmp_path, broken, kind, words):
    broken(kind)
    with pytest.raises(UserError) as caught:
        run(_computed(LAST, model="resnet"), tmp_path)
    said = str(caught.value)
    for each in (words, "The options in `compute` do not agree with plain float32", "compute.must_agree=false"):
        assert each in said
    assert "\n" not in said
    assert set(snapshot(tmp_path)) <= {"train.jsonl"}


def test_must_agree_false_trains_with_a_broken_option(tmp_path, broken):
    broken("noise")
    run(_computed(LAST | {"must_agree": False}, model="resnet"), tmp_path)
    (line,) = _lines(tmp_path)
    assert line["logits"] > 0.01
    assert line["agrees"] is False
    assert len(logged_losses(tmp_path)) == 7


@pytest.mark.parametrize(
    ("found", "is_lower", "words"),
    [
        (FINE, False, []),
        (FINE._replace(logits=1.1e-3), False, ["logits"]),
        (FINE._replace(logits=0.9e-3), False, []),
        (FINE._replace(predictions=0.99), False, ["answers"]),
        (FINE._replace(signs=0.94), True, ["same sign"]),
        (FINE._replace(zeros=2e-3), True, ["became zero"]),
        (FINE._replace(update=0.9), True, ["cosine"]),
        (FINE._replace(logits=0.5, predictions=0.5), True, []),  # X40 is not asked of bfloat16
        (Agreement(*[float("nan")] * 5), True, ["same sign", "became zero", "cosine"]),
        (Agreement(*[float("nan")] * 5), False, ["logits", "answers", "cosine"]),
    ],
)
def test_the_bounds_of_the_comparison_are_the_protocols(found, is_lower, words):
    problems = found.problems(is_lower=is_lower)
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


# --- bfloat16 begins once it agrees ------------------------------------------------------------------------------------------


def _agreeing_from(step, monkeypatch):
    """bfloat16 is tried at every second step, and agrees from that one on."""
    real = loop._Run._check

    def check(self, batch):
        monkeypatch.setattr(
            precision_check, "compared", lambda *_: FINE if batch.step >= step else FINE._replace(signs=0.5)
        )
        return real(self, batch)

    monkeypatch.setattr(precision_check, "RETRY", 2)
    monkeypatch.setattr(loop._Run, "_check", check)


def test_bfloat16_waits_until_it_agrees_and_says_so(tmp_path, monkeypatch):
    run(_computed({}), tmp_path / "plain")
    _agreeing_from(4, monkeypatch)
    run(_computed(LOWER), tmp_path / "lower")
    assert [(line["step"], line["agrees"]) for line in _lines(tmp_path / "lower")] == [
        (0, False),
        (2, False),
        (4, True),
    ]
    plain, lower = logged_losses(tmp_path / "plain"), logged_losses(tmp_path / "lower")
    assert lower[:4] == plain[:4]
    assert lower[4] != plain[4]
    assert lower == pytest.approx(plain, abs=0.05)


@pytest.mark.parametrize("at", [3, 4, 5, 6])
def test_a_resumed_run_knows_whether_bfloat16_had_begun(tmp_path, monkeypatch, at):
    config = _computed(LOWER, checkpoint_every=1)
    _agreeing_from(4, monkeypatch)
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "crashed", at)
    assert logged_losses(tmp_path / "crashed") == logged_losses(tmp_path / "whole")
    assert weights(tmp_path / "crashed") == weights(tmp_path / "whole")


def test_a_broken_bfloat16_is_never_used(tmp_path, broken, monkeypatch):
    run(_computed({}, model="resnet"), tmp_path / "plain")
    broken("turned in bfloat16")
    monkeypatch.setattr(precision_check, "RETRY", 3)
    run(_computed(LOWER, model="resnet"), tmp_path / "lower")
    assert [(line["step"], line["agrees"]) for line in _lines(tmp_path / "lower")] == [
        (0, False),
        (3, False),
        (6, False),
    ]
    assert logged_losses(tmp_path / "lower") == logged_losses(tmp_path / "plain")
    assert weights(tmp_path / "lower") == weights(tmp_path / "plain")


def test_must_agree_false_uses_bfloat16_from_the_first_step(tmp_path):
    run(_computed({}), tmp_path / "plain")
    run(_computed(LOWER | {"must_agree": False}), tmp_path / "lower")
    plain, lower = logged_losses(tmp_path / "plain"), logged_losses(tmp_path / "lower")
    assert lower[0] != plain[0]
    assert lower == pytest.approx(plain, abs=0.05)


OPTIONS = {
    "channels_last": LAST,
    "fused": {"fused_optimizer": True},
    "bfloat16": LOWER | {"must_agree": False},
    "recomputed": {"units_per_checkpoint": 2},
    "in parts": {"attack_batch": 3},
}


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_trains_and_resumes_to_the_same_last_bit(tmp_path, option, kind):
    optimizer = {"kind": "adam", "learning_rate": 1e-3} if kind == "adam" else {}
    config = _computed(OPTIONS[option], optimizer=optimizer, checkpoint_every=2)
    run(config, tmp_path / "whole")
    crash_and_resume(config, tmp_path / "crashed", 5)
    for folder in ("whole", "crashed"):  # a resumed run compares once more, and says so
        lines = [line for line in curve(tmp_path / folder) if '"agreement"' not in line]
        (tmp_path / folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    same_run(tmp_path / "whole", tmp_path / "crashed")


@pytest.mark.parametrize("option", ["channels_last", "fused", "recomputed", "in parts"])
def test_options_of_float32_give_the_losses_of_plain_float32(tmp_path, option):
    run(_computed({}), tmp_path / "plain")
    run(_computed(OPTIONS[option]), tmp_path / "option")
    assert logged_losses(tmp_path / "option") == pytest.approx(logged_losses(tmp_path / "plain"), abs=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::Warning")  # what the compiler says of type checks in tests
@pytest.mark.parametrize("model", ["s3ta", "resnet"])
def test_compiled_training_agrees_with_plain_training(tmp_path, model):
    run(_computed({}, model=model), tmp_path / "plain")
    run(_computed({"compiled": True}, model=model), tmp_path / "compiled")
    assert logged_losses(tmp_path / "compiled") == pytest.approx(logged_losses(tmp_path / "plain"), abs=1e-3)
    (line,) = _lines(tmp_path / "compiled")
    assert line["agrees"]


# --- the attack in parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [{}, {"glimpses": "all"}, {"objective": "untargeted", "norm": "l2", "radius": 2.0}])
@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_parts_of_a_batch_give_the_images_of_the_whole(attack, at_once):
    whole, batch = stepping(_computed({}, attack=attack))
    parts, _ = stepping(_computed({"attack_batch": at_once}, attack=attack))
    seen = []
    parts.model.vision.register_forward_hook(lambda module, inputs, _: seen.append((module.training, len(inputs[0]))))
    expected, found = whole.attack(batch), parts.attack(batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (found - batch.clean).abs().max() > 0.01
    assert not any(training for training, _ in seen)
    assert max(size for _, size in seen) == at_once
    assert sum(size for _, size in seen) == 2 * 8


def test_random_numbers_of_an_attack_belong_to_the_image_whatever_part_it_is_in():
    """SPSA draws its probes on the way: the same with parts as with the whole."""
    attack = {"gradient": {"kind": "spsa", "num_directions": 6, "micro_batch": 4}}
    whole, batch = stepping(_computed({}, attack=attack))
    parts, _ = stepping(_computed({"attack_batch": 3}, attack=attack))
    torch.testing.assert_close(parts.attack(batch), whole.attack(batch), rtol=0, atol=1e-6)


def test_validation_attacks_no_more_at_once_than_training(tmp_path, monkeypatch):
    seen, real = [], loop.validate
    monkeypatch.setattr(loop, "validate", lambda *args: seen.append(args[3]) or real(*args))
    run(_computed({"attack_batch": 3}), tmp_path, data=Pictures(17))
    assert set(seen) == {3}


def test_attacked_images_do_not_depend_on_the_mode_before(monkeypatch):
    config = _computed({})
    one, batch = stepping(config)
    other, _ = stepping(config)
    one.model.train()
    other.model.eval()
    assert torch.equal(one.attack(batch), other.attack(batch))
    assert one.model.training
    assert not other.model.training
    one.update(batch, noisy(batch.clean))
