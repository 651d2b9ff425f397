"""AutoAttack's verdicts are records like any other; and images that must survive being saved as 8 bits."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from s3ta.attacks import PGDConfig, RandomKey, run_attack
from s3ta.data import fetch_batch
from s3ta.evaluate import AttackContext, EvaluationTask, NamedAttack, Suite, evaluate, get_suite, shrink_suite
from s3ta.files import read_arrays
from s3ta.records import STATUS_RUN, Ledger, count_scores
from tests.evaluate.small import chunk_bytes, ignore, killed_after, rows
from tests.evaluate.toys import SETTINGS, answered_as_by, random_resnet, verdicts

COUNT = 7
PARTS = ["apgd-ce", "apgd-t", "fab-t", "square"]


def autoattack(folder: Path, **changes) -> Ledger:
    pytest.importorskip("pyautoattack")
    model = random_resnet()
    suite = shrink_suite(get_suite("autoattack", AttackContext(0.01)))
    chosen = SETTINGS._replace(keep_images=True, **changes)
    return evaluate(EvaluationTask(model, answered_as_by(model, COUNT), suite, range(COUNT), chosen), folder, ignore)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return autoattack(tmp_path_factory.mktemp("whole"))


def test_the_parts_of_autoattack_are_a_cascade_of_records(whole: Ledger) -> None:
    """Each part meets what the ones before it left correct, and its images classified again are its verdicts."""
    model, data = random_resnet(), answered_as_by(random_resnet(), COUNT)
    found = {(r["attack"], r["example_id"]): r for r in rows(whole)}
    alive = {example for example in data.ids if found["clean", example]["correct"]}
    assert 0 < len(alive) < COUNT
    for part in PARTS:
        ran = {example for example in data.ids if found[part, example]["status"] == STATUS_RUN}
        assert ran == alive
        alive -= {example for example in ran if not found[part, example]["correct"]}
    table = count_scores(whole.table(), cascade=True)
    assert [score.attack for score in table] == ["clean", *PARTS]
    assert table[-1].num_correct == len(alive) < table[0].num_correct
    clean = dict(zip(data.ids, fetch_batch(data, range(COUNT)).images, strict=True))
    seen = 0
    for path in whole.folder.glob("images-*.npz"):
        arrays = read_arrays(path)
        for example, image in zip(arrays["example_ids"].tolist(), torch.from_numpy(arrays["images"]), strict=True):
            with torch.no_grad():
                assert found[str(arrays["attack"]), example]["prediction"] == int(model(image[None]).argmax())
            assert (image - clean[example]).abs().max() <= 0.01 + 1e-6
            seen += 1
    assert seen == sum(r["status"] == STATUS_RUN and r["attack"] != "clean" for r in rows(whole))


@pytest.mark.parametrize("after", [4, 8])
def test_autoattack_killed_goes_on_to_the_same_bytes(
    whole: Ledger, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(after, monkeypatch):
        autoattack(tmp_path)
    torch.manual_seed(after)  # the global random state is none of its business
    assert chunk_bytes(autoattack(tmp_path).folder) == chunk_bytes(whole.folder)


def test_the_exhaustive_cascade_attacks_every_example(tmp_path: Path) -> None:
    """No equality with the early one is promised: AutoAttack's noise belongs to the whole batch."""
    ledger = autoattack(tmp_path, exhaustive=True)
    assert {r["status"] for r in rows(ledger)} == {STATUS_RUN}
    standing = [np.array(o[6]) for o in verdicts(ledger, cascade=True)]
    assert all((after <= before).all() for before, after in pairwise(standing))


@pytest.mark.parametrize(("norm", "radius"), [("linf", 8 / 255), ("l2", 0.3)])
def test_eight_bit_images_are_whole_255ths_and_are_what_is_judged(norm: str, radius: float, tmp_path: Path) -> None:
    model = random_resnet()
    data = answered_as_by(model, COUNT)
    config = PGDConfig(
        objective="untargeted", norm=norm, radius=radius, step_size=radius / 2.7, num_attack_steps=3, read_outs=(2,)
    )
    rounded = NamedAttack(name="a", attack=config.model_copy(update={"eight_bit": True}))
    suite = Suite(name="s", description="d", attacks=(rounded,), gallery_attack="a")
    ledger = evaluate(
        EvaluationTask(model, data, suite, range(COUNT), SETTINGS._replace(keep_images=True)), tmp_path, ignore
    )
    found = {r["example_id"]: r for r in rows(ledger) if r["num_attack_steps"] == 3}
    clean = dict(zip(data.ids, fetch_batch(data, range(COUNT)).images, strict=True))
    seen = 0
    for path in tmp_path.glob("images-*.npz"):
        arrays = read_arrays(path)
        for example, image in zip(arrays["example_ids"].tolist(), torch.from_numpy(arrays["images"]), strict=True):
            whole = (image * 255).round()
            assert (image * 255 - whole).abs().max() < 1e-4
            saved = torch.from_numpy(whole.numpy().astype(np.uint8)).float() / 255  # written to a file and read again
            assert torch.equal(saved, image)
            with torch.no_grad():
                assert found[example]["prediction"] == int(model(saved[None]).argmax())
            moved = (saved - clean[example]).double()
            assert (moved.norm() if norm == "l2" else moved.abs().max()).item() <= radius + 1e-6
            seen += 1
    assert seen == COUNT
    batch = fetch_batch(data, range(3))
    loose = run_attack(
        model, batch.images, batch.labels, config=config, draw=RandomKey(3, tuple(batch.ids), ("a", 0))
    ).final
    assert (loose * 255 - (loose * 255).round()).abs().max() > 1e-2, "without the option pixels are anything"
