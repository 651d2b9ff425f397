"""Which images of which process share BN statistics, and which examples live accuracy is measured on."""

import pytest

from s3ta.config import override
from s3ta.errors import UserError
from s3ta.recipes import get_recipe
from s3ta.train import batch_norm_groups
from s3ta.train.validation import evenly_spaced

from .helpers import recipe


@pytest.mark.parametrize(
    ("batch", "group", "sync", "processes", "images", "span"),
    [
        (1024, 32, False, 1, 32, 1),
        (1024, 32, False, 8, 32, 1),
        (1024, 32, False, 32, 32, 1),
        (1024, 32, False, 64, 16, 2),  # two neighbours share a group
        (1024, 32, False, 128, 8, 4),
        (1024, None, False, 4, 256, 1),
        (1024, None, True, 4, 256, 4),
        (1024, 32, True, 4, 8, 4),
    ],
)
def test_groups_are_the_same_images_for_any_number_of_processes(batch, group, sync, processes, images, span):
    config = recipe(batch_size=batch, batch_norm={"group": group, "sync": sync})
    assert batch_norm_groups(config, processes) == (images, span)


def test_the_papers_recipe_fits_one_process_and_128():
    for processes in (1, 2, 4, 8, 16, 32, 64, 128):
        told = batch_norm_groups(get_recipe("imagenet/s3ta_16-10"), processes)
        assert told.images * told.span == 32


@pytest.mark.parametrize(
    ("batch", "norm", "processes", "words"),
    [
        (1024, {"group": 32}, 3, "does not divide among 3 processes"),
        (24, {"group": 8}, 2, "do not fit the 12 images"),
        (24, {"group": 24}, 3, None),
        (8, {"group": 8}, 8, None),
        (8, {}, 8, "one image"),
        (1024, {"group": 32, "sync": True}, 128, "do not divide among 128: leave it out"),
    ],
)
def test_a_batch_that_does_not_divide_among_processes_is_one_sentence(batch, norm, processes, words):
    config = recipe(batch_size=batch, batch_norm=norm)
    if words is None:
        assert batch_norm_groups(config, processes).images == batch // processes
        return
    with pytest.raises(UserError, match=words) as caught:
        batch_norm_groups(config, processes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("count", "limit"), [(500, 200), (7, 3), (5, 5), (3, 9), (0, 4)])
def test_live_accuracy_sees_examples_from_all_over_the_split(count, limit):
    found = evenly_spaced(count, limit)
    assert len(found) == len(set(found)) == min(count, limit)
    assert found == sorted(found)
    gaps = [b - a for a, b in zip(found, [*found, count][1:], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_trades_without_its_attack_is_refused():
    with pytest.raises(UserError, match=r"set attack\.objective=divergence and attack\.random_start_prob=1 too"):
        override(get_recipe("digits/s3ta_4"), ["loss.kind=trades"])
