"""The controller: what is fed back (M9-M11, X26), its initialisation (M12), glimpse counts, and gradient flow."""

import pytest
import torch

from s3ta.errors import UserError
from s3ta.models import build_model

from .helpers import mini_config, pictures, shaken_model

HIDDEN, CLASSES = 13, 5


def _watch(model, images, num_glimpses):
    """The trace, and (input, output) of every call of query net, read-out and LSTM."""
    calls = {"query": [], "readout": [], "lstm": []}
    handles = [
        getattr(model.controller, name).register_forward_hook(
            lambda _, inputs, output, name=name: calls[name].append((inputs, output))
        )
        for name in calls
    ]
    trace = model.unroll(images, num_glimpses)
    for handle in handles:
        handle.remove()
    return trace, calls


@pytest.mark.parametrize("first_logits", ["zeros", "readout"])
def test_first_query_knows_nothing_of_the_image_and_the_second_does(first_logits):
    model = shaken_model(first_logits=first_logits)
    queries = [
        [output for _, output in _watch(model, pictures(1, 2, 10, 14, seed=seed), 2)[1]["query"]] for seed in (1, 2)
    ]
    assert torch.equal(queries[0][0], queries[1][0])
    assert (queries[0][1] - queries[1][1]).abs().max() > 1e-3


@pytest.mark.parametrize("first_logits", ["zeros", "readout"])
def test_the_query_net_gets_hidden_state_and_previous_logits(first_logits):
    model = shaken_model(first_logits=first_logits)
    trace, calls = _watch(model, pictures(2, 2, 10, 14), 4)
    state = model.controller.initial_hidden.expand(2, -1)
    first = model.controller.readout(state) if first_logits == "readout" else torch.zeros(2, CLASSES)
    assert len(calls["query"]) == len(calls["lstm"]) == 4
    assert len(calls["readout"]) == (5 if first_logits == "readout" else 4)
    hidden = [state] + [output[0] for _, output in calls["lstm"]]
    previous = [first, *trace.logits]
    for glimpse, ((inputs,), _) in enumerate(calls["query"]):
        assert torch.equal(inputs, torch.cat([hidden[glimpse], previous[glimpse]], dim=1))
    assert (trace.logits.diff(dim=0).abs().amax((1, 2)) > 1e-4).all()  # so that a wrong step would show


def test_initial_state_is_learned_and_both_halves_are_used():
    model = shaken_model()
    model(pictures(2, 2, 10, 14)).sum().backward()
    assert model.controller.initial_hidden.shape == model.controller.initial_cell.shape == (1, HIDDEN)
    for state in (model.controller.initial_hidden, model.controller.initial_cell):
        assert state.grad is not None
        assert state.grad.abs().max() > 0


def test_the_lstm_gets_answers_then_queries():
    model = shaken_model()
    _, calls = _watch(model, pictures(2, 2, 10, 14), 2)
    for ((inputs, _), _), (_, query) in zip(calls["lstm"], calls["query"], strict=True):
        assert inputs.shape == (2, 3 * (64 - 7 + 16) + 3 * (7 + 16))
        assert torch.equal(inputs[:, 3 * (64 - 7 + 16) :], query)


def test_reading_earlier_logits_changes_nothing():
    model = shaken_model()
    images = pictures(2, 2, 10, 14)
    trace = model.unroll(images)
    assert trace.logits.shape[0] == model.config.num_glimpses == 3
    assert torch.equal(model(images), trace.logits[-1])
    trace.logits.detach().zero_()
    assert model(images).abs().max() > 0


def test_fewer_glimpses_are_a_prefix_of_more():
    model = shaken_model()
    images = pictures(2, 2, 10, 14)
    many = model.unroll(images, 11)
    for num_glimpses in (1, 2, 7):
        few = model.unroll(images, num_glimpses)
        assert torch.equal(few.logits, many.logits[:num_glimpses])
        assert torch.equal(few.attention, many.attention[:num_glimpses])


@pytest.mark.parametrize("num_glimpses", [0, -2])
def test_a_model_must_look_at_least_once(num_glimpses):
    with pytest.raises(UserError, match=f"num_glimpses is {num_glimpses}"):
        shaken_model().unroll(pictures(1, 2, 10, 14), num_glimpses)


def test_keys_must_leave_a_channel_for_the_values():
    with pytest.raises(UserError, match="key_channels is 64, but the vision net has only 64"):
        build_model(mini_config(key_channels=64))
    assert build_model(mini_config(key_channels=63)).eval()(pictures(1, 2, 10, 14)).shape == (1, CLASSES)


def test_gradient_reaches_the_image_through_every_glimpse():
    model = shaken_model()
    images = pictures(2, 2, 10, 14).requires_grad_(True)
    trace, calls = _watch(model, images, 4)
    for (fetched, _), _ in calls["lstm"]:  # what each glimpse fetched matters for the answer, and depends on the image
        assert torch.autograd.grad(trace.logits[-1].sum(), fetched, retain_graph=True)[0].abs().max() > 0
        assert torch.autograd.grad(fetched.sum(), images, retain_graph=True)[0].abs().max() > 0
    for glimpse in range(4):
        for outputs in (trace.logits, trace.attention.square()):
            gradient = torch.autograd.grad(outputs[glimpse].sum(), images, retain_graph=True)[0]
            assert (gradient.abs().amax((1, 2, 3)) > 0).all()


def test_gradient_flows_through_the_fed_back_logits():
    trace, calls = _watch(shaken_model(), pictures(2, 2, 10, 14), 2)
    first_readout = calls["readout"][0][1]
    assert torch.autograd.grad(trace.logits[1].sum(), first_readout)[0].abs().max() > 0


@pytest.mark.parametrize("std", [0.0, 0.02, 0.3])
def test_weights_begin_as_the_protocol_says(std):
    torch.manual_seed(5)
    size = 1009
    controller = build_model(
        mini_config(lstm_size=size, query_hidden=211, readout_hidden=307, initial_state_std=std)
    ).controller
    lstm = controller.lstm
    for state in (controller.initial_hidden, controller.initial_cell):
        assert state.std().item() == pytest.approx(std, rel=0.12)
    assert not torch.equal(controller.initial_hidden, controller.initial_cell) or std == 0
    assert lstm.bias_ih.view(4, size).mean(1).tolist() == [0, 1, 0, 0]  # forget gate, once
    assert lstm.bias_ih.view(4, size).std(1).max() == 0
    assert lstm.bias_hh.count_nonzero() == 0
    for layer in (*controller.query[::2], *controller.readout[::2]):
        _check_truncated_normal(layer.weight, layer.in_features)
        assert layer.bias.count_nonzero() == 0
    for weight in (lstm.weight_ih, lstm.weight_hh):
        _check_truncated_normal(weight, lstm.input_size + lstm.hidden_size)


def _check_truncated_normal(weight, fan_in):
    std = fan_in**-0.5
    few = weight.numel() < 10_000
    assert weight.abs().max() <= 2 * std * (1 + 1e-6)
    assert weight.std().item() == pytest.approx(0.8796 * std, rel=0.1 if few else 0.02)


def test_seed_decides_the_weights():
    def first(seed):
        torch.manual_seed(seed)
        return torch.cat([value.flatten().float() for value in build_model(mini_config()).state_dict().values()])

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
