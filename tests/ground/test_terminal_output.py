"""Printed text is text, and every encoding gets it."""

from __future__ import annotations

import gc
import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ta import progress
from s3ta import terminal_output as module
from s3ta.cli import shared
from s3ta.report import Table
from s3ta.terminal_output import plain_console

ODD = "[bold]x[/bold] :fish: [/] 50.0% [25.4, 74.6] – ≤ ∞ → × … 𝔸🐟 Müller \udcff"
SCRIPT = """
import sys
from s3ta.cli import shared
from s3ta.terminal_output import speak_plainly
from s3ta.progress import console, progress
from s3ta.report import Table
speak_plainly()
text = bytes.fromhex(sys.argv[1]).decode("utf-8", "surrogatepass")
shared.print_table(Table(["attack", "success"], [["clean", "–"], ["pgd", text]]))
shared.err_console.print(text)
with progress(text, 2) as report:
    report(2, text)
console._force_terminal, console.width = True, 400
with progress(text, 2) as report:
    report(2, text)
"""
ASCII = r"[bold]x[/bold] :fish: [/] 50.0% [25.4, 74.6] - <= inf -> x ... \U0001d538\U0001f41f M\xfcller \xff"
LOCALES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
}
ENCODINGS = {"C": "ascii"}


@pytest.mark.parametrize("name", LOCALES)
def test_every_console_gets_tables_messages_and_progress(name, tmp_path):
    """Through a real process, whose streams are strict where Python's are."""
    (tmp_path / "told.py").write_text(SCRIPT, encoding="utf-8")
    told = subprocess.run(
        [sys.executable, str(tmp_path / "told.py"), ODD.encode("utf-8", "surrogatepass").hex()],
        env={key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONIO"))}
        | LOCALES[name],
        capture_output=True,
        check=False,
    )
    encoding = ENCODINGS.get(name, name)
    out, err = told.stdout.decode(encoding), told.stderr.decode(encoding)
    assert told.returncode == 0, err
    expected = ODD.encode(encoding, "s3ta-plain").decode(encoding)
    assert expected in out
    assert err.count(expected) >= 5, "a message, a line with a note, and a bar with a note"
    if encoding == "ascii":
        assert expected == ASCII
        assert out.splitlines()[1].split() == ["clean", "-"]


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [
        ("ascii", "±3 · x", "+-3 * x"),
        ("latin-1", "±3 · x – y", "±3 · x - y"),
        ("cp1252", "±3 – ≤ y", "±3 – <= y"),
        ("ascii", "a\u202fb\u00a0c", "a b c"),
        ("ascii", "ﬁ“q”", r"\ufb01" + '"q"'),
        ("utf-8", "é – \udce9", r"é – \xe9"),
        ("koi8-r", "привет ≤ ü", r"привет ≤ \xfc"),
    ],
)
def test_what_an_encoding_lacks_is_written_in_what_it_has(encoding, text, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="s3ta-plain")
    stream.write(text)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == shown


@given(
    st.text(st.characters(exclude_categories=())), st.sampled_from(["ascii", "cp437", "shift_jis", "utf-8", "koi8-r"])
)
def test_any_text_can_be_written_in_any_encoding(text, encoding):
    assert text.encode(encoding, "s3ta-plain").decode(encoding) is not None


def test_a_byte_that_cannot_be_read_is_still_an_error():
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", "s3ta-plain")


def test_streams_that_are_no_text_streams_are_left_alone_and_closed_ones_go_nowhere(monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    module.speak_plainly()
    assert sys.stdout is stream
    print("nobody hears it", file=sys.stderr)


def _text_stream():
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="s3ta-plain", write_through=True)


def test_streams_that_other_code_replaces_come_back_and_still_write(monkeypatch):
    stream = _text_stream()
    monkeypatch.setattr(sys, "stdout", stream)
    with module.standard_streams_kept():
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-16")
        print("theirs")
    gc.collect()
    print("ours –")
    assert sys.stdout is stream
    assert stream.buffer.getvalue().endswith("ours –\n".encode())


def test_an_encoding_that_other_code_changes_comes_back(monkeypatch):
    stream = _text_stream()
    monkeypatch.setattr(sys, "stderr", stream)
    with module.standard_streams_kept():
        sys.stderr.reconfigure(encoding="ascii", errors="strict")
    assert (stream.encoding, stream.errors) == ("utf-8", "s3ta-plain")


@pytest.mark.parametrize("way", ["closed", "detached", "detached for good"])
def test_streams_that_other_code_takes_away_stop_nothing(monkeypatch, way):
    stream = _text_stream()
    buffer = stream.buffer
    monkeypatch.setattr(sys, "stdout", stream)
    with module.standard_streams_kept():
        if way == "closed":
            stream.close()
        else:
            stream.detach()
            if way == "detached":
                sys.stdout = io.TextIOWrapper(buffer, encoding="ascii", write_through=True)
    print("≤")
    if way == "detached":
        assert buffer.getvalue() == b"<=\n"


@pytest.mark.parametrize("text", [":fish:", "[bold]a[/bold]", "[red]", "[/]", "a :warning: b", r"\[x]", "[link=x]y"])
def test_names_are_never_markup(text, capsys):
    shared.out_console.print(f"{text}.png")
    shared.err_console.print(text)
    progress.console.print(text)
    shared.print_table(Table(["name"], [[text]]))
    with progress.progress(text, 1) as report:
        report(1, text)
    told = capsys.readouterr()
    assert told.out.count(text) == 2
    assert told.err.count(text) == 4


@pytest.mark.parametrize("text", [":fish: [bold]a[/bold]", "[/]"])
def test_names_on_a_progress_bar_are_never_markup(text, monkeypatch):
    screen = plain_console()
    screen.file, screen._force_terminal, screen.width = io.StringIO(), True, 150
    monkeypatch.setattr(progress, "console", screen)
    with progress.progress(text, 1) as report:
        report(1, f"note {text}")
    assert text in screen.file.getvalue()
    assert f"note {text}" in screen.file.getvalue()
