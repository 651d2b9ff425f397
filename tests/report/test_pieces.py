"""Galleries that are damaged, tables as text, pictures as pixels."""

from __future__ import annotations

import base64
import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from s3ta.errors import UserError
from s3ta.records import CLEAN
from s3ta.report import comparison_table, read_out_numbers_table, read_run, read_runs, runs_summary_table
from s3ta.report.comparability import compare
from s3ta.report.experimental_setup import in_force
from s3ta.report.figures import attack_figures, panels, strength_figures
from s3ta.report.gallery import amplification, attention, examples, heat, picture
from s3ta.report.load_runs import read_gallery
from s3ta.report.result_tables import Table
from s3ta.report.winner import strongest

from .synthetic import ATTACKS, make_gallery, make_run


def saved(tmp_path, **changes):
    arrays = {name: array for name, array in (make_gallery() | changes).items() if array is not None}
    np.savez(tmp_path / "gallery.npz", **arrays)
    return tmp_path / "gallery.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": None}, "'clean' is missing"),
        ({"labels": np.arange(4)}, "'labels' has 4 along n, the others 5"),
        ({"clean": np.zeros((5, 28, 28), np.float32)}, r"shape \(5, 28, 28\), not \(n, C, H, W\)"),
        ({"adversarial": np.full((5, 1, 28, 28), 1.5, np.float32)}, r"'adversarial' leaves \[0, 1\]"),
        ({"attention_clean": np.full((4, 5, 3, 7, 5), np.nan)}, r"'attention_clean' leaves"),
        ({"attention_adversarial": None}, "'attention_adversarial' is missing"),
        ({"glimpse_probabilities_clean": np.zeros((3, 5, 11))}, "3 along T, the others 4"),
        ({"example_ids": np.arange(5)}, "'example_ids' holds int64"),
        ({"labels": np.array(list("abcde"))}, "'labels' holds"),
        ({"clean": np.zeros((5, 2, 28, 28)), "adversarial": np.zeros((5, 2, 28, 28))}, "2 channels"),
    ],
)
def test_a_damaged_gallery_is_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=f"gallery.npz is damaged: .*{message}"):
        read_gallery(saved(tmp_path, **changes))


def test_a_torn_or_pickled_gallery_is_refused(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], b"no zip at all"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is damaged"):
            read_gallery(path)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_nothing_in_a_gallery_is_unpickled(tmp_path):
    trapped = np.array([Trap(tmp_path / "mark")], dtype=object)
    np.savez(tmp_path / "gallery.npz", **(make_gallery() | {"attack": trapped}))  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="is damaged"):
        read_gallery(tmp_path / "gallery.npz")
    assert not (tmp_path / "mark").exists()
    np.load(tmp_path / "gallery.npz", allow_pickle=True)["attack"]
    assert (tmp_path / "mark").exists()


def pixels(address: str) -> np.ndarray:
    kind, _, text = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_small_pictures_keep_every_pixel():
    grey = np.arange(35, dtype=np.float32).reshape(1, 5, 7) / 34
    assert (pixels(picture(grey)) == (grey[0] * 255).round()).all()
    colour = np.random.default_rng(1).random((3, 5, 7)).astype(np.float32)
    assert (pixels(picture(colour)) == (colour.transpose(1, 2, 0) * 255).round()).all()
    assert pixels(picture(np.zeros((3, 224, 448), np.float32))).shape == (80, 160, 3)


def test_heat_is_nothing_at_zero_and_strongest_at_the_peak():
    weights = np.array([[0.0, 0.1, 0.2], [0.3, 0.4, 0.0]])
    alpha = pixels(heat(weights, 0.4))[..., 3]
    assert alpha.shape == (2, 3)
    assert alpha[0, 0] == alpha[1, 2] == 0
    assert (np.diff(alpha.ravel()[:5].astype(int)) > 0).all()


def test_examples_put_each_model_beside_the_same_image(tmp_path):
    runs = read_runs([make_run(tmp_path / name, name, salt=salt) for name, salt in (("a", 2), ("b", 3))], "quick")
    (second,) = examples(runs, ["digit-1"])
    assert (second.label, second.target) == ("1", "3")
    assert [side.model for side in second.models] == ["a", "b"]
    assert [side.answer_clean.verdict for side in second.models] == ["right", "right"]
    assert [side.answer_adversarial.verdict for side in second.models] == ["target", "target"]
    assert amplification(runs, ["digit-1"]) == pytest.approx(5, abs=1e-3)
    change = pixels(second.models[0].perturbation)
    assert {int(change.min()), int(change.max())} <= {0, 1, 254, 255}


def test_both_rows_of_attention_share_one_scale(tmp_path):
    run = read_run(make_run(tmp_path / "a", "a"), "quick")
    assert run.gallery is not None
    assert run.gallery.attention_clean is not None
    found = attention(run, ["digit-2"])
    assert found is not None
    assert found.num_heads == 3
    (look,) = found.examples
    mean = run.gallery.attention_clean[:, 2].mean(axis=1)
    assert run.gallery.attention_adversarial is not None
    peak = float(max(mean.max(), run.gallery.attention_adversarial[:, 2].mean(axis=1).max()))
    assert [glimpse.mean for glimpse in look.clean_glimpses] == [heat(m, peak) for m in mean]


def test_the_summary_always_shows_both_measures_with_intervals(tmp_path):
    run = read_run(make_run(tmp_path / "a", "a|b"), "quick")
    table = runs_summary_table([run])
    assert [row[1] for row in table.rows] == [CLEAN, "untargeted-10", "untargeted-100", "targeted-100"]
    assert all(row[4].endswith("]") for row in table.rows)
    assert [row[5].endswith("]") for row in table.rows] == [False, False, False, True]
    assert "| a\\|b | clean | no attack | 41 |" in table.markdown()
    assert table.markdown().count("\n") == 6


def test_csv_reads_back_as_numbers(tmp_path):
    run = read_run(make_run(tmp_path / "a", 'a, "b"'), "quick")
    rows = list(csv.DictReader(io.StringIO(read_out_numbers_table([run]).csv())))
    assert len(rows) == 1 + 1 + 3 + 4
    for row, score in zip(rows, run.scores, strict=True):
        assert row["model"] == 'a, "b"'
        assert float(row["top1_low"]) < float(row["top1"]) == pytest.approx(score.top1, abs=1e-6)
        assert (row["num_hits"] == "") == (score.num_hits is None)


def test_the_comparison_table_holds_the_paired_counts(tmp_path):
    runs = read_runs([make_run(tmp_path / name, name, salt=salt) for name, salt in (("a", 2), ("b", 3))], "quick")
    (couple,) = compare(runs)
    table = comparison_table(couple)
    assert len(table.rows) == 1 + 1 + 3 + 2 * 4
    first = couple.comparisons[0].top1
    assert table.rows[0][5:7] == [str(first.only_a), str(first.only_b)]


def test_attacks_with_one_axis_share_a_panel(tmp_path):
    attacks = [
        *ATTACKS,
        dict(ATTACKS[0], name="small", radius=4 / 255),
        dict(ATTACKS[2], name="adam", step_rule="adam"),
    ]
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert [(panel.title, panel.attacks) for panel in panels(run)] == [
        ("Untargeted, radius 0.1", ["untargeted-10", "untargeted-100"]),
        ("Targeted, radius 0.1 (targeted-100)", ["targeted-100"]),
        ("Targeted, radius 0.1 (adam)", ["adam"]),
    ]
    figures = strength_figures([run])
    assert [figure.title.rpartition(": ")[2] for figure in figures] == ["top-1 accuracy"] * 2 + [
        "attack success",
        "top-1 accuracy",
        "attack success",
    ]
    score = run.score("untargeted-100", 50)
    assert score is not None
    assert f"{100 * score.top1:.1f}% at 50" in figures[0].alt
    assert [figure.title for figure in attack_figures([run])] == [
        "Top-1 accuracy, attack by attack",
        "Attack success, attack by attack",
    ]


def test_the_strongest_attack_is_chosen_by_its_settings(tmp_path):
    attacks = [*ATTACKS, dict(ATTACKS[0], name="wide", radius=0.2)]
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert strongest([run], "untargeted") == ("wide", 10)
    assert strongest([run], "targeted") == ("targeted-100", 100)


def test_markdown_stays_one_line_per_row():
    assert Table(["a", "b"], [["x\ny", "1|2"]]).markdown().splitlines()[2] == "| x y | 1\\|2 |"


def test_settings_that_another_one_switches_off_are_not_told() -> None:
    adam = {"kind": "adam", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "clip_norm": None}
    assert in_force(adam) == {"kind": "adam", "learning_rate": 0.1, "clip_norm": None}
    assert in_force(adam | {"kind": "sgd"}) == adam | {"kind": "sgd"}
    schedule = {"warmup_steps": 0, "warmup_from": 0.05, "decay": "cosine", "decay_at": [], "decay_factor": 0.1}
    assert in_force(schedule) == {"decay": "cosine"}
    assert in_force(schedule | {"warmup_steps": 5, "decay": "steps"}) == schedule | {
        "warmup_steps": 5,
        "decay": "steps",
    }
    assert in_force(None) is None


def test_columns_are_picked_by_their_whole_names() -> None:
    table = Table(["Model", "Attack", "Attack success", "Top-1"], [["m", "pgd", "3%", "9%"]])
    assert table.pick("Top-1", "Attack", "Attack success") == Table(
        ["Top-1", "Attack", "Attack success"], [["9%", "pgd", "3%"]]
    )
