"""What Home Assistant is told: its own fields, and templates that read the contract's payloads.

``real_home_assistant.py`` beside this file shows the golden message to a real Home Assistant.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from msgspec.structs import replace

from tinysight_contract.messages import Counts, Info, encode
from tinysight_contract.topics import parse
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.neighbours import home_assistant
from tinysight_edge.neighbours.home_assistant import Discovery, discovery

GOLDEN = Path(__file__).parents[2] / "golden"
ODD = 'it\'s "}}" {% \\ é😀'
ODD_ID = "it_s__fab4f5"

# Of Home Assistant 2025.4.4, homeassistant/components/mqtt/: schemas.py (MQTT_ENTITY_COMMON_SCHEMA), config.py
# (MQTT_RO_SCHEMA) and PLATFORM_SCHEMA_MODERN of each platform; read and run on 2026-11-26.
COMMON = {
    "platform", "unique_id", "name", "state_topic", "value_template", "qos", "availability", "availability_mode",
    "entity_category", "icon", "json_attributes_topic", "json_attributes_template", "enabled_by_default", "object_id",
}  # fmt: skip
PLATFORMS = {
    "sensor": {"device_class", "options", "state_class", "unit_of_measurement", "suggested_display_precision"},
    "binary_sensor": {"device_class", "payload_on", "payload_off", "off_delay"},
    "event": {"device_class", "event_types"},
    "update": {"device_class", "latest_version_topic", "latest_version_template", "title", "display_precision"},
}
CLASSES: dict[str, set[str | None]] = {
    "sensor": {"enum", "temperature", "data_size", None},
    "binary_sensor": {"occupancy"},
    "event": {None},
    "update": {None},
}

Make = Callable[..., AgentConfig]


def told(config: AgentConfig, info: Info, **more: Any) -> tuple[Discovery, dict[str, dict[str, Any]]]:
    found = discovery(config, info, **more)
    assert found is not None
    return found, json.loads(found.payload)["components"]


def rendered(template: str, payload: bytes) -> str:
    """As Home Assistant does, but that nothing may be missing."""
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    known = {"value_json": json.loads(payload)} if payload else {}
    return environment.from_string(template).render(value=payload.decode(), **known)


def test_the_message_is_the_one_that_home_assistant_took(
    configured: Make, info: Info, golden: Callable[[str, bytes], None]
) -> None:
    found, _ = told(configured(), info, known={"cam9_status": "sensor"})
    assert found.topic == "homeassistant/device/tinysight_plant-1/belt-7/config"
    golden("home-assistant.json", msgspec.json.format(found.payload, indent=1) + b"\n")


def test_each_template_reads_what_it_says(configured: Make, info: Info, counts: Counts) -> None:
    payloads = {
        f"tinysight/v1/plant-1/belt-7/{name}": (GOLDEN / f"{name}.json").read_bytes() for name in ("health", "status")
    }
    payloads["tinysight/v1/plant-1/belt-7/info"] = encode(info)
    camera = "tinysight/v1/plant-1/belt-7/camera/cam0"
    for name, payload in (
        ("counts", encode(counts)),
        ("status", (GOLDEN / "camerastatus.json").read_bytes()),
        ("event", (GOLDEN / "event.json").read_bytes()),
    ):
        payloads[f"{camera}/{name}"] = payload
    _, components = told(configured(), info)
    shown = {k: rendered(c["value_template"], payloads[c["state_topic"]]) for k, c in components.items()}
    event, model = json.loads(shown.pop("cam0_event")), json.loads(shown.pop("model"))
    assert shown == {
        "verdict": "ok", "temperature": "None", "cpu": "7.5", "memory": "98.0", "disk-free": "10240.0", "waiting": "0",
        "cam0_status": "online", "cam0_fps": "15.0", "cam0_objects": "6", "cam0_presence": "ON",
        "cam0_count_7": "2", f"cam0_count_{ODD_ID}": "1", "cam0_count_traffic_light_34d739": "3",
        "cam0_zone_dock": "ON", "cam0_zone_dock_7": "1", "cam0_line_door_in": "4", "cam0_line_door_out": "1",
    }  # fmt: skip
    assert event == {
        "event_type": "start", "id": "19a1b2c3d4e-0a1b2c3d", "label": "7", "score": 0.9375, "best_score": 0.9531,
        "zones": [], "rules": [], "replayed": False, "seen_at": "2026-11-25T12:30:15.250000Z",
    }  # fmt: skip
    assert model == {"installed_version": "1.2.0", "latest_version": "1.2.0", "title": "belt"}
    attributes = {
        key: json.loads(rendered(c["json_attributes_template"], payloads[c["json_attributes_topic"]]))
        for key, c in components.items()
        if "json_attributes_template" in c
    }
    assert attributes == {
        "verdict": {"code": "ok", "mend": "", "state": "ok", "what": ""},
        "cam0_status": {"reason": "the source delivers", "since": "2026-11-25T12:30:15.250000Z"},
        "cam0_objects": {"7": 2, "traffic light": 3, ODD: 1},
    }


def test_nobody_is_present_where_nothing_is_counted(configured: Make, info: Info, counts: Counts) -> None:
    _, components = told(configured(), info)
    empty = encode(replace(counts, objects=dict.fromkeys(counts.objects, 0), zones={"dock": {"7": 0}}))
    for key in ("cam0_presence", "cam0_zone_dock"):
        assert rendered(components[key]["value_template"], empty) == "OFF"
    other = encode(replace(counts, zones={}, lines={}))  # retained before the zone was there
    assert rendered(components["cam0_zone_dock"]["value_template"], other) == "OFF"
    assert rendered(components["cam0_zone_dock_7"]["value_template"], other) == "None"


def test_a_cleared_topic_breaks_no_template(configured: Make, info: Info) -> None:
    found, components = told(configured(), info)
    for component in components.values():
        assert rendered(component["value_template"], b"") in {"None", ""}
        assert rendered(component.get("json_attributes_template", "{}"), b"") == "{}"
    for each in json.loads(found.payload)["availability"]:
        assert rendered(each["value_template"], b"") == "offline"


def test_what_a_blind_camera_counts_is_not_available(configured: Make, info: Info) -> None:
    _, components = told(configured(), info)
    device, camera = components["cam0_presence"]["availability"]
    assert (str(parse(device["topic"])), parse(camera["topic"])) == (
        "tinysight/v1/plant-1/belt-7/status",
        parse("tinysight/v1/plant-1/belt-7/camera/cam0/status"),
    )
    status = (GOLDEN / "camerastatus.json").read_bytes()
    assert rendered(camera["value_template"], status) == "online"
    assert rendered(camera["value_template"], status.replace(b"online", b"stalled")) == "offline"
    assert "availability" not in components["cam0_status"], "a blind camera's own state is there"


def test_only_fields_that_home_assistant_knows_are_used(configured: Make, info: Info) -> None:
    found, components = told(configured(), info)
    message = json.loads(found.payload)
    assert set(message) == {"device", "origin", "availability", "qos", "components"}
    for key, component in components.items():
        platform = component["platform"]
        assert component.keys() <= COMMON | PLATFORMS[platform], key
        assert component.get("device_class") in CLASSES[platform], key
        assert ("options" in component) == (component.get("device_class") == "enum"), key
        assert not ("options" in component and "state_class" in component), key
        assert {"unique_id", "name", "state_topic", "value_template"} <= component.keys(), key
        assert " " not in key, "Home Assistant splits ids there"
        for name in ("state_topic", "json_attributes_topic"):
            if name in component:
                parse(component[name])


def test_ids_are_stable_and_no_two_share_one(configured: Make, info: Info) -> None:
    labels = ["a b", "a_b", "A b", "status", "a-b"]
    _, components = told(configured(), replace(info, bundle=replace(info.bundle, labels=labels)))
    counted = [key for key in components if "_count_" in key]
    assert len(counted) == len(labels)
    assert "cam0_count_a-b" in counted
    ids = [component["unique_id"] for component in components.values()]
    assert len(set(ids)) == len(ids)
    assert "tinysight_plant-1_belt-7_cam0_status" in ids


def test_what_is_gone_is_named_by_its_platform_alone(configured: Make, info: Info) -> None:
    before, _ = told(configured(), info)
    without = "".join(f"{line}\n" for line in (
        'site = "plant-1"', 'device = "belt-7"', '[broker]', 'url = "mqtt://h"', '[model]', 'bundle = "b"',
        '[cameras.cam0]', 'source = "0"',
    ))  # fmt: skip
    after, components = told(configured(text=without), info, known=before.platforms)
    gone = {key for key, component in components.items() if component.keys() == {"platform"}}
    assert gone == {"cam0_zone_dock", "cam0_zone_dock_7", "cam0_line_door_in", "cam0_line_door_out"}
    assert components["cam0_zone_dock"] == {"platform": "binary_sensor"}
    again, components = told(configured(), info, known=after.platforms)
    assert "unique_id" in components["cam0_zone_dock"]
    assert again.platforms == before.platforms


def test_what_is_gone_is_not_remembered_without_end(
    configured: Make, info: Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_assistant, "MAX_GONE", 2)
    found, _ = told(configured(), info, known={f"cam{n}_status": "sensor" for n in range(1, 6)})
    assert [key for key in found.platforms if key.endswith("_status")] == ["cam4_status", "cam5_status", "cam0_status"]


def test_a_model_with_many_labels_gets_sums_alone_unless_some_are_named(configured: Make, info: Info) -> None:
    many = replace(info, bundle=replace(info.bundle, labels=[f"l{n}" for n in range(17)]))
    _, components = told(configured(), many)
    assert not [key for key in components if "_count_" in key]
    assert {"cam0_objects", "cam0_zone_dock"} <= components.keys()
    _, components = told(configured('[home_assistant]\nlabels = ["l3", "l16"]\n'), many)
    assert [key for key in components if "_count_" in key] == ["cam0_count_l16", "cam0_count_l3"]


def test_another_bundle_that_is_wanted_is_an_update(configured: Make, info: Info) -> None:
    for wanted, latest in (("cd" * 32, "sha256 cdcdcdcdcdcd"), (info.bundle.digest, "1.2.0")):
        _, components = told(configured(), info, wanted=wanted)
        shown = json.loads(rendered(components["model"]["value_template"], encode(info)))
        assert (shown["installed_version"], shown["latest_version"]) == ("1.2.0", latest)


def test_nothing_is_told_unless_it_is_asked_for(configured: Make, info: Info) -> None:
    assert discovery(configured("[frigate]\n"), info) is None


@given(st.text())
def test_any_label_is_read_as_it_is(label: str) -> None:
    template = home_assistant._read(f"value_json.objects.get({home_assistant._text(label)})")
    assert rendered(template, json.dumps({"objects": {label: 5}}).encode()) == "5"
