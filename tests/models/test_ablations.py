"""What each ablation leaves out, in parameters and operations, and what is refused; the arithmetic: test_reference.py."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from s3ta.models import ResNetConfig, S3TAConfig, build_model, model_config, num_parameters
from s3ta.models.cost import count, mlp_hidden_like

PLACES, KEYS, VALUES, BASIS, HEADS, CLASSES, SIZE = 225, 8, 56, 64, 4, 10, 128
"""Of `digits/s3ta_4`: 64 channels on a map of 15x15."""
QUERY, ANSWER = HEADS * (KEYS + BASIS), HEADS * (VALUES + BASIS)


def changed(**fields: object) -> S3TAConfig:
    config = model_config("s3ta_4_resnetv2_mini", num_classes=CLASSES, image_size=60, in_channels=1)
    return S3TAConfig.model_validate({**dict(config), **fields})


def saved(**fields: object) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one glimpse, that the ablation has fewer."""
    whole, part = count(changed()), count(changed(**fields))
    saved_in_all = whole.multiply_accumulates - part.multiply_accumulates
    assert saved_in_all % 4 == 0
    return whole.parameters - part.parameters, saved_in_all // 4


def test_a_query_without_logits_saves_their_columns() -> None:
    assert saved(feeds_back_logits=False) == (CLASSES * SIZE, CLASSES * SIZE)


def test_scaled_attention_costs_no_parameter_and_no_product() -> None:
    assert saved(scaled_attention=True) == (0, 0)


def test_no_basis_shortens_keys_values_and_what_reads_them() -> None:
    fewer = HEADS * BASIS
    recurrent, query = 4 * SIZE * 2 * fewer, SIZE * fewer
    assert saved(num_frequencies=0) == (recurrent + query + fewer, recurrent + query + 2 * PLACES * fewer)


def test_a_gru_has_three_gates_of_four_and_no_cell_state() -> None:
    gate = SIZE * (QUERY + ANSWER + SIZE)
    assert saved(cell="gru") == (gate + 2 * SIZE + SIZE, gate)


def test_no_queries_save_their_network_and_the_columns_that_read_them() -> None:
    network = (SIZE + CLASSES + 1) * SIZE + (SIZE + 1) * QUERY
    products = (SIZE + CLASSES) * SIZE + SIZE * QUERY
    assert saved(queries="none") == (network + 4 * SIZE * QUERY, products + 4 * SIZE * QUERY)


@pytest.mark.parametrize("num_heads", [1, 2, 4, 8])
def test_heads_cost_their_queries_answers_and_places(num_heads: int) -> None:
    fewer = HEADS - num_heads
    query, answer = fewer * (KEYS + BASIS), fewer * (VALUES + BASIS)
    weights = 4 * SIZE * (query + answer) + SIZE * query
    assert saved(num_heads=num_heads) == (weights + query, weights + PLACES * (query + answer))


def test_keys_of_a_gru_are_its_own() -> None:
    names = set(build_model(changed(cell="gru")).state_dict())
    assert {"controller.gru.weight_ih", "controller.gru.bias_hh"} <= names
    assert not any("lstm" in name or name == "controller.initial_cell" for name in names)


def test_a_whole_s3ta_keeps_its_weights_and_their_names() -> None:
    """New settings at their defaults draw the same first weights under the same names."""
    torch.manual_seed(0)
    names = list(build_model(changed()).controller.state_dict())
    assert names == ["initial_hidden", "initial_cell"] + [
        f"{part}.{name}"
        for part, inner in (("lstm", ("weight_ih", "weight_hh", "bias_ih", "bias_hh")), ("query", ()), ("readout", ()))
        for name in inner or ("0.weight", "0.bias", "2.weight", "2.bias")
    ]


@pytest.mark.parametrize("name", ["s3ta_4_resnetv2_mini", "s3ta_16_resnetv2_18"])
def test_the_pooled_control_has_as_many_parameters_as_can_be(name: str) -> None:
    s3ta = model_config(name, num_classes=10, image_size=32)
    assert isinstance(s3ta, S3TAConfig)
    width, wanted = mlp_hidden_like(s3ta), count(s3ta).parameters
    apart = [
        abs(count(ResNetConfig(num_classes=10, vision=s3ta.vision, mlp_hidden=hidden)).parameters - wanted)
        for hidden in (width - 1, width, width + 1)
    ]
    assert apart[1] == min(apart)


def test_of_the_papers_s3ta_16_it_is_14561_units() -> None:
    s3ta = model_config("s3ta_16_resnetv2_152")
    assert isinstance(s3ta, S3TAConfig)
    assert mlp_hidden_like(s3ta) == 14_561
    control = count(ResNetConfig(vision=s3ta.vision, mlp_hidden=14_561))
    assert control.parameters == 58_136_128 + 2049 * 14_561 + 14_562 * 1000 == 102_533_617
    assert abs(control.parameters - count(s3ta).parameters) == 439


def test_a_hidden_layer_is_counted() -> None:
    vision = changed().vision
    plain, deep = (ResNetConfig(num_classes=CLASSES, vision=vision, mlp_hidden=hidden) for hidden in (None, 7))
    assert num_parameters(build_model(deep)) - num_parameters(build_model(plain)) == 65 * 7 + 8 * 10 - 65 * 10


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"feeds_back_logits": False, "first_logits": "readout"},
            "first_logits would change nothing: it needs queries",
        ),
        ({"feeds_back_logits": False, "detach_feedback": True}, "detach_feedback would change nothing"),
        (
            {"queries": "none", "scaled_attention": True},
            "scaled_attention would change nothing: it needs queries=learned",
        ),
        ({"queries": "none", "first_logits": "readout"}, "first_logits would change nothing"),
    ],
    ids=str,
)
def test_settings_of_what_is_left_out_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        changed(**fields)
