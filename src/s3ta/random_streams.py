"""Named random streams: every random number belongs to a name, none to global state.

A stream is opened by what the number is for, such as (seed, "start", example id, attack, restart), so the same example
gets the same target, start and augmentation in every batch, shard, process and device. Drawn on the CPU by a
counter-based generator keyed with a hash of the name; no stream overlaps another.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def stream(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """The generator that belongs to this name. Opening it twice gives the same numbers twice.

    `purpose`: what the numbers are for, such as "target"; `index`: what they belong to: example id, attack name, ..."""
    name = json.dumps([int(seed), purpose, *(i if isinstance(i, str) else int(i) for i in index)])
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
