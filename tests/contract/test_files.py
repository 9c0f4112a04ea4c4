"""A file is the old one or the new one, whatever happens."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinysight_contract.files import read_capped, replace_file, sha256_of


def test_the_content_is_replaced_and_nothing_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_what_never_ends_is_read_to_one_byte_too_many(tmp_path: Path) -> None:
    assert read_capped(Path("/dev/zero"), 10) == bytes(11)
    (tmp_path / "x").write_bytes(b"abc")
    assert read_capped(tmp_path / "x", 3) == b"abc"


def test_a_missing_folder_is_an_error_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "none" / "x", b"")
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_at_any_moment_leaves_one_of_the_two_contents(tmp_path: Path) -> None:
    path = tmp_path / "x"
    one, two = b"1" * 300_000, b"2" * 300_000
    code = (
        "import sys, pathlib; from tinysight_contract.files import replace_file\n"
        "while True:\n for c in b'12': replace_file(pathlib.Path(sys.argv[1]), bytes([c]) * 300_000)"
    )
    replace_file(path, one)
    for round_ in range(8):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
        time.sleep(0.15 + round_ * 0.013)
        writer.kill()
        writer.wait()
        assert path.read_bytes() in (one, two)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    from tinysight_contract.files import fsync_folder

    with pytest.raises(FileNotFoundError):
        fsync_folder(tmp_path / "none")
