"""Calibration on the page, the suite whose result it is, and one model measured twice."""

from __future__ import annotations

import re

import numpy as np
import pytest

from s3ta.models import S3TAConfig
from s3ta.records import Ledger, calibration_of
from s3ta.report import build_report, calibration_table, read_run, read_runs
from s3ta.report.calibration import calibration_section
from s3ta.report.numerical_reproducibility import measured_twice
from s3ta.report.winner import verdict

from .synthetic import ATTACKS, make_run
from .test_report import Reader, build

SMALL = {"gallery": False, "curve": False, "recipe": False}


def rewrite(folder, change) -> None:
    """The ledger of a run with other records."""
    ledger = Ledger.read(folder / "evaluations" / "quick")
    for index in range(ledger.num_chunks):
        table = ledger.read_chunk(index)
        columns = {name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names}
        change(columns)
        ledger.chunk_path(index).unlink()
        ledger.write_chunk(index, {name: values.tolist() for name, values in columns.items()})


def part(html: str, name: str) -> str:
    return re.findall(rf'<section id="{name}">.*?</section>', html, flags=re.DOTALL)[0]


def test_the_section_shows_what_the_records_give(tmp_path):
    folders = [
        make_run(tmp_path / name, name, salt=salt, num_examples=307, **SMALL) for name, salt in (("a", 2), ("b", 3))
    ]
    html, _ = build(tmp_path, *folders)
    told = part(html, "calibration")
    for run in read_runs(folders, "quick"):
        numbers = calibration_of(run.table)
        assert numbers is not None
        shares = [numbers.rms_published, numbers.rms_all_bins, numbers.rms_by_chance, numbers.aurra]
        cells = "".join(f"<td>{100 * (share or 0):.1f}%</td>" for share in shares)
        top1 = f"{100 * numbers.num_correct / 307:.1f}% "
        assert re.search(rf'<th scope="row">{run.label}</th><td>307</td><td>{top1}\[[^<]*\]</td>{cells}', told)
    assert told.count("<svg") == 2
    assert "var(--series-1)" in told
    assert "Figure 7" not in told
    assert html.index('id="calibration"') > html.index('id="summary"')


def test_too_few_images_are_told_instead(tmp_path):
    few = make_run(tmp_path / "few", "few", num_examples=99, **SMALL)
    html, _ = build(tmp_path, few)
    assert "<svg" not in part(html, "calibration")
    assert "needs bins of 100 clean images; few has 99." in part(html, "calibration")
    enough = read_run(make_run(tmp_path / "some", "some", num_examples=150, **SMALL), "quick")
    both = calibration_section([read_run(few, "quick"), enough])
    assert both.table is not None
    assert [row[:2] for row in both.table.rows] == [["some", "150"]]
    assert both.table.rows[0][3] == "–", "one bin: the published form is 0, which says nothing"
    assert both.few_bins
    assert "few has 99" in both.too_few
    assert "var(--series-1)" in both.figures[0].svg, "the colour is that of the second run"
    assert "var(--series-0)" not in both.figures[0].svg


def test_the_figures_say_their_numbers_in_words(tmp_path):
    """All equally sure, and right on the first quarter: one bin, and a risk that does not depend on coverage's order."""
    folder = make_run(tmp_path / "a", "a", num_examples=200, num_chunks=1, attacks=[], **SMALL)

    def change(columns):
        right = np.arange(200) < 50
        columns["label"][:] = 0
        columns["prediction"][:] = np.where(right, 0, 1)
        columns["correct"][:] = right
        columns["confidence"][:] = np.where(right, 0.875, 0.75)

    rewrite(folder, change)
    reliability, risk = calibration_section([read_run(folder, "quick")]).figures
    assert "a: 0% right at 75%, 100% right at 88%" in reliability.alt
    assert "a is wrong on 0.0% at 25%, 50.0% at 50%, 75.0% at 100%" in risk.alt


def test_figure_7_has_calibration_first_and_in_the_headline(tmp_path):
    facts = {"attacks": [], "num_examples": 301, **SMALL}
    a, b = (
        make_run(tmp_path / name, name, suite="figure7", clean_accuracy=accuracy, salt=4, **facts)
        for name, accuracy in (("good", 0.9), ("poor", 0.3))
    )
    html = build_report([a, b], "figure7", tmp_path / "two.html").read_text()
    page = Reader(html)
    assert page.wrong == []
    assert html.index('id="calibration"') < html.index('id="summary"')
    assert html.count('id="calibration"') == 1
    assert "good is ahead in top-1 on clean images" in page.words
    assert "a ResNet with squeeze-and-excitation is ahead of all of them in all three" in page.words
    for run in read_runs([a, b], "figure7"):
        numbers = calibration_of(run.table)
        assert numbers is not None
        published, all_bins, aurra = (
            f"{100 * (share or 0):.1f}%" for share in (numbers.rms_published, numbers.rms_all_bins, numbers.aurra)
        )
        assert re.search(
            rf"{run.label} is right on [^;]*\]; RMS calibration error {published} as published, {all_bins} with all bins; "
            rf"AURRA {aurra}\.",
            page.words,
        )
        alone = verdict([run], None)
        assert re.fullmatch(
            rf"{run.label}: [\d.]+% right, RMS calibration error {published}, AURRA {aurra}", alone.title
        )
        assert alone.sentences[-1].startswith("No attack was run")
    assert [row[0] for row in calibration_table(read_runs([a, b], "figure7")).rows] == ["good", "poor"]


def flip(columns) -> None:
    """On one image the verdict under one attack is another; every loss is a little larger."""
    columns["loss"] = columns["loss"] + 2.0**-10
    rows = (columns["attack"] == "untargeted-10") & (columns["example_id"] == "digit-5")
    columns["prediction"][rows] = (columns["prediction"][rows] + 1) % 11
    columns["correct"][rows] = columns["prediction"][rows] == columns["label"][rows]


def test_one_model_measured_on_two_devices_is_compared_with_itself(tmp_path):
    folders = [
        make_run(
            tmp_path / device, "same", device=device, micro_batch=batch, num_examples=500, attacks=ATTACKS[:1], **SMALL
        )
        for device, batch in (("cpu", 64), ("cuda", 32))
    ]
    (same,) = measured_twice(read_runs(folders, "quick"))
    told = " ".join(same.sentences)
    assert "0 of 1,000 verdicts differ, and 0 predictions; the largest difference of a loss is 0 nats" in told
    assert "micro_batch 64 and 32, device cpu and cuda" in told
    assert "0 of 500 images have a verdict that differs: 0.0% [0.0, 0.8]" in told
    rewrite(folders[1], flip)
    html, page = build(tmp_path, *folders)
    assert "The same model measured twice" in page.words
    assert (
        "1 of 1,000 verdicts differ, and 1 predictions; the largest difference of a loss is 0.00098 nats" in page.words
    )
    assert "1 of 500 images have a verdict that differs: 0.2% [0.0, 1.1]" in page.words
    assert re.search(r"<td>1: 0.2% \[0.0, 1.1\]</td>", part(html, "twice"))


def of_config(folder, config):
    model = {"name": folder.name, "sha256": f"{1:016x}", "config": config, "num_classes": 11}
    return make_run(folder, folder.name, model=model, **SMALL)


def test_a_setting_that_came_later_makes_no_other_model_of_the_same_weights(tmp_path):
    today = S3TAConfig(num_classes=11).model_dump(mode="json")
    before = {name: value for name, value in today.items() if name != "initial_state_std"}
    runs = [of_config(tmp_path / "now", today), of_config(tmp_path / "before", before)]
    assert len(measured_twice(read_runs(runs, "quick"))) == 1
    changed = of_config(tmp_path / "changed", today | {"initial_state_std": 0.5})
    assert measured_twice(read_runs([*runs, changed], "quick"))[0].title == "now and before"
    assert len(measured_twice(read_runs([*runs, changed], "quick"))) == 1


def test_notes_in_other_words_make_no_other_model(tmp_path):
    runs = [of_config(tmp_path / name, {"width": 2, "notes": [f"said by {name}"]}) for name in ("old", "new")]
    assert len(measured_twice(read_runs(runs, "quick"))) == 1


@pytest.mark.parametrize(
    "other", [{"salt": 2}, {"model": {"name": "b", "sha256": f"{1:016x}", "config": {"width": 2}, "num_classes": 11}}]
)
def test_other_weights_or_another_model_around_them_are_two_models(tmp_path, other):
    runs = [make_run(tmp_path / "a", "a", **SMALL), make_run(tmp_path / "b", "b", **(SMALL | other))]
    assert measured_twice(read_runs(runs, "quick")) == []
    assert "measured twice" not in build(tmp_path, *runs)[1].words
