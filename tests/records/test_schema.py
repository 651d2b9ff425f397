"""What a record may say: types, lengths and rows that do not contradict themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from s3ta.records import SCHEMA, content_hash, to_table

from .hand_made import rows


def test_the_columns_and_their_types_are_the_contract():
    assert [(field.name, str(field.type)) for field in SCHEMA] == [
        ("example_id", "string"), ("label", "int32"), ("target", "int32"), ("attack", "string"), ("restart", "int16"),
        ("num_attack_steps", "int32"), ("prediction", "int32"), ("loss", "float"), ("correct", "bool"), ("hit", "bool"),
        ("distance", "float"), ("num_gradients", "int32"), ("num_forwards", "int32"),
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
        7, SCHEMA.field("loss"), pa.array([0.0, 0.5, np.nextafter(np.float32(1), 2)], pa.float32())
    )
    renamed = table.set_column(0, SCHEMA.field("example_id"), pa.array(["ex-0e", "x-1", "ex-2"]))
    assert len(hashes | {content_hash(moved), content_hash(renamed)}) == 6
    assert content_hash(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == content_hash(table)
