"""The page: what it says, what it must not say, and what it does when pieces are missing."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from s3ta.cli import app
from s3ta.errors import UserError
from s3ta.report import build_report
from s3ta.report.load_runs import without_paths

from .synthetic import ATTACKS, change_json, make_gallery, make_run

VOID = {"meta", "img", "br", "link", "hr"}
EVIL = "<script>alert(1)</script>"


class Reader(HTMLParser):
    """Tags, attributes, visible text; notices tags that do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.wrong: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def build(tmp_path: Path, *runs: Path) -> tuple[str, Reader]:
    html = build_report(list(runs), "quick", tmp_path / "report.html").read_text(encoding="utf-8")
    return html, Reader(html)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The page of two models that differ clearly."""
    root = tmp_path_factory.mktemp("two")
    runs = [
        make_run(root / "a", "s3ta_4", strength=0.75, salt=2, num_examples=211),
        make_run(root / "b", "resnet", strength=0.35, salt=3, num_examples=211, attention=False),
    ]
    return (root, *build(root, *runs))


def test_the_page_is_well_formed_and_every_id_is_unique(two):
    _, html, page = two
    assert page.wrong == []
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = re.findall(r'(?:href="#|url\(#)([^")]+)', html)
    assert linked
    assert set(linked) <= set(ids)


def test_the_page_needs_no_other_address(two):
    _, html, page = two
    assert not re.search(r"https?://|//www|@import|file:", html)
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/"))
    assert len(html) < 5_000_000


def test_only_its_own_script_may_run(two):
    _, html, page = two
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_no_machine_path_reaches_the_page(two):
    root, html, page = two
    assert str(root) not in html
    assert "secret" not in html
    assert "/home" not in html
    assert "npz:…/data.npz" in page.words


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("npz:/home/me and you/x.npz", "npz:…/x.npz"),
        ("folder:~/data/imagenet/", "folder:…/imagenet"),
        ("C:\\Users\\me\\x.npz", "…/x.npz"),
        ("file:///srv/x.npz", "…/x.npz"),
        ("trained from /srv/me/x.npz, then", "trained from …/x.npz, then"),
        ("digits/s3ta_4", "digits/s3ta_4"),
        ("radius 16/255", "radius 16/255"),
        ("https://arxiv.org/abs/1912.02184", "https://arxiv.org/abs/1912.02184"),
        ("and/or", "and/or"),
    ],
)
def test_paths_are_cut_to_their_last_part(text, cut):
    assert without_paths({"a": [text]}) == {"a": [cut]}


def test_the_headline_names_the_winner_and_both_measures(two):
    *_, page = two
    assert page.words.count("s3ta_4 is ahead under untargeted and targeted attack") == 2  # title and heading
    assert "untargeted-100: 100 steps, radius 0.1, 1 start" in page.words
    assert "gives the attacker's answer on" in page.words
    assert "s3ta_4 is clearly hit less often" in page.words


def test_a_model_against_its_twin_is_undecided(tmp_path):
    runs = [make_run(tmp_path / name, name, salt=salt) for name, salt in (("one", 2), ("other", 2))]
    _, page = build(tmp_path, *runs)
    assert "Undecided: one and other cannot be told apart here" in page.words
    assert "the interval contains 0, undecided" in page.words
    assert "is ahead" not in page.words


def test_measures_that_disagree_leave_no_winner(tmp_path):
    """More often right, yet more often hit: no winner under the targeted attack."""
    from s3ta.records import CLEAN, PairedCounts
    from s3ta.report.comparability import compare
    from s3ta.report.load_runs import read_runs
    from s3ta.report.winner import verdict

    runs = read_runs(
        [
            make_run(tmp_path / "a", "a", strength=0.8, num_examples=83),
            make_run(tmp_path / "b", "b", strength=0.3, num_examples=83),
        ],
        "quick",
    )
    (couple,) = compare(runs)
    turned = [
        c if c.attack == CLEAN or c.success is None else c._replace(success=PairedCounts(20, 40, 1, 22))
        for c in couple.comparisons
    ]
    found = verdict(runs, [couple._replace(comparisons=turned)])
    assert found.title == "a is ahead under untargeted attack at 0.1; undecided under targeted attack at 0.1"
    assert "The two measures disagree" in found.sentences[1]


def test_every_percentage_of_a_measurement_has_an_interval(two):
    """X36 and the brief: in the summary each rate is followed by its interval, and success stands beside top-1."""
    _, html, _ = two
    summary = html[html.index('id="summary"') : html.index('id="strength"')]
    rates = re.findall(r"<b>\d+\.\d%</b> <span class=\"interval\">\[\d+\.\d, \d+\.\d\]</span>", summary)
    assert len(rates) == len(re.findall(r"\d%</b>", summary)) == 2 * 4 + 2
    assert len(re.findall(r"<td>", summary)) == 2 * 3 * 4


def test_pictures_and_figures_have_words(two):
    _, _, page = two
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes.get("alt") is not None
        if attributes.get("role") == "img":
            assert attributes.get("aria-label")
    headers = [attributes for tag, attributes in page.tags if tag == "th"]
    assert headers
    assert all(attributes.get("scope") for attributes in headers)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))


def test_drawings_take_the_colours_of_the_page(two):
    _, html, _ = two
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "var(--series-0)" in drawings
    assert "var(--text)" in drawings
    assert "#ab" not in drawings


def test_attention_is_shown_for_each_glimpse_and_head(two):
    _, html, page = two
    part = html[html.index('id="attention"') : html.index('id="method"')]
    num_examples, num_glimpses, num_heads = 5, 4, 3
    assert part.count('class="look"') == num_examples * 2 * num_glimpses
    assert part.count('class="heat"') == num_examples * 2 * num_glimpses * (1 + num_heads)
    assert "the mean of 3 heads" in page.words
    assert "<h3>resnet</h3>" not in part


def test_everything_typed_by_others_is_escaped(tmp_path):
    attacks = [dict(ATTACKS[2], name=f"t{EVIL}", read_outs=[100])]
    run = make_run(tmp_path / "a", f"model {EVIL}", classes=[f"{EVIL}{i}" for i in range(11)], attacks=attacks)
    change_json(run / "recipe.json", {"name": EVIL, "departures": [EVIL], "source": f'"{EVIL}', EVIL: EVIL})
    other = make_run(
        tmp_path / "b", f"other $x_{EVIL}$", classes=[f"{EVIL}{i}" for i in range(11)], attacks=attacks, salt=5
    )
    for one in (run, other):
        arrays = make_gallery(salt=4)
        arrays["example_ids"] = np.array([f"{EVIL}{i}" for i in range(5)])
        arrays["attack"] = np.array(EVIL)
        np.savez(one / "evaluations" / "quick" / "gallery.npz", **arrays)  # pyright: ignore[reportArgumentType]
    html, page = build(tmp_path, run, other)
    assert "<script>alert" not in html
    assert html.count("<script") == html.count("</script") == 1
    assert page.wrong == []
    assert page.words.count(EVIL) > 20
    assert html.count("&lt;script&gt;alert(1)") > 20


def test_a_run_with_records_alone_is_reported(tmp_path):
    run = make_run(tmp_path / "a", "alone", gallery=False, curve=False, recipe=False)
    _, page = build(tmp_path, run)
    assert re.search(
        r"alone: \d+\.\d% right on clean images, \d+\.\d% under untargeted attack and \d+\.\d% under targeted",
        page.words,
    )
    assert "No learning curve was recorded." in page.words
    for missing in (
        "Images, before and after",
        "Where the model looks",
        "Is the difference real",
        "Departures",
        "Unfinished",
    ):
        assert missing not in page.words


def test_a_run_with_clean_images_alone_is_reported(tmp_path):
    runs = [
        make_run(tmp_path / name, name, attacks=[], gallery=False, num_examples=97, clean_accuracy=accuracy, salt=4)
        for name, accuracy in (("good", 0.95), ("poor", 0.4))
    ]
    _, page = build(tmp_path, *runs)
    assert "good is ahead on clean images" in page.words
    assert "this says nothing about robustness" in page.words
    assert "Accuracy against attack strength" not in page.words
    _, alone = build(tmp_path, runs[0])
    assert "this says nothing about robustness" in alone.words


def test_an_unfinished_ledger_is_told_at_the_top_and_not_compared(tmp_path):
    runs = [make_run(tmp_path / "a", "done"), make_run(tmp_path / "b", "half", num_done=2)]
    _, page = build(tmp_path, *runs)
    assert page.words.index("half: 2 of 3 chunks") < page.words.index("Summary")
    assert "done and half: not compared yet" in page.words
    assert "Not compared. The two evaluations cannot be compared: example 'digit-" in page.words
    with pytest.raises(UserError, match="seed is 0 in the first and 1"):
        build(tmp_path, runs[1], make_run(tmp_path / "c", "other seed", seed=1))


def test_an_unfinished_ledger_is_told_on_the_console(tmp_path):
    runs = [make_run(tmp_path / "a", "done"), make_run(tmp_path / "b", "half", num_done=2)]
    words = ["report", *map(str, runs), "--out", str(tmp_path / "page.html"), "--table", str(tmp_path / "all.csv")]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0
    assert [line for line in shown.stderr.splitlines() if "unfinished" in line] == [
        f"warning: {runs[1]}, unfinished: 2 of 3 chunks. Its numbers are about the finished part, and attacks may have met "
        "different examples; run the same evaluation again to finish it."
    ]


@pytest.mark.parametrize("change", [{"seed": 1}, {"num_examples": 43}])
def test_runs_that_were_not_measured_alike_are_refused(tmp_path, change):
    runs = [make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b", **change)]
    with pytest.raises(UserError, match="cannot be compared"):
        build(tmp_path, *runs)
    assert not (tmp_path / "report.html").exists()


def test_a_part_of_the_test_set_is_told_and_the_whole_is_not(tmp_path):
    run = make_run(tmp_path / "a", "a")
    assert "41 of 1,000 images" in build(tmp_path, run)[1].words
    whole = make_run(tmp_path / "b", "b", data={"num_examples": 41, "num_available": 41, "classes": []})
    assert "part of the test set" not in build(tmp_path, whole)[1].words


def test_three_runs_of_equal_names_with_restarts_are_told_apart(tmp_path):
    attacks = [dict(attack, num_restarts=2) for attack in ATTACKS[1:]]
    runs = [
        make_run(tmp_path / folder, "same", attacks=attacks, salt=salt, gallery=salt > 2)
        for folder, salt in (("first", 2), ("second", 3), ("third", 4))
    ]
    html, page = build(tmp_path, *runs)
    assert "same (second)" in page.words
    assert "2 starts" in page.words
    assert "Right after all" in page.words
    assert html[html.index('id="difference"') :].count("<summary>The numbers") == 3


def test_galleries_without_a_common_example_are_told(tmp_path):
    runs = [make_run(tmp_path / name, name, salt=salt) for name, salt in (("a", 2), ("b", 3))]
    arrays = make_gallery()
    arrays["example_ids"] = np.array([f"x{i}" for i in range(5)])
    np.savez(runs[0] / "evaluations" / "quick" / "gallery.npz", **arrays)  # pyright: ignore[reportArgumentType]
    assert "have no example in common" in build(tmp_path, *runs)[1].words


def test_eight_large_colour_examples_of_two_models_stay_small(tmp_path):
    images = np.random.default_rng(3).random((9, 3, 224, 224), np.float32)
    runs = []
    for name, salt in (("a", 2), ("b", 3)):
        runs.append(make_run(tmp_path / name, name, salt=salt))
        arrays = make_gallery(num_examples=9, images=images, salt=salt, num_glimpses=16, num_heads=4)
        np.savez(runs[-1] / "evaluations" / "quick" / "gallery.npz", **arrays)  # pyright: ignore[reportArgumentType]
    html, page = build(tmp_path, *runs)
    assert len(html) < 5_000_000
    assert "8 of 9 examples are shown" in page.words


def test_the_same_runs_give_the_same_page(two, tmp_path):
    root, html, _ = two
    assert build(tmp_path, root / "a", root / "b")[0] == html


def test_missing_runs_and_suites_are_named(tmp_path):
    run = make_run(tmp_path / "a", "a")
    with pytest.raises(UserError, match="does not exist"):
        build(tmp_path, tmp_path / "none")
    with pytest.raises(UserError, match=r"Unknown evaluation .*'quik'.*Did you mean quick"):
        build_report([run], "quik", tmp_path / "report.html")
    with pytest.raises(UserError, match="given twice"):
        build(tmp_path, run, tmp_path / "." / "a")
    with pytest.raises(UserError, match="at least one"):
        build(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no evaluation"):
        build(tmp_path, tmp_path / "empty")


def test_a_folder_as_target_gets_report_html(tmp_path):
    assert build_report([make_run(tmp_path / "a", "a")], "quick", tmp_path) == tmp_path / "report.html"


def test_no_torch_is_imported():
    heavy = "('torch', 'timm', 'torchvision', 'matplotlib.pyplot')"
    code = f"import sys, s3ta.report, s3ta.records; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
