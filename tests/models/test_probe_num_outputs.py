"""Correct networks that refuse what no data hold, or every number of images but one, are opened; others are told what helps."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.models.probe_num_outputs import is_about_shapes, num_outputs


class Answers(nn.Module):
    """Five logits of a linear layer; what it checks of its images is given."""

    def __init__(self, check=lambda images: None, after=lambda logits: logits):
        super().__init__()
        self.linear, self.check, self.after = nn.Linear(3 * 4 * 4, 5), check, after

    def forward(self, images: Tensor):
        self.check(images)
        return self.after(self.linear(images.flatten(1)))


def lively(images: Tensor) -> None:
    assert images.std() > 0, "a constant image"


def not_all_alike(images: Tensor) -> None:
    if torch.equal(images[0], images[-1]):
        raise ValueError("all images are the same")


def ten(images: Tensor) -> None:
    if len(images) != 10:
        raise ValueError(f"batch must be 10, got {len(images)}")


@pytest.mark.parametrize("check", [lively, not_all_alike])
def test_a_network_that_refuses_constant_images_is_opened(check):
    assert num_outputs(Answers(check), 3, 4, "mine:net") == 5


def test_a_network_of_one_batch_size_is_opened_where_that_is_known():
    assert num_outputs(Answers(ten), 3, 4, "mine:net", micro_batch=10) == 5
    for other in (None, 50):
        with pytest.raises(UserError, match=r"batch must be 10, got 2 .*evaluate it with that --batch-size\.$"):
            num_outputs(Answers(ten), 3, 4, "mine:net", micro_batch=other)


def test_the_first_failure_is_the_one_that_is_told():
    def never(images):
        raise ValueError("grey" if images.std() == 0 else "noise")

    with pytest.raises(UserError, match=r"fails on images of 3 x 4 x 4 \(ValueError: grey \(test_probe_num_outputs"):
        num_outputs(Answers(never), 3, 4, "mine:net", micro_batch=10)


class Named(NamedTuple):
    features: Tensor
    logits: Tensor


class Unnamed(NamedTuple):
    scores: Tensor


class ModelOutput(OrderedDict):
    """As of transformers: a dict whose values are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


@pytest.mark.parametrize(
    ("after", "advice"),
    [
        (lambda y: ModelOutput(loss=None, logits=y), "return .logits"),
        (lambda y: Named(y, y), "return .logits"),
        (lambda y: {"logits": y, "features": y}, 'return ["logits"]'),
        (lambda y: {"scores": y}, "return ['scores']"),
        (lambda y: (y,), "return the first element"),
        (lambda y: [y, None], "return the first element"),
        (Unnamed, "return the first element"),
        (lambda y: {1: y, 2: y}, "one row per image"),
        (lambda y: None, "one row per image"),
    ],
)
def test_an_answer_that_holds_the_logits_is_told_how_to_give_them(after, advice):
    with pytest.raises(UserError) as caught:
        num_outputs(Answers(after=after), 3, 4, "mine:net")
    assert str(caught.value).endswith(f"{advice}.")


def test_only_errors_of_shapes_are_about_shapes():
    assert is_about_shapes(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_about_shapes(RecursionError("maximum recursion depth exceeded"))
    assert not is_about_shapes(StopIteration())
