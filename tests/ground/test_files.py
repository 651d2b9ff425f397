"""Files are whole or absent: kills, full and read-only disks, torn last lines."""

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ta import files
from s3ta.errors import UserError
from s3ta.files import append_lines, in_use, read_json, read_lines, sha256, sole_use, write_atomic, write_json

OLD, NEW = b"old content", b"new content, longer than the old"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "folder" / "file.bin"
    write_atomic(path, OLD)
    return path


def _only_the_old_file(target):
    assert target.read_bytes() == OLD
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_writing_makes_folders_and_leaves_nothing_else(target):
    _only_the_old_file(target)
    write_atomic(target, NEW)
    assert target.read_bytes() == NEW
    assert [p.name for p in target.parent.iterdir()] == [target.name]
    assert target.stat().st_mode & 0o777 == 0o644


class Killed(BaseException):
    """Stands for a kill: nothing of ours may catch and swallow it."""


@pytest.mark.parametrize("moment", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize("error", [Killed, KeyboardInterrupt, RuntimeError])
def test_interrupted_before_the_rename_leaves_the_old_file(target, monkeypatch, moment, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(files.os, moment, fail)
    with pytest.raises(error):
        write_atomic(target, NEW)
    _only_the_old_file(target)


def test_the_new_content_is_on_the_disk_before_the_rename(target, monkeypatch):
    seen = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(files.os, "fsync", lambda handle: (seen.append("fsync"), fsync(handle)))

    def watch(source, destination):
        seen.append("replace")
        assert os.path.dirname(source) == os.path.dirname(destination)  # a rename over disks is not atomic
        with open(source, "rb") as file:
            assert file.read() == NEW
        assert target.read_bytes() == OLD
        replace(source, destination)

    monkeypatch.setattr(files.os, "replace", watch)
    write_atomic(target, NEW)
    assert seen == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk. Free some space"),
        (errno.EDQUOT, "quota is used up. Free some space"),
        (errno.EFBIG, "size limit is reached. Free some space"),
        (errno.EROFS, "read-only. Choose a folder"),
        (errno.EACCES, "permission is denied. Choose a folder"),
        (errno.EPERM, "not permitted. Choose a folder"),
    ],
)
@pytest.mark.parametrize("write", [lambda path: write_atomic(path, NEW), lambda path: append_lines(path, [{"a": 1}])])
def test_what_the_disk_refuses_is_one_sentence(target, monkeypatch, number, words, write):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", fail)
        patch.setattr(type(target), "open", fail)
        with pytest.raises(UserError) as caught:
            write(target)
    assert f"Cannot write {target}: " in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    _only_the_old_file(target)


def test_errors_that_are_not_the_disks_pass_unchanged(target, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="input/output") as caught:
        write_atomic(target, NEW)
    assert not isinstance(caught.value, UserError)
    _only_the_old_file(target)


def test_a_really_full_disk_is_one_sentence(small_disk):
    path = small_disk(64) / "file.bin"
    write_atomic(path, OLD)
    with pytest.raises(UserError, match="no space is left on the disk"):
        write_atomic(path, bytes(100_000))
    _only_the_old_file(path)
    lines = path.with_name("lines.jsonl")
    append_lines(lines, [{"step": 1}])
    with pytest.raises(UserError, match="no space is left on the disk"):
        append_lines(lines, [{"step": i, "text": "x" * 200} for i in range(2, 2000)])
    kept = read_lines(lines)
    assert kept[0] == {"step": 1}
    assert [line["step"] for line in kept] == list(range(1, len(kept) + 1))


@pytest.mark.parametrize("name", ["file/child.json", "file/child/grandchild.json"])
def test_a_path_through_a_file_is_one_sentence(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file"):
        write_atomic(tmp_path / name, NEW)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_json_is_read_back_as_written(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "round-trip.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"\x00" * 9])
def test_damaged_json_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        read_json(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.json does not exist"):
        read_json(tmp_path / "none.json")
    assert read_lines(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_left_out_wherever_it_is_torn(tmp_path):
    path = tmp_path / "curve.jsonl"
    records = [{"step": i, "note": "läuft\u2028gut", "loss": 1 / (i + 1)} for i in range(3)]
    append_lines(path, records[:2])
    append_lines(path, records[2:])
    whole = path.read_bytes()
    assert whole.count(b"\n") == 3
    starts = [0, *(i + 1 for i, byte in enumerate(whole) if byte == ord("\n"))]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        complete = sum(length >= end - 1 for end in starts[1:])  # a line may lack its line end alone
        assert read_lines(path) == records[:complete], length


def test_numbers_survive_the_lines_exactly(tmp_path):
    path = tmp_path / "curve.jsonl"
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2**53 + 1]
    append_lines(path, [{"value": value} for value in values])
    assert [record["value"] for record in read_lines(path)] == values


def test_hash_identifies_content():
    assert sha256(b"abc") == sha256(b"a", b"bc") == "ba7816bf8f01cfea"
    assert sha256() != sha256(b"\0")
    assert json.dumps(sha256(b"x")).isascii()


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path):
    folder = tmp_path / "run"
    assert not in_use(folder)
    assert not folder.exists()
    with sole_use(folder):
        assert in_use(folder)
        with pytest.raises(UserError, match=f"Another process is at work on {folder}: wait for it"), sole_use(folder):
            pytest.fail("the folder was given away twice")
        with sole_use(tmp_path / "other"):
            pass
    assert not in_use(folder)
    with pytest.raises(KeyboardInterrupt), sole_use(folder):
        raise KeyboardInterrupt
    with sole_use(folder):
        pass


def test_a_killed_process_holds_nothing(tmp_path):
    hold = "import sys, time; from pathlib import Path; from s3ta.files import sole_use\n"
    hold += "with sole_use(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    assert in_use(tmp_path)
    child.kill()
    child.communicate()
    assert not in_use(tmp_path)
