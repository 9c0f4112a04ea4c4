"""What is kept is kept, whole or not at all, on both kinds of database: whatever dies, fills up or goes away."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, FleetError, StateGone
from tinysight_deploy.fleet.keeping import state as state_module
from tinysight_deploy.fleet.keeping import tables
from tinysight_deploy.fleet.keeping.audit import verify
from tinysight_deploy.fleet.keeping.mirror import replay
from tinysight_deploy.fleet.keeping.state import Boxed, Lead, Role, State, Token
from tinysight_deploy.fleet.types import Outcome, Phase, Rollout, Wish

MakeRollout = Callable[..., Rollout]
MakeWishes = Callable[..., list[Wish]]
Open = Callable[..., State]
KEY = ("plant-1", "belt-0")


def leading(state: State) -> Lead:
    lead = state.lead("one", now_s=0.0)
    assert lead is not None
    return lead


def paused(rollout: Rollout) -> Rollout:
    return replace(rollout, phase=Phase.PAUSED)


def test_what_is_written_is_read_by_others(
    state: State, open_state: Open, make_rollout: MakeRollout, make_wishes: MakeWishes
) -> None:
    first, second = make_rollout("belt-1"), make_rollout("a-belt-2", reverts="belt-1", reason="größer 'x' \\ \x00")
    lead = leading(state)
    for each in (first, second):
        state.begin(each, who="ann")
    wishes = make_wishes(3)
    state.ask("belt-1", wishes, lead=lead)
    settled = [replace(wishes[0], outcome=Outcome.CONFIRMED, reached_s=2.0, settled_s=9.5)]
    state.settle("belt-1", settled, lead=lead)
    box = Boxed(until=datetime(2026, 11, 27, tzinfo=UTC), times=2, reason="silent")
    state.settle("belt-1", [], boxes={KEY: box}, lead=lead)
    state.tick({"belt-1": 77.25, "gone": 5.0}, lead=lead)
    other = open_state()
    assert other.rollouts() == [replace(first, clock_s=77.25), second]
    assert other.rollouts(skip={"belt-1"}) == [second]
    assert other.rollout("a-belt-2") == second
    assert other.wishes("belt-1") == {wish.key: wish for wish in [*settled, *wishes[1:]]}
    assert other.wishes("a-belt-2") == {}
    assert other.boxed() == {KEY: box}
    state.settle("belt-1", [], boxes={KEY: replace(box, times=3)}, lead=lead)
    assert other.boxed() == {KEY: replace(box, times=3)}
    state.settle("belt-1", [], boxes={KEY: None}, lead=lead)
    assert other.boxed() == {}
    words = ["lead", "begin", "begin", "ask", "settle", "settle", "settle"]
    assert [entry.what for entry in other.audit()] == words


def test_a_change_sees_the_rollout_as_it_is_now_and_is_told(
    state: State, open_state: Open, make_rollout: MakeRollout
) -> None:
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    state.tick({"belt-1": 12.0}, lead=lead)
    open_state().change("belt-1", paused, who="bob", what="pause", detail={"reason": "lunch"})

    def raise_stage(rollout: Rollout) -> Rollout:
        assert (rollout.phase, rollout.clock_s) == (Phase.PAUSED, 12.0)
        return replace(rollout, stage=1, opened_s=rollout.clock_s)

    assert state.change("belt-1", raise_stage, who="one", what="stage", lead=lead).stage == 1
    pause, stage = state.audit(after=2)
    assert (pause.who, pause.what) == ("bob", "pause")
    assert pause.detail == {"reason": "lunch", "rollout": "belt-1", "set": {"phase": "paused"}, "clock_s": 12.0}
    assert stage.detail["set"] == {"stage": 1, "opened_s": 12.0}


def test_what_cannot_be_changes_nothing(state: State, make_rollout: MakeRollout, make_wishes: MakeWishes) -> None:
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    state.ask("belt-1", make_wishes(2), lead=lead)
    before = state.rollouts(), state.wishes("belt-1"), state.audit()

    def broken(_rollout: Rollout) -> Rollout:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        state.change("belt-1", broken, who="ann", what="pause")
    for edit in (
        lambda old: replace(old, id="other"),
        lambda old: replace(old, stage=-1),
        lambda old: replace(old, reason="\ud800"),
    ):
        with pytest.raises(ConfigError):
            state.change("belt-1", edit, who="ann", what="pause")
    with pytest.raises(ConfigError, match="another id"):
        state.begin(make_rollout(), who="ann")
    with pytest.raises(FleetError, match=r"plant-1/belt-1 was asked in belt-1 before"):
        state.ask("belt-1", make_wishes(2, first=1), lead=lead)
    with pytest.raises(FleetError, match="named twice"):
        state.ask("belt-1", make_wishes(1, first=7) * 2, lead=lead)
    with pytest.raises(ConfigError, match="regex"):
        state.ask("belt-1", make_wishes(1, first=7, site="Plant 1"), lead=lead)
    with pytest.raises(FleetError, match="was not asked"):
        state.settle("belt-1", make_wishes(2, first=1), lead=lead)
    for name in ("other", "x" * 10_000, "'; DROP TABLE fleet_rollout; --"):
        for call in (
            lambda name=name: state.rollout(name),
            lambda name=name: state.ask(name, make_wishes(1), lead=lead),
            lambda name=name: state.change(name, paused, who="ann", what="pause"),
        ):
            with pytest.raises(ConfigError, match="There is no rollout"):
                call()
    state.ask("other", [], lead=lead)
    state.settle("other", [], lead=lead)
    state.tick({"belt-1": -5.0}, lead=lead)
    assert (state.rollouts(), state.wishes("belt-1"), state.audit()) == before


def test_who_pauses_is_faster_than_who_asks(state: State, make_rollout: MakeRollout, make_wishes: MakeWishes) -> None:
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    state.change("belt-1", paused, who="ann", what="pause")
    with pytest.raises(FleetError, match="belt-1 is paused"):
        state.ask("belt-1", make_wishes(1), lead=lead)
    assert state.wishes("belt-1") == {}


def test_ten_thousand_are_asked_in_one_call_and_told_in_bounded_entries(
    state: State, make_rollout: MakeRollout, make_wishes: MakeWishes
) -> None:
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    wishes = make_wishes(10_000)
    state.ask("belt-1", wishes, lead=lead)
    told = [entry.detail["wishes"] for entry in state.audit() if entry.what == "ask"]
    assert [len(each) for each in told] == [1000] * 10
    assert told[9][-1] == {
        "site": "plant-1", "device": "belt-9999", "stage": 0, "revision": 3, "sent_s": 1.5, "before": "cd" * 32
    }  # fmt: skip
    state.settle("belt-1", (replace(wish, outcome=Outcome.GOING) for wish in wishes), lead=lead)
    assert {wish.outcome for wish in state.wishes("belt-1").values()} == {Outcome.GOING}
    assert [entry.what for entry in state.audit(after=12)] == []
    boxes = {wish.key: Boxed(until=datetime(2026, 11, 27, tzinfo=UTC)) for wish in wishes}
    state.settle("belt-1", (replace(wish, outcome=Outcome.FAILED) for wish in wishes), boxes=boxes, lead=lead)
    told = [(len(entry.detail["failing"]), len(entry.detail["boxes"])) for entry in state.audit(after=12)]
    assert told == [(1000, 1000)] * 10
    assert state.boxed() == boxes


def test_limits_hold_and_what_has_ended_makes_room(
    state: State, make_rollout: MakeRollout, make_wishes: MakeWishes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "MAX_ROLLOUTS", 3)
    monkeypatch.setattr(state_module, "MAX_WISHES", 4)
    lead = leading(state)
    for number in range(3):
        state.begin(make_rollout(f"belt-{number}"), who="ann")
    state.ask("belt-1", make_wishes(3), lead=lead)
    with pytest.raises(FleetError, match="smaller groups"):
        state.ask("belt-1", make_wishes(2, first=5), lead=lead)
    with pytest.raises(FleetError, match="Abort those"):
        state.begin(make_rollout("belt-3"), who="ann")
    state.change("belt-1", lambda old: replace(old, phase=Phase.DONE), who="ann", what="done")
    state.begin(make_rollout("belt-3"), who="ann")
    assert [each.id for each in state.rollouts()] == ["belt-0", "belt-2", "belt-3"]
    assert state.wishes("belt-1") == {}
    assert state.audit()[-1].detail["forgot"] == "belt-1"
    remade = replay(state.audit())
    assert [each for _, each in remade.rollouts.values()] == state.rollouts()
    assert "belt-1" not in remade.wishes


def test_tokens_are_shown_once_and_kept_as_hashes(state: State, state_url: str) -> None:
    text = state.add_token("ann@example.com", Role.OPERATE, who="root")
    device = state.add_token("belt-7", Role.DEVICE, site="plant-1", device="belt-7")
    assert state.find_token(text) == Token(name="ann@example.com", role=Role.OPERATE)
    assert state.find_token(device) == Token(name="belt-7", role=Role.DEVICE, site="plant-1", device="belt-7")
    for wrong in ("", text[:-1], text + "x", text.upper(), "é", "x" * 100_000, "' OR 1=1 --"):
        assert state.find_token(wrong) is None
    for name, role, more in (
        ("belt-7", Role.READ, {}),
        ("x", Role.DEVICE, {}),
        ("x", Role.DEVICE, {"site": "plant-1"}),
        ("x", Role.READ, {"site": "plant-1", "device": "belt-7"}),
        ("", Role.READ, {}),
        ("a b", Role.READ, {}),
        ("x", Role.DEVICE, {"site": "../..", "device": "belt-7"}),
    ):
        with pytest.raises(ConfigError):
            state.add_token(name, role, **more)
    state.drop_token("ann@example.com", who="root")
    with pytest.raises(ConfigError, match="There is no token"):
        state.drop_token("ann@example.com")
    assert state.find_token(text) is None
    assert [token.name for token in state.tokens()] == ["belt-7"]
    assert [entry.what for entry in state.audit()] == ["token", "token", "token-dropped"]
    everything = b"".join(state.lines())
    assert text.encode() not in everything
    if not state_url.startswith("postgresql"):
        state.close()
        assert text.encode() not in Path(state_url).read_bytes()


def test_the_file_is_its_owners_alone(tmp_path: Path, make_rollout: MakeRollout) -> None:
    state = State(tmp_path / "new" / "fleet.db")
    state.begin(make_rollout(), who="ann")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    assert modes == {"fleet.db": 0o600, "fleet.db-wal": 0o600, "fleet.db-shm": 0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    with sqlite3.connect(tmp_path / "new" / "fleet.db") as raw:
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    raw.close()
    state.close()


@pytest.mark.parametrize(
    "url", ["", "/", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "postgresql://[::1", "http://example.com/x"]
)
def test_what_is_no_state_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://"):
        State(url)


def test_a_password_is_in_no_message() -> None:
    state = State("postgresql://ann:hush@127.0.0.1:1/fleet")
    with pytest.raises(StateGone, match=r"postgresql\+psycopg://ann:\*\*\*@127\.0\.0\.1:1/fleet") as caught:
        state.rollouts()
    assert "hush" not in str(caught.value)
    assert "Start the database" in caught.value.mend


def test_a_state_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StateGone, match="There is no fleet state"):
        State(tmp_path / "fleet.db", make=False).rollouts()
    assert list(tmp_path.iterdir()) == []


def test_a_newer_schema_is_left_alone(state: State, open_state: Open, state_url: str) -> None:
    state.rollouts()
    engine = sa.create_engine(
        state_url.replace("postgresql:", "postgresql+psycopg:") if ":" in state_url else f"sqlite:///{state_url}"
    )
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE fleet_schema SET version = 2")
    engine.dispose()
    for other in (state, open_state()):
        with pytest.raises(FleetError, match=r"version 2.*Update TinySight"):
            other.note("ann", "remark")
    with pytest.raises(FleetError, match="version 2"):
        open_state().rollouts()


def test_threads_write_without_gaps(state: State, make_rollout: MakeRollout) -> None:
    state.begin(make_rollout(), who="ann")

    def work(name: str) -> None:
        for _ in range(10):
            state.change("belt-1", lambda old: replace(old, size_bytes=old.size_bytes + 1), who=name, what="count")
            state.rollouts()

    threads = [threading.Thread(target=work, args=(f"thread-{number}",)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert state.rollout("belt-1").size_bytes == 1040
    assert [entry.seq for entry in state.audit()] == list(range(1, 42))
    assert verify(state.audit())[1] is None


def test_many_may_begin_with_an_empty_place_at_once(open_state: Open, make_rollout: MakeRollout) -> None:
    together = threading.Barrier(6)
    states = [open_state() for _ in range(6)]
    failed: list[BaseException] = []

    def work(number: int) -> None:
        together.wait()
        try:
            states[number].begin(make_rollout(f"belt-{number}"), who="ann")
        except FleetError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert len(states[0].rollouts()) == 6


def test_a_writer_that_hangs_keeps_others_out_for_a_while_only(
    postgres: Any, make_rollout: MakeRollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LONGEST_S", 1)
    url = postgres.database()
    hangs, other = State(url), State(url)
    hangs.begin(make_rollout(), who="ann")
    inside, over = threading.Event(), threading.Event()

    def hang(rollout: Rollout) -> Rollout:
        inside.set()
        assert over.wait(30)
        return paused(rollout)

    def work() -> None:
        with pytest.raises(StateGone):
            hangs.change("belt-1", hang, who="ann", what="pause")

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    other.change("belt-1", lambda old: replace(old, stage=1), who="bob", what="stage")
    over.set()
    thread.join()
    assert other.rollouts() == [make_rollout(stage=1)]
    assert hangs.rollouts() == other.rollouts()
    hangs.close()
    other.close()


def test_a_process_killed_at_any_step_leaves_all_or_nothing(state_url: str, open_state: Open) -> None:
    """``dying.py`` has each child killed one statement later than the one before, and looks at what is left."""
    script = Path(__file__).with_name("dying.py")
    done = subprocess.run(
        [sys.executable, str(script), state_url], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    deaths = int(done.stdout)
    assert deaths > 25
    assert verify(open_state().audit())[1] is None


def test_a_full_disk_keeps_what_was_there_and_goes_on_with_room(
    tmp_path: Path, make_rollout: MakeRollout, make_wishes: MakeWishes, no_room: Any
) -> None:
    state = State(tmp_path / "fleet.db")
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    with no_room(0):
        with pytest.raises(StateGone, match="Free space") as caught:
            state.ask("belt-1", make_wishes(2000), lead=lead)
        assert str(tmp_path) in caught.value.what
        assert state.rollouts() == [make_rollout()]
        with pytest.raises(StateGone, match="cannot be"):
            State(tmp_path / "another.db").rollouts()
    assert state.wishes("belt-1") == {}
    state.ask("belt-1", make_wishes(2000), lead=lead)
    assert len(state.wishes("belt-1")) == 2000
    assert verify(state.audit())[1] is None
    state.close()


def test_without_rights_it_says_so(tmp_path: Path, make_rollout: MakeRollout) -> None:
    folder = tmp_path / "state"
    state = State(folder / "fleet.db")
    state.begin(make_rollout(), who="ann")
    state.close()
    root = os.geteuid() == 0
    folder.chmod(0o500)
    (folder / "fleet.db").chmod(0o400)
    if root:
        os.seteuid(65534)  # rights do not bind root
    try:
        with pytest.raises(StateGone, match=r"rights"):
            state.note("ann", "remark")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        (folder / "fleet.db").chmod(0o600)
    state.note("ann", "remark")
    assert len(state.audit()) == 2
    state.close()


def test_a_file_that_another_holds_is_told_and_used_again(
    tmp_path: Path, make_rollout: MakeRollout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "WAIT_S", 0.1)
    state = State(tmp_path / "fleet.db")
    state.begin(make_rollout(), who="ann")
    holder = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateGone, match="Find who holds it"):
        state.note("ann", "remark")
    assert state.rollouts() == [make_rollout()]
    holder.execute("ROLLBACK")
    holder.close()
    state.note("ann", "remark")
    state.close()


@pytest.mark.parametrize("part", ["head", "middle", "nothing"])
def test_a_damaged_file_is_no_empty_state(tmp_path: Path, make_rollout: MakeRollout, part: str) -> None:
    path = tmp_path / "fleet.db"
    state = State(path)
    for number in range(30):
        state.begin(make_rollout(f"belt-{number}"), who="ann")
    state.close()
    data = bytearray(path.read_bytes())
    if part == "head":
        data[:100] = os.urandom(100)
    elif part == "middle":
        data[4096:] = os.urandom(len(data) - 4096)
    else:
        data = bytearray(b"not at all a database, but long enough to look at" * 100)
    path.write_bytes(data)
    with pytest.raises(FleetError, match=r"tinysight audit rebuild") as caught:
        state.rollouts()
    assert not isinstance(caught.value, StateGone)


def test_a_file_that_goes_away_is_missed_and_one_that_comes_back_is_used(
    tmp_path: Path, make_rollout: MakeRollout
) -> None:
    state = State(tmp_path / "fleet.db")
    state.begin(make_rollout(), who="ann")
    state.close()
    shutil.copytree(tmp_path, tmp_path.with_name("backup"))
    state.note("ann", "after the backup")
    for path in tmp_path.iterdir():
        path.unlink()
    for call in (state.rollouts, lambda: state.note("ann", "remark"), lambda: state.lead("one", now_s=0.0)):
        with pytest.raises(StateGone, match="Bring the file back"):
            call()
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(tmp_path.with_name("backup"), tmp_path, dirs_exist_ok=True)
    assert [entry.what for entry in state.audit()] == ["begin"]
    state.close()


def test_a_server_that_went_away_is_told_and_used_again(postgres: Any, make_rollout: MakeRollout) -> None:
    state = State(postgres.database())
    state.begin(make_rollout(), who="ann")
    lead = leading(state)
    postgres.stop()
    try:
        for call in (
            state.rollouts,
            lambda: state.tick({"belt-1": 1.0}, lead=lead),
            lambda: state.lead("one", now_s=1.0),
        ):
            with pytest.raises(StateGone, match="Start the database"):
                call()
        with pytest.raises(StateGone):
            State(state.url.replace("+psycopg", "")).rollouts()
    finally:
        postgres.start()
    assert state.lead("one", now_s=2.0) == lead
    state.tick({"belt-1": 1.0}, lead=lead)
    assert state.rollouts() == [make_rollout(clock_s=1.0)]
    state.close()


def test_a_server_that_ends_in_the_middle_of_a_write_keeps_nothing_of_it(
    postgres: Any, make_rollout: MakeRollout
) -> None:
    state = State(postgres.database())
    state.begin(make_rollout(), who="ann")

    def stopped(rollout: Rollout) -> Rollout:
        postgres.stop()
        return paused(rollout)

    try:
        with pytest.raises(StateGone):
            state.change("belt-1", stopped, who="ann", what="pause")
    finally:
        postgres.start()
    assert state.rollouts() == [make_rollout()]
    assert len(state.audit()) == 1
    state.change("belt-1", paused, who="ann", what="pause")
    assert verify(state.audit())[1] is None
    state.close()
