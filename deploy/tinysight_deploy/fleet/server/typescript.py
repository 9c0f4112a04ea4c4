"""The fleet's API for browsers: ``dashboard/src/fleet_types.ts``, made of the table and types of the OpenAPI document.

``python -m tinysight_deploy.fleet.server.typescript`` writes it again after a change of `api` or `forms`; a test fails
when it has drifted. What MQTT carries, too, is taken from ``contract.ts``.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from tinysight_contract.messages import PAYLOADS
from tinysight_contract.schemas.types import Schema, components
from tinysight_contract.schemas.typescript import interfaces
from tinysight_deploy.fleet.server.api import SPECS
from tinysight_deploy.fleet.server.openapi import Spec
from tinysight_deploy.fleet.server.problems import Told

__all__ = ["OUT", "typescript"]

OUT: Final = Path("dashboard", "src", "fleet_types.ts")
"""Where it lies in the repository."""
_SCALARS: Final = ("Digest", "Id", "Time")
_UNDER: Final = "#/$defs/"
_HEAD: Final = """\
// The fleet's API, for browsers. Made by `make schemas`; do not edit.
//
// What the server answers has all its fields, null where there is nothing. A field with a question mark may be missing,
// or left out of what is sent; `...Given` is a type as it is sent. New fields may come in answers. Nothing is checked
// here: `(await response.json()) as View` believes the server. What was not done is answered as `Told`.
"""
_ANSWERS: Final = "What each route answers that did what was asked, by method and path."
_BODIES: Final = "What each route takes that takes a body; the role that a token needs stands in `ROLES`."
_ROLES: Final = "The least role that each route needs; null for none. A device's token lets read what is its own."


def typescript(specs: Sequence[Spec] = SPECS) -> str:
    """The whole file."""
    answers = [spec.answer for spec in specs if spec.answer is not None]
    bodies = [spec.body for spec in specs if spec.body is not None]
    known = components(*PAYLOADS.values())
    told = components(*answers, Told)
    own = {name: schema for name, schema in told.items() if schema != known.get(name)}
    given = _given(components(*bodies), own)
    text = interfaces(own, whole=True)
    sent = interfaces({name: schema for name, schema in given.items() if schema != known.get(name)})
    tables = (
        _table("Answers", _ANSWERS, {_route(each): each.answer.__name__ for each in specs if each.answer is not None}),
        _table("Bodies", _BODIES, {_route(each): each.body.__name__ for each in specs if each.body is not None}),
        _roles(specs),
    )
    body = "".join((text, sent, *tables))
    names = sorted(
        name for name in {*known.keys() - own.keys(), *_SCALARS} if f": {name}" in body or f" {name} " in body
    )
    return f'{_HEAD}\nimport type {{ {", ".join(names)} }} from "./contract.js";\n{body}'


def _given(schemas: Mapping[str, Schema], told: Mapping[str, Schema]) -> dict[str, Schema]:
    """Types as they are sent; those that are answered, too, under another name, for there they are whole."""
    text = msgspec.json.encode(schemas).decode()
    for name in schemas.keys() & told.keys():
        text = text.replace(f'"{_UNDER}{name}"', f'"{_UNDER}{name}Given"')
    read: dict[str, Any] = msgspec.json.decode(text)
    return {f"{name}Given" if name in told else name: schema for name, schema in read.items()}


def _route(spec: Spec) -> str:
    return f"{spec.method} {spec.path}"


def _table(name: str, what: str, rows: Mapping[str, str]) -> str:
    lines = "".join(f'  "{route}": {kind};\n' for route, kind in rows.items())
    return f"\n/** {what} */\nexport interface {name} {{\n{lines}}}\n"


def _roles(specs: Sequence[Spec]) -> str:
    needed = {_route(each): None if each.role is None else each.role.value for each in specs}
    lines = "".join(f'  "{route}": {json.dumps(role)},\n' for route, role in needed.items())
    return f"\n/** {_ROLES} */\nexport const ROLES = {{\n{lines}}} as const satisfies Record<string, Role | null>;\n"


if __name__ == "__main__":
    (Path(__file__).parents[4] / OUT).write_text(typescript(), "utf-8")
