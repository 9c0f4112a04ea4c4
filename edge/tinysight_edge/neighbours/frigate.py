"""Frigate's topics, for software that reads those: what is seen here, said as Frigate says it.

In: events, counts and states of the contract.  Out: topics and payloads under the configured prefix. Pure but for what
`Translator` remembers. Frigate's HTTP interface, recordings, reviews and commands are not here.

The fields are those of blakeblackshear/frigate, ``docs/integrations/mqtt.md`` and ``frigate/track/tracked_object.py``
as read on 2026-11-26, but for speed, review and plates. Boxes are in pixels of the frame, times in seconds since 1970.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tinysight_contract.messages import CameraState, Counts, Event, EventType, decode
from tinysight_edge.config.types import AgentConfig, CameraConfig

__all__ = ["MAX_OBJECTS", "Translator", "available", "counts_of", "retained", "state_of"]

MAX_OBJECTS: Final = 1000
"""So many objects' last event is remembered, for the ``before`` of the next."""
ALL: Final = "all"
TYPES: Final = {EventType.START: "new", EventType.UPDATE: "update", EventType.END: "end"}
DETECTS: Final = {CameraState.ONLINE: b"online", CameraState.DISABLED: b"disabled"}


class Translator:
    """Makes of each event what Frigate would say of it. Belongs to one thread."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, tuple[tuple[str, int], dict[str, Any], dict[str, Any]]] = OrderedDict()

    def translate(self, prefix: str, payload: bytes) -> tuple[str, bytes]:
        """Topic and payload for an event of the contract; the same again for one that is sent again.

        ``before`` is what was last said of the object; of one that is not known any more, as after a restart, it is
        ``after``.

        Raises:
            ContractError: it is no event.
        """
        event = decode(payload, Event)
        after, number = _tracked(event), (event.boot_id, event.seq)
        last_number, before, last = self._last.pop(event.id, (None, after, after))
        if last_number != number:
            before = last
        self._last[event.id] = number, before, after
        if len(self._last) > MAX_OBJECTS:
            self._last.popitem(last=False)
        message = {"type": TYPES[event.type], "before": before, "after": after}
        return _topic(prefix, "events"), msgspec.json.encode(message)


def available(prefix: str, *, here: bool) -> tuple[str, bytes]:
    """Whether the agent runs. A connection has one will, which is the contract's: a kill is not told here."""
    return _topic(prefix, "available"), b"online" if here else b"offline"


def retained(
    config: AgentConfig, labels: Iterable[str], counts: Mapping[str, Counts], states: Mapping[str, CameraState]
) -> dict[str, bytes]:
    """All retained topics but ``available``: counts, zero where nothing is known yet, and what each camera does."""
    if config.frigate is None:
        return {}
    told: dict[str, bytes] = {}
    for id_ in config.cameras:
        told |= counts_of(config, labels, id_, counts)
        told |= state_of(config, id_, states.get(id_))
    return told


def state_of(config: AgentConfig, camera: str, state: CameraState | None) -> dict[str, bytes]:
    """Whether a camera detects; None when nothing was heard of it."""
    if config.frigate is None:
        return {}
    payload = b"offline" if state is None else DETECTS.get(state, b"offline")
    return {_topic(config.frigate.prefix, camera, "status", "detect"): payload}


def counts_of(
    config: AgentConfig, labels: Iterable[str], camera: str, counts: Mapping[str, Counts]
) -> dict[str, bytes]:
    """A camera's counts and those of its zones; a zone that several cameras have is counted over all of them."""
    if config.frigate is None:
        return {}
    cameras, labels = config.cameras, list(labels)
    mine = counts[camera].objects if camera in counts else {}
    places = {camera: {label: mine.get(label, 0) for label in labels}}
    for zone in cameras[camera].zones:
        sums = dict.fromkeys(_counted(cameras, zone, labels), 0)
        for id_, each in counts.items():
            if id_ in cameras and zone in cameras[id_].zones:
                for label, number in each.zones.get(zone, {}).items():
                    if label in sums:
                        sums[label] += number
        places[zone] = sums
    return {
        _topic(config.frigate.prefix, place, _level(name)): str(number).encode()
        for place, numbers in places.items()
        for name, number in (*numbers.items(), (ALL, sum(numbers.values())))
    }


def _counted(cameras: Mapping[str, CameraConfig], zone: str, labels: list[str]) -> list[str]:
    """Which labels count in a zone in any camera that has it."""
    limits = [camera.zones[zone].labels for camera in cameras.values() if zone in camera.zones]
    return [label for label in labels if any(limit is None or label in limit for limit in limits)]


def _tracked(event: Event) -> dict[str, Any]:
    width, height = event.frame.width, event.frame.height
    x1, y1, x2, y2 = (
        round(share * side) for share, side in zip(event.box, (width, height, width, height), strict=True)
    )
    return {
        "id": event.id,
        "camera": event.camera,
        "frame_time": event.seen_at.timestamp(),
        "snapshot": None,
        "label": event.label,
        "sub_label": None,
        "score": event.score,
        "top_score": event.best_score,
        "false_positive": False,
        "start_time": event.started_at.timestamp(),
        "end_time": event.ended_at.timestamp() if event.ended_at is not None else None,
        "box": [x1, y1, x2, y2],
        "area": (x2 - x1) * (y2 - y1),
        "ratio": round((x2 - x1) / max(y2 - y1, 1), 2),
        "region": [0, 0, width, height],
        "active": not event.track.stationary,
        "stationary": event.track.stationary,
        "motionless_count": 0,
        "position_changes": 0,
        "current_zones": event.zones.now,
        "entered_zones": event.zones.entered,
        "has_clip": False,
        "has_snapshot": False,
        "thumbnail": None,
        "attributes": {},
        "current_attributes": [],
        "path_data": [],
    }


def _topic(*levels: str) -> str:
    return "/".join(levels)


def _level(label: str) -> str:
    """A label as one level of a topic."""
    return re.sub(r"[/+#\0]", "_", label)
