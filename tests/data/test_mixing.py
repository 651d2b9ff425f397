"""Mixup and CutMix against what they say: shares of pixels and of classes, pairs, and nothing but the generator's draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from s3ta.data import MixingConfig
from s3ta.data.mixing import mixed
from s3ta.random_streams import stream

CLEAN, LABELS = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])


def drawn(config: MixingConfig, step: int = 0, number: int = 6):
    return mixed(CLEAN[:number], LABELS[:number], 4, config, stream(0, "mix", step))


@pytest.mark.parametrize("step", range(4))
def test_mixup_adds_pairs_in_the_shares_of_their_labels(step: int) -> None:
    images, shares = drawn(MixingConfig(mixup=1.0, cutmix=0.0), step)
    for i in range(6):
        own = shares[i, LABELS[i]].item()
        torch.testing.assert_close(images[i], own * CLEAN[i] + (1 - own) * CLEAN[i ^ 1], rtol=1e-5, atol=1e-6)
        assert shares[i, LABELS[i ^ 1]].item() == pytest.approx(1 - own, abs=1e-6)
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(6))


@pytest.mark.parametrize("step", range(8))
def test_cutmix_puts_a_box_of_the_neighbour_in_the_share_of_its_pixels(step: int) -> None:
    images, shares = drawn(MixingConfig(mixup=0.0, cutmix=1.0), step)
    for i in range(6):
        of_neighbour = (images[i] == CLEAN[i ^ 1]).all(dim=0)
        assert ((images[i] == CLEAN[i]).all(dim=0) | of_neighbour).all()
        assert shares[i, LABELS[i ^ 1]].item() == pytest.approx(of_neighbour.float().mean().item(), abs=1e-6)
        rows, columns = (of_neighbour.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        assert of_neighbour.sum() == len(rows) * len(columns)


def test_a_step_is_mixed_alike_and_steps_differ() -> None:
    first, again, other = (drawn(MixingConfig(), step)[0] for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pairs_do_not_depend_on_how_the_batch_is_divided() -> None:
    whole, _ = drawn(MixingConfig(mixup=1.0, cutmix=0.0), 2)
    half, _ = drawn(MixingConfig(mixup=1.0, cutmix=0.0), 2, number=4)
    assert torch.equal(whole[:4], half)
    odd, shares = drawn(MixingConfig(mixup=1.0, cutmix=0.0), 2, number=5)
    torch.testing.assert_close(odd[4], CLEAN[4])
    assert shares[4, LABELS[4]].item() == pytest.approx(1)


def test_so_many_batches_are_mixed_as_asked() -> None:
    config = MixingConfig(mixup=1.0, cutmix=1.0, prob=0.25)
    changed = [not torch.equal(drawn(config, step)[0], CLEAN) for step in range(400)]
    assert 0.18 < np.mean(changed) < 0.32


def test_mixing_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="give mixup or cutmix"):
        MixingConfig(mixup=0, cutmix=0)
