"""The contract for browsers: ``dashboard/src/contract.ts``, an interface for each payload, topics built and parsed.

The types are made of the JSON Schemas; only what all topics share is written here by hand.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas.types import Schema, components, key, meanings, ref, scalar
from tinysight_contract.topics import ID, ROOT, TOPICS, Topic

__all__ = ["interfaces", "typescript"]

_HEAD: Final = """\
// The MQTT contract of TinySight, version 1, for browsers. Made by `make schemas`; do not edit.
//
// A field with a question mark may be missing; others are always there. New fields may come within version 1.
// What comes over the wire is not checked here: `JSON.parse(text) as Event` believes the device.

/** In 0..1 of the frame. */
export type Box = [x1: number, y1: number, x2: number, y2: number];

/** SHA-256 in lower-case hexadecimal. */
export type Digest = string;

/** 1 to 63 of a-z, 0-9 and "-", beginning with a letter or a digit. */
export type Id = string;

/** In 0..1 of the frame. */
export type Point = [x: number, y: number];

/** UTC, ISO 8601. */
export type Time = string;
"""
_CARRIES: Final = (
    "What each kind of topic carries, JSON or a JPEG's bytes. An empty payload takes back what was retained."
)
_TOPICS: Final = """
/** The part of a topic below its device, and how its messages are published. */
export interface Rules {
  readonly tail: string;
  readonly retain: boolean;
  readonly qos: 0 | 1;
  /** Published by operators and heard by the device; all else the other way round. */
  readonly toDevice: boolean;
}

const build = (kind: Kind, levels: Record<string, string>): string => {
  const fill = (_: string, name: string): string => {
    const level = levels[name] ?? "";
    if (!ID.test(level)) throw new RangeError(`${name} ${JSON.stringify(level)} is not a valid id`);
    return level;
  };
  return `${ROOT}/{site}/{device}/${RULES[kind].tail}`.replace(/\\{(\\w+)\\}/g, fill);
};

/** Read any topic back; null when it is none of the contract. The inverse of `topicOf`. */
export function parse(text: string): Topic | null {
  const levels = text.split("/");
  for (const kind of Object.keys(RULES) as Kind[]) {
    const want = `${ROOT}/{site}/{device}/${RULES[kind].tail}`.split("/");
    const found: Record<string, string> = { kind };
    const fits = (level: string, at: number): boolean => {
      const pattern = want[at] ?? "";
      if (!pattern.startsWith("{")) return level === pattern;
      found[pattern.slice(1, -1)] = level;
      return ID.test(level);
    };
    if (levels.length === want.length && levels.every(fits)) return found as unknown as Topic;
  }
  return null;
}
"""


def typescript() -> str:
    """The whole file."""
    types = [_type(name, schema) for name, schema in components(*PAYLOADS.values()).items()]
    return "".join((_HEAD, *types, *map(_topic, TOPICS), _table(), _TOPICS, _builders()))


def interfaces(schemas: Mapping[str, Schema], *, whole: bool = False) -> str:
    """Each schema as an interface or a union of words, as `typescript` writes them.

    Args:
        schemas: by the name of the type, as `components` gives them.
        whole: no field is missing for having its default: so they are when whoever writes them leaves out nothing.
    """
    return "".join(_type(name, schema, whole=whole) for name, schema in schemas.items())


def _comment(text: str, indent: str = "") -> str:
    """One line, or wrapped at 120 columns."""
    words, lines = text.replace("*/", "* /").split(), [""]
    if len(indent) + len(text) + 7 <= 120:
        return f"{indent}/** {text} */\n"
    for word in words:
        if len(lines[-1]) + len(word) + len(indent) > 115:
            lines.append("")
        lines[-1] += f" {word}"
    return f"{indent}/**\n" + "".join(f"{indent} *{line}\n" for line in lines) + f"{indent} */\n"


def _type(name: str, schema: Schema, *, whole: bool = False) -> str:
    """One interface, or one union of words."""
    comment = "\n" + _comment(schema.get("description", name))
    if "enum" in schema:
        return f"{comment}export type {name} = {_written(schema)};\n"
    required, lines = list(schema.get("required", [])), ""
    if whole:
        required += [field for field, inner in schema["properties"].items() if "default" in inner]
    for field, inner in schema["properties"].items():
        lines += _comment(inner["description"], "  ") if "description" in inner else ""
        lines += f"  {field}{'' if field in required else '?'}: {_written(inner)};\n"
    return f"{comment}export interface {name} {{\n{lines}}}\n"


def _written(schema: Schema) -> str:
    """A schema as a TypeScript type."""
    if name := scalar(schema) or ref(schema):
        return name
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(dict.fromkeys(map(_written, schema["anyOf"])))
    match schema.get("type"):
        case "array":
            inner = _written(schema.get("items", {}))
            return f"({inner})[]" if " " in inner else f"{inner}[]"
        case "object":
            names = schema.get("propertyNames", {})
            values = schema.get("additionalProperties", {})
            return f"Record<{scalar(names) or 'string'}, {_written(values)}>"
        case "integer" | "number":
            return "number"
        case "string" | "boolean" | "null" as plain:
            return str(plain)
        case _:
            return "unknown"


def _levels(topic: type[Topic]) -> list[str]:
    return [spec.name for spec in fields(topic)]


def _topic(topic: type[Topic]) -> str:
    what, _ = meanings(topic.__doc__)
    levels = "".join(f"  {name}: Id;\n" for name in _levels(topic))
    return f'\n{_comment(what)}export interface {topic.__name__} {{\n  kind: "{key(topic)}";\n{levels}}}\n'


def _table() -> str:
    """What ties topics, payloads and rules together."""
    names = [f"  | {topic.__name__}\n" for topic in TOPICS]
    payloads = [
        f"  {key(topic)}: {PAYLOADS[topic].__name__ if topic in PAYLOADS else 'Uint8Array'};\n" for topic in TOPICS
    ]
    rules = [
        f'  {key(topic)}: {{ tail: "{topic.TAIL}", retain: {json.dumps(topic.RETAIN)}, qos: {topic.QOS}, '
        f"toDevice: {json.dumps(topic.TO_DEVICE)} }},\n"
        for topic in TOPICS
    ]
    return (
        f'\nexport const ROOT = "{ROOT}";\n\n/** What may stand as one level of a topic. */\n'
        f"export const ID = /^{ID.pattern}$/;\n\n/** Every topic, told apart by `kind`. */\n"
        f"export type Topic =\n{''.join(names)}".rstrip()
        + ";\n"
        'export type Kind = Topic["kind"];\n\n'
        f"{_comment(_CARRIES)}export interface Payloads {{\n{''.join(payloads)}}}\n\n"
        f"export const RULES: Readonly<Record<Kind, Rules>> = {{\n{''.join(rules)}}};\n"
    )


def _builders() -> str:
    lines = ""
    for topic in TOPICS:
        levels = "; ".join(f"{name}: Id" for name in _levels(topic))
        lines += f'  {key(topic)}: (at: {{ {levels} }}): string => build("{key(topic)}", at),\n'
    return (
        "\n/** `topicOf.event({ site, device, camera })` is a topic's text. A level that is no id is a RangeError. */\n"
        f"export const topicOf = {{\n{lines}}};\n"
    )
