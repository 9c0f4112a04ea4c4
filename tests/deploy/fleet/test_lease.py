"""One controller leads at a time, whatever clocks, sleeps and deaths do; who does not lead cannot write."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, NotLeading, StateGone
from tinysight_deploy.fleet.keeping.audit import verify
from tinysight_deploy.fleet.keeping.lease import LEASE_S
from tinysight_deploy.fleet.keeping.state import Boxed, Lead, State
from tinysight_deploy.fleet.types import Phase, Rollout, Wish

Open = Callable[..., State]


def test_the_first_leads_and_the_second_waits_for_it_to_stand_still(open_state: Open) -> None:
    one, two = open_state(), open_state()
    first = Lead(holder="one", epoch=1)
    assert one.lead("one", now_s=100.0) == first
    # The second's clock began elsewhere, and runs faster.
    for now_s in (5.0, 13.0, 21.0, 29.0):
        assert two.lead("two", now_s=now_s) is None
        assert one.lead("one", now_s=100.0 + now_s / 10) == first
    assert two.lead("two", now_s=30.0) is None
    assert two.lead("two", now_s=30.0 + LEASE_S - 0.1) is None
    assert two.lead("two", now_s=30.0 + LEASE_S) == Lead(holder="two", epoch=2)
    assert one.lead("one", now_s=1e9) is None  # it slept, and begins to watch now
    assert one.lead("one", now_s=1e9 + LEASE_S) == Lead(holder="one", epoch=3)
    assert [(entry.who, entry.detail) for entry in one.audit()] == [
        ("one", {"epoch": 1}),
        ("two", {"epoch": 2}),
        ("one", {"epoch": 3}),
    ]


def test_a_leader_that_was_overtaken_writes_nothing(
    open_state: Open, make_rollout: Callable[..., Rollout], make_wishes: Callable[..., list[Wish]]
) -> None:
    one, two = open_state(), open_state()
    old = one.lead("one", now_s=0.0)
    assert old is not None
    one.begin(make_rollout(), who="ann")
    one.ask("belt-1", make_wishes(1), lead=old)
    two.lead("two", now_s=0.0)
    new = two.lead("two", now_s=LEASE_S)
    assert new is not None
    before = one.rollouts(), one.wishes("belt-1"), one.boxed(), one.audit()
    for lead in (old, replace(old, epoch=new.epoch), replace(new, epoch=new.epoch + 1), replace(new, epoch=0)):
        for write in (
            lambda lead=lead: one.ask("belt-1", make_wishes(1, first=5), lead=lead),
            lambda lead=lead: one.settle("belt-1", make_wishes(1), lead=lead),
            lambda lead=lead: one.tick({"belt-1": 9.0}, lead=lead),
            lambda lead=lead: one.settle(
                "belt-1", [], boxes={("plant-1", "belt-0"): Boxed(until=datetime.now(UTC))}, lead=lead
            ),
            lambda lead=lead: one.change(
                "belt-1", lambda was: replace(was, phase=Phase.DONE), who="one", what="done", lead=lead
            ),
        ):
            with pytest.raises(NotLeading, match="two does"):
                write()
        one.leave(lead)
    assert (one.rollouts(), one.wishes("belt-1"), one.boxed(), one.audit()) == before
    two.ask("belt-1", make_wishes(1, first=5), lead=new)


def test_before_anybody_leads_nobody_writes_as_leader(state: State, make_rollout: Callable[..., Rollout]) -> None:
    state.begin(make_rollout(), who="ann")
    with pytest.raises(NotLeading, match="nobody does"):
        state.tick({"belt-1": 1.0}, lead=Lead(holder="one", epoch=1))
    with pytest.raises(ConfigError, match="needs a name"):
        state.lead("", now_s=0.0)


def test_a_restarted_controller_of_the_same_name_waits_like_any_other(open_state: Open) -> None:
    """Two that were given one name, by mistake, are two all the same."""
    assert open_state().lead("one", now_s=0.0) == Lead(holder="one", epoch=1)
    again = open_state()
    assert again.lead("one", now_s=0.0) is None
    assert again.lead("one", now_s=LEASE_S) == Lead(holder="one", epoch=2)


def test_who_leaves_makes_room_at_once(open_state: Open) -> None:
    one, two = open_state(), open_state()
    lead = one.lead("one", now_s=0.0)
    assert lead is not None
    assert two.lead("two", now_s=0.0) is None
    one.leave(lead)
    assert two.lead("two", now_s=0.1) == Lead(holder="two", epoch=2)
    assert one.lead("one", now_s=0.1) is None
    assert [entry.what for entry in one.audit()] == ["lead", "leave", "lead"]


def test_what_could_not_be_seen_is_watched_anew(tmp_path: Path) -> None:
    """After an outage of the database the follower has seen nothing stand still."""
    one, two = State(tmp_path / "fleet.db"), State(tmp_path / "fleet.db")
    assert one.lead("one", now_s=0.0) is not None
    assert two.lead("two", now_s=0.0) is None
    two.close()
    (tmp_path / "fleet.db").rename(tmp_path / "away.db")
    with pytest.raises(StateGone):
        two.lead("two", now_s=5.0)
    (tmp_path / "away.db").rename(tmp_path / "fleet.db")
    assert two.lead("two", now_s=100.0) is None
    assert two.lead("two", now_s=100.0 + LEASE_S) == Lead(holder="two", epoch=2)
    one.close()
    two.close()


def test_controllers_that_contend_ask_nobody_twice(
    state_url: str, open_state: Open, make_rollout: Callable[..., Rollout]
) -> None:
    """Three processes, each of which sleeps once while another takes over; one more writes as people do."""
    state = open_state()
    state.begin(make_rollout(), who="ann")
    script = Path(__file__).with_name("contending.py")
    racers = [
        subprocess.Popen(
            [sys.executable, str(script), state_url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in ("one", "two", "three", "ann")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    told: list[dict[str, Any]] = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    for racer in racers:
        out, err = racer.communicate(timeout=120)
        assert racer.returncode == 0, err.decode()[-2000:]
        told.append(json.loads(out))
    log = state.audit(most=10_000)
    assert verify(log)[1] is None
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    asked = Counter(wish["device"] for entry in log if entry.what == "ask" for wish in entry.detail["wishes"])
    assert set(asked.values()) == {1}
    assert asked.keys() == {wish.device for wish in state.wishes("belt-1").values()}
    assert len(asked) == sum(each["asked"] for each in told)
    assert sum(entry.what == "remark" for entry in log) == told[3]["notes"] > 0
    # Each ask was of who led then.
    leader = ""
    for entry in log:
        if entry.what == "lead":
            leader = entry.who
        elif entry.what == "ask":
            assert entry.who == leader
    epochs = [entry.detail["epoch"] for entry in log if entry.what == "lead"]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) > 2
    assert sum(each["refused"] for each in told) >= 2  # the first leader, and the one who took over from it
