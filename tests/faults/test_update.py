"""An update is cut short at every step of a disk that it changes: the device runs the old bundle or the new one.

Each act is something that happens to a store, good or bad. It is begun again and again, each time in a process of its
own that ends one step later than the one before. What is left then must boot, and the same act once more must come to
the same end as if nothing had happened.
"""

import contextlib
import errno
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

from tinysight_contract.errors import StoreError, UpdateError
from tinysight_contract.files import read_capped
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_edge.cli_store import collect, rollback
from tinysight_edge.store import Store
from tinysight_edge.update import sources, transfer, update
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.installer import UNTESTED, Installer
from tinysight_edge.update.selftest import Verdict
from tinysight_edge.update.signed import Machine
from tinysight_edge.update.sources import FolderSource
from tinysight_edge.update.trust import new_trust

HERE: Final = Machine(arch="x86_64", memory_mib=4096)
WRONG: Final = Verdict({"golden": Gate(value=1, limit=0, ok=False)}, Code.WRONG, "It answers otherwise.")


@dataclass(frozen=True)
class Stage:
    """What acts happen with.

    Attributes:
        shop: the repository.
        bases: by name, folders of stores to begin with.
        releases: by number; 1 and 2 run in turn before, 3 is released with its difference to 2, 4 without, 5 has a
            flipped byte.
    """

    shop: Any
    bases: Path
    releases: dict[int, Release]

    def install(self, store: Store, number: int, *, verdict: Verdict | None = None, stands: bool = True) -> Update:
        """What a device does about a release, from the wish to its end."""

        def selftest(*_: object, **__: object) -> Verdict:
            coming = store.state().candidate
            assert coming is not None
            assert (coming.state, coming.attempts > 0) == (UpdateState.SELFTEST, True), "counted before it begins"
            promise(store)
            return verdict or Verdict()

        installer = Installer(store, machine=HERE)
        told = installer.install(FolderSource(self.shop.folder), self.releases[number].target)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tinysight_edge.update.selftest.run_selftest", selftest)
            if told.state in UNTESTED:
                told = installer.test() or told
        return trial(store, stands=stands) or told


def promise(store: Store) -> None:
    """Something is about to happen that may take the power with it: what was decided must hold by now."""
    if (promised := getattr(store.disk, "promise", None)) is not None:
        promised(store.state())


def trial(store: Store, *, stands: bool = True) -> Update | None:
    """What the agent decides about a candidate, and when."""
    with store.alone():
        state = store.state()
        if state.candidate is None or state.candidate.state is not UpdateState.TRIAL:
            return None
        state = update.attempt(state, utc_now())
        store.save(state)
        if state.candidate is not None:
            promise(store)
            if stands:
                state = update.confirm(state, {}, utc_now())
            else:
                state = update.end(
                    state, utc_now(), UpdateState.ROLLED_BACK, code=Code.DISAGREES, reason="It sees otherwise."
                )
            store.save(state)
        store.sweep(state)
        return state.newest


@pytest.fixture(scope="module")
def stage(shops: Any, sample: Any, quick_module: Path) -> Stage:
    folder = quick_module
    shop = shops.Shop(folder / "repository")
    content = {number: shops.bundle_bytes(sample, number) for number in range(1, 6)}
    releases = {
        1: shop.add(content[1], 1),
        2: shop.add(content[2], 2),
        3: shop.add(content[3], 3, base=content[2]),
        4: shop.add(content[4], 4),
        5: shop.add(content[5], 5, content=content[5][:-5000] + b"!" + content[5][-4999:]),
    }
    bases = folder / "bases"
    made = Stage(shop, bases, releases)
    (bases / "bare").mkdir(parents=True)
    new_trust(bases / "empty" / "trust", shop.root, Disk())
    for name, before, number in (("one", "empty", 1), ("two", "one", 2), ("three", "two", 3)):
        shutil.copytree(bases / before, bases / name)
        assert made.install(Store(bases / name), number).state is UpdateState.CONFIRMED
    shutil.copytree(bases / "two", bases / "littered")
    for name in (f"{'0' * 64}.bundle", f"{'1' * 64}.part", f"{'2' * 64}.delta.part"):
        (bases / "littered" / "bundles" / name).write_bytes(b"left over")
    return made


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file comes in several steps although it is small."""
    monkeypatch.setattr(sources, "CHUNK_BYTES", 20_000)


@dataclass(frozen=True)
class Act:
    """Something that happens to a store.

    Attributes:
        base: what the store is before.
        do: it happens.
        runs: release that runs in the end; the one before, or this one, runs at any time.
        before: release that runs before; None for none.
        codes: what may be said of it in the end; when it was cut after its end, it is refused the next time.
    """

    base: str
    do: Callable[[Stage, Store], Any]
    runs: int
    before: int | None
    codes: tuple[Code | None, ...] = (None,)


def roll_back(_: Stage, store: Store) -> None:
    """A person goes back; who sees that it is done does not do it twice."""
    last = store.state().last
    if last is None or last.code is not Code.OPERATOR:
        rollback(store=store.root)
    else:
        collect(store=store.root)


def begin(on: Stage, store: Store) -> Any:
    """A device is given its root of trust, and takes in its first bundle."""
    try:
        new_trust(store.trust, on.shop.root, store.disk)
    except UpdateError as error:
        return error
    return on.install(store, 1)


def in_little_room(on: Stage, store: Store) -> Any:
    """There is room for the new one only once the bundle before the active one is gone."""

    def free_bytes(_: Disk, path: Path) -> int:
        used = sum(each.stat().st_size for each in (path / "bundles").iterdir())
        return transfer.RESERVE_BYTES + 5 * on.releases[4].size_bytes // 2 - used

    with mock.patch.object(Disk, "free_bytes", free_bytes):
        return on.install(store, 4)


ACTS: Final = {
    "first install": Act("bare", begin, 1, None),
    "whole update": Act("two", lambda on, store: on.install(store, 4), 4, 2),
    "update by difference": Act("two", lambda on, store: on.install(store, 3), 3, 2),
    "tampered update": Act("two", lambda on, store: on.install(store, 5), 2, 2, (Code.TAMPERED,)),
    "update that fails its self-test": Act(
        "two", lambda on, store: on.install(store, 4, verdict=WRONG), 2, 2, (Code.WRONG, Code.FAILED_BEFORE)
    ),
    "update that fails its trial": Act(
        "two", lambda on, store: on.install(store, 3, stands=False), 2, 2, (Code.DISAGREES, Code.FAILED_BEFORE)
    ),
    "way back by a person": Act("three", roll_back, 2, 3, (Code.OPERATOR,)),
    "update in little room": Act("two", in_little_room, 4, 2),
    "garbage collection": Act("littered", lambda _, store: collect(store=store.root), 2, 2),
}
acts = pytest.mark.parametrize("name", ACTS)


def check_boots(act: Act, on: Stage, root: Path) -> None:
    """Whatever was cut short: a verified bundle runs, the one from before or the one that is to be."""
    numbers = {act.runs, act.before} - {None}
    if act.before is None and Store(root).state().active is None:
        return  # it never ran anything
    assert Store(root).boot().digest in {on.releases[number].digest for number in numbers if number}


def check_end(act: Act, on: Stage, root: Path) -> None:
    """The end is the right one, and nothing is left over."""
    store = Store(root)
    state = store.state()
    assert store.boot().digest == on.releases[act.runs].digest
    assert state.candidate is None
    assert state.last is not None
    assert state.last.code in act.codes, state.last
    names = {path.name for path in (root / "bundles").iterdir()}
    assert names == {f"{digest}.{kind}" for digest in state.wanted for kind in ("bundle", "json")}
    assert [path for path in root.rglob("*") if path.suffix == ".part"] == []
    assert (root / "state.json").read_bytes() == (root / "state.last.json").read_bytes()
    floor = 1 if act.before is None else 3 if act.before == 3 else act.runs
    assert state.floor == {"pets": floor}
    if Code.FAILED_BEFORE in act.codes:
        assert [each.code for each in state.bad] == [act.codes[0]]


@acts
def test_cut_at_every_step_the_old_or_the_new_runs_and_the_next_try_comes_to_the_end(
    name: str, stage: Stage, disks: Any, quick: Path, count_points: Any
) -> None:
    act, points = ACTS[name], 0
    while True:
        root = quick / f"store-{points}"
        shutil.copytree(stage.bases / act.base, root)

        def cut(root: Path = root, at: int = points) -> None:
            with disks.through(disks.CrashingDisk(at)):
                act.do(stage, Store(root))

        status = disks.in_child(cut)
        assert status in {0, disks.CRASHED}, "it failed otherwise, see above"
        points += 1
        check_boots(act, stage, root)
        act.do(stage, Store(root))
        check_end(act, stage, root)
        shutil.rmtree(root)
        if status == 0:
            break
    count_points("an update's process ends at any step", name, points)


@acts
def test_power_lost_at_every_step_with_all_that_was_not_synced_the_old_or_the_new_runs(
    name: str, stage: Stage, disks: Any, quick: Path, count_points: Any
) -> None:
    """What is found then is worked out from what was written: each file system may lose it in its own way."""
    act, root = ACTS[name], quick / "store"
    shutil.copytree(stage.bases / act.base, root)
    card, noting = disks.Card.of(root), disks.NotingDisk()
    with disks.through(noting):
        act.do(stage, Store(root))
        promise(Store(root))
    seen, kept_promises = set(), 0
    for number, change in enumerate([None, *noting.changes]):
        if change is not None:
            card.change(change)
        for undone, lost in disks.CUTS.values():
            tree = card.cut(undone=undone, lost=lost)
            key = (number in noting.promises, *tree.items())
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(root)
            root.mkdir()
            disks.lay(tree)
            check_boots(act, stage, root)
            if (promised := noting.promises.get(number)) is not None:
                assert Store(root).state() == promised
                kept = {each.digest for each in (promised.active, promised.previous) if each is not None}
                assert all(Store(root).is_whole(digest) for digest in kept)
                kept_promises += 1
            act.do(stage, Store(root))
            check_end(act, stage, root)
    assert kept_promises >= len(noting.promises)
    count_points("the power goes at any step of an update", name, len(seen))


@acts
@pytest.mark.parametrize(
    ("fault", "full", "code"),
    [
        pytest.param("the disk is full from any step of an update on", True, Code.NO_SPACE, id="full"),
        pytest.param("the disk breaks at any step of an update", False, Code.DISK, id="broken"),
    ],
)
def test_a_disk_that_says_no_from_any_step_on_costs_the_update_and_nothing_else(
    name: str, fault: str, full: bool, code: Code, stage: Stage, disks: Any, quick: Path, count_points: Any
) -> None:
    act, points, said = ACTS[name], 0, 0
    while True:
        root = quick / f"store-{points}"
        shutil.copytree(stage.bases / act.base, root)
        disk = disks.RefusingDisk(points, full=full)
        points += 1
        with disks.through(disk):
            told = None
            with contextlib.suppress(OSError):  # the command tells it; the agent tries again, see its own tests
                told = act.do(stage, Store(root))
        assert told is None or told.code in {*act.codes, code, Code.NO_SPACE}  # what cannot be removed leaves no room
        said += told is not None and told.code is code
        check_boots(act, stage, root)
        act.do(stage, Store(root))
        check_end(act, stage, root)
        shutil.rmtree(root)
        if not disk.refused:
            break
    assert said > points / 2 or act.do in {roll_back, ACTS["garbage collection"].do}
    count_points(fault, name, points - 1)


def test_folders_that_were_made_are_there_after_a_power_cut(disks: Any, tmp_path: Path) -> None:
    card, noting, made = disks.Card.of(tmp_path), disks.NotingDisk(), tmp_path / "var" / "lib" / "store"
    noting.make_folder(made)
    for change in noting.changes:
        card.change(change)
    for undone, lost in disks.CUTS.values():
        assert made in card.cut(undone=undone, lost=lost)


def test_a_state_that_cannot_be_read_is_read_from_its_copy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    store, broken = Store(stage.bases / "two"), {"state.json"}
    expected = store.state()

    def read(path: Path, most: int) -> bytes:
        if path.name in broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read_capped(path, most)

    monkeypatch.setattr("tinysight_edge.store.read_capped", read)
    assert store.state() == expected
    broken.add("state.last.json")
    with pytest.raises(StoreError, match=r"state[.]json: Input/output error"):
        store.state()


@pytest.mark.parametrize("seed", range(12))
def test_cut_again_while_it_goes_on_from_a_cut_it_still_comes_to_the_end(
    seed: int, stage: Stage, disks: Any, quick: Path
) -> None:
    dice = random.Random(seed)
    act, root = ACTS[dice.choice(["whole update", "update by difference"])], quick / "store"
    shutil.copytree(stage.bases / act.base, root)
    for at in (dice.randrange(80), dice.randrange(60)):  # a third one in its self-test would end it

        def cut(at: int = at) -> None:
            with disks.through(disks.CrashingDisk(at)):
                act.do(stage, Store(root))

        assert disks.in_child(cut) in {0, disks.CRASHED}
        check_boots(act, stage, root)
    act.do(stage, Store(root))
    check_end(act, stage, root)


@pytest.mark.parametrize("state", [UpdateState.SELFTEST, UpdateState.TRIAL])
def test_asking_again_neither_gives_a_candidate_new_attempts_nor_ends_it_where_the_repository_is_away(
    state: UpdateState, stage: Stage, quick: Path
) -> None:
    root, target = quick / "store", stage.releases[4].target
    shutil.copytree(stage.bases / "two", root)
    store = Store(root)
    Installer(store, machine=HERE).install(FolderSource(stage.shop.folder), target)
    with store.alone():
        coming = store.state()
        if state is UpdateState.TRIAL:
            coming = update.tested(coming, {}, utc_now())
        for _ in range(2):
            coming = update.attempt(coming, utc_now())
        store.save(coming)
    assert coming.candidate is not None
    assert (coming.candidate.state, coming.candidate.attempts) == (state, 2)
    told = Installer(store, machine=HERE).install(FolderSource(stage.shop.folder), target)
    assert told == coming.candidate
    told = Installer(store, machine=HERE).install(FolderSource(root / "gone"), target)
    assert told.code is Code.UNREACHABLE
    assert store.state().candidate == coming.candidate
    assert store.state().active == stage.releases[2]


def coming(stage: Stage, root: Path, *, base: str = "two") -> Store:
    """A store in which release 4 waits for its self-test."""
    shutil.copytree(stage.bases / base, root)
    store = Store(root)
    told = Installer(store, machine=HERE).install(FolderSource(stage.shop.folder), stage.releases[4].target)
    assert told.state is UpdateState.VERIFIED
    return store


def tries(store: Store, selftest: Callable[..., Verdict]) -> Update | None:
    with mock.patch("tinysight_edge.update.selftest.run_selftest", selftest):
        return Installer(store, machine=HERE).test()


def test_what_is_not_its_fault_does_not_count_against_a_bundle(stage: Stage, quick: Path) -> None:
    """It is broken off, no process can be begun, or the disk does not take what was found."""
    store = coming(stage, quick / "store")

    def broken_off(*_: object, **__: object) -> Verdict:
        raise KeyboardInterrupt

    def no_process(*_: object, **__: object) -> Verdict:
        raise UpdateError("No process can be begun.", mend="Free some memory.", code=Code.MEMORY)

    for _ in range(update.MAX_ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            tries(store, broken_off)
        told = tries(store, no_process)
        assert told is not None
        assert told.code is Code.MEMORY
    counted = store.state().candidate
    assert counted is not None
    assert (counted.state, counted.attempts, store.state().bad) == (UpdateState.VERIFIED, 0, [])

    def passes_and_fills_the_disk(*_: object, **__: object) -> Verdict:
        setattr(store.disk, "replace", full)  # noqa: B010 -- a method, which the checker would not let go
        return Verdict()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    told = tries(store, passes_and_fills_the_disk)
    assert told is not None
    assert told.code is Code.NO_SPACE
    del store.disk.replace
    told = tries(store, no_process)
    assert told is not None
    assert told.state is UpdateState.TRIAL, "it is not tested again"


def test_a_file_that_rots_before_its_test_is_removed_and_may_come_again(stage: Stage, quick: Path) -> None:
    store, path = coming(stage, quick / "store"), Store(quick / "store").path(stage.releases[4].digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    told = tries(store, lambda *_, **__: Verdict())
    assert told is not None
    assert told.code is Code.TAMPERED
    assert not path.exists()
    assert store.state().bad == []
    assert stage.install(store, 4).state is UpdateState.CONFIRMED


def test_the_bundle_before_goes_only_if_that_makes_the_room(stage: Stage, quick: Path) -> None:
    root = quick / "store"
    shutil.copytree(stage.bases / "two", root)
    with mock.patch.object(Disk, "free_bytes", return_value=0):
        told = stage.install(Store(root), 4)
    assert told.code is Code.NO_SPACE
    assert Store(root).state().previous == stage.releases[1]


def test_a_way_back_does_not_wait_for_what_is_fetched_or_tested(stage: Stage, quick: Path) -> None:
    store = coming(stage, quick / "store")

    def goes_on(*_: object, heed: Callable[[], None], **__: object) -> Verdict:
        person = threading.Thread(target=rollback, kwargs={"store": store.root})
        person.start()
        try:
            while True:
                heed()
                time.sleep(0.01)
        finally:
            people.append(person)

    people: list[threading.Thread] = []
    told = tries(store, goes_on)
    people[0].join(30)
    assert told is not None
    assert told.code is Code.SUPERSEDED
    state = store.state()
    assert (state.active, state.candidate) == (stage.releases[1], None)
    assert [each.digest for each in state.bad] == [stage.releases[2].digest]
    assert not store.is_wanted_back()

    source, part = FolderSource(stage.shop.folder), store.part(stage.releases[4].digest)
    with store.wanted_back():
        told = Installer(store, machine=HERE).install(source, stage.releases[4].target)
    assert told.code is Code.SUPERSEDED
    assert not part.exists() or store.state().candidate is None


def test_what_is_active_asked_for_again_ends_the_trouble_before(stage: Stage, quick: Path) -> None:
    root = quick / "store"
    shutil.copytree(stage.bases / "two", root)
    assert stage.install(Store(root), 5).code is Code.TAMPERED
    assert stage.install(Store(root), 2).code is None
    last = Store(root).state().last
    assert last is not None
    assert (last.state, last.code) == (UpdateState.CONFIRMED, None)


@pytest.mark.parametrize("how", ["too little is free", "it is not enough", "it ends the process"])
def test_where_there_is_too_little_memory_for_a_difference_the_whole_file_comes(
    how: str, stage: Stage, quick: Path, disks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = quick / "store"
    shutil.copytree(stage.bases / "two", root)
    if how == "too little is free":
        monkeypatch.setattr(transfer, "free_mib", lambda: -1)
    elif how == "it is not enough":
        monkeypatch.setattr("tinysight_edge.update.delta.apply_delta", mock.Mock(side_effect=MemoryError))
    else:
        with mock.patch("tinysight_edge.update.delta.apply_delta", side_effect=lambda *_, **__: os._exit(9)):
            assert disks.in_child(lambda: stage.install(Store(root), 3)) == 9
    said = Installer(Store(root), machine=HERE).install(FolderSource(stage.shop.folder), stage.releases[3].target)
    assert (said.state, said.transfer) == (UpdateState.VERIFIED, "full")
    assert "memory" in said.why_full or "did not come to an end" in said.why_full
    assert list((root / "bundles").glob("*.part")) == []
