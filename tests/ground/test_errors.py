"""The sentence for a name that does not exist: nearest names offered, or what there is."""

import pytest

from s3ta.errors import UserError, unknown_name

KNOWN = ["digits/s3ta_4", "digits/resnetv2_mini_dense", "cifar10/s3ta_4_mini"]


@pytest.mark.parametrize(
    ("typed", "nearest"),
    [
        ("digits/s3ta4", "digits/s3ta_4"),
        ("digit/s3ta_4", "digits/s3ta_4"),
        ("cifar10/s3ta_4", "cifar10/s3ta_4_mini"),
        ("digits/resnetv2_mini", "digits/resnetv2_mini_dense"),
    ],
)
def test_the_nearest_name_is_offered_first(typed, nearest):
    error = unknown_name("recipe", typed, KNOWN, "s3ta list recipes")
    assert isinstance(error, UserError)
    text = str(error)
    assert text.startswith(f"Unknown recipe '{typed}'. Did you mean {nearest}")
    assert text.endswith(" See `s3ta list recipes`.")
    assert text.count(typed) >= 1
    assert "Known:" not in text


def test_without_a_near_name_all_known_names_are_listed_in_order():
    assert str(unknown_name("split", "xyz", ("train", "test"))) == "Unknown split 'xyz'. Known: test, train."


def test_at_most_three_near_and_eight_known_names():
    many = [f"name-{i:02d}" for i in range(50)]
    assert str(unknown_name("thing", "name-", many)).count(" or ") == 2
    assert str(unknown_name("thing", "zzz", many)).count(",") == 7


def test_names_may_come_from_any_iterable():
    assert "Did you mean test?" in str(unknown_name("split", "tset", iter(("train", "test"))))
