"""The log tells who did what, and any change of it is found; of its copy rollouts are made again."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, FleetError
from tinysight_deploy.cli import _run
from tinysight_deploy.fleet.keeping.audit import (
    MAX_LINE,
    ZEROS,
    Broken,
    Entry,
    examine,
    follow,
    line_of,
    read_line,
    verify,
)
from tinysight_deploy.fleet.keeping.mirror import Mirror, rebuild, replay
from tinysight_deploy.fleet.keeping.state import Boxed, Lead, Role, State
from tinysight_deploy.fleet.types import Outcome, Phase, Rollout, Wish

AT = datetime(2026, 11, 26, 9, 0, 0, 120_000, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
Open = Callable[..., State]


def written(*details: dict[str, Any]) -> list[Entry]:
    log: list[Entry] = []
    for detail in details:
        last = (log[-1].seq, log[-1].hash) if log else (0, ZEROS)
        log.append(follow(last, who="ann", what="remark", detail=detail, at=AT + timedelta(seconds=len(log))))
    return log


def text_of(log: list[Entry]) -> bytes:
    return b"".join(line_of(entry) + b"\n" for entry in log)


LOG = written({}, {"a": 1, "b": [1.5, None, True]}, {'é\u2028\x00"': "ü"}, {"x": {"y": 10**18}}, {"z": -0.0})
TEXT = text_of(LOG)


def pieces(data: bytes) -> list[bytes]:
    """Lines with their ends, as a file gives them."""
    return [part for part in re.split(rb"(?<=\n)", data) if part]


def test_a_log_is_whole_as_it_was_written() -> None:
    assert verify(LOG)[1] is None
    assert LOG[0].before == ZEROS
    assert verify(TEXT.splitlines()) == ((5, LOG[-1].hash), None)
    assert examine(pieces(TEXT), mirror=pieces(TEXT), head=LOG[2].hash).broken is None


def test_every_changed_byte_is_found_and_where() -> None:
    starts = [0]
    for line in pieces(TEXT):
        starts.append(starts[-1] + len(line))
    for place in range(len(TEXT)):
        number = sum(start <= place for start in starts)
        for bit in (0, 5, 7):
            changed = bytearray(TEXT)
            changed[place] ^= 1 << bit
            found = examine(pieces(bytes(changed)))
            assert found.broken is not None, (place, bit)
            assert found.broken.seq == found.entries + 1 == number, (place, bit)


@given(place=st.integers(0, len(TEXT) - 1), new=st.binary(max_size=3), taken=st.integers(0, 3))
def test_whatever_is_put_in_or_taken_out_is_found(place: int, new: bytes, taken: int) -> None:
    changed = TEXT[:place] + new + TEXT[place + taken :]
    found = examine(pieces(changed), head=LOG[-1].hash)
    assert (found.broken is None) == (changed == TEXT)


@given(st.dictionaries(st.text(), JSON, max_size=4), st.text(max_size=300), st.text(max_size=100))
def test_an_entry_survives_the_round_trip_and_is_always_sound(detail: dict[str, Any], who: str, what: str) -> None:
    try:
        entry = follow((0, ZEROS), who=who, what=what, detail=detail, at=AT)
    except ConfigError:
        assert re.search("[\ud800-\udfff]", repr(detail) + str(detail))
        return
    line = line_of(entry)
    assert b"\n" not in line
    assert read_line(line) == entry or "NaN" in repr(detail)
    assert verify([read_line(line)])[1] is None
    for text, most in ((entry.who, 100), (entry.what, 40)):
        assert 1 <= len(text) <= most
        assert text.isprintable()
        assert text == text.strip()


@pytest.mark.parametrize(
    ("log", "seq", "what"),
    [
        pytest.param([*LOG[:2], *LOG[3:]], 3, "Entry 4 stands where 3 belongs", id="one taken out"),
        pytest.param(LOG[1:], 1, "Entry 2 stands where 1 belongs", id="the first taken out"),
        pytest.param([*LOG[:2], LOG[1], *LOG[2:]], 3, "Entry 2 stands where 3 belongs", id="one twice"),
        pytest.param([LOG[0], replace(LOG[1], who="bob"), *LOG[2:]], 2, "not what was written", id="another person"),
        pytest.param(
            [LOG[0], *written({}, {"a": 2})[1:], *LOG[2:]], 3, "does not follow", id="written anew from there"
        ),
        pytest.param([replace(LOG[0], before="1" * 64)], 1, "does not follow", id="another beginning"),
    ],
)
def test_what_was_done_to_a_log_is_said(log: list[Entry], seq: int, what: str) -> None:
    broken = verify(log)[1]
    assert isinstance(broken, Broken)
    assert broken.seq == seq
    assert what in broken.what
    assert examine(pieces(text_of(log))).broken == broken


def test_a_log_that_was_cut_off_is_found_by_its_head_or_its_copy() -> None:
    short = pieces(text_of(LOG[:3]))
    assert examine(short).broken is None
    cut = examine(short, head=LOG[3].hash)
    assert cut.broken is not None
    assert "cut off" in cut.broken.what
    cut = examine(short, mirror=pieces(TEXT))
    assert (cut.entries, cut.broken) == (
        3,
        Broken(seq=4, what="Entry 4 is missing: the mirror has it. The log was cut off."),
    )
    assert examine(short, mirror=[*short, pieces(TEXT)[3][:-5]]).broken is None  # that line is torn, not known
    other = examine(pieces(TEXT), mirror=pieces(text_of(written({}, {"a": 2}))))
    assert other.broken == Broken(seq=2, what="Entry 2 is another one in the mirror.")
    assert examine([], head=ZEROS).broken is None


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[" * 100_000, b"x" * (MAX_LINE + 1), b"\xff", line_of(LOG[0]) + b" ", b'{"seq":1}', b"null"],
    ids=["empty", "no fields", "deep", "long", "no text", "a space", "one field", "null"],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(FleetError, match="tinysight audit verify"):
        read_line(line)


@pytest.mark.parametrize("detail", [{"x": object()}, {"x": "\ud800"}, {"x": "y" * MAX_LINE}])
def test_what_the_log_cannot_keep_is_refused_and_nothing_is_kept(state: State, detail: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        state.note("ann", "remark", detail)
    assert state.audit() == []


@pytest.mark.parametrize("what", ["ask", "begin", " settle\x00", "lead", "token", "rebuilt"])
def test_a_remark_cannot_pass_for_an_act(state: State, make_rollout: Callable[..., Rollout], what: str) -> None:
    state.begin(make_rollout(), who="ann")
    for call in (
        lambda: state.note("eve", what, {"rollout": "belt-1"}),
        lambda: state.note("eve", "remark", {"rollout": "belt-1", "set": {"phase": "done"}}),
        lambda: state.change("belt-1", lambda old: old, who="eve", what=what),
    ):
        with pytest.raises(ConfigError):
            call()
    assert len(state.audit()) == 1


def test_entries_come_in_pages(state: State) -> None:
    for number in range(7):
        state.note("ann\x1b[2J\u202e " + "n" * 200, "remark", {"number": number})
    log = state.audit()
    assert [entry.detail["number"] for entry in log] == list(range(7))
    assert [entry.seq for entry in state.audit(after=2, most=3)] == [3, 4, 5]
    assert state.audit(after=7) == state.audit(most=0) == state.audit(most=-5) == []
    assert log[0].who == "ann [2J " + "n" * 92
    assert verify(log)[1] is None


def raw(url: str) -> sa.Engine:
    return sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:") if ":" in url else f"sqlite:///{url}")


def test_the_database_itself_refuses_to_change_the_log(state: State, state_url: str) -> None:
    for number in range(3):
        state.note("ann", "remark", {"number": number})
    engine = raw(state_url)
    tries = [
        "UPDATE fleet_audit SET line = 'x' WHERE seq = 2",
        "DELETE FROM fleet_audit WHERE seq = 3",
        "DELETE FROM fleet_audit",
        "INSERT INTO fleet_audit (seq, line) VALUES (5, 'x')",
        "INSERT INTO fleet_audit (seq, line) VALUES (2, 'x')",
        "INSERT OR REPLACE INTO fleet_audit (seq, line) VALUES (2, 'x')",
        "TRUNCATE fleet_audit",
    ]
    for text in tries:
        with pytest.raises(sa.exc.DBAPIError), engine.begin() as connection:
            connection.exec_driver_sql(text)
    engine.dispose()
    assert len(state.audit()) == 3
    assert verify(state.audit())[1] is None


# The copy


def lived(state: State, make_rollout: Callable[..., Rollout], make_wishes: Callable[..., list[Wish]]) -> Lead:
    """A state in which things have happened."""
    lead = state.lead("one", now_s=0.0)
    assert lead is not None
    for name in ("belt-1", "belt-2"):
        state.begin(make_rollout(name), who="ann")
    state.ask("belt-1", make_wishes(3), lead=lead)
    state.tick({"belt-1": 30.0}, lead=lead)
    raised = {"stage": 1, "opened_s": 30.0, "approved": 1}
    state.change("belt-1", lambda old: replace(old, **raised), who="one", what="stage", lead=lead)
    state.ask("belt-1", make_wishes(2, first=3, stage=1, sent_s=31.0), lead=lead)
    state.settle("belt-1", [replace(make_wishes(1)[0], outcome=Outcome.CONFIRMED)], lead=lead)
    failed = replace(make_wishes(3)[1], outcome=Outcome.FAILED, reached_s=2.0, settled_s=9.0)
    boxes = {("plant-1", "belt-1"): Boxed(until=AT, times=2, reason="silent"), ("plant-1", "belt-2"): Boxed(until=AT)}
    state.settle("belt-1", [failed], boxes=boxes, lead=lead)
    for key in (("plant-1", "belt-2"), ("plant-1", "belt-3")):
        state.settle("belt-1", [], boxes={key: None}, lead=lead)
    halted = {"phase": Phase.HALTED, "reason": "2 of 3 failed.", "soaked_from_s": None}
    state.change("belt-2", lambda old: replace(old, **halted), who="one", what="halt", lead=lead)
    state.add_token("bob", Role.READ)
    return lead


def test_a_state_is_made_again_of_the_copy(
    state: State,
    tmp_path: Path,
    make_rollout: Callable[..., Rollout],
    make_wishes: Callable[..., list[Wish]],
) -> None:
    lead = lived(state, make_rollout, make_wishes)
    mirror = Mirror(tmp_path / "copy")
    assert mirror.append(state) == len(state.audit())
    again = State(tmp_path / "again" / "fleet.db")
    with mirror.path.open("ab") as file:
        file.write(b'{"at":"2026')  # a power cut
    remade = rebuild(again, mirror.path, who="ann")
    was, now = state.rollouts(), again.rollouts()
    assert now[0] == replace(was[0], clock_s=31.0)
    assert now[1] == was[1]
    known = state.wishes("belt-1")
    assert known["plant-1", "belt-1"].outcome is Outcome.FAILED
    known["plant-1", "belt-0"] = replace(known["plant-1", "belt-0"], outcome=Outcome.AWAY)
    assert again.wishes("belt-1") == known
    assert again.boxed() == state.boxed()
    assert again.tokens() == []
    assert remade.epoch == 1
    # The log goes on; who led before does not lead here.
    assert again.audit()[:-1] == state.audit()
    assert again.audit()[-1].what == "rebuilt"
    assert verify(again.audit())[1] is None
    new = again.lead("two", now_s=0.0)
    assert new == Lead(holder="two", epoch=2)
    with pytest.raises(FleetError, match="does not lead"):
        again.tick({"belt-1": 99.0}, lead=lead)
    assert mirror.append(again) == 2
    assert examine(pieces(mirror.path.read_bytes())).broken is None
    with pytest.raises(FleetError, match="log of its own"):
        rebuild(again, mirror.path)
    again.close()


def test_of_a_copy_that_was_changed_nothing_is_made(
    tmp_path: Path, make_rollout: Callable[..., Rollout], make_wishes: Callable[..., list[Wish]]
) -> None:
    state = State(tmp_path / "fleet.db")
    lived(state, make_rollout, make_wishes)
    mirror = Mirror(tmp_path)
    mirror.append(state)
    mirror.path.write_bytes(mirror.path.read_bytes().replace(b"2 of 3 failed", b"0 of 3 failed"))
    again = State(tmp_path / "again.db")
    with pytest.raises(FleetError, match=r"line 10: Entry 10 is not what was written"):
        rebuild(again, mirror.path)
    with pytest.raises(FleetError, match="cannot be read"):
        rebuild(again, tmp_path / "nothing.jsonl")
    with pytest.raises(FleetError, match="cannot be done again"):
        replay([follow((0, ZEROS), who="eve", what="ask", detail={"rollout": "belt-9"}, at=AT)])
    assert again.rollouts() == []
    again.close()
    state.close()


def test_the_copy_follows_and_a_torn_line_is_mended(state: State, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "copy")
    assert mirror.append(state) == 0
    assert mirror.path.stat().st_mode & 0o777 == 0o600
    for number in range(3):
        state.note("ann", "remark", {"number": number})
    assert mirror.append(state) == 3
    assert mirror.append(state) == 0
    whole = mirror.path.read_bytes()
    assert pieces(whole) == [line + b"\n" for line in state.lines()]
    for cut in range(1, len(whole), 37):
        mirror.path.write_bytes(whole[:cut])
        assert Mirror(mirror.path.parent).append(state) == 3 - whole[:cut].count(b"\n")
        assert mirror.path.read_bytes() == whole
    mirror.path.unlink()
    assert mirror.append(state) == 3
    assert mirror.path.read_bytes() == whole


def test_a_copy_that_disagrees_is_never_written_over(state: State, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "copy")
    for number in range(3):
        state.note("ann", "remark", {"number": number})
    mirror.append(state)
    other = State(tmp_path / "other.db")
    for wrong in (b"", b"x\n", pieces(mirror.path.read_bytes())[0]):
        copy = Mirror(tmp_path / "copy")
        if wrong:
            copy.path.write_bytes(copy.path.read_bytes() + wrong)
        kept = copy.path.read_bytes()
        with pytest.raises(FleetError):
            copy.append(other if not wrong else state)
        assert copy.path.read_bytes() == kept
        copy.path.write_bytes(b"".join(line + b"\n" for line in state.lines()))
    other.note("ann", "begun anew")
    with pytest.raises(FleetError, match=r"disagree: the database has no entry 3.*tinysight audit verify"):
        Mirror(tmp_path / "copy").append(other)
    other.close()


def test_a_full_disk_under_the_copy_is_told_and_mended(tmp_path: Path, no_room: Any) -> None:
    state, mirror = State(tmp_path / "fleet.db"), Mirror(tmp_path / "copy")
    for number in range(50):
        state.note("ann", "remark", {"number": number})
    with no_room(1000), pytest.raises(FleetError, match="free space"):
        mirror.append(state)
    state.note("ann", "remark", {"number": 50})
    mirror.append(state)
    assert pieces(mirror.path.read_bytes()) == [line + b"\n" for line in state.lines()]
    state.close()


# The command


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, bytes, str]]:
    """Run one command line: status, stdout, stderr with single spaces."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: str | Path) -> tuple[int, bytes, str]:
        try:
            status = _run([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfdbinary.readouterr()
        return status, out, " ".join(err.decode().split())

    return call


def test_the_command_shows_and_verifies(
    run: Any,
    state: State,
    state_url: str,
    tmp_path: Path,
    make_rollout: Callable[..., Rollout],
    make_wishes: Callable[..., list[Wish]],
) -> None:
    lived(state, make_rollout, make_wishes)
    state.note("eve\x9b31m", "remark", {"text": "\x9b31m red"})
    status, out, _ = run("audit", "show", "--state", state_url)
    told = out.decode()
    assert status == 0
    assert "\x9b" not in told
    assert len(told.splitlines()) == 12
    assert re.search(r"3 +2026.*Z +ann +begin +\{.*belt-2", told)
    assert '"wishes":"3 devices"' in told
    status, out, _ = run("audit", "show", "--state", state_url, "--json")
    assert out == b"".join(line + b"\n" for line in state.lines())
    file = tmp_path / "export.jsonl"
    file.write_bytes(out)
    assert run("audit", "show", "--state", state_url, "--json", "--after", "11")[1] == b"".join(pieces(out)[11:])
    assert run("audit", "show", "--file", file, "--json", "--after", "11")[1] == b"".join(pieces(out)[11:])
    head = state.audit()[-1].hash
    for where in (("--state", state_url), ("--file", file), ("--state", state_url, "--file", file)):
        status, out, err = run("audit", "verify", *where, "--json", "--head", head)
        assert (status, err) == (0, "")
        assert json.loads(out)["entries"] == 12
        assert json.loads(out)["head"] == head
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"2 of 3 failed", b"0 of 3 failed"))
    status, out, err = run("audit", "verify", "--file", file)
    assert status == 1
    assert "Entry 10 is not what was written" in err
    assert re.search(rb"broken_at +10", out)
    assert run("audit", "verify", "--state", state_url, "--file", file)[0] == 1
    file.write_bytes(b"".join(pieces(whole)[:-1]))
    assert run("audit", "verify", "--file", file)[0] == 0
    assert run("audit", "verify", "--file", file, "--head", head)[0] == 1
    assert run("audit", "verify", "--file", file, "--head", head[:8])[0] == 2
    assert run("audit", "show", "--file", file, "--state", state_url)[0] == 2
    assert run("audit", "verify", "--file", tmp_path / "none.jsonl")[0] == 2
    assert run("audit", "verify")[2].startswith("error: There is no fleet state at")


def test_the_command_finds_a_changed_byte_and_a_cut_in_the_database(
    run: Any,
    state: State,
    state_url: str,
    tmp_path: Path,
    make_rollout: Callable[..., Rollout],
    make_wishes: Callable[..., list[Wish]],
) -> None:
    lived(state, make_rollout, make_wishes)
    folder = Path(state_url).parent if "://" not in state_url else tmp_path / "copy"
    mirror = Mirror(folder, "fleet.audit.jsonl")
    mirror.append(state)
    beside = [] if "://" not in state_url else ["--file", str(mirror.path)]
    assert run("audit", "verify", "--state", state_url, *beside)[0] == 0
    engine = raw(state_url)

    def forced(text: str) -> None:
        with engine.begin() as connection:
            for trigger in ("update", "delete", "change"):
                on = "" if engine.dialect.name == "sqlite" else " ON fleet_audit"
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS fleet_audit_{trigger}{on}")
            connection.exec_driver_sql(text)

    forced("DELETE FROM fleet_audit WHERE seq = 11")
    assert run("audit", "verify", "--state", state_url)[0] == (0 if beside else 1)
    status, _, err = run("audit", "verify", "--state", state_url, *beside)
    assert status == 1
    assert "Entry 11 is missing: the mirror has it." in err
    with pytest.raises(FleetError, match="disagree"):
        Mirror(folder, mirror.path.name).append(state)
    forced("UPDATE fleet_audit SET line = replace(line, '2 of 3', '0 of 3') WHERE seq = 10")
    engine.dispose()
    status, _, err = run("audit", "verify", "--state", state_url)
    assert status == 1
    assert "Entry 10 is not what was written: its hash is another. The 9 entries before are whole." in err


def test_the_command_makes_a_lost_state_again(
    run: Any, tmp_path: Path, make_rollout: Callable[..., Rollout], make_wishes: Callable[..., list[Wish]]
) -> None:
    where = tmp_path / "home" / "tinysight" / "fleet"
    state = State(where / "fleet.db")
    lived(state, make_rollout, make_wishes)
    Mirror(where).append(state)
    state.close()
    for path in where.glob("fleet.db*"):
        path.unlink()
    assert run("audit", "verify")[0] == 2
    status, out, err = run("audit", "rebuild", "--file", where / "audit.jsonl", "--json")
    assert status == 0
    assert json.loads(out) == {"state": str(where / "fleet.db"), "rollouts": 2, "wishes": 5, "boxed": 1}
    assert "tokens" in err
    assert run("audit", "verify")[0] == 0
    assert run("audit", "rebuild", "--file", where / "audit.jsonl")[0] == 2


def test_the_log_of_a_reader_that_has_gone_ends_quietly(tmp_path: Path) -> None:
    state = State(tmp_path / "fleet.db")
    for number in range(300):
        state.note("ann", "remark", {"number": number, "text": "x" * 500})
    state.close()
    command = f"{sys.executable} -m tinysight_deploy audit show --json --state {tmp_path / 'fleet.db'} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
