"""Shards, blocks, examples in flight, given targets: the same records whatever way the work was divided."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3ta.errors import UserError
from s3ta.evaluate import EvaluationTask, NamedAttack, Settings, Shard, Suite, attack_rounds, chunks_of_round, evaluate
from s3ta.evaluate.plan import chunks_of_shard, micro_batches_per_block
from s3ta.files import part_use, sole_use
from s3ta.records import Ledger
from s3ta.records import ledger as ledger_module

from .small import chunk_bytes, ignore, rows, small_model, small_suite, some_digits
from .toys import answered_as_by, random_resnet, random_s3ta

SETTINGS = Settings(seed=3, batch_size=3, num_threads=1, block=2)


def cascade() -> Suite:
    """Some leave early, everywhere: two attacks of which the second meets only what the first left, with restarts."""
    one, two = small_suite(2).attacks
    plain = {"read_outs": (), "num_restarts": 2}
    attacks = (
        NamedAttack(name="weak", attack=one.attack.model_copy(update={**plain, "radius": 0.02, "step_size": 0.02})),
        NamedAttack(name="strong", attack=two.attack.model_copy(update={**plain, "radius": 0.05})),
    )
    return Suite(name="cascade", description="a test", attacks=attacks, cascade=True)


def run(folder, suite, settings=SETTINGS, shard=None, model=None, count=17):
    model = model or random_s3ta()
    data = answered_as_by(model, count)
    return evaluate(EvaluationTask(model, data, suite, list(range(count)), settings), folder, ignore, shard=shard)


SHARED = {"restarts": small_suite(3), "cascade": cascade()}


@pytest.fixture(scope="module")
def undivided(tmp_path_factory):
    """Both suites in one go; tests do not change the ledgers."""
    return {name: run(tmp_path_factory.mktemp("undivided") / name, suite) for name, suite in SHARED.items()}


@pytest.mark.parametrize("name", SHARED)
@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_fill_the_same_ledger_byte_for_byte(tmp_path, undivided, name, order):
    whole, suite = undivided[name], SHARED[name]
    for index in order:
        part = run(tmp_path / "parts", suite, shard=Shard(index, 3))
        assert part.complete == (index == order[-1])
    assert chunk_bytes(tmp_path / "parts") == chunk_bytes(whole.folder)
    statuses = set(whole.table()["status"].to_pylist())
    assert "settled" in statuses  # somebody did leave: the test tests something


def test_shards_of_separate_machines_merge_by_copying(tmp_path, undivided):
    for index in (1, 2):
        part = run(tmp_path / str(index), cascade(), shard=Shard(index, 2))
        assert not part.complete
    for path in (tmp_path / "2").glob("chunk-*.parquet"):
        path.rename(tmp_path / "1" / path.name)
    assert Ledger.read(tmp_path / "1").complete
    assert chunk_bytes(tmp_path / "1") == chunk_bytes(undivided["cascade"].folder)


def test_a_chunk_of_another_evaluation_is_refused_and_kept(tmp_path):
    ours, other = run(tmp_path / "a", small_suite()), run(tmp_path / "b", small_suite(), SETTINGS._replace(seed=4))
    path = ours.chunk_path(1)
    path.write_bytes(other.chunk_path(1).read_bytes())
    with pytest.raises(ledger_module.ForeignChunkError, match="another evaluation"):
        run(tmp_path / "a", small_suite())
    assert path.read_bytes() == other.chunk_path(1).read_bytes()  # nothing was overwritten


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_chunk_belongs_to_exactly_one_shard(count):
    for suite in (small_suite(2), small_suite(1), cascade()):
        owned = [chunks_of_shard(suite, 40, SETTINGS, Shard(i, count)) for i in range(1, count + 1)]
        assert sorted(chunk for own in owned for chunk in own) == list(range(len(attack_rounds(suite)) * 14))
        assert micro_batches_per_block(suite, SETTINGS) == (
            1 if suite.name == "small" and suite.attacks[0].attack.num_restarts == 1 else 2
        )


def test_blocks_never_share_an_example():
    positions = list(range(20))
    attack_round = attack_rounds(cascade())[1]
    gone = {place: "settled" for place in (0, 1, 2, 3, 9, 13)}
    cut = chunks_of_round(attack_round, positions, 3, gone, block=2)
    for chunk in cut:
        places = [*chunk.positions, *(place for place, _ in chunk.left_out)]
        assert {place // 6 for place in places} <= {chunk.block}
    assert sorted(place for chunk in cut for place in chunk.positions) == [p for p in positions if p not in gone]
    assert [chunk.number for chunk in cut] == list(range(7, 14))


@pytest.mark.parametrize("name", ["s3ta_2_resnetv2_mini", "resnetv2_mini_dense"])
def test_no_record_depends_on_how_many_examples_are_in_flight(tmp_path, name):
    model, data = small_model(name), some_digits(11)
    settings = Settings(seed=3, batch_size=8, num_threads=1)
    written = []
    for size in (1, 8, 64):
        folder = tmp_path / str(size)
        ledger = evaluate(
            EvaluationTask(model, data, small_suite(2), list(range(11)), settings._replace(prefetch=size)),
            folder,
            ignore,
        )
        written.append(chunk_bytes(ledger.folder))
    assert written[0] == written[1] == written[2]


def test_fewer_in_flight_really_means_other_neighbours(tmp_path, monkeypatch):
    seen = []
    model = random_resnet()
    data = answered_as_by(model, 4)
    honest = model.forward
    monkeypatch.setattr(model, "forward", lambda images: seen.append(images.detach().clone()) or honest(images))
    evaluate(
        EvaluationTask(model, data, small_suite(), range(4), SETTINGS._replace(prefetch=1)), tmp_path / "x", ignore
    )
    del seen[:2]  # two images of noise, asked twice: is it still the same model?
    assert all(len(images) == SETTINGS.batch_size for images in seen)
    assert all(torch.equal(images[0], images[1]) and torch.equal(images[0], images[2]) for images in seen[:4])


def test_loading_ahead_changes_nothing_and_errors_arrive(tmp_path):
    model = random_resnet()
    data = answered_as_by(model, 17)
    honest, calls = data.image, []

    def image(index, draw=None):
        calls.append(index)
        if index == 13:
            raise UserError("picture 13 is damaged")
        return honest(index, draw)

    data.image = image
    settings = SETTINGS._replace(prefetch=9)
    with pytest.raises(UserError, match="13 is damaged"):
        evaluate(EvaluationTask(model, data, small_suite(), list(range(17)), settings), tmp_path / "x", ignore)
    assert sorted(path.name for path in (tmp_path / "x").glob("chunk-*")) == [
        f"chunk-{i:05d}.parquet" for i in range(4)
    ]
    data.image = honest
    ahead = evaluate(EvaluationTask(model, data, small_suite(), list(range(17)), settings), tmp_path / "x", ignore)
    plain = evaluate(EvaluationTask(model, data, small_suite(), list(range(17)), SETTINGS), tmp_path / "y", ignore)
    assert chunk_bytes(ahead.folder) == chunk_bytes(plain.folder)


def test_given_targets_are_used_and_identify_the_measurement(tmp_path):
    model = random_resnet()
    data = answered_as_by(model, 9)
    aims = {name: int((label + 1) % 5) for name, label in zip(data.ids, data.labels, strict=True)}
    settings = SETTINGS._replace(targets=aims)
    given = evaluate(EvaluationTask(model, data, small_suite(), list(range(9)), settings), tmp_path / "given", ignore)
    for row in rows(given):
        assert row["target"] == (aims[row["example_id"]] if row["attack"] == "targeted-2" else -1)
    with pytest.raises(UserError, match='targets is "given'):
        evaluate(EvaluationTask(model, data, small_suite(), list(range(9)), SETTINGS), tmp_path / "given", ignore)
    drawn = evaluate(EvaluationTask(model, data, small_suite(), list(range(9)), SETTINGS), tmp_path / "drawn", ignore)
    table = drawn.table().to_pylist()
    same = {row["example_id"]: row["target"] for row in table if row["attack"] == "targeted-2"}
    again = evaluate(
        EvaluationTask(model, data, small_suite(), list(range(9)), SETTINGS._replace(targets=same)),
        tmp_path / "again",
        ignore,
    )
    assert again.table().equals(drawn.table())  # exported targets give the same records
    short = SETTINGS._replace(targets={data.ids[0]: aims[data.ids[0]]})
    with pytest.raises(UserError, match="No target is given for example p-001"):
        evaluate(EvaluationTask(model, data, small_suite(), list(range(9)), short), tmp_path / "short", ignore)


def test_confidence_is_the_softmax_of_the_prediction(tmp_path):
    model = random_resnet()
    data = answered_as_by(model, 9)  # two of them wrong
    ledger = evaluate(EvaluationTask(model, data, small_suite(), list(range(9)), SETTINGS), tmp_path / "x", ignore)
    with torch.no_grad():
        logits = model(torch.from_numpy(data.pixels).float() / 255).double()
    expected = (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).max(dim=1).values
    clean = [row["confidence"] for row in ledger.table().to_pylist() if row["attack"] == "clean"]
    np.testing.assert_allclose(clean, expected.numpy(), rtol=1e-5)


def test_a_second_process_on_one_shard_is_refused(tmp_path):
    with part_use(tmp_path, "1-of-2"):
        with part_use(tmp_path, "2-of-2"):  # the other one is free
            pass
        with pytest.raises(UserError, match="part 1-of-2"), part_use(tmp_path, "1-of-2"):
            pass
        with pytest.raises(UserError, match="at work on"), sole_use(tmp_path):
            pass
    with sole_use(tmp_path), pytest.raises(UserError, match="all of"), part_use(tmp_path, "1-of-2"):
        pass
