"""Which row of the paper a run is a repetition of, by the recipe that trained it."""

from __future__ import annotations

import re
from collections.abc import Collection

from s3ta.report.load_runs import Run

_ROWS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"imagenet/resnetv2_152-10", ("ResNet-152",)),
    (r"imagenet/resnetv2_152-30", ("ResNet-152-30",)),
    (r"imagenet/resnet(v2_)?152_denoise-30", ("DENOISE",)),
    (r"imagenet/resnetv2_152_llr", ("LLR",)),
    (r"imagenet/s3ta_2-10", ("S3TA-2",)),
    (r"imagenet/s3ta_4-10", ("S3TA-4",)),
    (r"imagenet/s3ta_8-10", ("S3TA-8",)),
    (r"imagenet/s3ta_16-10", ("S3TA-16",)),
    (r"imagenet/s3ta_16-30", ("S3TA-16-30", "S3TA-16")),
)
"""A pattern of recipes, and the names that the paper may have for what they train, the likeliest first: Tables 2 and 3 say
S3TA-16 where the text says S3TA-16-30."""


def repeated_row(run: Run, models: Collection[str]) -> str | None:
    """The one of these models of the paper that the run trained again, with nothing changed; None: none of them."""
    changed = any(note.startswith("Changed from the recipe") for note in run.recipe.departures)
    if changed or run.recipe.name is None:
        return None
    for pattern, names in _ROWS:
        if re.fullmatch(pattern, run.recipe.name):
            return next((name for name in names if name in models), None)
    return None
