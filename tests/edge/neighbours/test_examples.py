"""The examples for other people's software, as far as that software is here: ``examples/README.md`` says what is."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.messages import Event, Info, encode
from tinysight_contract.topics import parse
from tinysight_edge.neighbours.home_assistant import discovery

ROOT = Path(__file__).parents[3]
EXAMPLES, GOLDEN = ROOT / "examples", ROOT / "tests" / "golden"
FLOW: list[dict[str, Any]] = json.loads((EXAMPLES / "node-red" / "flow.json").read_bytes())
TELEGRAF = tomllib.loads((EXAMPLES / "telegraf" / "telegraf.conf").read_text())


def of_contract(filter_: str) -> str:
    """A topic that the filter lets through, if the contract has one."""
    return str(parse(filter_.replace("+", "x")))


def test_the_flow_is_whole() -> None:
    nodes = {node["id"]: node for node in FLOW}
    assert len(nodes) == len(FLOW)
    for node in FLOW:
        assert node.get("z", "tab") == "tab"
        assert node.get("broker", "broker") in {"broker", "127.0.0.1"}
        assert {target for wire in node.get("wires", []) for target in wire} <= nodes.keys(), node["id"]
        if node["type"] == "function":
            assert len(node["wires"]) == node["outputs"], node["id"]
        if node["type"] == "mqtt in":
            of_contract(node["topic"])


HARNESS = """
const flow = JSON.parse(require("fs").readFileSync(process.argv[1])), given = JSON.parse(process.argv[2]);
const code = flow.find(node => node.id === given.id).func, kept = {};
const context = {get: key => kept[key], set: (key, value) => { kept[key] = value; }};
const node = {warn: () => {}, status: () => {}}, run = new Function("msg", "context", "node", code);
console.log(JSON.stringify(given.messages.map(msg => { const got = run(msg, context, node); return got ?? null; })));
"""


@pytest.fixture
def run_function() -> Callable[[str, list[dict[str, Any]]], list[Any]]:
    """Run a function of the flow with messages, one after the other: what it gives for each."""
    beside = str(Path(sys.executable).parent)  # node as the development dependencies bring it
    if (node := shutil.which("node", path=f"{beside}{os.pathsep}{os.environ['PATH']}")) is None:
        pytest.skip("node is not installed; the development dependencies bring it")

    def run(id_: str, messages: list[dict[str, Any]]) -> list[Any]:
        given = json.dumps({"id": id_, "messages": messages})
        command = [node, "-e", HARNESS, str(EXAMPLES / "node-red" / "flow.json"), given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    return run


def test_the_flow_finds_what_is_missing_and_lets_nothing_through_twice(run_function: Any, event: Event) -> None:
    seqs = [17, 18, 18, 21, 19, 20, 24]
    messages = [{"payload": json.loads(encode(replace(event, seq=seq))), "device": "p/b"} for seq in seqs]
    got = run_function("gaps", messages)
    assert [first["payload"]["seq"] if first else None for first, _ in got] == [17, 18, None, 21, 19, 20, 24]
    assert [second["payload"]["missing"] if second else None for _, second in got] == [
        None, None, None, 2, 1, 0, 2,
    ]  # fmt: skip
    again = [*messages, {"payload": {**messages[0]["payload"], "boot_id": "b2", "seq": 1}, "device": "p/b"}]
    assert run_function("gaps", again)[-1][0]["payload"]["seq"] == 1, "another start counts anew"


def test_the_flow_says_who_comes_and_who_leaves(run_function: Any) -> None:
    topic = "tinysight/v1/plant-1/belt-7/camera/cam0/counts"

    def counts(objects: int, dock: int) -> dict[str, Any]:
        said = {"objects": {"7": objects, "8": 0}, "zones": {"dock": {"7": dock}}, "lines": {}}
        return {"topic": topic, "payload": json.dumps(said)}

    messages = [counts(0, 0), counts(2, 1), counts(1, 1), counts(1, 0), {"topic": topic, "payload": ""}]
    got = [[(each["topic"], each["payload"]) for each in changed] for (changed,) in run_function("presence", messages)]
    here, dock = "plant-1/belt-7/cam0", "plant-1/belt-7/cam0 dock"
    assert got == [[(here, False), (dock, False)], [(here, True), (dock, True)], [], [(dock, False)], [(here, False)]]


def test_a_late_will_marks_no_device_dead_in_the_flow(run_function: Any) -> None:
    said = [("online", "b2"), ("offline", "b1"), ("offline", "b2")]
    messages = [
        {"topic": "tinysight/v1/p/b/status", "payload": json.dumps({"state": s, "boot_id": b, "reason": ""})}
        for s, b in said
    ]
    got = run_function("devices", [*messages, {"topic": "tinysight/v1/p/b/status", "payload": ""}])
    assert [each and each["payload"] for each in got] == ["online", None, "offline", None]


def test_the_event_reader_of_the_flow_takes_events_and_nothing_else(run_function: Any, event: Event) -> None:
    topic = "tinysight/v1/plant-1/belt-7/camera/cam0/event"
    payloads: list[Any] = [json.loads(encode(event)), {}, "text", None]
    got = run_function("read", [{"topic": topic, "payload": payload} for payload in payloads])
    assert (got[0]["event"], got[0]["device"], got[0]["text"]) == ("start", "plant-1/belt-7", "cam0: 7 start")
    assert got[1:] == [None, None, None]


def test_telegraf_takes_each_level_of_the_topics_by_its_name() -> None:
    (source,) = TELEGRAF["inputs"]["mqtt_consumer"]
    assert {each["topic"] for each in source["topic_parsing"]} == set(source["topics"])
    for each in source["topic_parsing"]:
        levels, tags = each["topic"].split("/"), each["tags"].split("/")
        assert len(levels) == len(tags)
        assert [tag for level, tag in zip(levels, tags, strict=True) if level == "+"] == [
            tag for tag in tags if tag not in {"_", "kind"}
        ]
        assert tags[-1] == "kind"
        of_contract(each["topic"])


def test_messages_come_once_into_their_tables_however_often_they_are_given(
    sql: Callable[[str], list[str]], inbox: Any, event: Event, counts: Any
) -> None:
    health = (GOLDEN / "health.json").read_bytes()
    seqs = (1, 2, 2, 5)
    rows = [("event", encode(replace(event, seq=seq, label="it's \"\\ é"))) for seq in seqs]
    rows += [("counts", encode(counts)), ("health", health), ("event", b""), ("event", b"no json"), ("event", b"{}")]
    for _ in range(2):
        inbox(rows)
    assert sql("SELECT seq, label, time AT TIME ZONE 'UTC', camera FROM event ORDER BY seq") == [
        f"{seq}|it's \"\\ é|2026-11-25 12:30:15.25|cam0" for seq in (1, 2, 5)
    ]
    assert sql("SELECT events, missing FROM missing") == ["3|2"]
    assert sql("SELECT zone, number FROM counts WHERE label = '7' ORDER BY zone") == ["|2", "dock|1"]
    assert sql("SELECT line, direction, total FROM crossed ORDER BY direction") == ["door|in|4", "door|out|1"]
    assert sql("SELECT verdict, waiting, temperature_c, cpu_percent FROM health") == ["ok|0||7.5"]
    assert sql("SELECT camera, fps, age_p95_ms FROM camera_health") == ["cam0|15|2.1"]
    assert sql("SELECT count(*) FROM inbox") == ["0"]


def test_brokers_can_let_each_device_write_to_neighbours_and_no_other(configured: Any, info: Info) -> None:
    found = discovery(configured(), info)
    assert found is not None
    assert found.topic.split("/")[-2] == "belt-7", "pattern write homeassistant/device/+/%u/config"
