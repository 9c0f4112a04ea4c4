"""The example dashboards of Grafana and Home Assistant, as far as that can be told without them.

Grafana's questions go to a real PostgreSQL, with its macros put in as its source and documentation say; what Home
Assistant's dashboard names is what discovery makes of the example's configuration. ``examples/README.md`` says what
was run.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec.structs import replace

from tinysight_contract.messages import Counts, Event, EventType, Health, Info, Well, decode, encode
from tinysight_edge.config.compare import read_leaf
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.neighbours.home_assistant import discovery

ROOT = Path(__file__).parents[3]
EXAMPLES, GOLDEN = ROOT / "examples", ROOT / "tests" / "golden"
GRAFANA: dict[str, Any] = json.loads((EXAMPLES / "grafana" / "dashboard.json").read_bytes())
HOME: dict[str, Any] = yaml.safe_load((EXAMPLES / "home-assistant" / "dashboard.yaml").read_text())
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NUMBERS = {"bigint", "integer", "numeric", "double precision"}
Sql = Callable[[str], list[str]]


def asked(question: str, *, devices: str = "'belt-7','belt-8'") -> str:
    """What Grafana sends to PostgreSQL: an hour that ends now, in steps of a minute."""
    start, end = ((NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ") for age in (timedelta(hours=1), timedelta()))
    question = question.replace("$site", "'plant-1'").replace("$device", devices).replace("$__interval", "1m")
    question = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{start}' AND '{end}'", question)
    group = r'floor(extract(epoch from \1)/60)*60 AS "time"'
    question = re.sub(r"\$__timeGroupAlias\((\w+), 1m\)", group, question)
    assert "$" not in question
    return question


@pytest.fixture
def full(sql: Sql, inbox: Any, event: Event, counts: Counts) -> Sql:
    """Ten minutes of two devices; one of them lost an event, and is not well."""
    health = decode((GOLDEN / "health.json").read_bytes(), Health)
    for device in ("belt-7", "belt-8"):
        rows: list[tuple[str, bytes]] = []
        for minute in range(10):
            at = NOW - timedelta(minutes=10 - minute)
            end = at if minute % 2 else None
            seq = minute + (device == "belt-8" and minute > 4)
            of = {"device": device, "boot_id": device, "seq": seq, "seen_at": at, "label": str(minute % 3)}
            one = replace(event, **of, type=EventType.END if end else EventType.START, ended_at=end)
            verdict = replace(health.verdict, state=Well.OK if device == "belt-7" else Well.FAILING)
            well = replace(health, at=at, verdict=verdict, temperature_c=50.0, outbox=replace(health.outbox, depth=4))
            rows += [("event", encode(one)), ("counts", encode(replace(counts, at=at))), ("health", encode(well))]
        inbox(rows, device=device)
    return sql


def test_each_panel_of_grafana_gets_rows_of_the_columns_that_its_kind_needs(full: Sql) -> None:
    for panel in GRAFANA["panels"]:
        (target,) = panel["targets"]
        question = asked(target["rawSql"])
        columns = dict(line.rsplit("|", 1) for line in full(f"{question} \\gdesc"))
        rows = [line.split("|") for line in full(question)]
        kinds = list(columns.values())
        match panel["type"], target["format"]:
            case "stat", "table":  # one number
                assert len(rows) == 1
                assert len(kinds) == 1
                assert kinds[0] in NUMBERS, panel["title"]
            case "timeseries", "time_series":  # of three columns "metric" is the name of the line; sorted by time
                assert list(columns)[:2] == ["time", "metric"]
                assert kinds[0] in {"timestamp with time zone", *NUMBERS}
                assert (kinds[1], len(kinds)) == ("text", 3)
                assert kinds[2] in NUMBERS, panel["title"]
                times = [row[0] for row in rows]
                assert times == sorted(times)
                assert len({(row[0], row[1]) for row in rows}) == len(rows) >= 5, "one value at a time of each line"
            case "table", "table":
                assert columns["time"] == "timestamp with time zone"
                assert len(rows) == 20
            case other:
                raise AssertionError(other)


def test_the_figures_of_grafana_are_those_of_the_messages(full: Sql) -> None:
    def figure(title: str, **options: Any) -> list[str]:
        (panel,) = (each for each in GRAFANA["panels"] if each["title"] == title)
        return full(asked(panel["targets"][0]["rawSql"], **options))

    assert figure("Objects that came") == ["10"]
    assert figure("Objects that came", devices="'belt-7'") == ["5"]
    assert figure("Events missing here") == ["1"]
    assert figure("Events waiting on devices") == ["8"]
    assert figure("Devices that are not well") == ["1"]
    assert {line.split("|")[1] for line in figure("Temperature")} == {"plant-1 belt-7", "plant-1 belt-8"}
    assert "plant-1 belt-7 cam0 dock 7" in {line.split("|")[1] for line in figure("Present, at most")}


def test_the_choices_of_grafana_are_the_sites_and_their_devices(full: Sql) -> None:
    queries = {each["name"]: each["query"] for each in GRAFANA["templating"]["list"] if each["type"] == "query"}
    assert full(asked(queries["site"])) == ["plant-1"]
    assert sorted(full(asked(queries["device"]))) == ["belt-7", "belt-8"]


def test_the_dashboard_of_grafana_is_whole() -> None:
    ids = [panel["id"] for panel in GRAFANA["panels"]]
    assert len(set(ids)) == len(ids)
    places = {(x, y) for panel in GRAFANA["panels"] for x in _span(panel, "x", "w") for y in _span(panel, "y", "h")}
    assert len(places) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in GRAFANA["panels"])
    assert max(x for x, _ in places) < 24


def _span(panel: dict[str, Any], start: str, length: str) -> range:
    at = panel["gridPos"]
    return range(at[start], at[start] + at[length])


def test_what_grafana_is_given_at_its_start_is_what_the_dashboard_reads() -> None:
    given = EXAMPLES / "grafana" / "provisioning"
    (source,) = yaml.safe_load((given / "datasources" / "tinysight.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((given / "dashboards" / "tinysight.yaml").read_text())["providers"]
    (choice,) = (each for each in GRAFANA["templating"]["list"] if each["type"] == "datasource")
    assert source["type"] == choice["query"]
    assert {panel["datasource"]["type"] for panel in GRAFANA["panels"]} == {source["type"]}
    assert source["secureJsonData"]["password"].startswith("$__env{"), "no password in the file"
    assert source["jsonData"]["database"] == "tinysight"
    assert provider["type"] == "file"
    assert provider["options"]["path"]


def entities(part: object) -> Iterator[str]:
    """Each entity that a part of Home Assistant's dashboard names, also within templates."""
    match part:
        case dict():
            for each in part.values():
                yield from entities(each)
        case list():
            for each in part:
                yield from entities(each)
        case str():
            yield from re.findall(r"\b(?:binary_sensor|sensor|event|update)\.\w+", part)


def test_home_assistants_dashboard_names_what_discovery_makes_of_the_example(info: Info) -> None:
    raw = tomllib.loads((EXAMPLES / "agent.toml").read_text())
    config = msgspec.convert(raw, AgentConfig, dec_hook=read_leaf)
    labels = [str(digit) for digit in range(10)]
    found = discovery(config, replace(info, bundle=replace(info.bundle, labels=labels)))
    assert found is not None
    message = json.loads(found.payload)

    def id_(component: dict[str, Any]) -> str:  # as Home Assistant makes it of the names
        name = f"{message['device']['name']} {component['name']}".lower()
        return f"{component['platform']}.{re.sub('[^a-z0-9]+', '_', name)}"

    made = {id_(component) for component in message["components"].values()}
    named = set(entities(HOME))
    assert named <= made, "docs/neighbours.md tells the names"
    assert len(named) > 20
    assert {each for each in made if each.startswith(("event.", "binary_sensor."))} <= named
