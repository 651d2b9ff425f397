"""Count what the models of all recipes cost and write the table that `s3ta show` reads: src/s3ta/models/cost_table.json.

    python benchmarks/cost_table.py

Run it after a change of a recipe's model or of a model's settings; tests/models/test_precomputed_costs.py says when.
About a minute.
"""

from __future__ import annotations

import json
from typing import Any

from s3ta.models import ModelConfig
from s3ta.models.cost import count, kept_bytes
from s3ta.models.precomputed_costs import TABLE_FILE, table_key
from s3ta.recipes import RECIPES
from s3ta.train.cost import models_of


def row(config: ModelConfig) -> dict[str, Any]:
    """One line of the table."""
    cost = count(config)
    return {
        "model": json.loads(table_key(config)),
        "parameters": cost.parameters,
        "multiply_accumulates": cost.multiply_accumulates,
        "map_size": list(cost.map_size),
        "kept_float32": kept_bytes(config, "float32"),
        "kept_bfloat16": kept_bytes(config, "bfloat16"),
    }


def main() -> None:
    """Write the table, one model a line."""
    rows: dict[str, dict[str, Any]] = {}
    for build in RECIPES.values():
        for config in models_of(build()).values():
            rows.setdefault(table_key(config), row(config))
    TABLE_FILE.write_text("[\n" + ",\n".join(map(json.dumps, rows.values())) + "\n]\n", encoding="utf-8")
    print(f"{len(rows)} models: {TABLE_FILE}")


if __name__ == "__main__":
    main()
