"""By its answers a ledger knows its model again; a random one is not taken for a changed one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s3ta.errors import UserError
from s3ta.evaluate.manifest import _structure, output_fingerprint, refuse_changed_model_code
from s3ta.files import write_json
from s3ta.models import Classifier
from tests.evaluate.planted import Around


def model(noise: Callable[[Tensor], Tensor]) -> Classifier:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.arange(36.0).view(3, 12) / 36)
    return Classifier(Around(net, after=lambda z: z + noise(z)), name="m", num_classes=3, image_size=2)


SHARED = {
    "torch": torch.rand_like,
    "numpy": lambda z: torch.from_numpy(np.random.random(tuple(z.shape))).to(z),
    "python": lambda z: torch.tensor([random.random() for _ in range(z.numel())]).view_as(z),
}


@pytest.mark.parametrize("source", SHARED)
def test_a_model_that_draws_from_a_shared_generator_answers_the_same_whatever_was_drawn_before(source: str) -> None:
    first = output_fingerprint(model(SHARED[source]))
    torch.rand(3), np.random.rand(), random.random()
    assert output_fingerprint(model(SHARED[source])) == first
    assert len(first) == 6
    assert first != output_fingerprint(model(torch.zeros_like))


@pytest.mark.parametrize(
    "own",
    [
        np.random.default_rng(1).random,
        random.Random(1).random,
        iter(range(99)).__next__,
        iter([0.0, 0.001, 1.0]).__next__,  # two answers that are close by chance: CI met such a pair
    ],
    ids=["numpy", "python", "counter", "close by chance"],
)
def test_a_model_that_never_answers_the_same_is_known_by_no_answer(own: Callable, tmp_path: Path) -> None:
    found = output_fingerprint(model(lambda z: torch.full_like(z, float(own()))))
    assert found == []
    write_json(tmp_path / "manifest.json", {"informative": {"answers": [1.0] * 6}})
    refuse_changed_model_code(tmp_path, {"informative": {"answers": found}})


def test_a_model_with_other_code_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"informative": {"answers": output_fingerprint(model(torch.zeros_like))}})
    refuse_changed_model_code(tmp_path, {"informative": {"answers": output_fingerprint(model(torch.zeros_like))}})
    with pytest.raises(UserError, match="answers otherwise: its code, or something that it reads"):
        refuse_changed_model_code(tmp_path, {"informative": {"answers": output_fingerprint(model(torch.ones_like))}})


class Printed(nn.Linear):
    def __init__(self, text: Callable[[], str]) -> None:
        super().__init__(2, 2)
        self.text = text

    def extra_repr(self) -> str:
        return self.text()


def test_modules_that_print_otherwise_each_time_are_known_by_their_names() -> None:
    def raises() -> str:
        raise ValueError

    counts = iter(range(99))
    ticking = _structure(Printed(lambda: str(next(counts))))
    assert ticking == _structure(Printed(lambda: str(next(counts))))
    assert ticking == _structure(Printed(raises))
    assert ticking != _structure(Printed(lambda: "fixed"))


@pytest.mark.parametrize(
    "constant",
    [torch.tensor([1 + 2j, 3j]), torch.eye(3).to_sparse(), torch.tensor([True, False])],
    ids=["complex", "sparse", "bool"],
)
def test_constants_of_any_kind_are_part_of_the_structure(constant: Tensor) -> None:
    def holding(value: Tensor | None) -> nn.Module:
        net = nn.Linear(2, 2)
        net.register_buffer("constant", value, persistent=False)
        return net

    assert _structure(holding(constant)) == _structure(holding(constant.clone()))
    assert _structure(holding(constant)) != _structure(holding(None))
