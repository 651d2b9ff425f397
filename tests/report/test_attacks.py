"""Attacks of many kinds: in plain words, one threat model at a time, in one figure, with costs, distances and warnings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from s3ta.errors import UserError
from s3ta.records import STATUS_RUN, STATUS_SETTLED, Ledger
from s3ta.records.manifest import AttackSettings
from s3ta.records.schema import MEASURED
from s3ta.report import build_report, comparison_table, read_run, read_runs, runs_summary, runs_summary_table
from s3ta.report.attack_text import attack_text, setting_text
from s3ta.report.comparability import compare
from s3ta.report.experimental_setup import attack_settings, notes
from s3ta.report.figures import attack_figures, panels, strength_figures
from s3ta.report.winner import strongest, verdict

from .synthetic import ATTACKS, make_run
from .test_report import Reader

BOX = {"kind": "box", "height": 0.5, "width": 0.5, "row": None, "column": None}
CORNER = {"kind": "box", "height": 0.5, "width": 0.5, "row": 0.0, "column": 0.0}
EXACT = {"kind": "exact", "num_samples": 1, "max_shift": 0, "noise": 0.0}
SPSA = {"kind": "spsa", "num_directions": 4096, "delta": 0.01, "micro_batch": 256}
PLAIN: dict[str, Any] = {
    "objective": "untargeted",
    "loss": "cross_entropy",
    "norm": "linf",
    "radius": 8 / 255,
    "mask": None,
    "keep": "last",
    "gradient": EXACT,
    "num_glimpses": None,
    "glimpses": "last",
    "steering": None,
    "eight_bit": False,
    "kind": "pgd",
    "annealing": "constant",
    "momentum": 0.0,
}
SQUARE = {
    "kind": "autoattack",
    "objective": "untargeted",
    "part": "square",
    "norm": "linf",
    "radius": 0.1,
    "num_targets": 9,
}


def attack(name: str, **changes: Any) -> dict[str, Any]:
    """An attack of the synthetic runs, read out once."""
    steps = changes.get("num_attack_steps", 100)
    own = {"name": name, "radius": 0.1, "step_size": 0.01, "num_attack_steps": steps, "read_outs": [steps]}
    return PLAIN | own | {"num_restarts": 1} | changes


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "100 steps, radius 8/255, 1 start"),
        ({"norm": "l2", "radius": 1.0}, "100 steps, L2 radius 1, 1 start"),
        ({"mask": BOX}, "100 steps, radius 8/255, only in a box of 25% of the image, at a random place, 1 start"),
        (
            {"mask": {"kind": "grid", "rows": ["#.", ".."]}},
            "100 steps, radius 8/255, only in a drawn region of 25% of the image, 1 start",
        ),
        ({"eight_bit": True}, "100 steps, radius 8/255, 8-bit images, 1 start"),
        ({"loss": "margin"}, "100 steps, radius 8/255, 1 start, margin loss"),
        ({"loss": "dlr", "momentum": 1.0}, "100 steps, radius 8/255, 1 start, DLR loss, momentum 1"),
        (
            {"annealing": "cosine", "keep": "best"},
            "100 steps, radius 8/255, 1 start, shrinking steps, best iterate kept",
        ),
        ({"gradient": SPSA}, "100 steps, radius 8/255, 1 start, gradients: SPSA, 4,096 directions"),
        (
            {"gradient": EXACT | {"num_samples": 5, "max_shift": 2}},
            "100 steps, radius 8/255, 1 start, gradients: mean of 5, shifted up to 2 pixels",
        ),
        ({"glimpses": "all"}, "100 steps, radius 8/255, 1 start, loss of all glimpses together"),
        ({"glimpses": "each"}, "100 steps, radius 8/255, 1 start, loss of another glimpse at each start"),
        ({"num_glimpses": 8}, "100 steps, radius 8/255, 1 start, gradients through 8 glimpses"),
        (
            {"steering": {"towards": "away", "region": None, "weight": 1.0}},
            "100 steps, radius 8/255, 1 start, attention pulled away from where it lay, and nothing else",
        ),
        (
            {"steering": {"towards": "region", "region": CORNER, "weight": 0.5}},
            "100 steps, radius 8/255, 1 start, attention pulled into a box of 25% of the image, upper left, "
            "as 50% of the objective",
        ),
        ({"objective": "multitargeted"}, "100 steps, radius 8/255, 1 start, each towards another likely wrong class"),
        ({"kind": "adam"}, "100 steps, radius 8/255, 1 start, Adam"),
    ],
)
def test_an_attack_is_told_in_plain_words(changes, text):
    assert attack_text(AttackSettings.model_validate(PLAIN | changes), "x", 100, 1) == text


def test_parts_of_autoattack_and_transfers_are_told_in_plain_words():
    def text(settings: dict[str, Any], *counts: Any) -> str:
        return attack_text(AttackSettings.model_validate(settings), *counts)

    auto = {"kind": "autoattack", "norm": "linf", "radius": 0.1, "num_targets": 9}
    assert text(auto | {"part": "square"}, "square", 5000, 1) == (
        "AutoAttack's random squares, no gradient, 5,000 queries, radius 0.1"
    )
    assert text(auto | {"part": "apgd-t"}, "x", 100, 1).endswith(
        "towards target classes, 9 classes, 100 steps each, radius 0.1"
    )
    assert text(auto | {"part": "apgd-ce"}, "x", 1, 1).endswith("on the cross-entropy, 1 step, radius 0.1")
    transfer = {"kind": "transfer", "attack_name": "l2-100", "attack": PLAIN | {"norm": "l2"}}
    assert text(transfer, "transfer:l2-100", 100, 2) == (
        "images that l2-100 found on another model (100 steps, L2 radius 8/255, 2 starts)"
    )
    assert attack_text(None, "x", 100, 1) == "100 steps, 1 start"
    assert attack_text(None, "clean", 0, 1) == "no attack"


def test_nested_settings_are_words_and_only_those_that_differ_are_columns(tmp_path):
    assert setting_text("gradient", SPSA) == "SPSA, 4,096 directions, delta 0.01, micro batch 256"
    assert setting_text("steering", {"towards": "away", "region": None, "weight": 1.0}) == "away, weight 1"
    assert setting_text("learning_rates", [[0, 0.1], [100, 0.01]]) == "0.1, 0.01 from step 100"
    attacks = [attack("a"), attack("b", gradient=SPSA), attack("c", mask=BOX)]
    runs = [read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")]
    table, alike = attack_settings(runs)
    assert table.headers == ["attack", "mask", "gradient"]
    assert [row[1] for row in table.rows] == ["–", "–", "a box of 25% of the image, at a random place"]
    assert dict(alike)["radius"] == "0.1"
    assert dict(alike)["norm"] == "L-infinity"
    assert not any(sign in json.dumps([table.rows, alike]) for sign in ("{", "null", "false"))
    alone = [read_run(make_run(tmp_path / "b", "a", attacks=attacks[:1]), "quick")]
    assert attack_settings(alone)[0].headers == ["attack"]
    assert len(attack_settings(alone)[1]) == len(attacks[0]) - 1


def test_many_different_attacks_make_one_figure(tmp_path):
    names = [f"kind-{index}" for index in range(20)]
    attacks = [attack(name, momentum=float(index)) for index, name in enumerate(names)]
    runs = read_runs([make_run(tmp_path / n, n, attacks=attacks, salt=salt) for salt, n in enumerate("ab", 2)], "quick")
    assert panels(runs[0]) == []
    assert strength_figures(runs) == []
    (figure,) = attack_figures(runs)
    told = figure.alt[figure.alt.index("a: ") : figure.alt.index("; b: ")]
    places = [told.index(f"{name} ") for name in names]
    assert places == sorted(places)
    score = runs[1].score("kind-7", 100)
    assert score is not None
    assert f"kind-7 {100 * score.top1:.1f}%" in figure.alt[figure.alt.index("; b: ") :]


def test_attacks_that_share_a_step_count_are_no_curve(tmp_path):
    """Two step sizes at 100 steps: one would hide the other on an axis of steps."""
    attacks = [attack("coarse", step_size=0.05), attack("fine", step_size=0.001), attack("short", num_attack_steps=10)]
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert panels(run) == []
    assert "coarse" in attack_figures([run])[0].alt
    only_steps = [attack("fine", step_size=0.001), attack("short", num_attack_steps=10)]
    run = read_run(make_run(tmp_path / "b", "b", attacks=only_steps), "quick")
    assert [panel.attacks for panel in panels(run)] == [["fine", "short"]]
    assert attack_figures([run]) == []


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([attack("masked", radius=0.4, mask=BOX)], "plain"),
        ([attack("l2", radius=2.0, norm="l2")], "plain"),
        ([SQUARE | {"name": "square", "num_attack_steps": 5000, "read_outs": [5000], "num_restarts": 1}], "plain"),
        ([attack("spsa", gradient=SPSA, num_restarts=5)], "plain"),
        ([attack("steered", steering={"towards": "away", "weight": 1.0}, num_restarts=3)], "plain"),
        ([attack("each", glimpses="each", num_restarts=4)], "plain"),
        ([attack("long", num_attack_steps=200), attack("wide", radius=0.2, num_attack_steps=10)], "wide"),
        ([attack("long", num_attack_steps=200), attack("often", num_restarts=3)], "long"),
        ([attack("often", num_restarts=3)], "often"),
    ],
)
def test_only_attacks_of_one_threat_model_are_ranked(tmp_path, others, chosen):
    for order, attacks in enumerate(([attack("plain"), *others], [*others, attack("plain")])):
        run = read_run(make_run(tmp_path / f"{order}", "a", attacks=attacks), "quick")
        found = strongest([run], "untargeted")
        assert found is not None
        assert found[0] == chosen


def test_without_a_plain_attack_the_first_threat_model_is_ranked(tmp_path):
    attacks = [
        attack("l2", radius=1.0, norm="l2"),
        attack("masked", radius=0.4, mask=BOX),
        attack("l2-wide", radius=2.0, norm="l2"),
    ]
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert strongest([run], "untargeted") == ("l2-wide", 100)


def rewrite(folder, change) -> None:
    """The same ledger with its records changed by a function of (columns, attack names)."""
    ledger = Ledger.read(folder / "evaluations" / "quick")
    for index in range(ledger.num_chunks):
        table = ledger.read_chunk(index)
        columns = {name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names}
        change(columns)
        ledger.chunk_path(index).unlink()
        ledger.write_chunk(index, {name: values.tolist() for name, values in columns.items()})


def always_wrong(attacked: str):
    def change(columns) -> None:
        rows = columns["attack"] == attacked
        columns["prediction"][rows] = (columns["label"][rows] + 1) % 11
        columns["correct"][rows] = False

    return change


def test_an_attack_that_settings_did_not_foresee_takes_the_win_away(tmp_path):
    """The margin breaks everything of the leader: a warning, a sentence, and no winner."""
    attacks = [attack("pgd"), attack("margin", loss="margin")]
    folders = [
        make_run(tmp_path / name, name, attacks=attacks, strength=strength, num_examples=211, salt=salt)
        for name, strength, salt in (("sly", 0.8, 2), ("frank", 0.3, 3))
    ]
    before = Reader(build_report(folders, "quick", tmp_path / "before.html").read_text())
    assert "sly is ahead under untargeted attack" in before.words
    assert "Gradients seem to be masked" not in before.words
    rewrite(folders[0], always_wrong("margin"))
    after = Reader(build_report(folders, "quick", tmp_path / "after.html").read_text())
    assert "is ahead" not in after.words
    assert "margin leaves sly only 0.0% [0.0, 1.8]. " in after.words
    assert "There sly is not ahead any more" in after.words
    assert "Gradient masking. sly: Gradients seem to be masked: 'margin'" in after.words
    alone = verdict([read_run(folders[0], "quick")], None)
    assert alone.title.endswith("at most 0.0% under untargeted attack at 0.1")


def test_the_costs_stand_beside_the_rates(tmp_path):
    run = make_run(tmp_path / "a", "a", attacks=[attack("pgd"), attack("short", num_attack_steps=10)])
    table = runs_summary(run / "evaluations" / "quick")
    assert table.headers[-2:] == ["gradients", "other forwards"]
    assert [row[-2:] for row in table.rows] == [["0", "1"], ["100", "1"], ["10", "1"]]
    assert runs_summary_table([read_run(run, "quick")]).rows[1][-2:] == ["100", "1"]
    page = Reader(build_report([run], "quick", tmp_path / "r.html").read_text().replace("<", " <"))
    assert "100 + 1" in page.words


def test_largest_distances_are_told_per_norm(tmp_path):
    attacks = [attack("pgd"), attack("l2", radius=2.0, norm="l2")]
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert dict(notes([run]))["Largest distance to the clean image"] == "0.10000 (L-infinity), 2.00000 (L2)"
    assert "Records left out by the budget" not in dict(notes([run]))


@pytest.mark.parametrize(
    ("attacks", "end"),
    [
        ([attack("pgd", radius=8 / 255)], "under untargeted attack at 8/255"),
        ([attack("pgd", radius=2.0, norm="l2")], "under untargeted attack at 2 L2"),
        ([attack("pgd"), attack("small", objective="targeted", radius=0.05)], "under targeted attack"),
        ([attack("pgd"), attack("small", radius=0.05)], "under untargeted attack at 0.1"),
    ],
)
def test_the_title_says_at_which_radius_unless_its_attacks_differ_in_it(tmp_path, attacks, end):
    run = read_run(make_run(tmp_path / "a", "a", attacks=attacks), "quick")
    assert verdict([run], None).title.endswith(end)


def test_settled_records_are_counted(tmp_path):
    """Restarts that were not needed: the example was broken already."""
    folder = make_run(tmp_path / "a", "a", attacks=[attack("pgd", num_restarts=2)])

    def settle(columns) -> None:
        broken = set(
            columns["example_id"][
                (columns["attack"] == "pgd") & (columns["restart"] == 0) & (~columns["correct"].astype(bool))
            ]
        )
        rows = (columns["restart"] == 1) & np.isin(columns["example_id"].astype(str), [*broken])
        columns["status"][rows] = STATUS_SETTLED
        columns["num_gradients"][rows] = columns["num_forwards"][rows] = 0
        for name in MEASURED:
            columns[name][rows] = None
        assert rows.any()

    before = read_run(folder, "quick")
    rewrite(folder, settle)
    run = read_run(folder, "quick")
    num_settled = run.table["status"].to_pylist().count(STATUS_SETTLED)
    told = dict(notes([run]))["Records not needed, the verdict stood already"]
    assert told == f"{num_settled} of {run.table.num_rows}"
    assert run.scores[-1].num_correct == before.scores[-1].num_correct
    assert STATUS_RUN in run.table["status"].to_pylist()


def transfer(tmp_path, name, *, salt, source="0000000000000009"):
    inner = {key: value for key, value in attack("pgd").items() if key != "name"}
    settings = {"kind": "transfer", "objective": "untargeted", "attack_name": "pgd", "attack": inner}
    # what the synthetic records need to know stands beside it
    settings |= {"name": "transfer:pgd", "radius": 0.1, "read_outs": [100], "num_restarts": 1}
    facts = {"images_from": {"model": "teacher", "sha256": source, "suite": "unmask"}}
    return make_run(tmp_path / name, name, attacks=[settings], suite_facts=facts, salt=salt)


def test_the_page_says_whose_images_were_transferred(tmp_path):
    a, b = transfer(tmp_path, "a", salt=2), transfer(tmp_path, "b", salt=3)
    page = Reader(build_report([a, b], "quick", tmp_path / "r.html").read_text())
    assert (
        "The adversarial images were made on teacher (weights 0000000000000009, suite unmask), not on the models"
        in page.words
    )
    assert "(transfer:pgd: images that pgd found on another model (100 steps, radius 0.1, 1 start))" in page.words
    alone = Reader(build_report([a], "quick", tmp_path / "r.html").read_text())
    assert "under transferred untargeted attack" in alone.words
    own = transfer(tmp_path, "own", salt=9)
    assert "to own they are its own" in Reader(build_report([own], "quick", tmp_path / "r.html").read_text()).words
    other = transfer(tmp_path, "c", salt=4, source="0000000000000008")
    with pytest.raises(UserError, match="cannot be compared"):
        build_report([b, other], "quick", tmp_path / "r.html")


def test_attacks_on_glimpses_are_shown_beside_a_model_without_glimpses(tmp_path):
    """Each attack on its own: those that both met are compared, the others only shown."""
    both = [attack("pgd"), attack("annealed", annealing="cosine")]
    more = [*both, attack("all-glimpses", glimpses="all")]
    facts = {"left_out": ["all-glimpses"]}
    plain = make_run(tmp_path / "p", "plain", attacks=both, salt=2, suite_facts=facts)
    sequential = make_run(tmp_path / "s", "seq", attacks=more, salt=3)
    page = Reader(build_report([plain, sequential], "quick", tmp_path / "r.html").read_text())
    assert page.words.count("plain takes no glimpses and could not be given all-glimpses.") == 1
    assert "Only the attacks that both met are compared." in page.words
    (couple,) = compare(read_runs([plain, sequential], "quick"))
    assert [row[0] for row in comparison_table(couple).rows] == ["clean", "pgd", "annealed"]
    assert "all-glimpses" in attack_figures(read_runs([plain, sequential], "quick"))[0].alt


def test_suites_of_the_paper_keep_their_curves(tmp_path):
    run = read_run(make_run(tmp_path / "a", "a", attacks=ATTACKS), "quick")
    assert len(strength_figures([run])) == 3
    assert attack_figures([run]) == []
