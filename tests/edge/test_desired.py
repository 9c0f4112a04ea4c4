"""The desired state over the file: what may lie there, what becomes of it, what is left of it after kills."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import replace_file
from tinysight_contract.messages import CameraState, Desired, DesiredState, encode
from tinysight_edge.config import checks, wanted
from tinysight_edge.config.overlay import CAMERA, PARTS, SECTIONS, merged, not_from_outside
from tinysight_edge.config.reload import Change
from tinysight_edge.config.reloader import AGAIN_S, CLEAR_AGAIN_S, EVERY_S, TAKE_S, Reloader
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.wanted import MAX_BYTES, MAX_TEXT
from tinysight_edge.update.wish import Answer, Wish

json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
)
tables = st.dictionaries(st.sampled_from("abcd"), json, max_size=4)


def without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: without_nulls(each) for key, each in value.items() if each is not None}


def obvious(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7396, section 2, line by line."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        target = dict(target)
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = obvious(target.get(name), value)
        return target
    return patch


@given(tables, json)
def test_merging_is_that_of_the_rfc_and_touches_nothing_that_came_in(target: dict[str, Any], patch: Any) -> None:
    before = msgspec.json.encode([target, patch])
    assert merged(target, patch) == obvious(target, patch)
    assert msgspec.json.encode([target, patch]) == before


@given(tables, tables)
def test_merging_twice_is_merging_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merged(target, patch)
    assert merged(once, patch) == once


@given(tables)
def test_what_lies_over_nothing_is_itself_without_nulls(patch: dict[str, Any]) -> None:
    assert merged({}, patch) == without_nulls(patch)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


@given(
    st.dictionaries(
        st.sampled_from((*AgentConfig.__struct_fields__, "odd")),
        st.dictionaries(
            st.sampled_from(("gate", "door", "every", "prometheus_port", "url", "keep", "quality", "per_hour")),
            st.dictionaries(st.sampled_from((*CAMERA, "source", "privacy", "rotate", "crop")), st.none(), max_size=3)
            | st.none(),
            max_size=3,
        )
        | st.none(),
        max_size=4,
    )
)
def test_nothing_but_what_is_harmless_passes(patch: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "cameras": {"gate": dict.fromkeys(AgentConfig.__struct_fields__, 1) | {"source": "0", "privacy": 1}},
        "health": {"every": 1, "prometheus_port": 2},
        "snapshots": {"keep": 1, "quality": 2},
        "examples": {"keep": 1, "per_hour": 2},
        **{name: name for name in AgentConfig.__struct_fields__ if name not in {"cameras", *PARTS}},
    }
    if not_from_outside(patch, good):
        return
    after = merged(good, patch)
    assert set(after["cameras"]) == {"gate"}
    for name in {*AgentConfig.__struct_fields__} - {"cameras", *PARTS, *SECTIONS}:
        assert after.get(name) == good.get(name)
    for name in after["cameras"]["gate"].keys() | good["cameras"]["gate"].keys():
        assert name in CAMERA or after["cameras"]["gate"].get(name) == good["cameras"]["gate"].get(name)
    assert after["health"]["prometheus_port"] == 2
    assert after["snapshots"]["keep"] == after["examples"]["keep"] == 1


TEXT = """\
site = "s"
device = "d"
state = "state"
broker = {{url = "mqtt://h"}}
model = {{bundle = "a.bundle"}}
{more}
[cameras.gate]
source = "{gate}"
privacy = [[[0, 0], [1, 0], [1, 1]]]
"""
ZONE = {"polygon": [[0, 0], [1, 0], [1, 1]]}


class Agent:
    """An agent's file and what is asked of it, on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        (folder / "a.bundle").touch()
        self.path, self.memory, self.now_s = folder / "agent.toml", folder / "memory", 0.0

    def write(self, gate: str = "0", more: str = "") -> None:
        new = self.path.with_suffix(".new")
        new.write_text(TEXT.format(gate=gate, more=more))
        new.replace(self.path)

    def start(self) -> AgentConfig:
        self.reloader = Reloader(self.path, self.memory, environ={})
        config = self.reloader.start(self.now_s)
        self.reloader.runs("ab" * 32)
        return config

    def ask(self, revision: int, config: Mapping[str, Any] | None = None, bundle: str | None = None) -> None:
        wanted = Desired(revision=revision, config=None if config is None else dict(config), bundle=bundle)
        self.reloader.ask(encode(wanted))

    def passes(self, seconds: float) -> list[Change]:
        until_s, found = self.now_s + seconds, []
        while self.now_s < until_s:
            self.now_s += EVERY_S
            found.append(self.reloader.poll(self.now_s))
        return [change for change in found if change is not None]

    def became(self) -> tuple[int, DesiredState, int | None]:
        now = self.reloader.became
        return now.revision, now.state, now.applied


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """One whose file has stood its trial."""
    each = Agent(tmp_path)
    each.write()
    each.start()
    each.reloader.note_camera("gate", CameraState.ONLINE)
    each.passes(31)
    assert each.became() == (0, DesiredState.NONE, None)
    return each


def zones(count: int) -> dict[str, Any]:
    return {"cameras": {"gate": {"zones": {f"z{number}": ZONE for number in range(count)}}}}


def test_it_takes_effect_stands_its_trial_and_holds(agent: Agent) -> None:
    agent.ask(3, zones(1))
    (change,) = agent.passes(2)
    assert (change.remeant, set(change.config.cameras["gate"].zones)) == (("gate",), {"z0"})
    assert agent.became() == (3, DesiredState.TRIAL, 3)
    assert agent.passes(31) == []
    assert agent.became() == (3, DesiredState.APPLIED, 3)
    assert change.config.cameras["gate"].privacy, "of the file"


def test_null_takes_out_what_the_file_says_and_clearing_brings_it_back(agent: Agent) -> None:
    agent.write(more="[rules.any]\nmin_score = 0.5\n[governor]\nmax_frame_age = '1s'")
    agent.passes(40)
    agent.ask(1, {"rules": {"any": None}, "governor": None})
    (change,) = agent.passes(TAKE_S)
    assert (change.config.rules, change.config.governor.max_frame_age) == ({}, 0.5)
    agent.reloader.ask(b"")
    (change,) = agent.passes(3)
    assert (set(change.config.rules), change.config.governor.max_frame_age) == ({"any"}, 1.0)
    assert agent.became() == (0, DesiredState.NONE, None)


def test_a_revision_without_config_goes_back_to_the_file(agent: Agent) -> None:
    agent.ask(1, zones(1))
    agent.passes(40)
    agent.ask(2)
    (change,) = agent.passes(40)
    assert change.config.cameras["gate"].zones == {}
    assert agent.became() == (2, DesiredState.APPLIED, None)


def test_a_stale_revision_and_the_same_again_change_nothing(agent: Agent) -> None:
    agent.ask(5, zones(1))
    assert len(agent.passes(40)) == 1
    for revision, config in ((4, zones(2)), (5, zones(1)), (5, zones(3)), (0, None)):
        agent.ask(revision, config)
        assert agent.passes(TAKE_S) == []
        assert agent.became() == (5, DesiredState.APPLIED, 5)


def test_of_many_in_a_short_time_the_newest_is_taken(agent: Agent) -> None:
    changes = []
    for revision in range(1, 31):
        agent.ask(revision, zones(revision))
        changes += agent.passes(1)
    changes += agent.passes(TAKE_S)
    assert [len(change.config.cameras["gate"].zones) for change in changes] == [1, 11, 21, 30]
    assert agent.became() == (30, DesiredState.TRIAL, 30)


@pytest.mark.parametrize(
    ("config", "key", "why"),
    [
        ({"cameras": {"gate": {"source": "rtsp://evil/x"}}}, "cameras.gate.source", "not changed from outside"),
        ({"cameras": {"gate": {"privacy": []}}}, "cameras.gate.privacy", "not changed from outside"),
        ({"cameras": {"gate": {"crop": None}}}, "cameras.gate.crop", "not changed from outside"),
        ({"cameras": {"gate": None}}, "cameras.gate", "not changed from outside"),
        ({"cameras": None}, "cameras", "not changed from outside"),
        ({"cameras": {"new": {"source": "1"}}}, "cameras.new", "names no camera 'new'"),
        ({"broker": {"url": "mqtt://evil"}}, "broker", "not changed from outside"),
        ({"fleet": {"url": "https://evil"}}, "fleet", "not changed from outside"),
        ({"model": None}, "model", "not changed from outside"),
        ({"publish": {"snapshots": True}}, "publish", "not changed from outside"),
        ({"trial": "1d"}, "trial", "not changed from outside"),
        ({"health": {"prometheus_port": 80}}, "health.prometheus_port", "not changed from outside"),
        ({"health": None}, "health", "not changed from outside"),
        ({"cameras": {"gate": {"zones": {"a": {"polygon": [[0, 0], [1, 0]]}}}}}, "cameras.gate.zones.a.polygon", "2"),
        ({"cameras": {"gate": {"max_fps": -1}}}, "cameras.gate.max_fps", "from 0.1"),
        ({"cameras": {"gate": {"max_fps": 5e-324}}}, "cameras.gate.max_fps", "from 0.1"),
        ({"cameras": {"gate": {"zones": {"a": {"polygon": [None]}}}}}, "cameras.gate.zones.a.polygon", "1 entry"),
        ({"rules": {"a": {"zones": ["nowhere"]}}}, "rules.a.zones[0]", "No zone 'nowhere'"),
        ({"rules": {"a": {"labels": ["cat"]}}}, "rules.a.labels[0]", "knows no label 'cat'"),
        ({"rules": {"a": {"min_scoer": 1}}}, "rules.a.min_scoer", "min_score"),
        ({"snapshots": {"quality": "high"}}, "snapshots.quality", "a whole number"),
        ({"snapshots": {"keep": "900GiB"}}, "snapshots.keep", "not changed from outside"),
        ({"snapshots": {"keep": None}}, "snapshots.keep", "not changed from outside"),
        ({"snapshots": None}, "snapshots", "not changed from outside"),
        ({"examples": {"per_hour": 3600}}, "examples", "The file keeps no examples"),
        ({"odd": 1}, "odd", "not changed from outside"),
    ],
)
def test_what_is_forbidden_or_wrong_is_refused_by_its_key_and_what_ran_goes_on(
    config: dict[str, Any], key: str, why: str, agent: Agent
) -> None:
    agent.write(more="[snapshots]")
    agent.passes(3)
    agent.reloader.labels = ["person"]
    agent.ask(1, zones(1))
    agent.passes(40)
    agent.ask(2, {**zones(2), **config} if "cameras" not in config else config)
    assert agent.passes(3) == []
    assert agent.became() == (2, DesiredState.REFUSED, 1)
    refused = dict(agent.reloader.became.refused)
    assert why in refused[key]
    assert key in agent.reloader.became.reason
    assert agent.start().cameras["gate"].zones.keys() == {"z0"}
    assert agent.became() == (2, DesiredState.REFUSED, 1)


def test_of_pictures_only_what_costs_no_disk_may_be_changed(agent: Agent) -> None:
    agent.write(more='[snapshots]\nkeep = "16MiB"\n[examples]')
    agent.passes(3)
    agent.ask(1, {"snapshots": {"quality": 50}, "examples": {"per_hour": 5}})
    (change,) = agent.passes(TAKE_S)
    snapshots, examples = change.config.snapshots, change.config.examples
    assert snapshots is not None
    assert examples is not None
    assert (snapshots.keep, snapshots.quality, examples.per_hour) == (16 * 2**20, 50, 5)


def test_of_a_crowd_the_highest_revision_counts_and_is_written_once(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[bytes]()

    def counted(path: Path, content: bytes) -> None:
        written.append(content)
        replace_file(path, content)

    monkeypatch.setattr(wanted, "replace_file", counted)
    for revision in (3, 9, 4, 8):
        agent.ask(revision, {"rules": {"a": {"labels": 3, "x" * 9000: "y" * 9000}}})
    agent.passes(EVERY_S)
    assert agent.became() == (9, DesiredState.REFUSED, None)
    assert len(written) == 2, "what is asked, and what became of it"
    texts = [agent.reloader.became.reason, *(each for pair in agent.reloader.became.refused for each in pair)]
    assert all(len(each) <= MAX_TEXT for each in texts)
    assert len(written[-1]) < 25_000, "the config, and short reasons"
    assert agent.start().rules == {}
    assert agent.became() == (9, DesiredState.REFUSED, None)


def test_of_thousands_of_unknown_names_the_like_is_sought_for_a_few(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought = list[str]()
    near = checks.near

    def counted(name: str, known: Iterable[str], *, what: str) -> str:
        sought.append(name)
        return near(name, known, what=what)

    monkeypatch.setattr(checks, "near", counted)
    agent.reloader.labels = ["person"]
    names = [f"a{number}" for number in range(2000)]
    configs: list[dict[str, Any]] = [
        {**zones(9), "rules": {"b": {"zones": names}, "c": {"zones": names}}},
        {"rules": {"b": {"labels": names}, "c": {"labels": names}}},
        {"cameras": dict.fromkeys(names)},
    ]
    for revision, config in enumerate(configs, 1):
        sought.clear()
        agent.ask(revision, config)
        agent.passes(TAKE_S)
        assert agent.became() == (revision, DesiredState.REFUSED, None)
        assert len(sought) == checks.MOST_SOUGHT


def test_what_the_model_cannot_do_is_refused(agent: Agent) -> None:
    def check(config: AgentConfig) -> None:
        if config.cameras["gate"].tiles is not None:
            raise ConfigError("A classifier takes no tiles.", mend="Leave them out.")

    agent.reloader.check = check
    agent.ask(1, {"cameras": {"gate": {"tiles": {}}}})
    assert agent.passes(3) == []
    assert dict(agent.reloader.became.refused) == {"config": "A classifier takes no tiles. Leave them out."}


def test_what_blinds_a_camera_is_taken_back_and_stays_so(agent: Agent) -> None:
    agent.ask(1, zones(1))
    agent.passes(40)
    agent.ask(2, {"cameras": {"gate": {"max_fps": 0.1}}})
    (forth,) = agent.passes(3)
    assert forth.reopened == ("gate",)
    agent.reloader.note_camera("gate", CameraState.RECONNECTING)
    (back,) = agent.passes(31)
    assert set(back.config.cameras["gate"].zones) == {"z0"}
    assert agent.became() == (2, DesiredState.ROLLED_BACK, 1)
    assert "no pictures came from gate" in agent.reloader.became.reason
    agent.reloader.note_camera("gate", CameraState.ONLINE)
    agent.ask(2, {"cameras": {"gate": {"max_fps": 0.1}}})
    assert agent.passes(2 * AGAIN_S) == [], "not tried again"
    assert agent.reloader.now.refused is None, "the file is not to blame"
    agent.ask(3, zones(3))
    assert len(agent.passes(3)) == 1


@pytest.mark.parametrize("revision", [None, 8])
@pytest.mark.parametrize("starts", [0, 1])
def test_what_was_cleared_while_a_camera_was_away_does_not_come_back_for_good(
    revision: int | None, starts: int, agent: Agent
) -> None:
    agent.ask(7, zones(1))
    agent.passes(40)
    agent.reloader.ask(b"") if revision is None else agent.ask(revision)
    (forth,) = agent.passes(3)
    assert forth.config.cameras["gate"].zones == {}
    agent.reloader.note_camera("gate", CameraState.STALLED)
    (back,) = agent.passes(40)
    assert set(back.config.cameras["gate"].zones) == {"z0"}
    agent.reloader.note_camera("gate", CameraState.ONLINE)
    for _ in range(starts):
        agent.start()
        agent.reloader.note_camera("gate", CameraState.ONLINE)
    agent.passes(3)
    assert agent.became() == (revision or 0, DesiredState.ROLLED_BACK, 7)
    assert "no pictures came from gate" in agent.reloader.became.reason
    (again,) = agent.passes(CLEAR_AGAIN_S + 40)
    assert again.config.cameras["gate"].zones == {}
    assert agent.became()[1:] == (DesiredState.APPLIED if revision else DesiredState.NONE, None)
    assert agent.start().cameras["gate"].zones == {}


def test_a_file_that_was_changed_and_blinds_a_camera_is_not_tried_again_for_what_was_cleared(agent: Agent) -> None:
    agent.ask(7, zones(1))
    agent.passes(40)
    agent.write(gate="1")
    agent.reloader.ask(b"")
    agent.passes(3)
    agent.reloader.note_camera("gate", CameraState.STALLED)
    agent.passes(40)
    agent.reloader.note_camera("gate", CameraState.ONLINE)
    assert agent.passes(2 * CLEAR_AGAIN_S) == []
    assert agent.became() == (0, DesiredState.ROLLED_BACK, 7)
    agent.write()
    (change,) = agent.passes(3)
    assert change.config.cameras["gate"].zones == {}


def test_a_change_of_the_file_is_not_lost_to_what_lay_over_it(agent: Agent) -> None:
    agent.write(more='trial = "20s"')
    agent.ask(1, {"cameras": {"gate": {"max_fps": 0.1}}})
    agent.passes(3)
    agent.reloader.note_camera("gate", CameraState.RECONNECTING)
    changes = agent.passes(40)
    assert changes[-1].config.trial == 20.0
    assert agent.became() == (1, DesiredState.ROLLED_BACK, None)


def test_it_holds_at_the_next_start_when_nobody_says_it_again(agent: Agent) -> None:
    agent.ask(7, zones(2))
    agent.passes(40)
    assert set(agent.start().cameras["gate"].zones) == {"z0", "z1"}
    assert agent.became() == (7, DesiredState.APPLIED, 7)


def test_one_that_ends_the_agent_twice_in_its_trial_is_taken_back_at_the_third_start(agent: Agent) -> None:
    agent.ask(1, zones(1))
    agent.passes(40)
    agent.ask(2, zones(2))
    agent.passes(3)
    assert len(agent.start().cameras["gate"].zones) == 2, "killed once: tried again"
    assert agent.became() == (2, DesiredState.TRIAL, 2)
    assert len(agent.start().cameras["gate"].zones) == 1
    assert agent.became() == (2, DesiredState.ROLLED_BACK, 1)
    assert "ended 2 times" in agent.reloader.became.reason
    assert len(agent.start().cameras["gate"].zones) == 1
    assert agent.became() == (2, DesiredState.ROLLED_BACK, 1)


def test_when_the_file_no_longer_fits_the_file_wins_until_it_does(agent: Agent) -> None:
    agent.write(more="[cameras.door]\nsource = '1'")
    agent.passes(3)
    agent.reloader.note_camera("door", CameraState.ONLINE)
    agent.passes(40)
    agent.ask(1, {"cameras": {"door": {"zones": {"z": ZONE}}}})
    agent.passes(40)
    agent.write()
    (change,) = agent.passes(3)
    assert change.removed == ("door",)
    assert agent.became() == (1, DesiredState.REFUSED, None)
    assert "names no camera 'door'" in agent.reloader.became.reason
    agent.write(more="[cameras.door]\nsource = '1'")
    (change,) = agent.passes(3)
    assert set(change.config.cameras["door"].zones) == {"z"}
    assert agent.became() == (1, DesiredState.APPLIED, 1)


def test_the_first_trial_of_a_file_is_waited_for_since_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    each = Agent(tmp_path)
    each.write()
    each.start()
    each.reloader.note_camera("gate", CameraState.ONLINE)
    each.ask(1, zones(1))
    assert each.passes(20) == []
    assert each.became() == (1, DesiredState.WAITING, None)
    assert len(each.passes(15)) == 1
    each.start()
    assert each.became() == (1, DesiredState.TRIAL, 1)


def test_a_model_is_not_changed_and_that_is_said(agent: Agent) -> None:
    agent.ask(1, zones(1), bundle="cd" * 32)
    assert len(agent.passes(40)) == 1, "all else is done"
    assert agent.became() == (1, DesiredState.REFUSED, 1)
    assert "`store`" in dict(agent.reloader.became.refused)["bundle"]
    agent.start()
    assert agent.became() == (1, DesiredState.REFUSED, 1), "also before the first poll"
    agent.ask(2, zones(1), bundle="ab" * 32)
    agent.passes(40)
    assert agent.became() == (2, DesiredState.APPLIED, 2)
    agent.start()
    assert agent.became() == (2, DesiredState.APPLIED, 2), "also before the first poll"
    fresh = Reloader(agent.path, agent.memory, environ={})
    fresh.start(agent.now_s)
    assert fresh.became.refused == (), "of a model that is not known yet nothing is said"


def test_a_bundle_that_somebody_sees_to_becomes_what_he_says(agent: Agent) -> None:
    said: list[Answer | None] = [None]
    agent.reloader.answers(lambda: said[0])
    agent.ask(1, zones(1), bundle="cd" * 32)
    agent.passes(40)
    assert agent.reloader.wish == Wish("cd" * 32, None)
    assert agent.became() == (1, DesiredState.WAITING, 1), "the configuration holds, the bundle is not here"
    for state, reason in (
        (DesiredState.WAITING, "It is fetched."), (DesiredState.TRIAL, ""), (DesiredState.ROLLED_BACK, "It is slow."),
        (DesiredState.REFUSED, "It is unsigned."),
    ):  # fmt: skip
        said[0] = Answer("cd" * 32, state, reason)
        agent.passes(1)
        assert agent.became() == (1, state, 1)
        assert reason in agent.reloader.became.reason
        assert dict(agent.reloader.became.refused) == ({"bundle": reason} if "is s" in reason or "un" in reason else {})
    agent.reloader.runs("cd" * 32)
    assert agent.became() == (1, DesiredState.APPLIED, 1)
    said[0] = Answer("ee" * 32, DesiredState.REFUSED, "of another wish")
    agent.ask(2, {"cameras": {"gate": {"nonsense": 1}}}, bundle="ee" * 32)
    said[0] = Answer("ee" * 32, DesiredState.TRIAL)
    agent.passes(40)
    assert agent.became() == (2, DesiredState.REFUSED, 1), "the worse of both is told"
    agent.ask(3)
    agent.passes(40)
    assert agent.reloader.wish is None


def test_a_rollout_and_its_window_are_kept_and_when_it_goes_on_is_told(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    due_at = datetime(2026, 12, 2, tzinfo=UTC)
    asked = Desired(revision=4, bundle="cd" * 32, target="a/a-1.bundle", rollout="night", window="22:00-04:00")
    agent.reloader.ask(encode(asked))
    agent.passes(TAKE_S)
    agent.start()
    agent.reloader.answers(lambda: Answer("cd" * 32, DesiredState.WAITING, "It waits.", due_at=due_at))
    wish = agent.reloader.wish
    assert wish is not None
    assert (wish, wish.window) == (Wish("cd" * 32, "a/a-1.bundle"), "22:00-04:00")
    kept = msgspec.json.decode((agent.memory / "agent.desired.json").read_bytes())["asked"]
    assert (kept["rollout"], kept["window"]) == ("night", "22:00-04:00")
    assert (agent.became(), agent.reloader.became.due_at) == ((4, DesiredState.WAITING, None), due_at)
    caplog.clear()
    agent.reloader.ask(encode(asked))
    agent.passes(TAKE_S)
    assert "passed over" not in caplog.text, "the very same"
    agent.reloader.ask(encode(msgspec.structs.replace(asked, window=None)))
    agent.passes(TAKE_S)
    assert "revision 4 is passed over" in caplog.text
    agent.reloader.runs("cd" * 32)
    assert (agent.became()[1], agent.reloader.became.due_at) == (DesiredState.APPLIED, None)


@pytest.mark.parametrize(
    "payload",
    [
        b'{"revision": 1, "window": "1:00-5:00"}',
        b"{",
        b"\xff",
        b"[]",
        b'{"revision": -1}',
        b'{"revision": 1, "config": []}',
        b"[" * 9999,
        b" " * (MAX_BYTES + 1),
        b'{"revision": 1, "config": {"rules": ' + b'{"a":' * 900 + b"1" + b"}" * 902,
    ],
    ids=range(9),
)
def test_what_is_no_desired_state_changes_nothing(payload: bytes, agent: Agent) -> None:
    agent.reloader.ask(payload)
    assert agent.passes(3) == []
    assert agent.became()[1:] == (DesiredState.REFUSED, None)
    agent.ask(2, zones(1))
    assert len(agent.passes(TAKE_S)) == 1


@pytest.mark.parametrize("damage", [b"", b"{", b'{"asked": 3}', b"\xff\xfe"])
def test_a_damaged_memory_of_it_costs_the_memory_alone(damage: bytes, agent: Agent) -> None:
    agent.ask(1, zones(1))
    agent.passes(40)
    (agent.memory / "agent.desired.json").write_bytes(damage)
    assert agent.start().cameras["gate"].zones == {}
    agent.ask(1, zones(1))
    agent.passes(40)
    assert agent.became() == (1, DesiredState.APPLIED, 1)


@pytest.mark.parametrize("damage", [b"\n#:over ", b"\n#:over {", b"\n#:over \xff"])
def test_a_damaged_good_content_is_as_if_there_were_none(damage: bytes, agent: Agent) -> None:
    (agent.memory / "agent.good.toml").write_bytes(agent.path.read_bytes() + damage)
    assert "gate" in agent.start().cameras
    assert agent.reloader.now.good is None


def test_a_camera_that_is_switched_off_is_not_waited_for(agent: Agent) -> None:
    agent.reloader.note_camera("gate", CameraState.RECONNECTING)
    agent.reloader.excused = frozenset({"gate"})
    agent.ask(1, {"cameras": {"gate": {"max_fps": 5.0}}})
    assert len(agent.passes(40)) == 1
    assert agent.became() == (1, DesiredState.APPLIED, 1)
