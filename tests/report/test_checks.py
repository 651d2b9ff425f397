"""What was checked: on the page, in the terminal and as JSON; and what an error does to the headline."""

from __future__ import annotations

import json
import re

import pytest

from s3ta.errors import UserError
from s3ta.records import Ledger, check_records
from s3ta.report import all_findings_of, findings_of, read_run, write_findings
from s3ta.report.checks import counts_text, evidence_text

from .synthetic import make_run
from .test_report import Reader, build

TAG = "<img src=x onerror=a>"
PASSED = {"kind": "input range", "severity": "passed", "sentence": "The range is right.", "evidence": {"gain": 0.125}}
UNCHECKED = {"kind": "label order", "severity": "unchecked", "sentence": "No class is named."}
NOTE = {"kind": "linearity", "severity": "note", "sentence": "The loss bends."}
WARNING = {
    "kind": "starts",
    "severity": "warning",
    "sentence": "More starts break 14 images.",
    "evidence": {"ids": [f"x{i}" for i in range(14)], "p": 0.000123456},
    "advice": "Run table5.",
}
ERROR = {"kind": "channel order", "severity": "error", "sentence": "Blue comes first.", "advice": "Turn the channels."}


def run_with(folder, name="m", *, lint=None, probes=None, **settings):
    run = make_run(folder, name, gallery=False, curve=False, recipe=False, **settings)
    if lint is not None or probes is not None:
        stored = {"lint": lint, "probes": probes, "records": [ERROR]}  # those are computed afresh, never read
        (run / "evaluations" / "quick" / "trust.json").write_text(json.dumps(stored))
    return run


def section(html: str) -> Reader:
    return Reader(re.findall(r'<section id="trust">.*?</section>', html, flags=re.DOTALL)[0])


def test_the_section_tells_everything_and_the_top_only_what_alarms(tmp_path):
    run = run_with(tmp_path / "a", lint=[PASSED, UNCHECKED, WARNING], probes=[NOTE])
    html, page = build(tmp_path, run)
    told = section(html).words
    top = Reader(html[html.index("<header>") : html.index("</header>")]).words
    assert "Starts. More starts break 14 images." in top
    assert "Run table5." not in top
    assert "The loss bends." not in top
    assert "channel order" not in page.words.lower(), "the stored findings of the records are not the ones to show"
    assert "warning Starts. More starts break 14 images. What to do: Run table5." in told
    assert "ids x0, x1, x2, x3, x4, x5, … (14 in all) · p 0.0001235" in told
    assert "Linearity. The loss bends." in told
    assert "Input range. The range is right. gain 0.125" in told
    assert "Label order. No class is named." in told
    assert told.index("More starts") < told.index("The loss bends") < told.index("No class") < told.index("The range")
    assert "Not checked" not in told


def test_what_was_not_checked_is_told(tmp_path):
    assert (
        "Not checked: the model, before the attacks; the model, by small experiments."
        in section(build(tmp_path, run_with(tmp_path / "a"))[0]).words
    )
    half = run_with(tmp_path / "b", lint=[PASSED])
    assert "Not checked: the model, by small experiments." in section(build(tmp_path, half)[0]).words


def test_the_page_answers_each_question_once(tmp_path):
    """The records' answer, on all images, stands in place of the lint's; of the experiments an alarm stays."""
    chance = {"kind": "clean accuracy", "severity": "note", "sentence": "9 of 64 clean images are right: mere chance."}
    calm = {"kind": "ball", "severity": "passed", "sentence": "A small attack stays inside."}
    html, page = build(tmp_path, run_with(tmp_path / "a", lint=[chance, PASSED], probes=[calm, NOTE]))
    assert page.words.count("Clean accuracy.") == len(re.findall("clean images are right", page.words)) == 1
    assert "mere chance" not in html
    assert "A small attack" not in html
    assert PASSED["sentence"] in html
    assert NOTE["sentence"] in html
    alarm = calm | {"severity": "warning", "sentence": "A small attack leaves."}
    assert "A small attack leaves." in build(tmp_path, run_with(tmp_path / "b", lint=[], probes=[alarm]))[0]
    stored = all_findings_of(tmp_path / "a" / "evaluations" / "quick")
    assert [finding["kind"] for finding in stored["lint"]] == ["clean accuracy", "input range"], (
        "as JSON all answers stay"
    )


def test_one_finding_about_several_models_is_told_once(tmp_path):
    """Without names where it is about all; and evidence that differs keeps two findings apart."""
    runs = [
        run_with(tmp_path / "a", "one", lint=[WARNING, NOTE | {"evidence": {"bend": 1}}], salt=2),
        run_with(tmp_path / "b", "two", lint=[WARNING, NOTE | {"evidence": {"bend": 2}}], salt=3),
        run_with(tmp_path / "c", "six", lint=[WARNING, NOTE | {"evidence": {"bend": 2}}], salt=4),
    ]
    told = section(build(tmp_path, *runs)[0]).words
    assert told.count("Starts. More starts break") == 1
    assert told.count("Linearity. one: The loss bends.") == told.count("Linearity. two, six: The loss bends.") == 1


def test_after_an_error_nobody_wins(tmp_path):
    def runs(root, lint):
        good = run_with(root / "a", "good", strength=0.75, salt=2, num_examples=211, lint=lint)
        return [good, run_with(root / "b", "poor", strength=0.35, salt=3, num_examples=211, lint=[PASSED])]

    sound = build(tmp_path, *runs(tmp_path / "sound", [PASSED]))[1].words
    assert "good is ahead" in sound
    html, page = build(tmp_path, *runs(tmp_path / "faulty", [ERROR]))
    assert "is ahead" not in page.words
    assert page.words.count("A check of good found an error: do not use these numbers") == 2
    assert '<p class="error"><b>Channel order.</b> good: Blue comes first.' in html
    alone = build(tmp_path, tmp_path / "faulty" / "a")[1].words
    assert "A check of good found an error" in alone
    assert re.search(r"On clean images, on 211 images: good is right on \d", alone)


def test_the_section_is_escaped_and_free_of_paths(tmp_path):
    lint = [
        {
            "kind": TAG,
            "severity": severity,
            "sentence": f"at /home/me/x.pt {TAG}",
            "advice": TAG,
            "evidence": {TAG: TAG},
        }
        for severity in ("error", "warning", "note", "unchecked", "passed")
    ]
    html, page = build(tmp_path, run_with(tmp_path / "a", lint=lint))
    assert TAG not in html
    assert page.wrong == []
    assert page.words.count(TAG) == 2 * 2 + 3 * 5 + 3 + 4  # at the top, told, unchecked, passed
    assert "/home" not in html
    assert "at …/x.pt" in page.words


def test_the_terminal_gets_the_worst_first_and_nothing_that_passed(tmp_path):
    run = run_with(tmp_path / "a", lint=[NOTE, PASSED, UNCHECKED], probes=[WARNING, ERROR])
    folder = run / "evaluations" / "quick"
    of_records = [one for one in check_records(read_run(run, "quick").table, Ledger.read(folder).typed_manifest)]
    told = findings_of(folder)
    assert told[0].kind == "channel order"
    severities = [one.severity for one in told]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert {one.kind for one in told} >= {"channel order", "starts", "linearity"}
    assert {one.kind for one in told}.isdisjoint({"input range", "label order"})
    expected = [one for one in of_records if one.severity in ("error", "warning", "note")]
    assert all(one in told for one in expected)
    assert len(told) == 3 + len(expected)


def test_the_json_holds_all_findings(tmp_path):
    run = run_with(tmp_path / "a", "m", lint=[WARNING, PASSED])
    folder = run / "evaluations" / "quick"
    found = all_findings_of(folder)
    assert found["lint"] == [WARNING, PASSED | {"advice": ""}]
    assert found["probes"] is None
    assert found["records"] == [
        one._asdict() for one in check_records(read_run(run, "quick").table, Ledger.read(folder).typed_manifest)
    ]
    write_findings([run, run_with(tmp_path / "b", "n", num_done=1)], "quick", tmp_path / "found.json")
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["suite"] == "quick"
    assert [(one["model"], one["folder"], one["complete"]) for one in stored["runs"]] == [
        ("m", "a", True), ("n", "b", False),
    ]  # fmt: skip
    assert stored["runs"][0] | found == stored["runs"][0]
    assert stored["runs"][1]["lint"] is None
    with pytest.raises(UserError, match=r"found.txt must end in \.json"):
        write_findings([run], "quick", tmp_path / "found.txt")


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ("{", "does not hold JSON"),
        ("[]", "does not hold findings by their source"),
        ('{"lint": {}}', "'lint' is no list"),
        (json.dumps({"lint": [NOTE, NOTE | {"severity": "fatal"}]}), "entry 1 of 'lint' is no finding"),
        (json.dumps({"probes": [NOTE | {"evidence": 3}]}), "entry 0 of 'probes' is no finding"),
        (json.dumps({"probes": [{"kind": "x", "severity": "note"}]}), "entry 0 of 'probes' is no finding"),
        (json.dumps({"lint": [NOTE | {"colour": "red"}]}), "entry 0 of 'lint' is no finding"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, stored, message):
    run = run_with(tmp_path / "a")
    (run / "evaluations" / "quick" / "trust.json").write_text(stored)
    for read in (lambda: read_run(run, "quick"), lambda: findings_of(run / "evaluations" / "quick")):
        with pytest.raises(UserError, match=f"trust.json is damaged: .*{message}"):
            read()


def test_evidence_is_written_in_one_line():
    assert counts_text([]) == "nothing found"
    assert evidence_text({"a": True, "b": None, "c": {"d": 0.25, "e": [1, 2]}, "f": "g"}) == (
        "a true · b null · c (d 0.25, e 1, 2) · f g"
    )
