"""The contract's types as JSON Schemas, each field with the meaning that its docstring gives it.

A type's docstring says under ``Attributes:`` what its fields are. Everything that is generated is made of what is here.
"""

import inspect
import re
from typing import Any, Final

import msgspec

from tinysight_contract import scalars
from tinysight_contract.manifest import Manifest
from tinysight_contract.messages import PAYLOADS
from tinysight_contract.topics import Topic

__all__ = ["Schema", "components", "json_schemas", "key", "meanings", "ref", "scalar"]

Schema = dict[str, Any]


def meanings(docstring: str | None) -> tuple[str, dict[str, str]]:
    """What a docstring says of the whole, and of each attribute."""
    text, _, attributes = inspect.cleandoc(docstring or "").partition("\nAttributes:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return _plain(text), {name: _plain(what) for name, what in found}


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def key(topic: type[Topic]) -> str:
    """A topic's name in documents and in TypeScript: ``CameraStatusTopic`` is ``cameraStatus``."""
    name = topic.__name__.removesuffix("Topic")
    return name[0].lower() + name[1:]


def components(*kinds: type[msgspec.Struct], under: str = "#/$defs/") -> dict[str, Schema]:
    """By name the schemas of these types and of all that lie in them; they refer to each other ``under`` a path."""
    _, made = msgspec.json.schema_components(kinds, ref_template=under + "{name}")
    for each in made.values():
        text, told = meanings(each.get("description"))
        if text:
            each["description"] = text
        for name, schema in each.get("properties", {}).items():
            if name in told:
                schema["description"] = told[name]
    return made


def json_schemas() -> dict[str, bytes]:
    """File name to content of every JSON Schema, as the types are now."""
    made = {}
    kinds: tuple[type[msgspec.Struct], ...] = (*PAYLOADS.values(), Manifest)
    for kind in kinds:
        schema: Schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": f"#/$defs/{kind.__name__}",
            "$defs": components(kind),
        }
        name = f"{kind.__name__.lower()}.json"
        made[name] = msgspec.json.format(msgspec.json.encode(schema, order="sorted"), indent=1) + b"\n"
    return made


def ref(schema: Schema) -> str | None:
    """The name of the type that a schema refers to."""
    return str(schema["$ref"]).rpartition("/")[2] if "$ref" in schema else None


def _bare(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name not in {"type", "description", "default"}}


_SCALARS: Final = {
    name: msgspec.json.schema(getattr(scalars, name)) for name in ("Box", "Digest", "Id", "Point", "Time")
}


def scalar(schema: Schema) -> str | None:
    """The name of the value (``Box``, ``Digest``, ``Id``, ``Point``, ``Time``) that a schema describes."""
    return next((name for name, known in _SCALARS.items() if _bare(known) == _bare(schema)), None)
