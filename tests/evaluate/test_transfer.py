"""Adversarial images of one model scored on another, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.attacks import PGDConfig
from s3ta.data import fetch_batch
from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, NamedAttack, Suite, TransferImages, evaluate, transfer_suite
from s3ta.files import read_arrays
from s3ta.records import Ledger, count_scores
from s3ta.workflow import transfer_request
from s3ta.workflow.evaluation import _refuse_other_data
from tests.evaluate.small import chunk_bytes, ignore, killed_after, rows
from tests.evaluate.toys import SETTINGS, Pictures, answered_as_by, random_resnet

COUNT = 7


def config(objective: str, **changes) -> PGDConfig:
    return PGDConfig(objective=objective, radius=0.05, step_size=0.03, num_attack_steps=2).model_copy(update=changes)


PLAN = Suite(
    name="s",
    description="d",
    attacks=(
        NamedAttack(name="u", attack=config("untargeted", num_restarts=2, read_outs=(1,))),
        NamedAttack(name="t", attack=config("targeted")),
        NamedAttack(name="l2", attack=config("untargeted", norm="l2", radius=0.5, step_size=0.3)),
    ),
    gallery_attack="t",
)
WHOLE = SETTINGS._replace(exhaustive=True)
KEEP = WHOLE._replace(keep_images=True)


def data() -> Pictures:
    return answered_as_by(random_resnet(), COUNT)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    folder = tmp_path_factory.mktemp("source")
    return evaluate(EvaluationTask(random_resnet(), data(), PLAN, range(COUNT), KEEP), folder, ignore)


def score_on(model: torch.nn.Module, source: Ledger, folder: Path, settings=WHOLE) -> Ledger:
    images, suite, settings = transfer_request(source.folder, settings)
    assert images.ids == data().ids[:COUNT]
    return evaluate(EvaluationTask(model, data(), suite, range(COUNT), settings, images), folder, ignore)


def test_a_models_own_images_reproduce_its_verdicts(source: Ledger, tmp_path: Path) -> None:
    """Bit for bit, at the last read-out; with a micro-batch of the same size. Nothing but the verdict is spent."""
    again = score_on(random_resnet(), source, tmp_path)
    last = {"u": 2, "t": 2, "l2": 2}
    own = {
        (r["attack"], r["restart"], r["example_id"]): r
        for r in rows(source)
        if r["attack"] == "clean" or r["num_attack_steps"] == last[r["attack"]]
    }
    found = {(r["attack"].removeprefix("transfer:"), r["restart"], r["example_id"]): r for r in rows(again)}
    assert found.keys() == own.keys()
    for key, row in found.items():
        for column in ("label", "target", "prediction", "loss", "correct", "hit", "distance", "num_attack_steps"):
            assert row[column] == own[key][column], (key, column)
        assert (row["num_gradients"], row["num_forwards"]) == (0, 1)


def test_another_model_is_asked_about_the_same_images(source: Ledger, tmp_path: Path) -> None:
    """Against plain forward passes on the images as they lie in the files."""
    other = random_resnet(seed=7)
    ledger = score_on(other, source, tmp_path)
    found = {(r["attack"], r["restart"], r["example_id"]): r for r in rows(ledger)}
    clean = dict(zip(data().ids, fetch_batch(data(), range(COUNT)).images, strict=True))
    checked = 0
    for path in sorted(source.folder.glob("images-*.npz")):
        arrays = read_arrays(path)
        images = torch.from_numpy(arrays["images"])
        with torch.no_grad():
            predictions = other(images).argmax(dim=1).tolist()
        for example, image, prediction in zip(arrays["example_ids"].tolist(), images, predictions, strict=True):
            row = found[f"transfer:{arrays['attack']}", int(arrays["restart"]), example]
            assert row["prediction"] == prediction
            moved = (image - clean[example]).double()
            length = moved.norm() if str(arrays["attack"]) == "l2" else moved.abs().max()
            assert row["distance"] == pytest.approx(length.item(), abs=1e-6)
            checked += 1
    assert checked == COUNT * 4
    assert ledger.manifest["suite"]["images_from"]["model"] == "random-0"
    assert ledger.manifest["seed"] == source.manifest["seed"]
    table = {score.attack: score for score in count_scores(ledger.table())}
    assert table["transfer:u"].num_restarts == 2


def test_a_killed_transfer_goes_on_to_the_same_bytes(
    source: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = chunk_bytes(score_on(random_resnet(seed=7), source, tmp_path / "whole").folder)
    with killed_after(5, monkeypatch):
        score_on(random_resnet(seed=7), source, tmp_path / "killed")
    assert chunk_bytes(score_on(random_resnet(seed=7), source, tmp_path / "killed").folder) == whole


def test_images_asked_for_later_or_lost_are_made_and_no_record_changes(source: Ledger, tmp_path: Path) -> None:
    settings = KEEP._replace(keep_images=False)
    evaluate(EvaluationTask(random_resnet(), data(), PLAN, range(COUNT), settings), tmp_path, ignore)
    before = chunk_bytes(tmp_path)
    assert not list(tmp_path.glob("images-*"))
    evaluate(EvaluationTask(random_resnet(), data(), PLAN, range(COUNT), KEEP), tmp_path, ignore)
    assert chunk_bytes(tmp_path) == before
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("images-*")}
    assert kept == {path.name: path.read_bytes() for path in source.folder.glob("images-*")}
    (tmp_path / "images-00005.npz").unlink()
    evaluate(EvaluationTask(random_resnet(), data(), PLAN, range(COUNT), KEEP), tmp_path, ignore)
    assert kept == {path.name: path.read_bytes() for path in tmp_path.glob("images-*")}


def test_a_transfer_to_other_data_is_refused(source: Ledger) -> None:
    evaluation = EvaluationTask(random_resnet(), data(), PLAN, range(COUNT), KEEP, TransferImages(source.folder))
    _refuse_other_data(evaluation)
    with pytest.raises(UserError, match="made of other examples"):
        _refuse_other_data(replace(evaluation, positions=range(COUNT - 1)))
    with pytest.raises(UserError, match="made of other examples"):
        _refuse_other_data(replace(evaluation, dataset=answered_as_by(random_resnet(), COUNT, seed=2)))


def test_sources_without_all_images_are_refused(
    source: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str, suite: Suite = PLAN, **changes) -> Path:
        chosen = KEEP._replace(**changes)
        return evaluate(
            EvaluationTask(random_resnet(), data(), suite, range(COUNT), chosen), tmp_path / folder, ignore
        ).folder

    with pytest.raises(UserError, match="holds no images: evaluate the source model with --keep-images"):
        TransferImages(run("none", keep_images=False))
    with pytest.raises(UserError, match=r"images of only some examples.*--exhaustive"):
        TransferImages(run("early", exhaustive=False))
    single = PLAN.model_copy(update={"attacks": PLAN.attacks[1:], "cascade": True})
    with pytest.raises(UserError, match="images of only some examples"):
        TransferImages(run("cascade", single))
    with killed_after(4, monkeypatch):
        run("killed")
    with pytest.raises(UserError, match="is not finished"):
        TransferImages(tmp_path / "killed")
    with pytest.raises(UserError, match="does not exist"):
        TransferImages(tmp_path / "nowhere")


def test_transferred_images_are_not_transferred_again(source: Ledger, tmp_path: Path) -> None:
    once = score_on(random_resnet(seed=7), source, tmp_path, SETTINGS._replace(keep_images=True))
    with pytest.raises(UserError, match="themselves transferred"):
        transfer_suite(once.manifest)


def test_a_missing_image_is_named(source: Ledger) -> None:
    images = TransferImages(source.folder)
    assert images.load("t", 0, ["p-004", "p-001"]).shape == (2, 1, 12, 12)
    alone = [images.load("u", 1, [name])[0] for name in ("p-006", "p-000", "p-003")]
    together = images.load("u", 1, ["p-006", "p-000", "p-003"])
    assert np.array_equal(torch.stack(alone), together), "whatever the order"
    with pytest.raises(UserError, match="no image of example p-099 under attack 't'"):
        images.load("t", 0, ["p-099"])
