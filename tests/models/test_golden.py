"""Parameter names and shapes are a promise to saved files: they change only on purpose.

Write them anew with `.venv/bin/python -m tests.models.test_golden`, and say so in the change log.
"""

import json
from pathlib import Path

import pytest
import torch

from s3ta.models import create_model

FOLDER = Path(__file__).parent / "golden"
NAMES = ("s3ta_4_resnetv2_mini", "resnetv2_18", "resnetv2_152")


def layout(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=10, image_size=60, in_channels=1)
    return {key: list(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_the_stored_list(name):
    stored, now = json.loads((FOLDER / f"{name}.json").read_text()), layout(name)
    changed = [
        f"{key}: stored {stored.get(key)}, now {now.get(key)}"
        for key in sorted(stored.keys() | now.keys())
        if stored.get(key) != now.get(key)
    ]
    assert not changed, (
        f"{len(changed)} tensors of {name} changed, so saved models no longer load: {changed[:5]}. "
        "If that is meant: .venv/bin/python -m tests.models.test_golden"
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for each in NAMES:
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(shape)}" for key, shape in layout(each).items())
        (FOLDER / f"{each}.json").write_text("{\n" + lines + "\n}\n")
