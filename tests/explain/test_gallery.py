"""The gallery shows exactly the attacked images of the evaluation, with the model's own attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.errors import UserError
from s3ta.evaluate import KEPT_FILE, EvaluationTask, evaluate
from s3ta.explain import KEPT, build_gallery, predict_with_attention
from s3ta.files import read_arrays
from s3ta.records import Ledger
from tests.evaluate.small import SETTINGS, ignore, small_model, small_suite, some_digits


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    evaluate(EvaluationTask(small_model(), some_digits(), small_suite(), [7, 2, 9, 4, 1], SETTINGS), tmp_path, ignore)
    return tmp_path


def drawn(folder: Path, name: str = "s3ta_2_resnetv2_mini", count: int = 11) -> dict[str, np.ndarray]:
    kept = read_arrays(folder / KEPT_FILE, KEPT)
    return build_gallery(small_model(name), some_digits(count), kept, SETTINGS.batch_size)


def test_the_gallery_holds_the_recorded_images(evaluated: Path) -> None:
    data, model = some_digits(), small_model().eval()
    arrays = drawn(evaluated)
    assert arrays["example_ids"].tolist() == [data.ids[i] for i in (7, 2, 9)]
    assert str(arrays["attack"]) == "targeted-2"
    records = {
        row["example_id"]: row
        for row in Ledger.read(evaluated).table().to_pylist()
        if row["attack"] == "targeted-2" and row["num_attack_steps"] == 2
    }
    for i, example_id in enumerate(arrays["example_ids"]):
        record = records[str(example_id)]
        assert arrays["probabilities_adversarial"][i].argmax() == record["prediction"]
        assert arrays["targets"][i] == record["target"]
        loss = -np.log(arrays["probabilities_adversarial"][i][record["label"]])
        assert loss == pytest.approx(record["loss"], abs=1e-6)
        moved = np.abs(arrays["adversarial"][i] - arrays["clean"][i]).max()
        assert moved == pytest.approx(record["distance"], abs=1e-7)
    trace = model.unroll(torch.from_numpy(arrays["adversarial"]))
    np.testing.assert_allclose(arrays["attention_adversarial"], trace.attention.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["glimpse_probabilities_clean"].sum(axis=-1), 1, atol=1e-5)
    assert arrays["attention_clean"].shape == (2, 3, 4, 15, 15)


def test_the_gallery_of_a_model_without_attention_holds_none(tmp_path: Path) -> None:
    model = small_model("resnetv2_mini_dense")
    evaluate(EvaluationTask(model, some_digits(), small_suite(), [1, 2, 3], SETTINGS), tmp_path, ignore)
    found = drawn(tmp_path, "resnetv2_mini_dense")
    assert {name for name in found if "attention" in name or "glimpse" in name} == set()


def test_padding_is_left_out_of_the_gallery() -> None:
    images = torch.rand(3, 1, 60, 60, generator=torch.Generator().manual_seed(1))
    for name in ("s3ta_2_resnetv2_mini", "resnetv2_mini_dense"):
        padded, plain = (
            predict_with_attention(small_model(name), images, 7),
            predict_with_attention(small_model(name), images),
        )
        assert padded.keys() == plain.keys()
        for key in plain:
            np.testing.assert_allclose(padded[key], plain[key], atol=1e-5)


def test_damaged_or_foreign_images_are_refused(evaluated: Path) -> None:
    with pytest.raises(UserError, match="not in the test split"):
        drawn(evaluated, count=3)
    (evaluated / KEPT_FILE).write_bytes(b"PK not an archive")
    with pytest.raises(UserError, match="damaged"):
        drawn(evaluated)


def test_the_gallery_of_an_attack_without_targets_holds_none(tmp_path: Path) -> None:
    suite = small_suite().model_copy(update={"gallery_attack": "untargeted-3"})
    evaluate(EvaluationTask(small_model(), some_digits(), suite, [1, 2, 3], SETTINGS), tmp_path, ignore)
    assert drawn(tmp_path)["targets"].tolist() == [-1, -1, -1]
