"""The learning curve for TensorBoard, read back through its own reader."""

import builtins
import json

import pytest

from s3ta.errors import UserError
from s3ta.train import TensorBoard, TrainingRun, train
from s3ta.train.tensorboard import FOLDER

from .helpers import CPU, Crash, Pictures, crash_at, recipe, silent


def _run(config, folder, report=silent):
    train(TrainingRun(config, folder, Pictures(), Pictures(6, "validation"), CPU), report, board=TensorBoard(folder))


def _scalars(folder):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(str(folder / FOLDER))
    found.Reload()
    return {name: [(event.step, event.value) for event in found.Scalars(name)] for name in found.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::Warning")  # of the package
def test_every_number_of_the_log_is_there(tmp_path):
    pytest.importorskip("tensorboard")
    _run(recipe(), tmp_path)
    found = _scalars(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    for kind, name in (("train", "loss"), ("train", "learning_rate"), ("validation", "attacked")):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if line["kind"] == kind]
        assert found[f"{kind}/{name}"] == expected
    expected = [(line["step"], pytest.approx(line["speed"]["attack"], rel=1e-6)) for line in lines if "speed" in line]
    assert found["train/speed/attack"] == expected


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_resumed_run_goes_on_in_the_same_folder(tmp_path):
    pytest.importorskip("tensorboard")
    with pytest.raises(Crash):
        _run(recipe(), tmp_path, crash_at(5))
    _run(recipe(), tmp_path)
    assert {step for step, _ in _scalars(tmp_path)["train/loss"]} == set(range(1, 8))


def test_a_missing_tensorboard_is_one_sentence(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **settings):
        if name.startswith(("torch.utils.tensorboard", "tensorboard")):
            raise ImportError(name)
        return real(name, *args, **settings)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UserError, match=r"TensorBoard is not installed: pip install 's3ta\[tensorboard\]'\.$"):
        TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_board_is_told_every_line(tmp_path):
    lines = []

    class Board:
        def add(self, line):
            lines.append(json.dumps(line))

    config = recipe()
    train(TrainingRun(config, tmp_path, Pictures(), Pictures(6, "validation"), CPU), silent, board=Board())
    assert lines == (tmp_path / "train.jsonl").read_text().splitlines()
