"""Lists of ids come back as they were written, and matched classes are those of a search by hand, whatever the names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3ta.data import match_classes, positions_of_ids, read_ids
from s3ta.data.example_selection import write_ids

from .helpers import Numbered

PARTS = st.text(
    st.one_of(st.sampled_from(list(" ,\"#;'.-_0123456789\t\u00e4\u0308\u2028")), st.characters(codec="utf-8")),
    min_size=1,
)
FILES = st.builds(
    lambda folder, name, suffix: f"{folder}/{name}{suffix}", PARTS, PARTS, st.sampled_from([".png", ".JPEG", ""])
)


def is_written(name: str) -> bool:
    """Ids that a folder can give on one line: no line break, no space at an end, no backslash, and not a path of dots."""
    lines = name.isprintable() or not {"\n", "\r", "\0"} & set(name)
    return lines and name == name.strip() and "\\" not in name and not name.startswith(("./", "\ufeff"))


@given(st.lists(FILES.filter(is_written), min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_written_ids_are_read_and_select_their_examples(tmp_path: Path, names: list[str], random) -> None:
    order = random.sample(range(len(names)), len(names))
    write_ids(tmp_path / "examples.txt", [names[i] for i in order])
    read = read_ids(tmp_path / "examples.txt")
    assert read == [names[i] for i in order]
    data = Numbered(len(names))
    data.ids = names
    assert positions_of_ids(data, read) == order


@given(st.data(), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_matched_answers_are_those_of_a_search_by_name(draw, num_outputs: int, seed: int) -> None:
    """Both ways of matching against a loop over names; every answer of every example."""
    random = np.random.default_rng(seed)
    names = [f"class {i}" for i in random.permutation(num_outputs)]
    chosen = draw.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    data = Numbered(20)
    data.classes, data.labels = tuple(chosen), random.integers(0, len(chosen), 20)
    logits = random.standard_normal((20, num_outputs))

    match = match_classes(names, data, "data")
    kept = torch.from_numpy(logits)[:, list(match.outputs if match.outputs is not None else range(num_outputs))]
    for row, answer, label in zip(logits, kept.argmax(1).tolist(), match.dataset.labels, strict=True):
        best = max((i for i in range(num_outputs) if names[i] in chosen), key=lambda i: row[i])
        assert chosen[answer] == names[best]
        assert (answer == label) == (names[best] == chosen[label])

    match = match_classes(names, data, "model")
    assert match.outputs is None
    for row, label, true in zip(logits, match.dataset.labels, data.labels, strict=True):
        best = max(range(num_outputs), key=lambda i: row[i])
        assert (best == label) == (names[best] == chosen[true])
