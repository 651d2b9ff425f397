"""What models cost: from a committed table for those of our recipes, so that the answer needs no torch; others are counted.

`python benchmarks/cost_table.py` writes `cost_table.json`, and a test counts again what stands in it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter

from s3ta.models.config import ModelConfig

TABLE_FILE = Path(__file__).with_name("cost_table.json")


class Cost(NamedTuple):
    """Exact figures for one image."""

    parameters: int
    multiply_accumulates: int
    map_size: tuple[int, int]
    """Height and width of the last feature map."""


def count_cost(config: ModelConfig) -> Cost:
    """Parameters, multiply-accumulates (convolutions and matrix products) and map size of a config, without building it."""
    if (row := _rows().get(table_key(config))) is not None:
        return Cost(row["parameters"], row["multiply_accumulates"], (row["map_size"][0], row["map_size"][1]))
    from s3ta.models import cost

    return cost.count(config)


def kept_bytes(
    config: ModelConfig, precision: Literal["float32", "bfloat16"] = "float32", units_per_checkpoint: int = 0
) -> int:
    """Bytes per image at the height of a way back, as `s3ta.models.cost.kept_bytes` counts them."""
    if not units_per_checkpoint and (row := _rows().get(table_key(config))) is not None:
        return row[f"kept_{precision}"]
    from s3ta.models import cost

    return cost.kept_bytes(config, precision, units_per_checkpoint)


def table_key(config: ModelConfig) -> str:
    """Every setting of a model but its name, which costs nothing."""
    return json.dumps(config.model_dump(mode="json", exclude={"name"}), sort_keys=True)


@cache
def _rows() -> dict[str, dict[str, Any]]:
    rows = json.loads(TABLE_FILE.read_text(encoding="utf-8"))
    read: TypeAdapter[ModelConfig] = TypeAdapter(ModelConfig)  # a setting that came later has its default in older rows
    return {table_key(read.validate_json(json.dumps(row["model"]))): row for row in rows}
