"""Events and counts as Frigate's readers know them."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tinysight_contract.errors import ContractError
from tinysight_contract.messages import CameraState, Counts, Event, EventType, Zones, encode
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.neighbours import frigate
from tinysight_edge.neighbours.frigate import Translator

# What 0x2142/frigate-notify reads (models/event.go at 4d138af: names and Go types; a null is a Go string's "") and what
# the templates of Frigate's own guide for Home Assistant read (docs/docs/guides/ha_notifications.md); 2026-11-26.
READ = {
    "id": str, "camera": str, "label": str, "start_time": float, "top_score": float, "has_clip": bool,
    "has_snapshot": bool, "current_zones": list, "entered_zones": list, "sub_label": type(None),
    "thumbnail": type(None), "area": int, "box": list, "region": list, "ratio": float, "false_positive": bool,
}  # fmt: skip

Make = Callable[..., AgentConfig]


def said(translator: Translator, event: Event) -> dict[str, Any]:
    topic, payload = translator.translate("frigate", encode(event))
    assert topic == "frigate/events"
    message = json.loads(payload)
    assert message.keys() == {"type", "before", "after"}
    return dict(message)


def test_an_event_is_said_in_pixels_and_seconds(event: Event) -> None:
    zones = Zones(now=["dock"], entered=["dock", "gate"])
    message = said(Translator(), replace(event, zones=zones))
    after = message["after"]
    assert message["type"] == "new"
    assert after["box"] == [80, 30, 160, 105], "0.25, 0.125, 0.5, 0.4375 of 320x240"
    assert (after["area"], after["ratio"], after["region"]) == (6000, 1.07, [0, 0, 320, 240])
    assert (after["start_time"], after["frame_time"], after["end_time"]) == (1795609815.117, 1795609815.25, None)
    assert (after["score"], after["top_score"]) == (0.9375, 0.9531)
    assert (after["current_zones"], after["entered_zones"]) == (["dock"], ["dock", "gate"])
    assert (after["active"], after["stationary"]) == (True, False)
    assert {name: type(after[name]) for name in READ} == READ


def test_a_life_is_new_update_and_end_each_with_what_was_said_before(event: Event) -> None:
    translator = Translator()
    first = said(translator, event)
    assert first["before"] == first["after"]
    second = said(translator, replace(event, type=EventType.UPDATE, seq=18, score=0.5))
    assert (second["type"], second["before"], second["after"]["score"]) == ("update", first["after"], 0.5)
    ended_at = event.seen_at + timedelta(seconds=2)
    third = said(translator, replace(event, type=EventType.END, seq=19, ended_at=ended_at))
    assert (third["type"], third["before"], third["after"]["end_time"]) == ("end", second["after"], 1795609817.25)
    other = said(translator, replace(event, id="other", seq=20))
    assert other["before"] == other["after"]


def test_what_is_sent_again_is_said_again_as_it_was(event: Event) -> None:
    translator = Translator()
    said(translator, event)
    update = replace(event, type=EventType.UPDATE, seq=18, score=0.5)
    assert said(translator, update) == said(translator, replace(update, replayed=True))


def test_after_a_restart_an_object_has_no_before_but_itself(event: Event) -> None:
    end = replace(event, type=EventType.END, ended_at=event.seen_at, boot_id="b2", seq=1)
    message = said(Translator(), end)
    assert message["before"] == message["after"]


def test_no_more_objects_are_remembered_than_the_bound(event: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frigate, "MAX_OBJECTS", 2)
    translator = Translator()
    for seq, id_ in enumerate(("a", "b", "a", "c"), start=1):
        said(translator, replace(event, id=id_, seq=seq))
    update = replace(event, type=EventType.UPDATE, score=0.5)
    assert said(translator, replace(update, id="a", seq=5))["before"]["score"] == 0.9375, "it was heard of after b"
    assert said(translator, replace(update, id="b", seq=6))["before"]["score"] == 0.5, "forgotten"


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ContractError, match="Event"):
        Translator().translate("frigate", b"{}")


def test_counts_stand_under_their_camera_and_their_zones(configured: Make, counts: Counts) -> None:
    config = configured('[frigate]\nprefix = "belt-7"\n')
    told = frigate.counts_of(config, ["7", "a/b+c#"], "cam0", {"cam0": replace(counts, objects={"7": 2, "a/b+c#": 1})})
    assert told == {
        "belt-7/cam0/7": b"2", "belt-7/cam0/a_b_c_": b"1", "belt-7/cam0/all": b"3",
        "belt-7/dock/7": b"1", "belt-7/dock/all": b"1",
    }  # fmt: skip


def test_a_zone_of_two_cameras_is_counted_over_both(configured: Make, counts: Counts) -> None:
    more = '[frigate]\n[cameras.cam1]\nsource = "1"\n[cameras.cam1.zones.dock]\npolygon = [[0, 0], [1, 0], [1, 1]]\n'
    config = configured(more)
    other = replace(counts, zones={"dock": {"7": 4, "8": 5}})
    told = frigate.counts_of(config, ["7", "8"], "cam1", {"cam0": counts, "cam1": other, "gone": other})
    assert (told["frigate/dock/7"], told["frigate/dock/8"], told["frigate/dock/all"]) == (b"5", b"5", b"10")


def test_all_is_told_before_anything_is_known(configured: Make) -> None:
    told = frigate.retained(configured(), ["7"], {}, {})
    assert told == {
        "frigate/cam0/7": b"0", "frigate/cam0/all": b"0", "frigate/dock/7": b"0", "frigate/dock/all": b"0",
        "frigate/cam0/status/detect": b"offline",
    }  # fmt: skip
    assert frigate.retained(configured("[home_assistant]\n"), ["7"], {}, {}) == {}


@pytest.mark.parametrize(
    ("state", "told"),
    [(CameraState.ONLINE, b"online"), (CameraState.DISABLED, b"disabled"), (CameraState.COVERED, b"offline")],
)
def test_a_camera_detects_when_it_delivers(configured: Make, state: CameraState, told: bytes) -> None:
    assert frigate.state_of(configured(), "cam0", state) == {"frigate/cam0/status/detect": told}
