"""The contract as an AsyncAPI 3.0 document: ``docs/asyncapi.json``, as the device sees it.

What the device publishes it sends, what operators publish to it it receives. AsyncAPI's own schemas are those of
JSON Schema draft-07, so tuples and references are written in its way.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import msgspec

from tinysight_contract import messages as m
from tinysight_contract import topics as t
from tinysight_contract.schemas.types import Schema, components, key, meanings

__all__ = ["asyncapi"]

_ABOUT: Final = (
    "What a TinySight device says and hears over MQTT. Topics and payloads are explained in docs/mqtt.md. "
    "An empty payload takes back what was retained."
)
_DESCRIBED: Final = "#/components/schemas/"


def asyncapi(examples: Mapping[str, bytes]) -> bytes:
    """The document; ``examples`` are payloads by the payload's lower-case name."""
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "TinySight",
            "version": t.ROOT.rpartition("v")[2],
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {key(topic): _channel(topic) for topic in t.TOPICS},
        "operations": {key(topic): _operation(topic) for topic in t.TOPICS},
        "components": {
            "messages": {key(topic): _message(topic, examples) for topic in t.TOPICS},
            "parameters": dict(pair for topic in t.TOPICS for pair in _parameters(topic)),
            "schemas": {
                name: _draft7(schema) for name, schema in components(*m.PAYLOADS.values(), under=_DESCRIBED).items()
            },
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _parameters(topic: type[t.Topic]) -> list[tuple[str, Schema]]:
    told = dict(pair for kind in topic.__mro__ for pair in meanings(kind.__doc__)[1].items())
    # AsyncAPI 3 has no pattern for a parameter, but room for extensions.
    return [
        (spec.name, {"description": f"{told[spec.name]} Matches `{t.ID.pattern}`.", "x-pattern": f"^{t.ID.pattern}$"})
        for spec in fields(topic)
    ]


def _channel(topic: type[t.Topic]) -> Schema:
    return {
        "address": f"{t.ROOT}/{{site}}/{{device}}/{topic.TAIL}",
        "description": meanings(topic.__doc__)[0],
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name, _ in _parameters(topic)},
        "messages": {key(topic): {"$ref": f"#/components/messages/{key(topic)}"}},
    }


def _operation(topic: type[t.Topic]) -> Schema:
    made: Schema = {
        "action": "receive" if topic.TO_DEVICE else "send",
        "channel": {"$ref": f"#/channels/{key(topic)}"},
        "summary": meanings(topic.__doc__)[0],
        "bindings": {"mqtt": {"qos": topic.QOS, "retain": topic.RETAIN, "bindingVersion": "0.2.0"}},
    }
    if topic is t.CommandTopic:
        made["reply"] = {"channel": {"$ref": f"#/channels/{key(t.AckTopic)}"}}
    return made


def _message(topic: type[t.Topic], examples: Mapping[str, bytes]) -> Schema:
    kind = m.PAYLOADS.get(topic)
    if kind is None:
        return {
            "summary": meanings(topic.__doc__)[0],
            "contentType": "image/jpeg",
            "payload": {"type": "string", "contentEncoding": "binary", "contentMediaType": "image/jpeg"},
        }
    example = {"name": kind.__name__.lower(), "payload": msgspec.json.decode(examples[kind.__name__.lower()])}
    made: Schema = {
        "summary": meanings(kind.__doc__)[0],
        "payload": {"$ref": f"{_DESCRIBED}{kind.__name__}"},
        "examples": [example],
    }
    if topic in {t.CommandTopic, t.AckTopic}:
        made["correlationId"] = {"location": "$message.payload#/id"}
    return made


def _draft7(schema: Any) -> Any:  # noqa: ANN401 -- any part of a schema
    """The same in the words of draft-07, which knows no ``prefixItems`` and nothing beside a ``$ref``."""
    if isinstance(schema, list):
        return [_draft7(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _draft7(value) for name, value in schema.items()}
    if "prefixItems" in made:
        made["items"], made["additionalItems"] = made.pop("prefixItems"), False
    if "$ref" in made and len(made) > 1:
        made["allOf"] = [{"$ref": made.pop("$ref")}]
    return made
