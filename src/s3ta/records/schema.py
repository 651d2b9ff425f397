"""The record: one row per example x attack x restart x read-out, and the checks that every row must pass.

`SCHEMA` names the columns; `to_table` turns columns (NumPy arrays or lists) into a checked table; `content_hash`
identifies what a table says, whatever the version of the Parquet writer.

    >>> clean = dict(example_id=["digit-7"], label=[3], target=[-1], attack=["clean"], restart=[0],
    ...              num_attack_steps=[0], prediction=[3], confidence=[0.9], loss=[0.1], correct=[True], hit=[False],
    ...              distance=[0.0], num_gradients=[0], num_forwards=[1], status=["run"])
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

STATUS_RUN, STATUS_SETTLED, STATUS_OVER_BUDGET = "run", "settled", "budget"
"""Why a record is there: the attack ran; it was left out, for nothing could change the example's verdict any more; it was
left out, for it did not fit into the budget. What was not run has no prediction, loss, verdict or distance: they are null."""

MEASURED = ("prediction", "confidence", "loss", "correct", "hit", "distance")
"""The columns that only an attack that ran can fill."""

SCHEMA = pa.schema(
    [
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("target", pa.int32(), nullable=False),  # -1: none
        pa.field("attack", pa.string(), nullable=False),
        pa.field("restart", pa.int16(), nullable=False),  # from 0
        pa.field("num_attack_steps", pa.int32(), nullable=False),  # the read-out; 0: clean
        pa.field("prediction", pa.int32()),
        pa.field("confidence", pa.float32()),  # the prediction's softmax probability, 0 to 1
        pa.field("loss", pa.float32()),  # cross-entropy of the true label, nats
        pa.field("correct", pa.bool_()),  # prediction == label
        pa.field("hit", pa.bool_()),  # prediction == target >= 0
        pa.field("distance", pa.float32()),  # to the clean image, in the norm of the attack
        pa.field("num_gradients", pa.int32(), nullable=False),  # spent in this restart up to this read-out
        pa.field("num_forwards", pa.int32(), nullable=False),  # likewise, those of the gradients among them
        pa.field("status", pa.string(), nullable=False),  # run, settled or budget
    ]
)


def to_table(columns: Mapping[str, Any] | pa.Table) -> pa.Table:
    """A table of exactly `SCHEMA`, in its column order.

    Args:
      columns: each column of the schema by name, all of one length; integers that do not fit are refused.

    Raises:
      ValueError: a column is missing, unknown, of another type or length, or a row contradicts itself (`correct` is not
        `prediction == label`, `hit` is not `prediction == target >= 0`, a clean record with a target or steps, ...)."""
    if not isinstance(columns, Mapping):
        columns = dict(zip(columns.column_names, columns.columns, strict=True))
    if set(columns) != set(SCHEMA.names):
        missing, unknown = sorted(set(SCHEMA.names) - set(columns)), sorted(set(columns) - set(SCHEMA.names))
        raise ValueError(f"record columns differ from the schema: missing {missing}, unknown {unknown}")
    try:
        arrays = [_column(field, columns[field.name]) for field in SCHEMA]
        table = pa.Table.from_arrays(arrays, schema=SCHEMA).combine_chunks()
    except (pa.ArrowException, OverflowError) as error:
        raise ValueError(f"records do not fit the schema: {error}") from error
    _check_rows(table)
    return table


def content_hash(table: pa.Table, *context: str) -> str:
    """Sixteen hexadecimal digits over column names, types, values and `context` (such as the chunk's index)."""
    parts = [part.encode() + b"\0" for part in context]
    for field in table.schema:
        parts.append(f"{field.name}:{field.type}:{table.num_rows}\0".encode())
        values = filled(table, field.name)
        if table[field.name].null_count:
            parts.append(table[field.name].is_valid().to_numpy().tobytes())
        if pa.types.is_string(field.type):
            texts = [text.encode() for text in values]
            parts += [np.array([len(text) for text in texts], "<i8").tobytes(), *texts]
        else:
            parts.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return sha256(*parts)


def _column(field: pa.Field, values: Any) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if not isinstance(values, pa.Array):
        is_text = pa.types.is_string(field.type)
        values = pa.array([str(value) for value in values] if is_text else np.asanyarray(values))
    if len(values) and pa.types.is_boolean(field.type) != pa.types.is_boolean(values.type):
        raise ValueError(f"column '{field.name}' is {values.type}, not {field.type}")
    return values.cast(field.type, safe=not pa.types.is_floating(field.type))


def _check_rows(table: pa.Table) -> None:
    for name in table.column_names:
        if name not in MEASURED and table[name].null_count:
            raise ValueError(f"records may not hold nulls in '{name}'")
    values = {name: filled(table, name) for name in SCHEMA.names}
    was_run, is_clean, aimed = values["status"] == STATUS_RUN, values["attack"] == CLEAN, values["target"] >= 0
    has_verdict = np.array([table[name].is_valid().to_numpy() for name in MEASURED])
    spent = (values["num_gradients"] != 0) | (values["num_forwards"] != 0)
    rules = {
        "its status is none of run, settled, budget": ~np.isin(
            values["status"], [STATUS_RUN, STATUS_SETTLED, STATUS_OVER_BUDGET]
        ),
        "an attack that ran without a verdict, or a verdict without one": (has_verdict != was_run).any(axis=0),
        "evaluations of an attack that did not run": ~was_run & spent,
        "a clean record that was not run": is_clean & ~was_run,
        "correct is not prediction == label": was_run
        & (values["correct"] != (values["prediction"] == values["label"])),
        "hit is not prediction == target": was_run
        & (values["hit"] != (aimed & (values["prediction"] == values["target"]))),
        "the target is the label": aimed & (values["target"] == values["label"]),
        "the target is below -1": values["target"] < NO_TARGET,
        "a clean record with steps, restarts or a target": is_clean
        & ((values["num_attack_steps"] != 0) | (values["restart"] != 0) | aimed),
        "an attacked record with no steps": ~is_clean & (values["num_attack_steps"] < 1),
        "a confidence outside 0..1": ~((values["confidence"] >= 0) & (values["confidence"] <= 1)),
        "a loss that is not finite": ~np.isfinite(values["loss"]),
        "a negative restart": values["restart"] < 0,
        "a distance that is negative or not finite": ~((values["distance"] >= 0) & np.isfinite(values["distance"])),
    }
    for problem, broken in rules.items():
        if broken.any():
            row = int(np.flatnonzero(broken)[0])
            raise ValueError(f"record {row} (example {table['example_id'][row].as_py()!r}): {problem}")


def filled(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array, 0 or False where it is null: use it with `status`, never alone."""
    column = table[name]
    return (column.fill_null(pa.scalar(0).cast(column.type)) if column.null_count else column).to_numpy()
