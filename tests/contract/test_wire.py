"""The judge of what end-to-end tests hear finds what breaks the contract."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tinysight_contract import topics as t
from tinysight_contract.messages import PAYLOADS

GOLDEN = Path(__file__).parents[1] / "golden"
EVENT = json.loads((GOLDEN / "event.json").read_bytes())
AT, STATUS, SHOT = (
    str(topic) for topic in (t.EventTopic("s", "d", "c"), t.StatusTopic("s", "d"), t.SnapshotTopic("s", "d", "c", "e"))
)


def test_the_golden_payloads_pass(wire: Any) -> None:
    for topic, kind in PAYLOADS.items():
        payload = (GOLDEN / f"{kind.__name__.lower()}.json").read_bytes()
        wire.check([(str(topic(*"abcd"[: len(fields(topic))])), payload, topic.RETAIN)])
    wire.check([(STATUS, b"", False), (SHOT, b"\xff\xd8\xff\xe0 and so on \xff\xd9", False)])
    wire.check([(str(t.CommandTopic("s", "d", "restart")), b"what tests send on purpose", True)])


@pytest.mark.parametrize(
    ("topic", "payload", "retained", "complaint"),
    [
        pytest.param("tinysight/v1/s/d/weather", b"{}", False, "no topic", id="topic"),
        pytest.param(AT, json.dumps({**EVENT, "seq": "17"}).encode(), False, "seq", id="type"),
        pytest.param(
            AT, json.dumps({**EVENT, "mood": "good"}).encode(), False, "mood", id="more than the contract has"
        ),
        pytest.param(AT, b"", False, "nothing to take back", id="empty"),
        pytest.param(AT, json.dumps(EVENT).encode(), True, "retained", id="retained"),
        pytest.param(AT, b"{", False, "Not a valid Event", id="no JSON"),
        pytest.param(SHOT, b"\xff\xd8\xff\xe0 cut off", False, "no JPEG", id="no JPEG"),
    ],
)
def test_what_breaks_the_contract_is_found(
    topic: str, payload: bytes, retained: bool, complaint: str, wire: Any
) -> None:
    with pytest.raises((AssertionError, ValueError), match=complaint):
        wire.check([(topic, payload, retained)])
