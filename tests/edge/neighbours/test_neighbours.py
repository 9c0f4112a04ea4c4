"""What is told when, and that nothing stays at the broker which nobody tells any more."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tinysight_contract.messages import CameraState, Counts, Event, Info, encode
from tinysight_edge.config.checks import contradictions, unknown_labels
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.neighbours.neighbours import CLEARED_STARTS, MAX_GONE, Neighbours

DISCOVERY = "homeassistant/device/tinysight_plant-1/belt-7/config"
Make = Callable[..., AgentConfig]


class Broker:
    """What stands there, and how often something came."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.heard: list[str] = []

    def foreign(self, topic: str, payload: bytes) -> None:
        self.heard.append(topic)
        self.retained[topic] = payload
        if not payload:
            del self.retained[topic]


def begun(config: AgentConfig, broker: Broker) -> Neighbours:
    neighbours = Neighbours(config)
    neighbours.start(broker.foreign)
    return neighbours


def topic_of(neighbours: Neighbours, event: Event) -> str:
    message = neighbours.also(encode(event))
    assert message is not None
    return message[0]


def test_nobody_hears_anything_unless_it_is_asked_for(
    configured: Make, info: Info, counts: Counts, event: Event, tmp_path: Path
) -> None:
    config, broker = configured(""), Broker()
    neighbours = begun(config, broker)
    neighbours.tell(config, info)
    neighbours.counts("cam0", counts)
    neighbours.camera("cam0", CameraState.ONLINE)
    neighbours.leave()
    assert (broker.heard, neighbours.also(encode(event))) == ([], None)
    assert list(tmp_path.iterdir()) == []


def test_what_was_known_before_is_told_with_the_rest(configured: Make, info: Info, counts: Counts) -> None:
    config, broker = configured(), Broker()
    neighbours = begun(config, broker)
    neighbours.counts("cam0", counts)
    neighbours.camera("cam0", CameraState.ONLINE)
    assert broker.heard == []
    neighbours.tell(config, info)
    told = {topic: payload for topic, payload in broker.retained.items() if topic != DISCOVERY}
    assert told == {
        "frigate/available": b"online", "frigate/cam0/status/detect": b"online",
        "frigate/cam0/7": b"2", "frigate/cam0/traffic light": b"3", "frigate/cam0/all": b"6",
        'frigate/cam0/it\'s "}}" {% \\ é😀': b"1", "frigate/dock/7": b"1", "frigate/dock/all": b"1",
    }  # fmt: skip
    assert json.loads(broker.retained[DISCOVERY])["components"]["cam0_status"]["platform"] == "sensor"


def test_only_what_has_changed_is_told_again(configured: Make, info: Info, counts: Counts) -> None:
    config, broker = configured(), Broker()
    neighbours = begun(config, broker)
    neighbours.tell(config, info)
    neighbours.counts("cam0", counts)
    broker.heard.clear()
    neighbours.tell(config, info)
    neighbours.counts("cam0", counts)
    assert broker.heard == []
    neighbours.counts("cam0", replace(counts, objects={**counts.objects, "7": 3}))
    neighbours.camera("cam0", CameraState.ONLINE)
    assert sorted(broker.heard) == ["frigate/cam0/7", "frigate/cam0/all", "frigate/cam0/status/detect"]


def test_a_section_that_goes_takes_its_topics_with_it(configured: Make, info: Info, event: Event) -> None:
    config, broker = configured(), Broker()
    neighbours = begun(config, broker)
    neighbours.tell(config, info)
    assert topic_of(neighbours, event) == "frigate/events"
    neighbours.tell(configured("[home_assistant]\n"), info)
    assert list(broker.retained) == [DISCOVERY]
    assert neighbours.also(encode(event)) is None
    neighbours.tell(configured(""), info)
    assert broker.retained == {}


def test_another_prefix_clears_the_old_one(configured: Make, info: Info, event: Event) -> None:
    broker = Broker()
    neighbours = begun(configured(), broker)
    neighbours.tell(configured(), info)
    neighbours.tell(configured('[home_assistant]\ndiscovery_prefix = "ha/x"\n[frigate]\nprefix = "f2"\n'), info)
    assert {topic.split("/")[0] for topic in broker.retained} == {"ha", "f2"}
    assert topic_of(neighbours, event) == "f2/events"


def test_what_an_earlier_start_told_is_taken_back(configured: Make, info: Info) -> None:
    broker = Broker()
    begun(configured(), broker).tell(configured(), info)
    assert len(broker.retained) == 9
    begun(configured(""), broker).tell(configured(""), info)
    assert broker.retained == {}


def test_what_one_start_cleared_in_vain_the_next_ones_clear_but_not_for_ever(configured: Make, info: Info) -> None:
    broker = Broker()
    begun(configured(), broker).tell(configured(), info)
    standing = set(broker.retained)
    for start in range(CLEARED_STARTS + 2):
        heard: list[str] = []
        neighbours = Neighbours(configured(""))
        neighbours.start(lambda topic, _, heard=heard: heard.append(topic))  # type: ignore[misc] # and all is lost
        neighbours.tell(configured(""), info)
        neighbours.tell(configured(""), info)
        assert sorted(heard) == (sorted(standing) if start < CLEARED_STARTS else []), start
    begun(configured(), broker).tell(configured(), info)
    assert set(broker.retained) == standing


def test_no_more_topics_are_remembered_for_clearing_than_there_is_room_for(
    configured: Make, info: Info, tmp_path: Path
) -> None:
    topics = [f"frigate/x/{number}" for number in range(2 * MAX_GONE)]
    (tmp_path / "neighbours.json").write_bytes(msgspec.json.encode({"topics": topics}))
    first, second = list[str](), list[str]()
    for heard in (first, second):
        neighbours = Neighbours(configured(""))

        def hear(topic: str, _payload: bytes, heard: list[str] = heard) -> None:
            heard.append(topic)

        neighbours.start(hear)
        neighbours.tell(configured(""), info)
    assert (len(first), len(second)) == (2 * MAX_GONE, MAX_GONE)


def test_an_event_that_cannot_be_read_stops_nothing(configured: Make, caplog: pytest.LogCaptureFixture) -> None:
    neighbours = begun(configured(), Broker())
    with caplog.at_level(logging.WARNING):
        assert neighbours.also(b'{"v":1}') is None
    assert "cannot be told" in caplog.text


def test_a_camera_that_went_while_the_agent_was_off_is_removed(configured: Make, info: Info, counts: Counts) -> None:
    more = '[home_assistant]\n[frigate]\n[cameras.cam1]\nsource = "1"\n'
    broker = Broker()
    begun(configured(more), broker).tell(configured(more), info)
    assert "frigate/cam1/all" in broker.retained
    neighbours = begun(configured(), broker)
    neighbours.counts("cam1", counts)
    neighbours.tell(configured(), info)
    neighbours.counts("cam1", counts)  # a last one, of a thread that did not know yet
    neighbours.camera("cam1", CameraState.ONLINE)
    assert not [topic for topic in broker.retained if "cam1" in topic]
    assert json.loads(broker.retained[DISCOVERY])["components"]["cam1_status"] == {"platform": "sensor"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"topics": 3}', b"\xff", b'{"topics": ["' + b"a" * 5_000_000 + b'"]}', b'{"odd": ' + b"[" * 99_999],
    ids=range(6),
)
def test_a_damaged_memory_is_nothing(configured: Make, info: Info, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "neighbours.json").write_bytes(content)
    broker = Broker()
    begun(configured("[frigate]\n"), broker).tell(configured("[frigate]\n"), info)
    assert len(broker.retained) == 8
    assert len(json.loads((tmp_path / "neighbours.json").read_bytes())["topics"]) == 8


def test_a_memory_never_clears_what_is_ours_or_no_topic(configured: Make, info: Info, tmp_path: Path) -> None:
    topics = ["tinysight/v1/plant-1/belt-7/status", "a/#", "a/+", "", "frigate/x/all"]
    memory = {"topics": topics, "gone": dict.fromkeys([*topics[:-1], "frigate/y/all"], 10**12)}
    (tmp_path / "neighbours.json").write_bytes(msgspec.json.encode(memory))
    heard: list[str] = []
    neighbours = Neighbours(configured(""))
    neighbours.start(lambda topic, _: heard.append(topic))
    neighbours.tell(configured(""), info)
    assert sorted(heard) == ["frigate/x/all", "frigate/y/all"]


def test_a_memory_that_cannot_be_written_stops_nothing(
    configured: Make, info: Info, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "neighbours.json").mkdir()
    broker = Broker()
    with caplog.at_level(logging.WARNING):
        begun(configured(), broker).tell(configured(), info)
    assert DISCOVERY in broker.retained
    assert "cannot be written" in caplog.text


def test_who_leaves_says_so(configured: Make, info: Info) -> None:
    broker = Broker()
    neighbours = begun(configured(), broker)
    neighbours.tell(configured(), info)
    neighbours.leave()
    assert broker.retained["frigate/available"] == b"offline"


def test_many_labels_are_warned_of_once(configured: Make, info: Info, caplog: pytest.LogCaptureFixture) -> None:
    many = replace(info, bundle=replace(info.bundle, labels=[f"l{n}" for n in range(17)]))
    neighbours = begun(configured(), Broker())
    with caplog.at_level(logging.WARNING):
        neighbours.tell(configured(), many)
        neighbours.tell(configured(), many)
    assert caplog.text.count("17 labels") == 1


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ('[frigate]\nprefix = "tinysight"\n', "frigate.prefix"),
        ('[home_assistant]\ndiscovery_prefix = "tinysight/v1"\n', "home_assistant.discovery_prefix"),
        ('[frigate]\n[cameras.dock]\nsource = "1"\n', "cameras.cam0.zones.dock"),
    ],
)
def test_topics_that_would_collide_are_refused(configured: Make, more: str, key: str) -> None:
    assert [finding.key for finding in contradictions(configured(more))] == [key]


@pytest.mark.parametrize("more", ["", "[home_assistant]\n[frigate]\n", '[cameras.dock]\nsource = "1"\n'])
def test_what_does_not_collide_is_not(configured: Make, more: str) -> None:
    assert contradictions(configured(more)) == []


def test_a_label_for_home_assistant_that_the_model_does_not_know_is_found(configured: Make) -> None:
    found = unknown_labels(configured('[home_assistant]\nlabels = ["7", "8"]\n'), ["7"])
    assert [each.key for each in found] == ["home_assistant.labels[1]"]
