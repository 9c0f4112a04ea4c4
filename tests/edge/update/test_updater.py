"""The agent's updates with a real store, and an agent that is none."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, DeviceError, RuntimeLoadError, StoreError
from tinysight_contract.messages import DesiredState, utc_now
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_edge.config.types import UpdateConfig
from tinysight_edge.store import Store
from tinysight_edge.units import Seconds
from tinysight_edge.update import fetch, selftest
from tinysight_edge.update import update as decide
from tinysight_edge.update import updater as module
from tinysight_edge.update.report import is_worth_telling
from tinysight_edge.update.updater import Updater
from tinysight_edge.update.wish import Wish


def last(store: Store) -> tuple[UpdateState, Code | None] | None:
    state = store.state()
    return None if state.candidate is not None or state.last is None else (state.last.state, state.last.code)


def test_what_stands_its_trial_is_active_and_told(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    second = put("2.0.0")
    start()
    eventually(lambda: last(store) == (UpdateState.CONFIRMED, None))
    state = store.state()
    assert (state.active, state.previous and state.previous.version) == (second, "1.0.0")
    assert player.log == ["sees 1.0.0", "sees 2.0.0"]
    eventually(lambda: player.updates[-1].state is UpdateState.CONFIRMED)
    assert player.updates[-1].gates["trial_p95_ms"].limit == 20.0
    assert player.alert is None


@pytest.mark.parametrize(
    ("how", "code"),
    [
        pytest.param({"run_ms": {"2.0.0": 50.0}}, Code.SLOW, id="slow"),
        pytest.param({"breaks": "2.0.0"}, Code.BROKE, id="fails on a picture"),
        pytest.param({"refuses": ConfigError("No tiles.", mend="Take them out.")}, Code.BROKE, id="cannot do it"),
        pytest.param({"refuses": RuntimeLoadError("No.", mend="Convert it.")}, Code.BROKE, id="does not load"),
    ],
)
def test_what_does_not_is_taken_back_once_and_stands_as_an_alert(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any,
    how: dict[str, Any], code: Code,
) -> None:  # fmt: skip
    for name, value in how.items():
        setattr(player, name, value)
    second = put("2.0.0")
    player.wish = Wish(second.digest, second.target)
    start()
    eventually(lambda: last(store) == (UpdateState.ROLLED_BACK, code))
    eventually(lambda: player.alert)
    eventually(lambda: player.answers and player.answers[-1].state is DesiredState.ROLLED_BACK)
    assert player.seer.bundle.manifest.version == "1.0.0"
    assert player.alert is not None
    assert f"({code})" in player.alert
    time.sleep(0.2)
    assert player.loads == ["2.0.0"], "it is not tried again"
    active = store.state().active
    assert active is not None
    player.wish = Wish(active.digest, active.target)
    eventually(lambda: player.alert is None)


def test_three_attempts_that_never_ended_are_enough(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    put("2.0.0")
    with store.alone():
        state = store.state()
        for _ in range(3):
            state = decide.attempt(state, utc_now())
        store.save(state)
    start()
    eventually(lambda: last(store) == (UpdateState.ROLLED_BACK, Code.CRASHED))
    assert player.loads == []


def test_what_a_person_makes_active_sees_and_a_trial_that_he_ends_is_over(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    put("2.0.0")
    start()
    eventually(lambda: last(store) == (UpdateState.CONFIRMED, None))
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(3600)))
    put("3.0.0")
    eventually(lambda: player.seer.bundle.manifest.version == "3.0.0")

    def go_back() -> bool:
        try:
            with store.alone():
                back = decide.roll_back(store.state(), utc_now())
                assert back is not None
                store.save(back)
        except StoreError:  # the updates hold it just now
            return False
        return True

    eventually(go_back)
    eventually(lambda: player.log[-1] == "sees 1.0.0")
    assert player.log[-3:] == ["sees 3.0.0", "sees 2.0.0", "sees 1.0.0"]
    eventually(lambda: player.alert is None)


def test_an_end_of_the_agent_is_no_attempt(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(3600)))
    put("2.0.0")
    updater = start()
    eventually(lambda: player.seer.bundle.manifest.version == "2.0.0")
    assert attempts(store) == 1
    updater.stop()
    assert attempts(store) == 0


def attempts(store: Store) -> int:
    coming = store.state().candidate
    assert coming is not None
    return coming.attempts


def test_what_cannot_be_written_down_is_not_begun_and_what_was_decided_is_written_later(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    put("2.0.0")
    cast("Any", store.disk).full = True
    start()
    time.sleep(0.3)
    assert player.loads == [], "its attempt could not be counted"
    cast("Any", store.disk).full = False
    eventually(lambda: player.seer.bundle.manifest.version == "2.0.0")
    with store.alone():  # as by somebody who fetches another one
        time.sleep(0.5)
        assert store.state().candidate is not None
    eventually(lambda: last(store) == (UpdateState.CONFIRMED, None))


def test_a_repository_that_is_away_is_asked_again_until_nobody_wants_it_or_it_is_back(
    player: Any, store: Store, start: Callable[[], Updater], eventually: Any, tmp_path: Path, belt_repo: Path,
    belt_bundle: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(fetch, "pause_s", lambda failures, _chance: 0.02 * failures)
    away = tmp_path / "away"
    player.config = replace(player.config, update=UpdateConfig(repository=str(away), trial=Seconds(0.2)))
    (store.trust / "root.json").write_bytes((belt_repo / "metadata" / "1.root.json").read_bytes())
    wish = player.wish = Wish(Bundle.open(belt_bundle).digest, "belt/belt-1.0.0.bundle")

    def failures() -> int:
        return len({update.at for update in player.updates if update.code is Code.UNREACHABLE})

    start()
    eventually(lambda: failures() > 2)
    assert player.answers[-1].state.value == "waiting"
    assert "away" in player.answers[-1].reason
    player.wish = None
    time.sleep(0.3)
    asked = failures()
    time.sleep(0.3)
    assert failures() == asked
    away.symlink_to(belt_repo)
    player.wish = wish
    eventually(lambda: player.answers[-1].state is DesiredState.APPLIED)
    assert last(store) == (UpdateState.CONFIRMED, None)
    assert player.alert is None


def ready(player: Any, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any) -> Release:
    """A candidate on a trial that does not end by itself."""
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(3600), repository="nowhere"))
    second = put("2.0.0")
    start()
    eventually(lambda: player.seer.bundle.manifest.version == "2.0.0")
    return second


@pytest.mark.parametrize("how", ["the active one", "none", "another"])
def test_a_wish_is_taken_back_or_replaced_during_the_trial(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any, how: str
) -> None:
    first, second = store.state().active, put("2.0.0")
    assert first is not None
    player.wish = Wish(second.digest, second.target)
    ready(player, put, start, eventually)
    player.wish = {
        "the active one": Wish(first.digest, first.target), "none": None, "another": Wish("c" * 64, "belt/c.bundle")
    }[how]  # fmt: skip
    eventually(lambda: last(store) is not None)
    state = store.state()
    assert state.last is not None
    if how != "another":
        assert (state.last.bundle, state.last.code) == (second, Code.SUPERSEDED)
    else:  # it is to be fetched at once, which is refused here
        eventually(
            lambda: player.answers[-1].digest == "c" * 64 and "trusts no repository" in player.answers[-1].reason
        )
    assert (state.active, state.bad, state.floor) == (first, [], {"belt": 1})
    eventually(lambda: player.seer.bundle.manifest.version == "1.0.0")
    time.sleep(0.2)
    assert player.loads == ["2.0.0"], "it is not tried again, and what is active stayed loaded"
    eventually(lambda: player.alert is None or how == "another")


def test_a_wish_is_taken_back_during_the_self_test(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def endless(_bundle: Path, *, heed: Callable[[], None], **_: Any) -> None:
        while True:
            heed()
            time.sleep(0.01)

    monkeypatch.setattr(selftest, "run_selftest", endless)
    second = put("2.0.0")
    with store.alone():
        store.save(decide.progress(store.state(), utc_now(), UpdateState.VERIFIED))
    player.wish = Wish(second.digest, second.target)
    start()
    eventually(lambda: (coming := store.state().candidate) and coming.attempts)
    player.wish = None
    eventually(lambda: last(store) == (UpdateState.FAILED, Code.SUPERSEDED))
    assert store.state().bad == []


def test_what_a_person_flashes_is_not_touched_by_a_wish_that_stood_before(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    first = store.state().active
    assert first is not None
    player.wish = Wish(first.digest, first.target)
    second = ready(player, put, start, eventually)
    player.wish = None
    player.config = replace(player.config, update=UpdateConfig(trial=Seconds(0.2)))
    time.sleep(0.3)
    coming = store.state().candidate
    assert coming is not None
    assert coming.bundle == second
    player.wish = Wish(first.digest, first.target)  # this one is new
    eventually(lambda: last(store) == (UpdateState.FAILED, Code.SUPERSEDED))


def test_a_wish_that_is_taken_back_leaves_no_download(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    second = put("2.0.0")
    with store.alone():
        store.save(decide.progress(store.state(), utc_now(), UpdateState.DOWNLOADING))
    player.wish = Wish(second.digest, second.target)
    start()
    eventually(lambda: player.answers)
    player.wish = None
    eventually(lambda: last(store) == (UpdateState.FAILED, Code.SUPERSEDED))
    eventually(lambda: not store.path(second.digest).exists())


def test_an_outcome_is_kept_though_going_back_takes_too_long(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any
) -> None:
    player.run_ms = {"2.0.0": 50.0}
    player.stuck = [DeviceError("It did not change in time.", mend="Restart.")]
    put("2.0.0")
    start()
    eventually(lambda: last(store) == (UpdateState.ROLLED_BACK, Code.SLOW))
    eventually(lambda: player.seer.bundle.manifest.version == "1.0.0")
    assert player.loads == ["2.0.0", "1.0.0"], "what is active is followed"


def test_what_is_active_and_cannot_run_is_an_alert_and_not_applied(
    player: Any, store: Store, put: Callable[..., Release], start: Callable[[], Updater], eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pauses: list[float] = []

    def pause_s(failures: int, _chance: float) -> float:
        pauses.append(failures)
        return 0.02

    monkeypatch.setattr(module, "pause_s", pause_s)
    second = put("2.0.0")
    with store.alone():
        store.save(decide.confirm(store.state(), {}, utc_now()))
    player.refuses = RuntimeLoadError("It does not load.", mend="Convert it.")
    player.wish = Wish(second.digest, second.target)
    start()
    eventually(lambda: player.alert)
    assert player.alert is not None
    assert "2.0.0 is active and cannot run: It does not load." in player.alert
    assert (player.answers[-1].state, player.runs) == (DesiredState.REFUSED, player.seer.bundle.digest)
    eventually(lambda: pauses[-1] > 2)
    player.refuses = None
    eventually(lambda: player.answers[-1].state is DesiredState.APPLIED)
    assert player.runs == second.digest
    assert player.alert is None


def test_an_address_that_cannot_be_used_is_told_and_a_mended_one_is_tried_at_once(
    player: Any, store: Store, start: Callable[[], Updater], eventually: Any, tmp_path: Path
) -> None:
    update = UpdateConfig(repository="https://models.example", ca_file=tmp_path / "ca.pem")
    player.config = replace(player.config, update=update)
    player.wish = Wish("c" * 64, "belt/c.bundle")
    start()
    eventually(lambda: player.alert)
    assert "ca.pem" in str(player.alert)
    assert "ca.pem" in player.answers[-1].reason
    assert store.state().candidate is None
    (tmp_path / "repo").mkdir()
    player.config = replace(player.config, update=UpdateConfig(repository=str(tmp_path / "repo")))
    eventually(lambda: "ca.pem" not in player.answers[-1].reason and len(player.answers) > 3)


def test_a_store_that_this_agent_cannot_write_is_an_alert(
    player: Any, store: Store, start: Callable[[], Updater], eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.root / "lock").touch()
    monkeypatch.setattr(os, "access", lambda path, _mode: path != store.root / "lock")  # as root we may do all
    start()
    eventually(lambda: player.alert)
    assert "lock cannot be written by this agent" in str(player.alert)


def test_an_agent_starts_without_what_only_updates_need() -> None:
    heavy = ("tuf", "securesystemslib", "urllib3", "backports.zstd", "cryptography")
    code = f"import sys, tinysight_edge.runtime, tinysight_edge.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def coming(state: UpdateState, share: float = 0.0) -> Update:
    return Update(target="a/a-1.bundle", state=state, at=utc_now(), share=share)


@pytest.mark.parametrize(
    ("told", "since_s", "worth"),
    [
        pytest.param(None, 0.0, True, id="the first"),
        pytest.param(coming(UpdateState.QUEUED), 0.0, True, id="a new state"),
        pytest.param(coming(UpdateState.DOWNLOADING, 0.1), 4.9, False, id="much in a moment"),
        pytest.param(coming(UpdateState.DOWNLOADING, 0.44), 5.0, True, id="much"),
        pytest.param(coming(UpdateState.DOWNLOADING, 0.49), 59.0, False, id="little"),
        pytest.param(coming(UpdateState.DOWNLOADING, 0.5), 60.0, True, id="little in a long time"),
    ],
)
def test_progress_is_told_when_there_is_some(told: Update | None, since_s: float, worth: bool) -> None:
    assert is_worth_telling(told, coming(UpdateState.DOWNLOADING, 0.5), since_s) is worth


def test_a_download_of_any_length_takes_about_twenty_messages() -> None:
    told, told_s, count = coming(UpdateState.DOWNLOADING), 0.0, 0
    for second in range(1, 1001):  # a thousandth a second, told of each
        now = coming(UpdateState.DOWNLOADING, second / 1000)
        if is_worth_telling(told, now, second - told_s):
            told, told_s, count = now, float(second), count + 1
    assert 16 <= count <= 20
