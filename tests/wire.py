"""Whether what devices said on the wire fits the published contract: every topic, every payload.

What is sent to a device (commands, the desired state) is not judged here: tests send wrong ones on purpose, and the
device itself judges them.
"""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import jsonschema

from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS, decode
from tinysight_contract.schemas import load
from tinysight_contract.topics import Topic, parse

BY_SCHEMA = 200
"""Of each kind in each test; the types, which the schemas are made of and 75 times as quick, judge all others."""


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """The same schema without room for more: readers ignore unknown fields, and devices send none."""
    for each in schema["$defs"].values():
        if "properties" in each:
            each["additionalProperties"] = False
    return schema


class Judge:
    """Compares what was heard with the committed schemas, compiled once."""

    def __init__(self) -> None:
        self._schemas = {
            topic: jsonschema.Draft202012Validator(closed(load(kind.__name__.lower())))
            for topic, kind in PAYLOADS.items()
        }

    def check(self, heard: Iterable[tuple[str, bytes, bool]]) -> None:
        """Fail if any message (topic, payload, whether the broker had retained it) breaks the contract."""
        seen = Counter[type[Topic]]()
        for text, payload, retained in heard:
            topic = parse(text)
            seen[type(topic)] += 1
            if not topic.TO_DEVICE and (wrong := self._wrong(topic, payload, retained, seen[type(topic)])):
                raise AssertionError(f"{text} breaks the contract: {wrong}\n{payload[:2000]!r}")

    def _wrong(self, topic: Topic, payload: bytes, retained: bool, number: int) -> str:
        if retained and not topic.RETAIN:
            return "it was retained"
        if not payload:
            return "" if topic.RETAIN else "it is empty, and there is nothing to take back"
        if type(topic) not in PAYLOADS:
            return "" if payload[:3] == b"\xff\xd8\xff" and payload[-2:] == b"\xff\xd9" else "it is no JPEG"
        try:
            decode(payload, PAYLOADS[type(topic)])
            if number <= BY_SCHEMA:
                self._schemas[type(topic)].validate(json.loads(payload))
        except (ContractError, jsonschema.ValidationError) as error:
            return str(error)
        return ""
