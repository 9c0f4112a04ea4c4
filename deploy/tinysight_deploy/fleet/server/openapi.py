"""The fleet's API as an OpenAPI 3.1 document, made of the table of routes and of the types that they take and give."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec

from tinysight_contract import __version__
from tinysight_contract.schemas.types import components
from tinysight_contract.topics import ID
from tinysight_deploy.fleet.keeping.tokens import Role
from tinysight_deploy.fleet.server.problems import PROBLEM, Told

__all__ = ["Header", "Query", "Spec", "document"]

UNDER: Final = "#/components/schemas/"
_ID: Final = f"^{ID.pattern}$"
_PATTERNS: Final = {"digest": "^[0-9a-f]{64}$"}
"""Of parts of a path that are no ids."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter behind the question mark.

    Attributes:
        name: of it.
        what: it does.
        kind: ``integer`` or ``string``.
        least: of a number.
        most: of a number; of a text the longest.
        default: of a number, when it is not given.
    """

    name: str
    what: str
    kind: str = "string"
    least: int = 0
    most: int = 130
    default: int | None = None

    def schema(self) -> dict[str, Any]:
        """As JSON Schema."""
        if self.kind == "integer":
            made: dict[str, Any] = {"type": "integer", "minimum": self.least, "maximum": self.most}
            return made if self.default is None else {**made, "default": self.default}
        return {"type": "string", "maxLength": self.most}


@dataclass(frozen=True, slots=True)
class Header:
    """A header of a request or of an answer.

    Attributes:
        name: of it.
        what: it says.
        kind: ``integer`` or ``string``.
        required: it is always there.
    """

    name: str
    what: str
    kind: str = "integer"
    required: bool = True

    def told(self) -> dict[str, Any]:
        """As OpenAPI has it, but for the name."""
        schema: dict[str, Any] = {"type": self.kind} | ({"minimum": 0} if self.kind == "integer" else {})
        return {"description": self.what, "required": self.required, "schema": schema}


@dataclass(frozen=True, slots=True)
class Spec:
    """One route, as it is told to others.

    Attributes:
        method: of HTTP.
        path: with what changes in braces.
        role: the least that may; null when everybody may.
        name: of the operation, for programs.
        what: it does, one sentence.
        answer: the type that is given; null when there is no body.
        status: of an answer that did what was asked.
        body: the type that is taken; null when none is.
        queries: what may stand behind the question mark.
        problems: statuses that say what is wrong, beside those of every route.
        also: other statuses, each with what it means.
        example: of the body.
        raw: the media type of a body that is no JSON.
        optional: the body may be left out.
        gives: the media type of an answer that is no JSON.
        takes: headers of the request.
        tells: headers of answers, by status.
        any_token: whoever has a token may, whatever its role.
    """

    method: str
    path: str
    role: Role | None
    name: str
    what: str
    answer: type[msgspec.Struct] | None
    status: int = 200
    body: type[msgspec.Struct] | None = None
    queries: tuple[Query, ...] = ()
    problems: tuple[int, ...] = ()
    also: Mapping[int, str] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None
    raw: str | None = None
    optional: bool = False
    gives: str | None = None
    takes: tuple[Header, ...] = ()
    tells: Mapping[int, tuple[Header, ...]] = field(default_factory=dict)
    any_token: bool = False


def document(specs: Iterable[Spec]) -> dict[str, Any]:
    """The whole document, as JSON has it."""
    table = list(specs)
    kinds: dict[type[msgspec.Struct], None] = {Told: None}
    for spec in table:
        kinds |= {kind: None for kind in (spec.body, spec.answer) if kind is not None}
    paths: dict[str, dict[str, Any]] = {}
    for spec in table:
        paths.setdefault(spec.path, {})[spec.method.lower()] = _operation(spec)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "TinySight fleet",
            "version": __version__,
            "description": "Roll models out to devices in stages. What a device installs is decided by signed metadata "
            "that this server cannot make.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "paths": paths,
        "components": {
            "schemas": components(*kinds, under=UNDER),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "From `tinysight fleet token add`."}
            },
        },
    }


def _operation(spec: Spec) -> dict[str, Any]:
    needs = "" if spec.role is None else f" Needs the role {spec.role.value}."
    needs = " Needs a token of any role." if spec.any_token else needs
    made: dict[str, Any] = {
        "operationId": spec.name,
        "summary": spec.what,
        "description": f"{spec.what}{needs}",
        "responses": _responses(spec),
        "security": [] if spec.role is None else [{"token": []}],
    }
    inside = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": _PATTERNS.get(name, _ID)},
        }
        for name in re.findall(r"{(\w+)}", spec.path)
    ]
    behind = [
        {"name": each.name, "in": "query", "description": each.what, "schema": each.schema()} for each in spec.queries
    ]
    above = [{"name": each.name, "in": "header", **each.told()} for each in spec.takes]
    if parameters := [*inside, *behind, *above]:
        made["parameters"] = parameters
    if spec.body is not None:
        content: dict[str, Any] = {"schema": {"$ref": UNDER + spec.body.__name__}}
        if spec.example is not None:
            content["example"] = spec.example
        made["requestBody"] = {"required": not spec.optional, "content": {"application/json": content}}
    if spec.raw is not None:
        made["requestBody"] = {"required": True, "content": {spec.raw: {}}}
    return made


def _responses(spec: Spec) -> dict[str, Any]:
    good: dict[str, Any] = {"description": HTTPStatus(spec.status).phrase}
    if spec.answer is not None:
        good["content"] = {"application/json": {"schema": {"$ref": UNDER + spec.answer.__name__}}}
    if spec.gives is not None:
        good["content"] = {spec.gives: {}}
    problems = {400, 422, *spec.problems}  # something came that is not asked for
    if spec.role is not None:
        problems |= {401, 403, 429, 503}
    if spec.body is not None:
        problems |= {408, 413, 415}
    if "{" in spec.path:
        problems |= {404}
    wrong = {} if spec.method == "HEAD" else {"content": {PROBLEM: {"schema": {"$ref": UNDER + Told.__name__}}}}
    made: dict[str, Any] = {
        str(spec.status): good,
        **{str(status): {"description": what} for status, what in spec.also.items()},
        **{str(status): {"description": HTTPStatus(status).phrase, **wrong} for status in sorted(problems)},
    }
    for status, headers in spec.tells.items():
        made[str(status)]["headers"] = {each.name: each.told() for each in headers}
    return made
