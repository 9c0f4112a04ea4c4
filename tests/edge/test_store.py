"""The store runs the old bundle or the new one, whatever is damaged or stands in the way."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import pack_bundle
from tinysight_contract.errors import StoreError
from tinysight_contract.files import sha256_of
from tinysight_contract.manifest import Manifest
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Release, UpdateState
from tinysight_edge.store import Store
from tinysight_edge.update import update as u

Sample = Callable[..., tuple[Manifest, dict[str, bytes]]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def put(sample: Sample, store: Store) -> Callable[..., Release]:
    """Have a release's file in the store, and confirm it if wanted."""

    def make(number: int, *, active: bool = True, project: str = "pets") -> Release:
        raw = pack_bundle(*sample(release=number, version=f"{number}.0.0"))
        store.make()
        path = store.root / "new"
        path.write_bytes(raw)
        release = Release(
            target=f"{project}/pets-{number}.0.0.bundle",
            digest=sha256_of(path),
            size_bytes=len(raw),
            name="pets",
            version=f"{number}.0.0",
            release=number,
        )
        if not active:
            path.rename(store.path(release.digest))
        else:
            with store.alone():
                path.rename(store.path(release.digest))
                state = u.progress(u.queue(store.state(), release, utc_now()), utc_now(), UpdateState.VERIFIED)
                state = u.tested(u.attempt(state, utc_now()), {}, utc_now())
                store.save(state if state.candidate is None else u.confirm(state, {}, utc_now()))
                store.sweep(store.state())
        return release

    return make


def test_an_empty_store_says_how_to_fill_it_and_looking_changes_nothing(store: Store) -> None:
    for look in (store.active, store.boot):
        with pytest.raises(StoreError, match="tinysight flash"):
            look()
    assert store.state() == u.State()
    assert not store.is_run()
    assert not store.root.exists()


def test_the_active_one_and_the_one_before_are_kept_and_nothing_else(store: Store, put: Callable[..., Release]) -> None:
    kept = [put(number) for number in (1, 2, 3)]
    (store.root / "bundles" / f"{'0' * 64}.part").write_bytes(b"left")
    (store.root / ".state.json.part").write_bytes(b"left")
    store.sweep(store.state())
    assert store.boot().manifest.release == 3
    assert {path.stem for path in (store.root / "bundles").iterdir()} == {each.digest for each in kept[1:]}
    assert not list(store.root.glob(".*"))


def test_what_is_on_its_way_is_kept(store: Store, put: Callable[..., Release]) -> None:
    put(1)
    coming = put(2, active=False)
    store.path(coming.digest).rename(store.part(coming.digest))
    state = u.queue(store.state(), coming, utc_now())
    store.sweep(state)
    assert store.part(coming.digest).exists()
    store.sweep(store.state())
    assert not store.part(coming.digest).exists()


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 4000, b'{"schema":2}\nnot its sum\n'])
def test_a_damaged_state_is_read_from_its_copy(damage: bytes, store: Store, put: Callable[..., Release]) -> None:
    put(1)
    put(2)
    before = store.state()
    (store.root / "state.json").write_bytes(damage)
    assert store.state() == before
    (store.root / "state.json").unlink()
    assert store.state() == before


def test_one_flipped_bit_is_noticed(store: Store, put: Callable[..., Release]) -> None:
    put(1)
    before, raw = store.state(), (store.root / "state.json").read_bytes()
    for place in range(0, len(raw) - 1, 7):
        broken = bytearray(raw)
        broken[place] ^= 1
        (store.root / "state.json").write_bytes(broken)
        assert store.state() == before


def test_when_both_are_damaged_the_newest_whole_bundle_runs_and_no_older_one_is_taken(
    store: Store, put: Callable[..., Release]
) -> None:
    put(1)
    newest = put(2)
    for name in ("state.json", "state.last.json"):
        (store.root / name).write_bytes(b"rot")
    put(3, active=False)
    state = store.state()
    assert state.active == newest, "the third was never confirmed"
    assert state.floor == {"pets": 2}
    assert store.boot().digest == newest.digest


@pytest.mark.parametrize("noted", [True, False])
def test_when_both_are_gone_no_bundle_is_lost_and_the_project_stays_the_one_that_signed(
    noted: bool, store: Store, put: Callable[..., Release]
) -> None:
    kept = [put(number, project="garden") for number in (1, 2)]
    for path in (*store.root.glob("state*.json"), *([] if noted else (store.root / "bundles").glob("*.json"))):
        path.unlink()
    with store.alone():
        state = store.state()
    assert state.active is not None
    assert state.previous is not None
    assert [state.previous.digest, state.active.digest] == [each.digest for each in kept]
    assert state.floor == {"garden" if noted else "pets": 2}
    assert (store.root / "state.json").exists()


def test_what_a_person_left_is_not_what_runs_when_both_are_lost(store: Store, put: Callable[..., Release]) -> None:
    old, left = put(1), put(2)
    with store.alone():
        back = u.roll_back(store.state(), utc_now())
        assert back is not None
        store.save(back)
    for path in store.root.glob("state*.json"):
        path.unlink()
    state = store.state()
    assert (state.active, state.previous, state.floor) == (old, left, {"pets": 2})
    assert [each.digest for each in state.bad] == [left.digest]


def test_files_of_others_are_no_hindrance(store: Store, put: Callable[..., Release]) -> None:
    """Somebody who was root was cut between the two writes of the state, had a umask of his own, and took the lock."""
    put(1)
    for name in (".state.json.part", ".state.last.json.part", "lock"):
        path = store.root / name
        path.unlink(missing_ok=True)
        path.touch()
        path.chmod(0o444)
    before = os.umask(0o077)
    try:
        put(2)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in store.root.rglob("*.json")} == {0o644}
    assert store.boot().manifest.release == 2


def test_a_store_holds_three_bundles_one_part_and_one_difference_at_most(
    store: Store, put: Callable[..., Release]
) -> None:
    kept = [put(1), put(2), put(3, active=False)]
    for number in range(4, 9):
        put(number, active=False)
    for digest in (kept[-1].digest, "0" * 64, "1" * 64):
        for end in (".part", ".delta.part", ".tried.part"):
            store.part(digest).with_suffix(end).write_bytes(b"part")
    state = u.queue(store.state(), kept[-1], utc_now())
    store.sweep(state)
    there = sorted(path.name for path in (store.root / "bundles").iterdir() if path.suffix != ".json")
    bundles = [f"{each.digest}.bundle" for each in kept]
    assert there == sorted([*bundles, *(f"{kept[-1].digest}{end}" for end in (".part", ".delta.part", ".tried.part"))])


def test_the_state_of_a_newer_version_is_not_touched(store: Store, put: Callable[..., Release]) -> None:
    put(1)
    with store.alone():
        store.save(replace(store.state(), schema=u.SCHEMA + 1))
    with pytest.raises(StoreError, match="Update TinySight"):
        store.state()


def test_a_lost_active_file_means_the_one_before_and_that_is_told(store: Store, put: Callable[..., Release]) -> None:
    old, new = put(1), put(2)
    store.path(new.digest).write_bytes(b"rot")
    with pytest.raises(StoreError, match="Flash it again"):
        store.active()
    assert store.boot().digest == old.digest
    state = store.state()
    assert state.active == old
    assert state.last is not None
    assert (state.last.state, state.last.code) == (UpdateState.ROLLED_BACK, Code.TAMPERED)
    store.path(old.digest).unlink()
    with pytest.raises(StoreError, match="Flash it again"):
        store.boot()


def test_a_read_only_store_still_starts(
    store: Store, put: Callable[..., Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = put(1), put(2)
    store.path(new.digest).write_bytes(b"rot")

    def refuse(*_arguments: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(store.disk, "replace", refuse)
    assert store.boot().digest == old.digest


def hold(root: str, name: str, ready: object, done: object) -> None:
    with getattr(Store(Path(root)), name)():
        ready.set()  # type: ignore[attr-defined]
        done.wait(20)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["alone", "run"])
def test_another_process_is_seen(name: str, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(str(store.root), name, ready, done))
    other.start()
    assert ready.wait(20)
    if name == "run":
        assert store.is_run()
        with store.alone(), store.run():
            assert store.is_run()
    else:
        with pytest.raises(StoreError, match="being written to"), store.alone():
            pass
        assert not store.is_run()
    done.set()
    other.join(20)
    assert not store.is_run()
    with store.alone():
        pass


def test_the_state_reads_well(store: Store, put: Callable[..., Release]) -> None:
    put(1)
    line = (store.root / "state.json").read_text().splitlines()[0]
    assert msgspec.json.decode(line)["active"]["name"] == "pets"
