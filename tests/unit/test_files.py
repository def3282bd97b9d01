"""Files are whole or absent; unreadable ones are named."""

import errno
import json
import os
import tempfile
from pathlib import Path

import pytest

from eagle import files
from eagle.errors import InputError
from eagle.files import (
    all_below,
    entries,
    naming,
    read_json,
    read_json_lines,
    reserve,
    sha256_of_folder,
    whole_files,
    whole_folder,
    write_json_lines,
)


def test_a_folder_is_replaced_only_when_the_work_ends_well(tmp_path):
    target = tmp_path / "out"
    with whole_folder(target) as folder:
        (folder / "a").write_text("first")
    with pytest.raises(ValueError, match="broken"), whole_folder(target) as folder:
        (folder / "a").write_text("second")
        raise ValueError("broken")
    assert (target / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_a_folder_are_replaced_together_and_others_stay(tmp_path):
    (tmp_path / "card").write_text("of another stage")
    (tmp_path / "a").write_text("first")
    with pytest.raises(ValueError), whole_files(tmp_path) as folder:
        (folder / "a").write_text("second")
        raise ValueError
    assert (tmp_path / "a").read_text() == "first"
    with whole_files(tmp_path) as folder:
        (folder / "a").write_text("second")
    assert (tmp_path / "a").read_text() == "second"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "card"}


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_files_have_the_mode_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        with whole_folder(tmp_path / "out") as folder:
            (folder / "a").touch(0o600)  # as safetensors does
    finally:
        os.umask(before)
    assert (tmp_path / "out/a").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~mask


def test_a_folder_that_is_a_link_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a").write_text("first")
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with whole_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("second")
    assert (tmp_path / "out/a").read_text() == "second"
    assert (tmp_path / "elsewhere/a").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "elsewhere"}


def test_an_error_of_writing_names_the_file(tmp_path):
    with pytest.raises(OSError) as error, naming(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")  # as write does
    assert error.value.filename == str(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as error, naming(tmp_path / "a"):
        (tmp_path / "b").open()
    assert error.value.filename == str(tmp_path / "b")


@pytest.mark.parametrize("number", [None, errno.ENOTSUP, errno.ENOSPC])
def test_room_is_reserved_where_the_file_system_can(tmp_path, monkeypatch, number):
    def refuse(*_arguments):
        raise OSError(number, "refused")

    if number:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    path = tmp_path / "map"
    if number == errno.ENOSPC:
        with pytest.raises(OSError, match="refused"):
            reserve(path, 2**20)
        return
    assert reserve(path, 2**20) == (number is None)
    assert path.stat().st_size == 2**20
    assert (path.stat().st_blocks * 512 >= 2**20) == (number is None)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty"),
        (b'[{"a": 1}, {"a"', "cut off"),
        (b'[{"a": "text without end', "cut off"),
        (b"<html>", "line 1, column 1"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_said(tmp_path, content, expected):
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=expected) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_json_lines_name_the_line(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": 1}\n\n[2]\n')
    with pytest.raises(InputError, match="line 3: found a JSON list"):
        read_json_lines(path)
    rows = [{"text": "é\n"}, {"text": "one\u2028line\x85still\x0c"}]
    write_json_lines(path, rows)
    assert read_json_lines(path) == rows


def test_a_line_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"a": "b" * 90}) + "\n")
    assert len(read_json_lines(path)) == 1
    path.write_text("{}\n" + json.dumps({"a": "b" * 99}) + "\n")
    with pytest.raises(InputError, match="line 2: longer than 100 bytes"):
        read_json_lines(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for read in (read_json, read_json_lines):
        with pytest.raises(InputError, match="pipe.jsonl: is a pipe or a device"):
            read(tmp_path / "pipe.jsonl")


def test_a_folder_that_cannot_be_read_is_not_an_empty_one():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "inside").mkdir()
        (folder / "inside/file").touch()
        assert all_below(folder) == [folder / "inside", folder / "inside/file"]
        assert entries(folder / "inside", "f*") == [folder / "inside/file"]
        assert all_below(folder / "absent") == entries(folder / "absent") == []
        folder.chmod(0o755)
        (folder / "inside").chmod(0)
        try:
            os.seteuid(65534 if user == 0 else user)  # root may read it
            for listed in (all_below, sha256_of_folder):
                with pytest.raises(PermissionError, match="inside"):
                    listed(folder)
            with pytest.raises(PermissionError, match="inside"):
                entries(folder / "inside")
        finally:
            os.seteuid(user)


def test_a_folders_hash_covers_names_and_content(tmp_path):
    (tmp_path / "a").write_text("1")
    first = sha256_of_folder(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = sha256_of_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, sha256_of_folder(tmp_path)}) == 3
