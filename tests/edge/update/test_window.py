"""A device begins with a bundle only within its window, by its own clock, whatever that clock does."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.messages import DesiredState, utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.config.types import UpdateConfig
from tinysight_edge.store import Store
from tinysight_edge.units import Seconds
from tinysight_edge.update import selftest, sources
from tinysight_edge.update import update as decide
from tinysight_edge.update import updater as updates
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.update import State
from tinysight_edge.update.updater import Updater
from tinysight_edge.update.window import AT_ONCE, MOST_S, UNSET, Hours, Opening, opens_at
from tinysight_edge.update.wish import Wish, answer

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [UTC, BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns"), ZoneInfo("Asia/Kathmandu")]
MINUTE = timedelta(minutes=1)


def at(text: str, zone: tzinfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold)


def is_open(window: str, now: datetime, zone: tzinfo) -> bool:
    """The obvious way: what the clock on the wall shows, as text."""
    shown, (begin, end) = f"{now.astimezone(zone):%H:%M}", window.split("-")
    return begin <= shown < end if begin < end else shown >= begin or shown < end


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        pytest.param("01:00-05:00", at("2026-12-01 00:59:59"), at("2026-12-01 01:00"), id="before"),
        pytest.param("01:00-05:00", at("2026-12-01 01:00"), None, id="its first moment"),
        pytest.param("01:00-05:00", at("2026-12-01 04:59:59.999"), None, id="its last moment"),
        pytest.param("01:00-05:00", at("2026-12-01 05:00"), at("2026-12-02 01:00"), id="after"),
        pytest.param("22:00-04:00", at("2026-12-01 23:30"), None, id="over midnight, before it"),
        pytest.param("22:00-04:00", at("2026-12-01 03:30"), None, id="over midnight, after it"),
        pytest.param("22:00-04:00", at("2026-12-01 12:00"), at("2026-12-01 22:00"), id="over midnight, by day"),
        pytest.param("00:00-00:01", at("2026-12-31 12:00"), at("2027-01-01 00:00"), id="the next year"),
        pytest.param("03:00-03:00", at("2026-12-01 12:00"), None, id="all day"),
        # On 2027-03-28 the clock goes from 02:00 to 03:00, on 2026-10-25 from 03:00 back to 02:00.
        pytest.param("01:00-05:00", at("2027-03-27 12:00"), at("2027-03-28 01:00"), id="a short night"),
        pytest.param("02:30-05:00", at("2027-03-28 00:00"), at("2027-03-28 03:00"), id="its beginning is left out"),
        pytest.param("02:00-03:00", at("2027-03-27 12:00"), at("2027-03-29 02:00"), id="it is left out"),
        pytest.param("02:15-02:45", at("2026-10-25 02:30"), None, id="twice, the first time"),
        pytest.param("02:15-02:45", at("2026-10-25 02:50"), at("2026-10-25 02:15", fold=1), id="twice, between"),
        pytest.param("02:15-02:45", at("2026-10-25 02:30", fold=1), None, id="twice, the second time"),
        pytest.param("02:15-02:45", at("2026-10-25 02:50", fold=1), at("2026-10-26 02:15"), id="twice, after"),
        pytest.param("00:00-23:59", at("2026-10-25 23:59"), at("2026-10-26 00:00"), id="a minute a day"),
    ],
)
def test_when_a_window_is_open(window: str, now: datetime, opens: datetime | None) -> None:
    assert opens_at(window, now, BERLIN) == (None if opens is None else opens.astimezone(UTC))


CLOCK = st.tuples(st.integers(0, 23), st.sampled_from([0, 1, 15, 29, 30, 59])).map(lambda t: f"{t[0]:02}:{t[1]:02}")
CHANGES = [at("2027-03-28 03:00"), at("2026-10-25 02:30"), at("2027-04-04 02:00", ZONES[2]), at("2026-12-01 12:00")]


@given(
    begin=CLOCK, end=CLOCK, zone=st.sampled_from(ZONES), near=st.sampled_from(CHANGES), minutes=st.integers(-1800, 1800)
)
def test_it_opens_at_the_first_minute_that_the_clock_on_the_wall_shows_within_it(
    begin: str, end: str, zone: tzinfo, near: datetime, minutes: int
) -> None:
    window, now = f"{begin}-{end}", near.astimezone(UTC) + minutes * MINUTE
    opens = opens_at(window, now, zone)
    if opens is None:
        assert is_open(window, now, zone)
        return
    assert not is_open(window, now, zone)
    assert now < opens <= now + timedelta(hours=49)
    assert is_open(window, opens, zone)
    steps = (now + each * MINUTE for each in range(int((opens - now) / MINUTE)))
    assert not any(is_open(window, each, zone) for each in steps)


def test_without_a_zone_the_systems_counts() -> None:
    now = utc_now()
    local = now.astimezone()
    shown = f"{local:%H:%M}-{local + 2 * MINUTE:%H:%M}"
    assert opens_at(shown, now) is None
    later = local + timedelta(hours=3)
    opens = opens_at(f"{later:%H:%M}-{later + MINUTE:%H:%M}", now)
    assert opens is not None
    assert timedelta() < opens - now <= timedelta(hours=4)


class Time:
    """A device's two clocks."""

    def __init__(self, now: datetime, *, synced: bool | None = True) -> None:
        self.now, self.passed_s, self.synced = now, 0.0, synced
        self.hours = Hours(lambda: self.synced, clock=lambda: self.passed_s, now=lambda: self.now, zone=BERLIN)

    def passes(self, seconds: float, *, clock: float = 1.0) -> Opening:
        self.passed_s += seconds
        self.now += timedelta(seconds=seconds * clock)
        return self.hours.opening("b" * 64, "01:00-05:00")


def test_it_waits_until_the_window_opens_and_says_until_when() -> None:
    device = Time(at("2026-12-01 12:00"))
    opening = device.passes(0)
    assert opening.due_at == at("2026-12-02 01:00")
    assert "01:00 to 05:00" in opening.why
    assert device.passes(3600) == opening, "what is told does not change with every look"
    assert device.passes(12 * 3600) == AT_ONCE
    assert device.passes(4 * 3600).due_at == at("2026-12-03 01:00")
    assert device.hours.opening("b" * 64, None) == AT_ONCE


@pytest.mark.parametrize("synced", [None, False])
def test_a_clock_that_nobody_has_set_holds_nothing_back_for_ever(
    synced: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    device = Time(at("2026-12-01 12:00"), synced=synced)
    assert device.passes(0).due_at is not None
    assert device.passes(MOST_S - 1, clock=0.0).due_at is not None, "it stands still"
    for _ in range(3):
        assert device.passes(1, clock=0.0) == Opening(why=UNSET)
    assert caplog.text.count(UNSET) == 1
    assert device.hours.opening("c" * 64, "01:00-05:00").due_at is not None, "another one waits anew"


def test_a_clock_that_is_right_is_waited_for_however_long() -> None:
    device = Time(at("2026-12-01 12:00"))
    device.passes(0)
    assert device.passes(10 * MOST_S, clock=0.0).due_at is not None
    device.synced = None
    assert device.passes(1, clock=0.0) == Opening(why=UNSET)


def test_a_clock_that_is_put_right_meanwhile_counts_at_once() -> None:
    device = Time(at("1970-01-01 12:00"), synced=False)
    assert device.passes(60).due_at == at("1970-01-02 01:00")
    device.now, device.synced = at("2026-12-01 02:00"), True
    assert device.passes(1) == AT_ONCE


NOW = utc_now()
NEW = Release(target="a/a-2.bundle", digest="2" * 64, size_bytes=1, name="a", version="2", release=2)
CLOSED = Opening(NOW, "It waits.")
COMING = Update(target=NEW.target, bundle=NEW, state=UpdateState.TRIAL, at=NOW)


def tried(code: Code) -> Update:
    return Update(target=NEW.target, state=UpdateState.FAILED, at=NOW, code=code, reason="so it is")


@pytest.mark.parametrize(
    ("state", "before", "became", "waits"),
    [
        pytest.param(State(), None, DesiredState.WAITING, True, id="new"),
        pytest.param(State(), tried(Code.UNREACHABLE), DesiredState.WAITING, True, id="not reached before"),
        pytest.param(State(), tried(Code.EXPIRED), DesiredState.REFUSED, False, id="refused before"),
        pytest.param(State(active=NEW), None, DesiredState.APPLIED, False, id="it runs"),
        pytest.param(
            State(candidate=replace(COMING, state=UpdateState.DOWNLOADING)), None, DesiredState.WAITING, True,
            id="half of it is here",
        ),
        pytest.param(
            State(candidate=replace(COMING, state=UpdateState.VERIFIED)), None, DesiredState.WAITING, True, id="here"
        ),
        pytest.param(State(candidate=COMING), None, DesiredState.WAITING, True, id="to be tried"),
        pytest.param(State(candidate=replace(COMING, attempts=1)), None, DesiredState.TRIAL, False, id="tried"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_wish_outside_of_its_window(
    state: State, before: Update | None, became: DesiredState, waits: bool
) -> None:
    found = answer(Wish(NEW.digest, NEW.target, "01:00-05:00"), state, repository="r", tried=before, opening=CLOSED)
    assert (found.state, found.fetch, found.due_at) == (became, False, NOW if waits else None)
    assert ("It waits." in found.reason) == waits


def test_that_a_window_is_not_waited_for_is_said() -> None:
    wish, opening = Wish(NEW.digest, NEW.target, "01:00-05:00"), Opening(why=UNSET)
    for state in (State(), State(candidate=COMING), State(candidate=replace(COMING, state=UpdateState.VERIFIED))):
        found = answer(wish, state, repository="r", opening=opening)
        assert UNSET in found.reason
        assert found.due_at is None
    assert answer(wish, State(), repository="r", opening=opening).fetch


# With a real store and a real repository.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Of the device, which stands still until somebody moves it."""
    device = Time(at("2026-12-01 12:00"))
    monkeypatch.setattr(updates, "Hours", partial(Hours, now=lambda: device.now, zone=BERLIN))
    return device


@pytest.fixture
def wish(player: Any, store: Store, belt_repo: Path, belt_bundle: Path) -> Wish:
    """For the released bundle, at night."""
    player.config = replace(player.config, update=UpdateConfig(repository=str(belt_repo), trial=Seconds(0.2)))
    (store.trust / "root.json").write_bytes((belt_repo / "metadata" / "1.root.json").read_bytes())
    return Wish(Bundle.open(belt_bundle).digest, "belt/belt-1.0.0.bundle", "01:00-05:00")


def few_looks(player: Any, eventually: Any) -> None:
    """Wait until the updates have looked around a few times."""
    before = player.looks
    eventually(lambda: player.looks > before + 3)


def test_nothing_is_asked_of_the_repository_before_the_window_opens(
    player: Any, store: Store, clock: Time, wish: Wish, start: Callable[[], Updater], eventually: Any
) -> None:
    player.wish = wish
    start()
    eventually(lambda: player.answers and player.answers[-1].state is DesiredState.WAITING)
    first = player.answers[-1]
    assert first.due_at == at("2026-12-02 01:00")
    clock.now = at("2026-12-02 00:59")
    few_looks(player, eventually)
    assert player.answers == [first], "said once"
    assert not (store.trust / "metadata").exists() or not list((store.trust / "metadata").iterdir())
    clock.now = at("2026-12-02 01:00")
    eventually(lambda: player.answers[-1].state is DesiredState.APPLIED)
    assert player.answers[-1].due_at is None


def test_a_download_is_broken_off_when_the_window_ends_and_goes_on_in_the_next(
    player: Any, store: Store, clock: Time, raw_of: Callable[[str], bytes], simulator: ModuleType,
    start: Callable[[], Updater], eventually: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    repository = simulator.Repository("belt", now=utc_now())
    target, raw = "belt/belt-2.0.0.bundle", raw_of("2.0.0")
    repository.add(target, raw, release=2)
    repository.publish()
    (store.trust / "root.json").write_bytes(repository.files["metadata/1.root.json"])
    have: list[int] = []

    class Slow:
        """Brings half a bundle until five in the morning."""

        name = repository.name
        read = staticmethod(repository.read)

        def fetch(self, path: str, to: Path, *, size: int, disk: Disk, tell: Callable[[int], None], **_: Any) -> None:
            have.append(to.stat().st_size if to.exists() else 0)
            new = repository.read(path, size)[have[-1] :][: size // 2 + 1]
            disk.append(to, new)
            clock.now = clock.now.replace(hour=5)
            tell(len(new))
            disk.sync(to)

    monkeypatch.setattr(sources, "open_source", lambda *_, **__: Slow())
    clock.now = at("2026-12-02 01:00")
    player.config = replace(player.config, update=UpdateConfig(repository="somewhere", trial=Seconds(0.2)))
    player.wish = Wish(Bundle.parse(raw, source="2").digest, target, "01:00-05:00")
    start()
    eventually(lambda: player.answers and player.answers[-1].due_at == at("2026-12-03 01:00"))
    assert have == [0]
    clock.now = at("2026-12-03 01:00")
    eventually(lambda: len(have) == 2)
    assert have[1] == len(raw) // 2 + 1, "what is here is kept"


def test_another_window_is_no_other_wish_and_counts_at_once(
    player: Any, clock: Time, wish: Wish, start: Callable[[], Updater], eventually: Any
) -> None:
    assert clock.now == at("2026-12-01 12:00")
    player.wish = wish
    start()
    eventually(lambda: player.answers and player.answers[-1].due_at is not None)
    player.wish = Wish(wish.digest, wish.target, "11:00-13:00")
    assert player.wish == wish
    eventually(lambda: player.answers[-1].state is DesiredState.APPLIED)


def test_a_trial_that_has_begun_is_finished_and_one_that_has_not_waits(
    player: Any, store: Store, clock: Time, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(3600), repository="nowhere"))
    second = put("2.0.0")
    player.wish = Wish(second.digest, second.target, "01:00-05:00")
    start()
    eventually(lambda: player.answers and player.answers[-1].due_at == at("2026-12-02 01:00"))
    assert player.loads == []
    clock.now = at("2026-12-02 04:59")
    eventually(lambda: player.seer.bundle.manifest.version == "2.0.0")
    clock.now = at("2026-12-02 05:00")
    few_looks(player, eventually)
    assert player.answers[-1].state is DesiredState.TRIAL
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(0.1)))
    assert store.state().candidate is not None


def test_what_a_person_flashes_waits_for_no_window(
    player: Any, store: Store, clock: Time, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(0.2), repository="nowhere"))
    player.wish = Wish("c" * 64, "belt/belt-3.0.0.bundle", "01:00-05:00")
    second = put("2.0.0")
    start()
    eventually(lambda: (active := store.state().active) and active == second)
    assert clock.now == at("2026-12-01 12:00")
    assert player.answers[-1].due_at == at("2026-12-02 01:00")


def test_a_self_test_is_not_begun_outside_of_the_window(
    player: Any, store: Store, clock: Time, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    tests: list[Path] = []

    def passed(bundle: Path, **_: Any) -> selftest.Verdict:
        tests.append(bundle)
        return selftest.Verdict()

    monkeypatch.setattr(selftest, "run_selftest", passed)
    second = put("2.0.0")
    with store.alone():
        store.save(decide.progress(store.state(), utc_now(), UpdateState.VERIFIED))
    player.wish = Wish(second.digest, second.target, "01:00-05:00")
    start()
    few_looks(player, eventually)
    assert tests == []
    assert player.answers[-1].due_at == at("2026-12-02 01:00")
    clock.now = at("2026-12-02 01:00")
    eventually(lambda: (active := store.state().active) and active == second)
    assert tests == [store.path(second.digest)]
