"""The record: one row per example x attack x restart x read-out, and the checks that every row must pass.

`SCHEMA` names the columns; `to_table` turns columns (NumPy arrays or lists) into a checked table; `content_hash`
identifies what a table says, whatever the version of the Parquet writer.

    >>> clean = dict(example_id=["digit-7"], label=[3], target=[-1], attack=["clean"], restart=[0],
    ...              num_attack_steps=[0], prediction=[3], loss=[0.1], correct=[True], hit=[False],
    ...              distance=[0.0], num_gradients=[0], num_forwards=[1])
    >>> to_table(clean).num_rows
    1
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from s3ta.files import sha256

CLEAN = "clean"
"""The attack name of a record of the clean image; its read-out is 0 attack steps."""

NO_TARGET = -1
"""The target of a record whose attack aims at no class."""

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),  # -1: none
        pa.field("attack", pa.string(), nullable=False),
        pa.field("restart", pa.int16(), nullable=False),  # from 0
        pa.field("num_attack_steps", pa.int32(), nullable=False),  # the read-out; 0: clean
        pa.field("prediction", pa.int32(), nullable=False),
        pa.field("loss", pa.float32(), nullable=False),  # cross-entropy of the true label, nats
        pa.field("correct", pa.bool_(), nullable=False),  # prediction == label
        pa.field("hit", pa.bool_(), nullable=False),  # prediction == target >= 0
        pa.field("distance", pa.float32(), nullable=False),  # L-infinity to the clean image, pixels in [0, 1]
        pa.field("num_gradients", pa.int32(), nullable=False),  # spent in this restart up to this read-out
        pa.field("num_forwards", pa.int32(), nullable=False),
    ]
)


def to_table(columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """A table of exactly `SCHEMA`, in its column order.

    Args:
      columns: each column of the schema by name, all of one length; integers that do not fit are refused.

    Raises:
      ValueError: a column is missing, unknown, of another type or length, or a row contradicts itself (`correct` is not
        `prediction == label`, `hit` is not `prediction == target >= 0`, a clean record with a target or steps, ...)."""
    names = columns.keys() if isinstance(columns, Mapping) else columns.column_names
    named = {name: columns[name] for name in names}
    if set(named) != set(SCHEMA.names):
        missing, unknown = sorted(set(SCHEMA.names) - set(named)), sorted(set(named) - set(SCHEMA.names))
        raise ValueError(f"record columns differ from the schema: missing {missing}, unknown {unknown}")
    try:
        arrays = [_column(field, named[field.name]) for field in SCHEMA]
        table = pa.Table.from_arrays(arrays, schema=SCHEMA).combine_chunks()
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"records do not fit the schema: {error}") from error
    _check_rows(table)
    return table


def content_hash(table: pa.Table, *context: str) -> str:
    """Sixteen hexadecimal digits over column names, types and values; `context` (such as the chunk's index) is mixed
    in."""
    parts = [part.encode() + b"\0" for part in context]
    for field in table.schema:
        parts.append(f"{field.name}:{field.type}:{table.num_rows}\0".encode())
        column = table[field.name]
        if pa.types.is_string(field.type):
            texts = [text.encode() for text in column.to_pylist()]
            parts += [np.array([len(text) for text in texts], "<i8").tobytes(), *texts]
        else:
            values = column.to_numpy()
            parts.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return sha256(*parts)


def _column(field: pa.Field, values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        if pa.types.is_string(field.type):
            values = [str(value) for value in values]
        values = pa.array(np.asarray(values) if not pa.types.is_string(field.type) else values)
    if pa.types.is_boolean(field.type) != pa.types.is_boolean(values.type):
        raise ValueError(f"column '{field.name}' is {values.type}, not {field.type}")
    return values.cast(field.type, safe=not pa.types.is_floating(field.type))


def _check_rows(table: pa.Table) -> None:
    if any(table[name].null_count for name in table.column_names):
        raise ValueError("records may not hold nulls")
    values = {name: table[name].to_numpy() for name in SCHEMA.names if name not in ("example_id", "attack")}
    is_clean = np.array(table["attack"].to_pylist(), dtype=object) == CLEAN
    aimed = values["target"] >= 0
    rules = {
        "correct is not prediction == label": values["correct"] != (values["prediction"] == values["label"]),
        "hit is not prediction == target": values["hit"] != (aimed & (values["prediction"] == values["target"])),
        "the target is the label": aimed & (values["target"] == values["label"]),
        "the target is below -1": values["target"] < NO_TARGET,
        "a clean record with steps, restarts or a target": is_clean
        & ((values["num_attack_steps"] != 0) | (values["restart"] != 0) | aimed),
        "an attacked record with no steps": ~is_clean & (values["num_attack_steps"] < 1),
        "a loss that is not finite": ~np.isfinite(values["loss"]),
        "a negative restart": values["restart"] < 0,
        "a distance outside [0, 1]": ~((values["distance"] >= 0) & (values["distance"] <= 1 + 1e-5)),
    }
    for problem, broken in rules.items():
        if broken.any():
            row = int(np.flatnonzero(broken)[0])
            raise ValueError(f"record {row} (example {table['example_id'][row].as_py()!r}): {problem}")
