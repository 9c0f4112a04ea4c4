"""A bounded folder: never more than it may hold, the oldest goes first, and a kill costs nothing that was written."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysight_edge.pictures.ring import Ring

KEYS = st.sampled_from([f"{camera}/event-{number}" for camera in ("gate", "yard") for number in range(5)])
SIZES = st.integers(0, 60)
PUTS = st.lists(st.tuples(KEYS, st.dictionaries(st.sampled_from([".jpg", ".clean.jpg"]), SIZES, min_size=1)))


def held(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@given(puts=PUTS)
@settings(max_examples=40)
def test_it_holds_the_newest_entries_that_fit_and_knows_what_it_holds(
    puts: list[tuple[str, dict[str, int]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ring")
    ring = Ring(folder, keep_bytes=150)
    ring.open()
    expected: dict[str, dict[str, int]] = {}
    for key, sizes in puts:
        gone = ring.put(key, {suffix: bytes(size) for suffix, size in sizes.items()})
        expected[key] = {**expected.pop(key, {}), **sizes}
        for each in gone:
            assert each == next(iter(expected)), "the oldest goes first"
            del expected[each]
        assert ring.total_bytes <= 150
    assert held(folder) == {f"{key}{end}": size for key, sizes in expected.items() for end, size in sizes.items()}
    assert ring.total_bytes == sum(held(folder).values())
    again = Ring(folder, keep_bytes=150)
    again.open()
    assert again.total_bytes == ring.total_bytes
    assert sorted(again.keys) == sorted(expected)


def test_what_a_kill_left_half_is_removed_and_what_it_left_whole_is_counted_by_age(tmp_path: Path) -> None:
    for number, name in enumerate(["b/2.jpg", "a/1.clean.jpg", "a/1.jpg", "b/.3.jpg.99.part"]):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (1000 + number, 1000 + number))
    ring = Ring(tmp_path, keep_bytes=100)
    ring.open()
    assert ring.keys == ["b/2", "a/1"]
    assert held(tmp_path) == {"b/2.jpg": 10, "a/1.clean.jpg": 10, "a/1.jpg": 10}
    smaller = Ring(tmp_path, keep_bytes=20)
    smaller.open()
    assert set(held(tmp_path)) == {"a/1.clean.jpg", "a/1.jpg"}


def test_an_entry_that_never_fits_removes_nothing(tmp_path: Path) -> None:
    ring = Ring(tmp_path, keep_bytes=100)
    ring.open()
    ring.put("a", {".jpg": bytes(60)})
    with pytest.raises(OSError, match="larger than the 100"):
        ring.put("b", {".jpg": bytes(101)})
    assert held(tmp_path) == {"a.jpg": 60}


def test_what_others_deleted_is_no_error(tmp_path: Path) -> None:
    ring = Ring(tmp_path, keep_bytes=100)
    ring.open()
    ring.put("a", {".jpg": bytes(60)})
    (tmp_path / "a.jpg").unlink()
    assert ring.put("b", {".jpg": bytes(60)}) == ["a"]


def test_what_cannot_be_removed_is_an_error_and_no_entry_is_left_of_what_was_not_written(tmp_path: Path) -> None:
    ring = Ring(tmp_path, keep_bytes=100)
    ring.open()
    ring.put("a", {".jpg": bytes(60)})
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "a.jpg").mkdir()  # unlink says no, as on a disk that is read-only
    for number in range(3):
        with pytest.raises(OSError, match=r"a\.jpg"):
            ring.put(f"b{number}", {".jpg": bytes(60)})
    assert ring.keys == ["a"]
    assert ring.total_bytes == 60
    (tmp_path / "a.jpg").rmdir()
    assert ring.put("c", {".jpg": bytes(60)}) == ["a"]
