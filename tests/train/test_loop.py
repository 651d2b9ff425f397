"""The training step: attacked images alone, BN where it belongs, fresh draws every epoch; and a loop written by hand."""

import copy
import hashlib
import json
import threading

import numpy as np
import pytest
import torch

from s3ta.attacks import draw_start, draw_targets
from s3ta.data import BatchOrder
from s3ta.errors import UserError
from s3ta.models import build_model, from_pretrained
from s3ta.train import loop, losses, prefetch, seeded_model
from s3ta.train import step as step_module
from s3ta.train.validation import validate
from tests.reference.pgd import iterates

from .helpers import Pictures, curve, logged_losses, recipe, run, snapshot


def _buffers(model):
    return hashlib.sha256(b"".join(b.detach().numpy().tobytes() for b in model.buffers())).hexdigest()


class Spy:
    """Watches a run: every pass through the vision net, every attack, every optimizer and its steps."""

    def __init__(self, monkeypatch, build=seeded_model):
        self.passes, self.attacks, self.optimizers, self.norms, self.draws, self.buffers = [], [], [], [], [], []
        real_attack, real_optimizer = step_module.run_attack, step_module.build_optimizer

        def model(config):
            self.model = build(config)
            self.model.vision.register_forward_pre_hook(self._see)
            return self.model

        def run_attack(outputs_fn, clean, labels, **settings):
            before = _buffers(self.model), len(self.passes)
            attacked = real_attack(outputs_fn, clean, labels, **settings)
            self.attacks.append((clean, labels, settings, attacked.final))
            self.buffers.append(before[0] == _buffers(self.model))
            assert not any(training for training, *_ in self.passes[before[1] :])
            return attacked

        def optimizer(config, model, **settings):
            self.optimizers.append(real_optimizer(config, model, **settings))
            self.optimizers[-1].register_step_pre_hook(
                lambda optimizer, *_: self.norms.append(
                    torch.cat([p.grad.flatten() for g in optimizer.param_groups for p in g["params"]]).norm().item()
                )
            )
            return self.optimizers[-1]

        def drawn(kind, function):
            def draw(*args):
                result = function(*args)
                self.draws.append((kind, args[-1], args[2] if kind == "start" else args[1], result))
                return result

            return draw

        monkeypatch.setattr(loop, "seeded_model", model)
        monkeypatch.setattr(step_module, "run_attack", run_attack)
        monkeypatch.setattr(step_module, "build_optimizer", optimizer)
        monkeypatch.setattr(prefetch, "draw_targets", drawn("target", draw_targets))
        monkeypatch.setattr(prefetch, "draw_start", drawn("start", draw_start))

    def _see(self, module, inputs):
        self.passes.append(
            (module.training, inputs[0].requires_grad, inputs[0].detach().clone(), torch.is_grad_enabled())
        )

    def by_epoch(self, kind):
        """{(epoch, example id): draw}."""
        return {
            (epoch, i): row for k, epoch, ids, rows in self.draws if k == kind for i, row in zip(ids, rows, strict=True)
        }


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
def test_the_loss_sees_the_attacked_images_and_nothing_else(tmp_path, monkeypatch, model):
    spy, config = Spy(monkeypatch), recipe(model, label_smoothing=0.1)
    run(config, tmp_path)
    learned = [images for training, _, images, grad in spy.passes if training]
    assert len(learned) == len(spy.attacks) == 7
    for images, (clean, _, _, attacked) in zip(learned, spy.attacks, strict=True):
        assert torch.equal(images, attacked)  # bit for bit: not re-quantised, not augmented again (X31)
        assert (images != clean).float().mean() > 0.5  # two steps may cancel
        assert (images - clean).abs().max() <= 0.1 + 1e-6
        assert ((images * 255) - (images * 255).round()).abs().max() > 0.1
        assert torch.equal((clean * 255).round() / 255, clean)
    assert not any(requires_grad for training, requires_grad, *_ in spy.passes if training)


def test_smoothing_is_in_the_training_loss_and_not_in_the_attack(tmp_path, monkeypatch):
    kept = []
    real = losses.final_logits
    monkeypatch.setattr(losses, "final_logits", lambda outputs: kept.append(real(outputs)) or kept[-1])
    with monkeypatch.context() as patch:
        spy = Spy(patch)
        run(recipe(label_smoothing=0.3), tmp_path)
    for logits, (_, labels, _, _), logged in zip(kept, spy.attacks, logged_losses(tmp_path), strict=True):
        logs = logits.double().log_softmax(1)
        expected = -(0.7 * logs.gather(1, labels[:, None])[:, 0] + 0.3 * logs.mean(1)).mean()
        assert logged == pytest.approx(expected.item(), abs=1e-5)
    other, second = tmp_path / "other", Spy(monkeypatch)
    run(recipe(label_smoothing=0.0), other)
    assert torch.equal(
        second.attacks[0][3], spy.attacks[0][3]
    )  # the first attack, before any update, does not know of it
    assert logged_losses(other)[0] != logged_losses(tmp_path)[0]


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
def test_batch_norm_moves_in_the_training_pass_alone_and_once_a_step(tmp_path, monkeypatch, model):
    spy = Spy(monkeypatch)
    trained = run(recipe(model), tmp_path)
    assert spy.buffers == [True] * 7
    counted = {int(b) for name, b in trained.named_buffers() if name.endswith("num_batches_tracked")}
    assert counted == {7}
    assert sum(training for training, *_ in spy.passes) == 7
    assert not trained.training
    # 7 attacks and 3 validations (two batches, attacked and twice judged) of two steps each
    assert sum(not training for training, *_ in spy.passes) == 7 * 2 + 3 * 2 * (2 + 2)


def test_moving_averages_are_those_of_attacked_images(tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    config = recipe("resnet", schedule={"num_train_steps": 1})
    trained = run(config, tmp_path)
    ours = seeded_model(config).train()
    ours(spy.attacks[0][3])
    name = "vision.net.norm.running_mean"
    assert torch.equal(dict(trained.named_buffers())[name], dict(ours.named_buffers())[name])
    clean = seeded_model(config).train()
    clean(spy.attacks[0][0])
    assert not torch.allclose(dict(trained.named_buffers())[name], dict(clean.named_buffers())[name], rtol=1e-5)


def test_targets_and_starts_are_fresh_each_epoch_and_never_those_of_evaluation(tmp_path, monkeypatch):
    spy, data = Spy(monkeypatch), Pictures()
    run(recipe(schedule={"num_train_steps": 40}, validate_every=99), tmp_path)  # ten epochs
    targets, starts = spy.by_epoch("target"), spy.by_epoch("start")
    assert {epoch for epoch, _ in targets} == {epoch for epoch, _ in starts} == set(range(10))
    assert len(targets) == len(starts) == 160
    label = dict(zip(data.ids, data.labels.tolist(), strict=True))
    assert all(0 <= target < 5 and target != label[i] for (_, i), target in targets.items())
    for i in data.ids:
        mine = [int(target) for (_, other), target in targets.items() if other == i]
        noise = [start for (_, other), start in starts.items() if other == i]
        assert len(set(mine)) > 1
        assert len({n.numpy().tobytes() for n in noise}) == len(noise)
    evaluation = draw_targets(0, data.ids, torch.from_numpy(data.labels), 5)
    same = [int(targets[e, i]) == int(evaluation[data.ids.index(i)]) for e, i in targets]
    assert 0.1 < np.mean(same) < 0.45  # a quarter by chance; all, if training reused the targets of evaluation


def test_a_fifth_of_the_starts_is_clean(tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    run(recipe(schedule={"num_train_steps": 60}, attack={"num_attack_steps": 0}, validate_every=1000), tmp_path)
    clean = [
        torch.equal(start, image)
        for images, _, settings, _ in spy.attacks
        for image, start in zip(images, settings["start"], strict=True)
    ]
    assert len(clean) == 240
    assert abs(np.mean(clean) - 0.2) < 3 * np.sqrt(0.16 / 240)


def test_the_radius_follows_the_clean_phase_and_the_ramp(tmp_path, monkeypatch):
    spy = Spy(monkeypatch)
    run(recipe(schedule={"clean_steps": 3, "radius_ramp_steps": 2}), tmp_path)
    learned = [images for training, _, images, _ in spy.passes if training]
    assert [settings["config"].radius for _, _, settings, _ in spy.attacks] == pytest.approx([0.05, 0.1, 0.1, 0.1])
    assert [settings["config"].step_size for _, _, settings, _ in spy.attacks] == pytest.approx(
        [0.015, 0.03, 0.03, 0.03]
    )
    for images in learned[:3]:
        assert torch.equal((images * 255).round() / 255, images)
    assert [line["radius"] for line in map(json.loads, curve(tmp_path)) if line["kind"] == "train"] == pytest.approx(
        [0, 0, 0, 0.05, 0.1, 0.1, 0.1]
    )


def test_attack_and_training_follow_the_curriculum_with_one_optimizer(tmp_path, monkeypatch):
    seen = []

    def build(config):
        model = seeded_model(config)
        model.controller.lstm.register_forward_hook(lambda *_: seen.append(model.training))
        return model

    spy = Spy(monkeypatch, build)
    run(recipe(schedule={"glimpses": ((0, 1), (3, 4), (5, 6))}, validate_every=99), tmp_path)
    assert len(spy.optimizers) == 1
    per_step, expected = [], [1, 1, 1, 4, 4, 6, 6]
    for glimpses in expected:  # two attack steps, then the training pass
        per_step += [False] * 2 * glimpses + [True] * glimpses
    assert seen[: len(per_step)] == per_step
    assert [line["num_glimpses"] for line in map(json.loads, curve(tmp_path)) if line["kind"] == "train"] == expected
    assert from_pretrained(tmp_path).config.num_glimpses == 2  # what the model answers with is the config's


def test_learning_rate_reaches_every_group(tmp_path, monkeypatch):
    spy, seen = Spy(monkeypatch), []
    real = step_module.build_optimizer

    def optimizer(*args, **settings):
        made = real(*args, **settings)
        made.register_step_pre_hook(lambda o, *_: seen.append([group["lr"] for group in o.param_groups]))
        return made

    monkeypatch.setattr(step_module, "build_optimizer", optimizer)
    run(recipe(schedule={"warmup_steps": 2, "warmup_from": 0.01, "decay_at": (4, 6)}), tmp_path)
    expected = [0.01, 0.03, 0.05, 0.05, 0.005, 0.005, 0.0005]
    assert [a for a, _ in seen] == [b for _, b in seen] == pytest.approx(expected)
    assert [
        line["learning_rate"] for line in map(json.loads, curve(tmp_path)) if line["kind"] == "train"
    ] == pytest.approx(expected)
    assert len(spy.norms) == 7


def test_clipping_bounds_the_norm_of_the_whole_gradient(tmp_path, monkeypatch):
    norms = {}
    for limit in (None, 0.5, 1e6):
        with monkeypatch.context() as patch:
            spy = Spy(patch)
            run(recipe(optimizer={"clip_norm": limit}), tmp_path / str(limit))
        norms[limit] = spy.norms
    assert norms[None][0] > 0.6
    assert norms[0.5][0] == pytest.approx(0.5, rel=1e-4)
    assert max(norms[0.5]) <= 0.5 * (1 + 1e-5)
    assert norms[1e6] == norms[None]


# --- a loop written by hand ----------------------------------------------------------------------------------------------


def _by_hand(config, data, objective):
    """Four epochs' worth of T6-T19 without any of the package's training code; float64 weights."""
    model = seeded_model(config).double()
    velocity = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for step in range(config.schedule.num_train_steps):
        epoch, indices = BatchOrder(data, config.batch_size, config.seed).position(step)
        ids = [data.ids[i] for i in indices]
        labels = torch.tensor([int(data.labels[i]) for i in indices])
        clean = torch.tensor(np.stack([data.image(int(i), (config.seed, epoch)) for i in indices])).float() / 255
        attack = config.attack
        targets = draw_targets(config.seed, ids, labels, 5, "train", epoch)
        start = draw_start(attack, config.seed, ids, clean, "train", epoch)
        model.eval()
        classes, sign = (targets, -1) if objective == "targeted" else (labels, 1)
        images = iterates(model, clean, classes, sign, attack.radius, attack.step_size, attack.num_attack_steps, start)[
            -1
        ]
        model.train()
        logs = model(images).log_softmax(1)
        s = config.label_smoothing
        loss = -((1 - s) * logs.gather(1, labels[:, None])[:, 0] + s * logs.mean(1)).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rate = config.optimizer.learning_rate * (0.1 if step >= 3 else 1)
        with torch.no_grad():
            for (name, p), gradient in zip(model.named_parameters(), gradients, strict=True):
                if p.ndim > 1 and "initial" not in name:
                    gradient = gradient + config.optimizer.weight_decay * p
                velocity[name] = 0.9 * velocity[name] + gradient
                p -= rate * (gradient + 0.9 * velocity[name])
    return model


@pytest.mark.parametrize("model", ["s3ta", "resnet"])
@pytest.mark.parametrize("objective", ["targeted", "untargeted"])
def test_training_equals_a_loop_written_by_hand(tmp_path, monkeypatch, model, objective):
    config = recipe(
        model,
        {"objective": objective},
        {"weight_decay": 0.05},
        {"num_train_steps": 6, "decay_at": (3,)},
        label_smoothing=0.1,
    )
    monkeypatch.setattr(
        loop, "seeded_model", lambda config: seeded_model(config).double()
    )  # so that no sign hangs on a last bit
    trained = run(config, tmp_path)
    expected = _by_hand(config, Pictures(), objective)
    for (name, ours), theirs in zip(trained.state_dict().items(), expected.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    moved = (
        (expected.state_dict()["vision.net.norm.weight"] - seeded_model(config).state_dict()["vision.net.norm.weight"])
        .abs()
        .max()
    )
    assert moved > 1e-3


# --- errors, side effects, validation --------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    config = recipe(checkpoint_every=2)
    run(config, tmp_path / "whole")
    real, calls = losses.final_logits, []

    def poisoned(outputs):
        calls.append(1)
        return real(outputs) * (float("nan") if len(calls) == 4 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(losses, "final_logits", poisoned)
        with pytest.raises(UserError, match=r"The loss is nan at training step 3: .*lower optimizer\.learning_rate"):
            run(config, tmp_path / "stopped")
    assert not (tmp_path / "stopped/model").exists()
    run(config, tmp_path / "stopped")
    assert curve(tmp_path / "stopped") == curve(tmp_path / "whole")
    assert (
        snapshot(tmp_path / "stopped")["model/model.safetensors"][0]
        == snapshot(tmp_path / "whole")["model/model.safetensors"][0]
    )


def test_a_learning_rate_that_explodes_is_told(tmp_path):
    with pytest.raises(
        UserError, match=r"not finite at training step 1|(nan|inf) at training step \d: .*optimizer\.clip_norm"
    ):
        run(recipe("resnet", optimizer={"learning_rate": 1e30}), tmp_path)


def test_a_gradient_that_is_not_finite_ruins_no_checkpoint(tmp_path, monkeypatch):
    real, calls = losses.final_logits, []

    def poisoned(outputs):
        calls.append(1)
        logits = real(outputs)
        return logits + (logits * 0).sqrt() if len(calls) == 3 else logits  # value 0, gradient 0 * inf = NaN

    monkeypatch.setattr(losses, "final_logits", poisoned)
    with pytest.raises(UserError):
        run(recipe(checkpoint_every=1), tmp_path)
    from safetensors.torch import load_file

    assert all(
        t.isfinite().all() for t in load_file(tmp_path / "checkpoint.safetensors").values() if t.is_floating_point()
    )


def test_global_random_state_is_neither_read_nor_moved(tmp_path):
    torch.manual_seed(3)
    np.random.seed(3)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(recipe(), tmp_path / "one")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    torch.manual_seed(4)
    np.random.seed(4)
    run(recipe(), tmp_path / "other")
    assert curve(tmp_path / "one") == curve(tmp_path / "other")


def test_seed_decides_weights_order_and_draws(tmp_path):
    config = recipe(seed=1)
    one, other, again = (seeded_model(c).state_dict() for c in (config, recipe(seed=2), recipe(seed=1)))
    name = "vision.net.stem.conv.weight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])
    torch.manual_seed(1)
    assert torch.equal(build_model(config.model).state_dict()[name], one[name])


def test_a_thread_other_than_the_main_one_may_train(tmp_path):
    done = []
    worker = threading.Thread(target=lambda: done.append(run(recipe(), tmp_path)))
    worker.start()
    worker.join()
    assert len(done) == 1
    assert len(logged_losses(tmp_path)) == 7


def test_log_lines_average_what_lies_between_them(tmp_path):
    run(recipe(log_every=1), tmp_path / "each")
    run(recipe(log_every=3), tmp_path / "third")
    each = logged_losses(tmp_path / "each")
    assert logged_losses(tmp_path / "third") == pytest.approx(
        [np.mean(each[:3]), np.mean(each[3:6]), each[6]], rel=1e-9
    )
    lines = [json.loads(line) for line in curve(tmp_path / "third")]
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 3),
        ("validation", 3),
        ("train", 6),
        ("validation", 6),
        ("train", 7),
        ("validation", 7),
    ]
    assert [line["epoch"] for line in lines if line["kind"] == "train"] == [0, 1, 1]


def test_validation_scores_are_shares_of_the_examples(tmp_path):
    trained = run(recipe(schedule={"num_train_steps": 30}), tmp_path)
    config, data = recipe(), Pictures(10, "validation")
    state = copy.deepcopy(trained.state_dict())
    scores = validate(trained, data, config, 4)
    assert all(torch.equal(a, b) for a, b in zip(trained.state_dict().values(), state.values(), strict=True))
    assert scores["num_examples"] == 10
    with torch.no_grad():
        images = torch.tensor(np.stack([data.image(i) for i in range(10)])).float() / 255
        right = trained(images).argmax(1).numpy() == data.labels[:10]
    assert scores["clean"] == right.mean()
    assert validate(trained, data, config, 7) == scores  # another batch size, same targets and starts
    gentle = validate(trained, data, recipe(attack={"radius": 0.0}), 4)
    assert gentle["attacked"] == gentle["clean"] == scores["clean"]
    harsh = {"objective": "untargeted", "radius": 1.0, "step_size": 0.3, "num_attack_steps": 5}
    assert validate(trained, data, recipe(attack=harsh), 4)["attacked"] <= 0.3
    assert validate(trained, Pictures(0, "validation"), config, 4) == {"num_examples": 0}


def test_losses_equal_stored_values(tmp_path):
    # Eight steps on the CPU, pinned. The tolerance covers other processors' and torch versions' rounding, which the signs of
    # the attack can enlarge; any change of order, draws, initialisation, loss or update is larger.
    run(recipe(schedule={"num_train_steps": 8}, validate_every=99), tmp_path)
    assert logged_losses(tmp_path) == pytest.approx(
        [1.603654, 1.64139, 1.588003, 1.624045, 1.624906, 1.619049, 1.608218, 1.594625], abs=1e-4
    )
