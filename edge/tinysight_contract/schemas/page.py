"""The tables of ``docs/mqtt.md``: every topic, and every field of every payload. The prose around them is by hand."""

import json
from collections.abc import Iterator
from typing import Final

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas.types import Schema, components, meanings, ref, scalar

__all__ = ["page"]

_SCALARS: Final = {
    "Box": "`[x1, y1, x2, y2]`, 0..1",
    "Digest": "64 hex digits",
    "Id": "id",
    "Point": "`[x, y]`, 0..1",
    "Time": "time",
}
_UNITS: Final = {"s": "s", "ms": "ms", "mib": "MiB", "percent": "%", "c": "°C", "fps": "1/s", "p50": "ms", "p95": "ms"}
"""By the word of a field's name that says it."""


def page(text: str) -> str:
    """The page with its tables as the types are now.

    Raises:
        ContractError: a marker is missing.
    """
    for name, table in (("topics", _topics()), ("payloads", _payloads())):
        begin, end = f"<!-- {name}: made by `make schemas` -->\n", f"<!-- end of {name} -->\n"
        before, begun, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not begun or not ended:
            raise ContractError(
                f"The page has no place for its {name}.", mend=f"Put back {begin.strip()} and {end.strip()}."
            )
        text = f"{before}{begin}\n{table}\n{end}{after}"
    return text


def _topics() -> str:
    rows = "| topic under the root | what | from | retained | QoS | payload | example, schema |\n"
    rows += "|---|---|---|---|---|---|---|\n"
    for topic in t.TOPICS:
        tail = topic.TAIL.replace("{camera}", "<cam>").replace("{", "<").replace("}", ">")
        kind = PAYLOADS.get(topic)
        name = kind.__name__ if kind else ""
        low = name.lower()
        payload = _link(name) if kind else "a JPEG"
        links = f"[{low}.json](../tests/golden/{low}.json), [schema](../edge/tinysight_contract/schemas/{low}.json)"
        rows += (
            f"| `{tail}` | {meanings(topic.__doc__)[0]} | {'operator' if topic.TO_DEVICE else 'device'} "
            f"| {'yes' if topic.RETAIN else 'no'} | {topic.QOS} | {payload} | {links if kind else ''} |\n"
        )
    return rows


def _payloads() -> str:
    made = components(*PAYLOADS.values())
    shown: dict[str, str] = {}
    for kind in PAYLOADS.values():
        for name in (kind.__name__, *_within(kind.__name__, made)):
            if name not in shown and "properties" in made[name]:
                shown[name] = _table(name, made, "###" if name == kind.__name__ else "####")
    return "\n".join(shown.values())


def _within(name: str, made: dict[str, Schema]) -> Iterator[str]:
    """The types that lie in a type, each before those that lie in it."""
    for below in _refs(made[name].get("properties", {})):
        yield below
        yield from _within(below, made)


def _refs(part: object) -> Iterator[str]:
    """The types that any part of a schema names: in lists, by name, or null."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"].rpartition("/")[2]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from _refs(each)


def _table(name: str, made: dict[str, Schema], level: str) -> str:
    required = made[name].get("required", [])
    rows = "".join(
        f"| `{field}` | {_words(schema, made, unit=_unit(field))} "
        f"| {'' if field in required else _written(schema.get('default'))} | {schema.get('description', '')} |\n"
        for field, schema in made[name]["properties"].items()
    )
    about = made[name].get("description", "")
    return f"{level} {name}\n\n{about}\n\n| field | type | if missing | meaning |\n|---|---|---|---|\n{rows}"


def _unit(field: str) -> str:
    return next((_UNITS[word] for word in reversed(field.split("_")) if word in _UNITS), "")


def _written(value: object) -> str:
    return f"`{json.dumps(value)}`"


def _link(name: str) -> str:
    return f"[{name}](#{name.lower()})"


def _words(schema: Schema, made: dict[str, Schema], *, unit: str) -> str:
    """A type and its unit as a reader needs them."""
    if known := scalar(schema):
        return _SCALARS[known]
    if name := ref(schema):
        return _words(made[name], made, unit=unit) if "enum" in made[name] else _link(name)
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(each, made, unit=unit) for each in schema["anyOf"]))
    match schema.get("type"):
        case "array":
            return f"list of {_words(schema.get('items', {}), made, unit=unit)}"
        case "object" if "additionalProperties" in schema:
            names = scalar(schema.get("propertyNames", {})) or ""
            inner = _words(schema["additionalProperties"], made, unit=unit)
            return f"by {_SCALARS.get(names, 'name')}: {inner}"
        case "object":
            return "object"
        case "integer" | "number" as plain:
            low, high = schema.get("minimum"), schema.get("maximum")
            within = "" if low is None else f" ≥ {low:g}" if high is None else f" {low:g}..{high:g}"
            return f"{plain}{within}{f', {unit}' if unit else ''}"
        case plain:
            return str(plain or "anything")
