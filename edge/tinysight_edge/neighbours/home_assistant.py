"""Home Assistant: one discovery message, by which it finds the device and all that it counts.

In: the configuration and `Info`.  Out: `Discovery`, one retained message. Pure. Everything Home Assistant shows then
comes from the contract's own topics, read by the templates in that message; no state is told twice.

The fields are those of Home Assistant 2025.4 (``homeassistant/components/mqtt/schemas.py`` and one file per platform).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tinysight_contract import topics as t
from tinysight_contract.messages import CameraState, EventType, Info, Well
from tinysight_edge.config.types import AgentConfig

__all__ = ["MANY_LABELS", "Discovery", "discovery", "labels_shown"]

MANY_LABELS: Final = 16
"""A model with more labels gets a sensor for each only where the configuration names them."""
HERE: Final = "{{ 'online' if value_json is defined and value_json.state == 'online' else 'offline' }}"
MAX_GONE: Final = 500
"""So many components that are gone are named in the message, for a Home Assistant that was away meanwhile."""
MIB: Final = {"device_class": "data_size", "unit_of_measurement": "MiB", "suggested_display_precision": 0}

Component = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Discovery:
    """What Home Assistant is told.

    Attributes:
        topic: where, retained.
        payload: JSON.
        platforms: by component, such as ``sensor``: all that is in the payload, and what once was.
    """

    topic: str
    payload: bytes
    platforms: dict[str, str]


def labels_shown(config: AgentConfig, labels: list[str]) -> list[str]:
    """Which labels of the model get sensors of their own."""
    wanted = config.home_assistant.labels if config.home_assistant is not None else None
    if wanted is not None:
        return [label for label in labels if label in wanted]
    return labels if len(labels) <= MANY_LABELS else []


def discovery(
    config: AgentConfig, info: Info, *, wanted: str | None = None, known: Mapping[str, str] | None = None
) -> Discovery | None:
    """The message for this device; None when the configuration does not ask for it.

    Args:
        config: what is configured.
        info: what the device is and runs.
        wanted: digest of the bundle that the operator wants; None for the one that runs.
        known: what an earlier message held, by component. What is gone since is named with its platform and nothing
            else, which is how Home Assistant is told to remove it.
    """
    if config.home_assistant is None:
        return None
    me = f"tinysight_{config.site}_{config.device}"
    made = dict(_device(config, wanted))
    for id_ in config.cameras:
        made |= _camera(config, id_, labels_shown(config, info.bundle.labels))
    shown = {key: {**component, "unique_id": f"{me}_{key}"} for key, component in made.items()}
    gone = [(key, platform) for key, platform in (known or {}).items() if key not in shown][-MAX_GONE:]
    platforms = {**dict(gone), **{key: component["platform"] for key, component in shown.items()}}
    message = {
        "device": {
            "identifiers": [me],
            "name": f"{config.site} {config.device}",
            "manufacturer": "TinySight",
            "model": str(info.hardware.get("model", "")),
            "sw_version": info.software.get("tinysight", ""),
        },
        "origin": {"name": "TinySight", "sw_version": info.software.get("tinysight", "")},
        "availability": [_available(t.StatusTopic(config.site, config.device))],
        "qos": 1,
        "components": {key: shown.get(key, {"platform": platform}) for key, platform in platforms.items()},
    }
    # The device's id is a level of its own, so that a broker can let each device write its own message and no other.
    topic = "/".join(
        (config.home_assistant.discovery_prefix, "device", f"tinysight_{config.site}", config.device, "config")
    )
    text = json.dumps(message, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Discovery(topic, text.encode(), platforms)


def _device(config: AgentConfig, wanted: str | None) -> Iterator[tuple[str, Component]]:
    me = config.site, config.device
    health = {"state_topic": str(t.HealthTopic(*me)), "entity_category": "diagnostic"}
    figure = {**health, "platform": "sensor", "state_class": "measurement"}
    yield (
        "verdict",
        {
            **health,
            "platform": "sensor",
            "name": "Verdict",
            "device_class": "enum",
            "options": [str(each) for each in Well],
            "value_template": _read("value_json.verdict.state"),
            "json_attributes_topic": health["state_topic"],
            "json_attributes_template": _read("value_json.verdict | tojson", "{}"),
        },
    )
    for key, name, value, kind in (
        ("temperature", "Temperature", "temperature_c", {"device_class": "temperature", "unit_of_measurement": "°C"}),
        ("cpu", "CPU", "cpu_percent", {"unit_of_measurement": "%"}),
        ("memory", "Memory", "memory_mib", MIB),
        ("disk-free", "Disk free", "disk_free_mib", MIB),
        ("waiting", "Events waiting", "outbox.depth", {}),
    ):
        yield key, {**figure, "name": name, "value_template": _read(f"value_json.{value}"), **kind}
    latest = "b.version"
    if wanted is not None:  # of a bundle that is not here only the digest is known
        latest = f"(b.version if b.digest == {_text(wanted)} else {_text('sha256 ' + wanted[:12])})"
    yield (
        "model",
        {
            "platform": "update",
            "name": "Model",
            "entity_category": "diagnostic",
            "state_topic": str(t.InfoTopic(*me)),
            "value_template": "{% if value_json is defined %}{% set b = value_json.bundle %}"
            f"{{{{ {{'installed_version': b.version, 'latest_version': {latest}, 'title': b.name}} | tojson }}}}"
            "{% endif %}",
        },
    )


def _camera(config: AgentConfig, camera: str, labels: list[str]) -> Iterator[tuple[str, Component]]:
    """A camera's own state is there whenever the device is; what it counts, while it delivers."""
    me = config.site, config.device
    status = t.CameraStatusTopic(*me, camera)
    seen = {
        "state_topic": str(t.CountsTopic(*me, camera)),
        "availability": [_available(t.StatusTopic(*me)), _available(status)],
        "availability_mode": "all",
    }
    number = {**seen, "platform": "sensor", "state_class": "measurement"}
    presence = {**seen, "platform": "binary_sensor", "device_class": "occupancy"}
    diagnostic = {"platform": "sensor", "entity_category": "diagnostic"}
    yield (
        f"{camera}_status",
        {
            **diagnostic,
            "name": f"{camera} status",
            "state_topic": str(status),
            "device_class": "enum",
            "options": [str(each) for each in CameraState],
            "value_template": _read("value_json.state"),
            "json_attributes_topic": str(status),
            "json_attributes_template": _read(
                "{'reason': value_json.reason, 'since': value_json.since} | tojson", "{}"
            ),
        },
    )
    yield (
        f"{camera}_fps",
        {
            **diagnostic,
            "name": f"{camera} frame rate",
            "state_topic": str(t.HealthTopic(*me)),
            "state_class": "measurement",
            "unit_of_measurement": "fps",
            "value_template": _read(f"value_json.cameras.get({_text(camera)}, {{}}).get('fps')"),
        },
    )
    yield (
        f"{camera}_event",
        {
            "platform": "event",
            "name": f"{camera} event",
            "state_topic": str(t.EventTopic(*me, camera)),
            "event_types": [str(each) for each in EventType],
            "value_template": "{% if value_json is defined %}{% set e = value_json %}"
            "{{ {'event_type': e.type, 'id': e.id, 'label': e.label, 'score': e.score, 'best_score': e.best_score,"
            " 'zones': e.zones.now, 'rules': e.rules, 'replayed': e.replayed, 'seen_at': e.seen_at} | tojson }}"
            "{% endif %}",
        },
    )
    total = "value_json.objects"
    attributes = {
        "json_attributes_topic": seen["state_topic"],
        "json_attributes_template": _read(f"{total} | tojson", "{}"),
    }
    yield f"{camera}_objects", {**number, "name": f"{camera} objects", "value_template": _sum(total), **attributes}
    yield f"{camera}_presence", {**presence, "name": f"{camera} occupied", "value_template": _any(total)}
    for label in labels:
        value = _read(f"value_json.objects.get({_text(label)})")
        yield f"{camera}_count_{_slug(label)}", {**number, "name": f"{camera} {label}", "value_template": value}
    for zone, about in config.cameras[camera].zones.items():
        within = f"value_json.zones.get({_text(zone)}, {{}})"
        name = f"{camera} {zone}"
        yield f"{camera}_zone_{zone}", {**presence, "name": f"{name} occupied", "value_template": _any(within)}
        for label in labels:
            if about.labels is None or label in about.labels:
                value = _read(f"{within}.get({_text(label)})")
                key = f"{camera}_zone_{zone}_{_slug(label)}"
                yield key, {**number, "name": f"{name} {label}", "value_template": value}
    for line in config.cameras[camera].lines:
        for way in ("in", "out"):
            value = _read(f"value_json.lines.get({_text(line)}, {{}}).get('{way}')")
            crossed = {**number, "state_class": "total_increasing", "value_template": value}
            yield f"{camera}_line_{line}_{way}", {**crossed, "name": f"{camera} {line} {way}"}


def _available(topic: t.Topic) -> dict[str, str]:
    return {
        "topic": str(topic),
        "value_template": HERE,
        "payload_available": "online",
        "payload_not_available": "offline",
    }


def _read(expression: str, otherwise: str = "None") -> str:
    """A template for it; an empty payload, which clears a topic, has no ``value_json``."""
    return f"{{% if value_json is defined %}}{{{{ {expression} }}}}{{% else %}}{otherwise}{{% endif %}}"


def _sum(counts: str) -> str:
    return _read(f"{counts}.values() | sum")


def _any(counts: str) -> str:
    return _read(f"'ON' if ({counts}.values() | sum) > 0 else 'OFF'")


def _text(text: str) -> str:
    """A text as Jinja reads it: JSON's escapes are among those that Jinja knows."""
    return json.dumps(text, ensure_ascii=False)


def _slug(label: str) -> str:
    """A label as part of an id; with a digest where letters are lost, so that no two labels share one."""
    plain = re.sub(r"[^a-z0-9-]+", "_", label.lower())
    return plain if plain == label else f"{plain}_{hashlib.sha256(label.encode()).hexdigest()[:6]}"
