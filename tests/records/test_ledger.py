"""The ledger: whole or absent, resumable, never overwritten, and refusing what it does not know."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ta.errors import UserError
from s3ta.records import Ledger, manifest_differences, to_table
from s3ta.records.ledger import LEDGER_FORMAT

from .hand_made import manifest, rows


def chunk(index: int):
    return rows("clean", [1, 2, 3], [1, 2, 2], first=3 * index)


@pytest.fixture
def ledger(tmp_path):
    """Chunks 0 and 2 of three."""
    ledger = Ledger.open(tmp_path / "quick", manifest())
    for index in (2, 0):
        ledger.write_chunk(index, chunk(index))
    return ledger


def test_missing_chunks_are_what_a_resume_does(ledger):
    assert ledger.missing(range(3)) == [1]
    assert not ledger.complete
    again = Ledger.open(ledger.folder, manifest(informative={"hardware": "another"}))
    assert again.manifest["informative"]["hardware"] == "two cores"
    again.write_chunk(1, chunk(1))
    assert again.complete
    assert Ledger.read(ledger.folder).table()["example_id"].to_pylist() == [f"ex-{i}" for i in range(9)]


def test_the_unfinished_part_is_readable_in_chunk_order(ledger):
    assert Ledger.read(ledger.folder).table()["example_id"].to_pylist() == [f"ex-{i}" for i in (0, 1, 2, 6, 7, 8)]


def test_the_files_depend_on_nothing_but_the_records(ledger, tmp_path):
    other = Ledger.open(tmp_path / "other", manifest())
    for index in (0, 2):
        other.write_chunk(index, to_table(chunk(index)))
    for path in ledger.folder.iterdir():
        assert path.read_bytes() == (other.folder / path.name).read_bytes()
    assert {path.name for path in other.folder.iterdir()} == {
        "manifest.json",
        "chunk-00000.parquet",
        "chunk-00002.parquet",
    }


def test_another_measurement_is_refused_with_every_difference(ledger):
    changed = manifest(seed=7, data__fingerprint="beef", suite__attacks__1__radius=0.2)
    changed["suite"]["attacks"].append({"name": "third"})
    del changed["device"]
    with pytest.raises(UserError) as error:
        Ledger.open(ledger.folder, changed)
    for words in ("seed is 0 there and 7 now", 'data.fingerprint is "f00d" there and "beef" now',
                  "suite.attacks.1.radius is 0.1 there and 0.2 now", 'device is "cpu" there and absent now',
                  'suite.attacks.2 is absent there and {"name": "third"} now'):  # fmt: skip
        assert words in str(error.value)


def test_informative_is_only_free_at_the_top():
    assert not list(manifest_differences({"informative": 1}, {"informative": 2}))
    assert list(manifest_differences({"a": {"informative": 1}}, {"a": {"informative": 2}})) == [
        ("a.informative", "1", "2")
    ]
    assert list(manifest_differences({"a": True}, {"a": 1}))
    assert list(manifest_differences({"a": None}, {}))


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=7,
)


@given(TREES, TREES)
def test_manifests_without_a_difference_are_equal(a, b):
    assert not list(manifest_differences(a, a, "root"))
    assert bool(list(manifest_differences(a, b, "root"))) == (
        json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True)
    )


@given(data=st.data())
def test_any_torn_or_flipped_chunk_is_missing_or_unchanged(ledger, data):
    """A flip in an unused byte of the file may leave the records as they were; anything else must be noticed."""
    path = ledger.chunk_path(0)
    whole = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
            assert ledger.missing(range(3)) == [0, 1]
        else:
            place = data.draw(st.integers(0, len(whole) - 1))
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
            )
            if 0 not in ledger.missing(range(3)):
                assert ledger.read_chunk(0).equals(to_table(chunk(0)))
    finally:
        path.write_bytes(whole)


def test_a_damaged_chunk_is_named_and_replaced(ledger):
    path = ledger.chunk_path(2)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match=r"chunk-00002\.parquet is damaged: it is not readable"):
        ledger.table()
    ledger.write_chunk(2, chunk(2))
    assert ledger.missing(range(3)) == [1]


def test_a_chunk_with_edited_values_or_in_another_place_is_damaged(ledger):
    path = ledger.chunk_path(0)
    stored = pq.read_table(path)
    edited = to_table(rows("clean", [1, 2, 2], [1, 2, 2])).replace_schema_metadata(stored.schema.metadata)
    pq.write_table(edited, path)
    with pytest.raises(UserError, match=r"chunk-00000.*hash"):
        ledger.read_chunk(0)
    ledger.chunk_path(1).write_bytes(ledger.chunk_path(2).read_bytes())
    assert ledger.missing(range(3)) == [0, 1]
    pq.write_table(stored.drop_columns(["loss"]), path)
    with pytest.raises(UserError, match=r"chunk-00000.*columns"):
        ledger.read_chunk(0)


def test_a_sound_chunk_is_never_overwritten(ledger):
    path = ledger.chunk_path(0)
    before = (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
    ledger.write_chunk(0, chunk(0))
    with pytest.raises(UserError, match="never overwritten"):
        ledger.write_chunk(0, chunk(1))
    assert (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) == before


def test_an_index_outside_the_ledger_is_refused(ledger):
    for index in (-1, 3):
        with pytest.raises(ValueError, match="outside"):
            ledger.write_chunk(index, chunk(0))


def test_a_folder_that_is_no_ledger_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        Ledger.read(tmp_path / "none")
    with pytest.raises(UserError, match=r"no manifest\.json"):
        Ledger.read(tmp_path)
    for text, message in (("{", "damaged"), ("[1]", "states no format"), ('{"format": 4, "num_chunks": 1}', "newer"),
                          ('{"format": 2, "num_chunks": 1}', "format 2 by an older s3ta"),
                          ('{"format": 3, "num_chunks": true}', "num_chunks"), ('{"format": 3}', "num_chunks"),
                          ('{"format": 3, "num_chunks": 3}', "no chunk yet")):  # fmt: skip
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=message):
            Ledger.read(tmp_path)


def test_chunks_without_a_manifest_are_not_adopted(ledger):
    (ledger.folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="no manifest"):
        Ledger.open(ledger.folder, manifest())


def test_another_description_of_a_suite_is_the_same_measurement(ledger):
    otherwise = manifest(suite__description="the same attacks, told otherwise")
    for again in (Ledger.open(ledger.folder, otherwise), Ledger.at(ledger.folder, otherwise)):
        assert again.missing() == [1]
        assert again.identity == ledger.identity
    with pytest.raises(UserError, match="cascade"):
        Ledger.open(ledger.folder, manifest(suite__cascade=True, suite__description="x"))


def test_a_chunk_that_differs_in_counts_of_passes_alone_is_left_alone(ledger):
    """Verdicts on the way were not counted once; the records of such a ledger stay, and go on."""
    before = ledger.chunk_path(0).read_bytes()
    counted = chunk(0)
    counted["num_forwards"] = [number + 2 for number in counted["num_forwards"]]
    ledger.write_chunk(0, counted)
    assert ledger.chunk_path(0).read_bytes() == before
    with pytest.raises(UserError, match="already holds other records"):
        ledger.write_chunk(0, rows("clean", [1, 2, 2], [1, 2, 2]))


def test_a_discarded_chunk_is_missing_again(ledger):
    ledger.discard_chunk(2)
    ledger.discard_chunk(1)
    assert ledger.missing() == [1, 2]


def test_classes_in_another_order_are_told_in_one_sentence_with_the_way_back(tmp_path):
    """Folders 0..11 that an earlier version counted as text."""
    numbers = [str(number) for number in range(12)]
    old, new = (
        {"format": LEDGER_FORMAT, "num_chunks": 1, "data": {"classes": classes, "fingerprint": classes[2]}}
        for classes in (sorted(numbers), numbers)
    )
    Ledger.open(tmp_path, old)
    with pytest.raises(UserError) as caught:
        Ledger.open(tmp_path, new)
    said = str(caught.value)
    assert (
        "its 12 classes are the same in another order, there 0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9 (--class-names FILE"
        in said
    )
    assert "data.fingerprint is" in said
    assert "data.classes." not in said


@pytest.mark.parametrize("classes", [["a", "c"], ["a", "b", "c"], None, "ab", [1, "a"]])
def test_other_classes_are_no_other_order(tmp_path, classes):
    Ledger.open(tmp_path, {"format": LEDGER_FORMAT, "num_chunks": 1, "data": {"classes": ["b", "a"]}})
    with pytest.raises(UserError, match=r"data\.classes"):
        Ledger.open(tmp_path, {"format": LEDGER_FORMAT, "num_chunks": 1, "data": {"classes": classes}})
