"""A flipped bit is named by whoever reads its file, beside the reading."""

import re
import shutil
import subprocess

import pytest

from eagle.checksums import check, checked, damaged, identity, listed
from eagle.errors import InputError
from eagle.files import CHECKSUMS, sha256_of_folder, whole_folder, write_checksums
from tests.tiny import flip


@pytest.fixture
def folder(tmp_path):
    """A folder with a file in it and one below."""
    with whole_folder(tmp_path / "out") as folder:
        (folder / "config.json").write_text("{}")
        (folder / "below").mkdir()
        (folder / "below/weights").write_bytes(bytes(range(256)) * 40)
        (folder / ".note").write_text("of a client")
    return tmp_path / "out"


def test_the_list_is_what_sha256sum_reads(folder):
    text = (folder / CHECKSUMS).read_text()
    assert re.fullmatch("[0-9a-f]{64}  below/weights\n[0-9a-f]{64}  config.json\n", text)
    subprocess.run(["sha256sum", "--check", "--strict", CHECKSUMS], cwd=folder, check=True)


@pytest.mark.parametrize("at", [0, 0.5, 1])
@pytest.mark.parametrize("name", ["config.json", "below/weights"])
def test_a_flipped_bit_is_named_with_what_to_do(folder, name, at):
    check(folder)
    flip(folder / name, at)
    expected = f"{folder / name}: its SHA-256 is .*, expected .*python -m tools.verify"
    with pytest.raises(InputError, match=expected):
        check(folder)
    with pytest.raises(InputError, match=expected):
        check(folder / name)
    assert [damage.path for damage in damaged(folder)] == [folder / name]


@pytest.mark.parametrize("at", [byte / 143 for byte in range(0, 143, 7)])
def test_a_flipped_bit_in_the_list_itself_is_noticed(folder, at):
    flip(folder / CHECKSUMS, at)
    assert damaged(folder)


def test_a_file_that_is_missing_is_named(folder):
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match="config.json: there is no such file"):
        check(folder)


def test_damage_takes_the_place_of_the_error_that_it_caused(folder):
    with pytest.raises(ValueError, match="not of the file"), checked(folder):
        raise ValueError("not of the file")
    flip(folder / "config.json")
    with pytest.raises(InputError, match="its SHA-256 is"), checked(folder):
        raise ValueError("not valid JSON")


def test_what_no_list_has_is_not_compared(folder, tmp_path):
    (folder / "added").write_text("by hand")
    assert damaged(folder / "added", tmp_path / "absent") == []


def test_of_two_lists_the_outer_one_counts(folder, tmp_path):
    """The list in models/export/LAYOUT may still be that of the report before."""
    write_checksums(tmp_path, {"out/config.json": "0" * 64})
    assert set(listed(folder).hashes) == {folder / "config.json", folder / "below/weights"}
    assert [damage.path for damage in damaged(folder)] == [folder / "config.json"]


def test_a_folders_identity_is_that_of_its_bytes(folder):
    by_list = identity(folder)
    assert by_list == sha256_of_folder(folder)
    (folder / CHECKSUMS).unlink()
    assert identity(folder) == by_list
    shutil.copy(folder / "config.json", folder / "another")
    assert identity(folder) != by_list
