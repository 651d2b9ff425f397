"""A probe that cannot be made costs its own answer and nothing else, and no probe leaves the box of valid pixels."""

from __future__ import annotations

import pytest
import torch

from s3ta.data import Batch
from s3ta.evaluate.sanity_checks import num_evaluations, probe
from tests.evaluate.test_sanity_checks import COUNT, KINDS, Templates, pictures
from tests.evaluate.toys import RADIUS


class Strict(Templates):
    """Asserts that it is given valid pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert images.min() >= 0, "pixels below 0"
        assert images.max() <= 1, "pixels above 1"
        return super().forward(images)


class NaNFarAway(Templates):
    """Overflows where pixels are far from what it knows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        far = (images - 0.5).abs().amax(dim=(1, 2, 3)) > 0.45
        return super().forward(images) + torch.where(far, torch.nan, 0.0)[:, None]


class RaisesAt(Templates):
    """Raises at one of its calls, counted from 0."""

    calls = 0

    def __init__(self, call: int, error: type[BaseException] = ValueError) -> None:
        super().__init__()
        self.call, self.error = call, error

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.call + 1:
            raise self.error("a kernel is missing")
        return super().forward(images)


def asked(model: torch.nn.Module, images: torch.Tensor | None = None) -> dict[str, str]:
    known, labels, ids = pictures()
    found = probe(model, Batch(ids, known if images is None else images, labels), radius=RADIUS, seed=0)
    return {finding.kind: finding.severity for finding in found}


def test_a_model_that_asserts_its_range_is_probed_in_full():
    images = ((pictures()[0] - 0.5) * 8 + 0.5).clamp(0, 1)
    assert (images == 0).any() or (images == 1).any(), "pixels lie on the border"
    strict = asked(Strict(), images)
    assert list(strict) == KINDS
    assert strict == asked(Templates(), images)
    open_kinds = {kind for kind, severity in strict.items() if severity == "unchecked"}
    assert open_kinds <= {"eight bits"}, "where no image is adversarial, none can be saved"


def test_a_model_that_overflows_at_a_large_radius_leaves_that_question_open_and_no_other():
    _, labels, ids = pictures()
    found = {f.kind: f for f in probe(NaNFarAway(), Batch(ids, pictures()[0], labels), radius=RADIUS, seed=0)}
    assert [kind for kind, finding in found.items() if finding.severity == "unchecked"] == ["larger radius"]
    assert "not finite" in found["larger radius"].sentence


@pytest.mark.parametrize(
    ("call", "left_open"),
    [
        (2, {"random noise", "black box", "margin loss", "zero gradients", "loss still rising", "eight bits"}),
        (50, {"margin loss"}),  # the second experiment alone
        (80, {"larger radius"}),
    ],
)
def test_an_experiment_that_raises_costs_only_its_own_answer(call, left_open):
    """Local linearity looks at what all of them found, but for the large radius."""
    told = asked(RaisesAt(call))
    assert list(told) == KINDS
    if left_open != {"larger radius"}:
        left_open = left_open | {"local linearity"}
    assert {kind for kind, severity in told.items() if severity == "unchecked"} == left_open


def test_the_reason_is_told_and_nothing_is_missing_from_the_count():
    images, labels, ids = pictures()
    told: list[int] = []
    found = probe(
        RaisesAt(50), Batch(ids, images, labels), radius=RADIUS, seed=0, report=lambda done, note="": told.append(done)
    )
    (finding,) = [one for one in found if one.kind == "margin loss"]
    assert finding.sentence == "The check could not be made: ValueError: a kernel is missing."
    assert told[-1] == num_evaluations(COUNT)


def test_a_model_that_raises_at_once_gives_one_open_answer():
    assert asked(RaisesAt(0)) == {"probes": "unchecked"}


def test_ctrl_c_stops_the_experiments():
    with pytest.raises(KeyboardInterrupt):
        asked(RaisesAt(50, KeyboardInterrupt))
