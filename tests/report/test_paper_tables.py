"""The paper's tables: transcribed right, our runs laid out beside them exactly, in every format."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from s3ta.errors import UserError
from s3ta.evaluate import Suite, get_suite, override_suite, shrink_suite, suite_manifest
from s3ta.recipes import RECIPES
from s3ta.records import LEDGER_FORMAT, SCHEMA, Ledger
from s3ta.report import Run, read_out_numbers_table, read_run, runs_summary_table
from s3ta.report.paper_tables import PAPER, base_name, paper_notes, paper_section, paper_table, write_paper_table
from s3ta.report.result_tables import Table, latex_text, table_text
from tests.records.hand_made import join, not_run, rows

# (how many numbers, their sum, the sum of place x number): made by a script from the text of protocol 4.1, not from PAPER
CHECKSUMS = {
    "table1": [
        ("ResNet-152", 9, 380.93, 1855.62),
        ("S3TA-2", 9, 384.37, 1842.35),
        ("S3TA-4", 9, 390.09, 1862.08),
        ("S3TA-8", 9, 389.10, 1859.24),
        ("S3TA-16", 9, 394.73, 1887.38),
        ("ResNet-152-30", 9, 351.45, 1679.13),
        ("DENOISE", 9, 351.33, 1633.58),
        ("S3TA-16-30", 9, 333.66, 1521.76),
        ("ResNet-152", 7, 268.1, 992.3),
        ("DENOISE", 7, 273.5, 992.1),
    ],
    "table2": [("ResNet-152", 2, 46.0, 52.3), ("DENOISE", 2, 46.4, 53.9), ("LLR", 2, 53.1, 59.2), ("S3TA-16", 2, 56.55, 66.35)],
    "table3": [("ResNet-152", 2, 64.1, 66.3), ("DENOISE", 2, 65.6, 67.5), ("S3TA-16", 2, 61.5, 63.4)],
    "table4": [
        ("ResNet-152", 4, 172.58, 462.26),
        ("S3TA-2", 4, 170.92, 447.50),
        ("S3TA-4", 4, 172.63, 446.94),
        ("S3TA-8", 4, 174.30, 451.66),
        ("S3TA-16", 4, 174.05, 448.16),
        ("ResNet-152-30", 4, 156.05, 394.69),
        ("DENOISE", 4, 153.46, 374.91),
        ("S3TA-16-30", 4, 141.90, 333.25),
    ],
    "table5": [("ResNet-152-30", 6, 227.96, 782.65), ("DENOISE", 6, 262.37, 901.61), ("S3TA-16-30", 6, 280.73, 975.66)],
    "table6": [("ResNet-152-30", 2, 69.32, 112.26), ("DENOISE", 2, 68.03, 103.07), ("S3TA-16-30", 2, 63.83, 90.83)],
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKSUMS)
def test_every_printed_number_is_the_papers(name: str) -> None:
    found = []
    for row in PAPER[name].rows:
        numbers = [float(number) for number in re.findall(r"\d+\.\d+", " ".join(row.cells))]
        weighted = sum(place * number for place, number in enumerate(numbers, 1))
        found.append((row.model, len(numbers), round(sum(numbers), 2), round(weighted, 2)))
        assert len(row.cells) == len(PAPER[name].columns)
    assert found == CHECKSUMS[name]
    assert list(PAPER) == list(CHECKSUMS)


def test_sampling_errors_are_those_of_the_protocol() -> None:
    """Near 50%: 0.22 points on 50,000 images, 1.07 on 2,200, 1.58 on 1,000."""
    told = {name: paper_table([], name).rows[0][2] for name in PAPER}
    assert told == {
        "table1": "50,000 (± 0.22)",
        "table2": "50,000 (± 0.22)",
        "table3": "1,000 (± 1.58)",
        "table4": "2,200 (± 1.07)",
        "table5": "not said",
        "table6": "not said",
    }


@pytest.mark.parametrize("name", PAPER)
def test_every_column_is_measured_by_the_suite_of_that_name(name: str) -> None:
    attacks = {named.name: named.attack for named in get_suite(name).attacks}
    for column in PAPER[name].columns:
        if column.attacks == ("clean",):
            continue
        config = next(
            config
            for attack, config in attacks.items()
            if attack in column.attacks and column.reach in (None, f"{255 * config.radius:g}/255")
        )
        assert column.num_attack_steps in (config.read_outs or (config.num_attack_steps,))
        assert (column.num_restarts or 1) <= config.num_restarts


def test_variants_of_a_suite_go_beside_the_same_table() -> None:
    for variant in ("table1", "table1-tiny", "table1+radius=8_255", "table1-tiny+radius=8_255+norm=l2"):
        assert base_name(variant) == "table1"
    for other in ("quick", "table7", "table10", "table1x", "figure7", "transfer-m-table1", "1+table1"):
        assert base_name(other) is None
        assert paper_section([], other) is None
        with pytest.raises(UserError, match=r"none of the paper's tables: evaluate with one of table1, table2"):
            paper_table([], other)


# --- our rows -----------------------------------------------------------------------------------------------------

LABELS = list(range(8))
TARGETS = [(label + 1) % 10 for label in LABELS]


def answers(kinds: str) -> list[int]:
    """One letter per example: + right, t the target, - another class."""
    return [{"+": i, "t": TARGETS[i], "-": (i + 5) % 10}[kind] for i, kind in enumerate(kinds)]


def measured(
    folder: Path, suite: Suite, chunks: list[dict[str, Any]], *, missing: int = 0, salt: str = "aa", **data: Any
) -> Run:
    """A run folder with those chunks of records."""
    facts = {"source": "cifar10", "split": "test", "fingerprint": "f00d", "num_examples": 8, "num_available": 10_000}
    manifest = {
        "format": LEDGER_FORMAT,
        "num_chunks": len(chunks) + missing,
        "model": {"name": folder.name, "sha256": salt, "num_parameters": 17, "num_classes": 10, "config": {}},
        "data": facts | {"classes": []} | data,
        "suite": suite_manifest(suite),
        "seed": 0,
        "precision": "float32",
    }
    ledger = Ledger.open(folder / "evaluations" / suite.name, manifest)
    for index, columns in enumerate(chunks):
        ledger.write_chunk(index, pa.table(join(columns), schema=SCHEMA))
    return read_run(folder, suite.name)


def table1_chunks(*, short: bool = False) -> list[dict[str, Any]]:
    clean = rows("clean", answers("+++++++-"), LABELS)
    ten = rows("targeted-10", answers("++++++-t"), LABELS, TARGETS, num_steps=10)
    reads = {100: "+++++tt-", 250: "++++ttt-", 1000: "+++tttt-"}
    thousand = [rows("targeted-1000", answers(kinds), LABELS, TARGETS, num_steps=n) for n, kinds in reads.items()]
    return [clean, ten] if short else [clean, ten, join(*thousand)]


def told(count: int, total: int = 8) -> str:
    """Share and Wilson's interval, in closed form."""
    z, p = 1.959963984540054, count / total
    middle, spread = p + z * z / (2 * total), z * (p * (1 - p) / total + z * z / (4 * total * total)) ** 0.5
    low, high = ((middle - spread) / (1 + z * z / total), (middle + spread) / (1 + z * z / total))
    return f"{100 * p:.1f}% [{100 * max(low, 0):.1f}, {100 * high:.1f}]"


def both(right: int, hits: int) -> str:
    return f"{told(right)} / {told(hits)}"


def test_table_1_is_laid_out_as_the_paper_does(tmp_path: Path) -> None:
    run = measured(tmp_path / "mine", get_suite("table1"), table1_chunks())
    table = paper_table([run], "table1")
    assert [header.partition(":")[0] for header in table.headers] == [
        "Model",
        "Source",
        "n",
        "Radius",
        "clean",
        "10 steps",
        "100 steps",
        "250 steps",
        "1,000 steps",
    ]
    ours = ["mine", "this run", "8", "16/255", told(7), both(6, 1), both(5, 2), both(4, 3), both(3, 4)]
    assert table.rows[0] == ours
    assert table.rows[8] == [
        "S3TA-16-30",
        "paper",
        "50,000 (± 0.22)",
        "16/255",
        "64.55%",
        "55.08% / 3.79%",
        "47.18% / 21.87%",
        "46.65% / 23.52%",
        "46.11% / 24.91%",
    ]
    assert table.rows[9][1:] == [
        "FD README", "50,000 (± 0.22)", "16/255", "62.3%", "52.5% / 5.5%", "41.7% / 31.0%", "–", "39.0% / 36.1%",
    ]  # fmt: skip
    assert len(table.rows) == 11
    notes = paper_notes([run], "table1")
    assert any("cifar10 test, 8 of 10,000 images of 10 classes" in note for note in notes)
    assert not any("not finished" in note or "attacked at" in note or "changed" in note for note in notes)


def trained(folder: Path, recipe: str, suite: str, chunks: list[dict[str, Any]], *departures: str) -> Run:
    """A run of a recipe."""
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps({"name": recipe, "departures": departures}))
    return measured(folder, get_suite(suite), chunks, salt=folder.name)


RIVALS = {
    "imagenet/resnet152_denoise-30": ("table1", "DENOISE"),
    "imagenet/resnetv2_152_denoise-30": ("table1", "DENOISE"),
    "imagenet/resnetv2_152-10": ("table1", "ResNet-152"),
    "imagenet/resnetv2_152-30": ("table1", "ResNet-152-30"),
    "imagenet/s3ta_16-30": ("table1", "S3TA-16-30"),
    "imagenet/s3ta_8-10": ("table1", "S3TA-8"),
    "imagenet/resnetv2_152_denoise-10": ("table1", None),
    "imagenet/resnetv2_152_dense-10": ("table1", None),
    "imagenet/s3ta_16_bn8-10": ("table1", None),
    "imagenet/resnetv2_152_llr": ("table2", "LLR"),
}


@pytest.mark.parametrize("recipe", RIVALS)
def test_a_run_of_a_rivals_recipe_stands_above_the_papers_row_of_it(tmp_path: Path, recipe: str) -> None:
    assert recipe in RECIPES
    suite, model = RIVALS[recipe]
    chunks = table1_chunks() if suite == "table1" else [rows("clean", answers("+++++++-"), LABELS)]
    run = trained(tmp_path / "again", recipe, suite, chunks)
    other = trained(tmp_path / "other", "digits/s3ta_4", suite, chunks)
    table = paper_table([run, other], suite)
    names = [row[:2] for row in table.rows]
    assert len(names) == len(PAPER[suite].rows) + 2
    if model is None:
        assert names[:2] == [["again", "this run"], ["other", "this run"]]
    else:
        assert names[0] == ["other", "this run"]
        place = names.index([f"{model}: again", "this run"])
        assert names[place + 1] == [model, "paper"]
        assert table.rows[place][1:] == table.rows[0][1:]


def test_a_changed_recipe_trains_no_row_of_the_paper(tmp_path: Path) -> None:
    note = "Changed from the recipe imagenet/s3ta_4-10: attack.radius=8/255."
    run = trained(tmp_path / "changed", "imagenet/s3ta_4-10", "table1", table1_chunks(), note)
    assert paper_table([run], "table1").rows[0][:2] == ["changed", "this run"]


def test_tables_2_and_3_may_mean_the_s3ta_16_of_30_steps(tmp_path: Path) -> None:
    runs = [
        trained(tmp_path / name, f"imagenet/s3ta_16-{name}", "table3", [rows("clean", answers("+" * 8), LABELS)])
        for name in ("10", "30")
    ]
    assert [row[0] for row in paper_table(runs, "table3").rows] == [
        "ResNet-152", "DENOISE", "S3TA-16: 10", "S3TA-16: 30", "S3TA-16",
    ]  # fmt: skip


def test_what_was_not_measured_is_a_dash_and_said(tmp_path: Path) -> None:
    run = measured(tmp_path / "half", get_suite("table1"), table1_chunks(short=True), missing=1)
    assert paper_table([run], "table1").rows[0][4:] == [told(7), both(6, 1), "–", "–", "–"]
    assert "half is not finished (2 of 3 chunks): its numbers are of the images done so far." in paper_notes(
        [run], "table1"
    )
    part = table1_chunks()
    part[1] = {name: values[:5] for name, values in part[1].items()}
    cut = measured(tmp_path / "cut", get_suite("table1"), part, missing=1)
    assert paper_table([cut], "table1").rows[0][5] == f"{told(5, 5)} / {told(0, 5)} (n = 5)"


def test_another_radius_and_a_trial_are_said(tmp_path: Path) -> None:
    suite = override_suite(get_suite("table1"), ["attack.radius=8/255", "attack.keep=best"])
    run = measured(tmp_path / "small", suite, table1_chunks())
    assert paper_table([run], suite.name).rows[0][3:5] == ["8/255", told(7)]
    notes = paper_notes([run], suite.name)
    assert "small was attacked at 8/255, the paper's models at 16/255." in notes
    assert "Settings of our attacks were changed: radius=8/255, keep=best." in notes
    trial = shrink_suite(get_suite("table1"))
    reads = [rows("targeted-10", answers("+" * 8), LABELS, TARGETS, num_steps=2)]
    tiny = measured(tmp_path / "tiny", trial, [rows("clean", answers("+" * 8), LABELS), *reads])
    assert paper_table([tiny], trial.name).rows[0][4:] == [told(8), "–", "–", "–", "–"]
    assert any("their numbers mean nothing" in note for note in paper_notes([tiny], trial.name))


def test_rows_that_were_not_measured_alike_say_so(tmp_path: Path) -> None:
    runs = [
        measured(tmp_path / name, get_suite("table1"), table1_chunks(), salt=name, fingerprint=mark)
        for name, mark in (("a", "f00d"), ("b", "f00d"), ("c", "beef"))
    ]
    alike = paper_notes(runs[:2], "table1")
    assert not any("do not compare with each other" in note for note in alike)
    assert sum(note.startswith("Our rows: cifar10") for note in alike) == 1, "said once for both"
    assert any(re.search("do not compare with each other.*fingerprint", note) for note in paper_notes(runs, "table1"))
    assert [row[0] for row in paper_table(runs, "table1").rows[:4]] == ["a", "b", "c", "ResNet-152"]


def test_table_2_keeps_radii_and_losses_apart(tmp_path: Path) -> None:
    kinds = {
        "untargeted-200": "++------",
        "margin-200": "+-------",
        "small-untargeted-200": "++++++--",
        "small-margin-200": "+++++---",
    }
    clean = rows("clean", answers("+++++++-"), LABELS)
    chunks = [clean, *(rows(name, answers(kind), LABELS, num_steps=200) for name, kind in kinds.items())]
    run = measured(tmp_path / "mine", get_suite("table2"), chunks)
    changed = override_suite(get_suite("table2"), ["attack.radius=8/255"])
    other = measured(tmp_path / "other", changed, chunks[:3])
    table = paper_table([run], "table2")
    assert table.headers[4:] == [
        "4/255: top-1",
        "16/255: top-1",
        "4/255, margin: top-1",
        "16/255, margin: top-1",
    ]
    assert table.rows[0][3:] == ["4/255 and 16/255", told(6), told(2), told(5), told(1)]
    assert table.rows[3][4:] == ["47.0%", "6.1%", "–", "–"]
    there = paper_table([other], changed.name)
    assert there.headers[4:] == ["4/255: top-1", "16/255: top-1", "8/255: top-1", "8/255, margin: top-1"]
    assert there.rows[0][3:] == ["8/255", "–", "–", told(2), told(1)]
    assert any("Not like for like" in note and "trained at the radius" in note for note in paper_notes([], "table2"))


def test_table_5_counts_the_first_starts_of_one_run(tmp_path: Path) -> None:
    """Twelve starts: the worst of the first and of the first ten; example 0 falls in the first, 1 in the fifth, 2 in the
    twelfth. Those that are settled are not run again."""
    suite = override_suite(get_suite("table5"), ["attack.num_restarts=12"])
    chunks = [rows("clean", answers("++++++++"), LABELS)]
    for restart in range(12):
        first, others = [], []
        for steps in (100, 1000):
            where = {"restart": restart, "num_steps": steps}
            settled = not_run("targeted-1000", [0], [1], **where)
            first.append(settled if restart else rows("targeted-1000", [1], [0], [1], **where))
            kinds = "+t++++++" if (restart, steps) == (4, 1000) else "++-+++++" if restart == 11 else "++++++++"
            others.append(rows("targeted-1000", answers(kinds)[1:], LABELS[1:], TARGETS[1:], first=1, **where))
        chunks += [join(*first), join(*others)]
    run = measured(tmp_path / "mine", suite, chunks)
    table = paper_table([run], suite.name)
    assert [header.partition(":")[0] for header in table.headers[4:7]] == [
        f"100 steps, worst of {n}" for n in (1, 10, 100)
    ]
    assert table.rows[0][4:] == [both(7, 1), both(7, 1), "–", both(7, 1), both(6, 2), "–"]
    assert table.rows[3][4:] == ["47.76%", "47.27%", "47.09%", "46.74%", "46.09%", "45.78%"]


@pytest.mark.parametrize(
    ("name", "attack", "steps"),
    [("table3", "spsa-100", [100]), ("table4", "targeted-10000", [5000, 10_000]), ("table6", "adam-250", [250])],
)
def test_tables_3_to_6_are_laid_out_as_the_paper_does(tmp_path: Path, name: str, attack: str, steps: list[int]) -> None:
    """Three right and two on target, at the later read-out two and two."""
    kinds = ["+++tt---", "++tt----"]
    reads = [
        rows(attack, answers(kind), LABELS, TARGETS, num_steps=n)
        for kind, n in zip(kinds[: len(steps)], steps, strict=True)
    ]
    run = measured(tmp_path / "mine", get_suite(name), [rows("clean", answers("+" * 8), LABELS), join(*reads)])
    row = paper_table([run], name).rows[0]
    assert row[4:] == [both(3, 2), both(2, 2)][: len(steps)]


def test_the_slip_of_table_4_is_marked() -> None:
    cells = next(row for row in paper_table([], "table4").rows if row[0] == "S3TA-16-30")
    assert cells[4:] == ["46.11% / 24.91% †", "46.20% / 24.68%"]
    assert any(note.startswith("† is digit for digit") for note in paper_notes([], "table4"))
    table_1 = next(row for row in paper_table([], "table1").rows if row[0] == "S3TA-16-30")
    assert table_1[-1] == "46.11% / 24.91%"


def test_a_run_without_attacks_has_tables(tmp_path: Path) -> None:
    run = measured(tmp_path / "natural", get_suite("figure7"), [rows("clean", answers("+++++---"), LABELS)])
    assert runs_summary_table([run]).rows[0][:5] == ["natural", "clean", "no attack", "8", told(5)]
    assert len(read_out_numbers_table([run]).rows) == 1
    assert paper_section([run], "figure7") is None


# --- as files -----------------------------------------------------------------------------------------------------


def test_the_table_is_written_as_markdown_latex_and_csv(tmp_path: Path) -> None:
    run = measured(tmp_path / "s3ta_4_*", get_suite("table1"), table1_chunks())
    section = paper_section([run], "table1")
    assert section is not None
    files = {suffix: tmp_path / f"out{suffix}" for suffix in (".md", ".csv", ".tex")}
    for file in files.values():
        write_paper_table([tmp_path / "s3ta_4_*"], "table1", file)
    markdown = files[".md"].read_text()
    assert markdown.startswith(section.table.markdown())
    assert [line[2:] for line in markdown.splitlines() if line.startswith("- ")] == section.notes
    assert list(csv.reader(files[".csv"].read_text().splitlines())) == [section.table.headers, *section.table.rows]
    tabular, items = files[".tex"].read_text().split("\\begin{itemize}")
    assert printed(tabular) == [section.table.headers, *section.table.rows]
    assert [spoken(item) for item in items.removesuffix("\\end{itemize}\n").split("\\item ")[1:]] == section.notes
    assert "\\begin{tabular}{llrrrrrrr}" in tabular
    for wrong in (".txt", "", ".tex.gz"):
        with pytest.raises(UserError, match=r"let the file's name end in \.md, \.csv, \.tex"):
            write_paper_table([tmp_path / "s3ta_4_*"], "table1", tmp_path / f"out{wrong}")
    with pytest.raises(UserError, match="none of the paper's tables"):
        write_paper_table([tmp_path / "s3ta_4_*"], "quick", files[".md"])


WORDS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textasciigrave": "`",
    "textperiodcentered": "·",
    "ldots": "…",
    "textdagger": "†",
    "textendash": "–",
}
MATHS = {"$-$": "−", r"$\pm$": "±", r"$\times$": "×"}


def spoken(source: str) -> str:
    """What LaTeX prints for a piece of text: a reader of its own. Fails on what LaTeX would take as a command."""
    text, depth = "", 0
    tokens = re.findall(r"\\char\d+|\\[A-Za-z]+(?:\{\})?|\\.|\$[^$]*\$|-+|,+|'+|.", source.strip())
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token in "{}":
            depth += 1 if token == "{" else -1
            assert depth in (0, 1)
        elif token in MATHS:
            text += MATHS[token]
        elif token.startswith("\\char"):
            text += chr(int(token[5:]))
        elif re.match(r"\\[A-Za-z]", token):
            assert token.endswith("{}"), "else the space behind it is lost"
            text += WORDS[token[1:-2]]
        elif token[0] == "\\":
            assert token[1] in "&%$#_{}"
            text += token[1]
        elif token in "[*":
            assert before == "{", "the argument of the end of the row above"
            text += token
        else:
            assert token[0] not in "-,'" or len(token) == 1, "a ligature"
            assert not set(token) & set('&%$#_~^<>|"`\\')
            text += token
    assert depth == 0
    return text


def printed(source: str) -> list[list[str]]:
    """The cells of a booktabs table."""
    inside = re.fullmatch(
        r"\\begin\{tabular\}\{([lr]+)\}\n\\toprule\n(.*)\\bottomrule\n\\end\{tabular\}\n", source, re.S
    )
    assert inside is not None
    lines = inside[2].splitlines()
    assert lines.pop(1) == "\\midrule"
    assert all(line.endswith(r" \\") for line in lines)
    found = [[spoken(cell) for cell in re.split(r"(?<!\\)&", line.removesuffix(r" \\"))] for line in lines]
    assert all(len(cells) == len(inside[1]) for cells in found)
    return found


HOSTILE = ["", *"\\{}$&#%_^~<>|\"'`[]*-–−±×·…†,;:?!/()", "a", "Z", "7", "é", "--", "\\\\", "\\input{x}", "% ", " "]


def test_latex_prints_every_text_as_it_is() -> None:
    seed = random.randrange(2**32)
    draw = random.Random(seed)
    for _ in range(3000):
        text = "".join(draw.choice(HOSTILE) for _ in range(draw.randrange(9)))
        plain = " ".join(text.split())
        assert spoken(latex_text(text)) == plain, f"seed {seed}: {text!r}"
    table = Table(["[a]", "* b", "%"], [["[1, 2]", "*", "61.2% [56.9, 65.4]"], ["*", "x & y \\\\", "–"]])
    source = table.latex()
    assert printed(source) == [table.headers, *table.rows]
    assert "\\begin{tabular}{llr}" in source
    assert table_text(table, ".tex") == source


def test_a_table_without_rows_is_still_a_table() -> None:
    assert printed(Table(["a", "b"], []).latex()) == [["a", "b"]]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles(tmp_path: Path) -> None:
    hostile = Table(["[a", "* b"], [["".join(c for c in HOSTILE if c != "†"), "*"], ["[x]", "† 1"]])
    body = "\n\n".join(table.latex() for table in (hostile, *(paper_table([], name) for name in PAPER)))
    notes = "\n\n".join(latex_text(note) for name in PAPER for note in paper_notes([], name))
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + body + notes + "\\end{document}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-3000:]
