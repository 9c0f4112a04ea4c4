"""Hard examples at the server: in pieces, bounded, checked; a device that lies or fills the disk harms itself alone."""

import hashlib
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, ContractError, FleetError
from tinysight_contract.messages import Detection, FrameSize, ModelRef
from tinysight_deploy.fleet.commands import cli_fleet
from tinysight_deploy.fleet.keeping.examples import FullError, Kept, Limits, PieceError
from tinysight_edge.pictures.examples import Example
from tinysight_edge.pictures.jpeg import write_jpeg

ME = "plant-1", "belt-7"
SAID = Example(
    site="plant-1",
    device="belt-7",
    camera="gate",
    captured_at=datetime(2026, 11, 26, 12, tzinfo=UTC),
    reason="margin",
    frame=FrameSize(width=64, height=48),
    model=ModelRef(name="belt", version="1.0.0", digest="d" * 64),
    task="detect",
    detections=[Detection(label="3", class_id=3, score=0.51, box=(0.1, 0.1, 0.4, 0.4), track_id=None)],
)


def example(number: int = 0, said: Example = SAID) -> tuple[bytes, str]:
    image = np.full((48, 64, 3), number % 256, np.uint8)
    image[number % 48, :, 1] = 255
    raw = write_jpeg(image, said, quality=90)
    return raw, hashlib.sha256(raw).hexdigest()


@given(cuts=st.lists(st.integers(1, 3000), max_size=6))
def test_pieces_of_any_size_make_the_whole(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    kept, (raw, digest) = Kept(tmp_path_factory.mktemp("kept")), example()
    ends = sorted({cut for cut in cuts if cut < len(raw)} | {len(raw)})
    at = 0
    for end in ends:
        assert kept.here(*ME, digest) == (at, False)
        assert kept.put(*ME, digest, raw[at:end], at=at, whole=len(raw)) == end
        at = end
    assert kept.here(*ME, digest) == (len(raw), True)
    assert kept.read(*ME, digest) == raw
    (row,) = kept.listing()
    assert (row.site, row.device, row.digest, row.camera, row.bundle) == (*ME, digest, "gate", "d" * 64)


def test_a_piece_that_is_not_the_next_is_told_where_to_go_on(tmp_path: Path) -> None:
    kept, (raw, digest) = Kept(tmp_path), example()
    kept.put(*ME, digest, raw[:100], at=0, whole=len(raw))
    for at in (0, 50, 200):
        with pytest.raises(PieceError) as told:
            kept.put(*ME, digest, raw[at : at + 10], at=at, whole=len(raw))
        assert told.value.at == 100
    assert kept.put(*ME, digest, raw[100:], at=100, whole=len(raw)) == len(raw)
    assert kept.put(*ME, digest, raw, at=0, whole=len(raw)) == len(raw), "once more is nothing new"


def test_what_is_not_what_its_name_says_is_forgotten(tmp_path: Path) -> None:
    kept, (raw, digest) = Kept(tmp_path), example()
    none = b"no picture at all"
    for data, name in ((raw[:-1] + b"x", digest), (none, hashlib.sha256(none).hexdigest())):
        with pytest.raises(FleetError, match="not what its name says"):
            kept.put(*ME, name, data, at=0, whole=len(data))
        assert kept.here(*ME, name) == (0, False)
    stranger, named = example(said=replace(SAID, device="other"))
    with pytest.raises(FleetError, match="of this device"):
        kept.put(*ME, named, stranger, at=0, whole=len(stranger))
    assert kept.listing() == []


@pytest.mark.parametrize(
    ("site", "device", "digest"), [("..", "a", "d" * 64), ("a", "../b", "d" * 64), ("a", "b", "../x")]
)
def test_names_lead_nowhere_else(tmp_path: Path, site: str, device: str, digest: str) -> None:
    with pytest.raises((ContractError, FleetError)):
        Kept(tmp_path / "kept").put(site, device, digest, b"x", at=0, whole=1)
    assert not (tmp_path / "kept").exists()


def test_a_device_fills_its_own_share_and_no_other(tmp_path: Path) -> None:
    raw, digest = example()
    kept = Kept(tmp_path, Limits(example_bytes=4096, device_bytes=2 * len(raw) + 200))
    for number in (0, 1):
        data, name = example(number)
        kept.put(*ME, name, data, at=0, whole=len(data))
    data, name = example(2)
    with pytest.raises(FullError, match="still here"):
        kept.put(*ME, name, data, at=0, whole=len(data))
    other, named = example(said=replace(SAID, device="other"))
    assert kept.put("plant-1", "other", named, other, at=0, whole=len(other))
    assert kept.drop(*ME, digest)
    assert not kept.drop(*ME, digest)
    assert kept.put(*ME, name, data, at=0, whole=len(data))
    with pytest.raises(FleetError, match="too large"):
        kept.put(*ME, "e" * 64, b"x", at=0, whole=4097)
    with pytest.raises(FleetError, match="too large"):
        kept.put(*ME, "e" * 64, b"xyz", at=0, whole=2)


def test_a_device_that_begins_without_end_keeps_only_a_few(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits(parts=3))
    names = [f"{number:064x}" for number in range(8)]
    for name in names:
        kept.put(*ME, name, b"begun", at=0, whole=100)
    assert sum(kept.here(*ME, name)[0] > 0 for name in names) <= 3
    assert kept.here(*ME, names[-1]) == (5, False)


def test_pages_follow_each_other_and_groups_are_picked(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for number in range(5):
        data, name = example(number)
        kept.put(*ME, name, data, at=0, whole=len(data))
    seen: list[str] = []
    after = ""
    while rows := kept.listing(after=after, most=2):
        seen += [row.digest for row in rows]
        after = f"{rows[-1].site}/{rows[-1].device}/{rows[-1].digest}"
    assert len(seen) == len(set(seen)) == 5
    assert kept.listing(keys={("plant-1", "other")}) == []
    assert len(kept.listing(keys={ME})) == 5


def arrived(kept: Kept, device: str, number: int = 0) -> tuple[str, int]:
    data, name = example(number, replace(SAID, device=device))
    kept.put("plant-1", device, name, data, at=0, whole=len(data))
    return name, len(data)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_page_passes_over_a_device_whose_name_begins_as_anothers(tmp_path: Path, most: int) -> None:
    kept = Kept(tmp_path)
    names = ["cam", "cam-2", "cam0", "cam-2-b"]
    for device in names:
        for number in (0, 1):
            arrived(kept, device, number)
    seen: list[tuple[str, str]] = []
    after = ""
    while rows := kept.listing(after=after, most=most):
        seen += [(row.device, row.digest) for row in rows]
        after = f"{rows[-1].site}/{rows[-1].device}/{rows[-1].digest}"
    assert seen == sorted(set(seen))
    assert [device for device, _ in seen] == [device for device in sorted(names) for _ in (0, 1)]


@pytest.mark.parametrize("again", ["looks", "sends"])
def test_a_server_that_died_before_the_rename_has_the_picture(tmp_path: Path, again: str) -> None:
    kept, (raw, digest) = Kept(tmp_path), example()
    kept.put(*ME, digest, raw[:100], at=0, whole=len(raw))
    (tmp_path / "plant-1" / "belt-7" / f"{digest}.part").write_bytes(raw)
    if again == "sends":
        assert kept.put(*ME, digest, raw[100:], at=100, whole=len(raw)) == len(raw)
    assert kept.here(*ME, digest) == (len(raw), True)
    assert kept.read(*ME, digest) == raw


def test_what_was_damaged_here_begins_again(tmp_path: Path) -> None:
    kept, (raw, digest) = Kept(tmp_path), example()
    for damaged in (b"\0" * 100, b"\0" * 2 * len(raw)):
        kept.put(*ME, digest, raw[:100], at=0, whole=len(raw))
        (tmp_path / "plant-1" / "belt-7" / f"{digest}.part").write_bytes(damaged)
        with pytest.raises(PieceError) as told:
            kept.put(*ME, digest, raw[100:], at=100, whole=len(raw))
        assert told.value.at == 0
        assert kept.here(*ME, digest) == (0, False)
    assert kept.put(*ME, digest, raw, at=0, whole=len(raw)) == len(raw)


def test_all_devices_together_have_a_bound_and_the_disk_a_rest(tmp_path: Path) -> None:
    _, size = arrived(Kept(tmp_path), "one")
    kept = Kept(tmp_path, Limits(keep_bytes=2 * size + 200))
    name, _ = arrived(kept, "two")
    with pytest.raises(FullError, match="and no more"):
        arrived(kept, "three")
    assert kept.drop("plant-1", "two", name)
    assert arrived(kept, "three")
    with pytest.raises(FullError, match="nearly full"):
        arrived(Kept(tmp_path, Limits(free_bytes=1 << 60)), "four")


def test_files_are_not_counted_again_for_each_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, (raw, digest) = Kept(tmp_path), example()
    counted: list[Kept] = []
    count = Kept._count

    def counts(kept: Kept) -> None:
        counted.append(kept)
        count(kept)

    monkeypatch.setattr(Kept, "_count", counts)
    for at in range(0, len(raw), 100):
        kept.put(*ME, digest, raw[at : at + 100], at=at, whole=len(raw))
    assert len(counted) == 1
    assert kept._sizes == {ME: len(raw)}


def test_what_a_device_that_is_gone_began_goes_too(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for device in ("gone", "slow"):
        kept.put("plant-1", device, "e" * 64, b"begun", at=0, whole=100)
        part = tmp_path / "plant-1" / device / f"{'e' * 64}.part"
        os.utime(part, (long_ago := time.time() - 30 * 86400, long_ago))
    again = Kept(tmp_path)
    assert again.put("plant-1", "slow", "e" * 64, b"more", at=5, whole=100) == 9, "what goes on stays"
    assert again.here("plant-1", "gone", "e" * 64) == (0, False)


def test_a_folder_that_cannot_be_written_is_full_and_no_fault(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file")
    raw, digest = example()
    with pytest.raises(FullError, match="cannot be kept"):
        Kept(tmp_path / "kept").put(*ME, digest, raw, at=0, whole=len(raw))


def test_a_picture_that_goes_while_it_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept(tmp_path)
    names = sorted(arrived(kept, "belt-7", number)[0] for number in (0, 1))
    first = tmp_path / "plant-1" / "belt-7" / f"{names[0]}.jpg"
    opens = Path.open

    def gone(path: Path, mode: Any) -> Any:
        if path == first:
            first.unlink()
        return opens(path, mode)

    monkeypatch.setattr(Path, "open", gone)
    assert [row.digest for row in kept.listing()] == names[1:]


def test_how_much_is_kept_is_written_with_its_unit() -> None:
    assert cli_fleet._size("20GiB") == Limits().keep_bytes
    for text in ("20", "much", "1MiB"):
        with pytest.raises(ConfigError, match="--examples-keep"):
            cli_fleet._size(text)
