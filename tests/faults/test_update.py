"""An update is cut short at every step of a disk that it changes: the device runs the old bundle or the new one.

Each act is something that happens to a store, good or bad. It is begun again and again, each time in a process of its
own that ends one step later than the one before. What is left then must boot, and the same act once more must come to
the same end as if nothing had happened.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState
from tinysight_edge.cli_store import collect, rollback
from tinysight_edge.store import Store
from tinysight_edge.update import sources, update
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.installer import Installer
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
        installer = Installer(store, machine=HERE)
        told = installer.install(FolderSource(self.shop.folder), self.releases[number].target)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tinysight_edge.update.selftest.run_selftest", lambda *_, **__: verdict or Verdict())
            told = installer.test() or told
        return trial(store, stands=stands) or told


def trial(store: Store, *, stands: bool = True) -> Update | None:
    """What the agent decides about a candidate, and when."""
    with store.alone():
        state = store.state()
        if state.candidate is None or state.candidate.state is not UpdateState.TRIAL:
            return None
        state = update.attempt(state, utc_now())
        store.save(state)
        if state.candidate is not None:
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


ACTS: Final = {
    "first install": Act("empty", lambda on, store: on.install(store, 1), 1, None),
    "update, whole": Act("two", lambda on, store: on.install(store, 4), 4, 2),
    "update, by difference": Act("two", lambda on, store: on.install(store, 3), 3, 2),
    "update, tampered with": Act("two", lambda on, store: on.install(store, 5), 2, 2, (Code.TAMPERED,)),
    "update, fails its self-test": Act(
        "two", lambda on, store: on.install(store, 4, verdict=WRONG), 2, 2, (Code.WRONG, Code.FAILED_BEFORE)
    ),
    "update, fails its trial": Act(
        "two", lambda on, store: on.install(store, 3, stands=False), 2, 2, (Code.DISAGREES, Code.FAILED_BEFORE)
    ),
    "a person goes back": Act("three", roll_back, 2, 3, (Code.OPERATOR,)),
    "collecting garbage": Act("littered", lambda _, store: collect(store=store.root), 2, 2),
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
    assert {path.name for path in (root / "bundles").iterdir()} == {f"{digest}.bundle" for digest in state.wanted}
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
    count_points(f"{name}: the process ends", points)
