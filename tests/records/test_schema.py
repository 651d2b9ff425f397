"""What a record may say: types, lengths and rows that do not contradict themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from s3ta.records import SCHEMA, content_hash, to_table

from .hand_made import join, not_run, rows


def test_the_columns_and_their_types_are_the_contract():
    assert [(field.name, str(field.type)) for field in SCHEMA] == [
        ("example_id", "string"), ("label", "int32"), ("target", "int32"), ("attack", "string"), ("restart", "int16"),
        ("num_attack_steps", "int32"), ("prediction", "int32"), ("confidence", "float"), ("loss", "float"),
        ("correct", "bool"), ("hit", "bool"), ("distance", "float"), ("num_gradients", "int32"), ("num_forwards", "int32"),
        ("status", "string"),
    ]  # fmt: skip


def test_numpy_and_lists_and_tables_give_the_same_table():
    columns = rows("clean", [1, 2, 3], [1, 2, 2])
    table = to_table(columns)
    assert table.schema.equals(SCHEMA)
    assert table.equals(to_table({name: np.asarray(values).tolist() for name, values in columns.items()}))
    assert table.equals(to_table(table.select(SCHEMA.names[::-1])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": [True, True, True]}, "record 2 .*ex-2.*correct"),
        ({"hit": [False, True, False]}, "hit"),
        ({"target": [2, 4, 2]}, "target is the label"),
        ({"target": [-2, -2, -2]}, "below -1"),
        ({"num_attack_steps": [5, 0, 5]}, "no steps"),
        ({"restart": [0, 0, -1]}, "negative restart"),
        ({"distance": [0.1, float("nan"), 0.1]}, "distance"),
        ({"confidence": [0.5, 0.5, 1.001]}, "record 2 .*confidence outside"),
        ({"confidence": [0.5, -0.001, 1]}, "record 1 .*confidence outside"),
        ({"confidence": [float("nan"), 0, 1]}, "record 0 .*confidence outside"),
        ({"label": [1, 2, None]}, "null"),
        ({"label": [1.5, 2, 2]}, "fit"),
        ({"restart": [0, 0, 70000]}, "fit"),
        ({"correct": [1, 1, 0]}, "'correct' is int64"),
        ({"label": [1, 2]}, "fit|length|same"),
    ],
)
def test_a_bad_record_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        to_table(rows("pgd", [1, 2, 3], [1, 2, 2]) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": ["run", "settled", "run"]}, "record 1 .*a verdict without one"),
        ({"correct": [True, None, False]}, "record 1 .*ran without a verdict"),
        ({"loss": [0.1, None, 0.1]}, "record 1 .*ran without a verdict"),
        ({"confidence": [0.1, None, 0.1]}, "record 1 .*ran without a verdict"),
        ({"status": ["run", "skipped", "run"]}, "none of run, settled, budget"),
        ({"label": [1, 2, None], "prediction": [1, 2, 2]}, "null"),
        ({"loss": [0.1, float("inf"), 0.1]}, "loss"),
    ],
)
def test_what_did_not_run_has_no_verdict_and_what_ran_has_one(change, message):
    with pytest.raises(ValueError, match=message):
        to_table(rows("pgd", [1, 2, 3], [1, 2, 2]) | change)


@pytest.mark.parametrize("status", ["settled", "budget"])
def test_records_that_were_not_run_have_a_status_and_no_verdict(status):
    table = to_table(join(rows("pgd", [1], [1]), not_run("pgd", [1, 2], status=status, first=1)))
    assert table["correct"].to_pylist() == [True, None, None]
    assert table["distance"].null_count == table["confidence"].null_count == 2
    with pytest.raises(ValueError, match=r"record 1 .*evaluations of an attack that did not run"):
        to_table(join(rows("pgd", [1], [1]), not_run("pgd", [1], first=1) | {"num_forwards": [1]}))
    with pytest.raises(ValueError, match="clean record that was not run"):
        to_table(join(rows("clean", [1], [1]), not_run("clean", [1], num_steps=0, first=1)))


def test_the_hash_tells_nothing_from_zero():
    """Null and False are two things, and which record is null matters."""
    part = to_table(join(rows("a", [1], [0]), not_run("a", [0], first=1)))
    other = to_table(join(not_run("a", [0]), rows("a", [1], [0], first=1)))
    place = part.schema.get_field_index("correct")
    told = part.set_column(place, SCHEMA.field("correct"), pa.array([False, False]))
    assert len({content_hash(part), content_hash(other), content_hash(told)}) == 3


def test_a_clean_record_has_no_target():
    with pytest.raises(ValueError, match="clean record"):
        to_table(rows("clean", [1, 2, 3], [1, 2, 2], [4, 4, 4]))


def test_missing_and_unknown_columns_are_named():
    columns = rows("clean", [1], [1])
    del columns["loss"]
    with pytest.raises(ValueError, match=r"missing \['loss'\], unknown \['lost'\]"):
        to_table(columns | {"lost": [0.0]})


def test_the_hash_sees_every_value_and_its_place():
    table = to_table(rows("pgd", [1, 2, 3], [1, 2, 2]))
    hashes = {
        content_hash(table),
        content_hash(table, "0"),
        content_hash(table.slice(0, 2)),
        content_hash(table.take([1, 0, 2])),
    }
    moved = table.set_column(
        SCHEMA.get_field_index("loss"),
        SCHEMA.field("loss"),
        pa.array([0.0, 0.5, np.nextafter(np.float32(1), 2)], pa.float32()),
    )
    renamed = table.set_column(0, SCHEMA.field("example_id"), pa.array(["ex-0e", "x-1", "ex-2"]))
    assert len(hashes | {content_hash(moved), content_hash(renamed)}) == 6
    assert content_hash(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == content_hash(table)
